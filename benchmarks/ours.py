"""whet as a worker: python benchmarks/ours.py prepare, or step|sample|learner SETTING [SIZE [DTYPE]].

The tree that PYTHONPATH names is what is measured: `make bench-compare` names two.
"""

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import torch
import work

from whet.engines.local import LocalEngine
from whet.papers import grpo
from whet.settings import with_settings
from whet.step import State, step
from whet.tasks import Problem, Verdict
from whet.tasks.shelf import make

RECIPE = grpo.recipe.with_(name="grpo", penalties=())  # no reference model, as TRL by default


def prepare() -> None:
    """What the peers are given: models, and the problems of compose."""
    for levels in ("1", "12"):
        task = make("compose", levels=",".join(levels))
        rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in list(task.train())]
        torch.manual_seed(0)
        rows = [rows[i] for i in torch.randperm(len(rows)).tolist()[:2000]]
        (work.PLACE / f"compose-{levels}.json").write_text(json.dumps(rows))
    for name in ("padded", "large"):
        work.model(name)


def judged_like_peers(setting: str, max_tokens: int) -> Any:
    """A task whose judge is the same function as the peers'."""

    def judge(problems: list[Problem], texts: list[str]) -> list[Verdict]:
        scores = [work.reward(setting, text, problem.answer) for problem, text in zip(problems, texts, strict=True)]
        return [Verdict(score, correct=score > 0) for score in scores]

    return SimpleNamespace(name=setting, max_tokens=max_tokens, judge=judge)


def steps(setting: str, size: str, dtype: str) -> None:
    """Whole steps: A, B, E and T."""
    todo, rows = work.sized(setting, size), [Problem(**row) for row in work.prompts(setting)]
    engine, task = LocalEngine.load(work.model(todo.model), dtype=dtype), judged_like_peers(setting, todo.tokens)
    sizes = {"choose.prompts": todo.prompts, "sample.responses": todo.responses, "update.lr": todo.lr}
    state = State(with_settings(RECIPE, sizes))

    def take(turn: int) -> dict[str, float]:
        nonlocal state
        state, batch = step(engine, task, rows, state, seed=work.seed())
        silent = (batch["advantage"] == 0).all(1).float().mean()
        told = {"score": float(batch["score"].mean()), "gap": batch.told.get("sampler_gap", 0.0)}
        return {"tokens": int(batch["length"].sum()), "silent": float(silent), **told}

    work.take_turns(take)


def sample(setting: str, size: str, dtype: str) -> None:
    """Sampling alone: CA and CB."""
    todo, rows = work.sized(setting, size), work.prompts(setting)
    engine = LocalEngine.load(work.model(todo.model), dtype=dtype)

    def take(turn: int) -> dict[str, float]:
        problems = [Problem(**row) for row in work.turn_of(rows, todo, turn)]
        batch = engine.sample(problems, [todo.responses] * len(problems), max_tokens=todo.tokens, seed=turn)
        return {"tokens": int(batch["length"].sum())}

    work.take_turns(take)


def learner(setting: str, size: str, dtype: str) -> None:
    """The learner alone on one batch, and what the machine's matrix products could do just before and after: D."""
    from whet.engines.profile import Profile, limits, profiling  # here, so that older commits can take steps
    from whet.step import objective, wanted, weigh

    todo, rows = work.sized(setting, size), [Problem(**row) for row in work.prompts(setting)]
    engine, task = LocalEngine.load(work.model(todo.model), dtype=dtype), judged_like_peers(setting, todo.tokens)
    problems = rows[: todo.prompts]
    body = (
        engine.model.num_parameters() - engine.model.get_output_embeddings().weight.numel()
    )  # one matrix is both ends
    batch = engine.sample(problems, [todo.responses] * len(problems), max_tokens=todo.tokens, seed=0)
    scores = [verdict.score for verdict in task.judge(batch.problems, batch.texts)]
    batch = weigh(RECIPE, batch.having(score=torch.tensor(scores)), {"max_tokens": todo.tokens}, {})

    def take(turn: int) -> dict[str, float]:
        before, profile = limits(engine.device, engine.dtype), Profile()
        mine = engine.learner(objective(RECIPE), wanted(RECIPE))
        began = time.perf_counter()
        with profiling(profile):
            mine.gradient(batch)
        seconds = time.perf_counter() - began
        limit = max(before.matmul, limits(engine.device, engine.dtype).matmul)
        spent = [profile.spent[name] for name in ("forward", "backward")]
        padding = 2 * body * (spent[0].padded - spent[0].tokens)  # forward; twice that backward
        flops = sum(x.flops for x in spent) - 3 * padding
        told = {"flops": flops, "limit": limit, "share": flops / seconds / limit}
        return {"seconds": seconds, "tokens": int(batch["length"].sum()), **told}

    work.take_turns(take)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
        sys.exit()
    what, setting, size, dtype = [*sys.argv[1:], "", "", ""][:4]
    torch.set_num_threads(work.threads())
    {"step": steps, "sample": sample, "learner": learner}[what](setting, size, dtype or work.sized(setting, size).dtype)
