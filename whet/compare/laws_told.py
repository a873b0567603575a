"""Published laws held against runs, in words: entropy and reward, covariance, crossing, alignment limit, boundary."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from whet.compare import laws
from whet.compare.course import Course
from whet.compare.measure import Evaluations, Read, followed
from whet.evaluate import pass_at
from whet.runs.curve import change, powers
from whet.runs.store import Evaluated, Store


def laws_of(store: Store, beta: float) -> Group:
    """What `whet laws` prints of one run."""
    lines: list[Any] = [Text(store.name, "bold")]
    law = laws.exchange([store])
    if "a" in law:
        lines.append(
            Text(
                f"entropy and reward (2505.22617): R = {law['b']:.3f} - {law['a']:.3f} e^H with R² {law['r2']:.2f} "
                f"over H from {law['low']:.3f} to {law['high']:.3f} nats; carried on to H = 0 it says "
                f"{law['ceiling']:.1%}"
                + (", farther than what was seen" if law["low"] > law["high"] - law["low"] else "")
            )
        )
    else:
        lines.append(Text("entropy and reward: too few points that differ in entropy for a fit"))
    lines += _identity(Course(store))
    both = Evaluations.of(store)
    before, after = both.before.get(both.focus), both.after.get(both.focus)
    if before and after:
        lines += _limits(Course(store), both.focus, before, after, beta)
    return Group(*lines)


def _identity(run: Course) -> list[Text]:
    """How well the covariance of log-probability and logit change told what entropy did."""
    rows = list(zip(run.known("entropy_moved"), run.known("entropy_told"), strict=True))
    if not rows:
        return []
    off, signs = laws.identity(rows)
    return [
        Text(
            f"covariance identity (2505.22617): of {len(rows)} updates the last moved entropy by {rows[-1][0]:+.2e} "
            f"nats, and the covariance says {rows[-1][1]:+.2e}; the sign is right {signs} times, and in all they "
            f"differ by {off:.0%} of the size"
        )
    ]


def _limits(run: Course, split: str, before: list[Evaluated], after: list[Evaluated], beta: float) -> list[Text]:
    """Crossing of pass@k, what is solved at all; and what a KL budget could have bought beside what was bought."""
    ks = powers([*before, *after])
    said = _crossing(before, after, ks)
    start, moved = pass_at(before, 1), run.late("kl") * run.late("length")
    lines = [f"crossing of pass@k (2504.13837), {split}: {said}", _boundary(split, before, after)]
    scores = [[1.0] * row.right + [0.0] * (row.tries - row.right) for row in before]
    limits = [laws.tilted(one, beta) for one in scores]
    gain, kl, worth = (sum(one[name] for one in limits) / len(limits) for name in ("gain", "kl", "effective"))
    reached, frontier = pass_at(after, 1) - start, laws.at_budget(scores, moved)
    share = f", {reached / frontier['gain']:.0%} of it" if frontier["gain"] > 1e-3 and reached > 0 else ""
    most = ", all that the base's tries allow" if frontier["beta"] < 0.02 else ""
    lines += [
        f"alignment limit (2605.07105), β = {beta:g}: the best policy gains {100 * gain:.1f} points at {kl:.3f} nats a "
        f"response over the base's {start:.1%} (from its own tries, effective sample size {worth:.0%})",
        f"for the KL that was spent, {moved:.3f} nats a response (per token, on training problems, times length), "
        f"the limit is {100 * frontier['gain']:+.1f} points{most}; reached: {100 * reached:+.1f} points{share}",
    ]
    for n in (2, 4, 16):
        if n <= ks[-1]:
            bound = laws.best_of([0.0, 1.0], n)["kl"]
            lines.append(
                f"best of {n}: {100 * (pass_at(before, n) - start):+.1f} points at no more than {bound:.3f} nats"
            )
    return [Text(line) for line in lines]


def _crossing(before: list[Evaluated], after: list[Evaluated], ks: Sequence[int]) -> str:
    """From which k on the base solves more, and how sure the difference at the largest k is over problems."""
    first, last = pass_at(before, 1), pass_at(after, 1)
    at = laws.crossing(*([[k, pass_at(rows, k)] for k in ks] for rows in (before, after)))
    if first > last:
        said = "the base is ahead at k = 1 already"
    elif first == last:
        said = "the base is as good at k = 1"
    else:
        said = f"from k = {at} on the base solves more" if at else f"the base never gets ahead up to k = {ks[-1]}"
    end = change(before, after, ks[-1:])
    difference, low, high = (f"{100 * float(bound[0]):+.1f}" for bound in (end.mean, end.low, end.high))
    return f"{said}; at k = {ks[-1]} the run has {difference} points [{low}, {high}] (problems drawn anew)"


def _boundary(split: str, before: list[Evaluated], after: list[Evaluated]) -> str:
    """Which problems are solved at all, in the same number of tries at both ends."""
    if {row.tries for row in before} != {row.tries for row in after}:
        return "capability boundary (2508.07534): start and end had another number of tries, so it is not told"
    one = laws.boundary(*([(row.problem, row.right) for row in rows] for rows in (before, after)))
    return (
        f"capability boundary (2508.07534), {split}: in {before[0].tries} tries the base solves {one['before']} of "
        f"{one['problems']} problems and the run {one['after']}; {one['lost']} that the base solved are never solved "
        f"now, and {one['won']} are new"
    )


def laws_over(stores: Sequence[Store], out: Console) -> list[dict[str, Any]]:
    """By task and recipe, what runs say of the entropy law and of the covariance identity together.

    `r2` of R on e^H run by run, `straight` of R on H; `joint` of all runs at once; `off` and `signs` of the identity.
    """
    by: dict[tuple[str, str], list[Store]] = {}
    for store in followed(stores, "reading runs", out):
        one = Read(store.folder)
        _ = one.logged
        by.setdefault((one.about["task"], one.about["recipe"]), []).append(one)
    return [{"task": task, "recipe": recipe, **_over(mine)} for (task, recipe), mine in sorted(by.items())]


def _over(stores: Sequence[Store]) -> dict[str, Any]:
    own = [law for law in (laws.exchange([store]) for store in stores) if "r2" in law]
    joint = laws.exchange(stores)
    moves = [tuple(Course(store).known(f"entropy_{name}") for name in ("moved", "told")) for store in stores]
    rows = [pair for move in moves for pair in zip(*move, strict=True)]
    off, signs = laws.identity(rows)
    return {
        "runs": len(stores), "r2": [round(law["r2"], 4) for law in own],
        "straight": [round(laws.straight(law["points"]), 4) for law in own],
        "joint": {name: float(f"{joint[name]:.4g}") for name in ("a", "b", "r2", "low", "high") if name in joint},
        "updates": len(rows), "signs": signs, "off": round(off, 4) if rows else None,
    }  # fmt: skip


def laws_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Laws of many runs: a row for each task and recipe."""
    caption = (
        "R = b - a e^H: R² of each run (middle, least–most) and of all at once; signs and off: covariance identity"
    )
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", caption=caption, caption_justify="left")
    for name in ("task", "recipe", "runs", "R² by run", "joint", "H, nats", "signs", "off"):
        table.add_column(name, justify="left" if name in ("task", "recipe") else "right", no_wrap=name != "recipe")
    for row in rows:
        joint, r2 = row["joint"], sorted(row["r2"])
        table.add_row(
            row["task"], row["recipe"], str(row["runs"]),
            f"{r2[len(r2) // 2]:.2f} ({r2[0]:.2f}–{r2[-1]:.2f})" if r2 else "–",
            f"{joint['r2']:.2f}" if "r2" in joint else "–",
            f"{joint['low']:.2f}–{joint['high']:.2f}" if "r2" in joint else "–",
            f"{row['signs']} of {row['updates']}", "–" if row["off"] is None else f"{row['off']:.0%}",
        )  # fmt: skip
    return table
