"""The engine in one process: a Hugging Face causal LM that samples, scores and learns.

Weights are float32; `dtype="bfloat16"` computes in bfloat16 from those weights, since AdamW at RL learning rates
changes weights by less than bfloat16 can hold. Dropout is off everywhere: sampler and learner are one function.
How it is fast is told where it happens: `sampler`, `forward` (what is read together), `head`, `learner`.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
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
from whet.engines import forward, optimiser, page, precision, sampler, scoring, text
from whet.engines.learner import LocalLearner, Objective, finite
from whet.engines.pick import Drawing
from whet.engines.slots import Slots
from whet.models import load, lora
from whet.models.chat import Formatter
from whet.models.setup import Setup, recomputing
from whet.refusal import NotFinite, Refused
from whet.tasks import Problem

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
        adapters: Any = None,
        chunk: int | None = None,
        optimiser_name: str = "adamw",
        graph: bool = False,
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
        self.sampler: sampler.Sampler = Slots(self) if graph else sampler.Own(self)
        self.format, self.adapters = Formatter(tokenizer), adapters
        self.parameters = [x for x in model.parameters() if x.requires_grad]
        self.optimizer = optimiser.made(optimiser_name, self.parameters, self.lr)
        self.changes = 0  # of the weights, in this process: who draws from a copy sees that the policy has moved
        # On the CPU, where there is room; the reference is built from it when first asked for.
        self._start = {n: x.detach().to("cpu", copy=True) for n, x in model.named_parameters() if x.requires_grad}

    @classmethod
    def load(
        cls, path: str | Path, device: str | None = None, dtype: str = "float32", token_budget: int = 16384,
        setup: Setup | None = None,
    ) -> "LocalEngine":  # fmt: skip
        """The model in a Hugging Face directory, on the GPU where there is one and no device is named.

        `token_budget` is the size of a micro-batch in tokens, padding included; memory grows with it.
        """
        gpu = torch.cuda.is_available()
        device = device or ("cuda" if gpu else "cpu")
        if device.startswith("cuda") and not gpu:
            raise Refused("there is no GPU that torch can use here: take the device cpu.")
        setup = setup or Setup(dtype=dtype, tokens_at_once=token_budget)
        if setup.graph and not device.startswith("cuda"):
            raise Refused(
                f"--graph records steps on a GPU, and this is on {device}: take --device cuda or leave it out."
            )
        model, tokenizer = load.model(path, setup.held_in(), setup), load.tokenizer(path, setup)
        card = load.card(path)
        room = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > room:
            raise Refused(
                f"the tokenizer in {path} has {len(tokenizer)} tokens and the model {room}: they do not match."
            )
        adapters = setup.applied(model.to(device))
        lr = card.get("lr", load.default_lr(model.num_parameters())) * (lora.FASTER if adapters else 1.0)
        engine = cls(
            model, tokenizer, lr, setup.dtype, setup.tokens_at_once, path=str(path), adapters=adapters,
            optimiser_name=setup.optimiser, graph=setup.graph,
        )  # fmt: skip
        engine.format = Formatter(tokenizer, setup.system, setup.thinking)
        engine.card = card
        return engine

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return self.model.device

    def precision(self) -> AbstractContextManager[None]:
        """The number format of forward and backward passes."""
        return precision.computing(self.dtype, self.device)

    def recomputing(self) -> AbstractContextManager[None]:
        """Inside, the backward pass will compute the layers again instead of keeping them, if the setup says so."""
        return recomputing(self.model)

    # --- sampling ----------------------------------------------------------------------------------------

    def sample(
        self, problems: Sequence[Problem], responses: Sequence[int], *, temperature: float = 1.0,
        top_p: float = 1.0, greedy: bool = False, max_tokens: int, seed: int, reference: bool = False,
        ended: Callable[[Sequence[int], Sequence[str]], None] | None = None,
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
        how = Drawing(1.0 if greedy else temperature, top_p, greedy, max_tokens, self.stop, self.stop[0])
        own = sampler.Own(self, self.reference) if reference else self.sampler

        def tell(row: list[int], tokens: Tensor, length: Tensor) -> None:
            if ended:
                ended(row, self._texts(tokens, length))

        drawn = _sound(own.draw(prompts, how, seed, tell if ended else None))
        return self._told_entropy(self._batch([problems[i] for i in rows], prompts, drawn, how.temperature), drawn)

    def _told_entropy(self, batch: Batch, drawn: page.Drawn) -> Batch:
        """The batch with its entropy, by the learner's own forward pass where the sampler does not know it."""
        if drawn.knows_entropy:
            return batch
        return batch.having(sampled_entropy=self.score(batch, ["old_entropy"])["old_entropy"])

    def resume(self, batch: Batch, *, max_tokens: int, seed: int) -> Batch:
        """Its unfinished responses, each at most `max_tokens` longer, by the policy as it is now."""
        for nth, temperature in enumerate(batch["temperature"].unique().tolist()):
            rows = ((batch["temperature"] == temperature) & ~batch["finished"]).nonzero()[:, 0]
            how = Drawing(temperature, 1.0, False, max_tokens, self.stop, self.stop[0])
            so_far = [batch["tokens"][i, : batch["length"][i]].tolist() for i in rows.tolist()]
            before = [(*batch.prompts[i], *mine) for i, mine in zip(rows.tolist(), so_far, strict=True)]
            for i, ids in zip(rows.tolist(), before, strict=True):
                self._fits(batch.problems[i], len(ids), max_tokens)
            if before:
                drawn = _sound(self.sampler.draw(before, how, seed + nth))
                batch = self._told_entropy(page.lengthened(batch, rows, drawn), drawn)
        return replace(batch, texts=self._texts(batch["tokens"], batch["length"]))

    def _batch(self, problems: list[Problem], prompts: list[tuple[int, ...]], drawn: Any, temperature: float) -> Batch:
        """The responses as a batch, as wide as the longest of them."""
        t = int(drawn.length.max()) if len(problems) else 0
        mask = torch.arange(t) < drawn.length[:, None]
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
        texts = self._texts(drawn.tokens, drawn.length)
        return Batch(tuple(problems), tuple(prompts), texts, fields, drawn=len(problems))

    def _texts(self, tokens: Tensor, length: Tensor) -> tuple[str, ...]:
        return tuple(text.decoded(self.tokenizer, text.words(tokens, length)))

    def ends(self, batch: Batch) -> list[list[int]]:
        """For each token of each response, where in the response's text it ends, in characters."""
        return [text.ends(self.tokenizer, row) for row in text.words(batch["tokens"], batch["length"])]

    def written(self, problems: Sequence[Problem], texts: Sequence[str]) -> Batch:
        """Texts in place of responses, one to each problem, with the end token behind them.

        Nobody sampled them, so `sampled_logp` and `sampled_entropy` are 0: whoever wrote them was certain.
        """
        words = [(*self.format.plain(text), self.stop[0]) for text in texts]
        prompts = [self._prompt(problem, len(mine)) for problem, mine in zip(problems, words, strict=True)]
        drawn = page.empty(len(words), max(map(len, words), default=0), self.stop[0], "cpu")
        for row, mine in enumerate(words):
            drawn.tokens[row, : len(mine)] = torch.tensor(mine)
            drawn.length[row], drawn.finished[row] = len(mine), True
        return replace(self._batch(list(problems), prompts, drawn, 1.0), texts=tuple(texts))

    def _prompt(self, problem: Problem, max_tokens: int) -> tuple[int, ...]:
        """The problem's prompt in token ids, if it and a response fit into what the model can see."""
        if any("\ud800" <= letter <= "\udfff" for letter in problem.prompt):
            raise Refused(f"the prompt of problem {problem.id} holds half a character (a lone surrogate): repair it.")
        ids = self.format(problem.about.get("messages", problem.prompt))
        if not ids:
            raise Refused(f"the prompt of problem {problem.id} has no tokens: a response needs something to follow.")
        self._fits(problem, len(ids), max_tokens)
        return ids

    def _fits(self, problem: Problem, before: int, max_tokens: int) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context and before + max_tokens > context:
            raise Refused(
                f"the prompt of problem {problem.id} has {before} tokens, and with responses of up to {max_tokens} "
                f"that is more than the {context} tokens the model can see: shorten the prompt or lower max_tokens."
            )

    @cached_property
    def stop(self) -> tuple[int, ...]:
        """The token ids that end a response; the first is also what rows are padded with, which nobody sees."""
        config = getattr(self.model, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        more = named if isinstance(named, list) else [named]
        known = (self.format.end_of_turn, self.tokenizer.eos_token_id, *more)
        return tuple(dict.fromkeys(i for i in known if i is not None))

    def pieces(self, batch: Batch) -> list[list[str]]:
        """The text of each response token by itself, row by row, for showing them."""
        rows = text.words(batch["tokens"], batch["length"])
        ids = sorted({i for row in rows for i in row})
        if not ids:
            return [[] for _ in rows]
        alone = dict(zip(ids, self.tokenizer.batch_decode([[i] for i in ids]), strict=True))
        return [[alone[i] for i in row] for row in rows]

    def as_asked(self, batch: Batch) -> Batch:
        """For showing: prompts as the model saw them, with the special tokens of its chat; plain ones as they are."""
        if not self.tokenizer.chat_template:
            return batch
        distinct = list(dict.fromkeys(batch.prompts))
        texts = dict(zip(distinct, self.tokenizer.batch_decode(distinct), strict=True))
        problems = (replace(p, prompt=texts[ids]) for p, ids in zip(batch.problems, batch.prompts, strict=True))
        return replace(batch, problems=tuple(problems))

    # --- scoring -----------------------------------------------------------------------------------------

    def score(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Any field made by the scorer; [n t] ones are 0 where the mask is False, states are [n d]."""
        return scoring.score(self, batch, names)

    def kl_to_start(self, batch: Batch, rows: int = 32) -> float:
        """Nats per token from the policy to the start, by the k3 estimate; see `scoring.kl_to_start`."""
        return scoring.kl_to_start(self, batch, rows)

    @cached_property
    def reference(self) -> Any:
        """The model as it was when this engine was made; it never changes. With adapters, the model without them."""
        return lora.WithoutAdapters(self.adapters, self.model) if self.adapters else self._from_start()

    @cached_property
    def critic(self) -> forward.Critic:
        """The critic, made when first asked for; AdamW trains it beside the policy, at the same learning rate."""
        with torch.random.fork_rng(devices=[]):  # so that when it is made changes nothing else that is drawn
            critic = forward.Critic(self._from_start().base_model, self.model.config.get_text_config().hidden_size)
        critic = critic.to(self.device).eval().requires_grad_()
        self.optimizer.add_param_group({"params": list(critic.parameters())})
        return critic

    def _from_start(self) -> Any:
        if self.adapters:
            model = lora.plain_copy(self.adapters)
        else:
            model = deepcopy(self.model)
            model.load_state_dict(self._start, strict=False)  # what is frozen has not moved
        return model.requires_grad_(False).eval()

    # --- learning ----------------------------------------------------------------------------------------

    def learner(self, objective: Objective, wanted: frozenset[str], selector: Objective | None = None) -> LocalLearner:
        """The policy, ready to descend an objective that asks the forward pass for the `wanted` fields."""
        self.sampler.moves()
        return LocalLearner(self, objective, wanted, selector)

    def step(self, lr: float | None, clip_norm: float) -> dict[str, float]:
        """One AdamW step. Policy and critic are clipped apart, so that a large value loss does not slow the policy."""
        norm = finite(torch.nn.utils.clip_grad_norm_(self.parameters, clip_norm))
        if "critic" in self.__dict__:
            finite(torch.nn.utils.clip_grad_norm_(self.critic.parameters(), clip_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr if lr is None else lr
        self.optimizer.step()
        self.changes += 1
        return {"grad_norm": norm}

    # --- keeping -----------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The policy as a Hugging Face directory; an earlier one stays whole until the new one is complete.

        With adapters, they alone are written, in PEFT's format; `whet export` merges them.
        """
        folder = Path(folder)
        aside, before = (folder.with_name(f".{folder.name}.{os.getpid()}.{part}") for part in ("new", "old"))
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            card = {**self.card, "lr": self.lr}
            with load.quiet():
                if self.adapters:
                    card = {**self.card, **lora.save(self.adapters, self.path, aside)}
                else:
                    self.model.save_pretrained(aside)
                self.tokenizer.save_pretrained(aside)
            (aside / "whet.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
            if folder.exists():
                folder.rename(before)
            aside.rename(folder)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for rest in (aside, before):
                shutil.rmtree(rest, ignore_errors=True)

    def start(self) -> dict[str, Tensor]:
        """The weights that this engine was made with, on the CPU, by name; they never change."""
        return self._start

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all that training changes, on the CPU: dicts of tensors, by parameter name."""
        found: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
        for name, parameter in self._trained():
            found["weights"][name] = parameter.detach().to("cpu", copy=True)
            for key, x in self.optimizer.state.get(parameter, {}).items():
                found["optimizer"][f"{key}/{name}"] = torch.as_tensor(x).detach().to("cpu", copy=True)
        return found

    def load_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a state; the engine must have been made from the same start, which the state does not hold."""
        self.put(state)
        self.sampler.publish()

    def put(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Weights and optimiser as a state holds them, in the middle of an update: the sampler is told after it."""
        self.changes += 1
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
            kept = optimiser.count(self.optimizer, x) if key == "step" else x.to(self.device, copy=True)
            self.optimizer.state[known[name]][key] = kept

    def _trained(self) -> list[tuple[str, Tensor]]:
        critic = self.critic.named_parameters() if "critic" in self.__dict__ else ()
        named = [("policy", self.model.named_parameters()), ("critic", critic)]
        return [(f"{part}.{name}", x) for part, parameters in named for name, x in parameters if x.requires_grad]


def _sound(drawn: page.Drawn) -> page.Drawn:
    """What was drawn, refused where the policy gave no probabilities."""
    if not torch.isfinite(drawn.logp).all():
        raise NotFinite(
            "sampling",
            "the model's probabilities are not finite: go back to an earlier checkpoint or another model.",
        )
    return drawn
