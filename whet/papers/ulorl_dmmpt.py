"""UloRL (Du et al. 2025): tokens of right answers that are mastered already are masked while entropy is low.

I_it = 1  if  mean_t H_it < σ,  π(y_it) ≥ τ  and  R_i = 1
L    = 1 / Σ|o_i| · Σ_it (1 - I_it) l_it           the masked tokens stay in the denominator
"""

from math import log

from whet import groups
from whet.fields import Flag, Mask, PerToken
from whet.papers import dapo
from whet.recipe import Finding, Paper


def not_mastered(
    mask: Mask,
    correct: Flag,
    old_logp: PerToken,
    old_entropy: PerToken,
    mastered: float = 0.99,  # τ, the paper's
    target: float = 0.2,  # σ, the paper's
) -> PerToken:
    """0 on what a right answer of low entropy is sure of, 1 elsewhere.

    >>> probability, entropy = tensor([[.999, .5, .995]]), tensor([[.15, .15, .15]])
    >>> not_mastered(torch.ones(1, 3).bool(), tensor([True]), probability.log(), entropy)
    tensor([[0., 1., 0.]])
    """
    calm = groups.token_mean(old_entropy, mask) < target
    return 1 - ((old_logp >= log(mastered)) & (calm & correct)[:, None]).float()


recipe = dapo.token_mean.with_(
    name="ulorl_dmmpt",
    findings=(Finding("pass@1", "token_mean", "up", "AIME25 82.8 against 78.6 without the mask", "ablation"),),
    paper=Paper(
        "UloRL: An Ultra-Long Output Reinforcement Learning Approach "
        "for Advancing Large Language Models' Reasoning Abilities",
        arxiv="2507.19766",
        date="2025-07",
        authors="Du, Dong and Liu, Shulin and Yang, Tao and Chen, Shaohua and Li, Yang",
    ),
    new="while a right answer's entropy is low, its well-mastered tokens are masked",
    weights=(not_mastered,),
    penalties=(),
    claims=(
        "policy_gradient",
        "silent_on_equal_rewards",
        "sums_to_zero",
        "shift_changes_nothing",
        "scale_changes_nothing",
    ),
    departs=(
        "Responses are drawn in one piece; the paper's segments need a rollout that outlives the step.",
        "Assumed: no KL, as in the paper's objective.",
    ),
)
