"""The entropy-performance exchange (Deng et al. 2025): the end of a response teaches the most.

A'_it = A_it + sign(A_it) b_it    b_it grows with the relative position in the response
"""

import torch

from whet import groups
from whet.fields import Mask, PerToken
from whet.papers import grpo, ppl_advantage
from whet.recipe import Finding


def late_counts_more(
    advantage: PerToken,
    mask: Mask,
    gamma: float = 0.1,  # ours: the paper's value is not known to us
    steepness: float = 5.0,  # ours: the paper's value is not known to us
) -> PerToken:
    """A bonus in the advantage's own direction: γ sigmoid(steepness · x), x from -1 at the start to 1 at the end.

    >>> late_counts_more(tensor([[1., 1., -1., -1.]]), torch.ones(1, 4).bool())
    tensor([[ 1.0007,  1.0159, -1.0841, -1.0993]])
    """
    length = groups.length(mask)[:, None]
    x = 1 - 2 * (length - mask.cumsum(1)) / (length - 1).clamp(min=1)
    return advantage + advantage.sign() * gamma * torch.sigmoid(steepness * x)


recipe = grpo.recipe.with_(
    name="position_advantage",
    findings=(
        Finding("entropy_late", "grpo", "up", "higher entropy late in the response; no number", "place not read"),
        Finding("length", "grpo", "up", "longer outputs; no number", "place not read"),
    ),
    paper=ppl_advantage.paper,
    new="tokens late in the response count more",
    credit=(late_counts_more,),
    claims=ppl_advantage.recipe.claims,
    departs=("Assumed: the bonus is 0.1 · sigmoid(5x); the paper's curve and constants are not known to us.",),
)
