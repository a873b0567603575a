"""Reductions over the responses of a problem and over the tokens of a response: mathematics without a source."""

import torch
from jaxtyping import Float
from torch import Tensor

from whet.fields import Count, Group, Mask, PerResponse, PerToken


def total(x: Float[Tensor, "n *t"], group: Group) -> Float[Tensor, "n *t"]:
    """Sum over the responses of the same problem, given back to each of them; position by position for [n t].

    >>> total(tensor([1., 2., 5.]), tensor([0, 0, 1]))
    tensor([3., 3., 5.])
    """
    room = int(group.max()) + 1 if group.numel() else 0
    return x.new_zeros(room, *x.shape[1:]).index_add(0, group, x)[group]


def size(group: Group) -> PerResponse:
    """How many responses the problem has.

    >>> size(tensor([0, 0, 1]))
    tensor([2., 2., 1.])
    """
    return total(torch.ones(len(group), device=group.device), group)


def mean(x: PerResponse, group: Group) -> PerResponse:
    """Mean over the responses of the same problem; of equal numbers exactly that number, whatever it is.

    Only the distances from the largest are summed: the rounding of a plain sum, divided by a spread of 0 + ε, would
    give equal rewards an advantage of as much as 0.3.

    >>> mean(tensor([1., 2., 5.]), tensor([0, 0, 1]))
    tensor([1.5000, 1.5000, 5.0000])
    >>> mean(torch.full((23,), 2.3), torch.zeros(23).long())[0] == tensor(2.3)
    tensor(True)
    """
    most = largest(x.detach(), group)
    return most + total(x - most, group) / size(group)


def std(x: PerResponse, group: Group) -> PerResponse:
    """Sample standard deviation (ddof 1) over the responses of the same problem; 0 for a lone response.

    >>> std(tensor([1., 3., 5.]), tensor([0, 0, 1]))
    tensor([1.4142, 1.4142, 0.0000])
    """
    squares = total((x - mean(x, group)) ** 2, group)
    return (squares / (size(group) - 1).clamp(min=1)).sqrt()


def largest(x: PerResponse, group: Group) -> PerResponse:
    """Largest value among the responses of the same problem.

    >>> largest(tensor([1., 3., 5.]), tensor([0, 0, 1]))
    tensor([3., 3., 5.])
    """
    room = int(group.max()) + 1 if group.numel() else 0
    return x.new_full((room,), -torch.inf).scatter_reduce(0, group, x, "amax")[group]


def mixed(x: PerResponse, group: Group) -> Tensor:
    """True where the responses of the same problem do not all have the same value.

    >>> mixed(tensor([1., 0., 1.]), tensor([0, 0, 1]))
    tensor([ True,  True, False])
    """
    return largest(x, group) != -largest(-x, group)


def length(mask: Mask) -> PerResponse:
    """Tokens that count in each response.

    >>> length(tensor([[True, True], [True, False]]))
    tensor([2., 1.])
    """
    return mask.sum(1).float()


def spread(x: Tensor, mask: Mask) -> Tensor:
    """A value per response on each of its tokens; a value per token as it is, and 0 where the mask is False.

    >>> spread(tensor([2., 3.]), tensor([[True, True], [True, False]]))
    tensor([[2., 2.],
            [3., 0.]])
    """
    wide = x[:, None] if x.dim() == 1 else x
    return torch.where(mask, wide, torch.zeros((), dtype=x.dtype, device=x.device))


def token_sum(x: PerToken, mask: Mask) -> PerResponse:
    """Sum over the tokens of each response that count.

    >>> token_sum(tensor([[1., 2.], [3., 9.]]), tensor([[True, True], [True, False]]))
    tensor([3., 3.])
    """
    return spread(x, mask).sum(1)


def token_mean(x: PerToken, mask: Mask) -> PerResponse:
    """Mean over the tokens of each response that count; 0 for an empty response.

    >>> token_mean(tensor([[1., 2.], [3., 9.]]), tensor([[True, True], [True, False]]))
    tensor([1.5000, 3.0000])
    """
    return token_sum(x, mask) / length(mask).clamp(min=1)


def batch_mean(x: PerToken, mask: Mask) -> Tensor:
    """Mean over all tokens of the batch that count, 0 if none does; of equal numbers exactly that number, as `mean`.

    >>> mask = tensor([[True, True], [True, False]])
    >>> batch_mean(tensor([[1., 2.], [3., 9.]]), mask), batch_mean(tensor([[1., 2.], [3., 9.]]), mask & False)
    (tensor(2.), tensor(0.))
    """
    one = x.detach()[mask][:1].sum()
    return one + spread(x - one, mask).sum() / mask.sum().clamp(min=1)


def to_go(x: PerToken, mask: Mask, discount: float = 1.0) -> PerToken:
    """Discounted sum from each token to the end of its response; masked positions do not advance time.

    >>> to_go(tensor([[0., 0., 1.]]), tensor([[True, True, True]]), discount=0.5)
    tensor([[0.2500, 0.5000, 1.0000]])
    """
    x = spread(x, mask)
    running = x.new_zeros(len(x))
    columns = []
    for t in range(x.shape[1] - 1, -1, -1):
        running = torch.where(mask[:, t], x[:, t] + discount * running, running)
        columns.append(running)
    return spread(torch.stack(columns[::-1], 1) if columns else x, mask)


def at_last_token(x: PerResponse, mask: Mask) -> PerToken:
    """The value on the last token that counts, 0 elsewhere.

    >>> at_last_token(tensor([5., 7.]), tensor([[True, True], [True, False]]))
    tensor([[0., 5.],
            [7., 0.]])
    """
    position = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, position, -1).amax(1) if mask.shape[1] else position.new_zeros(len(mask))
    return torch.where(mask & (position == last[:, None]), x[:, None], torch.zeros((), device=x.device))


def index_of(keys: list[str]) -> Count:
    """Numbers equal keys alike, in order of first appearance.

    >>> index_of(["b", "a", "b"])
    tensor([0, 1, 0])
    """
    first: dict[str, int] = {}
    return torch.tensor([first.setdefault(key, len(first)) for key in keys], dtype=torch.long)
