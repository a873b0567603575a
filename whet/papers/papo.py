"""PAPO (Wang et al. 2025): a response should become less likely when the prompt can be seen only in part.

L = L_GRPO - γ (r - ln r - 1) - η1 log π - η2 log π_mask,  r = π / π_mask, each with the loss's own mean
"""

from functools import partial

from whet.fields import PerToken
from whet.papers import grpo, kl_estimators
from whet.recipe import Finding, Paper


def perception(logp: PerToken, blind_logp: PerToken, gamma: float = 0.02) -> PerToken:  # the paper, for GRPO
    """-γ (r - ln r - 1), r = π / π_mask as the paper writes it; kept below 10 as in the code.

    >>> perception(tensor([[-.5, -.5, -1.]]), tensor([[-1.5, -.4, -3.]]), gamma=1.0)
    tensor([[-0.7183, -0.0048, -4.3891]])
    """
    return -gamma * kl_estimators.k3(blind_logp, logp, beta=1.0).clamp(max=10)


def perception_in_the_code(logp: PerToken, blind_logp: PerToken, gamma: float = 0.02) -> PerToken:  # the authors' code
    """-γ (1/r + ln r - 1), an estimate of KL(π ‖ π_mask), and no gradient through π_mask: what the code computes.

    >>> perception_in_the_code(tensor([[-.5, -.5, -1.]]), tensor([[-1.5, -.4, -3.]]), gamma=1.0)
    tensor([[-0.3679, -0.0052, -1.1353]])
    """
    return -gamma * kl_estimators.k3(logp, blind_logp.detach(), beta=1.0).clamp(max=10)


def double_entropy(
    logp: PerToken,
    blind_logp: PerToken,
    seeing: float = 0.03,  # η1, the paper
    blind: float = 0.03,  # η2, the paper
) -> PerToken:
    """-η1 log π - η2 log π_mask: both policies stay sure of what was said; without it γ's reward has no bound.

    >>> double_entropy(tensor([[-.5]]), tensor([[-1.5]]))
    tensor([[0.0600]])
    """
    return -seeing * logp - blind * blind_logp


recipe = grpo.recipe.with_(
    name="papo",
    findings=(Finding("pass@1", "grpo", "up", "4.4 % to 17.5 % relative", "abstract"),),
    paper=Paper(
        "Perception-Aware Policy Optimization for Multimodal Reasoning", arxiv="2507.06448", date="2025-07-08",
        authors="Wang, Zhenhailong and Guo, Xuehang and Stoica, Sofia and Xu, Haiyang and Wang, Hongru and others",
    ),
    new="the response must depend on the prompt: the KL to the policy with a masked prompt is rewarded",
    penalties=(partial(kl_estimators.k3, beta=0.01), perception, double_entropy),  # the authors' configuration
    claims=grpo.recipe.claims,
    departs=(
        "Text only: tokens of the prompt are masked where the paper blackens 60 % of an image's patches.",
        "π_mask is trained too, as in the paper; the code stores it before the update: its η2 term has no gradient.",
        "The ratio is the paper's; the code has its inverse, here `perception_in_the_code`.",
    ),
)  # fmt: skip
