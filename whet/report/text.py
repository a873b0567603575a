"""Tables for the terminal: before and after, responses with coloured tokens, all runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from whet.refusal import Refused
from whet.report.facts import Fact, bounds, duration, facts, missing, number, seconds, splits, steps_of, told
from whet.runs.store import Store

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# What a token can be coloured by: False for one colour, 1 where up is blue, -1 where down is.
QUANTITIES = {"advantage": 1, "push": -1, "log_ratio": 1, "sampled_entropy": 0, "sampled_logp": 0}
UP, DOWN, OPEN = (37, 99, 235), (217, 83, 9), (147, 51, 234)
NOTHING = (104, 110, 120)  # a grey that stands out neither from a dark terminal nor from a light one
STATUS = {"finished": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}


def before_after(store: Store) -> "Table":
    """The table before → after, with the 95 % interval of each change over problems."""
    from rich.table import Table

    ends = splits(store)
    before, after = steps_of(ends)
    table = Table(title=None, box=None, pad_edge=False, caption_justify="left", header_style="dim")
    table.add_column("")
    for name in (before or "before", after or "after", "change"):
        table.add_column(name, justify="right")
    table.add_column("95 % interval", style="dim")
    block = None
    for fact in facts(store):
        if fact.split != block:
            block = fact.split
            table.add_row(f"[bold]{fact.split or 'the policy'}[/]", end_section=False)
        table.add_row(*_cells(fact))
    table.caption = "\n".join(missing(store, ends)) or None
    return table


def _cells(fact: Fact) -> list[str]:
    name = f"  {fact.measure}" + ("" if fact.unit == "share" else f" [dim]{fact.unit}[/]")
    values = [number(fact.before, fact.unit), number(fact.after, fact.unit)]
    if fact.change is None:
        return [name, *values, "–", ""]
    value = number(fact.change[0], fact.unit, signed=True)
    color = "bold" if fact.sure else "dim"
    if fact.sure and fact.better:
        color = "green" if fact.change[0] * fact.better > 0 else "red"
    return [name, *values, f"[{color}]{value}[/]", bounds(fact)]


# --- responses -----------------------------------------------------------------------------------------------


def samples_table(
    store: Store, step: int | None = None, split: str = "train", quantity: str = "advantage", limit: int = 12
) -> "Table":
    """Responses of a step (the last that was kept, without one), each token coloured by a quantity."""
    from rich.table import Table
    from rich.text import Text

    if quantity not in QUANTITIES:
        raise Refused(f"Tokens cannot be coloured by {quantity!r}, but by {', '.join(QUANTITIES)}.")
    step = _kept(store, step, split)
    rows = store.samples(step=step, split=split, limit=limit)
    most = _extent(rows, quantity)
    table = Table(title=f"step {step} · {split} · {quantity}", caption=_legend(quantity, most), title_justify="left",
                  caption_justify="left", header_style="dim", pad_edge=False, box=None, show_lines=False)  # fmt: skip
    for name in ("level", "", "reward", "tokens", ""):
        table.add_column(name, justify="right" if name else "left")
    problem = None
    for row in rows:
        if row["problem"] != problem:
            problem = row["problem"]
            asked = Text(_printable(row["prompt"]), "bold") + Text(f"  → {_printable(row['answer'])}", "dim")
            table.add_row("", "", "", "", asked)
        verdict = Text("✓", "green") if row["correct"] else Text("✗", "red")
        reward = row["reward"] if row["reward"] is not None else row["score"]
        response = coloured(row["pieces"], row[quantity], row["mask"], QUANTITIES[quantity], most)
        table.add_row(str(row["level"]), verdict, number(reward), str(row["length"]), response)
    return table


def _kept(store: Store, step: int | None, split: str) -> int:
    """The step to show; refused with the steps that there are."""
    kept = store.rollout_steps()
    steps = [one for one, name in kept if name == split]
    if not kept:
        raise Refused(f"{store.name} kept no responses.")
    if not steps:
        raise Refused(f"{store.name} kept no responses of {split!r}, but of {', '.join(sorted({n for _, n in kept}))}.")
    if step is not None and step not in steps:
        raise Refused(f"{store.name} kept no responses of step {step}, but of {', '.join(map(str, steps))}.")
    return steps[-1] if step is None else step


def _extent(rows: Sequence[dict[str, Any]], quantity: str) -> float:
    """The 98th percentile of the size of a quantity: what has the strongest colour."""
    sizes = sorted(abs(x) for row in rows for x in row[quantity] or () if x is not None)
    if not sizes:
        has = [name for name in QUANTITIES if any(row[name] for row in rows)]
        raise Refused(f"{quantity} was not recorded for these responses; there is {', '.join(has) or 'nothing else'}.")
    return sizes[min(len(sizes) - 1, int(0.98 * len(sizes)))] or sizes[-1] or 1.0


def coloured(
    pieces: Sequence[str], values: Sequence[float | None], mask: Sequence[bool], sign: int, most: float
) -> "Text":
    """The tokens of a response on backgrounds: blue and orange for signed quantities, violet for others.

    `values` and `mask` have one entry for each piece; a token that is not trained is struck out.
    """
    from rich.text import Text

    text = Text(overflow="fold")
    for piece, value, kept in zip(pieces, values, mask, strict=True):
        strength = min(1.0, abs(value or 0.0) / most)
        hue = OPEN if sign == 0 else UP if (value or 0.0) * sign > 0 else DOWN
        mixed = (round(grey + strength * (part - grey)) for grey, part in zip(NOTHING, hue, strict=True))
        style = f"white on rgb({','.join(map(str, mixed))})" if strength > 0.04 else ""
        text.append(_printable(piece) or "∅", f"{style} strike dim".strip() if not kept else style)
    return text


def _printable(text: str) -> str:
    """Control characters made visible, so that no response can steer the terminal."""
    names = {"\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(c if c.isprintable() else names.get(c, "·") for c in text)


def _legend(quantity: str, most: float) -> str:
    sign = QUANTITIES[quantity]
    if sign == 0:
        return f"violet: up to {number(most)} nats in size; struck out: not trained"
    up, down = number(sign * most, signed=True), number(-sign * most, signed=True)
    return f"blue: {up} · orange: {down}; struck out: not trained"


# --- runs ----------------------------------------------------------------------------------------------------


def runs_table(stores: Sequence[Store]) -> "Table":
    """All runs in a line each: what they are, how they ended, and what came of them."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", caption_justify="left")
    for name in ("run", "status", "task", "seed"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "time", "before", "after"):
        table.add_column(name, justify="right")
    for store in stores:
        about, (status, _) = store.about, store.state
        before, after = first_try(store)
        table.add_row(
            store.name, f"[{STATUS[status]}]{status}[/]", str(told(about, "task")), str(told(about, "seed")),
            str(store.steps), duration(spent) if (spent := seconds(store)) is not None else "–",
            number(before, "share"), number(after, "share"),
        )  # fmt: skip
    table.caption = "before, after: pass@1 on the split that the run is about" if stores else "There are no runs yet."
    return table


def first_try(store: Store) -> tuple[float | None, float | None]:
    """pass@1 at the first and the last evaluation of the split that the run is about, in shares."""
    ends = splits(store)
    if not ends:
        return None, None
    rates = [[row.right / row.tries for row in rows if row.tries] for rows in (ends[0].before, ends[0].after)]
    before, after = (sum(rate) / len(rate) if rate else None for rate in rates)
    return before, after
