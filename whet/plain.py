"""The parts that nobody published: the plain way through each stage, which most recipes keep."""

from typing import Any

from whet.fields import Mask, PerResponse, PerToken


def in_order(
    pool: Any,
    step: int,
    prompts: int = 16,  # ours: a batch that two cores can carry
) -> Any:
    """The next `prompts` problems of the pool, round and round; the run has shuffled the pool by its seed."""
    return [pool[(step * prompts + i) % len(pool)] for i in range(prompts)]


def same_number(
    draw: Any,
    problems: Any,
    responses: int = 16,  # ours: most papers draw 8 to 64
    temperature: float = 1.0,  # the policy itself is what is sampled
) -> Any:
    """The same number of responses to each problem."""
    return draw(problems, responses, temperature)


def task_score(score: PerResponse) -> PerResponse:
    """The score that the task's judge gave.

    >>> task_score(tensor([1., 0.]))
    tensor([1., 0.])
    """
    return score


def over_tokens(mask: Mask) -> PerToken:
    """1 / the number of tokens that count in the whole batch: every token counts the same.

    >>> over_tokens(tensor([[True, True], [True, False]]))
    tensor([[0.3333, 0.3333],
            [0.3333, 0.0000]])
    """
    return mask / mask.sum().clamp(min=1)


def nothing(mask: Mask) -> Mask:
    """Selects no token.

    >>> nothing(tensor([[True, False]]))
    tensor([[False, False]])
    """
    return mask & False


def one_pass(
    learner: Any,
    batch: Any,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # TRL, verl and OpenRLHF
    epochs: int = 1,  # on policy
    minibatches: int = 1,  # on policy
) -> dict[str, float]:
    """One AdamW step for each mini-batch, `epochs` times over; weights keep the scale of the whole batch."""
    tallies = []
    for _ in range(epochs):
        parts = batch.split(minibatches)
        for part in parts:
            tally = learner.gradient(part, scale=len(parts))
            tallies.append({**tally, **learner.step(lr, clip_norm)})
    return _together(tallies)


def _together(tallies: list[dict[str, float]]) -> dict[str, float]:
    """One number for all mini-batches: the mean; the largest ratio; the sampler's gap before the policy moved."""
    told = {name: [tally[name] for tally in tallies if name in tally] for tally in tallies for name in tally}
    means = {name: sum(values) / len(values) for name, values in told.items() if not name.startswith("sampler_")}
    # None where the first has no signal and so was not read: the gap of a later one is one of the moved policy.
    means |= {name: value for name, value in tallies[0].items() if name.startswith("sampler_")}
    means["ratio_max"] = max(tally.get("ratio_max", 1.0) for tally in tallies)
    return means
