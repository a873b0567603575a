"""SRPO (Jiang and Zou 2026): a token counts more, the more what it was to be read from made it likely.

x_t  = log π(y_t | prompt) - log π(y_t | prompt with parts hidden)
w_t  = exp(clip(x_t, -1, 1)) / mean over its response of the same         positive, mean 1, no gradient
A_it = w_it A_i                                                           in PPO's clip
"""

from whet import groups
from whet.fields import Mask, PerToken
from whet.papers import grpo, ppo
from whet.recipe import Paper


def role_weight(logp: PerToken, blind_logp: PerToken, mask: Mask, bound: float = 1.0) -> PerToken:  # as below
    """How much likelier the prompt made each token, with mean 1 in its response; carries no gradient.

    >>> contrast = tensor([[.8, .1, .0, .4, .2]])
    >>> role_weight(contrast - 1, -torch.ones(1, 5), torch.ones(1, 5).bool())
    tensor([[1.5798, 0.7845, 0.7098, 1.0589, 0.8670]])
    """
    weight = (logp - blind_logp).detach().clamp(-bound, bound).exp()
    return weight / groups.token_mean(weight, mask).clamp(min=1e-6)[:, None]


def role_aware_clip(
    logp: PerToken,
    old_logp: PerToken,
    blind_logp: PerToken,
    advantage: PerToken,
    mask: Mask,
    low: float = 0.2,  # PPO's, as GRPO
    high: float = 0.2,  # PPO's, as GRPO
    bound: float = 1.0,  # assumed: no value of the paper was seen
) -> PerToken:
    """PPO's clip of the weighed advantage.

    >>> logp, mask = tensor([[.8, .1, .0, .4, .2]]) - 1, torch.ones(1, 5).bool()
    >>> role_aware_clip(logp, logp, -torch.ones(1, 5), torch.full((1, 5), .7), mask)
    tensor([[-1.1058, -0.5491, -0.4969, -0.7413, -0.6069]])
    """
    return ppo.clip(logp, old_logp, advantage * role_weight(logp, blind_logp, mask, bound), low, high)


recipe = grpo.recipe.with_(
    name="srpo_role",
    paper=Paper(
        "Structured Role-Aware Policy Optimization for Multimodal Reasoning",
        arxiv="2605.07274", date="2026-05-08",
        authors="Jiang, Bingqing and Zou, Difan",
    ),
    new="tokens that lean on the prompt count more, at the same mean", loss=role_aware_clip,
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "Text only: 60 % of the prompt's tokens are hidden, where the paper corrupts the image.",
        "One role: on text no token is marked as perception, whose own contrast the paper's reasoning tokens have.",
        "Assumed: the form of the weight, from the paper's abstract: positive, of mean 1, bounded by e and 1/e.",
        "The weight is of the policy being trained, mini-batch by mini-batch.",
    ),
)  # fmt: skip
