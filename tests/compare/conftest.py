"""One small comparison on `digits`, made once: two recipes, three seeds, real processes."""

import io

import pytest
from rich.console import Console

from whet.compare.plan import Budget, Plan
from whet.compare.work import carry_out


def silent():
    return Console(file=io.StringIO())


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    made = Plan(
        ("grpo", "w_reinforce"), ("digits",), (0, 1, 2), Budget(steps=6), samples=8,
        runs=str(tmp_path_factory.mktemp("compared")),
    )  # fmt: skip
    carry_out(made.checked().jobs(), silent(), workers=2)
    return made


@pytest.fixture(scope="session")
def runs(plan):
    return {arm: [job.store for job in plan.jobs() if job.arm == arm] for arm in plan.arms}
