"""Drawing responses with vLLM, in this process, from a copy of the policy's weights that is handed over after updates.

Token ids go in and come out; nothing is decoded and encoded again. vLLM reports the log-probability of each token
under the distribution that it drew from, temperature and top-p included. The learner stays whet's own: what the two
engines disagree on is measured in every step (`sampler_gap`, `sampler_gap_mean`, `sampler_ess`).
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.engines import page, precision
from whet.engines.page import Drawn, Ended
from whet.engines.pick import Drawing
from whet.engines.sampler import FAR, apart
from whet.refusal import Refused

COLDEST = 0.01  # vLLM raises lower temperatures to this one, silently for the log-probabilities
SMALL_VOCABULARY = 512  # ours: up to here all log-probabilities of a step are returned, which gives its entropy
CPU_CACHE = 1 << 30  # bytes for keys and values on a CPU, where vLLM would take most of the machine; ours
INSTALL = (
    "the engine vllm needs vLLM: `pip install vllm` on a GPU, or without one `make env-vllm` in a checkout of whet, "
    "which makes an environment of its own (.venv-vllm)."
)


class VLLM:
    """A sampler for a LocalEngine. `publish_every` updates pass before vLLM is given the policy again.

    `dtype` is that of vLLM's copy, the engine's own where it is empty; `memory` is the share of a GPU that vLLM may
    take. A policy older than one update, or one in other numbers, is for studying what that does.
    """

    def __init__(self, engine: Any, dtype: str = "", publish_every: int = 1, memory: float = 0.4) -> None:
        if publish_every < 1 or not 0 < memory < 1:
            raise Refused(
                f"engine.publish_every is at least 1, engine.memory between 0 and 1; not {publish_every}, {memory}."
            )
        self.engine, self.publish_every = engine, publish_every
        self.llm = _started(engine, dtype, memory)
        self.sleeps = bool(self.llm.llm_engine.model_config.enable_sleep_mode)
        self.dtype = precision.KNOWN[dtype] if dtype else engine.dtype
        self.asleep, self.waiting, self.seen = False, 0, 0
        self.publish()
        self._check(FAR[self.dtype])

    def draw(self, prompts: Sequence[tuple[int, ...]], how: Drawing, seed: int, ended: Ended | None = None) -> Drawn:
        """One response to each prompt, each with a seed of its own made from `seed`; nobody is told before all end."""
        from vllm import SamplingParams

        if not how.greedy and how.temperature < COLDEST:
            raise Refused(f"vLLM draws at a temperature of {COLDEST} or more, not {how.temperature}: use greedy=True.")
        if not prompts:
            return page.empty(0, how.max_tokens, how.padding, "cpu")
        if self.engine.changes != self.seen:
            self.waiting, self.seen = self.waiting + 1, self.engine.changes
        if self.waiting >= self.publish_every:
            self.publish()
        self._wake()
        whole = self.engine.model.get_input_embeddings().weight.shape[0] <= SMALL_VOCABULARY and how.top_p == 1
        common: dict[str, Any] = {
            "temperature": 0.0 if how.greedy else how.temperature, "top_p": 1.0 if how.greedy else how.top_p,
            "max_tokens": how.max_tokens, "stop_token_ids": list(how.stop), "logprobs": -1 if whole else 0,
            "flat_logprobs": True, "detokenize": False,
        }  # fmt: skip
        seeds = torch.randint(2**31, (len(prompts),), generator=torch.Generator().manual_seed(seed)).tolist()
        told = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [SamplingParams(seed=mine, **common) for mine in seeds],
            use_tqdm=False,
        )
        return _drawn([one.outputs[0] for one in told], how, whole)

    def moves(self) -> None:
        """The memory is the learner's until the next draw; whether the policy has moved is seen from its changes."""
        if self.sleeps and not self.asleep:
            self.llm.sleep(level=1)  # keeps the weights outside the GPU: not every update hands new ones over
            self.asleep = True

    def publish(self) -> None:
        """Give vLLM the policy's weights as they are now, and forget all keys and values of the old ones."""
        self._wake()
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights(self.engine.model).items())})
        self.llm.apply_model(_pack_head)
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of the old policy: no request may run while weights change.")
        self.waiting, self.seen = 0, self.engine.changes

    def _check(self, bound: float) -> None:
        """Refuse a model that vLLM computes in another way, or whose weights it did not take over."""
        gap, kind = apart(self.engine, self), type(self.engine.model).__name__
        if not gap <= bound:
            raise Refused(
                f"vLLM and transformers differ by {gap:.2g} nats a token on this {kind}, so what "
                "vLLM draws would not come from the policy that is trained: take the engine local."
            )

    def _wake(self) -> None:
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False


def weights(model: Any) -> dict[str, Tensor]:
    """The weights under the names that they have in a checkpoint, tied ones once: what vLLM's loaders expect.

    Low-rank adapters are added to the weights that they adapt.
    """
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    state = {name: x.detach() for name, x in model.state_dict().items()}
    for name, layer in model.named_modules():
        for adapter in getattr(layer, "active_adapters", ()) if hasattr(layer, "get_delta_weight") else ():
            state[f"{name}.base_layer.weight"] = (
                state[f"{name}.base_layer.weight"] + layer.get_delta_weight(adapter).detach()
            )
    state = {name.replace(".base_layer.", "."): x for name, x in state.items() if ".lora_" not in name}
    return dict(revert_weight_conversion(model, remove_tied_weights_from_state_dict(state, model)))


def _pack_head(model: Any) -> None:
    """On a CPU a head tied to the embeddings holds a packed copy of them, which vLLM's reload leaves as it was."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for layer in model.modules():
        if isinstance(layer, ParallelLMHead) and hasattr(layer, "cpu_linear"):
            layer.quant_method.process_weights_after_loading(layer)


def _drawn(outputs: Sequence[Any], how: Drawing, whole: bool) -> Drawn:
    """vLLM's responses as tensors; the first log-probability of each position is that of the chosen token."""
    found = page.empty(len(outputs), how.max_tokens, how.padding, "cpu")
    found.knows_entropy = whole
    for row, output in enumerate(outputs):
        length, told = len(output.token_ids), output.logprobs
        found.tokens[row, :length] = torch.tensor(output.token_ids)
        numbers = torch.tensor(told.logprobs).view(length, -1)  # the chosen token, then what else was asked for
        found.logp[row, :length] = numbers[:, 0]
        if whole:
            found.entropy[row, :length] = torch.special.entr(numbers[:, 1:].exp()).sum(-1)
        found.length[row], found.finished[row] = length, output.finish_reason == "stop"
    return found


def _started(engine: Any, dtype: str, memory: float) -> Any:
    """vLLM with room for this engine's model, its weights not yet given."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process: weights are handed over by reference
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        broken = f"vLLM is installed and does not open: {error}; make its environment again (`make env-vllm`)."
        raise Refused(INSTALL if error.name == "vllm" else broken) from error
    dtype = dtype or str(engine.dtype).removeprefix("torch.")
    if dtype not in ("float32", "bfloat16"):
        raise Refused(f"engine.dtype {dtype!r} is not known: it is float32 or bfloat16.")
    cpu = current_platform.is_cpu()
    if cpu:
        _check_heads(engine.model.config.get_text_config())
    # a prompt read in two parts winds its seed back, which generators on a CPU cannot (vLLM 0.32): read it whole
    where: dict[str, Any] = (
        {"kv_cache_memory_bytes": CPU_CACHE, "enforce_eager": True, "enable_chunked_prefill": False} if cpu
        else {"gpu_memory_utilization": memory, "enable_sleep_mode": current_platform.is_sleep_mode_available()}
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        _write_config(engine.model, Path(folder))
        try:
            return LLM(
                model=folder, load_format="dummy", dtype=dtype, skip_tokenizer_init=True, generation_config="vllm",
                logprobs_mode="processed_logprobs", max_logprobs=-1, max_num_seqs=engine.max_rows,
                enable_prefix_caching=True, **where,
            )  # fmt: skip
        except (ValueError, RuntimeError, NotImplementedError) as error:
            raise Refused(f"vLLM cannot serve this {type(engine.model).__name__}: {_sentence(error)}") from error


def _write_config(model: Any, folder: Path) -> None:
    """Only what the model is: the weights come from memory."""
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")


def _check_heads(config: Any) -> None:
    """Refuse a head size for which vLLM has no kernel on a CPU."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise Refused(
            f"vLLM on a CPU knows attention heads of {', '.join(map(str, known))} numbers, and those of this "
            f"{config.model_type} have {size}: take the engine local, or a GPU."
        )


def _sentence(error: BaseException) -> str:
    """What an error of vLLM says, without the frame that pydantic puts around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "further information" not in line]
    return (lines[-1] if lines else type(error).__name__).removeprefix("Value error, ").split(" [type=")[0].rstrip(
        "."
    ) + "."
