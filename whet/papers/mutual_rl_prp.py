"""Mutual RL (Liu et al. 2026): the responses of models that train side by side are one group; here there is one model.

    PRP   own and peers' responses are one group: A over the pool, peers' tokens weighed by π / π_peer

A demonstration stands in for the peers' responses.
"""

from functools import partial

import torch

from whet.fields import Flag, PerToken
from whet.papers import grpo, mutual_rl_sgt, srft


def density_ratio(old_logp: PerToken, demonstration: Flag) -> PerToken:
    """π / 1 on a demonstration, which nobody sampled; 1 on a response.

    >>> density_ratio(tensor([[-0.5], [-0.5]]), tensor([True, False]))
    tensor([[0.6065],
            [1.0000]])
    """
    return torch.where(demonstration[:, None], torch.exp(old_logp), 1.0)


recipe = grpo.recipe.with_(
    name="mutual_rl_prp",
    paper=mutual_rl_sgt.paper,
    new="responses from elsewhere join the group, weighed by how likely they are",
    sample=partial(srft.with_demonstrations, responses=16),  # ours: as plain.same_number
    weights=(density_ratio,),
    shelf="sampling",
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "One demonstration for each problem joins the group, not the responses of a peer, right and wrong.",
        "Assumed: the demonstration's own probability is 1, so that the ratio is π and the paper's clip cannot act.",
        "The ratio is that of the start of the update, and constant within it.",
    ),
)
