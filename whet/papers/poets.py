"""POETS (Menet et al. 2026), its single member: fit the reward that the policy itself implies.

    d_i = log π(y_i) - log π_ref(y_i),  whole response;   a KL-regularised optimum has β d_i = R_i + c(x)
    L   = 1/n Σ_i ( β d_i - R_i - c )²,   c = mean over the group of β d - R
At π = π_ref the gradient is that of REINFORCE with advantage 2 β (R_i - mean R).
"""

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import grpo
from whet.recipe import Paper


def implied(
    reward: PerResponse,
    old_logp: PerToken,
    ref_logp: PerToken,
    group: Group,
    mask: Mask,
    beta: float = 0.1,  # ours: the paper's value is not known
) -> PerResponse:
    """What β d_i should be: R_i + c, with c from the policy at the start of the update.

    >>> old, ref = tensor([[.2], [-.1], [.05], [0.]]), torch.zeros(4, 1)
    >>> implied(tensor([1., 0., 0., 1.]), old, ref, tensor([0, 0, 0, 0]), torch.ones(4, 1).bool(), beta=0.5)
    tensor([ 0.5188, -0.4812, -0.4812,  0.5188])
    """
    drift = beta * groups.token_sum(old_logp - ref_logp, mask)
    return reward - groups.mean(reward - drift, group)


def implied_reward_error(
    logp: PerToken,
    ref_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    beta: float = 0.1,  # as the advantage
) -> PerToken:
    """(β d_i - target)², repeated on the tokens for a mean over responses.

    >>> implied_reward_error(tensor([[.2]]), tensor([[0.]]), tensor([[.5]]), tensor([[True]]), beta=0.5)
    tensor([[0.1600]])
    """
    return (beta * groups.token_sum(logp - ref_logp, mask)[:, None] - advantage) ** 2


recipe = grpo.recipe.with_(
    name="poets",
    paper=Paper(
        "POETS: Uncertainty-Aware LLM Optimization via Compute-Efficient Policy Ensembles", arxiv="2605.07775",
        date="2026-05-08", authors="Menet, Nicolas and Krause, Andreas and Rahimi, Abbas",
    ),
    new="regress the policy's implied reward on the reward, within each group", advantage=implied,
    loss=implied_reward_error, penalties=(), claims=("shift_changes_nothing",),
    departs=(
        "One member, so no Thompson sampling: the paper draws with one of 16 LoRA branches. No replay of 4 batches.",
        "Assumed: the loss, derived from the KL-regularised optimum, and β = 0.1; the paper's text was not seen.",
        "c is computed once for each batch, from the policy at the start of the update: exact for one update.",
    ),
)  # fmt: skip
