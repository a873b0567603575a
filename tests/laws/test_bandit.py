"""A bandit whose gradient is known: the mean over every group that can be drawn, weighed by its probability.

One problem, one token, three answers of which the first is right. Nothing is sampled, so nothing is approximate.
"""

import itertools
from math import prod

import pytest
import torch

from tests.laws.harness import Case, case, gradient
from tests.laws.test_laws import RECIPES, claimed
from whet.papers import pkpo
from whet.settings import with_settings

POLICIES = (torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.3, 0.1]))
RIGHT = torch.tensor([1.0, 0.0, 0.0])
SIZE = 4


def drawn(policy, answers) -> Case:
    """The batch in which one problem got these answers from this policy."""
    given, index = case(0, sizes=(SIZE,), width=1, on_policy=True), torch.tensor(answers)
    logp, score = policy.log()[index][:, None], RIGHT[index]
    one = torch.ones(SIZE, 1, dtype=torch.bool)
    fields = {
        "mask": one,
        "length": torch.ones(SIZE, dtype=torch.long),
        "finished": one[:, 0],
        "tokens": index[:, None],
    }
    fields |= {"score": score, "correct": score > 0, "greedy_score": RIGHT[policy.argmax()].expand(SIZE)}
    fields |= dict.fromkeys(("sampled_logp", "old_logp", "ref_logp"), logp)
    return Case(given.having(**fields).batch, {**given.forward, "logp": logp})


def expected_gradient(recipe, policy):
    """The descent direction in the logits, averaged over all groups of SIZE answers."""
    total = torch.zeros(3)
    for answers in itertools.product(range(3), repeat=SIZE):
        by_logp = gradient(recipe, drawn(policy, answers))["logp"][:, 0]
        by_logit = sum(g * (torch.eye(3)[a] - policy) for g, a in zip(by_logp, answers, strict=True))
        total -= prod(float(policy[a]) for a in answers) * by_logit
    return total


def of_the_mean(policy):
    """The gradient of Σ π R by the logits."""
    return policy * (RIGHT - policy @ RIGHT)


def of_the_best_of(policy, k):
    """The gradient of 1 - (1 - p)^k by the logits, p the probability of being right."""
    return k * (1 - policy @ RIGHT) ** (k - 1) * of_the_mean(policy)


def scale(recipe, gradient_of):
    """By how much the expected gradient is longer than the true one, of the same direction, for each policy."""
    found = []
    for policy in POLICIES:
        expected, true = expected_gradient(recipe, policy), gradient_of(policy)
        ratio = float(expected @ true / (true @ true))
        torch.testing.assert_close(expected, ratio * true, atol=1e-6, rtol=1e-4)
        found.append(ratio)
    return found


@pytest.mark.parametrize("name", claimed("unbiased"))
def test_the_expected_gradient_is_the_gradient_of_the_mean_reward(name):
    """Up to a constant factor, which is a learning rate."""
    one, other = scale(RECIPES[name], of_the_mean)
    assert one > 0
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("name", ["reinforce", "rloo", "remax"])
def test_an_advantage_that_is_not_rescaled_has_the_factor_one(name):
    assert scale(RECIPES[name], of_the_mean)[0] == pytest.approx(1, rel=1e-4)


def test_a_mean_that_includes_the_own_reward_shrinks_the_gradient():
    factor = scale(RECIPES["rloo"].with_(advantage=RECIPES["dr_grpo"].advantage), of_the_mean)[0]
    assert factor == pytest.approx((SIZE - 1) / SIZE, rel=1e-4)


def test_division_by_the_spread_of_the_group_is_biased():
    """GRPO's factor depends on the policy: hard and easy problems count more."""
    one, other = scale(RECIPES["grpo"], of_the_mean)
    assert abs(one / other - 1) > 0.01


@pytest.mark.parametrize("name", claimed("unbiased_for_the_best_of_k"))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_expected_gradient_is_that_of_the_best_of_k(name, k):
    recipe = with_settings(RECIPES[name], {"advantage.k": k})
    one, other = scale(recipe, lambda policy: of_the_best_of(policy, k))
    assert one == pytest.approx(1 / SIZE, rel=1e-4)  # the paper sums over the group, the weight is its mean
    assert one == pytest.approx(other, rel=1e-4)


def test_the_two_weights_for_the_best_of_k_differ_by_a_baseline():
    reward, group = torch.tensor([0.3, 1.0, 0.0, 0.6]), torch.zeros(4, dtype=torch.long)
    assert not torch.allclose(pkpo.unbiased_weight(reward, group, 2), pkpo.marginal(reward, group, 2))
