"""How the losses of tokens become one number (verl `agg_loss`): what a long response counts against a short one.

    token-mean                Σ_it / tokens of the batch            plain.over_tokens        (recipe token_mean)
    seq-mean-token-mean       mean_i Σ_t / |y_i|                    grpo.over_responses      (recipe grpo)
    seq-mean-token-sum        mean_i Σ_t                            over_response_count      (recipe loss_agg)
    seq-mean-token-sum-norm   mean_i Σ_t / L, L a constant          dr_grpo.over_constant_length
                              the same, L the longest of the batch  over_longest
                              as verl before November 2025: Σ_it/L  over_length_only
    token-sum                 Σ_it                                  one_each

Each is a weight on the whole batch, so that micro-batches only add. TRL: grpo, bnpo (token-mean of each device, which
is not here because it depends on the split), dapo (token-mean of the whole batch), dr_grpo.
"""

from typing import Any

from whet.fields import Count, Mask, PerToken
from whet.papers import grpo
from whet.recipe import Paper


def over_response_count(mask: Mask) -> PerToken:
    """1 / the number of responses: a long response counts as much more as it is longer.

    >>> over_response_count(tensor([[True, True], [True, False]]))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.0000]])
    """
    return mask / mask.any(1).sum().clamp(min=1)


def over_longest(mask: Mask, length: Count) -> PerToken:
    """1 / (responses × the longest response of the batch): verl's divisor when none is configured.

    >>> over_longest(tensor([[True, True], [True, False]]), tensor([2, 1]))
    tensor([[0.2500, 0.2500],
            [0.2500, 0.0000]])
    """
    return over_response_count(mask) / length.max().clamp(min=1)


def over_length_only(mask: Mask, max_tokens: Any) -> PerToken:
    """1 / the longest length allowed: a sum over responses, so that the step grows with the batch.

    >>> over_length_only(tensor([[True, True], [True, False]]), 4)
    tensor([[0.2500, 0.2500],
            [0.2500, 0.0000]])
    """
    return mask / max_tokens


def one_each(mask: Mask) -> PerToken:
    """1 for each token: a sum over the batch.

    >>> one_each(tensor([[True, True], [True, False]]))
    tensor([[1., 1.],
            [1., 0.]])
    """
    return mask.float()


paper = Paper(
    "verl: aggregation modes of the policy loss",
    date="2025-04-04",
    url="https://github.com/verl-project/verl/blob/main/verl/trainer/ppo/core_algos.py",
)

recipe = grpo.recipe.with_(
    name="loss_agg", paper=paper, new="seq-mean-token-sum: a sum over tokens, a mean over responses",
    normalise=over_response_count,
)  # fmt: skip
longest_norm = grpo.recipe.with_(
    name="longest_norm", paper=paper, new="seq-mean-token-sum-norm by the longest response of the batch",
    normalise=over_longest,
    departs=("verl divides by the padded width, which is the configured response length where it pads to that.",),
)  # fmt: skip
token_sum = grpo.recipe.with_(
    name="token_sum", paper=paper, new="token-sum: no division at all", normalise=one_each,
)  # fmt: skip
