"""The entropy-performance exchange (Deng et al. 2025): fluent responses, and the end of a response, teach the most.

perplexity  A'_it = A_it (1 - α w_i)              w_i: z-score of log PPL_i = -1/|o_i| Σ_t log π_old
position    A'_it = A_it + sign(A_it) b_it        b_it grows with the relative position in the response
"""

from whet import groups
from whet.fields import Group, Mask, PerToken
from whet.papers import grpo
from whet.recipe import Finding, Paper


def fluent_counts_more(
    advantage: PerToken, sampled_logp: PerToken, mask: Mask, group: Group,
    alpha: float = 0.1,  # ours: the paper's value is not known to us
) -> PerToken:  # fmt: skip
    """Less of the advantage where the response was more perplexing than its group; never of the other sign.

    >>> on, one = torch.ones(4, 1).bool(), tensor([[1.], [1.], [-1.], [-1.]])
    >>> fluent_counts_more(one, -tensor([[.2], [.6], [.4], [.8]]), on, tensor([0, 0, 0, 0])).flatten()
    tensor([ 1.1342,  0.9553, -1.0447, -0.8658])
    """
    log_ppl = -groups.token_mean(sampled_logp, mask)
    above = log_ppl - groups.mean(log_ppl, group)
    w = above / groups.mean(above**2, group).sqrt().clamp(min=1e-6)
    return advantage * (1 - alpha * w).clamp(min=0)[:, None]


def late_counts_more(
    advantage: PerToken, mask: Mask, gamma: float = 0.1, steepness: float = 5.0,  # ours: the paper's are not known
) -> PerToken:  # fmt: skip
    """A bonus in the advantage's own direction: γ sigmoid(steepness · x), x from -1 at the start to 1 at the end.

    >>> late_counts_more(tensor([[1., 1., -1., -1.]]), torch.ones(1, 4).bool())
    tensor([[ 1.0007,  1.0159, -1.0841, -1.0993]])
    """
    x = 1 - 2 * (groups.length(mask)[:, None] - mask.cumsum(1)) / (groups.length(mask)[:, None] - 1).clamp(min=1)
    sign = (advantage * (advantage.abs() > 1e-6)).sign()  # what is left of 0 by rounding has no direction
    return advantage + sign * gamma * (steepness * x).sigmoid()


recipe = grpo.recipe.with_(
    name="ppl_advantage", new="responses of low perplexity count more", credit=(fluent_counts_more,),
    findings=(Finding("pass@1", "grpo", "up", "+1.51 %, Qwen2.5-7B, with position shaping", "place not read"),),
    paper=Paper(
        "Decomposing the Entropy-Performance Exchange: The Missing Keys to Unlocking Effective Reinforcement Learning",
        arxiv="2508.02260", date="2025-08-04", authors="Deng, Jia and Chen, Jie and Chen, Zhipeng and others",
    ),
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing", "never_flips_an_advantage"),
    departs=("Assumed: α = 0.1, z over the group, population deviation. 1 - αw is at least 0: no sign changes.",),
)  # fmt: skip
position = grpo.recipe.with_(
    name="position_advantage", new="tokens late in the response count more", credit=(late_counts_more,),
    findings=(
        Finding("entropy_late", "grpo", "up", "higher entropy late in the response; no number", "place not read"),
        Finding("length", "grpo", "up", "longer outputs; no number", "place not read"),
    ),
    paper=recipe.paper, claims=recipe.claims,
    departs=("Assumed: the bonus is 0.1 · sigmoid(5x); the paper's curve and constants are not known to us.",),
)  # fmt: skip
