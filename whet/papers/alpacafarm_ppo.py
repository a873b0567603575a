"""AlpacaFarm (Dubois et al. 2023): PPO with a KL price that is never a gain; Quark imitates the best of what was drawn.

PPO    k_t = max(log π_old - log π_ref, 0),   r_t = -β k_t + R · [t = last],   then (r - mean) / std + mean
       A   = GAE with γ = λ = 1, whitened;   L = clip at 0.2 + 0.1 · critic, its own move clipped at 0.2
Quark  the pool sorted by reward and cut into 4, only the best is kept;   L = mean_t [ -log π + β KL(π ‖ π_ref) ]

Clamped at 0, the estimate of the KL is biased upwards: tokens that became rarer than in the reference earn nothing.
"""

from functools import partial

from whet import groups, plain
from whet.fields import Count, Mask, PerResponse, PerToken
from whet.papers import gae, kl_estimators, ppo, reinforce
from whet.recipe import Paper


def minus_clamped_k1(old_logp: PerToken, ref_logp: PerToken, mask: Mask, beta: float) -> PerToken:
    """-β max(k1, 0) on each token.

    >>> minus_clamped_k1(tensor([[-1., -2., -.5]]), tensor([[-1.2, -1.5, -.9]]), torch.ones(1, 3).bool(), 1.0)
    tensor([[-0.2000, -0.0000, -0.4000]])
    """
    return -beta * groups.spread(old_logp - ref_logp, mask).clamp(min=0)


def scaled_reward(
    score: PerResponse, old_logp: PerToken, ref_logp: PerToken, mask: Mask,
    beta: float = 0.0067,  # README and rlhf_ppo.sh for simulated preferences; 0.02 for human ones, argparse 0.2
) -> PerToken:  # fmt: skip
    """Score and KL price in time, brought to population variance 1 around their own mean.

    >>> scaled_reward(tensor([1.]), *torch.zeros(2, 1, 2), torch.ones(1, 2).bool())
    tensor([[-0.5000,  1.5000]])
    """
    reward = groups.at_last_token(score, mask) + minus_clamped_k1(old_logp, ref_logp, mask, beta)
    mean = groups.batch_mean(reward, mask)
    std = groups.batch_mean((reward - mean) ** 2, mask).sqrt()
    return groups.spread((reward - mean) / (std + 1e-8) + mean, mask)


def tenth_of_critic_loss(
    new_value: PerToken, value: PerToken, token_reward: PerToken, mask: Mask,
    clip: float = 0.2,  # rlhf_ppo.py: cliprange_value
    coef: float = 0.1,  # rlhf_ppo.py: vf_coef
) -> PerToken:  # fmt: skip
    """The critic's loss with γ = λ = 1, at a tenth of its size.

    >>> tenth_of_critic_loss(tensor([[1.5]]), tensor([[.4]]), tensor([[1.]]), torch.tensor([[True]]))
    tensor([[0.0125]])
    """
    return coef * gae.critic_loss(new_value, value, token_reward, mask, gamma=1.0, lam=1.0, clip=clip)


def chunk(reward: PerResponse, chunks: int) -> Count:
    """Which of `chunks` parts of the ranking a response is in, 0 for the best; the last takes the remainder.

    >>> chunk(tensor([.1, .9, .4, .7, .2, .8, .3, .6]), 4)
    tensor([3, 0, 2, 1, 3, 0, 2, 1])
    """
    rank = reward.argsort(descending=True, stable=True).argsort()
    return (rank // max(len(reward) // chunks, 1)).clamp(max=chunks - 1)


def best_chunk(reward: PerResponse, chunks: int = 4) -> PerResponse:  # the authors' code: num_reward_tokens
    """1 in the best chunk of the whole batch, so that the policy gradient is that of the likelihood; 0 elsewhere.

    >>> best_chunk(tensor([.1, .9, .4, .7, .2, .8, .3, .6]))
    tensor([0., 1., 0., 0., 0., 1., 0., 0.])
    """
    return (chunk(reward, chunks) == 0).float()


def chosen(mask: Mask, advantage: PerToken) -> Mask:
    """Tokens of the best chunk only, so that the mean is theirs.

    >>> chosen(torch.ones(2, 1).bool(), tensor([[0.], [1.]])).flatten()
    tensor([False,  True])
    """
    return mask & (advantage > 0)


_paper = Paper(
    "AlpacaFarm: A Simulation Framework for Methods that Learn from Human Feedback", arxiv="2305.14387",
    date="2023-05-22",
    authors="Dubois, Yann and Li, Xuechen and Taori, Rohan and Zhang, Tianyi and Gulrajani, Ishaan and others",
)  # fmt: skip

recipe = ppo.recipe.with_(
    name="alpacafarm_ppo", paper=_paper, new="a clamped KL price in the reward, and rewards of unit variance",
    reward=(scaled_reward,), penalties=(tenth_of_critic_loss,), claims=("policy_gradient",),
    advantage=partial(gae.generalized_advantage, lam=1.0),  # rlhf_ppo.py: lam
    update=partial(plain.one_pass, epochs=2, minibatches=2),  # rlhf_ppo.py: noptepochs 2, 512 responses in steps of 256
    departs=(
        "Means are over response tokens; the authors' code counts the padding to 300 tokens too.",
        "The critic starts from the start's backbone with a zero head; theirs from the reward model.",
        "No penalty for a response that does not end; theirs has one behind a flag. β is the README's, not argparse's.",
    ),
)  # fmt: skip
quark = reinforce.recipe.with_(
    name="quark", paper=_paper, new="likelihood of the best quarter of the batch, and KL to the start",
    advantage=best_chunk, keep=(chosen,), penalties=(partial(kl_estimators.k2, beta=0.05),),  # the authors' code
    departs=(
        "Without control tokens, as AlpacaFarm's train_on_best_quantile; the first Quark (2205.13636) has them.",
        "The KL is k2 on the sampled tokens, biased on the best quarter alone; the paper sums over the vocabulary.",
        "Among equal rewards the earlier responses are the better ones, as in the code.",
    ),
)  # fmt: skip
