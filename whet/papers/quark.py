"""Quark in AlpacaFarm (Dubois et al. 2023): imitate the best quarter of what was drawn, and stay near the start.

chunks  the pool sorted by reward, cut into 4; only the best is kept
L       mean_t [ -log π + β KL(π ‖ π_ref) ],  β = 0.05
"""

from functools import partial

from whet.fields import Count, Mask, PerResponse, PerToken
from whet.papers import kl_estimators, reinforce
from whet.recipe import Paper


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

    >>> chosen(torch.ones(2, 1).bool(), tensor([[0.], [1.]]))
    tensor([[False],
            [ True]])
    """
    return mask & (advantage > 0)


recipe = reinforce.recipe.with_(
    name="quark",
    paper=Paper(
        "AlpacaFarm: A Simulation Framework for Methods that Learn from Human Feedback", arxiv="2305.14387",
        date="2023-05-22",
        authors="Dubois, Yann and Li, Xuechen and Taori, Rohan and Zhang, Tianyi and Gulrajani, Ishaan and others",
    ),
    new="likelihood of the best quarter of the batch, and KL to the start", advantage=best_chunk, keep=(chosen,),
    penalties=(partial(kl_estimators.k2, beta=0.05),),  # the authors' code
    departs=(
        "Without control tokens, as AlpacaFarm's train_on_best_quantile; the first Quark (2205.13636) has them.",
        "The KL is k2 on the sampled tokens, biased on the best quarter alone; the paper sums over the vocabulary.",
        "Among equal rewards the earlier responses are the better ones, as in the code.",
    ),
)  # fmt: skip
