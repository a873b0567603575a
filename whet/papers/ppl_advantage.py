"""The entropy-performance exchange (Deng et al. 2025): fluent responses teach the most.

A'_it = A_it (1 - α w_i)          w_i: z-score of log PPL_i = -1/|o_i| Σ_t log π_old
"""

from whet import groups
from whet.fields import Group, Mask, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def fluent_counts_more(
    advantage: PerToken,
    sampled_logp: PerToken,
    mask: Mask,
    group: Group,
    alpha: float = 0.1,  # ours: the paper's value is not known to us
) -> PerToken:
    """Less of the advantage where the response was more perplexing than its group; never of the other sign.

    >>> on, one = torch.ones(4, 1).bool(), tensor([[1.], [1.], [-1.], [-1.]])
    >>> fluent_counts_more(one, -tensor([[.2], [.6], [.4], [.8]]), on, tensor([0, 0, 0, 0])).flatten()
    tensor([ 1.1342,  0.9553, -1.0447, -0.8658])
    """
    log_ppl = -groups.token_mean(sampled_logp, mask)
    above = log_ppl - groups.mean(log_ppl, group)
    w = above / groups.mean(above**2, group).sqrt().clamp(min=1e-6)
    return advantage * (1 - alpha * w).clamp(min=0)[:, None]


paper = Paper(
    "Decomposing the Entropy-Performance Exchange: The Missing Keys to Unlocking Effective Reinforcement Learning",
    arxiv="2508.02260",
    date="2025-08-04",
    authors="Deng, Jia and Chen, Jie and Chen, Zhipeng and Zhao, Wayne Xin and Wen, Ji-Rong",
)

recipe = grpo.recipe.with_(
    name="ppl_advantage",
    findings=(
        Finding("pass@1", "grpo", "up", "+1.51 %, Qwen2.5-7B, with position shaping", "place not read"),
        Finding("length", "grpo", "up", "longer outputs, with position shaping; no number", "place not read"),
    ),
    paper=paper,
    new="responses of low perplexity count more",
    credit=(fluent_counts_more,),
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing", "never_flips_an_advantage"),
    departs=(
        "Assumed: α = 0.1, and the z-score is over the group, with the population's standard deviation.",
        "1 - αw is kept at 0 or above, so that no advantage changes its sign.",
    ),
)
