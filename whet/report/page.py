"""Pieces of the page of a run, as HTML. Every text that a run brings along is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from whet.report.facts import Ends, Fact, bounds, duration, headline, number, seconds, steps_of, told
from whet.runs.store import Store


def e(value: Any) -> str:
    """A value as text that HTML takes for text."""
    return escape(str(value))


def section(name: str, title: str, lead: str, body: str) -> str:
    """One section with its heading and a sentence on what is to be seen."""
    said = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{e(title)}</h2>{said}{body}</section>'


def figure(name: str, title: str, note: str = "", last: str = "") -> str:
    """A card that the page draws the chart `name` in."""
    caption = f"<b>{e(title)}</b><span class='last'>{e(last)}</span><span class='note'>{e(note)}</span>"
    label = e(f"{title}: {note}")
    return (
        f'<figure class="card"><figcaption>{caption}</figcaption>'
        f'<div class="chart" data-chart="{e(name)}" role="img" aria-label="{label}"></div></figure>'
    )


def keys(before: str, after: str) -> str:
    """What the two colours of before and after stand for."""
    was = f'<li class="was"><i></i>{e(before)}</li>' if before else ""
    now = f'<li class="now"><i></i>{e(after)}</li>' if after else ""
    return f'<ul class="keys">{was}{now}</ul>'


# --- the title -----------------------------------------------------------------------------------------------


def title(store: Store) -> str:
    """One line for the window and for the heading: recipe on task."""
    about = store.about
    return f"{told(about, 'recipe', store.name)} on {told(about, 'task', 'an unnamed task')}"


def header(store: Store, ends: Sequence[Ends]) -> str:
    """What was trained, on what, from what, how long, and what came of it."""
    about, (status, sentence) = store.about, store.state
    recipe, task = told(about, "recipe", store.name), told(about, "task", "an unnamed task")
    named = f"{e(recipe)} <small>on</small> {e(task)}"
    new = f'<p class="new">{e(about["new"])}</p>' if about.get("new") else ""
    entries = {
        "base model": told(about, "base", "not said"),
        "seed": told(about, "seed", "not said"),
        "steps": _steps(store, about),
        "time": duration(spent) if (spent := seconds(store)) is not None else "not logged",
        "started": str(told(about, "started", "not said")).replace("T", " ")[:16],
    }
    known = "".join(f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd></div>" for name, value in entries.items())
    return (
        f'<div class="title"><div class="eyebrow"><span class="badge {e(status)}">{e(status)}</span>'
        f"<code>{e(store.name)}</code><span>{e(sentence)}</span></div>"
        f'<h1>{named}</h1><p class="headline">{e(headline(store, ends))}</p>{new}<dl class="key">{known}</dl></div>'
    )


def _steps(store: Store, about: Mapping[str, Any]) -> str:
    planned = about.get("steps")
    return f"{store.steps} of {planned}" if planned and planned != store.steps else f"{store.steps}"


def missing(sentences: Iterable[str]) -> str:
    """A box that says what this run does not have; nothing when it has everything."""
    items = "".join(f"<li>{e(one)}</li>" for one in sentences)
    return f'<div class="missing"><p>What is missing</p><ul>{items}</ul></div>' if items else ""


# --- before and after ----------------------------------------------------------------------------------------


def before_after(facts: Sequence[Fact], ends: Sequence[Ends], elsewhere: Sequence[str]) -> str:
    """The table before → after, a block for each split, with a picture of each share."""
    before, after = steps_of(ends)
    head = (
        f"<thead><tr><th></th><th class='n'>{e(before or 'before')}</th><th class='n'>{e(after or 'after')}</th>"
        "<th class='picture'></th><th class='n'>change</th><th>95 % interval</th></tr></thead>"
    )
    blocks = []
    for split in dict.fromkeys(fact.split for fact in facts):
        rows = "".join(_line(fact) for fact in facts if fact.split == split)
        blocks.append(f"<tbody><tr><th colspan='6'>{_block_name(split, ends, elsewhere)}</th></tr>{rows}</tbody>")
    return f'<div class="scroll"><table class="facts">{head}{"".join(blocks)}</table></div>'


def _block_name(split: str, ends: Sequence[Ends], elsewhere: Sequence[str]) -> str:
    if not split:
        return "the policy"
    end = next(one for one in ends if one.split == split)
    rows = end.after or end.before
    tries = sorted({row.tries for row in (*end.before, *end.after)})
    many = " or ".join(str(count) for count in tries)
    note = f"{len(rows)} problems × {many} responses" + (", not trained" if split in elsewhere else "")
    return f"{e(split)}<span class='note'>{e(note)}</span>"


def _line(fact: Fact) -> str:
    change, tone = "–", "interval"
    if fact.change is not None:
        value = fact.change[0]
        change = number(value, fact.unit, signed=True)
        tone = "interval" if not fact.sure else "moved"
        if fact.sure and fact.better:
            tone = "good" if value * fact.better > 0 else "bad"
    said = ", ".join(filter(None, (fact.unit.replace("share", ""), fact.meaning if not fact.split else "")))
    unit = f" <span class='note'>{e(said)}</span>" if said else ""
    picture = _dumbbell(fact) if fact.measure.startswith("pass@") else ""
    return (
        f"<tr title='{e(fact.meaning)}'><td class='measure'>{e(fact.measure)}{unit}</td>"
        f"<td class='n'>{number(fact.before, fact.unit)}</td><td class='n'>{number(fact.after, fact.unit)}</td>"
        f"<td class='picture'>{picture}</td><td class='n {tone}'>{change}</td>"
        f"<td class='interval'>{bounds(fact)}</td></tr>"
    )


def _dumbbell(fact: Fact) -> str:
    """From 0 to 100 %: a grey dot before, the accent after, and between them the way."""

    def at(share: float) -> str:
        return f"{100 * share:.1f}%"

    marks = ['<line x1="0" x2="100%" y1="9" y2="9" stroke="var(--line)" stroke-width="2"/>']
    before, after = fact.before, fact.after
    if before is not None and after is not None:
        way = f'x1="{at(before)}" x2="{at(after)}" y1="9" y2="9"'
        marks.append(f'<line {way} stroke="var(--after)" stroke-width="3" opacity="0.45"/>')
    for share, color in ((before, "before"), (after, "after")):
        if share is not None:
            marks.append(f'<circle cx="{at(share)}" cy="9" r="5" fill="var(--{color})"/>')
    return f'<svg class="dumbbell" aria-hidden="true">{"".join(marks)}</svg>'


# --- settings and recipe -------------------------------------------------------------------------------------


def settings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every setting with its value, its default and where the value comes from; changed ones stand out."""
    lines = []
    for row in rows:
        value, default = row.get("value"), row.get("default")
        changed = " class='changed'" if "default" in row and value != default else ""
        cells = [row.get("address", ""), value, default if "default" in row else "", row.get("source") or ""]
        lines.append(f"<tr{changed}>{''.join(f'<td>{e(cell)}</td>' for cell in cells)}</tr>")
    head = "<thead><tr><th>setting</th><th>value</th><th>default</th><th>where the value comes from</th></tr></thead>"
    return f'<div class="scroll"><table class="settings">{head}<tbody>{"".join(lines)}</tbody></table></div>'


def recipe(about: Mapping[str, Any]) -> str:
    """The equation as the recipe's file has it, the papers it stands on, and what it does differently."""
    parts = []
    if about.get("equation"):
        parts.append(f'<pre class="equation">{e(about["equation"])}</pre>')
    papers = [_paper(paper) for paper in told(about, "papers", ())]
    if papers:
        parts.append(f"<h4>papers</h4><ul class='plain'>{''.join(papers)}</ul>")
    departs = "".join(f"<li>{e(one)}</li>" for one in told(about, "departs", ()))
    if departs:
        parts.append(f"<h4 style='margin-top:14px'>what is done differently here</h4><ul class='plain'>{departs}</ul>")
    return "".join(parts)


def _paper(paper: Mapping[str, Any]) -> str:
    said, link = e(told(paper, "title", "untitled")), str(told(paper, "link"))
    when = f" <span class='note'>{e(paper['date'])}</span>" if paper.get("date") else ""
    if link.startswith(("https://", "http://")):
        said = f"<a href='{e(link)}' rel='noopener'>{said}</a>"
    return f"<li>{said}{when}</li>"


def footer(about: Mapping[str, Any]) -> str:
    """What the run was made with, so that it can be made again."""
    versions = told(about, "versions", {})
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    command = f"<br><code>{e(about['command'])}</code>" if about.get("command") else ""
    return f"Made by whet{' with ' + e(with_what) if with_what else ''}. This page needs no network.{command}"
