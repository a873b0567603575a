"""Where models run: sampling, scoring, learning. A recipe never sees which engine serves it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from whet.batch import Batch
from whet.tasks import Problem


class Learner(Protocol):
    """The policy being trained, as an `update` part sees it."""

    def gradient(self, batch: Batch, scale: float = 1.0) -> dict[str, float]:
        """Set the gradient of scale × objective on this batch, however it is split; returns metrics."""
        ...

    def first_seen(self, batch: Batch) -> dict[str, Tensor]:
        """`logp` and `push` of each response when it was first met, for showing; empty where it was not."""
        ...

    def step(self, lr: float | None, clip_norm: float) -> dict[str, float]:
        """One optimiser step with the gradient that was set; returns `grad_norm`."""
        ...

    def critic_alone(self) -> "Learner":
        """The same learner with steps that move the critic and leave the policy where it is."""
        ...

    def through_sampling(
        self, batch: Batch, soften: Callable[[Tensor, Tensor], Tensor], cost: Callable[[Tensor, Tensor], Tensor],
        seed: int,
    ) -> float:  # fmt: skip
        """Add the gradient, by way of soft responses to the batch's prompts, of their cost less the critic's forecast.

        `soften` makes of logits and uniform numbers [b v] a soft token; `cost` takes the logits of the policy and of
        the starting model [b t v], and gives a price for each soft token [b t].
        """
        ...


class Engine(Protocol):
    """A model with a sampler and a learner."""

    def sample(
        self, problems: Sequence[Problem], responses: Sequence[int], *, temperature: float = 1.0,
        top_p: float = 1.0, greedy: bool = False, max_tokens: int, seed: int, reference: bool = False,
        ended: Callable[[Sequence[int], Sequence[str]], None] | None = None,
    ) -> Batch:  # fmt: skip
        """`responses[i]` responses to `problems[i]`, rows in that order, with all fields made by the sampler.

        With `reference`, by the model as it was at the start of the run. `ended` may be told rows and their texts
        while others are still being written; an engine that cannot do so tells nothing.
        """
        ...

    def resume(self, batch: Batch, *, max_tokens: int, seed: int) -> Batch:
        """Its unfinished responses, each at most `max_tokens` longer, by the policy as it is now."""
        ...

    def ends(self, batch: Batch) -> list[list[int]]:
        """For each token of each response, where in the response's text it ends, in characters."""
        ...

    def score(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Any field made by the scorer (see `FIELDS`); [n t] ones are 0 where the mask is False."""
        ...

    def learner(
        self, objective: Callable[[Mapping[str, Tensor]], Tensor], wanted: frozenset[str],
        selector: Callable[[Mapping[str, Tensor]], Tensor] | None = None,
    ) -> Learner:  # fmt: skip
        """The policy, ready to descend an objective that asks the forward pass for the `wanted` fields.

        A `selector` sees a whole mini-batch with the detached `logp` of now, and gives the field `selected` [n t].
        """
        ...

    def save(self, folder: Path) -> None:
        """The policy as a Hugging Face directory: config, tokenizer, safetensors."""
        ...
