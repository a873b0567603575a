"""The next token: one number in [0, 1) a row, and the token at which the running sum of the weights passes it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from whet.engines.head import BLOCK, LOWEST

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

    Row by row where the vocabulary is large, so that all passes over a row find it in the processor's cache.
    """
    rows = max(BLOCK // logits.shape[1], 1) if logits.device.type == "cpu" else len(logits)
    pieces = [_pick(z, u, how) for z, u in zip(logits.split(rows), uniform.split(rows), strict=True)]
    token, logp, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
    return token, logp, entropy


def _pick(logits: Tensor, uniform: Tensor, how: Drawing) -> tuple[Tensor, Tensor, Tensor]:
    z = logits.float() if how.temperature == 1 else logits.float() / how.temperature
    z = (z - z.amax(1, keepdim=True)).clamp_(min=LOWEST)
    weight = z.exp()
    total = weight.sum(1, keepdim=True)
    entropy = (total.log() - (weight * z).sum(1, keepdim=True) / total)[:, 0]
    if how.greedy:
        token = z.argmax(1)
        return token, (z.gather(1, token[:, None]) - total.log())[:, 0], entropy
    kept = nucleus(weight / total, how.top_p) if how.top_p < 1 else weight
    token, mass = invert(kept, uniform)
    # Without truncation the mass is the total, of which `total` is what learner and scorer compute too.
    mass = mass.log() if how.top_p < 1 else total[:, 0].double().log()
    chosen = z.gather(1, token[:, None])[:, 0] - (total[:, 0].log() if how.top_p < 1 else 0)
    return token, (chosen - mass).float(), entropy


def invert(weight: Float[Tensor, "r v"], uniform: Float[Tensor, "r"]) -> tuple[Int[Tensor, "r"], Float[Tensor, "r"]]:
    """The token at which the running sum of a row passes `uniform` times its total; and that total, in float64.

    First among sums of `SPAN` tokens, then inside that span: no running sum over the whole vocabulary. All sums are
    in float64, since in float32 the tail of a large vocabulary would be lost.

    >>> invert(tensor([[0.5, 0.0, 0.25, 0.25]]), tensor([0.5]))[0]
    tensor([2])
    """
    vocabulary = weight.shape[1]
    span = min(SPAN, vocabulary)
    spans = torch.nn.functional.pad(weight, (0, -vocabulary % span)).view(len(weight), -1, span)
    ends = spans.sum(2, dtype=torch.float64).cumsum(1)
    mass = ends[:, -1:]
    # uniform has 24 bits, so uniform × mass stays below the mass: a token of weight 0 is never drawn
    aim = uniform[:, None] * mass
    first = torch.searchsorted(ends, aim, right=True)
    first = first.clamp(max=ends.shape[1] - 1)  # for weights that are no numbers, which `sample` refuses
    before = torch.where(first > 0, ends.gather(1, (first - 1).clamp(min=0)), 0.0)
    inside = spans.gather(1, first[:, :, None].expand(-1, 1, span))[:, 0]
    # A span's running sum may end a rounding below its sum: what is left then goes to its last token with weight.
    running = inside.cumsum(1, dtype=torch.float64)
    aim = torch.minimum(aim - before, running[:, -1:].nextafter(torch.zeros_like(aim)))
    place = torch.searchsorted(running, aim, right=True).clamp(max=span - 1)
    return (first * span + place)[:, 0].clamp(max=vocabulary - 1), mass[:, 0]


def nucleus(probability: Float[Tensor, "r v"], top_p: float) -> Float[Tensor, "r v"]:
    """The smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2019, 1904.09751); 0 elsewhere.

    >>> nucleus(tensor([[0.5, 0.2, 0.3]]), 0.6)
    tensor([[0.5000, 0.0000, 0.3000]])
    """
    likely, order = probability.sort(dim=-1, descending=True, stable=True)
    before = likely.cumsum(-1) - likely
    return torch.zeros_like(probability).scatter(-1, order, torch.where(before < top_p, likely, 0.0))
