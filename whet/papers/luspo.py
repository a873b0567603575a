"""LUSPO (Liu et al. 2026): GSPO with each response's loss times its length, so that long ones are not held back.

L = 1/N Σ_i |y_i| max(-A_i s_i, -A_i clip(s_i, 1-ε_low, 1+ε_high)),   s_i as GSPO
"""

from functools import partial

from whet.papers import gspo, loss_agg
from whet.recipe import Paper

recipe = gspo.recipe.with_(
    name="luspo",
    paper=Paper(
        "Length-Unbiased Sequence Policy Optimization: Revealing and Controlling Response Length Variation in RLVR",
        arxiv="2602.05261",
        date="2026-02-05",
        authors="Liu, Fanfan and Yin, Youyang and Shi, Peng and Yang, Siqi and Zeng, Zhixiong and Qiu, Haibo",
    ),
    new="GSPO's loss of a response is multiplied by its length",
    normalise=loss_agg.over_response_count,
    loss=partial(gspo.sequence_clip, low=2e-3, high=2.5e-3),  # section 5.1
    claims=("silent_on_equal_rewards", "sums_to_zero", "shift_changes_nothing", "scale_changes_nothing"),
)
