"""From the tokens of responses to their texts, and where in the text each token ends."""

from typing import Any

from jaxtyping import Int
from torch import Tensor

WINDOW = 8  # tokens in front of a token that are decoded with it; ours: no character is made of so many


def words(tokens: Int[Tensor, "n t"], length: Int[Tensor, "n"]) -> list[list[int]]:
    """The token ids of each response, without padding."""
    return [row[:n] for row, n in zip(tokens.tolist(), length.tolist(), strict=True)]


def decoded(tokenizer: Any, rows: list[list[int]]) -> list[str]:
    """The texts as judges see them: without the end token."""
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def ends(tokenizer: Any, row: list[int]) -> list[int]:
    """Where each token ends in the text of its response, in characters from 0.

    What a token adds is seen beside its neighbours: alone, some tokenizers drop its space, and a part of a
    character is none.
    """
    behind = decoded(tokenizer, [row[max(i - WINDOW, 0) : i + 1] for i in range(len(row))])
    before = decoded(tokenizer, [row[max(i - WINDOW, 0) : i] for i in range(len(row))])
    found, end = [], 0
    for after, until in zip(behind, before, strict=True):
        end += len(after) - len(until)
        found.append(end)
    return found
