"""DAPO (Yu et al. 2025): four changes that keep GRPO exploring on long responses.

clip-higher        clip(r, 1 - 0.2, 1 + 0.28)                                    (section 3.1)
dynamic sampling   draw again until every group has right and wrong answers      (section 3.2)
token mean         every token of the batch counts the same                      (section 3.3)
soft overlong      R - (|y| - (L_max - c)) / c  in the last c tokens, at most 1   (section 3.4, eq. 13)
"""

from functools import partial
from itertools import islice
from typing import Any

import torch

from whet import groups, plain
from whet.batch import join
from whet.fields import Count, Flag, PerResponse
from whet.papers import grpo, ppo
from whet.recipe import Finding, Paper


def until_mixed(
    draw: Any, problems: Any, pool: Any, rng: Any,
    responses: int = 16,  # section 4.1: 16 responses for each prompt
    temperature: float = 1.0,  # section 4.1
    rounds: int = 4,  # ours: the paper draws until the batch is full
) -> Any:  # fmt: skip
    """Groups with right and wrong answers only; missing ones are drawn from other problems of the pool."""
    wanted, asked, found = len(problems), set(), []
    while problems and rounds > 0:
        batch = draw(problems, responses, temperature)
        found.append(batch.where(groups.mixed(batch["correct"].float(), batch["group"])))
        asked |= {problem.id for problem in problems}
        rounds -= 1
        missing = wanted - sum(len(set(part["group"].tolist())) for part in found)
        problems = _others(pool, asked, missing, rng)
    return join(found)


def _others(pool: Any, asked: set[str], count: int, rng: Any) -> list[Any]:
    fresh = (pool[i] for i in torch.randperm(len(pool), generator=rng).tolist())
    return list(islice((problem for problem in fresh if problem.id not in asked), count))


def soft_overlong(
    length: Count, max_tokens: Any,
    share: float = 0.2,  # section 4.1: the last 4096 of 20480 tokens
    factor: float = 1.0,  # eq. 13
) -> PerResponse:  # fmt: skip
    """0 up to (1 - share) L_max tokens, then a straight line down to -factor at L_max.

    >>> soft_overlong(tensor([80, 90, 100, 110]), 100)
    tensor([-0.0000, -0.5000, -1.0000, -1.0000])
    """
    buffer = share * max_tokens
    over = (length - (max_tokens - buffer)) / buffer
    return -factor * over.clamp(0, 1)


def soft_overlong_without_floor(
    length: Count, max_tokens: Any,
    share: float = 0.2,  # as soft_overlong
    factor: float = 1.0,  # as soft_overlong
) -> PerResponse:  # fmt: skip
    """verl's and AReaL's rule: the line goes on below -factor where a response is longer than L_max.

    >>> soft_overlong_without_floor(tensor([80, 90, 100, 110]), 100)
    tensor([-0.0000, -0.5000, -1.0000, -1.5000])
    """
    buffer = share * max_tokens
    return -factor * ((length - (max_tokens - buffer)) / buffer).clamp(min=0)


def ended_by_themselves(finished: Flag) -> Flag:
    """Overlong filtering: responses that were cut off leave the loss, and stay in the mean of their group.

    >>> ended_by_themselves(tensor([True, False]))
    tensor([ True, False])
    """
    return finished


paper = Paper(
    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale", arxiv="2503.14476", date="2025-03-18",
    authors="Yu, Qiying and Zhang, Zheng and Zhu, Ruofei and Yuan, Yufeng and Zuo, Xiaochen and others",
)  # fmt: skip
_higher = partial(ppo.clip, low=0.2, high=0.28)  # section 4.1
_several = partial(plain.one_pass, minibatches=4)  # ours: the paper makes 16 updates from 512 × 16 responses

clip_higher = grpo.recipe.with_(
    name="clip_higher", paper=paper, new="more room for a ratio to grow than to shrink", loss=_higher, update=_several,
    findings=(Finding("entropy", "grpo", "up", "the collapse of entropy is avoided", "section 3.1, figure 2"),),
)  # fmt: skip
token_mean = grpo.recipe.with_(
    name="token_mean", paper=paper, new="every token of the batch counts the same", normalise=plain.over_tokens,
    findings=(Finding("pass@1", "grpo", "up", "AIME24 42 against 41, on top of other changes", "table 1"),),
)  # fmt: skip
dynamic_sampling = grpo.recipe.with_(
    name="dynamic_sampling", paper=paper, new="groups without signal are replaced by fresh ones", sample=until_mixed,
    findings=(Finding("speed", "grpo", "up", "fewer steps to the same accuracy", "section 4.1, figure 6"),),
    shelf="sampling",
)  # fmt: skip
overlong = grpo.recipe.with_(
    name="overlong", paper=paper, new="a soft penalty on the longest responses",
    reward=(plain.task_score, soft_overlong), shelf="reward",
    findings=(Finding("pass@1", "grpo", "up", "AIME24 41 against 38, on top of other changes", "table 1"),),
)  # fmt: skip

recipe = grpo.recipe.with_(
    name="dapo", paper=paper, new="clip-higher, dynamic sampling, token mean and a soft overlong penalty; no KL",
    findings=(Finding("pass@1", "grpo", "up", "AIME24 50 against 30 for plain GRPO", "table 1"),),
    sample=until_mixed, reward=(plain.task_score, soft_overlong), normalise=plain.over_tokens, loss=_higher,
    penalties=(), update=_several,
    claims=("policy_gradient", "silent_on_equal_rewards", "sums_to_zero"),
    departs=(
        "Four updates for each batch, not sixteen; refills at most three times, and never the same problem twice.",
        "Rewards are 1 and 0, as the task gives them; the paper has 1 and -1, which the z-score makes equal.",
    ),
)  # fmt: skip
