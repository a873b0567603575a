"""RENT (Prabhudesai et al. 2025): the reward is how certain the model was, on average, of its own tokens.

R_i = -1/|o_i| Σ_t H_it        no labels; GRPO does the rest
"""

from functools import partial

from whet import groups
from whet.fields import Mask, PerResponse, PerToken
from whet.papers import grpo, kl_estimators
from whet.recipe import Finding, Paper


def minus_mean_entropy(sampled_entropy: PerToken, mask: Mask) -> PerResponse:
    """Minus the mean entropy of the response's tokens, as they were drawn.

    >>> minus_mean_entropy(tensor([[.5, .1], [.2, 9.]]), tensor([[True, True], [True, False]]))
    tensor([-0.3000, -0.2000])
    """
    return -groups.token_mean(sampled_entropy, mask)


recipe = grpo.recipe.with_(
    name="rent",
    findings=(Finding("pass@1", "start", "up", "rises without labels on five benchmarks", "abstract"),),
    paper=Paper(
        "Maximizing Confidence Alone Improves Reasoning",
        arxiv="2505.22660",
        date="2025-05-28",
        authors="Prabhudesai, Mihir and Chen, Lili and Ippoliti, Alex and Fragkiadaki, Katerina and others",
    ),
    new="minus the mean entropy of a response is its reward",
    reward=(minus_mean_entropy,),
    penalties=(partial(kl_estimators.k3, beta=0.001),),  # authors' scripts
    shelf="reward",
    claims=("needs_no_labels", "sums_to_zero"),
    departs=(
        "16 responses to each problem; the authors' scripts draw 5. It has no labels, and does not learn `digits`.",
        "The authors' format option, -7 where no answer can be extracted, is left out: only a judge could tell.",
    ),
)
