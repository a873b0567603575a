"""The surprising effectiveness of negative reinforcement (Zhu et al. 2025): right and wrong answers, apart.

PSR  A =  1 for right answers, the wrong ones left out
NSR  A = -1 for wrong answers, the right ones left out
W-REINFORCE  A = λ for right, -1 for wrong, λ = 0.1          (section 5)
"""

from whet.fields import Flag, Mask, PerResponse
from whet.papers import ppo, reinforce
from whet.recipe import Finding, Paper


def only_up(correct: Flag) -> PerResponse:
    """1 for a right answer, 0 for a wrong one.

    >>> only_up(tensor([True, False, False, True]))
    tensor([1., 0., 0., 1.])
    """
    return correct.float()


def only_down(correct: Flag) -> PerResponse:
    """0 for a right answer, -1 for a wrong one.

    >>> only_down(tensor([True, False, False, True]))
    tensor([ 0., -1., -1.,  0.])
    """
    return correct.float() - 1


def weighted(correct: Flag, right: float = 0.1) -> PerResponse:  # section 5: λ = 0.1
    """λ for a right answer, -1 for a wrong one.

    >>> weighted(tensor([True, False, False, True]))
    tensor([ 0.1000, -1.0000, -1.0000,  0.1000])
    """
    return right * correct.float() - (~correct).float()


def right_answers(mask: Mask, correct: Flag) -> Mask:
    """Tokens of right answers only, so that the mean is theirs.

    >>> right_answers(tensor([[True], [True]]), tensor([True, False]))
    tensor([[ True],
            [False]])
    """
    return mask & correct[:, None]


def wrong_answers(mask: Mask, correct: Flag) -> Mask:
    """Tokens of wrong answers only, so that the mean is theirs.

    >>> wrong_answers(tensor([[True], [True]]), tensor([True, False]))
    tensor([[False],
            [ True]])
    """
    return mask & ~correct[:, None]


paper = Paper(
    "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning",
    arxiv="2506.01347",
    date="2025-06-02",
    authors="Zhu, Xinyu and Xia, Mengzhou and Wei, Zhepei and Chen, Wei-Lin and Chen, Danqi and Meng, Yu",
)
_departs = ("One update for each batch, so that the clip never acts; the paper makes several.",)

psr = reinforce.recipe.with_(
    name="psr", paper=paper, new="learn from right answers only", advantage=only_up, keep=(right_answers,),
    findings=(
        Finding("pass@1", "start", "up", "right answers at the first try rise", "place not read"),
        Finding("pass@64", "nsr", "down", "lower at large k", "place not read"),
    ),
    loss=ppo.clip, departs=_departs, claims=("policy_gradient",),
)  # fmt: skip
nsr = reinforce.recipe.with_(
    name="nsr", paper=paper, new="learn from wrong answers only", advantage=only_down, keep=(wrong_answers,),
    findings=(
        Finding("entropy", "psr", "up", "entropy is kept", "place not read"),
        Finding("pass@64", "start", "same", "the whole curve is kept or better", "place not read"),
    ),
    loss=ppo.clip, departs=_departs, claims=("policy_gradient",),
)  # fmt: skip
w_reinforce = reinforce.recipe.with_(
    name="w_reinforce", paper=paper, new="right answers count a tenth of wrong ones", advantage=weighted,
    findings=(Finding("pass@64", "grpo", "up", "best of the curves of pass@k", "place not read"),),
    loss=ppo.clip, departs=_departs, claims=("policy_gradient",),
)  # fmt: skip
