"""The batch: n judged responses, and everything known about them by field name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whet import groups
from whet.fields import per_token
from whet.tasks import Problem


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows are responses: row i answers `problems[i]`, whose prompt has the token ids `prompts[i]`.

    `fields` holds tensors of shape [n], [n k] or [n t]; `unknown` counts, by reason, the responses that a
    judge could not judge: they are no rows, so they enter no baseline and no denominator. `drawn` counts all
    responses that were sampled for it, those filtered out included; `told` holds the metrics of its step.
    """

    problems: tuple[Problem, ...]
    prompts: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    fields: dict[str, Tensor]
    unknown: Counter[str] = field(default_factory=Counter)
    drawn: int = 0
    told: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def having(self, **fields: Tensor) -> "Batch":
        """The batch with some fields added or replaced."""
        return replace(self, fields={**self.fields, **fields})

    def telling(self, **told: float) -> "Batch":
        """The batch with some metrics added."""
        return replace(self, told={**self.told, **told})

    def rows(self, index: Sequence[int] | Tensor) -> "Batch":
        """Some of the rows, in the order of `index`; groups keep their problem and are numbered anew."""
        index = torch.as_tensor(index, dtype=torch.long)
        pick = index.tolist()
        problems = tuple(self.problems[i] for i in pick)
        fields = {name: value[index] for name, value in self.fields.items()}
        fields["group"] = groups.index_of([problem.id for problem in problems])
        return replace(
            self,
            problems=problems,
            prompts=tuple(self.prompts[i] for i in pick),
            texts=tuple(self.texts[i] for i in pick),
            fields=fields,
        )

    def where(self, keep: Tensor) -> "Batch":
        """The rows where `keep`, a bool [n], is True."""
        return self.rows(keep.nonzero().squeeze(1))

    def split(self, pieces: int) -> list["Batch"]:
        """`pieces` batches of whole groups, as equal as whole groups allow; never an empty one."""
        if pieces <= 1:
            return [self]
        group = self["group"]
        count = int(group.max()) + 1
        chunks = torch.arange(count).tensor_split(min(pieces, count))
        return [self.where(torch.isin(group, chunk)) for chunk in chunks]


def join(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows; responses are padded to the longest, and a problem met twice is one group."""
    width = max(batch["mask"].shape[1] for batch in batches)
    names = [name for name in batches[0].fields if all(name in batch.fields for batch in batches)]
    fields = {name: torch.cat([_widen(name, batch, width) for batch in batches]) for name in names}
    problems = tuple(problem for batch in batches for problem in batch.problems)
    fields["group"] = groups.index_of([problem.id for problem in problems])
    return Batch(
        problems=problems,
        prompts=tuple(prompt for batch in batches for prompt in batch.prompts),
        texts=tuple(text for batch in batches for text in batch.texts),
        fields=fields,
        unknown=sum((batch.unknown for batch in batches), Counter()),
        drawn=sum(batch.drawn for batch in batches),
    )


def _widen(name: str, batch: Batch, width: int) -> Tensor:
    value = batch[name]
    if not per_token(name, value, batch["mask"]):
        return value
    return torch.nn.functional.pad(value, (0, width - value.shape[1]))
