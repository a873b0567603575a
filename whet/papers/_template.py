"""NAME (Author et al. YEAR): one sentence that says what is new, aloud.

    A_i = the equation, as the paper writes it               (section, eq.)

Copy this file to `papers/your_paper.py`. What each line is for stands in docs/add-a-paper.md.
"""

from whet import groups
from whet.fields import Group, PerResponse
from whet.papers import rloo
from whet.recipe import Paper


def my_advantage(
    reward: PerResponse,  # without a default: data, by its name in whet/fields.py
    group: Group,
    scale: float = 1.0,  # with a default: a setting; this comment is its source, such as "section 4.1"
) -> PerResponse:
    """What it computes, in one sentence; then a number small enough to check by hand.

    >>> my_advantage(tensor([1., 0.]), tensor([0, 0]))
    tensor([ 0.5000, -0.5000])
    """
    return scale * (reward - groups.mean(reward, group))


recipe = rloo.recipe.with_(
    name="my_paper",
    paper=Paper("Title", arxiv="0000.00000", date="2026-01-01", authors="Last, First and Last, First"),
    new="what changes, in one line",
    advantage=my_advantage,
    claims=("policy_gradient", "silent_on_equal_rewards"),
    departs=("What we do differently from the paper, or leave out, and why.",),
)
