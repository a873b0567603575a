"""Every recipe learns a small task in seconds, or says why not. A new paper joins by being on the shelf."""

import time

import pytest

from tests.learning.base import POOL, RECIPES, TASK, base, excused, share_right
from whet.step import State, step

STEPS, SECONDS, ENOUGH = 60, 3.0, 0.8


def trained(name: str, seed: int = 0) -> tuple[float, float]:
    """The best share of the optimum, looked at every ten steps until it is enough, and the seconds of training."""
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


def test_the_base_is_right_about_half_of_the_time():
    assert 0.4 < share_right(base()) < 0.65


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if not excused(name)))
def test_a_recipe_learns_digits_in_seconds(name):
    best, spent = trained(name)
    if best < ENOUGH:  # a policy of this size can lose an answer for good: one more try, with other samples
        best, spent = trained(name, seed=1)
    assert best >= ENOUGH, f"{name} came to {best:.2f} of the optimum"
    assert spent < SECONDS


@pytest.mark.parametrize("name", sorted(filter(excused, RECIPES)))
def test_a_recipe_that_says_it_does_not_learn_digits_does_not(name):
    best, _ = trained(name)
    assert best < ENOUGH, f"{name} came to {best:.2f} of the optimum: its `departs` says that it does not learn"
