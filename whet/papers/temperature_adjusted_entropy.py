"""AceReason-Nemotron 1.1 (Liu et al. 2025): sample where entropy is about 0.3, and drop what was cut off.

temperature  the T of {0.6, 0.85, 1.0} at which the entropy of softmax(z / T) is nearest to 0.3 when RL begins
filter       responses cut off by the length limit leave the loss: helps at short limits, hurts at 32K
"""

from typing import Any

import torch

from whet import groups
from whet.fields import Flag, Group, PerResponse
from whet.papers import dapo, grpo
from whet.recipe import Finding, Paper, Remembers


def near_target_entropy(
    draw: Any,
    problems: Any,
    memory: float,
    responses: int = 16,  # setup: 8 or 16 for each prompt
    target: float = 0.3,  # rule of thumb, abstract
    grid: tuple[float, ...] = (0.6, 0.85, 1.0),  # temperature ablation
) -> Any:
    """The same number of responses to each problem; the first step tries every temperature and keeps the best.

    `memory` is the temperature that was chosen, 0 before.
    """

    def distance(temperature: float) -> float:
        tried = draw(problems, 1, temperature)
        return abs(float(groups.batch_mean(tried["sampled_entropy"], tried["mask"])) - target)

    memory = memory or min(grid, key=distance)
    return draw(problems, responses, memory), memory


def z_score_of_finished(
    reward: PerResponse,
    group: Group,
    finished: Flag,
    epsilon: float = 1e-6,  # as grpo
) -> PerResponse:
    """The other reading: cut-off responses leave the mean too, each a group of its own, and so get 0.

    >>> z_score_of_finished(tensor([1., 0., 0., 0.]), tensor([0, 0, 0, 0]), tensor([True, True, True, False]))
    tensor([ 1.1547, -0.5773, -0.5773,  0.0000])
    """
    alone = group.max() + 1 + torch.arange(len(group), device=group.device)
    return grpo.z_score(reward, torch.where(finished, group, alone), epsilon)


_paper = Paper(
    "AceReason-Nemotron 1.1: Advancing Math and Code Reasoning through SFT and RL Synergy",
    arxiv="2506.13284",
    date="2025-06-16",
    authors="Liu, Zihan and Yang, Zhuolin and Chen, Yang and Lee, Chankyu and Shoeybi, Mohammad and others",
)
_claims = ("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing")
_paper_has = {"paper": _paper, "penalties": (), "shelf": "sampling", "claims": _claims}

recipe = dapo.token_mean.with_(
    name="temperature_adjusted_entropy",
    findings=(
        Finding("pass@1", "token_mean", "up", "AIME24 67.6 at T = 0.85, 65.3 at 1.0, 64.6 at 0.6", "place not read"),
    ),
    new="the sampling temperature is chosen by the entropy it gives",
    sample=Remembers(near_target_entropy, start=0.0),
    departs=(
        "Tried with one response to each problem of the first step; the paper compares three whole runs.",
        "Assumed: entropy is the mean over the tokens; the paper gives no formula.",
    ),
    **_paper_has,
)
overlong_filter = dapo.token_mean.with_(
    name="overlong_filter",
    findings=(Finding("pass@1", "token_mean", "down", "AIME24 71.4 to 70.2 at 32K", "place not read"),),
    new="responses that were cut off leave the loss",
    keep=(dapo.ended_by_themselves,),  # the ablation of DAPO's section 3.4
    departs=(
        "Assumed: cut-off responses stay in the mean of their group; the other reading is `z_score_of_finished`.",
        "On throughout; the paper has it on at limits of 8K and 16K and off at 32K.",
    ),
    **_paper_has,
)
