"""GTPO and GRPO-S (Tan et al. 2025): share the reward of a group by entropy, right and wrong answers apart.

right  r_it =  α1 R_i + α2 d_t ·   H_it   / Σ_k   H_kt       d_t, h_t: right, wrong answers
wrong  r_jt = -α1     - α2 h_t · (1/H_jt) / Σ_k (1/H_kt)     still running at t
A_it = (r_it - mean) / std     over all tokens of the right answers, and over all tokens of the wrong ones
GRPO-S: the same with the mean entropy of each response, and w_i = 1/|o_i| Σ_t π / π_old instead of a token's ratio.
Appendix D: -½ (|y| - L) / L beyond L = max( (shortest + longest) / 2, mean ), for the side in the majority.
"""

import torch

from whet import groups, plain
from whet.fields import Count, Flag, Group, Mask, PerResponse, PerToken
from whet.papers import dapo, grpo, ppo
from whet.papers.spro_msa import at_each_position
from whet.recipe import Paper


def shared(stake: PerToken, correct: Flag, reward: PerResponse, mask: Mask, side: Group, base: float, bonus: float):
    """r_it: the reward and a share by stake of what the running responses of its side have; minus for wrong ones."""
    running = at_each_position(mask.float(), mask, side)
    share = stake * running / at_each_position(stake, mask, side).clamp(min=1e-30)
    sign = torch.where(correct, 1.0, -1.0)[:, None]
    return base * (reward - (~correct).float())[:, None] + sign * bonus * share


def z_by_side(shaped: PerToken, side: Group, mask: Mask) -> PerToken:
    """In population standard deviations from the mean of its side; 0 where a side has one value only.

    >>> z_by_side(tensor([[1.08, 1.16, 1.1], [1.12, 1.04, 0.]]), tensor([0, 0]), torch.arange(6).view(2, 3) < 5)
    tensor([[-0.5000,  1.5000,  0.0000],
            [ 0.5000, -1.5000,  0.0000]])
    """
    x = groups.spread(shaped.double(), mask)  # in float32 the rounding of equal rewards would look like a spread
    tokens = groups.total(groups.length(mask).double(), side).clamp(min=1)
    x = x - (groups.total(groups.token_sum(x, mask), side) / tokens)[:, None]
    std = (groups.total(groups.token_sum(x**2, mask), side) / tokens).sqrt()[:, None]
    return groups.spread(x / (std + 1e-8), mask).float()


def token_shares(
    reward: PerResponse, correct: Flag, group: Group, sampled_entropy: PerToken, mask: Mask,
    base: float = 1.0,  # α1 = 1, experiments
    bonus: float = 0.1,  # α2 = 0.1, experiments
    epsilon: float = 1e-8,  # remark 2.1, for zero entropy
) -> PerToken:  # fmt: skip
    """Among right answers the uncertain tokens win, among wrong ones the certain tokens lose.

    >>> right, entropy = tensor([True, True]), tensor([[2., 4., 1.], [3., 1., 0.]])
    >>> token_shares(right.float(), right, tensor([0, 0]), entropy, torch.arange(6).view(2, 3) < 5)
    tensor([[-0.5000,  1.5000,  0.0000],
            [ 0.5000, -1.5000,  0.0000]])
    """
    entropy, side = groups.spread(sampled_entropy, mask) + epsilon, 2 * group + correct
    stake = torch.where(correct[:, None], entropy, 1 / entropy)
    return z_by_side(shared(stake, correct, reward, mask, side, base, bonus), side, mask)


def response_shares(
    reward: PerResponse, correct: Flag, group: Group, sampled_entropy: PerToken, mask: Mask,
    base: float = 1.0,  # β1 = 1, experiments
    bonus: float = 0.1,  # β2 = 0.1, experiments
    epsilon: float = 1e-8,  # remark 2.1, for zero entropy
) -> PerResponse:  # fmt: skip
    """The same with one share for each response; two on a side always get 1 and -1, one alone gets 0.

    >>> entropy, on = tensor([[2., 4., 1.], [3., 1., 0.], [4., .5, 3.], [.5, 4., 0.]]), torch.ones(4, 3).bool()
    >>> on[1, 2] = on[3, 2] = False
    >>> right = tensor([True, True, False, False])
    >>> response_shares(right.float(), right, tensor([0, 0, 0, 0]), entropy, on)
    tensor([ 1.0000, -1.0000,  1.0000, -1.0000])
    """
    whole = groups.token_mean(sampled_entropy, mask)[:, None]
    return token_shares(reward, correct, group, whole, torch.ones_like(whole).bool(), base, bonus, epsilon)[:, 0]


def mean_ratio_clip(
    logp: PerToken, old_logp: PerToken, advantage: PerToken, mask: Mask,
    low: float = 0.2,  # experiments: ε_low = 0.2
    high: float = 0.28,  # experiments: ε_high = 0.28
) -> PerToken:  # fmt: skip
    """PPO's clip on the mean ratio of the response's tokens, repeated on them; GSPO has the geometric mean.

    >>> mean_ratio_clip(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), -torch.ones(1, 2), torch.ones(1, 2).bool())
    tensor([[2.1379, 2.1379]])
    """
    w = groups.token_mean(ppo.ratio(logp, old_logp), mask)[:, None]
    return torch.maximum(-advantage * w, -advantage * w.clamp(1 - low, 1 + high))
