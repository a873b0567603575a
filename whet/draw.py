"""Sampling and judging together: what a `sample` part calls."""

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from whet.batch import Batch, join
from whet.beside import Beside
from whet.engines.profile import stage
from whet.recipe import Refused
from whet.tasks import Problem, Verdict


def generator(*seeds: int) -> torch.Generator:
    """A generator for one purpose: the same numbers give the same stream, nearby numbers unrelated ones."""
    mixed = 0x9E3779B97F4A7C15
    for seed in seeds:
        mixed = ((mixed ^ (seed + 0x9E3779B9)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)


@dataclass(frozen=True)
class Draw:
    """What a `sample` part is given: responses to problems, sampled by the engine and judged by the task."""

    engine: Any
    task: Any
    rng: torch.Generator
    tokens: list[int] = field(default_factory=list)  # of every response drawn, those filtered out included

    def __call__(
        self,
        problems: Sequence[Problem],
        responses: int | Sequence[int],
        temperature: float = 1.0,
        greedy: bool = False,
        top_p: float = 1.0,
        reference: bool = False,
    ) -> Batch:
        """`responses` to each problem: a number, or one number for each; by the starting model if `reference`."""
        counts = [responses] * len(problems) if isinstance(responses, int) else list(responses)
        how = {"temperature": temperature, "top_p": top_p, "greedy": greedy, "max_tokens": self.task.max_tokens}
        how |= {"seed": self._seed()} | ({"reference": True} if reference else {})
        if not getattr(self.task, "judges_apart", False):
            return self.judge(self._counted(self.engine.sample(problems, counts, **how)))
        with Beside(self.task, problems, counts) as beside:
            batch = self._counted(self.engine.sample(problems, counts, **how, ended=beside.ended))
            with stage("judge"):
                return judged(batch, beside.of(batch.texts))

    def begin(self, problems: Sequence[Problem], responses: int, temperature: float, tokens: int) -> Batch:
        """The first `tokens` of so many responses to each problem, not judged yet."""
        return self._counted(self.engine.sample(
            problems, [responses] * len(problems), temperature=temperature, max_tokens=tokens, seed=self._seed()
        ))  # fmt: skip

    def resume(self, batch: Batch, tokens: int) -> Batch:
        """The unfinished responses of a batch at most `tokens` longer, within the task's bound, by today's policy."""
        room = (self.task.max_tokens - batch["length"]).clamp(max=tokens) * ~batch["finished"]
        parts = [(n, batch.where(room == n)) for n in room.unique().tolist()]
        longer = [self.engine.resume(part, max_tokens=n, seed=self._seed()) if n else part for n, part in parts]
        return self._counted(join(longer), before=int(batch["length"].sum())) if longer else batch

    def judge(self, batch: Batch) -> Batch:
        """The batch with its verdicts."""
        with stage("judge"):
            return judged(batch, self.task.judge(batch.problems, batch.texts))

    def _counted(self, batch: Batch, before: int = 0) -> Batch:
        self.tokens.append(int(batch["length"].sum()) - before)
        return batch

    def _seed(self) -> int:
        return int(torch.randint(2**62, (), generator=self.rng))

    def demonstrations(self, problems: Sequence[Problem]) -> Batch:
        """One worked solution of each problem, as a batch whose `demonstration` is True. Nobody sampled them."""
        if not hasattr(self.task, "demonstrate"):
            raise Refused(f"{self.task.name} has no worked solutions, which this recipe learns from.")
        written = self.engine.written(problems, [self.task.demonstrate(problem) for problem in problems])
        batch = judged(written, self.task.judge(written.problems, written.texts))
        return batch.having(demonstration=torch.ones(len(batch), dtype=torch.bool))


def judged(batch: Batch, verdicts: Sequence[Verdict]) -> Batch:
    """The batch with scores; responses of unknown worth leave it, counted by reason.

    Nothing is a demonstration until a `sample` part says so, and nothing is older than the engine says.
    """
    known = torch.tensor([verdict.score is not None for verdict in verdicts], dtype=torch.bool)
    unknown = Counter(verdict.reason for verdict in verdicts if verdict.score is None)
    batch = batch.having(
        score=torch.tensor([float(verdict.score or 0.0) for verdict in verdicts]),
        correct=torch.tensor([verdict.correct for verdict in verdicts], dtype=torch.bool),
        demonstration=torch.zeros(len(verdicts), dtype=torch.bool),
        age=batch.fields.get("age", torch.zeros(batch["mask"].shape)),
    )
    return replace(batch if bool(known.all()) else batch.where(known), unknown=unknown, drawn=len(verdicts))


def with_greedy_score(batch: Batch, draw: Draw) -> Batch:
    """The batch with the score of one greedy response to each of its problems.

    Where that response could not be judged, the problem leaves the batch.
    """
    problems = list({problem.id: problem for problem in batch.problems}.values())
    greedy = draw(problems, 1, greedy=True)
    scores = {problem.id: float(score) for problem, score in zip(greedy.problems, greedy["score"], strict=True)}
    batch = batch.where(torch.tensor([problem.id in scores for problem in batch.problems], dtype=torch.bool))
    return batch.having(greedy_score=torch.tensor([scores[problem.id] for problem in batch.problems]))


def with_ref_score(batch: Batch, draw: Draw) -> Batch:
    """The batch with the score of one response of the starting model for each of its own, equally hot.

    Where that response could not be judged, the one beside it leaves the batch.
    """
    keys = list(zip((problem.id for problem in batch.problems), batch["temperature"].tolist(), strict=True))
    scores = defaultdict(list)
    for temperature in sorted(set(batch["temperature"].tolist())):
        mine = [problem for problem, (_, hot) in zip(batch.problems, keys, strict=True) if hot == temperature]
        other = draw(mine, 1, temperature, reference=True)
        for problem, score in zip(other.problems, other["score"].tolist(), strict=True):
            scores[problem.id, temperature].append(score)
    found = [scores[key].pop() if scores[key] else None for key in keys]
    batch = batch.where(torch.tensor([score is not None for score in found]))
    return batch.having(ref_score=torch.tensor([score for score in found if score is not None]))


def with_labels(batch: Batch, draw: Draw) -> Batch:
    """The batch with what the task says of the statements in each text, on the tokens that they are made of."""
    if not hasattr(draw.task, "label"):
        raise Refused(
            f"{draw.task.name} does not say which statements of a response are right, which this recipe learns from: "
            "take a task that does (compose, digits, countdown), or a recipe without labels."
        )
    label = torch.zeros(batch["mask"].shape)
    statements = draw.task.label(batch.problems, batch.texts)
    for row, (mine, ends) in enumerate(zip(statements, draw.engine.ends(batch), strict=True)):
        for column, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            for first, last, value in mine:
                if begin < last and end > first:
                    label[row, column] = value
    return batch.having(label=label)


ASKED: dict[str, Callable[[Batch, Draw], Batch]] = {
    "greedy_score": with_greedy_score,
    "ref_score": with_ref_score,
    "label": with_labels,
}


def with_what_is_asked(batch: Batch, draw: Draw, names: Container[str]) -> Batch:
    """The batch with the fields that cost another draw or another look, where a part asks for them."""
    for name, make in ASKED.items():
        if name in names:
            batch = make(batch, draw)
    return batch
