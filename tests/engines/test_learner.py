"""The gradient is that of the plain sum over the whole batch, however it is computed; the step is AdamW's."""

import pytest
import torch

from tests.engines.models import FAMILIES, direct_logits, engine, responses, sampled
from whet import groups
from whet.engines import forward
from whet.refusal import Refused


def ready(mine, **options):
    """A sampled batch with the fields that an objective needs."""
    batch = sampled(mine, temperature=0.7, **options)
    advantage = torch.randn(len(batch), generator=torch.Generator().manual_seed(0))
    return batch.having(
        advantage=groups.spread(advantage, batch["mask"]),
        weight=batch["mask"] / batch["mask"].sum(),
        rewards=torch.zeros(len(batch), batch["mask"].shape[1]),  # [n k], by chance as wide as the responses
    )


def surrogate(fields):
    ratio = (fields["logp"] - fields["old_logp"]).exp()
    return -(fields["weight"] * ratio * fields["advantage"])[fields["mask"]].sum()


def with_entropy(fields):
    return surrogate(fields) - 0.3 * (fields["weight"] * fields["entropy"])[fields["mask"]].sum()


WANTED = frozenset({"logp", "old_logp", "entropy"})


def gradient_of(mine, objective, wanted, batch, scale=1.0):
    learner = mine.learner(objective, wanted)
    metrics = learner.gradient(batch, scale)
    return {name: p.grad.clone() for name, p in mine.model.named_parameters() if p.grad is not None}, metrics, learner


def plain_gradient(mine, batch):
    """The same loss written row by row from whole unpadded sequences: no shared code with the engine."""
    mine.model.zero_grad()
    loss = torch.zeros(())
    for i, (prompt, response) in enumerate(zip(batch.prompts, responses(batch), strict=True)):
        everything = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
        logp = everything.gather(1, torch.tensor(response)[:, None])[:, 0]
        entropy = -(everything.exp() * everything).sum(-1)
        weight, advantage = (batch[name][i, : len(response)] for name in ("weight", "advantage"))
        loss = loss - (weight * ((logp - logp.detach()).exp() * advantage + 0.3 * entropy)).sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in mine.model.named_parameters() if p.grad is not None}, float(
        loss.detach()
    )


def assert_same_gradient(one, other, tolerance=1e-5):
    assert set(one) == set(other)
    scale = max(float(x.abs().max()) for x in other.values())
    for name in other:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_plain_one(family):
    mine = engine(family)
    batch = ready(mine)
    ours, metrics, _ = gradient_of(mine, with_entropy, WANTED, batch)
    theirs, loss = plain_gradient(mine, batch)
    assert_same_gradient(ours, theirs, 2e-5)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)


def test_any_split_gives_the_same_gradient():
    mine = engine()
    batch = ready(mine)
    whole, told, learner = gradient_of(mine, with_entropy, WANTED, batch)
    for budget in (1, 60, 200):
        mine.token_budget = budget
        pieces, told_again, learner_again = gradient_of(mine, with_entropy, WANTED, batch)
        assert_same_gradient(pieces, whole)
        for name in told:
            assert told_again[name] == pytest.approx(told[name], rel=1e-4, abs=1e-5), name
        for name in ("logp", "push"):
            torch.testing.assert_close(learner_again.seen[name], learner.seen[name], atol=1e-5, rtol=1e-5)


def test_scale_multiplies_the_gradient():
    mine = engine()
    batch = ready(mine)
    once, told, _ = gradient_of(mine, surrogate, WANTED, batch)
    thrice, told_thrice, _ = gradient_of(mine, surrogate, WANTED, batch, scale=3.0)
    assert_same_gradient(thrice, {name: 3 * x for name, x in once.items()})
    assert told_thrice["loss"] == pytest.approx(3 * told["loss"], rel=1e-5)


def test_a_gradient_forgets_the_one_before():
    mine = engine()
    batch = ready(mine)
    once, _, _ = gradient_of(mine, surrogate, WANTED, batch)
    again, _, _ = gradient_of(mine, surrogate, WANTED, batch)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_the_objective_sees_the_rows_it_should():
    mine = engine()
    batch = ready(mine)
    shapes = []

    def look(fields):
        rows, width = fields["mask"].shape
        assert width == int(fields["length"].max())
        for name in ("logp", "old_logp", "entropy", "advantage", "weight", "tokens", "sampled_logp", "age"):
            assert fields[name].shape == (rows, width), name
        assert fields["rewards"].shape == (rows, batch["rewards"].shape[1])
        assert fields["group"].shape == (rows,)
        assert not fields["old_logp"].requires_grad
        torch.testing.assert_close(fields["logp"].detach(), fields["sampled_logp"], atol=1e-5, rtol=1e-5)
        shapes.append(rows)
        return surrogate(fields)

    mine.token_budget = 100
    mine.learner(look, WANTED).gradient(batch)
    assert sum(shapes) == len(batch)
    assert len(shapes) > 1


def test_old_numbers_of_the_batch_are_used_where_it_has_them():
    mine = engine()
    batch = ready(mine)
    batch = batch.having(old_logp=batch["sampled_logp"] - batch["mask"] * 0.5, old_entropy=batch["mask"] * 7.0)
    found = {}

    def look(fields):
        found.update(fields)
        return surrogate(fields)

    metrics = mine.learner(look, frozenset({"logp", "old_logp", "old_entropy"})).gradient(batch)
    assert found["old_entropy"].unique().tolist() in ([7.0], [0.0, 7.0])
    assert "entropy" not in found
    assert metrics["ratio_max"] == pytest.approx(torch.tensor(0.5).exp().item(), rel=1e-4)


def test_what_was_seen_is_in_the_order_of_the_batch():
    mine = engine(token_budget=60)
    batch = ready(mine)
    _, metrics, learner = gradient_of(mine, surrogate, WANTED, batch)
    torch.testing.assert_close(learner.seen["logp"], batch["sampled_logp"], atol=1e-5, rtol=1e-5)
    expected = -batch["weight"] * batch["advantage"]  # on policy the ratio is 1
    torch.testing.assert_close(learner.seen["push"], expected, atol=1e-6, rtol=1e-5)
    assert metrics["sampler_gap"] < 1e-5
    assert metrics["ratio_max"] == 1.0
    assert metrics["clip_fraction"] == 0.0


def test_the_clip_fraction_counts_tokens_without_a_push():
    mine = engine()
    batch = ready(mine)
    holes = batch["mask"].clone()
    holes[:, 0] = False
    advantage = batch["advantage"].clone()
    advantage[1] = 0  # neither masked tokens nor those without advantage are counted as clipped
    batch = batch.having(mask=holes, advantage=advantage)

    def half(fields):
        spared = (fields["tokens"] % 2 == 0) & fields["mask"]
        return (fields["logp"] * fields["advantage"])[spared].sum()

    metrics = mine.learner(half, frozenset({"logp"})).gradient(batch)
    counted = holes & (advantage != 0)
    assert metrics["clip_fraction"] == pytest.approx(float((batch["tokens"][counted] % 2 == 1).float().mean()))


def test_masked_tokens_have_no_gradient_whatever_they_hold():
    mine = engine()
    batch = ready(mine)
    holes = batch["mask"].clone()
    holes[:, 1] = False
    calm, _, _ = gradient_of(mine, surrogate, WANTED, batch.having(mask=holes))
    wild = batch["advantage"].clone()
    wild[:, 1] = 1e30
    stormy, _, _ = gradient_of(mine, surrogate, WANTED, batch.having(mask=holes, advantage=wild))
    assert all(torch.equal(calm[name], stormy[name]) for name in calm)


def test_gradients_are_written_where_the_ones_before_were():
    """A table of embeddings for each micro-batch, or of zeros for each update, would be most of the work."""
    mine = engine("qwen2", token_budget=60)
    batch = ready(mine)
    gradient_of(mine, surrogate, WANTED, batch)
    places = [x.grad.data_ptr() for x in mine.parameters]
    made = []
    mine.model.get_input_embeddings().weight.register_hook(lambda x: made.append(x.layout))
    gradient_of(mine, surrogate, WANTED, batch)
    assert [x.grad.data_ptr() for x in mine.parameters] == places
    assert len(made) > 1
    assert set(made) == {torch.sparse_coo}
    assert not mine.model.get_input_embeddings().sparse


def test_nothing_that_counts_is_no_error():
    mine = engine()
    batch = ready(mine)
    nothing, metrics, learner = gradient_of(
        mine, surrogate, WANTED, batch.having(mask=torch.zeros_like(batch["mask"]), weight=batch["weight"] * 0)
    )
    assert all((x == 0).all() for x in nothing.values())
    assert metrics["loss"] == 0
    assert learner.step(None, 1.0)["grad_norm"] == 0


def test_a_step_is_one_of_adamw_with_a_clipped_gradient():
    mine, theirs = engine(), engine()
    batch = ready(mine)
    plain = torch.optim.AdamW(theirs.model.parameters(), lr=3e-3, betas=(0.9, 0.999), weight_decay=0.0)
    for _ in range(2):
        learner = mine.learner(surrogate, WANTED)
        learner.gradient(batch)
        told = learner.step(3e-3, 0.01)
        theirs.learner(surrogate, WANTED).gradient(batch)
        norm = torch.nn.utils.clip_grad_norm_(theirs.model.parameters(), 0.01)
        plain.step()
        assert told["grad_norm"] == pytest.approx(float(norm))
    for one, other in zip(mine.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_without_a_learning_rate_it_is_the_engines_own():
    given, own = engine(lr=1e-2), engine(lr=3e-3)
    batch = ready(own)
    for mine, lr in ((given, 3e-3), (own, None)):
        learner = mine.learner(surrogate, WANTED)
        learner.gradient(batch)
        learner.step(lr, 1.0)
    for one, other in zip(given.model.parameters(), own.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_that_is_no_number_changes_nothing():
    mine = engine()
    batch = ready(mine)
    before = mine.state()["weights"]
    learner = mine.learner(lambda fields: surrogate(fields) * torch.inf, WANTED)
    learner.gradient(batch)
    with pytest.raises(Refused, match="no step was made"):
        learner.step(None, 1.0)
    assert all(torch.equal(x, before[name]) for name, x in mine.state()["weights"].items())


def test_the_same_seed_gives_the_same_bits():
    def weights():
        mine = engine(token_budget=100)
        for step in range(2):
            batch = ready(mine, seed=step)
            learner = mine.learner(with_entropy, WANTED)
            learner.gradient(batch)
            learner.step(None, 1.0)
        return mine.state()["weights"]

    once, again = weights(), weights()
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_what_is_rewarded_becomes_likelier():
    mine = engine("gpt2", lr=3e-3)
    for step in range(8):
        batch = sampled(mine, each=8, max_tokens=4, seed=step)
        hits = (batch["tokens"] % 2 == 0) & batch["mask"]
        batch = batch.having(advantage=(hits * 2.0 - 1) * batch["mask"], weight=batch["mask"] / batch["mask"].sum())
        share = float(hits.sum() / batch["mask"].sum())
        first = share if step == 0 else first
        learner = mine.learner(surrogate, WANTED)
        learner.gradient(batch)
        learner.step(None, 1.0)
    assert share > first + 0.2


def test_a_selector_sees_the_whole_batch_as_it_is_now():
    mine = engine(token_budget=60)
    batch = ready(mine)
    batch = batch.having(old_logp=batch["sampled_logp"] - batch["mask"] * 0.5)
    seen, selected = {}, []

    def selector(fields):
        seen.update(fields)
        return (fields["tokens"] % 2 == 0) & fields["mask"]

    def objective(fields):
        selected.append(fields["selected"])
        return surrogate(fields) - (fields["logp"] * fields["selected"]).sum() * 0

    learner = mine.learner(objective, WANTED | {"selected"}, selector)
    learner.gradient(batch)
    assert len(selected) > 1
    assert sum(int(x.sum()) for x in selected) == int(((batch["tokens"] % 2 == 0) & batch["mask"]).sum())
    assert all(seen[name].shape == batch["mask"].shape for name in ("logp", "entropy", "old_logp", "advantage"))
    assert not seen["logp"].requires_grad
    torch.testing.assert_close(seen["logp"], learner.seen["logp"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen["old_logp"], batch["old_logp"])  # the batch's own, where it has one


def test_the_blind_pass_has_its_own_gradient():
    mine = engine(token_budget=60)
    batch = ready(mine)
    found = []

    def objective(fields):
        found.append(fields["blind_logp"])
        return fields["blind_logp"].sum()

    ours, _, learner = gradient_of(mine, objective, frozenset({"blind_logp"}), batch)
    assert all(x.requires_grad for x in found)
    assert (learner.seen["push"] == 0).all()
    mine.model.zero_grad()
    total = torch.zeros(())
    for rows in forward.micro_batches(batch, 10_000, "cpu"):
        masked = forward.blind(rows, mine.stop[0])
        for i, row in enumerate(rows.index.tolist()):
            response = responses(batch)[row]
            prompt = masked.ids[i, : len(batch.prompts[row])].tolist()
            logp = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
            total = total + logp.gather(1, torch.tensor(response)[:, None]).sum()
    total.backward()
    assert_same_gradient(ours, {name: p.grad for name, p in mine.model.named_parameters()}, 2e-5)


def test_weights_can_be_taken_and_put_back():
    mine = engine("qwen2")
    batch = ready(mine)
    learner = mine.learner(surrogate, WANTED)
    start = learner.weights()
    learner.gradient(batch)
    learner.step(1e-2, 1e-3)
    assert not all(torch.equal(x, y) for x, y in zip(start, learner.weights(), strict=True))
    learner.set_weights(start)
    assert all(torch.equal(x, y) for x, y in zip(start, learner.weights(), strict=True))
    norm = torch.stack([x.norm() for x in learner.gradients()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)  # as it was clipped
    assert [x.shape for x in learner.gradients()] == [x.shape for x in start]


def test_what_was_seen_first_is_told_of_batches_that_were_met():
    mine = engine()
    batch = ready(mine)
    batch = batch.having(row=torch.arange(len(batch)))
    learner, half = mine.learner(surrogate, WANTED), batch.rows(range(len(batch) // 2))
    learner.gradient(half)
    seen = {name: x.clone() for name, x in learner.seen.items()}
    learner.step(1e-2, 1.0)
    learner.gradient(half)  # the policy has moved: what was seen first stays
    told = learner.first_seen(half)
    assert set(told) == {"logp", "push"}
    assert all(torch.equal(told[name], seen[name]) for name in told)
    assert not torch.equal(told["logp"], learner.seen["logp"])
    assert learner.first_seen(batch) == {}  # the other half was never met


def test_the_sampler_gap_is_of_what_this_policy_drew():
    mine = engine()
    batch = ready(mine)
    strange = batch["sampled_logp"].clone()
    strange[0] = strange[:, 2] = 9.0
    demonstration = batch["demonstration"].clone()
    demonstration[0] = True
    age = batch["age"].clone()
    age[:, 2] = 1
    learner = mine.learner(surrogate, WANTED)
    assert learner.gradient(batch.having(sampled_logp=strange))["sampler_gap"] > 5
    mixed = batch.having(sampled_logp=strange, demonstration=demonstration, age=age)
    assert learner.gradient(mixed)["sampler_gap"] < 1e-5


# --- the critic ------------------------------------------------------------------------------------------


def value_loss(fields):
    return ((fields["new_value"] - 1) ** 2)[fields["mask"]].mean() + 0 * fields["logp"].sum()


def test_the_critic_learns_beside_the_policy():
    mine = engine()
    batch = ready(mine)
    assert (mine.score(batch, ["value"])["value"] == 0).all()
    before = mine.score(batch, ["old_logp"])["old_logp"]
    learner = mine.learner(value_loss, frozenset({"new_value"}))
    losses = []
    for _ in range(5):
        losses.append(learner.gradient(batch)["loss"])
        learner.step(1e-2, 1.0)
    assert losses[-1] < losses[0]
    assert (mine.score(batch, ["value"])["value"][batch["mask"]] > 0).all()
    assert torch.equal(mine.score(batch, ["old_logp"])["old_logp"], before)


def test_the_forecast_is_made_before_the_token_is_known():
    mine = engine()
    with torch.no_grad():
        mine.critic.head.weight.fill_(1.0)
    batch = ready(mine)
    value = mine.score(batch, ["value"])["value"]
    tokens = batch["tokens"].clone()
    tokens[:, 2] = (tokens[:, 2] + 1) % 30 + 3
    other = mine.score(batch.having(tokens=tokens), ["value"])["value"]
    torch.testing.assert_close(other[:, :3], value[:, :3], atol=1e-5, rtol=1e-5)
    assert (other[:, 3] != value[:, 3])[batch["mask"][:, 3]].all()


def test_the_critic_starts_from_the_start_even_when_it_is_late():
    early, late = engine(), engine()
    batch = ready(early)
    backbone = {name: x.clone() for name, x in early.critic.backbone.state_dict().items()}
    learner = late.learner(surrogate, WANTED)
    learner.gradient(batch)
    learner.step(1e-2, 1.0)
    assert all(torch.equal(x, backbone[name]) for name, x in late.critic.backbone.state_dict().items())
