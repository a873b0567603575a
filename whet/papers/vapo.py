"""VAPO (Yue et al. 2025): a critic for long answers, with an advantage that looks further ahead the longer they are.

λ_i = 1 - 1 / (α |y_i|),  α = 0.05               Σ λ^k = α |y_i|; the critic's λ is 1
L   = L_clip(0.2, 0.28) + μ L_NLL of right answers,  μ = 0.1;  token means
"""

from functools import partial
from typing import Any

from whet import groups, plain
from whet.fields import Flag, Mask, PerToken, Selected
from whet.papers import gae, ppo
from whet.recipe import Finding, Paper


def length_adaptive(
    token_reward: PerToken,
    value: PerToken,
    mask: Mask,
    gamma: float = 1.0,  # as PPO for language
    alpha: float = 0.05,  # the paper's α
) -> PerToken:
    """Generalized advantages with λ = 1 - 1/(α n) for a response of n tokens, and 0 for n up to 1/α.

    >>> length_adaptive(tensor([[0., 1.]]), tensor([[.1, .2]]), torch.ones(1, 2).bool(), alpha=1.0)
    tensor([[0.5000, 0.8000]])
    """
    lam: Any = 1 - 1 / (alpha * groups.length(mask)).clamp(min=1)  # one λ for each response
    return gae.generalized_advantage(token_reward, value, mask, gamma, lam)


def share_of_right(correct: Flag, mask: Mask) -> PerToken:
    """On the tokens of right answers, how many tokens there are for each of theirs: a mean over all is one over these.

    >>> share_of_right(tensor([True, False]), torch.tensor([[True, False], [True, True]]))
    tensor([[3., 0.],
            [0., 0.]])
    """
    right = mask & correct[:, None]
    return right * mask.sum() / right.sum().clamp(min=1)


def likelihood_of_right(logp: PerToken, selected: Selected, mu: float = 0.1) -> PerToken:  # the paper's μ
    """-μ log π on the tokens of right answers, for a mean over these.

    >>> likelihood_of_right(tensor([[-1.0], [-2.0]]), tensor([[2.0], [0.0]]))
    tensor([[0.2000],
            [0.0000]])
    """
    return -mu * logp * selected


def after_the_critic(
    learner: Any,
    batch: Any,
    step: int,
    lr: float | None = None,  # ours: None is the rate that the model's card names
    clip_norm: float = 1.0,  # TRL, verl and OpenRLHF
    minibatches: int = 4,  # as PPO; the paper makes 16 updates from 512 x 16 responses
    warmup: int = 5,  # ours: the paper fits the critic first, until its loss and explained variance settle
) -> dict[str, float]:
    """One pass over the batch; in the first steps only the critic moves."""
    still = learner.critic_alone() if step < warmup else learner
    return plain.one_pass(still, batch, lr, clip_norm, minibatches=minibatches)


recipe = ppo.recipe.with_(
    name="vapo",
    findings=(Finding("pass@1", "ppo", "up", "AIME24 60.4; no number for PPO read", "place not read"),),
    paper=Paper(
        "VAPO: Efficient and Reliable Reinforcement Learning for Advanced Reasoning Tasks", arxiv="2504.05118",
        date="2025-04", authors="Yue, Yu and Yuan, Yufeng and Yu, Qiying and Zuo, Xiaochen and Zhu, Ruofei and others",
    ),
    new="λ grows with the length of a response, the critic learns from whole returns, and right answers are imitated",
    advantage=length_adaptive,
    loss=partial(ppo.clip, low=0.2, high=0.28),  # the paper, after DAPO
    penalties=(partial(gae.critic_loss, lam=1.0), likelihood_of_right),  # the critic's targets are whole returns
    select=share_of_right,
    update=after_the_critic,
    departs=(
        "The critic is trained alone for five updates of the run, on fresh responses of the unmoved policy.",
        "16 responses to 16 prompts and four updates for each batch.",
        "On answers of up to 20 tokens λ is 0, and the advantage one step of a young critic's: it does "
        "not learn `digits` surely, 0.57 to 0.84 of the optimum in 60 updates over six seeds; sooner with alpha 1.",
    ),
)  # fmt: skip
