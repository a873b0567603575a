"""IPO (Azar et al. 2023): the better answer's log-ratio to the reference is to be ahead by 1/(2β), and no further.

h = log π - log π_ref of the whole response,   D = h_better - h_worse
L = (D - 1/(2β))²,   ∂L/∂log π = ± 2 (D - 1/(2β))            (section 5.2; + on the better answer, - on the other)
"""

from whet import groups
from whet.fields import Group, Mask, PerResponse, PerToken, Selected
from whet.papers import reinforce
from whet.recipe import Paper


def _pull(h: PerResponse, reward: PerResponse, group: Group, beta: float) -> PerResponse:
    """The derivative by h of the loss, mean over the pairs of a problem whose rewards differ."""
    better = (reward[:, None] > reward) & (group[:, None] == group)
    push = better * 2 * (h[:, None] - h - 1 / (2 * beta))
    pairs = groups.total(better.sum(1).float(), group)
    return (push.sum(1) - push.sum(0)) / pairs.clamp(min=1)


def regressed(
    logp: PerToken,
    ref_logp: PerToken,
    reward: PerResponse,
    group: Group,
    mask: Mask,
    beta: float = 0.1,  # TRL's default; the paper sweeps it
) -> PerToken:
    """2 (D - 1/(2β)) on the tokens of better answers and its opposite on worse ones, from summed log-ratios.

    >>> regressed(tensor([[-10.], [-12.]]), tensor([[-11.], [-11.5]]), tensor([1., 0.]), tensor([0, 0]),
    ...           torch.ones(2, 1).bool())
    tensor([[-7.],
            [ 7.]])
    """
    return groups.spread(_pull(groups.token_sum(logp - ref_logp, mask), reward, group, beta), mask)


def regressed_by_length(
    logp: PerToken,
    ref_logp: PerToken,
    reward: PerResponse,
    group: Group,
    mask: Mask,
    beta: float = 0.1,  # TRL's default
) -> PerToken:
    """TRL's `DPOTrainer`: each log-ratio is a mean over tokens, and so a token's share is 1 / length.

    >>> regressed_by_length(tensor([[-1., -1.], [-2., 0.]]), tensor([[-1.2, -1.2], [-1.9375, 0.]]), tensor([1., 0.]),
    ...                     tensor([0, 0]), torch.tensor([[True, True], [True, False]]))
    tensor([[-4.7375, -4.7375],
            [ 9.4750,  0.0000]])
    """
    length = groups.length(mask).clamp(min=1)
    return groups.spread(_pull(groups.token_mean(logp - ref_logp, mask), reward, group, beta) / length, mask)


def towards_the_margin(logp: PerToken, selected: Selected) -> PerToken:
    """log π times the derivative of the loss by it: the loss's gradient, not its value.

    >>> towards_the_margin(tensor([[-.5]]), tensor([[-7.]]))
    tensor([[3.5000]])
    """
    return selected * logp


def over_problems(mask: Mask, group: Group) -> PerToken:
    """1 / the number of problems on every token.

    >>> over_problems(tensor([[True, True], [True, False]]), tensor([0, 1]))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.0000]])
    """
    return mask / (1 / groups.size(group)).sum()


recipe = reinforce.recipe.with_(
    name="ipo",
    paper=Paper(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences", arxiv="2310.12036",
        date="2023-10-18", authors="Azar, Mohammad Gheshlaghi and Rowland, Mark and Piot, Bilal and others",
    ),
    new="the better answer of a pair is to be ahead of the reference by a fixed margin",
    normalise=over_problems, select=regressed, loss=towards_the_margin, shelf="preference",
    departs=(
        "Pairs are drawn on policy, as in Online DPO (2402.04792): all pairs of a problem's responses whose rewards "
        "differ; the paper learns from given preferences.",
        "TRL's DPOTrainer divides each log-ratio by its length: regressed_by_length.",
    ),
)  # fmt: skip
