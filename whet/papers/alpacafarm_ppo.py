"""AlpacaFarm's PPO (Dubois et al. 2023): PPO with a KL price in the reward that is never a gain.

    k_t = max(log π_old - log π_ref, 0)
    r_t = -β k_t + R · [t = last],   then  (r - mean) / std + mean   over all tokens of the batch
    A   = GAE with γ = λ = 1, whitened;   L = clip at 0.2 + 0.1 · critic, its own move clipped at 0.2

Clamped at 0, the estimate of the KL is biased upwards: tokens that became rarer than in the reference earn nothing.
"""

from functools import partial

from whet import groups, plain
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import gae, ppo
from whet.recipe import Paper


def minus_clamped_k1(old_logp: PerToken, ref_logp: PerToken, mask: Mask, beta: float) -> PerToken:
    """-β max(k1, 0) on each token.

    >>> minus_clamped_k1(tensor([[-1., -2., -.5]]), tensor([[-1.2, -1.5, -.9]]), torch.ones(1, 3).bool(), 1.0)
    tensor([[-0.2000, -0.0000, -0.4000]])
    """
    return -beta * groups.spread(old_logp - ref_logp, mask).clamp(min=0)


def scaled_reward(
    score: PerResponse,
    old_logp: PerToken,
    ref_logp: PerToken,
    mask: Mask,
    beta: float = 0.0067,  # README and rlhf_ppo.sh for simulated preferences; 0.02 for human ones, argparse 0.2
) -> PerToken:
    """Score and KL price in time, brought to population variance 1 around their own mean.

    >>> scaled_reward(tensor([1.]), *torch.zeros(2, 1, 2), torch.ones(1, 2).bool())
    tensor([[-0.5000,  1.5000]])
    """
    reward = groups.at_last_token(score, mask) + minus_clamped_k1(old_logp, ref_logp, mask, beta)
    mean = groups.batch_mean(reward, mask)
    std = groups.batch_mean((reward - mean) ** 2, mask).sqrt()
    return groups.spread((reward - mean) / (std + 1e-8) + mean, mask)


def tenth_of_critic_loss(
    new_value: PerToken,
    value: PerToken,
    token_reward: PerToken,
    mask: Mask,
    clip: float = 0.2,  # rlhf_ppo.py: cliprange_value
    coef: float = 0.1,  # rlhf_ppo.py: vf_coef
) -> PerToken:
    """The critic's loss with γ = λ = 1, at a tenth of its size.

    >>> tenth_of_critic_loss(tensor([[1.5]]), tensor([[.4]]), tensor([[1.]]), torch.tensor([[True]]))
    tensor([[0.0125]])
    """
    return coef * gae.critic_loss(new_value, value, token_reward, mask, gamma=1.0, lam=1.0, clip=clip)


recipe = ppo.recipe.with_(
    name="alpacafarm_ppo",
    paper=Paper(
        "AlpacaFarm: A Simulation Framework for Methods that Learn from Human Feedback",
        arxiv="2305.14387",
        date="2023-05-22",
        authors="Dubois, Yann and Li, Xuechen and Taori, Rohan and Zhang, Tianyi and Gulrajani, Ishaan and others",
    ),
    new="a clamped KL price in the reward, and rewards of unit variance",
    reward=(scaled_reward,),
    advantage=partial(gae.generalized_advantage, lam=1.0),  # rlhf_ppo.py: lam
    penalties=(tenth_of_critic_loss,),
    update=partial(
        plain.one_pass,
        epochs=2,  # rlhf_ppo.py: noptepochs
        minibatches=2,  # rlhf_ppo.py: 512 responses in steps of 256
    ),
    claims=("policy_gradient",),
    departs=(
        "Means are over response tokens; the authors' code counts the padding to 300 tokens too.",
        "The critic starts from the start's backbone with a zero head; theirs from the reward model.",
        "No penalty for a response that does not end; theirs has one behind a flag.",
        "β is the 0.0067 of the README; the code's argparse default is 0.2.",
    ),
)
