"""The vocabulary: every name that a part may ask for, its shape, its unit and who makes it.

Axes:  n responses in the batch · t response tokens, padded on the right · k reward parts.
Masks are True where the token counts. Log-probabilities and entropies are in nats.
The name says who computed a number: `logp` is being trained, `old_logp` is the policy as it was when
the update began, `sampled_logp` is what the sampler reported, `ref_logp` is the model the run started from.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

PerResponse = Float[Tensor, "n"]
PerToken = Float[Tensor, "n t"]
PerPart = Float[Tensor, "n k"]
Mask = Bool[Tensor, "n t"]
Selected = Mask | PerToken
Flag = Bool[Tensor, "n"]
Group = Int[Tensor, "n"]
Count = Int[Tensor, "n"]
Tokens = Int[Tensor, "n t"]


@dataclass(frozen=True)
class Field:
    """One entry of the glossary."""

    shape: str
    unit: str
    made_by: str
    meaning: str


def _entries(made_by: str, **rows: tuple[str, str, str]) -> dict[str, Field]:
    return {name: Field(shape, unit, made_by, meaning) for name, (shape, unit, meaning) in rows.items()}


FIELDS: dict[str, Field] = {
    **_entries(
        "sampler",
        group=("n", "index", "which problem of the batch a response answers"),
        tokens=("n t", "token id", "the response, padded on the right"),
        mask=("n t", "bool", "True where a response token counts; `keep` parts narrow it"),
        length=("n", "tokens", "response tokens, the end token included"),
        finished=("n", "bool", "the response ended by itself instead of being cut off"),
        temperature=("n", "1", "the sampling temperature; the learner divides its logits by it too"),
        sampled_logp=("n t", "nats", "log-probability of each token as the sampler drew it"),
        sampled_entropy=("n t", "nats", "entropy of the sampler's next-token distribution"),
        age=("n t", "updates", "updates made between drawing a token and now; 0 unless it was carried over"),
        demonstration=("n", "bool", "a worked solution given by the task instead of a response"),
    ),
    **_entries(
        "judge",
        score=("n", "reward", "what the task's judge gave"),
        correct=("n", "bool", "the judge calls the answer right, whatever the score"),
        texts=("n", "text", "the responses as the judge saw them"),
        problems=("n", "-", "the problem of each row; for `sample` parts, the problems chosen for this step"),
        greedy_score=("n", "reward", "the score of the most likely response to the same problem"),
        ref_score=("n", "reward", "the score of a response of the model the run started from, to the same problem"),
        label=("n t", "-1, 0, 1", "what the task says of the statement a token is in: wrong, nothing, right"),
    ),
    **_entries(
        "driver",
        rewards=("n k", "reward", "one column for each reward part"),
        token_reward=("n t", "reward", "rewards in time: per-response parts arrive at the last token"),
        reward=("n", "reward", "the sum of all reward parts"),
        advantage=("n t", "reward", "how much better than expected; never carries gradient"),
        weight=("n t", "1", "what a token counts in the sum: `normalise` times every `weights` part"),
        row=("n", "index", "the place of a response in the whole batch, which a mini-batch remembers"),
        push=("n t", "1", "derivative of the loss by logp when the learner first saw the token"),
        history=("-", "-", "problem id → tries, right answers and last mean score so far"),
        pool=("-", "-", "the problems of the training split, in the run's order"),
        step=("-", "updates", "updates done so far"),
        max_tokens=("-", "tokens", "the longest response that the task allows"),
        progress=("-", "0..1", "share of the run that is done"),
        rng=("-", "-", "a generator seeded by the run, the step and the stage"),
        memory=("-", "-", "what a part with a memory returned last time"),
        draw=("-", "-", "draw(problems, responses, temperature): sample and judge"),
        metrics=("-", "-", "the metrics of the step that has just ended"),
        learner=("-", "-", "gradient(batch), step(lr, clip_norm), batches to split"),
        batch=("-", "-", "the weighed batch"),
    ),
    **_entries(
        "scorer",
        old_logp=("n t", "nats", "log-probability under the policy at the start of the update"),
        old_entropy=("n t", "nats", "next-token entropy of that policy"),
        ref_logp=("n t", "nats", "log-probability under the model the run started from"),
        old_certainty=(
            "n t",
            "nats",
            "self-certainty of that policy: log-sum-exp of the logits minus their mean",
        ),
        prompt_state=("n d", "1", "last hidden state of that policy, mean over the last 10 prompt tokens"),
        response_state=(
            "n d",
            "1",
            "last hidden state of that policy, mean over the last 10 response tokens",
        ),
        old_collision=("n t", "1", "probability that two draws of the next token by that policy are the same: Σ π²"),
        group_divergence=(
            "n t",
            "nats",
            "mean KL from the next-token distributions of a problem's responses, at one position, to their mean",
        ),
        group_log_divergence=("n t", "1", "the same as Σ e^D - D - 1, D = mean log π - log π, ended responses uniform"),
        value=("n t", "reward", "the critic's forecast before the update"),
    ),
    **_entries(
        "learner",
        logp=("n t", "nats", "log-probability under the policy being trained; carries gradient"),
        entropy=("n t", "nats", "next-token entropy of the policy being trained; carries gradient"),
        blind_logp=(
            "n t",
            "nats",
            "logp of the same response after a prompt whose tokens are partly masked; gradient",
        ),
        selected=(
            "n t",
            "bool or 1",
            "which tokens, or how much of each, `select` chose on the whole mini-batch by the policy as it is now",
        ),
        new_value=("n t", "reward", "the critic's forecast; carries gradient"),
    ),
}


def made_by(maker: str) -> frozenset[str]:
    """The names of all fields that one maker provides."""
    return frozenset(name for name, field in FIELDS.items() if field.made_by == maker)


def per_token(name: str, x: Tensor, mask: Tensor) -> bool:
    """True for a field [n t] of the batch with this mask; states [n d] and reward columns [n k] are none."""
    return x.shape == mask.shape and (name not in FIELDS or FIELDS[name].shape == "n t")
