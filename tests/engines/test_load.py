"""A directory that is no model is answered with one sentence that says what to do."""

import json

import pytest
import torch

from tests.engines.models import build
from whet.engines.local import LocalEngine
from whet.models import chat, load, tiny
from whet.refusal import Refused


@pytest.fixture
def folder(tmp_path):
    tiny.save(tiny.micro(), tmp_path / "model")
    return tmp_path / "model"


def refusal(do, *arguments):
    with pytest.raises(Refused) as caught:
        do(*arguments)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_a_missing_directory_is_named():
    sentence = refusal(load.model, "/no/such/place")
    assert "there is no directory /no/such/place" in sentence
    assert "network" not in sentence


def test_a_name_from_the_hub_is_told_how_to_get_there():
    sentence = refusal(load.model, "Qwen/Qwen2.5-0.5B")
    assert "no network" in sentence
    assert "hf download Qwen/Qwen2.5-0.5B --local-dir Qwen2.5-0.5B" in sentence


def test_a_missing_file_is_named(folder):
    (folder / "tokenizer.json").rename(folder / "elsewhere")
    (folder / "tokenizer_config.json").unlink()
    assert "no tokenizer" in refusal(load.tokenizer, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no *.safetensors" in refusal(load.model, folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(load.model, folder)


def test_random_numbers_never_stand_in_for_missing_weights(folder):
    from safetensors.torch import load_file, save_file

    kept = load_file(folder / "model.safetensors")
    kept.pop("model.norm.weight")
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of the weights" in refusal(load.model, folder)


def test_a_model_of_an_unknown_kind_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mystery", "architectures": ["Mystery"]}))
    assert "does not open as a causal language model" in refusal(load.model, folder)


def test_weights_that_are_cut_short_are_refused(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "does not open" in refusal(load.model, folder)


def test_a_tokenizer_without_an_end_token_is_refused(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "names no end token" in refusal(load.tokenizer, folder)


def test_a_tokenizer_without_padding_needs_none(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    engine = LocalEngine.load(folder, device="cpu")
    assert engine.tokenizer.pad_token is None
    assert len(engine.sample([problem("1"), problem("123")], [2, 2], max_tokens=3, seed=0)) == 4


def test_a_tokenizer_larger_than_the_model_is_refused(folder):
    tiny.characters().save_pretrained(folder)
    assert "do not match" in refusal(LocalEngine.load, folder)


def test_weights_are_float32_whatever_the_file_holds(tmp_path):
    build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load.model(tmp_path).parameters()} == {torch.float32}


def test_the_card_is_read_where_there_is_one(folder):
    assert load.card(folder) == {}
    assert LocalEngine.load(folder, device="cpu").lr == 1e-4
    (folder / "whet.json").write_text('{"lr": 0.5}')
    assert load.card(folder) == {"lr": 0.5}
    (folder / "whet.json").write_text("{")
    assert "not JSON" in refusal(load.card, folder)
    (folder / "whet.json").write_text("[]")
    assert "one JSON object" in refusal(load.card, folder)


def test_large_models_move_slowly():
    assert load.default_lr(99_999_999) == 1e-4
    assert load.default_lr(100_000_000) == 1e-6


# --- prompts ---------------------------------------------------------------------------------------------


def problem(prompt):
    from whet.tasks import Problem

    return Problem(id=prompt, prompt=prompt, answer="")


def test_a_plain_prompt_is_tokenized_as_it_is():
    tokenizer = tiny.characters()
    ids = chat.Formatter(tokenizer)("a<eos>b \n")
    assert tokenizer.decode(ids) == "a<eos>b \n"
    assert tokenizer.eos_token_id not in ids


def test_a_chat_model_is_asked_in_its_own_words():
    tokenizer = tiny.characters()
    each = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template = each + "{% if add_generation_prompt %}[me] {% endif %}"
    ids = chat.Formatter(tokenizer)("2+2?")
    assert isinstance(ids, tuple)
    assert tokenizer.decode(ids) == "[user] 2+2?\n[me] "


def test_a_tokenizer_that_always_begins_with_a_token_keeps_it():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.characters()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", begin), ("<eos>", end)]
    )
    ids = chat.Formatter(tokenizer)("ab")
    assert ids[0] == begin
    assert tokenizer.decode(ids[1:]) == "ab"


@pytest.mark.parametrize("shape", ["list", "nested", "mapping", "tensor"])
def test_whatever_the_tokenizer_returns_becomes_token_ids(shape):
    ids = [4, 5]
    made = {"list": ids, "nested": [ids], "mapping": {"input_ids": ids}, "tensor": torch.tensor([ids])}
    assert chat._ids(made[shape]) == (4, 5)
