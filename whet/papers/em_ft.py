"""The unreasonable effectiveness of entropy minimization (Agarwal et al. 2025): learn from one's own certainty alone.

EM-FT           L   = 1/N Σ_i 1/|y_i| Σ_t H_it      gradient through H only, one response each (section 3.1)
"""

from functools import partial

from whet import plain
from whet.fields import PerToken
from whet.papers import grpo, reinforce
from whet.recipe import Finding, Paper


def entropy_itself(entropy: PerToken) -> PerToken:
    """The entropy of each token, to be made smaller; [.5, 1, .2] have the mean 0.566667.

    >>> entropy_itself(tensor([[0.5, 1.0, 0.2]]))
    tensor([[0.5000, 1.0000, 0.2000]])
    """
    return entropy


paper = Paper(
    "The Unreasonable Effectiveness of Entropy Minimization in LLM Reasoning",
    arxiv="2505.15134",
    date="2025-05-21",
    authors="Agarwal, Shivam and Zhang, Zimin and Yuan, Lifan and Han, Jiawei and Peng, Hao",
)
recipe = reinforce.recipe.with_(
    name="em_ft",
    findings=(Finding("pass@1", "start", "up", "24.9 to 40.2, Qwen2.5-7B, without labels", "place not read"),),
    paper=paper,
    new="the entropy of its own responses is all that is minimised",
    sample=partial(plain.same_number, responses=1),  # table 2: N = 1
    normalise=grpo.over_responses,
    loss=entropy_itself,
    claims=("needs_no_labels",),
    departs=(
        "It has no labels, and does not learn `digits`.",
        "Assumed: each response is divided by its length, as our spec card says. Eq. 2 as printed is a plain sum over "
        "its tokens, which loss_agg's over_response_count gives.",
    ),
)
