"""UloRL (Du et al. 2025): long answers are drawn in segments, one for each step, and what is mastered is masked.

I_it = 1  if  mean_t H_it < σ,  π(y_it) ≥ τ  and  R_i = 1
L    = 1 / Σ|o_i| · Σ_it (1 - I_it) l_it           the masked tokens stay in the denominator
SAIS   r_it = π / π_g,   π_g the policy that drew the segment of t
POIS   r_it = π / π_old, π_old the policy of now for all segments: 1 for one update
"""

from math import log
from typing import Any

from whet import groups
from whet.batch import Batch, join
from whet.fields import Flag, Mask, PerToken
from whet.papers import dapo, ppo
from whet.recipe import Finding, Paper, Remembers


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


def in_segments(
    draw: Any,
    problems: Any,
    max_tokens: int,
    memory: Batch | None,
    responses: int = 8,  # the paper
    temperature: float = 0.85,  # the paper
    segments: int = 8,  # the paper: 128K tokens in pieces of 16K
) -> tuple[Batch, Batch]:
    """One segment more of every open response, the first of new ones; problems whose responses have all ended."""
    size = -(-max_tokens // segments)
    parts = [draw.resume(memory.having(age=memory["age"] + memory["mask"]), size)] if memory else []
    met = {problem.id for part in parts for problem in part.problems}
    fresh = [problem for problem in problems if problem.id not in met]
    if fresh:
        parts.append(draw.begin(fresh, responses, temperature, size))
    both = join(parts)
    running = ~both["finished"] & (both["length"] < max_tokens)
    waiting = groups.total(running.float(), both["group"]) > 0
    return draw.judge(both.where(~waiting)), both.where(waiting)


def segment_aware(
    logp: PerToken,
    sampled_logp: PerToken,
    advantage: PerToken,
    low: float = 0.2,  # PPO's; the paper tried 0.28 above with this ratio, and entropy exploded
    high: float = 0.2,  # PPO's
) -> PerToken:
    """SAIS: PPO's clip with the ratio to the policy that drew each segment.

    >>> segment_aware(-tensor([[1., .5]]), -tensor([[1.1, .7]]), torch.ones(1, 2))
    tensor([[-1.1052, -1.2000]])
    """
    return ppo.clip(logp, sampled_logp, advantage, low, high)


paper = Paper(
    "UloRL: An Ultra-Long Output Reinforcement Learning Approach "
    "for Advancing Large Language Models' Reasoning Abilities",
    arxiv="2507.19766",
    date="2025-07",
    authors="Du, Dong and Liu, Shulin and Yang, Tao and Chen, Shaohua and Li, Yang",
)
recipe = dapo.token_mean.with_(
    name="ulorl_dmmpt",
    paper=paper,
    findings=(Finding("pass@1", "token_mean", "up", "AIME25 82.8 against 78.6 without the mask", "place not read"),),
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
        "Responses are drawn in one piece; the paper's segments are ulorl_segment, and ulorl_dmmpt+ulorl_segment both.",
        "Assumed: no KL, as in the paper's objective.",
    ),
)
_shared = {
    "paper": paper, "sample": Remembers(in_segments, start=None), "penalties": (), "shelf": "systems",
    "claims": ("silent_on_equal_rewards", "sums_to_zero"), "departs": (
        "A problem is trained on once all its responses have ended, so that its baseline is whole.",
        "The judge says what a response is worth that was cut off after its last segment; the paper gives it 0.",
    ),
}  # fmt: skip
segment = dapo.token_mean.with_(
    name="ulorl_segment", new="long answers are drawn in segments, one for each step (POIS ratio)", **_shared
)  # fmt: skip
sais = dapo.token_mean.with_(
    name="ulorl_sais", new="segments, with the ratio to the policy that drew each", loss=segment_aware, **_shared
)  # fmt: skip
