"""A base model for `digits`: it answers in the right form, and is right about half of the time."""

import time
from functools import cache

import torch

from whet import evaluate, shelf
from whet.draw import generator
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import reinforce, rlvr_decomposed, tea_rl
from whet.prepare import MICRO_LR
from whet.step import State, step
from whet.tasks import Problem, Verdict
from whet.tasks.digits import Digits

TASK = Digits()
POOL = [TASK.train()[i] for i in torch.randperm(len(TASK.train()), generator=generator(0)).tolist()]
WARM_UP, RIGHT = 200, 0.45  # imitation steps, and the share of what is imitated that is not drawn at random


class Careless(Digits):
    """Worked solutions of which about half are wrong: what a base model has read."""

    def __init__(self) -> None:
        self.rng = generator(1)

    def demonstrate(self, problem: Problem) -> str:
        careful = float(torch.rand((), generator=self.rng)) < RIGHT
        return problem.answer if careful else str(int(torch.randint(10, (), generator=self.rng)))

    def judge(self, problems, texts):
        return [Verdict(1.0, True)] * len(texts)


@cache
def _weights():
    imitation = reinforce.recipe.with_(sample=tea_rl.worked_solutions, advantage=rlvr_decomposed.only_up)
    engine, task, state = LocalEngine(*tiny.micro(0), lr=MICRO_LR), Careless(), State(imitation)
    for _ in range(WARM_UP):
        state, _ = step(engine, task, POOL, state, 0)
    return engine.model.state_dict()


def base() -> LocalEngine:
    """A fresh engine on a copy of the base."""
    model, tokenizer = tiny.micro(0)
    model.load_state_dict(_weights())
    return LocalEngine(model, tokenizer, lr=MICRO_LR)


def share_right(engine: LocalEngine, samples: int = 8) -> float:
    """pass@1 on the held-out problems, as a share of the optimum."""
    return evaluate.pass_at(evaluate.evaluate(engine, TASK, samples), 1) / TASK.optimum


RECIPES = shelf.every_recipe()
EXCUSE = "does not learn `digits`"


def excused(name: str) -> bool:
    """True for a recipe that says, in its `departs`, that it does not learn this task, and why."""
    return any(EXCUSE in line for line in RECIPES[name].departs)


STEPS, ENOUGH = 60, 0.8


def trained(name: str, seed: int = 0) -> tuple[float, float]:
    """The best share of the optimum, looked at every ten steps until it is enough, and the CPU seconds of training."""
    engine, state, spent, best = base(), State(RECIPES[name]), 0.0, 0.0
    for i in range(1, STEPS + 1):
        began = time.process_time()
        state, _ = step(engine, TASK, POOL, state, seed, progress=i / STEPS)
        spent += time.process_time() - began
        if i % 10 == 0:
            best = max(best, share_right(engine))
            if best >= ENOUGH:
                break
    return best, spent
