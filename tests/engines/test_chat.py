"""Chats: the template's own tokens in, token ids end to end, and a turn that ends is trained to end."""

import json

import pytest
import torch

from tests.engines import chat
from whet.engines import forward
from whet.engines.local import LocalEngine
from whet.models.chat import Formatter
from whet.models.setup import Setup
from whet.refusal import Refused
from whet.tasks import Problem
from whet.tasks.data import Data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("chat")
    tokenizer = chat.bpe()
    tokenizer.save_pretrained(place)
    chat.model(tokenizer).save_pretrained(place)
    return place


def opened(folder, **setup):
    return LocalEngine.load(folder, "cpu", setup=Setup(**setup))


def asked(prompt="what is 12?", **about):
    return Problem("p", prompt, "12", about=about)


def prompt_of(engine, problem):
    return engine.tokenizer.decode(engine.sample([problem], [1], max_tokens=2, seed=0).prompts[0])


def test_a_prompt_goes_through_the_template_with_its_system_message(folder):
    assert prompt_of(opened(folder), asked()) == ("<|im_start|>user\nwhat is 12?<|im_end|>\n<|im_start|>assistant\n")
    strict = opened(folder, system="the answer is short")
    assert prompt_of(strict, asked()).startswith("<|im_start|>system\nthe answer is short<|im_end|>\n<|im_start|>user")
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "1"}]
    assert prompt_of(strict, asked(messages=own)).startswith("<|im_start|>system\nmine<|im_end|>")
    special = strict.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert strict.sample([asked()], [1], max_tokens=2, seed=0).prompts[0].count(special) == 3


def test_thinking_is_switched_where_the_template_knows_it(folder):
    assert prompt_of(opened(folder, thinking="off"), asked()).endswith("assistant\n<think>\n\n</think>\n\n")
    assert prompt_of(opened(folder, thinking="on"), asked()).endswith("assistant\n")
    with pytest.raises(Refused, match="knows no enable_thinking"):
        Formatter(chat.bpe("{{ messages[0].content }}"), thinking="on")
    with pytest.raises(Refused, match="on or off"):
        Setup(thinking="maybe")


def test_the_end_of_a_turn_ends_a_response_and_is_trained(folder):
    mine = opened(folder)
    turn = mine.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn != mine.tokenizer.eos_token_id
    assert mine.stop[0] == turn
    with torch.no_grad():  # the end of a turn becomes likely
        mine.model.lm_head.weight[turn] *= 3
    batch = mine.sample([asked()], [64], max_tokens=30, seed=0)
    last = [row[n - 1] for row, n in zip(batch["tokens"].tolist(), batch["length"].tolist(), strict=True)]
    ended = [token == turn for token in last]
    assert any(ended)
    ended_rows = torch.tensor(ended)
    assert batch["finished"][ended_rows].all()
    assert batch["mask"].gather(1, batch["length"][:, None] - 1).all()  # the end token counts
    learner = mine.learner(lambda f: -(f["logp"] * f["mask"]).sum(), frozenset({"logp"}))
    learner.gradient(batch)
    at_the_end = learner.seen["push"].gather(1, batch["length"][:, None] - 1)[ended_rows]
    assert (at_the_end == -1).all()
    assert not any("<|im_end|>" in text for text in batch.texts)


def test_a_template_without_an_end_of_turn_keeps_the_end_of_the_text():
    plain = Formatter(chat.bpe("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"))
    assert plain.end_of_turn is None
    no_template = chat.bpe("")
    assert Formatter(no_template).end_of_turn is None


def test_what_was_sampled_is_what_is_learned_from_even_where_decoding_loses_it(folder):
    mine = opened(folder)
    batch = mine.sample([asked()], [32], max_tokens=20, seed=0)
    again = [list(mine.format.plain(text)) for text in batch.texts]
    sampled = [row[:n] for row, n in zip(batch["tokens"].tolist(), batch["length"].tolist(), strict=True)]
    assert sum(one != other for one, other in zip(sampled, again, strict=True)) > 16  # a round trip would change most
    seen = {}
    for rows in forward.micro_batches(batch, 200, "cpu"):
        for i, ids, start, end in zip(
            rows.index.tolist(), rows.ids, rows.prompt.tolist(), rows.end.tolist(), strict=True
        ):
            seen[i] = ids[start:end].tolist()
            assert tuple(ids[:start].tolist()) == batch.prompts[i]
    assert [seen[i] for i in range(len(batch))] == sampled


def test_a_chat_that_the_template_refuses_is_one_sentence(folder):
    strict = Formatter(chat.bpe(chat.NO_SYSTEM), system="be short")
    with pytest.raises(
        Refused, match=r"fails on a chat of system, user: System role not supported\. Leave out"
    ) as caught:
        strict("hi")
    assert "\n" not in str(caught.value)
    broken = Formatter(chat.bpe("{{ messages[0].content.nothing.at_all }}"))
    with pytest.raises(Refused, match="chat template fails on a chat of user"):
        broken("hi")
    with pytest.raises(Refused, match="has no chat template, so --system has no place"):
        Formatter(chat.bpe(""), system="x")
    with pytest.raises(Refused, match="the prompts are chats and the model has no chat template"):
        Formatter(chat.bpe(""))([{"role": "user", "content": "x"}])


def test_data_may_hold_chats(tmp_path):
    system = {"role": "system", "content": "short"}
    rows = [{"prompt": [system, {"role": "user", "content": f"{n}?"}], "answer": str(n)} for n in range(6)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Data(str(path), instruction="Say it.")
    problem = next(p for p in task.problems if p.answer == "3")
    assert problem.prompt == "3?\nSay it."
    assert problem.about["messages"] == [system, {"role": "user", "content": "3?\nSay it."}]
    assert len({p.id for p in task.problems}) == 6
    assert not {p.id for p in task.train()} & {p.id for p in task.evaluation()["held_out"]}
    path.write_text(json.dumps({"prompt": [system], "answer": ""}) + "\n")
    with pytest.raises(Refused, match="ends with 'system': it should end with the user"):
        Data(str(path))
