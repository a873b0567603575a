"""Differentiating through sampling: responses of soft tokens, which carry gradient from token to token.

A soft token is a point y on the simplex of the vocabulary; what the model reads in its place is the mean y @ E of the
embeddings. A response of soft tokens is worth what the critic forecasts at the last of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.draw import generator
from whet.engines.forward import Critic

if TYPE_CHECKING:
    from whet.engines.local import LocalEngine

Soften = Callable[[Tensor, Tensor], Tensor]
Cost = Callable[[Tensor, Tensor], Tensor]


def add_gradient(engine: "LocalEngine", batch: Batch, soften: Soften, cost: Cost, seed: int) -> float:
    """To the policy's gradient, that of the mean over rows of (mean cost of a soft token - forecast), and that mean.

    Each row gets a soft response to its prompt, at its temperature, at most as long as the batch's longest. The
    critic and the starting model are frozen, and gradient runs through what they read. Memory grows with rows x
    tokens x vocabulary; pieces of at most `token_budget` tokens are done one after the other.
    """
    longest = batch["mask"].shape[1]
    parameters, total = list(engine.model.parameters()), 0.0
    for rows in _alike(batch, engine.token_budget, longest):
        prompts = torch.tensor([batch.prompts[i] for i in rows], device=engine.device)
        temperature = batch["temperature"][rows].to(engine.device)[:, None]
        with engine.precision():
            soft, logits = unroll(engine.model, prompts, soften, temperature, _noise(seed, rows, longest))
            mask = _until(soft, engine.stop)
            start = _teacher_forced(engine.reference, prompts, soft) / temperature[:, None]
            price = groups.token_mean(cost(logits, start), mask)
            loss = (price - forecast(engine.critic, prompts, soft, mask)).sum() / len(batch)
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        for x, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                x.grad = grad if x.grad is None else x.grad + grad
        total += float(loss.detach())
    return total


def unroll(
    model: Any,
    prompts: Int[Tensor, "b p"],
    soften: Soften,
    temperature: Float[Tensor, "b 1"],
    noise: Callable[[int], Tensor],
) -> tuple[Float[Tensor, "b t v"], Float[Tensor, "b t v"]]:
    """Soft responses, and the logits over temperature that they were made from. `noise` draws uniforms [b t v]."""
    read = model(input_ids=prompts, use_cache=True)
    uniform = noise(read.logits.shape[-1]).to(prompts.device)
    table = _table(model, uniform.shape[-1])
    soft, all_logits = [], []
    for t in range(uniform.shape[1]):
        all_logits.append(read.logits[:, -1].float() / temperature)
        soft.append(soften(all_logits[-1], uniform[:, t]))
        if t + 1 < uniform.shape[1]:
            meant = (soft[-1].to(table.dtype) @ table)[:, None]
            read = model(inputs_embeds=meant, past_key_values=read.past_key_values, use_cache=True)
    return torch.stack(soft, 1), torch.stack(all_logits, 1)


def forecast(
    critic: Critic, prompts: Int[Tensor, "b p"], soft: Float[Tensor, "b t v"], mask: Tensor
) -> Float[Tensor, "b"]:
    """What the critic forecasts where the last soft token that counts is predicted; carries gradient to `soft`."""
    hidden = critic.backbone(inputs_embeds=_read(critic.backbone, prompts, soft), use_cache=False).last_hidden_state
    last = prompts.shape[1] - 1 + mask.sum(1) - 1
    return critic.head(hidden[torch.arange(len(last)), last])[:, 0].float()


def _teacher_forced(model: Any, prompts: Tensor, soft: Tensor) -> Float[Tensor, "b t v"]:
    logits: Tensor = model(inputs_embeds=_read(model, prompts, soft), use_cache=False).logits
    return logits[:, prompts.shape[1] - 1 : -1].float()


def _read(model: Any, prompts: Tensor, soft: Tensor) -> Float[Tensor, "b s d"]:
    """The embeddings of prompts and of the soft tokens behind them."""
    table = _table(model, soft.shape[-1])
    return torch.cat([model.get_input_embeddings()(prompts), soft.to(table.dtype) @ table], 1)


def _table(model: Any, vocabulary: int) -> Float[Tensor, "v d"]:
    """The embedding of every token, as the model's own layer gives it: some scale what they look up."""
    embed = model.get_input_embeddings()
    found: Tensor = embed(torch.arange(vocabulary, device=embed.weight.device))
    return found


def _until(soft: Float[Tensor, "b t v"], stop: tuple[int, ...]) -> Tensor:
    """True up to the first token that is most of all an end token, that one included."""
    ended = torch.isin(soft.argmax(-1), torch.tensor(stop, device=soft.device))
    return ended.cumsum(1) - ended.long() == 0


def _noise(seed: int, rows: list[int], tokens: int) -> Callable[[int], Tensor]:
    """Uniform numbers for some rows: each row has its own, whichever rows are computed beside it."""
    return lambda v: torch.stack([torch.rand(tokens, v, generator=generator(seed, row)) for row in rows])


def _alike(batch: Batch, budget: int, longest: int) -> Iterator[list[int]]:
    """Rows whose prompts are of one length, so that none needs padding, in pieces of at most `budget` tokens."""
    found = defaultdict(list)
    for row, prompt in enumerate(batch.prompts):
        found[len(prompt)].append(row)
    for length, rows in found.items():
        most = max(budget // (length + longest), 1)
        yield from (rows[i : i + most] for i in range(0, len(rows), most))
