"""Controllers reach their target on a plant that anyone can follow, and never set what does not exist."""

import math
from functools import partial

import pytest
import torch

from tests.laws.test_laws import RECIPES
from whet.papers import adaptive_entropy_control, adaptive_kl, aepo, amft_controller, e3_budget, ppo_br
from whet.recipe import Remembers, call
from whet.settings import settings, with_settings

CONTROLLED = sorted(name for name, recipe in RECIPES.items() if recipe.control)


def run(controller: Remembers, plant, steps: int, start: float, progress=lambda share: 0.0):
    """Entropy after each step of a plant `(entropy, what was set) -> entropy`, from `start`."""
    entropy, set_to, memories, seen = start, {}, {}, []
    for i in range(steps):
        given = {"metrics": {"entropy": entropy, "reward": 0.5}, "progress": progress(i / steps)}
        set_to = call(controller, given, memories)
        entropy = plant(entropy, *set_to.values())
        seen.append(entropy)
    return seen, set_to


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_controller_sets_only_what_exists_to_a_finite_number(name):
    recipe, rng, memories, changed = RECIPES[name], torch.Generator().manual_seed(0), {}, False
    for i in range(40):
        entropy, reward = torch.rand(2, generator=rng).tolist()
        for part in RECIPES[name].control:
            values = call(part, {"metrics": {"entropy": entropy, "reward": reward}, "progress": i / 40}, memories)
            assert set(values) <= set(settings(recipe))
            assert all(math.isfinite(x) for x in values.values())
            recipe = with_settings(recipe, values)
            changed = changed or settings(recipe) != settings(RECIPES[name])
    assert changed


@pytest.mark.parametrize("start", [0.05, 1.0])
def test_the_entropy_bonus_holds_the_entropy_at_its_target(start):
    """Without a bonus this policy's entropy goes to 0.1; 0.0025 would hold it at 0.2."""
    controller = RECIPES["adaptive_entropy_control"].control[0]
    seen, _ = run(controller, lambda entropy, coef: 0.9 * entropy + 0.1 * (0.1 + 40 * coef), 2000, start)
    late = seen[-500:]
    assert sum(late) / len(late) == pytest.approx(0.2, rel=0.1)
    assert max(late) - min(late) < 0.1


def test_the_coefficient_stays_within_its_bounds():
    low = partial(adaptive_entropy_control.steer_coefficient, highest=0.001)
    _, set_to = run(Remembers(low, 0.0), lambda *_: 0.01, 100, 0.01)
    assert set_to == {"penalties.entropy_bonus.coef": 0.001}
    _, set_to = run(Remembers(low, 0.0005), lambda *_: 3.0, 100, 3.0)
    assert set_to == {"penalties.entropy_bonus.coef": 0.0}


@pytest.mark.parametrize("drift", [0.5, 1.5])
def test_the_temperature_holds_the_entropy_where_it_started(drift):
    """Entropy in proportion to temperature, on a policy that grew more or less certain after the first step."""
    controller = RECIPES["e3_temperature"].control[0]
    seen, set_to = run(controller, lambda _, temperature: 0.8 * drift * temperature, 400, 0.8)
    assert seen[-1] == pytest.approx(0.8, rel=0.01)
    assert set_to["sample.temperature"] == pytest.approx(1 / drift, rel=0.01)


def test_the_target_of_the_temperature_falls_late_in_the_run():
    controller = RECIPES["e3_temperature"].control[0]
    seen, _ = run(controller, lambda _, temperature: 0.8 * temperature, 4000, 0.8, progress=lambda share: share)
    assert seen[2000] == pytest.approx(0.8, rel=0.01)
    assert seen[-1] == pytest.approx(0.72, rel=0.02)
    assert e3_budget.annealed(0.3, 0.4, 0.9) == 1.0


@pytest.mark.parametrize("start", [1e-3, 1.0])
def test_the_price_of_drift_holds_the_kl_at_its_target(start):
    """The dearer the drift, the less of it: KL = 0.02 / β meets 0.1 at β = 0.2."""
    beta = start
    for _ in range(4000):
        beta = adaptive_kl.next_price(beta, kl=0.02 / beta, responses=256, target=0.1, horizon=10_000)
    assert beta == pytest.approx(0.2, rel=1e-2)
    steep = adaptive_kl.next_price(1.0, kl=1e9, responses=10_000, target=0.1, horizon=10_000)
    assert steep == pytest.approx(1.2)  # never more than a fifth of the share of a horizon


@pytest.mark.parametrize("start", [0.1, 0.9])
def test_the_balance_of_imitation_settles_where_the_entropy_is_on_target(start):
    """More imitation, more entropy: 0.4 + μ. The target of 1 is met at μ = 0.6."""
    mu = start
    for _ in range(20_000):
        mu = amft_controller.balance(mu, entropy=0.4 + mu, target=1.0, ahead=0.0)
    assert mu == pytest.approx(0.6, abs=1e-3)
    assert amft_controller.balance(0.95, 0.0, 9.0, 0.0, steady=1.0) == 0.95
    assert amft_controller.balance(0.05, 9.0, 0.0, 0.0, steady=1.0) == 0.05


def test_imitation_gains_where_it_would_lower_the_validation_loss():
    more, less = (amft_controller.balance(0.5, 1.0, 1.0, ahead) for ahead in (1.0, -1.0))
    assert more > 0.5 > less


def test_negative_advantages_are_masked_from_the_upper_to_the_lower_bound_of_entropy():
    """On between 0.6 on the way up and 0.3 on the way down, and nowhere else."""
    advantage, on = torch.tensor([[1.0], [-1.0]]), torch.ones(2, 1, dtype=torch.bool)
    masking, seen = False, []
    for entropy in (0.4, 0.59, 0.61, 0.4, 0.31, 0.29, 0.5):
        kept, masking = aepo.calm(advantage, torch.full((2, 1), entropy), on, memory=masking)
        assert kept.flatten().tolist() == ([1, 0] if masking else [1, 1])
        seen.append(masking)
    assert seen == [False, False, True, True, True, False, False]


def test_the_clip_range_widens_with_entropy_and_narrows_on_a_plateau():
    certain, exploring = (ppo_br.clip_range(phi, change=1.0) for phi in (0.0, 1.0))
    flat, moving = (ppo_br.clip_range(0.5, change) for change in (0.0, 1.0))
    assert certain < exploring
    assert flat < moving
    for phi in (0.0, 0.5, 1.0):
        for change in (-2.0, 0.0, 3.0):
            assert 0.2 * 0.7 <= ppo_br.clip_range(phi, change) <= 0.2 * 1.5
