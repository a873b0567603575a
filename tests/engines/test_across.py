"""Whole next-token distributions of a problem's responses, compared position by position."""

from math import log

import pytest
import torch
from torch import tensor

from tests.engines.models import direct_logits, engine, responses, sampled

CARD = (
    tensor([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.4, 0.4, 0.2]]),
    tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.5, 0.2]]),
)


def of_logs(rows, width):
    """TW-GRPO's k_t by its card: mean over responses of Σ_v (e^D - D - 1), uniform where a response has ended."""
    uniform = torch.full((rows[0].shape[1],), -log(rows[0].shape[1]))
    table = torch.stack([torch.cat([row, uniform.expand(width - len(row), -1)]) for row in rows])
    gap = (table.mean(0) - table).clamp(-11, 11)
    return (gap.exp() - gap - 1).sum(-1).mean(0)


def of_means(rows, width):
    """KL from each response that has a token there to their mean, averaged."""
    found = torch.zeros(width)
    for t in range(width):
        here = torch.stack([row[t].exp() for row in rows if len(row) > t])
        found[t] = (here * (here / here.mean(0)).log()).sum(-1).mean()
    return found


def test_the_test_knows_the_cards_numbers():
    torch.testing.assert_close(of_logs([p.log() for p in CARD], 3), tensor([0, 1.852327, 0.016594]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "expected"), [("group_divergence", of_means), ("group_log_divergence", of_logs)])
@pytest.mark.parametrize("budget", [1, 100_000])
def test_a_divergence_is_that_of_the_models_own_distributions(name, expected, budget):
    mine = engine(token_budget=budget)
    batch = sampled(mine, each=4, max_tokens=6, temperature=0.7)
    found = mine.score(batch, [name])[name]
    for group in batch["group"].unique().tolist():
        rows = (batch["group"] == group).nonzero()[:, 0].tolist()
        logps = [
            (direct_logits(mine.model, batch.prompts[i], responses(batch)[i]) / 0.7).log_softmax(-1).detach()
            for i in rows
        ]
        width = max(map(len, logps))
        by_hand = expected(logps, batch["mask"].shape[1] if name == "group_log_divergence" else width)
        for i, logp in zip(rows, logps, strict=True):
            torch.testing.assert_close(found[i, : len(logp)], by_hand[: len(logp)], atol=2e-4, rtol=1e-4)
            assert bool((found[i, len(logp) :] == 0).all())
    assert float(found.max()) > 0.1


def test_the_collision_is_the_sum_of_squares():
    mine = engine()
    batch = sampled(mine, each=2, max_tokens=4, temperature=0.7)
    found = mine.score(batch, ["old_collision"])["old_collision"]
    for i, mine_tokens in enumerate(responses(batch)):
        p = (direct_logits(mine.model, batch.prompts[i], mine_tokens) / 0.7).softmax(-1)
        torch.testing.assert_close(found[i, : len(mine_tokens)], (p**2).sum(-1).detach(), atol=1e-5, rtol=1e-4)
