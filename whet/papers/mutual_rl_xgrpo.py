"""Mutual RL, advantage sharing (Liu et al. 2026): own responses only, judged against those of a peer too.

    A_i = (R_i - mean R) / (std R + ε)      mean and std over own and peer's rewards

So a group whose peer did better is pushed down as a whole. A demonstration stands in for the peer.
"""

from functools import partial

from whet.fields import Flag
from whet.papers import grpo, srft
from whet.recipe import Paper


def own_responses(demonstration: Flag) -> Flag:
    """Responses of the policy itself: the others count in the baseline and are not learned from.

    >>> own_responses(tensor([False, True]))
    tensor([ True, False])
    """
    return ~demonstration


recipe = grpo.recipe.with_(
    name="mutual_rl_xgrpo",
    paper=Paper(
        "Experience Sharing in Mutual Reinforcement Learning for Heterogeneous Language Models",
        arxiv="2605.07244",
        date="2026-05",
    ),
    new="rewards from elsewhere move the group's mean and spread, and are not learned from",
    sample=partial(srft.with_demonstrations, responses=16),  # ours: as plain.same_number
    keep=(own_responses,),
    claims=("silent_on_equal_rewards", "shift_changes_nothing", "scale_changes_nothing"),
    departs=(
        "One demonstration for each problem, which is always right, stands in for a peer's responses, right and wrong:"
        " there is one model.",
    ),
)
