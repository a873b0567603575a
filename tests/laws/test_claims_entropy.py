"""What recipes claim about labels and about signs; a recipe joins by claiming it."""

import pytest
import torch

from tests.laws.harness import case, gradient, weighed
from tests.laws.test_laws import RECIPES, SEEDS, claimed, close


@pytest.mark.parametrize("name", claimed("needs_no_labels"))
def test_the_judge_changes_nothing_where_no_labels_are_needed(name):
    for seed in SEEDS:
        given = case(seed)
        other = given.having(score=5 - 3 * given.batch["score"], correct=~given.batch["correct"])
        close(gradient(RECIPES[name], given), gradient(RECIPES[name], other))


@pytest.mark.parametrize("name", claimed("never_flips_an_advantage"))
@pytest.mark.parametrize("extreme", [1.0, 100.0])
def test_credit_never_flips_an_advantage(name, extreme):
    for seed in SEEDS:
        given = case(seed)
        wild = {n: extreme * x for n, x in given.batch.fields.items() if n.endswith(("_entropy", "_logp"))}
        given = given.having(**wild)
        before = weighed(RECIPES[name].with_(credit=()), given).batch["advantage"]
        after = weighed(RECIPES[name], given).batch["advantage"]
        assert bool((before * after >= 0).all())
        assert bool((after[before == 0] == 0).all())
        assert not torch.equal(before, after)
