"""GTPO and GRPO-S (Tan et al. 2025): share the reward of a group by entropy, right and wrong answers apart.

right  r_it =  α1 R_i + α2 d_t ·   H_it   / Σ_k   H_kt       d_t, h_t: right, wrong answers
wrong  r_jt = -α1     - α2 h_t · (1/H_jt) / Σ_k (1/H_kt)     still running at t; α1 = 1
A_it = (r_it - mean) / std     over all tokens of the right answers, and over all tokens of the wrong ones
GRPO-S: the same with the mean entropy of each response, and w_i = 1/|o_i| Σ_t π / π_old as its ratio
Appendix D: -½ (|y| - L) / L beyond L = max( (shortest + longest) / 2, mean ), for the side in the majority
"""

import torch

from whet import groups, plain
from whet.fields import Count, Flag, Group, Mask, PerResponse, PerToken
from whet.papers import dapo, grpo, ppo
from whet.papers.spro_msa import at_each_position
from whet.recipe import Paper


def shares(reward: PerResponse, correct: Flag, group: Group, entropy: PerToken, mask: Mask, bonus: float) -> PerToken:
    """r_it: what falls to each token of its side's reward.

    >>> one, two, on = tensor([1., 1.]), tensor([0, 0]), torch.ones(2, 1).bool()
    >>> shares(one, one > 0, two, tensor([[2.], [3.]]), on, 0.1).flatten()
    tensor([1.0800, 1.1200])
    """
    entropy, side = groups.spread(entropy, mask) + 1e-8, 2 * group + correct  # remark 2.1: 1e-8
    stake, right = torch.where(correct[:, None], entropy, 1 / entropy), correct[:, None].float()
    share = stake / at_each_position(stake, mask, side).clamp(min=1e-30) * at_each_position(mask.float(), mask, side)
    return reward[:, None] + right - 1 + (2 * right - 1) * bonus * share


def z_by_side(shaped: PerToken, correct: Flag, group: Group, mask: Mask) -> PerToken:
    """In population standard deviations from the mean of its side; 0 where a side has one value only."""
    x, side = groups.spread(shaped.double(), mask), 2 * group + correct  # float32's rounding would look like a spread
    tokens = groups.total(groups.length(mask).double(), side).clamp(min=1)
    x = groups.spread(x - (groups.total(x.sum(1), side) / tokens)[:, None], mask)
    std = (groups.total((x**2).sum(1), side) / tokens).sqrt()[:, None]
    return (x / (std + 1e-8)).float()


def token_shares(
    reward: PerResponse, correct: Flag, group: Group, sampled_entropy: PerToken, mask: Mask,
    bonus: float = 0.1,  # experiments: α2 = 0.1
) -> PerToken:  # fmt: skip
    """Among right answers the uncertain tokens win, among wrong ones the certain tokens lose.

    >>> one, entropy, on = tensor([1., 1.]), tensor([[2., 4., 1.], [3., 1., 0.]]), torch.arange(6).view(2, 3) < 5
    >>> token_shares(one, one > 0, tensor([0, 0]), entropy, on).round(decimals=4)
    tensor([[-0.5000,  1.5000,  0.0000],
            [ 0.5000, -1.5000,  0.0000]])
    """
    return z_by_side(shares(reward, correct, group, sampled_entropy, mask, bonus), correct, group, mask)


def response_shares(
    reward: PerResponse, correct: Flag, group: Group, sampled_entropy: PerToken, mask: Mask,
    bonus: float = 0.1,  # experiments: β2 = 0.1
) -> PerResponse:  # fmt: skip
    """The same with one share for each response; two on a side always get 1 and -1, one alone gets 0.

    >>> one, entropy, on = tensor([1., 1.]), tensor([[2., 4., 1.], [3., 1., 0.]]), torch.arange(6).view(2, 3) < 5
    >>> response_shares(one, one > 0, tensor([0, 0]), entropy, on)
    tensor([ 1.0000, -1.0000])
    """
    whole, once = groups.token_mean(sampled_entropy, mask)[:, None], torch.ones_like(mask[:, :1])
    return token_shares(reward, correct, group, whole, once, bonus)[:, 0]


def mean_ratio_clip(
    logp: PerToken, old_logp: PerToken, advantage: PerToken, mask: Mask,
    low: float = 0.2,  # experiments: ε_low = 0.2
    high: float = 0.28,  # experiments: ε_high = 0.28
) -> PerToken:  # fmt: skip
    """PPO's clip on the mean ratio of a response's tokens, where GSPO has the geometric mean.

    >>> mean_ratio_clip(tensor([[-1.2, -.3]]), tensor([[-.7, -1.6]]), -torch.ones(1, 2), torch.ones(1, 2).bool())
    tensor([[2.1379, 2.1379]])
    """
    w = groups.token_mean(ppo.ratio(logp, old_logp), mask)[:, None]
    return torch.maximum(-advantage * w, -advantage * w.clamp(1 - low, 1 + high))


def long_majority(
    length: Count, correct: Flag, group: Group,
    easy: float = 0.75,  # appendix D: easy from 3/4 right answers on, hard up to 1/4
    factor: float = 0.5,  # appendix D
) -> PerResponse:  # fmt: skip
    """A penalty for long right answers where most are right, for long wrong ones where half or fewer are.

    >>> long_majority(tensor([100, 200, 400, 900]), torch.ones(4).bool(), tensor([0, 0, 0, 0])) + 0.0
    tensor([ 0.0000,  0.0000,  0.0000, -0.4000])
    """
    tokens, rate = length.float(), groups.mean(correct.float(), group)
    counted = correct | (rate < easy)
    longest, minus_shortest = (groups.largest(torch.where(counted, x, -torch.inf), group) for x in (tokens, -tokens))
    mean = groups.total(tokens * counted, group) / groups.total(counted.float(), group)
    limit = torch.maximum((longest - minus_shortest) / 2, mean)
    punished = (correct == (rate > 0.5)) & (rate > 1 - easy)
    return -factor * punished * (tokens / limit - 1).clamp(0, 1)


_paper = Paper("GTPO and GRPO-S: Token and Sequence-Level Reward Shaping with Policy Entropy", arxiv="2508.04349",
               date="2025-08-06", authors="Tan, Hongze and Pan, Jianfei and others")  # fmt: skip
_departs = ("Normalised apart, each side's advantages sum to 0: being right is subtracted, entropy is left. "
            "So it does not learn `digits`; normalised together it does.",)  # fmt: skip
recipe = dapo.recipe.with_(
    name="gtpo", paper=_paper, new="each side's reward is shared among its tokens by entropy", advantage=token_shares,
    claims=("policy_gradient", "shift_changes_nothing"), departs=_departs,
)  # fmt: skip
grpo_s = dapo.recipe.with_(
    name="grpo_s", paper=_paper, new="each side's reward is shared among its responses by mean entropy",
    advantage=response_shares, normalise=grpo.over_responses, loss=mean_ratio_clip,
    claims=("policy_gradient", "sums_to_zero", "shift_changes_nothing"),
    departs=(*_departs, "Assumed: right and wrong answers are normalised apart, as in GTPO."),
)  # fmt: skip
grop = grpo.recipe.with_(
    name="grop", paper=_paper, new="a length penalty for the majority", reward=(plain.task_score, long_majority),
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"), shelf="reward",
    departs=("GRPO does the rest, with the means over tokens and responses of its own; the appendix names no loss.",),
)  # fmt: skip
