"""AEPO (QwenLong-L1.5, Shen et al. 2025): while the batch's entropy is too high, learn from right answers only.

A_i = (R_i - mean of its group) / std of all rewards of its task in the batch       (eq. 7)
H   = mean over responses of their mean entropy                                     (eq. 11)
H > H_high: every A < 0 is masked, until H < H_low                                  (section 4.4)
"""

from typing import Any

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken
from whet.papers import dapo
from whet.recipe import Finding, Paper, Remembers


def over_task_spread(
    reward: PerResponse,
    group: Group,
    problems: Any,
    epsilon: float = 1e-6,  # ours: verl's; the report prints none
) -> PerResponse:
    """The reward minus its group's mean, in standard deviations of its task: `about["task"]`, or all problems alike.

    >>> from whet.tasks import Problem
    >>> rewards, halves = tensor([1., 0., 0., 1., 1., 1., 1., 0.]), tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> over_task_spread(rewards, halves, [Problem("p", "", "")] * 8)
    tensor([ 0.9661, -0.9661, -0.9661,  0.9661,  0.4830,  0.4830,  0.4830, -1.4491])
    """
    task = groups.index_of([str(problem.about.get("task", "")) for problem in problems]).to(group.device)
    return (reward - groups.mean(reward, group)) / (groups.std(reward, task) + epsilon)


def calm(
    advantage: PerToken,
    sampled_entropy: PerToken,
    mask: Mask,
    memory: bool,
    low: float = 0.3,  # ours: the report prints no H_low
    high: float = 0.6,  # ours: the report prints no H_high
) -> Any:
    """0 on negative advantages from the step where entropy passes `high` to the one where it falls below `low`.

    >>> calm(tensor([[1., -1.]]), tensor([[.7, .7]]), torch.ones(1, 2).bool(), memory=False)
    (tensor([[1., 0.]]), True)
    """
    each = groups.token_mean(sampled_entropy, mask)
    entropy = float(each.sum() / mask.any(1).sum().clamp(min=1))
    masking = entropy >= low if memory else entropy > high
    return (advantage >= 0).float() if masking else mask.float(), masking


def without_uncertain_negatives(
    advantage: PerToken,
    sampled_entropy: PerToken,
    mask: Mask,
    threshold: float = 0.5,  # ours: the report prints no τ
) -> PerToken:
    """0 on a response of negative advantage and high mean entropy: eq. 9 with sequence-level entropies.

    >>> on = torch.ones(2, 1).bool()
    >>> without_uncertain_negatives(tensor([[-1.], [-1.]]), tensor([[.9], [.4]]), on).flatten()
    tensor([0., 1.])
    """
    uncertain = groups.token_mean(sampled_entropy, mask) > threshold
    return (~(uncertain[:, None] & (advantage < 0))).float()


recipe = dapo.token_mean.with_(
    name="aepo",
    findings=(Finding("pass@1", "grpo", "up", "59.36 against 56.07, 4B", "place not read"),),
    paper=Paper(
        "QwenLong-L1.5: Post-Training Recipe for Long-Context Reasoning and Memory Management",
        arxiv="2512.12967",
        date="2025-12-15",
        authors="Shen, Weizhou and Yang, Ziyi and Li, Chenliang and Lu, Zhiyuan and Peng, Miao and others",
    ),
    new="negative advantages are masked while entropy is above its band",
    advantage=over_task_spread,
    weights=(Remembers(calm, start=False),),
    penalties=(),
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing"),
    departs=(
        "Assumed: the entropy band is 0.3 to 0.6; the report prints neither bound.",
        "The standard deviation is the sample's, as in verl; the report does not say.",
        "Problems are not balanced over tasks and difficulties before and during training.",
    ),
)
