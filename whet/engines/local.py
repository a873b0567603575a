"""The engine in one process: a Hugging Face causal LM that samples, scores and learns.

Weights are float32; `dtype="bfloat16"` computes in bfloat16 from those weights, since AdamW at RL learning rates
changes weights by less than bfloat16 can hold. Dropout is off everywhere: sampler and learner are one function.
How it is fast is told where it happens: `sampler`, `forward` (what is read together), `head`, `learner`.
"""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.engines import forward, precision, sampler
from whet.engines.learner import LocalLearner, Objective, finite, put
from whet.engines.profile import counted, stage
from whet.models import load
from whet.refusal import Refused
from whet.tasks import Problem

POLICY = ("old_logp", "old_entropy", "old_certainty")
STATES = ("prompt_state", "response_state")
REFERENCE, CRITIC = "ref_logp", "value"
MAX_ROWS = 512  # responses drawn at once; bounds the memory of the cache


class LocalEngine:
    """A model with a sampler and a learner. See `whet.engines.Engine` for what each method promises."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        lr: float | None = None,
        dtype: str = "float32",
        token_budget: int = 16384,
        max_rows: int = MAX_ROWS,
        path: str = "",
        chunk: int | None = None,
    ) -> None:
        if min(token_budget, max_rows, 1 if chunk is None else chunk) < 1:
            raise Refused(
                f"token_budget {token_budget}, max_rows {max_rows} and chunk {chunk} are numbers of tokens, responses "
                "and positions that are computed at once: each is at least 1."
            )
        self.model, self.tokenizer, self.path = model.eval(), tokenizer, path
        self.dtype = precision.checked(dtype, model.device)
        self.token_budget, self.max_rows, self.chunk = token_budget, max_rows, chunk
        self.lr = load.default_lr(model.num_parameters()) if lr is None else lr
        self.card: dict[str, Any] = {}
        self.format = load.Formatter(tokenizer)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, betas=(0.9, 0.999), weight_decay=0.0)
        # On the CPU, where there is room; the reference is built from it when first asked for.
        self._start = {name: x.detach().to("cpu", copy=True) for name, x in model.state_dict().items()}

    @classmethod
    def load(
        cls, path: str | Path, device: str | None = None, dtype: str = "float32", token_budget: int = 16384
    ) -> "LocalEngine":
        """The model in a Hugging Face directory, on the GPU where there is one and no device is named.

        `token_budget` is the size of a micro-batch in tokens, padding included; memory grows with it.
        """
        gpu = torch.cuda.is_available()
        device = device or ("cuda" if gpu else "cpu")
        if device.startswith("cuda") and not gpu:
            raise Refused("there is no GPU that torch can use here: take the device cpu.")
        model, tokenizer, card = load.model(path), load.tokenizer(path), load.card(path)
        room = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > room:
            raise Refused(
                f"the tokenizer in {path} has {len(tokenizer)} tokens and the model {room}: they do not match."
            )
        engine = cls(model.to(device), tokenizer, card.get("lr"), dtype, token_budget, path=str(path))
        engine.card = card
        return engine

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return self.model.device

    def precision(self) -> AbstractContextManager[None]:
        """The number format of forward and backward passes."""
        return precision.computing(self.dtype, self.device)

    # --- sampling ----------------------------------------------------------------------------------------

    def sample(
        self, problems: Sequence[Problem], responses: Sequence[int], *, temperature: float = 1.0,
        top_p: float = 1.0, greedy: bool = False, max_tokens: int, seed: int,
    ) -> Batch:  # fmt: skip
        """`responses[i]` responses to `problems[i]`, rows in that order, with all fields made by the sampler."""
        if not (temperature > 0 and 0 < top_p <= 1 and max_tokens > 0):
            raise Refused(
                f"cannot sample at temperature {temperature}, top_p {top_p}, {max_tokens} tokens: temperature and "
                "max_tokens must be above 0 and top_p in (0, 1]; for the likeliest response pass greedy=True."
            )
        formatted = [self._prompt(problem, max_tokens) for problem in problems]
        rows = [i for i, count in enumerate(responses) for _ in range(count)]
        prompts = [formatted[i] for i in rows]
        # Row by row from one stream: row i has the same numbers whichever rows are computed beside it.
        uniform = torch.rand(len(rows), max_tokens, generator=torch.Generator().manual_seed(seed))
        how = sampler.Drawing(1.0 if greedy else temperature, top_p, greedy, max_tokens, self.stop, self.stop[0])
        with self.precision():
            drawn = sampler.draw(self.model, prompts, uniform, how, self.max_rows, self.token_budget)
        if not torch.isfinite(drawn.logp).all():
            raise Refused(
                "the model's probabilities are not finite: go back to an earlier checkpoint or another model."
            )
        return self._batch([problems[i] for i in rows], prompts, drawn, how.temperature)

    def _batch(self, problems: list[Problem], prompts: list[tuple[int, ...]], drawn: Any, temperature: float) -> Batch:
        """The responses as a batch, as wide as the longest of them."""
        t = int(drawn.length.max()) if len(problems) else 0
        mask = torch.arange(t) < drawn.length[:, None]
        words = [row[:n] for row, n in zip(drawn.tokens.tolist(), drawn.length.tolist(), strict=True)]
        fields = {
            "group": groups.index_of([problem.id for problem in problems]),
            "tokens": drawn.tokens[:, :t].contiguous(),
            "mask": mask,
            "length": drawn.length,
            "finished": drawn.finished,
            "temperature": torch.full((len(problems),), temperature),
            "sampled_logp": drawn.logp[:, :t].contiguous(),
            "sampled_entropy": drawn.entropy[:, :t].contiguous(),
            "age": torch.zeros(mask.shape),
            "demonstration": torch.zeros(len(problems), dtype=torch.bool),
        }
        texts = self.tokenizer.batch_decode(words, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Batch(tuple(problems), tuple(prompts), tuple(texts), fields, drawn=len(problems))

    def written(self, problems: Sequence[Problem], texts: Sequence[str]) -> Batch:
        """Texts in place of responses, one to each problem, with the end token behind them.

        Nobody sampled them, so `sampled_logp` and `sampled_entropy` are 0: whoever wrote them was certain.
        """
        words = [(*self.format.plain(text), self.stop[0]) for text in texts]
        prompts = [self._prompt(problem, len(mine)) for problem, mine in zip(problems, words, strict=True)]
        drawn = sampler.empty(len(words), max(map(len, words), default=0), self.stop[0], "cpu")
        for row, mine in enumerate(words):
            drawn.tokens[row, : len(mine)] = torch.tensor(mine)
            drawn.length[row], drawn.finished[row] = len(mine), True
        return replace(self._batch(list(problems), prompts, drawn, 1.0), texts=tuple(texts))

    def _prompt(self, problem: Problem, max_tokens: int) -> tuple[int, ...]:
        """The problem's prompt in token ids, if it and a response fit into what the model can see."""
        ids = self.format(problem.prompt)
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if not ids:
            raise Refused(f"the prompt of problem {problem.id} has no tokens: a response needs something to follow.")
        if context and len(ids) + max_tokens > context:
            raise Refused(
                f"the prompt of problem {problem.id} has {len(ids)} tokens, and with responses of up to {max_tokens} "
                f"that is more than the {context} tokens the model can see: shorten the prompt or lower max_tokens."
            )
        return ids

    @cached_property
    def stop(self) -> tuple[int, ...]:
        """The token ids that end a response; the first is also what rows are padded with, which nobody sees."""
        config = getattr(self.model, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        more = named if isinstance(named, list) else [named]
        return tuple(dict.fromkeys(i for i in (self.tokenizer.eos_token_id, *more) if i is not None))

    def pieces(self, batch: Batch) -> list[list[str]]:
        """The text of each response token by itself, row by row, for showing them."""
        rows = [row[:n] for row, n in zip(batch["tokens"].tolist(), batch["length"].tolist(), strict=True)]
        ids = sorted({i for row in rows for i in row})
        if not ids:
            return [[] for _ in rows]
        text = dict(zip(ids, self.tokenizer.batch_decode([[i] for i in ids]), strict=True))
        return [[text[i] for i in row] for row in rows]

    # --- scoring -----------------------------------------------------------------------------------------

    def score(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Any field made by the scorer; [n t] ones are 0 where the mask is False, states are [n d]."""
        unknown = [name for name in names if name not in (*POLICY, *STATES, REFERENCE, CRITIC)]
        if unknown:
            raise Refused(f"a local engine cannot score {unknown[0]!r}: it has no model for that.")
        found = {name: torch.zeros(batch["mask"].shape) for name in names if name not in STATES}
        if not names:
            return found
        for rows in forward.micro_batches(batch, self.token_budget, self.device):
            counted("score", int(rows.end.sum()), rows.ids.numel(), self.flops(rows))
            with torch.no_grad(), self.precision(), stage("score"):
                scores = self._scores(rows, names)
            for name in names:
                x = scores[name]
                put(found.setdefault(name, torch.zeros(len(batch), x.shape[1])), rows, x)
        return found

    def _scores(self, rows: forward.Rows, names: Sequence[str]) -> dict[str, Tensor]:
        scores = {}
        if any(name in POLICY for name in names):
            made = forward.policy(self.model, rows, *(name.removeprefix("old_") for name in names), chunk=self.chunk)
            scores.update({f"old_{name}": x for name, x in made.items()})
        if any(name in STATES for name in names):
            scores.update(forward.states(self.model, rows))
        if REFERENCE in names:
            scores[REFERENCE] = forward.policy(self.reference, rows, chunk=self.chunk)["logp"]
        if CRITIC in names:
            scores[CRITIC] = self.critic(rows)
        return scores

    def kl_to_start(self, batch: Batch, rows: int = 32) -> float:
        """Nats per token from the policy to the start, by the k3 estimate e^-x - 1 + x, x = logp - ref_logp.

        Over all response tokens of at most `rows` rows, spread evenly over the batch; each at its own temperature.
        Demonstrations are left out: the estimate holds for what the policy drew.
        """
        batch = batch.where(~batch["demonstration"]) if "demonstration" in batch.fields else batch
        index = torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long()
        some = batch.rows(index)
        some = some.having(mask=torch.arange(batch["mask"].shape[1]) < some["length"][:, None])
        scores = self.score(some, ["old_logp", REFERENCE])
        x = scores["old_logp"] - scores[REFERENCE]
        return float(groups.batch_mean(torch.expm1(-x) + x, some["mask"]))

    @cached_property
    def reference(self) -> Any:
        """The model as it was when this engine was made; it never changes."""
        return self._from_start()

    @cached_property
    def critic(self) -> forward.Critic:
        """The critic, made when first asked for; AdamW trains it beside the policy, at the same learning rate."""
        critic = forward.Critic(self._from_start().base_model, self.model.config.get_text_config().hidden_size)
        critic = critic.to(self.device).eval().requires_grad_()
        self.optimizer.add_param_group({"params": list(critic.parameters())})
        return critic

    def _from_start(self) -> Any:
        model = deepcopy(self.model)
        model.load_state_dict(self._start)
        return model.requires_grad_(False).eval()

    def flops(self, rows: forward.Rows) -> float:
        """The matrix products of one forward pass over these rows, attention aside: the head only where it speaks."""
        head = self.model.get_output_embeddings().weight.numel()
        tied = self.model.get_input_embeddings().weight is self.model.get_output_embeddings().weight
        body = self.model.num_parameters() - (1 if tied else 2) * head
        return 2.0 * (body * rows.ids.numel() + head * len(rows.targets))

    # --- learning ----------------------------------------------------------------------------------------

    def learner(self, objective: Objective, wanted: frozenset[str], selector: Objective | None = None) -> LocalLearner:
        """The policy, ready to descend an objective that asks the forward pass for the `wanted` fields."""
        return LocalLearner(self, objective, wanted, selector)

    def step(self, lr: float | None, clip_norm: float) -> dict[str, float]:
        """One AdamW step. Policy and critic are clipped apart, so that a large value loss does not slow the policy."""
        norm = finite(torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm))
        if "critic" in self.__dict__:
            finite(torch.nn.utils.clip_grad_norm_(self.critic.parameters(), clip_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr if lr is None else lr
        self.optimizer.step()
        return {"grad_norm": norm}

    # --- keeping -----------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The policy as a Hugging Face directory; an earlier one stays whole until the new one is complete."""
        folder = Path(folder)
        aside, before = (folder.with_name(f".{folder.name}.{os.getpid()}.{part}") for part in ("new", "old"))
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with load.quiet():
                self.model.save_pretrained(aside)
                self.tokenizer.save_pretrained(aside)
            (aside / "whet.json").write_text(json.dumps({**self.card, "lr": self.lr}, indent=1), encoding="utf-8")
            if folder.exists():
                folder.rename(before)
            aside.rename(folder)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for rest in (aside, before):
                shutil.rmtree(rest, ignore_errors=True)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all that training changes, on the CPU: dicts of tensors, by parameter name."""
        found: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
        for name, parameter in self._trained():
            found["weights"][name] = parameter.detach().to("cpu", copy=True)
            for key, x in self.optimizer.state.get(parameter, {}).items():
                found["optimizer"][f"{key}/{name}"] = x.detach().to("cpu", copy=True)
        return found

    def load_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a state; the engine must have been made from the same start, which the state does not hold."""
        if any(name.startswith("critic.") for name in state["weights"]):
            _ = self.critic
        known = dict(self._trained())
        if set(known) != set(state["weights"]):
            odd = sorted(set(known) ^ set(state["weights"]))[0]
            raise Refused(f"this state is of another model ({odd} is in only one of them): resume from its own start.")
        self.optimizer.state.clear()
        with torch.no_grad():
            for name, x in state["weights"].items():
                known[name].copy_(x)
        for address, x in state["optimizer"].items():
            key, name = address.split("/", 1)
            # AdamW keeps its step count on the CPU, whatever the device of the weights.
            self.optimizer.state[known[name]][key] = x.clone() if key == "step" else x.to(self.device, copy=True)

    def _trained(self) -> list[tuple[str, Tensor]]:
        critic = self.critic.named_parameters() if "critic" in self.__dict__ else ()
        named = [("policy", self.model.named_parameters()), ("critic", critic)]
        return [(f"{part}.{name}", parameter) for part, parameters in named for name, parameter in parameters]
