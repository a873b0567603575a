"""Optimal token baseline (Li et al. 2026): a baseline for each position, weighed by how uncertain the path has been.

W_it = Σ_{j≤t} ( 1 - 2 π(y_ij) + Σ_v π_v² )           the squared norm of the logits' gradient, summed so far
B_t  = Σ_i G_it W_it / Σ_i W_it                       over the responses to one prompt that reach t
A_it = G_it - B_t,   G the reward to go
"""

from whet import groups
from whet.fields import Group, Mask, PerToken
from whet.papers import reinforce
from whet.recipe import Paper


def realised_energy(old_logp: PerToken, old_collision: PerToken, mask: Mask) -> PerToken:
    """W: how much the gradient's noise has grown up to each token.

    >>> logp, collision = tensor([[.5, .9], [.3, .1]]).log(), tensor([[.38, .82], [.38, .82]])
    >>> realised_energy(logp, collision, torch.ones(2, 2).bool())
    tensor([[0.3800, 0.4000],
            [0.7800, 2.4000]])
    """
    return groups.spread(1 - 2 * old_logp.exp() + old_collision, mask).cumsum(1)


def optimal_token_baseline(
    token_reward: PerToken,
    old_logp: PerToken,
    old_collision: PerToken,
    group: Group,
    mask: Mask,
    epsilon: float = 1e-8,  # verl
) -> PerToken:
    """The reward to go minus the baseline of its position; alone there, a response has none.

    >>> logp, collision = tensor([[.5, .9], [.3, .1]]).log(), tensor([[.38, .82], [.38, .82]])
    >>> reward = tensor([[0., 1.], [0., 0.]])
    >>> optimal_token_baseline(reward, logp, collision, tensor([0, 0]), torch.ones(2, 2).bool())
    tensor([[ 0.6724,  0.8571],
            [-0.3276, -0.1429]])
    """
    to_go, energy = groups.to_go(token_reward, mask), realised_energy(old_logp, old_collision, mask) * mask
    baseline = groups.total(to_go * energy, group) / (groups.total(energy, group) + epsilon)
    return to_go - baseline * (groups.total(mask.float(), group) > 1)


recipe = reinforce.recipe.with_(
    name="otb",
    paper=Paper(
        "The Optimal Token Baseline: Variance Reduction for Long-Horizon LLM-RL",
        arxiv="2602.07078", date="2026-02-06",
        authors="Li, Yingru and Xu, Jiawei and Li, Ziniu and Liu, Jiacai and Liu, Wei and others",
    ),
    new="a baseline for each position, from responses weighed by their accumulated gradient norm",
    advantage=optimal_token_baseline, claims=("policy_gradient",),
    departs=(
        "The policy gradient itself; verl pairs it with PPO's clip, which is the same for one update for each batch.",
        "The weights are not corrected for a sampler that differs from the policy: verl can multiply them by ρ².",
    ),
)  # fmt: skip
