"""A prompt that is read once for several responses gives the same loss and the same gradient."""

import pytest
import torch

from tests.engines.models import FAMILIES, build, engine
from tests.engines.test_learner import WANTED, assert_same_gradient, gradient_of, ready, with_entropy
from whet.engines import forward, sharing

SHARES = {"llama", "qwen2", "gpt2", "qwen3", "gemma", "phi", "olmo2", "mixtral", "qwen2_moe", "olmoe"}


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prompts_give_the_same_loss_and_gradient(family, monkeypatch):
    mine = engine(family)
    assert sharing.possible(mine.model) == (family in SHARES)  # no windows, no states
    batch = ready(mine)
    holes = batch["mask"].clone()
    holes[::3, 0] = holes[1::3, 1] = False
    batch = batch.having(mask=holes)
    monkeypatch.setattr(sharing, "PAYS", 0.0)
    slow, told_slow, seen_slow = gradient_of(mine, with_entropy, WANTED, batch)
    monkeypatch.setattr(sharing, "PAYS", 9.0)
    read = []
    monkeypatch.setattr(forward, "hidden", lambda m, rows, f=forward.hidden: read.append(rows) or f(m, rows))
    fast, told, seen = gradient_of(mine, with_entropy, WANTED, batch)
    assert any(rows.shared for rows in read) == (family in SHARES)
    assert_same_gradient(fast, slow)
    assert told["loss"] == pytest.approx(told_slow["loss"], abs=1e-5)
    for name in ("logp", "push"):
        torch.testing.assert_close(seen.seen[name], seen_slow.seen[name], atol=1e-5, rtol=1e-5)


def test_a_model_that_does_not_look_at_its_mask_shares_nothing(monkeypatch):
    model = build("llama")
    plain = model.forward

    def deaf(input_ids=None, position_ids=None, attention_mask=None, **more):
        return plain(input_ids=input_ids, position_ids=position_ids, **more)

    monkeypatch.setattr(model, "forward", deaf)
    assert not sharing.possible(model)


def test_long_prompts_are_read_once_and_the_budget_holds():
    mine = engine()
    batch = ready(mine)
    width = mine.model.config.hidden_size
    for budget in (40, 300):
        rows = list(forward.micro_batches(batch, budget, "cpu", share=width))
        assert sorted(i for part in rows for i in part.index.tolist()) == list(range(len(batch)))
        assert all(part.sizes[1] <= budget for part in rows)
    alone = list(forward.micro_batches(batch, 300, "cpu"))
    assert sum(part.sizes[0] for part in rows) < 0.9 * sum(part.sizes[0] for part in alone)
