"""The spine in its corners: what groups, batches, weights, draws and history do beyond what a doctest shows."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import tensor

from tests.laws.harness import case, run_fields
from whet import groups, metrics, plain
from whet.draw import Draw, generator, with_greedy_score, with_ref_score
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import grpo
from whet.recipe import off_policy
from whet.step import weigh
from whet.tasks.digits import Digits


@pytest.fixture(scope="module")
def micro():
    return LocalEngine(*tiny.micro(0))


def doubled(mask):
    return 2.0 * mask


def by_row(length):
    return length.float()


def all_but_the_first_token(mask):
    return mask & (torch.arange(mask.shape[1]) > 0)


def short(length):
    return length < 5


def one_a_token(mask):
    return torch.ones(mask.shape)


def weighed(**stages):
    return weigh(grpo.recipe.with_(**stages), case().batch, run_fields(), {})


def test_the_reward_to_go_is_a_plain_sum_unless_a_discount_is_asked_for():
    assert groups.to_go(tensor([[1.0, 2.0, 4.0]]), tensor([[True, True, True]])).tolist() == [[7, 6, 4]]


def test_weights_are_multiplied():
    plainly, twice = weighed()["weight"], weighed(weights=(doubled, by_row))
    assert torch.allclose(twice["weight"], plainly * 2 * twice["length"][:, None])


def test_what_any_part_leaves_out_is_left_out():
    batch = weighed(keep=(all_but_the_first_token, short))
    before = case().batch["mask"]
    assert torch.equal(batch["mask"], before & (torch.arange(7) > 0) & (batch["length"] < 5)[:, None])
    assert 0 < batch["mask"].sum() < before.sum()


def test_a_reward_for_each_token_counts_on_the_tokens_of_the_response_only():
    batch = weighed(reward=(one_a_token,))
    assert torch.equal(batch["reward"], batch["length"].float())
    assert torch.equal(batch["token_reward"], batch["mask"].float())


def test_rewards_for_a_response_and_for_its_tokens_add_up():
    batch = weighed(reward=(one_a_token, by_row))
    assert torch.equal(batch["reward"], 2 * batch["length"].float())
    assert torch.equal(batch["token_reward"].sum(1), batch["reward"])


@pytest.mark.parametrize(
    ("pieces", "found"), [(1, [14]), (2, [9, 5]), (3, [9, 4, 1]), (4, [6, 3, 4, 1]), (9, [6, 3, 4, 1])]
)
def test_a_batch_is_split_between_groups_and_no_piece_is_empty(pieces, found):
    parts = case().batch.split(pieces)
    assert [len(part) for part in parts] == found
    assert Counter(text for part in parts for text in part.texts) == Counter(case().batch.texts)
    assert sum(int(part["group"].max()) + 1 for part in parts) == 4  # no group is cut


def once(learner, batch):
    return learner.step()


def moving(learner, batch, moves=True):
    return learner.step()


def test_the_policy_moves_within_a_batch_when_the_update_says_so():
    for update, moves in (
        (once, False), (plain.one_pass, False), (moving, True),
        (partial(plain.one_pass, minibatches=2), True), (partial(plain.one_pass, epochs=2), True),
    ):  # fmt: skip
        assert bool(off_policy(grpo.recipe.with_(update=update))) == moves


def test_without_kept_tokens_the_ratios_are_those_of_a_policy_that_did_not_move():
    assert metrics.ratios(torch.zeros(0)) == metrics.ratios(torch.ones(3))


def test_history_adds_up_tries_and_right_answers_and_keeps_the_last_mean():
    batch = case(sizes=(2, 4)).batch.having(
        correct=tensor([True, False, True, True, True, False]), score=tensor([1.0, 0, 1, 1, 1, 0.5])
    )
    once = metrics.remembered({"p0": (3, 2, 0.9)}, batch)
    assert once == {"p0": (5, 3, 0.5), "p1": (4, 3, 0.875)}


def test_demonstrations_are_no_tries():
    batch = case(sizes=(2,)).batch.having(demonstration=tensor([True, False]), correct=tensor([True, False]))
    assert metrics.remembered({}, batch)["p0"][:2] == (1, 0)


def test_the_same_numbers_give_the_same_stream_in_every_version():
    assert generator(0).initial_seed() == 4534885095862127832
    assert generator(1, 2).initial_seed() == 8226843312815022678
    assert generator(2, 1).initial_seed() != generator(1, 2).initial_seed()


def test_a_greedy_score_costs_one_response_to_each_problem(micro):
    batch = Draw(micro, Digits(), generator(0))(Digits().train()[:3], 4)
    draw = Draw(micro, Digits(), generator(1))
    scored = with_greedy_score(batch, draw)
    greedy = Draw(micro, Digits(), generator(1))(Digits().train()[:3], 1, greedy=True)
    assert draw.tokens == [int(greedy["length"].sum())]
    assert scored["greedy_score"].tolist() == greedy["score"].repeat_interleave(4).tolist()


def test_a_starting_score_costs_one_response_to_each_row(micro):
    batch = Draw(micro, Digits(), generator(0))(Digits().train()[:3], 4)
    draw = Draw(micro, Digits(), generator(1))
    with_ref_score(batch, draw)
    most = len(batch) * Digits.max_tokens
    assert len(draw.tokens) == 1
    assert len(batch) <= draw.tokens[0] <= most


def test_what_is_resumed_is_counted_once(micro):
    draw = Draw(micro, Digits(), generator(0))
    begun = draw.begin(Digits().train()[:3], 4, 1.0, tokens=1)
    longer = draw.resume(begun, tokens=1)
    assert draw.tokens[0] == len(begun)
    assert sum(draw.tokens) == int(longer["length"].sum()) > len(begun)
