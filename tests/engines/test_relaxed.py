"""The gradient that runs through sampling: soft responses, their forecast, and their price."""

from functools import partial

import pytest
import torch

from tests.engines.models import FAMILIES, TOKENIZER, engine, sampled
from whet.engines import relaxed
from whet.papers import grade

SOFT = partial(grade.gumbel_softmax, tau=0.7)
HARD = partial(grade.straight_through, tau=0.7)
PRICE = partial(grade.full_kl, beta=0.3)


def with_opinion(mine):
    """The engine with a critic that forecasts something else for every text."""
    with torch.no_grad():
        mine.critic.head.weight.copy_(torch.linspace(-1, 1, mine.critic.head.weight.numel())[None])
    return mine


def gradient(mine, batch, soften=SOFT, cost=PRICE, seed=3):
    mine.model.zero_grad()
    total = relaxed.add_gradient(mine, batch, soften, cost, seed)
    return total, {name: p.grad.clone() for name, p in mine.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_gradient_is_the_derivative_of_what_it_returns(family):
    mine = with_opinion(engine(family))
    batch = sampled(mine, each=2, max_tokens=4)
    _, grads = gradient(mine, batch)
    rng = torch.Generator().manual_seed(0)
    # torch gives the embedding of the padding token no gradient, so that row stays where it is
    direction = {name: torch.randn(x.shape, generator=rng) * (x != 0) for name, x in grads.items()}
    step, ends = 2e-5, []
    for way in (step, -2 * step, step):  # there, to the other side, and back
        ends.append(gradient(mine, batch)[0])
        with torch.no_grad():
            for name, p in mine.model.named_parameters():
                p.add_(way * direction[name])
    ends.append(gradient(mine, batch)[0])
    expected = sum(float((grads[name] * x).sum()) for name, x in direction.items())
    assert (ends[1] - ends[2]) / (2 * step) == pytest.approx(expected, rel=0.05)
    assert abs(expected) > 0.1
    assert ends[3] == pytest.approx(ends[0], abs=1e-4)


def test_any_split_gives_the_same_gradient_through_sampling():
    whole, parts = with_opinion(engine()), with_opinion(engine(token_budget=1))
    batch = sampled(whole, each=3, max_tokens=4)
    (one, grads), (other, pieces) = gradient(whole, batch), gradient(parts, batch)
    assert one == pytest.approx(other, rel=1e-5)
    for name, x in grads.items():
        assert float((pieces[name] - x).norm()) <= 1e-4 * float(x.norm())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_hard_response_is_worth_what_the_critic_says_of_its_text(family):
    """Straight through, the soft response is a real one: the forecast is `value` at its last token."""
    mine = with_opinion(engine(family))
    batch = sampled(mine, each=2, max_tokens=5)
    free = partial(grade.full_kl, beta=0.0)
    total, _ = gradient(mine, batch, HARD, free)
    worth = []
    for rows in relaxed._alike(batch, 10_000, batch["mask"].shape[1]):
        prompts = torch.tensor([batch.prompts[i] for i in rows])
        noise = relaxed._noise(3, rows, batch["mask"].shape[1])
        soft, _ = relaxed.unroll(mine.model, prompts, HARD, batch["temperature"][rows][:, None], noise)
        length = relaxed._until(soft, mine.stop).sum(1)
        tokens = soft.argmax(-1)
        mask = torch.arange(tokens.shape[1]) < length[:, None]
        real = batch.rows(rows).having(tokens=tokens, mask=mask, length=length)
        worth.append(mine.score(real, ["value"])["value"].gather(1, length[:, None] - 1)[:, 0])
    assert -total == pytest.approx(float(torch.cat(worth).mean()), abs=1e-4)
    assert float(torch.cat(worth).std()) > 1e-3


def test_the_policy_of_the_start_pays_nothing():
    mine = engine()
    batch = sampled(mine, each=2, max_tokens=4)
    free, paid = gradient(mine, batch, SOFT, partial(grade.full_kl, beta=0.0)), gradient(mine, batch)
    assert free[0] == 0  # the critic knows nothing yet
    assert paid[0] == pytest.approx(0, abs=1e-6)


def test_what_the_critic_likes_becomes_likelier():
    mine = engine("gpt2", lr=3e-3)
    liked = torch.arange(len(TOKENIZER)) % 2 == 0
    shares = []
    for step in range(40):
        batch = sampled(mine, each=8, max_tokens=3, seed=step)
        hits = (liked[batch["tokens"]] & batch["mask"]).sum(1) / batch["mask"].sum(1)
        shares.append(float(hits.mean()))
        learner = mine.learner(
            lambda fields: (grade.forecast_error(fields["new_value"], fields["reward"]) * fields["mask"]).mean(),
            frozenset({"new_value"}),
        )
        learner.gradient(batch.having(reward=hits))
        learner.through_sampling(batch, HARD, partial(grade.full_kl, beta=0.0), seed=step)
        learner.step(None, 1.0)
    assert sum(shares[-5:]) / 5 > sum(shares[:5]) / 5 + 0.2
