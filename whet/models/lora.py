"""Low-rank adapters (Hu et al. 2021, 2106.09685) through PEFT: trained, saved in its format, merged on export.

The adapters live inside the model itself, so that everything that works on a model works on it with adapters.
With the adapters off it is the model that the run started from: no second copy.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from whet.refusal import Refused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FASTER = 10.0  # times the rate of full fine-tuning: Schulman et al. 2025, "LoRA Without Regret"


@dataclass(frozen=True)
class Lora:
    """Rank, scale and place of the adapters; all linear layers but the head where no `targets` are named."""

    r: int = 16
    alpha: float = 32.0  # "LoRA Without Regret" keeps it at 32 whatever the rank
    targets: tuple[str, ...] = ()


def parsed(typed: str) -> Lora:
    """The adapters that `r=16,alpha=32,targets=q_proj|v_proj` asks for.

    >>> parsed("r=8,targets=q_proj|v_proj")
    Lora(r=8, alpha=32.0, targets=('q_proj', 'v_proj'))
    """
    found: dict[str, Any] = {}
    for word in typed.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if name not in ("r", "alpha", "targets") or not equals or not value:
            raise Refused(f"--lora {typed!r} is not understood at {word!r}: write r=16,alpha=32,targets=q_proj|v_proj.")
        try:
            found[name] = int(value) if name == "r" else float(value) if name == "alpha" else tuple(value.split("|"))
        except ValueError:
            raise Refused(f"--lora {typed!r}: {name} is a number, so it cannot be {value!r}.") from None
    if found.get("r", 1) < 1:
        raise Refused(f"--lora {typed!r}: the rank r is at least 1.")
    return Lora(**found)


def attach(model: Any, asked: Lora) -> Any:
    """Put adapters into the model, which then trains nothing else; returns PEFT's wrapper around it."""
    peft = _peft()
    from transformers.pytorch_utils import Conv1D

    config = peft.LoraConfig(
        r=asked.r, lora_alpha=asked.alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules=list(asked.targets) or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2
    )  # fmt: skip
    try:
        with _calm():
            return peft.get_peft_model(model, config)
    except ValueError as error:
        linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if m.__class__.__name__ == "Linear"})
        raise Refused(f"the model has no {' or '.join(asked.targets)} to adapt; it has {', '.join(linear)}.") from error


class WithoutAdapters:
    """The model that adapters were put into, as it was before: a view, not a copy. Never trained."""

    def __init__(self, adapters: Any, model: Any) -> None:
        self._adapters, self._model = adapters, model

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The forward pass with the adapters off."""
        with self._adapters.disable_adapter():
            return self._model(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # what the sampler asks for the arguments of `forward`
        return self._model.__class__


def plain_copy(adapters: Any) -> Any:
    """A copy of the model without its adapters, in float32, for what trains beside it."""
    from copy import deepcopy

    return deepcopy(adapters).unload().float()


# --- keeping ----------------------------------------------------------------------------------------------


def save(adapters: Any, base: str, folder: Path) -> dict[str, str]:
    """Write the adapters in PEFT's format; returns what the card should say, to tell another base from this one."""
    place = str(Path(base).resolve()) if base else ""
    for config in adapters.peft_config.values():
        config.base_model_name_or_path = place
    adapters.save_pretrained(folder, save_embedding_layers=False)
    (Path(folder) / "README.md").unlink(missing_ok=True)  # PEFT's empty form: an export writes a real card
    return {"adapts": fingerprint(Path(place))} if base else {}


def is_adapter(folder: Path) -> bool:
    """True for a folder that holds adapters, and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """The model directory that adapters were trained on."""
    try:
        named = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
    except ValueError as error:
        raise Refused(f"{folder / CONFIG} is not JSON ({error}): take the folder that PEFT wrote.") from error
    if not (Path(named) / "config.json").is_file():
        raise Refused(
            f"the adapters in {folder} belong to the model {named or 'that they do not name'}, which is not there: "
            f"put its path as base_model_name_or_path into {CONFIG}."
        )
    return Path(named)


def merged(model: Any, folder: Path, card: dict[str, Any]) -> Any:
    """The base `model` with the adapters of a folder added to its weights."""
    from safetensors import safe_open

    peft, base = _peft(), base_of(folder)
    if card.get("adapts", fingerprint(base)) != fingerprint(base):
        raise Refused(
            f"the adapters in {folder} were trained on other weights than {base} holds now: put the old ones back."
        )
    try:
        with _calm():
            wrapped = peft.PeftModel.from_pretrained(model, folder)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        line = (str(error).strip().splitlines() or ["?"])[-1].strip().rstrip(".")
        raise Refused(f"the adapters in {folder} do not match the model in {base}: {line}.") from error
    with safe_open(folder / WEIGHTS, "pt") as file:
        odd = sorted(set(file.keys()) ^ set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)))
    if odd:
        raise Refused(f"the adapters in {folder} do not match the model in {base}: {odd[0]} is in only one of them.")
    return wrapped.merge_and_unload().requires_grad_()


def fingerprint(folder: Path) -> str:
    """Tells two models apart by the names, sizes and ends of their weight files, without reading all of them."""
    digest = blake2b(digest_size=8)
    for path in sorted([*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")]):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(path.stat().st_size - (1 << 20), 0))
            digest.update(file.read())
    return digest.hexdigest()


@contextmanager
def _calm() -> Iterator[None]:
    """Inside, PEFT does not warn of what is refused below, nor of ranks that it doubles for fused experts itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match")
        yield


def _peft() -> Any:
    # PEFT opens bitsandbytes where there is one, which then warns of kernels that nobody has asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import peft
    except ImportError:
        raise Refused("--lora needs PEFT: pip install 'whet[lora]'.") from None
    return peft
