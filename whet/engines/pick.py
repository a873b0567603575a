"""The next token: one number in [0, 1) a row, and the token at which the running sum of the weights passes it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet.engines.head import BLOCK, LOWEST

LARGE = 8192  # tokens: from here on it pays to look for the likely ones before they are sorted; ours, as measured
SPAN = 512  # tokens: about the square root of today's vocabularies, so that both searches are short


@dataclass(frozen=True)
class Drawing:
    """How to draw: `stop` are the token ids that end a response."""

    temperature: float
    top_p: float
    greedy: bool
    max_tokens: int
    stop: tuple[int, ...]
    padding: int


def pick(logits: Float[Tensor, "r v"], uniform: Float[Tensor, "r"], how: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row, its log-probability as drawn, and the entropy of the untruncated distribution [r].

    A few rows at a time where the vocabulary is large, so that all passes over them find them in the cache.
    """
    cpu = logits.device.type == "cpu"
    rows = max(BLOCK // logits.shape[1], 1) * torch.get_num_threads() if cpu else len(logits)
    pieces = [_pick(z, u, how) for z, u in zip(logits.split(rows), uniform.split(rows), strict=True)]
    token, logp, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
    return token, logp, entropy


def _pick(logits: Tensor, uniform: Tensor, how: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    z = logits.float() if how.temperature == 1 else logits.float() / how.temperature
    z = (z - z.amax(1, keepdim=True)).clamp_(min=LOWEST)
    weight = z.exp()
    if how.top_p < 1 and not how.greedy:
        total = weight.sum(1)
        token, mass = invert(weight.where(nucleus(weight / total[:, None], how.top_p) > 0, 0.0), uniform)
    else:
        token, mass = (z.argmax(1), weight.sum(1)) if how.greedy else invert(weight, uniform)
        total = mass
    logp = z.gather(1, token[:, None])[:, 0] - mass.log()
    entropy = total.log() - z.mul_(weight).sum(1) / total
    return token, logp.float(), entropy.float()


def invert(weight: Float[Tensor, "r v"], uniform: Float[Tensor, "r"]) -> tuple[Int[Tensor, "r"], Float[Tensor, "r"]]:
    """The token at which the running sum of a row passes `uniform` times its total; and that total, in float64.

    First among sums of `SPAN` tokens, then inside that span: no running sum over the whole vocabulary. Running sums
    are in float64, since in float32 the tail of a large vocabulary would be lost; so is all but the sums of 64 tokens.

    >>> invert(tensor([[0.5, 0.0, 0.25, 0.25]]), tensor([0.5]))[0]
    tensor([2])
    """
    vocabulary = weight.shape[1]
    if vocabulary <= SPAN:
        ends = weight.cumsum(1, dtype=torch.float64)
        # uniform has 24 bits, so uniform × mass stays below the mass: a token of weight 0 is never drawn
        return _passed(ends, uniform[:, None] * ends[:, -1:])[:, 0], ends[:, -1]
    even = vocabulary - vocabulary % SPAN
    sums = weight[:, :even].unflatten(1, (-1, SPAN // 64, 64)).sum(3).sum(2, dtype=torch.float64)
    if even < vocabulary:
        sums = torch.cat([sums, weight[:, even:].sum(1, keepdim=True, dtype=torch.float64)], 1)
    ends = sums.cumsum(1)
    aim = uniform[:, None] * ends[:, -1:]
    first = _passed(ends, aim)
    before = torch.where(first > 0, ends.gather(1, (first - 1).clamp(min=0)), 0.0)
    at = first * SPAN + torch.arange(SPAN, device=weight.device)
    inside = weight.gather(1, at.clamp(max=vocabulary - 1))  # behind the end its last token again, which is not reached
    # A span's running sum may end a rounding below its sum: what is left then goes to its last token with weight.
    running = inside.cumsum(1, dtype=torch.float64)
    aim = torch.minimum(aim - before, running[:, -1:].nextafter(torch.zeros_like(aim)))
    return (first * SPAN + _passed(running, aim))[:, 0].clamp(max=vocabulary - 1), ends[:, -1]


def _passed(running: Tensor, aim: Tensor) -> Tensor:
    """The first place [r 1] of a running sum [r k] that is above `aim` [r 1]."""
    # The bound is for weights that are no numbers, which `sample` refuses.
    return torch.searchsorted(running, aim, right=True).clamp(max=running.shape[1] - 1)


def nucleus(probability: Float[Tensor, "r v"], top_p: float) -> Float[Tensor, "r v"]:
    """The smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2019, 1904.09751); 0 elsewhere.

    >>> nucleus(tensor([[0.5, 0.2, 0.3]]), 0.6)
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    vocabulary = probability.shape[1]
    if probability.device.type != "cpu" or vocabulary < LARGE:
        return _nucleus(probability, top_p)
    # All tokens below this together have less than what may be missing, so none of them is needed.
    some = probability >= (1 - top_p) / 2 / vocabulary
    if 4 * some.sum() > some.numel():
        return _nucleus(probability, top_p)
    kept = torch.zeros_like(probability)
    for row, few, mine in zip(probability, some, kept, strict=True):
        few = few.nonzero()[:, 0]
        mine[few] = _nucleus(row[few], top_p)
    return kept


def _nucleus(probability: Float[Tensor, "... v"], top_p: float) -> Float[Tensor, "... v"]:
    likely, order = probability.sort(dim=-1, descending=True, stable=True)
    before = likely.cumsum(-1) - likely
    return torch.zeros_like(probability).scatter(-1, order, torch.where(before < top_p, likely, 0.0))
