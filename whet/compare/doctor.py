"""What goes wrong in a run, in plain words and with the number, and which recipes are meant for that.

The bounds are ours: they are where a reader of curves would begin to ask, not where a run is lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from whet import shelf
from whet.compare import laws
from whet.compare.course import Course
from whet.compare.measure import Evaluations, measure
from whet.evaluate import pass_at
from whet.runs.curve import change, powers
from whet.runs.store import Evaluated, Store

LARGE = 0.015  # ours, nats per token: in our study's runs at 1.5e-4 an update moved less, at 5e-4 most moved more


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong: its name, a sentence with the number, and recipes that are meant for it."""

    name: str
    sentence: str
    meant: tuple[str, ...]
    already: tuple[str, ...] = ()  # of those that are meant for it, what the run itself is made of


def troubles(store: Store) -> list[Trouble]:
    """Everything that is found, in the order in which to look at it."""
    course = Course(store)
    there = shelf.index()
    found = [one for check in CHECKS for one in check(course)]
    own = {Path(word.partition(":")[0]).stem for word in store.about["recipe"].split("+")}
    own |= {word.rpartition(":")[2] for word in store.about["recipe"].split("+")}
    return [
        Trouble(t.name, t.sentence, tuple(name for name in t.meant if name in there and name not in own),
                tuple(name for name in t.meant if name in own))
        for t in found
    ]  # fmt: skip


def _unknowns(run: Course) -> list[Trouble]:
    share = run.late("unknown")
    if share <= 0:
        return []
    return [
        Trouble(
            "reward unknown",
            f"the judge could not judge {share:.1%} of the responses at the end: look at "
            "them before anything else, since they leave every baseline.",
            (),
        )
    ]


def _nothing_learned(run: Course) -> list[Trouble]:
    ends = run.ends("correct")
    if ends is None or ends[1] - ends[0] > 0.02 or ends[0] > 0.95:
        return []
    word = "fell" if ends[1] < ends[0] - 0.02 else "hardly moved"
    return [
        Trouble(
            "no progress",
            f"the share of right answers while training {word}: {ends[0]:.1%} at first, {ends[1]:.1%} at the end.",
            ("dynamic_sampling", "e3_budget", "srft", "mutual_rl_sgt"),
        )
    ]


def _large_steps(run: Course) -> list[Trouble]:
    """Updates that move the policy far and teach little: in our study what a learning rate too high looks like."""
    ends, steps = run.ends("correct"), run.known("step_kl")
    if ends is None or not steps or ends[1] - ends[0] > 0.05 or ends[0] > 0.95:
        return []
    size = sum(steps) / len(steps)
    if size <= LARGE:
        return []
    rates = [row["value"] for row in run.store.about.get("settings", []) if row["address"] == "update.lr"]
    less = f", as --update.lr={rates[0] / 2:g}" if rates and rates[0] else ""
    return [
        Trouble(
            "steps too large",
            f"an update moves the policy by {size:.3f} nats per token (mean of {len(steps)} that were measured) and "
            f"right answers while training went from {ends[0]:.1%} to {ends[1]:.1%}: try a smaller learning "
            f"rate{less}, before another recipe.",
            (),
        )
    ]


def _entropy(run: Course) -> list[Trouble]:
    ends = run.ends("entropy")
    if ends is None:
        return []
    first, last = ends
    if last < 0.2 * first or last < 0.02:
        right = run.late("correct")
        fine = " The problems are nearly solved, so that may be all right." if right > 0.95 else ""
        names = (
            "clip_higher",
            "clip_cov",
            "kl_cov",
            "adaptive_entropy_control",
            "confucius_ter",
            "entropy_advantage",
            "e3_temperature",
            "w_reinforce",
        )
        return [
            Trouble(
                "entropy collapse",
                f"entropy fell from {first:.3f} to {last:.3f} nats per token: the policy "
                f"has stopped trying other answers, at {right:.0%} right.{fine}",
                names,
            )
        ]
    if last > 1.5 * first and last > 0.5:
        return [
            Trouble(
                "entropy explosion",
                f"entropy rose from {first:.3f} to {last:.3f} nats per token: the policy comes apart.",
                ("aepo", "confucius_ter", "w_reinforce", "topr"),
            )
        ]
    return []


def _signal(run: Course) -> list[Trouble]:
    silent = run.late("silent_groups")
    if silent <= 0.5:
        return []
    right = run.late("correct")
    names = ("dynamic_sampling", "e3_budget", "hora", "sign_advantage", "eframe", "passk_training")
    return [
        Trouble(
            "no signal",
            f"{silent:.0%} of the problems gave no gradient at the end, where {right:.0%} of the responses were right: "
            "to such a problem all responses were worth the same.",
            names,
        )
    ]


def _length(run: Course) -> list[Trouble]:
    found, ends = [], run.ends("length")
    if ends is not None and (ends[1] > 1.5 * ends[0] or ends[1] < ends[0] / 1.5):
        way = "longer" if ends[1] > ends[0] else "shorter"
        names = ("dr_grpo", "overlong", "icr", "expthink") if way == "longer" else ("dr_grpo", "luspo", "token_mean")
        found.append(
            Trouble(
                "length drift", f"responses got {way}: {ends[0]:.1f} tokens at first, {ends[1]:.1f} at the end.", names
            )
        )
    whole = run.late("finished", 1.0)
    if whole < 0.9:
        found.append(
            Trouble(
                "cut off",
                f"{1 - whole:.0%} of the responses at the end were cut off before they ended.",
                ("overlong", "overlong_filter"),
            )
        )
    return found


def _ratios(run: Course) -> list[Trouble]:
    worst, tail, worth = (
        max(run.known("ratio_max"), default=1.0),
        run.late("ratio_tail"),
        run.late("effective_samples", 1),
    )
    found, said = [], []
    if worst > 10:
        said.append(f"the largest ratio of new to old policy was {worst:.3g}, at update {run.when('ratio_max', worst)}")
    if tail > 0.01:
        said.append(f"at the end {tail:.1%} of the tokens lay outside 0.5 … 2")
    if worth < 0.5:
        said.append(f"at the end the tokens were worth {worth:.0%} of their number")
    if said:
        names = ("gspo", "gmpo", "cispo", "sapo", "vespo", "dual_clip", "opsm")
        found.append(Trouble("ratio tails", f"{'; '.join(said)}.", names))
    gap = max(run.known("sampler_gap"), default=0.0)
    if gap > 0.1:
        where = f"by up to {gap:.3g} nats on one token, at update {run.when('sampler_gap', gap)}."
        found.append(Trouble("sampler and learner differ", where, ("rollout_is", "sequence_is")))
    clipped = run.late("clip_fraction")
    if clipped > 0.3:
        found.append(
            Trouble(
                "clipping",
                f"{clipped:.0%} of the tokens with an advantage got no gradient at the end.",
                ("cispo", "dro", "sapo", "clip_higher"),
            )
        )
    return found


def _gradient(run: Course) -> list[Trouble]:
    norms, found = sorted(run.known("grad_norm")), []
    if norms and norms[-1] > 10 * norms[len(norms) // 2] > 0:
        found.append(
            Trouble(
                "gradient spikes",
                f"the largest gradient norm, {norms[-1]:.3g}, is "
                f"{norms[-1] / norms[len(norms) // 2]:.0f} times the middle one.",
                ("c3po", "gmpo", "aepo"),
            )
        )
    halves = run.known("half_agreement")
    if len(halves) >= 3 and sum(halves) / len(halves) < 0.05 and not _learned(run):
        found.append(
            Trouble(
                "noisy gradient",
                f"the gradients of the two halves of a batch agree with a cosine of only "
                f"{sum(halves) / len(halves):.3f} (mean of {len(halves)} updates): more responses, or a better "
                "baseline.",
                ("rloo", "opo", "dynamic_sampling"),
            )
        )
    return found


def _learned(run: Course) -> bool:
    """Right answers while training rose; a gradient that does this is not too noisy."""
    ends = run.ends("correct")
    return ends is not None and ends[1] - ends[0] > 0.02


def _fallen(split: str, before: list[Evaluated], after: list[Evaluated]) -> list[Trouble]:
    """pass@1 and pass@(largest k) that fell by more than the choice of problems can explain: a paired bootstrap."""
    k = powers([*before, *after])[-1]
    ends = change(before, after, (1, k))
    told = [
        f"pass@{n} on {split} fell from {pass_at(before, n):.1%} to {pass_at(after, n):.1%} "
        f"([{100 * ends.low[i]:+.1f}, {100 * ends.high[i]:+.1f}] points with other problems like these)"
        for i, n in enumerate((1, k))
    ]
    found = []
    if ends.high[0] < 0:
        found.append(Trouble("worse than at the start", f"{told[0]}: this run has unlearned.", ("k3_loss", "k2_loss")))
    if k > 1 and ends.high[1] < 0:
        one = laws.boundary(*([(row.problem, row.right) for row in rows] for rows in (before, after)))
        lost = f"{one['lost']} that were solved {'is' if one['lost'] == 1 else 'are'} never solved now"
        new = f"{one['won']} {'is' if one['won'] == 1 else 'are'} new"
        names = ("w_reinforce", "nsr", "pkpo", "passk_training", "entropy_advantage")
        found.append(Trouble("narrowing", f"{told[1]}: {lost}, {new}.", names))
    return found


def _held_out(run: Course) -> list[Trouble]:
    both, found = Evaluations.of(run.store), []
    lost = measure(run.store, "forgetting") if both.before and both.after else None
    if lost is not None and lost > 0.03:
        found.append(
            Trouble(
                "forgetting",
                f"pass@1 fell by {100 * lost:.1f} points on {', '.join(both.elsewhere)}, which "
                f"is not trained, at a KL of {run.late('kl'):.3g} nats per token to the start.",
                ("k1_reward", "k3_loss", "k2_loss", "apo_dads"),
            )
        )
    before, after = both.before.get(both.focus), both.after.get(both.focus)
    if before and after:
        found += _fallen(both.focus, before, after)
    reward, right = run.ends("reward"), run.ends("correct")
    if reward and right and reward[1] > reward[0] + 0.02 and right[1] < right[0] - 0.02:
        found.append(
            Trouble(
                "reward and answers part",
                f"reward rose by {reward[1] - reward[0]:.3f} while right answers "
                f"fell by {100 * (right[0] - right[1]):.1f} points: the reward is being gamed.",
                (),
            )
        )
    return found


CHECKS: Sequence[Callable[[Course], list[Trouble]]] = (
    _unknowns,
    _large_steps,
    _nothing_learned,
    _signal,
    _entropy,
    _length,
    _ratios,
    _gradient,
    _held_out,
)


def _reached(store: Store) -> list[Text]:
    both = Evaluations.of(store)
    before, after = both.before.get(both.focus), both.after.get(both.focus)
    if not (before and after):
        return []
    return [
        Text(
            f"pass@1 on {both.focus}: {pass_at(before, 1):.1%} at the start, {pass_at(after, 1):.1%} at the end", "dim"
        )
    ]


def report(store: Store) -> Group:
    """What `whet doctor` prints."""
    status, sentence = store.state
    head: list[Any] = [Text(store.name, "bold"), Text(f"{status}: {sentence}", "dim"), *_reached(store)]
    found = troubles(store)
    for one in found:
        head.append(Text.assemble("\n", (one.name, "bold yellow"), ": ", one.sentence))
        if one.meant:
            head.append(Text(f"  meant for that: {', '.join(one.meant)}", "cyan"))
        if one.already:
            head.append(Text(f"  meant for that and already in this run: {', '.join(one.already)}", "dim"))
    if store.steps < 5:
        head.append(Text(f"\nOnly {store.steps} updates were logged: too few to see a course.", "yellow"))
    elif not found:
        head.append(
            Text(
                "\nNothing that is looked for goes wrong: entropy, signal, length, ratios, gradient, unknown "
                "rewards, forgetting and pass@k at large k are within bounds.",
                "green",
            )
        )
    return Group(*head)
