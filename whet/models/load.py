"""Opening a Hugging Face directory: weights, tokenizer, card. No network; no pickles and no code unless asked for."""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whet.models import lora
from whet.models.setup import Setup
from whet.refusal import Refused

SAFE, PICKLED = "*.safetensors", "pytorch_model*.bin"
OWN_CODE = (
    "{folder} asks for {what} of its own (auto_map in its {file}), which is not run unasked: take a model that "
    "transformers has, or read that code and, if you trust it, add --trust-remote-code."
)
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
LARGE = 100_000_000  # parameters; ours
LR_LARGE, LR_SMALL = 1e-6, 1e-4  # ours: 1e-6 is what verl and TRL users take for models of 0.5B and more


def model(path: str | Path, dtype: str = "float32", setup: Setup | None = None) -> Any:
    """The causal LM in a directory, with weights of `dtype` on the CPU and dropout off.

    A directory of adapters is opened as its base with the adapters merged into it. `setup` says whether pickles and
    the directory's own code are trusted; without it they are not.
    """
    import torch
    from transformers import AutoModelForCausalLM

    setup = setup or Setup()
    folder = checked(path, setup)
    if lora.is_adapter(folder):
        return lora.merged(model(lora.base_of(folder), dtype, setup), folder, card(folder)).eval()
    _not_quantised(folder)
    try:
        with quiet():
            open_: Any = AutoModelForCausalLM.from_pretrained
            found, told = open_(
                folder, dtype=getattr(torch, dtype), use_safetensors=any(folder.glob(SAFE)), local_files_only=True,
                trust_remote_code=setup.trust_remote_code, output_loading_info=True, **_attention(folder),
            )  # fmt: skip
    except Exception as error:  # transformers raises whatever a strange config.json makes of its arithmetic
        raise Refused(f"{folder} does not open as a causal language model: {first_line(error)}") from error
    absent = sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])})
    if absent:  # transformers would go on with random numbers in their place
        raise Refused(
            f"{folder} lacks {len(absent)} of the weights that its config.json asks for ({absent[0]} is one): "
            "take a complete checkpoint of a causal language model."
        )
    _how_it_generates(found, folder)
    return found.eval()


def _how_it_generates(model: Any, folder: Path) -> None:
    """Keep of generation_config.json what a run needs, where transformers would not write it again (Llama 2's)."""
    from transformers import GenerationConfig

    config = model.generation_config
    if config is None:
        return
    named = config.eos_token_id
    if any(type(i) is not int for i in (named if isinstance(named, list) else [named] if named is not None else [])):
        raise Refused(f"eos_token_id in {folder / 'generation_config.json'} is no token id: make it a number.")
    try:
        with quiet():
            config.validate(strict=True)
    except ValueError:
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in ids})


def _attention(folder: Path) -> dict[str, str]:
    """Written out for models that cap attention scores (Gemma 2): torch's own attention leaves the cap out."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    capped = isinstance(found, dict) and found.get("attn_logit_softcapping")
    return {"attn_implementation": "eager"} if capped else {}


def _not_quantised(folder: Path) -> None:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(f"{folder / 'config.json'} is not JSON: {first_line(error)}") from error
    if how := isinstance(found, dict) and found.get("quantization_config"):
        named = how.get("quant_method", "in an unnamed way") if isinstance(how, dict) else how
        raise Refused(
            f"the weights in {folder} are quantised ({named}), and a step of RL "
            "is smaller than what they can hold: dequantize the model, save it in bfloat16, and pass that folder."
        )


def tokenizer(path: str | Path, setup: Setup | None = None) -> Any:
    """The tokenizer in a directory; one without an end token is refused, since no response could end."""
    from transformers import AutoTokenizer

    setup = setup or Setup()
    folder = checked(path, setup)
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise Refused(
            f"{folder} has no tokenizer (tokenizer.json): copy the one that the model was trained with into it."
        )
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=setup.trust_remote_code)
    except Exception as error:  # the tokenizers library raises bare ones
        if "trust_remote_code" in str(error):
            raise Refused(OWN_CODE.format(folder=folder, what="a tokenizer", file="tokenizer_config.json")) from None
        raise Refused(f"the tokenizer in {folder} does not open: {first_line(error)}") from error
    if found.eos_token_id is None:
        raise Refused(f"the tokenizer in {folder} names no end token: set eos_token in its tokenizer_config.json.")
    return found


def checked(path: str | Path, setup: Setup | None = None) -> Path:
    """The directory, if it looks like a model; otherwise one sentence that says what is missing."""
    folder, setup = Path(path), setup or Setup()
    if not os.path.isdir(folder):  # which is False for a name too long to be one
        raise Refused(_no_directory(str(path)))
    if not (folder / "config.json").is_file() and not lora.is_adapter(folder):
        raise Refused(f"{folder} has no config.json, so it is not a model directory; pass the folder that holds one.")
    weights = lora.WEIGHTS if lora.is_adapter(folder) else SAFE
    if not any(folder.glob(weights)) and not (setup.allow_pickle and any(folder.glob(PICKLED))):
        asked = ", or, if you trust where it is from, add --allow-pickle" if any(folder.glob(PICKLED)) else ""
        raise Refused(
            f"{folder} has no {weights} file, and pickled weights are not opened unasked: convert it with "
            f"model.save_pretrained(folder){asked}."
        )
    if not setup.trust_remote_code:
        _without_code(folder)
    return folder


def _without_code(folder: Path) -> None:
    """Refused where transformers does not know the architecture and would need the directory's own Python files."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        needs_code = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING_NAMES
    except (OSError, ValueError, TypeError, AttributeError):
        return  # whoever opens it says what is wrong
    if needs_code:
        raise Refused(OWN_CODE.format(folder=folder, what="code", file="config.json"))


def card(path: str | Path) -> dict[str, Any]:
    """What whet.json says of a model, such as {'lr': ..., 'knows': ...}; empty without one."""
    file = Path(path) / "whet.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refused(f"{file} is not JSON ({first_line(error)}): repair it or remove it.") from error
    if not isinstance(found, dict):
        raise Refused(f'{file} must hold one JSON object, such as {{"lr": 1e-4}}.')
    taught = found.get("taught", [])
    if not isinstance(taught, list) or not all(isinstance(name, str) for name in taught):
        raise Refused(f'{file} says what the model was taught as {taught!r}: it is a list of tasks, as ["compose"].')
    lr = found.get("lr", 1e-4)
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 < lr < math.inf:
        raise Refused(f"{file} names the learning rate {lr!r}: it is a number above 0, such as 1e-4.")
    return found


def default_lr(parameters: int) -> float:
    """The learning rate for a model whose card names none.

    >>> default_lr(900_000), default_lr(500_000_000)
    (0.0001, 1e-06)
    """
    return LR_LARGE if parameters >= LARGE else LR_SMALL


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars and only errors: what matters is said in one sentence elsewhere."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _no_directory(path: str) -> str:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not path.startswith("."):
        return (
            f"there is no directory {path}, and whet uses no network: if it is a Hugging Face name, "
            f"run `hf download {path} --local-dir {path.split('/')[1]}` and pass that folder."
        )
    return f"there is no directory {path}: pass a folder with config.json, tokenizer.json and *.safetensors."


def first_line(error: BaseException) -> str:
    """The beginning of what an error says, as a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
