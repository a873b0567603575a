"""What must hold for every recipe. A new paper joins by being on the shelf: nothing here is edited."""

import itertools
import pickle
from pathlib import Path

import pytest
import torch

from tests.laws.harness import case, gradient, loss_and_gradient, run_fields, weighed
from whet import describe, shelf
from whet.recipe import STAGES, call, data_of, function_of, same, unknown_fields

RECIPES = shelf.every_recipe()
SEEDS = (0, 1, 2)
every_recipe = pytest.mark.parametrize("name", sorted(RECIPES))


def claimed(claim: str) -> list[str]:
    return sorted(name for name, recipe in RECIPES.items() if claim in recipe.claims)


def close(one, other, **how):
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}", **how
        )


def widened(given, columns: int, garbage: float):
    """The same case with more padding, and garbage wherever the mask is False."""
    time, mask = given.batch["mask"].shape, torch.nn.functional.pad(given.batch["mask"], (0, columns))

    def wide(x):
        if x.shape != time:
            return x
        x = torch.nn.functional.pad(x, (0, columns))
        return torch.where(mask, x, garbage) if x.is_floating_point() else x

    fields = {name: wide(x) for name, x in given.batch.fields.items()}
    return type(given)(given.batch.having(**fields), {name: wide(x) for name, x in given.forward.items()})


@every_recipe
def test_padding_changes_nothing(name):
    for seed in SEEDS:
        given = case(seed)
        expected = gradient(RECIPES[name], given)
        found = gradient(RECIPES[name], widened(given, 3, garbage=0.0))
        width = given.batch["mask"].shape[1]
        close(expected, {n: x[:, :width] for n, x in found.items()})
        assert all(bool((x[:, width:] == 0).all()) for x in found.values())


@every_recipe
@pytest.mark.parametrize("garbage", [1e4, -1e4, float("nan")])
def test_what_is_masked_changes_nothing(name, garbage):
    given = case(1)
    found = gradient(RECIPES[name], widened(given, 2, garbage))
    width = given.batch["mask"].shape[1]
    close(gradient(RECIPES[name], given), {n: x[:, :width] for n, x in found.items()})
    assert all(bool(x.isfinite().all()) for x in found.values())


@every_recipe
def test_the_order_of_responses_changes_nothing(name):
    for seed in SEEDS:
        given = case(seed)
        order = torch.randperm(len(given.batch), generator=torch.Generator().manual_seed(seed))
        expected = gradient(RECIPES[name], given)
        close({n: x[order] for n, x in expected.items()}, gradient(RECIPES[name], given.rows(order)))


@every_recipe
def test_any_split_into_micro_batches_gives_the_same_gradient(name):
    for seed in SEEDS:
        whole = weighed(RECIPES[name], case(seed))
        loss, expected = loss_and_gradient(RECIPES[name], whole)
        for pieces in (2, 5, len(whole.batch)):
            parts = [
                loss_and_gradient(RECIPES[name], whole.rows(rows))
                for rows in torch.arange(len(whole.batch)).chunk(pieces)
            ]
            torch.testing.assert_close(sum(part for part, _ in parts), loss, rtol=1e-5, atol=1e-6)
            close(expected, {n: torch.cat([g[n] for _, g in parts]) for n in expected})


@every_recipe
def test_reads_only_known_fields(name):
    for _, part in RECIPES[name].parts():
        assert unknown_fields(part) == []


@every_recipe
def test_the_gradient_is_finite_where_probabilities_are_extreme(name):
    given = case(2)
    extreme = torch.where(
        torch.arange(given.forward["logp"].numel()).view_as(given.forward["logp"]) % 3 == 0, -60.0, -1e-6
    )
    forward = {**given.forward, "logp": extreme * given.batch["mask"]}
    found = gradient(RECIPES[name], type(given)(given.batch, forward))
    assert all(bool(x.isfinite().all()) for x in found.values())


@every_recipe
def test_a_recipe_learns_something_from_a_mixed_batch(name):
    found = gradient(RECIPES[name], case(0))
    assert max(float(x.abs().max()) for x in found.values()) > 1e-6


@pytest.mark.parametrize("name", sorted(name for name in RECIPES if "advantage" in data_of(RECIPES[name].loss)))
def test_the_advantage_moves_the_gradient(name):
    """Not only the penalties do: or the laws above would say nothing of the advantage."""
    without = RECIPES[name].with_(penalties=())
    found = [gradient(without, case(seed))["logp"].abs().max() for seed in SEEDS]
    assert max(map(float, found)) > 1e-6


@every_recipe
def test_every_setting_has_a_source(name):
    without = [row["address"] for row in describe.settings_table(RECIPES[name]) if not row["source"]]
    assert without == []


@every_recipe
def test_a_recipe_travels_between_processes(name):
    again = pickle.loads(pickle.dumps(RECIPES[name]))
    assert all(same(a, b) for (_, a), (_, b) in zip(RECIPES[name].parts(), again.parts(), strict=True))


def test_no_two_parts_compute_the_same_function():
    """Two parts of a stage differ somewhere: in value, or in gradient with advantages that differ by token."""
    parts = {}
    for recipe in RECIPES.values():
        for stage, part in recipe.parts(*(s for s in STAGES if s not in ("choose", "sample", "update", "control"))):
            parts.setdefault("loss" if stage in ("loss", "penalties") else stage, {}).setdefault(
                function_of(part), part
            )
    for stage, found in parts.items():
        outputs = {function: answers(part) for function, part in found.items()}
        for (one, a), (other, b) in itertools.combinations(outputs.items(), 2):
            alike = a is not None and b is not None and a.shape == b.shape and torch.allclose(a, b, atol=1e-6)
            if {one.__name__, other.__name__} in ALIKE:
                continue
            assert not alike, f"{stage}: {one.__name__} and {other.__name__} give the same numbers"


# With a judge that never errs every tournament ranks alike; they differ in what a noisy judge costs.
# No response of the case names an option, so that partial credit gives nothing there.
ALIKE = [{"anchor", "round_robin"}, {"accuracy", "share_of_options"}]


def answers(part):
    """What a part says of three weighed batches, and its gradient; None if it asks for what is not there."""
    found = []
    for seed in SEEDS:
        given = weighed(RECIPES["dapo"], case(seed))
        rng = torch.Generator().manual_seed(seed)
        mixed = torch.randn(given.batch["mask"].shape, generator=rng) * given.batch["mask"]
        leaves = {name: x.clone().requires_grad_() for name, x in given.forward.items()}
        said = {"texts": given.batch.texts, "problems": given.batch.problems, "selected": mixed > 0.3}
        fields = {**given.batch.fields, **leaves, **run_fields(seed), **said, "advantage": mixed, "history": {}}
        if not set(data_of(part)) <= {*fields, "memory"}:
            return None
        value = torch.as_tensor(call(part, fields, {})).float()
        found.append(value.detach().flatten())
        if value.requires_grad:
            grads = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
            found += [g.flatten() for g in grads if g is not None]
    return torch.cat(found)


# --- what recipes claim ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", claimed("policy_gradient"))
def test_on_policy_the_gradient_is_the_policy_gradient(name):
    for seed in SEEDS:
        given = weighed(RECIPES[name], case(seed, on_policy=True))
        found = loss_and_gradient(RECIPES[name], given)[1]["logp"]
        torch.testing.assert_close(found, -given.batch["weight"] * given.batch["advantage"] * given.batch["mask"])


@pytest.mark.parametrize("name", claimed("silent_on_equal_rewards"))
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("score", [None, 0.1, 2.3, -1 / 3])  # sums of some of these are rounded
def test_silent_on_equal_rewards(name, right, score):
    for seed in SEEDS:
        given = case(seed, sizes=(23, 7, 3, 1))
        equal = torch.full_like(given.batch["correct"], right)
        length = torch.full_like(given.batch["length"], 5)
        given = given.having(
            correct=equal, score=equal.float() if score is None else score + 0.0 * equal, length=length
        )
        assert float(weighed(RECIPES[name], given).batch["advantage"].abs().max()) == 0


def _per_response(given):
    return given.batch["advantage"][:, 0]


@pytest.mark.parametrize("name", claimed("sums_to_zero"))
def test_the_advantages_of_a_group_sum_to_zero(name):
    for seed in SEEDS:
        given = weighed(RECIPES[name], case(seed))
        sums = torch.zeros(4).index_add(0, given.batch["group"], _per_response(given))
        torch.testing.assert_close(sums, torch.zeros(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", claimed("shift_changes_nothing"))
def test_adding_a_constant_to_all_rewards_changes_nothing(name):
    for seed in SEEDS:
        given = case(seed)
        moved = given.having(score=given.batch["score"] + 3.0)
        expected, found = (weighed(RECIPES[name], g).batch["advantage"] for g in (given, moved))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", claimed("scale_changes_nothing"))
def test_multiplying_all_rewards_changes_nothing(name):
    for seed in SEEDS:
        given = case(seed)
        scaled = given.having(score=given.batch["score"] * 7.0)
        expected, found = (weighed(RECIPES[name], g).batch["advantage"] for g in (given, scaled))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_claim_has_a_law():
    """A claim is tested by a law that names it, here or in a neighbouring file."""
    laws = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for claim in {claim for recipe in RECIPES.values() for claim in recipe.claims}:
        assert f'claimed("{claim}")' in laws or f'"{claim}" in' in laws, claim
