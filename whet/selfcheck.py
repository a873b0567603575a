"""Before the first step: is everything that the mathematics takes for granted true of this very model and task?

Seven checks on a few responses, each with its number and, where it fails, one sentence that says what to do.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet import groups
from whet.batch import Batch
from whet.draw import Draw, generator, with_what_is_asked
from whet.recipe import Recipe, Refused, needs, scored
from whet.step import objective, selector, wanted, weigh

PROBLEMS, RESPONSES = 4, 4
SEED = 30_000  # its own stream: the run's first batch is drawn as if there had been no check
EXACT = {"float32": 2e-3, "bfloat16": 0.5}  # nats between two ways to compute one number: ours
OFF = "or skip the check with --guard.check=false"


@dataclass(frozen=True)
class Finding:
    """What one check found: `number` in `unit`, and what to do where it is not `ok`."""

    name: str
    ok: bool
    number: float
    unit: str
    sentence: str
    seconds: float = 0.0


@dataclass
class Bench:
    """What the checks share: a few judged responses of the untouched model, scored and weighed by the recipe."""

    engine: Any
    task: Any
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        pool = list(self.task.train())
        self.problems = [pool[i] for i in torch.randperm(len(pool), generator=generator(self.seed, 1))[:PROBLEMS]]
        draw = Draw(self.engine, self.task, generator(self.seed, SEED))
        drawn = draw(self.problems, RESPONSES)
        self.run = {
            "pool": pool, "history": {}, "max_tokens": self.task.max_tokens, "step": 0, "progress": 0.0,
            "rng": generator(self.seed, SEED, 1),
        }  # fmt: skip
        if not len(drawn):
            why = drawn.unknown.most_common(1)[0][0] if drawn.unknown else "nothing was drawn"
            raise Refused(f"The judge could judge none of the first {drawn.drawn} responses ({why}): repair it first.")
        drawn = with_what_is_asked(drawn, draw, needs(self.recipe))
        self.batch = drawn.having(**self.engine.score(drawn, [*{*scored(self.recipe), "old_logp"}]))
        self.tolerance = _tolerance(self.engine)

    def learner(self) -> Any:
        """A learner with the recipe's own objective; what it draws at random, every learner here draws alike."""
        run = {**self.run, "rng": generator(self.seed, SEED, 2)}
        return self.engine.learner(objective(self.recipe), wanted(self.recipe), selector(self.recipe, run))

    # --- the checks --------------------------------------------------------------------------------------

    def sampler_and_learner_agree(self) -> tuple[bool, float, str, str]:
        """The log-probability that the sampler reported is the one that the learner computes."""
        gap = _gap(self.batch["sampled_logp"], self.batch["old_logp"], self.batch["mask"])
        # The sampler has a format of its own where that was asked for.
        allowed = max(self.tolerance, _tolerance(getattr(self.engine, "sampler", None)))
        return gap <= allowed, gap, "nats", (
            f"the sampler and the learner differ by up to {gap:.2g} nats on the same tokens: use one number "
            f"format for both (float32 is exact), and a model whose dropout and cache behave, {OFF}"
        )  # fmt: skip

    def ratio_is_one(self) -> tuple[bool, float, str, str]:
        """On policy π / π_old is 1 at the first pass."""
        batch = self._loud()
        learner = self.learner()
        learner.gradient(batch)
        seen = learner.seen["logp"]
        ratio = float((seen - self.batch["old_logp"])[batch["mask"]].abs().exp().max())
        return ratio - 1 <= self.tolerance, ratio, "π / π_old", (
            f"π / π_old is {ratio:.4g} before any update, so the model gives other numbers when it is called again: "
            f"look for dropout or noise in its forward pass, {OFF}"
        )  # fmt: skip

    def kl_is_zero(self) -> tuple[bool, float, str, str]:
        """The policy has not left the reference."""
        kl = self.engine.kl_to_start(self.batch, rows=PROBLEMS)
        return abs(kl) <= self.tolerance**2, kl, "nats per token", (
            f"the KL to the reference is {kl:.2g} before any update: the reference is not the model that the run "
            f"begins from; begin from that model, {OFF}"
        )  # fmt: skip

    def loss_is_finite(self) -> tuple[bool, float, str, str]:
        """The recipe's own loss on its own weights."""
        loss = self.learner().gradient(weigh(self.recipe, self.batch, self.run, {}))["loss"]
        return bool(torch.isfinite(torch.tensor(loss))), loss, "loss", (
            f"the loss of {self.recipe.name} is {loss} on the first responses: look at its rewards and its settings "
            f"(`whet show {self.recipe.name}`), {OFF}"
        )  # fmt: skip

    def padding_changes_nothing(self) -> tuple[bool, float, str, str]:
        """The first half of a response by itself has the numbers that it has whole, and beside longer ones."""
        index = int(self.batch["length"].argmax())
        alone = self.batch.rows([index])
        t = max(int(alone["length"][0]) // 2, 1)
        first = torch.arange(alone["mask"].shape[1]) < t
        alone = alone.having(mask=alone["mask"] & first, length=torch.tensor([t]))
        gap = _gap(self.engine.score(alone, ["old_logp"])["old_logp"], self.batch["old_logp"][[index]], alone["mask"])
        return gap <= self.tolerance, gap, "nats", (
            f"a response has log-probabilities that differ by up to {gap:.2g} nats when something stands behind it: "
            f"this model looks at padding or ahead (is it causal?), so take another, {OFF}"
        )  # fmt: skip

    def judge_tells_right_from_wrong(self) -> tuple[bool, float, str, str]:
        """A worked solution is right and has reward; nothing has none, and not every solution of another problem has.

        Single ones may well be right: two functions can have the same values.
        """
        if not hasattr(self.task, "demonstrate"):
            return True, float("nan"), "not tried: the task has no worked solutions", ""
        right = [self.task.demonstrate(problem) for problem in self.problems]
        many = len(right)
        verdicts = self.task.judge(self.problems * 3, [*right, *[""] * many, *right[1:], right[0]])
        missed = [p.id for p, v in zip(self.problems, verdicts, strict=False) if not _rewarded(v)]
        given = [p.id for p, v in zip(self.problems, verdicts[many:], strict=False) if v.correct or (v.score or 0) > 0]
        others = [p for p, q in zip(self.problems, [*self.problems[1:], self.problems[0]], strict=True)
                  if p.answer != q.answer]  # fmt: skip
        fooled = [
            p.id for p, v in zip(self.problems, verdicts[2 * many :], strict=True) if p in others and _rewarded(v)
        ]
        blind = len(others) > 1 and len(fooled) == len(others)
        sentence = f"the judge gives the worked solution of {missed[0]} no reward" if missed else ""
        sentence = sentence or (f"the judge rewards an empty response to {given[0]}" if given else "")
        if blind and not sentence:
            sentence = f"the judge rewards the worked solution of another problem as one of {fooled[0]}"
        share = 1 - (len(missed) + len(given) + blind * len(others)) / (3 * many)
        return not sentence, share, "share judged as it should be", f"{sentence}: repair the judge, {OFF}"

    def gradient_repeats(self) -> tuple[bool, float, str, str]:
        """The gradient of the same batch, twice, is the same; bit for bit on the CPU."""
        batch, found = self._loud(), []
        for _ in range(2):
            learner = self.learner()
            learner.gradient(batch)
            found.append(torch.cat([x.flatten() for x in learner.gradients()]))
        size = float(found[0].norm())
        gap = float((found[0] - found[1]).norm()) / max(size, 1e-30)
        bound = 0.0 if str(getattr(self.engine, "device", "cpu")) == "cpu" else 1e-3
        silent = not size and "logp" in needs(self.recipe, "loss", "penalties")
        return gap <= bound and not silent, gap, "relative difference", (
            f"the gradient of one batch differs by {gap:.2g} from itself when it is computed again"
            + (" (it is zero)" if silent else "")
            + f": no run on this machine can be repeated; look for noise in the forward pass, {OFF}"
        )  # fmt: skip

    def _loud(self) -> Batch:
        """The batch with advantages of both signs, since the first rewards may all be alike."""
        batch = weigh(self.recipe, self.batch, self.run, {})
        sign = 1.0 - 2.0 * (torch.arange(len(batch)) % 2)
        mask = self.batch["mask"]
        return batch.having(
            mask=mask, reward=sign, advantage=groups.spread(sign, mask), weight=mask / mask.sum().clamp(min=1)
        )


CHECKS = (
    "sampler_and_learner_agree", "ratio_is_one", "kl_is_zero", "loss_is_finite", "padding_changes_nothing",
    "judge_tells_right_from_wrong", "gradient_repeats",
)  # fmt: skip


def findings(engine: Any, task: Any, recipe: Recipe, seed: int = 0) -> Iterator[Finding]:
    """Every check in turn. The engine is left as it was, and so are the global generators."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        bench = Bench(engine, task, recipe, seed)
        for name in CHECKS:
            began = time.perf_counter()
            ok, number, unit, sentence = getattr(bench, name)()
            yield Finding(name.replace("_", " "), ok, number, unit, sentence, time.perf_counter() - began)
    engine.optimizer.zero_grad()


def require(engine: Any, task: Any, recipe: Recipe, seed: int = 0) -> None:
    """Refused with the sentence of the first check that fails."""
    for finding in findings(engine, task, recipe, seed):
        if not finding.ok:
            raise Refused(f"Self-check, {finding.name}: {finding.sentence}.")


def _rewarded(verdict: Any) -> bool:
    return bool(verdict.correct) and (verdict.score or 0) > 0


def _tolerance(one: Any) -> float:
    """What the number format of an engine or a sampler allows; float32's where it names none."""
    return EXACT.get(str(getattr(one, "dtype", "")).removeprefix("torch."), EXACT["float32"])


def _gap(one: Tensor, other: Tensor, mask: Tensor) -> float:
    """The largest difference where the mask is True; 0 where it is nowhere."""
    return float((one - other)[mask].abs().max()) if mask.any() else 0.0
