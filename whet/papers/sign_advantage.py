"""Gradient starvation in binary-reward GRPO (2605.07689): the sign of the outcome, with no group to fall silent.

A_i = 2 r_i - 1,  r in {0, 1}                               so that E[A ∇log π] = 2 ∇p
"""

from whet.fields import Flag, PerResponse
from whet.papers import dr_grpo
from whet.recipe import Finding, Paper


def sign_of_outcome(correct: Flag) -> PerResponse:
    """1 for a right answer, -1 for a wrong one, whatever the rest of the group did.

    >>> sign_of_outcome(tensor([True, False, True, False]))
    tensor([ 1., -1.,  1., -1.])
    """
    return 2 * correct.float() - 1


recipe = dr_grpo.recipe.with_(
    name="sign_advantage",
    findings=(Finding("pass@1", "dr_grpo", "up", "73.8 % against 28.4 % on GSM8K, 7 seeds", "abstract, as digested"),),
    paper=Paper(
        "Gradient Starvation in Binary-Reward GRPO: Why Group-Mean Centering Fails and Why the Simplest Fix Works",
        arxiv="2605.07689",
        date="2026-05",
    ),
    new="a fixed sign for each outcome: groups without spread still teach",
    advantage=sign_of_outcome,
    claims=("unbiased", "policy_gradient"),
    departs=("Assumed: the clip and the constant divisor of Dr. GRPO, with which it compares; read as digested.",),
)
