"""Responses in Parquet: every token keeps its numbers, and nothing that was not computed looks computed."""

import pyarrow.parquet as pq
import pytest
import torch

from whet.batch import Batch
from whet.recipe import Refused
from whet.runs.rollouts import PER_TOKEN
from whet.runs.store import Store
from whet.tasks import Problem

PIECES = [["4", "2", "<end>"], ["7"]]


def batch(**more):
    problems = (Problem("p1", "6*7=", "42", 3), Problem("p2", "2+3=", "5", 1))
    fields = {
        "mask": torch.tensor([[True, False, True], [True, False, False]]),
        "length": torch.tensor([3, 1]),
        "finished": torch.tensor([True, False]),
        "score": torch.tensor([1.0, 0.0]),
        "correct": torch.tensor([True, False]),
        "sampled_logp": torch.tensor([[-0.5, -0.25, -1.0], [-2.0, 0.0, 0.0]]),
        "sampled_entropy": torch.tensor([[0.5, 0.25, 1.0], [2.0, 0.0, 0.0]]),
        **more,
    }
    return Batch(problems, ((1,), (2,)), ("42", "7"), fields)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", {})


def test_a_response_comes_back_with_its_tokens(store):
    whole = batch(advantage=torch.tensor([[0.5, 0.5, 0.5], [-0.5, 0.0, 0.0]]), reward=torch.tensor([0.75, -0.25]))
    store.rollouts(7, whole, PIECES, {"push": torch.tensor([[-1.0, 0.0, -2.0], [3.0, 0.0, 0.0]])})
    first, second = store.samples()
    assert (first["step"], first["split"], first["problem"], first["level"]) == (7, "train", "p1", 3)
    assert (first["prompt"], first["answer"], first["text"]) == ("6*7=", "42", "42")
    assert (first["score"], first["reward"], first["correct"], first["finished"]) == (1.0, 0.75, True, True)
    assert first["pieces"] == ["4", "2", "<end>"]
    assert first["advantage"] == [0.5, 0.5, 0.5]
    assert first["mask"] == [True, False, True]
    assert first["push"] == [-1.0, 0.0, -2.0]
    assert second["pieces"] == ["7"]
    assert second["sampled_logp"] == [-2.0]
    assert second["push"] == [3.0]


def test_what_a_batch_does_not_have_is_null(store):
    store.rollouts(0, batch(), PIECES, split="test")
    row = store.samples()[0]
    assert all(row[name] is None for name in ("reward", "advantage", "weight", "push", "log_ratio"))


def test_the_log_ratio_is_learner_minus_sampler_and_null_where_nobody_computed_it(store):
    logp = torch.tensor([[-0.25, 0.0, -1.5], [-2.0, 0.0, 0.0]])  # a learner leaves 0 where the mask is False
    store.rollouts(1, batch(), PIECES, {"logp": logp})
    assert store.samples()[0]["log_ratio"] == [0.25, None, -0.5]


def test_a_response_that_the_learner_did_not_read_has_no_log_ratio(store):
    logp = torch.tensor([[torch.nan, 0.0, torch.nan], [-2.0, 0.0, 0.0]])
    store.rollouts(1, batch(), PIECES, {"logp": logp})
    assert store.samples()[0]["log_ratio"] == [None, None, None]


def test_old_log_probabilities_serve_where_the_learner_was_not_asked(store):
    old = torch.tensor([[-0.25, -0.25, -1.0], [-2.0, 0.0, 0.0]])
    store.rollouts(1, batch(old_logp=old), PIECES)
    assert store.samples()[0]["log_ratio"] == [0.25, None, 0.0]


def test_batches_of_one_evaluation_add_up_in_one_file(store):
    store.rollouts(0, batch(), PIECES, split="test")
    store.rollouts(0, batch(), PIECES, split="test")
    assert len(store.samples(0, "test")) == 4
    assert len(list((store.folder / "rollouts").iterdir())) == 1


def test_responses_are_found_by_step_and_split(store):
    for step, split in ((1, "train"), (2, "train"), (2, "test-b")):
        store.rollouts(step, batch(), PIECES, split=split)
    assert store.rollout_steps() == [(1, "train"), (2, "test-b"), (2, "train")]
    assert {row["step"] for row in store.samples(step=2)} == {2}
    assert {row["split"] for row in store.samples(split="test-b")} == {"test-b"}
    assert {row["step"] for row in store.samples(step=1, split="train")} == {1}
    assert len(store.samples(limit=3)) == 3
    assert list(store.samples(limit=1, columns=["length"])[0]) == ["length"]


def test_rewinding_forgets_later_responses(store):
    for step in (1, 2, 3):
        store.rollouts(step, batch(), PIECES)
    store.rewind(2)
    assert [step for step, _ in store.rollout_steps()] == [1, 2]


def test_a_batch_without_rows_is_kept_as_such(store):
    store.rollouts(1, batch().rows([]), [])
    assert store.samples() == []


def test_tokens_and_pieces_must_agree(store):
    with pytest.raises(ValueError, match="Response 1 has 1 tokens, but 2 pieces"):
        store.rollouts(1, batch(), [PIECES[0], ["7", "!"]])


def test_half_a_character_can_be_kept(store):
    store.rollouts(1, batch(), [["\ud83d", "2", "<end>"], ["7"]])
    assert store.samples()[0]["pieces"][0] == "?"


def test_numbers_of_half_precision_are_kept(store):
    store.rollouts(1, batch(advantage=torch.ones(2, 3, dtype=torch.bfloat16)), PIECES)
    assert store.samples()[0]["advantage"] == [1.0, 1.0, 1.0]


def test_other_tools_can_read_the_file(store):
    table = pq.read_table(store.rollouts(1, batch(), PIECES))
    assert set(PER_TOKEN) < set(table.column_names)


def test_a_broken_file_is_told_in_a_sentence(store):
    path = store.rollouts(1, batch(), PIECES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Refused, match=r"Could not read .*train-000001.parquet: it is no whole Parquet file"):
        store.samples()


def test_a_run_copied_without_its_empty_folders_still_keeps_responses(store):
    (store.folder / "rollouts").rmdir()
    store.rollouts(1, batch(), PIECES)
    assert len(store.samples()) == 2
