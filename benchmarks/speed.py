"""One measurement that any commit can make, of the tree that PYTHONPATH names: speed.py THREADS CA|step SEED."""

import sys
import time

import torch
import work

from whet.engines.local import LocalEngine
from whet.papers import grpo
from whet.step import State, step
from whet.tasks.shelf import make
from whet.train import BASE

torch.set_num_threads(int(sys.argv[1]))
what, seed = sys.argv[2], int(sys.argv[3])
engine, task = LocalEngine.load(BASE), make("compose")
pool = list(task.train())
if what == "CA":
    engine.sample(pool[:2], [2, 2], max_tokens=8, seed=0)
    began = time.perf_counter()
    batch = engine.sample(pool[16 * seed : 16 * seed + 16], [16] * 16, max_tokens=96, seed=seed)
else:
    state, _ = step(engine, task, pool, State(grpo.recipe), seed)
    began = time.perf_counter()
    _, batch = step(engine, task, pool, state, seed)
work.tell(time.perf_counter() - began, int(batch["length"].sum()))
