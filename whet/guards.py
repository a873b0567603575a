"""Numbers that go wrong: the engine as `step` sees it, watched at every stage.

A number that is NaN or infinite ends the step before the policy moves: weights and optimiser are those of the
step before, the batch is kept for replay, and the sentence names the stage that made it first.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from whet.batch import Batch
from whet.fields import made_by, per_token
from whet.plain import one_pass
from whet.recipe import Recipe, function_of, name_of, off_policy
from whet.refusal import NotFinite, Refused
from whet.settings import like, settings, with_settings
from whet.tasks import Problem

PATIENCE = 3  # steps in a row that are not taken before the run stops
WINDOW, AT_LEAST = 50, 10  # gradient norms that a spike is compared with: ours
FLOW = (
    ("sampling", ("sampled_logp", "sampled_entropy")),
    ("judging", ("score", "greedy_score")),
    ("reward", ("rewards", "token_reward")),
    ("scoring", tuple(sorted(made_by("scorer")))),
    ("advantage", ("advantage",)),
    ("weights", ("weight",)),
)


SOUND: dict[str, tuple[Callable[[Any], bool], str]] = {
    "check": (lambda x: True, "true or false"),
    "spike": (lambda x: x >= 0, "a number of at least 0 (0 takes every step)"),
    "unknown": (lambda x: 0 <= x <= 1, "a share between 0 and 1 (0.05 is 5 %; 1 never stops a run)"),
    "window": (lambda x: x >= 1, "a number of updates, at least 1"),
    "memory": (lambda x: True, "true or false"),
}


@dataclass(frozen=True)
class Guard:
    """What watches a run. `check`: the self-check before the first step.

    `spike`: an optimiser step whose gradient norm is above so many times the median of the last 50 is left out;
    0 takes every step. `unknown`: beyond this share of responses that the judge could not judge, over the last
    `window` updates, the run stops; 1 never stops it. `memory`: whether a run is refused that will need more than
    there is.
    """

    check: bool = True
    spike: float = 0.0
    unknown: float = 0.05  # ours, as the window
    window: int = 10
    memory: bool = True

    @classmethod
    def of(cls, typed: Mapping[str, Any]) -> tuple["Guard", dict[str, Any]]:
        """The guard from the settings `guard.check`, `guard.spike` and so on, and the settings that are left."""
        known = {field.name: field.default for field in fields(cls)}
        mine = {address[6:]: value for address, value in typed.items() if address.startswith("guard.")}
        for name in mine:
            if name not in known:
                raise Refused(f"There is no setting 'guard.{name}': it is {' or '.join(f'guard.{k}' for k in known)}.")
        read = {name: like(value, known[name], f"guard.{name}") for name, value in mine.items()}
        for name, value in read.items():
            sound, sentence = SOUND[name]
            if not _is_like(value, known[name]) or not sound(value):
                raise Refused(f"guard.{name} is {sentence}, so it cannot be {mine[name]}.")
        return cls(**read), {address: value for address, value in typed.items() if not address.startswith("guard.")}


def _is_like(value: Any, example: Any) -> bool:
    """True for a bool where a bool is asked for, and a number where a number is."""
    return isinstance(value, bool) == isinstance(example, bool) and isinstance(value, int | float)


class Watch:
    """An engine that passes everything on, and raises `NotFinite` with the stage before the policy moves.

    `norms` are the gradient norms of the optimiser steps so far, newest last; `spikes` counts those left out.
    """

    def __init__(self, engine: Any, recipe: Recipe, spike: float = 0.0, norms: Sequence[float] = ()) -> None:
        self.engine, self.recipe, self.spike, self.norms = engine, recipe, spike, list(norms)
        self.spikes = 0
        self.batch: Batch | None = None
        self.problems: list[Problem] = []
        self.before: Any = None
        # Several optimiser steps in one update: the first may be taken when the second goes wrong.
        self.several = function_of(recipe.update) is not one_pass or off_policy(recipe)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def sample(self, problems: Sequence[Problem], *more: Any, **how: Any) -> Batch:
        """The engine's own responses."""
        self.batch, self.problems = None, list(problems)
        self.batch = self.engine.sample(problems, *more, **how)
        return self.batch

    def score(self, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """The engine's own scores of a judged batch."""
        self.examine(batch)
        made = self.engine.score(batch, names)
        self.examine(batch.having(**made))
        return made

    def learner(self, *how: Any) -> "WatchedLearner":
        """The engine's own learner, watched."""
        return WatchedLearner(self, self.engine.learner(*how))

    def examine(self, batch: Batch) -> None:
        """Raise when a field of the batch is not finite where it counts; the earliest stage of the flow is named."""
        self.batch = batch
        for stage, names in FLOW:
            for name in names:
                if name in batch.fields and not _finite(name, batch[name], batch["mask"]):
                    raise NotFinite(stage, f"{self._maker(stage, name, batch)} is not finite")

    def _maker(self, stage: str, name: str, batch: Batch) -> str:
        parts = self.recipe.reward
        if name == "rewards" and batch[name].shape[1] == len(parts):
            columns = torch.isfinite(batch[name]).all(0).tolist()
            return f"the reward of {', '.join(name_of(p) for p, ok in zip(parts, columns, strict=True) if not ok)}"
        return f"the {name} made by {name_of(self.recipe.advantage)}" if stage == "advantage" else f"the {name}"

    def put_back(self) -> None:
        """Weights and optimiser as they were before the update, where some of its steps were already taken."""
        if self.before is not None:
            self.engine.load_state(self.before)
        self.before = None


class WatchedLearner:
    """A learner that passes everything on, and refuses a loss, a log-probability or a gradient that is no number."""

    def __init__(self, watch: Watch, learner: Any) -> None:
        self.watch, self.inner = watch, learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def gradient(self, batch: Batch, scale: float = 1.0) -> dict[str, float]:
        """The learner's own gradient."""
        self.watch.examine(batch)
        told = self.inner.gradient(batch, scale)
        seen = getattr(self.inner, "seen", {})
        read = batch["mask"] & ~getattr(self.inner, "silent", torch.tensor([False]))[:, None]
        if "logp" in seen and not _finite("logp", seen["logp"], read):
            raise NotFinite("the forward pass", "the learner's log-probability is not finite")
        loss = name_of(self.watch.recipe.loss)
        if not torch.isfinite(torch.tensor(told["loss"])):
            raise NotFinite("loss", f"the loss ({loss} and its penalties) is {told['loss']}")
        if "push" in seen and not torch.isfinite(seen["push"]).all():
            raise NotFinite("loss", f"the derivative of the loss ({loss} and its penalties) is not finite")
        return told

    def step(self, lr: float | None = None, clip_norm: float = 1.0) -> dict[str, float]:
        """The learner's own step, or none where the gradient norm is a spike."""
        watch = self.watch
        if watch.spike:
            norm = float(torch.stack([x.double().norm() for x in self.inner.gradients()]).norm())
            usual = median(watch.norms) if len(watch.norms) >= AT_LEAST else norm
            watch.norms = [*watch.norms, norm][-WINDOW:]
            if norm > watch.spike * usual:
                watch.spikes += 1
                return {"grad_norm": norm}
        if watch.several and watch.before is None:
            watch.before = watch.engine.state()
        return self.inner.step(lr, clip_norm)


def _finite(name: str, x: Tensor, mask: Tensor) -> bool:
    x = x[mask] if per_token(name, x, mask) else x
    return bool(torch.isfinite(x).all())


# --- keeping what went wrong -------------------------------------------------------------------------------


def keep(folder: Path, watch: Watch, step: int, why: NotFinite) -> Path:
    """`trouble/step-000012.pt`: the batch as it was, the weights before it and the settings, for `replay`."""
    place = folder / "trouble" / f"step-{step:06d}.pt"
    kept = {
        "step": step, "stage": why.stage, "sentence": str(why), "batch": watch.batch, "problems": watch.problems,
        "weights": watch.engine.state()["weights"], "settings": settings(watch.recipe),
    }  # fmt: skip
    try:
        place.parent.mkdir(exist_ok=True)
        torch.save(kept, aside := place.with_name(f".{place.name}"))
        aside.replace(place)
        for old in sorted(place.parent.glob("step-*.pt"))[:-PATIENCE]:
            old.unlink()
    except (OSError, RuntimeError):
        shutil.rmtree(place.parent, ignore_errors=True)  # no room: the run is worth more than this
    return place


def replay(place: Path, engine: Any, recipe: Recipe) -> str:
    """The stage that goes wrong when a kept batch is differentiated again; empty when nothing does.

    `engine` must have been made from the run's own start; it is left with the weights of that moment.
    """
    from collections import Counter

    from whet.step import objective, selector, wanted

    with torch.serialization.safe_globals([Batch, Problem, Counter]):
        kept = torch.load(place, weights_only=True)
    recipe = with_settings(recipe, kept["settings"])
    engine.load_state({"weights": kept["weights"], "optimizer": {}})
    watch = Watch(engine, recipe)
    try:
        if kept["batch"] is None:
            engine.sample(kept["problems"], [1] * len(kept["problems"]), max_tokens=1, seed=0)
            return ""
        watch.examine(kept["batch"])
        learner = watch.learner(objective(recipe), wanted(recipe), selector(recipe, {"step": kept["step"]}))
        learner.gradient(replace(kept["batch"], told={}))
        norm = torch.stack([x.norm() for x in learner.gradients()]).norm()
        return "" if torch.isfinite(norm) else "the gradient"
    except NotFinite as found:
        return found.stage
