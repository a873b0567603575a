"""One measurement of whet: python benchmarks/ours.py SETTING SEED [responses x] [length x]. Prints one JSON line."""

import json
import sys
import time
from types import SimpleNamespace

import torch
import work

from whet.engines.local import LocalEngine
from whet.engines.profile import Profiler
from whet.papers import grpo
from whet.prepare import BASE
from whet.settings import with_settings
from whet.step import State, step
from whet.tasks import Problem, Verdict
from whet.tasks.shelf import make

RECIPE = grpo.recipe.with_(name="grpo", penalties=())  # no reference model, as TRL by default


def prepare() -> None:
    """The problems of setting A, written down for peers."""
    rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in list(make("compose").train())[:2000]]
    (work.PLACE / "compose.json").write_text(json.dumps(rows))
    work.large()


def fake_task(setting: str, max_tokens: int) -> SimpleNamespace:
    """A task whose judge is the same function as the peers'."""

    def judge(problems: list[Problem], texts: list[str]) -> list[Verdict]:
        scores = [work.reward(setting, text, problem.answer) for problem, text in zip(problems, texts, strict=True)]
        return [Verdict(score, correct=score > 0) for score in scores]

    return SimpleNamespace(name=setting, max_tokens=max_tokens, judge=judge)


def measure(setting: str, seed: int, times: int = 1, longer: int = 1) -> None:
    """A, B: a whole step; CA, CB: sampling alone; D: the learner alone. The first step warms up and is not told."""
    kind = "A" if setting in ("A", "CA") else "B"
    engine = LocalEngine.load(BASE if kind == "A" else work.large())
    each, tokens = (work.RESPONSES, 96) if kind == "A" else (work.LONG["responses"], work.LONG["max_tokens"])
    each, tokens = each * times, tokens * longer
    pool = [Problem(**row) for row in work.prompts(kind, seed)]
    if setting in ("CA", "CB"):
        engine.sample(pool[:2], [2, 2], max_tokens=8, seed=0)
        began = time.perf_counter()
        batch = engine.sample(pool, [each] * len(pool), max_tokens=tokens, seed=seed)
        work.tell(time.perf_counter() - began, int(batch["length"].sum()))
        return
    state, task = State(with_settings(RECIPE, {"sample.responses": each})), fake_task(kind, tokens)
    if setting != "B":
        state, _ = step(engine, task, pool, state, seed)
    profiler = Profiler()
    began = time.perf_counter()
    with profiler.measuring(engine):
        state, batch = step(engine, task, pool, state, seed)
    seconds = profiler.seconds
    spent = profiler.profile.spent
    learn = spent["forward"].seconds + spent["backward"].seconds
    assert profiler.machine is not None
    share = (spent["forward"].flops + spent["backward"].flops) / learn / profiler.machine.matmul if learn else 0.0
    more = {f"{name}_s": x.seconds for name, x in spent.items()}
    assert time.perf_counter() > began
    work.tell(seconds, int(batch["length"].sum()), gap=batch.told["sampler_gap"], matmul_share=share, **more)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    if sys.argv[1] == "prepare":
        prepare()
    else:
        measure(sys.argv[1], *map(int, sys.argv[3:]))
