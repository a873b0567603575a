"""docs/benchmarks.md from results/bench.json: python benchmarks/page.py writes it, --check says whether it is stale."""

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, GAP, GPU, DEMO = (ROOT / "results" / f"{name}.json" for name in ("bench", "gap", "gpu", "demo"))
PAGE = ROOT / "docs" / "benchmarks.md"
Rows = Sequence[dict[str, Any]]

WHAT = {
    "A": "A. one step: the shipped base, `compose` levels 1 and 2, 16 × 16 responses of natural length up to 96",
    "B": "B. one step: a Llama of 42 million parameters, vocabulary 151,936, 32 responses × (64 + 128) tokens",
    "B8": "B, with TRL in micro-batches of 8 responses, its default",
    "B16": "B, both sides in bfloat16: whet's products, TRL's model and products",
    "CA": "C. sampling alone, the base, natural lengths up to 96",
    "CB": "C. sampling alone, the model of B, 128 tokens each",
}
NAMES = {"trl": "TRL `GRPOTrainer`", "generate": "Hugging Face `generate`", "vllm": "vLLM on CPU"}
# What is compared, its target, and whether less is better.
TARGETS = {
    ("A", "trl"): [("seconds", 1 / 3, True)],
    **{(setting, "trl"): [("seconds", 1 / 6, True), ("peak_mib", 1 / 3, True)] for setting in ("B", "B8", "B16")},
    **{(setting, "generate"): [("tokens/s", 2.5, False)] for setting in ("CA", "CB")},
    **{(setting, "vllm"): [("tokens/s", 1.3, False)] for setting in ("CA", "CB")},
}
SAID = {"seconds": "step time", "peak_mib": "peak memory", "tokens/s": "tokens/s"}
# What is in the way, by setting and peer; shown only where the target is missed.
IN_THE_WAY: dict[tuple[str, str], str] = {
    ("B", "trl"): (
        "The matrix products of a step are 1.4 TFLOP, 1.07 of the learner and 0.34 of the sampler: 7.5 s at 190 "
        "GFLOP/s, about the limit in float32 of both machines. The learner runs at half to three quarters of it (D). "
        "The sampler's head multiplies 32 rows with 151,936 × 256 weights at about half of it; packing, turning and "
        "batching that product were tried, and gain a fifth of it at most."
    ),
    ("D", "bfloat16"): (
        "The limit is that of AMX tiles, which small matrices meet in the cache; the head's weights and logits come "
        "from memory, at about 10 GB/s. On the EPYC, at commit ade7ea0: 4.41 s, 0.59 of 407 GFLOP/s; float32 0.73 of "
        "189."
    ),
    ("CB", "generate"): (
        "Two thirds of a step are matrix products, mostly the head's, and `generate` computes them the same way."
    ),
    ("CB", "vllm"): (
        "Most of a step is the head's product of 32 rows with 151,936 × 256 weights, which torch reads as they lie; "
        "vLLM packs them."
    ),
}


def made(book: dict[str, Any]) -> str:
    """The page."""
    settings = book.get("settings", {})
    lines = ["# Benchmarks", "", "Measured by `make bench` and written from `results/bench.json` by `make docs`.", ""]
    lines += _machine(book) if settings else ["Not run yet."]
    missed: list[str] = []
    for part in (_against_peers, _learner, _growth, _target):
        lines += part(settings, missed)
    if settings:
        lines += ["", "## What is missed, and what is in the way", "", *(missed or ["Nothing that was measured."])]
    return "\n".join([*lines, *_gpu(), *_gap()]).rstrip() + "\n"


def _machine(book: dict[str, Any]) -> list[str]:
    others: dict[str, list[str]] = {}
    for name, row in book["settings"].items():
        if "machine" in row:
            others.setdefault(facts(row["machine"]), []).append(name)
    return [
        f"The machine: {facts(book['machine'])}.",
        *(f"\nMeasured on another one: {', '.join(names)}. It is: {machine}." for machine, names in others.items()),
        "",
        *prose(
            "Each side is a process that is already warm; they take turns on the same prompts, in alternating",
            "order. A ratio is the median over the turns, with the least and the most in brackets. All sides",
            "compute in float32 unless the row says otherwise, with the same number of threads, sample at",
            "temperature 1 from the whole vocabulary and, in A and B, make one update with AdamW for each batch,",
            "without a reference model. TRL reads the batch at once, without activation checkpointing.",
        ),
    ]


def facts(machine: dict[str, Any]) -> str:
    """A machine in words."""
    told = [f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if key != "instructions"]
    return "; ".join([", ".join(told), ", ".join(machine["instructions"])])


def _against_peers(settings: dict[str, Any], missed: list[str]) -> list[str]:
    lines = [
        "",
        "| setting | against | what | whet | the other | whet / the other | target | reached |",
        "|" + "---|" * 8,
    ]
    for (setting, peer), aims in TARGETS.items():
        rows = settings.get(setting, {}).get("rows", {})
        if peer not in rows:
            continue
        for of, target, less in aims:
            found = ratios(rows["whet"], rows[peer], of)
            reached = median(found) <= target if less else median(found) >= target
            both = " | ".join(shown(rows[name], of) for name in ("whet", peer))
            goal = f"{'at most' if less else 'at least'} {target:.2f}"
            yes = "yes" if reached else "**no**"
            lines.append(
                f"| {WHAT[setting]} | {NAMES[peer]} | {SAID[of]} | {both} | {spread(found)} | {goal} | {yes} |"
            )
            if not reached:
                way = IN_THE_WAY.get((setting, peer), "")
                missed.append(
                    f"- {setting}, {SAID[of]} against {NAMES[peer]}: {spread(found)}, {goal} wanted. {way}".strip()
                )
    return [*lines, *_same_work(settings)] if len(lines) > 3 else []


def _same_work(settings: dict[str, Any]) -> list[str]:
    """Whether both sides did as much: the tokens of a turn."""
    lines = []
    for setting in WHAT:
        rows = settings.get(setting, {}).get("rows", {})
        if rows:
            tokens = ", ".join(f"{NAMES.get(name, name)} {shown(mine, 'tokens')}" for name, mine in rows.items())
            lines.append(f"- {setting}: {len(rows['whet'])} turns; tokens sampled in a turn: {tokens}.")
    return [
        "",
        "Sampled by each side (natural lengths are random, so they differ a little):",
        "",
        *lines,
        "",
        *prose(
            "vLLM's build for processors refuses the base's heads of 16 numbers, so in CA every side runs the base",
            "with its heads filled up with zeros to 32: the same function, the same lengths",
            "(`benchmarks/work.py::padded`).",
        ),
        "",
        *prose(
            "Who is faster depends on the processor. On an AMD EPYC (family 25.17), with the sampler of commit",
            "ade7ea0, whet needed 0.29 of TRL's time in B, and gave 2.24 times the tokens of `generate` and 0.66 times",
            "those of vLLM in CB; it was not measured there since. On an Intel Xeon (family 6.207) the sampler of",
            "0f3787c takes 1.16 times as long in CB as the one that followed it.",
        ),
    ]


def _learner(settings: dict[str, Any], missed: list[str]) -> list[str]:
    rows = settings.get("D", {}).get("rows", {})
    if not rows:
        return []
    lines = [
        "", "## D. The learner alone, B's shapes", "",
        *prose(
            "Forward, loss and backward of one batch; the limit is the best of five products of 2048 × 2048",
            "matrices, taken just before and just after in the same process. Products of attention are not counted.",
        ),
        "", "| numbers | seconds | GFLOP/s | the machine's limit | share | target | reached |", "|" + "---|" * 7,
    ]  # fmt: skip
    for dtype, mine in rows.items():
        share = [row["share"] for row in mine]
        rate = median(row["flops"] / row["seconds"] for row in mine) / 1e9
        limit = median(row["limit"] for row in mine) / 1e9
        yes = "yes" if median(share) >= 0.5 else "**no**"
        lines.append(
            f"| {dtype} | {shown(mine, 'seconds')} | {rate:.0f} | {limit:.0f} | {spread(share)} | 0.50 | {yes} |"
        )
        if median(share) < 0.5:
            way = IN_THE_WAY.get(("D", dtype), "")
            missed.append(f"- D, {dtype}: {spread(share)} of the matmul limit, 0.50 wanted. {way}".strip())
    return lines


def _growth(settings: dict[str, Any], missed: list[str]) -> list[str]:
    rows = settings.get("E", {}).get("rows", {})
    if not rows:
        return []
    first = min(row["seconds"] / row["tokens"] for row in rows["1x1"])
    lines = [
        "", "## E. Cost against size: whole steps of B's model, 8 responses × (64 + 64) tokens and multiples", "",
        "| responses × | length × | tokens | seconds | time per token, against 1 × 1 | peak MiB |", "|" + "---|" * 6,
    ]  # fmt: skip
    for size, mine in rows.items():
        best = min(mine, key=lambda row: row["seconds"])
        grown, times, longer = best["seconds"] / best["tokens"] / first, *size.split("x")
        peak = max(row["peak_mib"] for row in mine)
        cells = [times, longer, f"{best['tokens']:,.0f}", f"{best['seconds']:.1f}", f"{grown:.2f}", f"{peak:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
        if grown > 1.1:
            way = IN_THE_WAY.get(("E", "time"), "")
            missed.append(f"- E, {size}: a token takes {grown:.2f} times as long as at 1 × 1. {way}".strip())
    peaks = [max(row["peak_mib"] for row in rows[size]) for size in rows if size.endswith("x1")]
    if peaks and max(peaks) > 1.15 * peaks[0]:
        way = IN_THE_WAY.get(("E", "memory"), "")
        missed.append(
            f"- E, memory with responses: {peaks[0]:,.0f} to {max(peaks):,.0f} MiB, the same wanted. {way}".strip()
        )
    return lines


def _target(settings: dict[str, Any], missed: list[str]) -> list[str]:
    rows = settings.get("T", {}).get("rows", {})
    if not rows:
        return []
    lines = [
        "", "## Time to a target", "",
        *prose(
            "`compose` level 1 from the shipped base with GRPO, 16 × 16 responses, the base's own learning rate on",
            "both sides, until the mean reward of three steps in a row is 0.8. Only steps are counted: no loading,",
            "no evaluation.",
        ),
        "", "| run | whet | TRL | whet / TRL |", "|---|---|---|---|",
    ]  # fmt: skip
    for i, (mine, other) in enumerate(zip(rows["whet"], rows["trl"], strict=True)):
        cells = [
            f"{row['seconds']:.0f} s, {row['steps']} steps{'' if row['reached'] else ', not reached'}"
            for row in (mine, other)
        ]
        lines.append(f"| {i + 1} | {cells[0]} | {cells[1]} | {mine['seconds'] / other['seconds']:.2f} |")
    return [*lines, *_demo()]


def _demo() -> list[str]:
    """Whether an engine that is faster learns the same."""
    told = json.loads(DEMO.read_text()) if DEMO.is_file() else {}
    if "before" not in told:
        return []
    before = told["before"]
    return [
        "",
        *prose(
            "And it learns the same: the demo's five seeds, with one thread, ended at these percentage points of",
            f"held-out pass@1 on {told['date']}, less where the same seeds ended on {before['date']}, before waves,",
            "chunks and the skipping of silent groups (means with 95 % intervals; `python -m tests.learning.demo`):",
            "; ".join(before["pass@1 at the end, this less that"]) + ".",
        ),
    ]


def _gap() -> list[str]:
    """When it matters that the sampler is not the policy."""
    if not GAP.is_file():
        return []
    told = json.loads(GAP.read_text())
    lines = [
        "", "## The sampler and the learner", "",
        *prose(
            "`sampler_gap` is the largest difference, over the tokens of a batch, between the log-probability",
            "recorded while sampling and the one that the learner computes for the same weights; `sampler_gap_mean`",
            "is the mean. The tests hold the largest to 1e-5 nats in float32 and 0.2 in bfloat16; a run does not begin",
            "above 0.002 and 0.5 (`whet check`).",
        ),
        "",
        *prose(
            f"`rollout_is` corrects for a gap. Does it matter? `{told['task']}` with samplers that are not the",
            f"policy on purpose, {told['seeds']} seeds, differences with 95 % intervals (`{told['command']}`).",
            "cosine: between the gradient on a sampler's responses and the one on the policy's own, which is below",
            f"1 because each is made from other responses. pass@1: on held-out problems after {told['updates']}",
            "updates.",
        ),
        "",
        "| the sampler is | mean gap, nats | cosine, grpo | with rollout_is | difference | pass@1, grpo | difference |",
        "|" + "---|" * 7,
    ]  # fmt: skip
    for name, row in told["samplers"].items():
        cosine, end = row["cosine"], row["pass"]
        cells = [name, f"{row['gap']:.2g}", f"{cosine['grpo']:.2f}", f"{cosine['corrected']:.2f}", _change(cosine)]
        lines.append(f"| {' | '.join([*cells, format(end['grpo'], '.3f'), _change(end)])} |")
    chosen = "The cosine was added after pass@1 had shown nothing in a first try, so it is a hint and no test."
    return [*lines, "", *prose(_verdict(told["samplers"], "cosine"), _verdict(told["samplers"], "pass"), chosen)]


def _verdict(samplers: dict[str, Any], of: str) -> str:
    """Which intervals leave out 0."""
    what = {"cosine": "the direction of the gradient", "pass": "what is learned"}[of]
    moved = [name for name, row in samplers.items() if row[of]["low"] > 0 or row[of]["high"] < 0]
    rest = [name for name in samplers if name not in moved]
    said = (
        f"It changes {what} where the sampler is: {'; '.join(moved)}."
        if moved
        else f"It is not shown to change {what}."
    )
    return f"{said} Not shown where it is: {'; '.join(rest)}." if moved and rest else said


def _change(row: dict[str, float]) -> str:
    value, low, high = (round(row[name], 3) + 0.0 for name in ("value", "low", "high"))  # no minus before a zero
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _gpu() -> list[str]:
    """F, from results/gpu.json."""
    lines = ["", "## F. On a GPU", ""]
    if not GPU.is_file():
        said = (
            "Not run yet: `make bench-gpu`, on a machine with a GPU. Steps of decoding recorded as a graph (`--graph`)",
            "are tested for equal results on a CPU, where nothing is recorded, and have not run on a GPU either.",
        )
        return [*lines, *prose(*said)]
    told = json.loads(GPU.read_text())
    lines += [
        *prose(
            f"A Qwen2 of 0.5 billion random weights in {told['dtype']} on one {told['device']},",
            f"torch {told['torch']}; measured limits {told['matmul'] / 1e12:,.1f} TFLOP/s and",
            f"{told['bandwidth'] / 1e9:,.0f} GB/s.",
        ),
        "",
        "| what | whet | `generate` | whet / `generate` | share of the limit | target | reached |", "|" + "---|" * 7,
    ]  # fmt: skip
    for name, row in told.items():
        if name.startswith("decode"):
            speeds = [median(number(x, "tokens/s") for x in row[side]) for side in ("whet", "generate")]
            cells = [f"{speed:,.0f} tokens/s" for speed in speeds]
            yes = "yes" if row["bandwidth_share"] >= 0.4 else "**no**"
            what = f"{name.split()[1]} responses at once{', in recorded steps' if name.endswith('graph') else ''}"
            cells = [
                what,
                *cells,
                f"{speeds[0] / speeds[1]:.2f}",
                f"{row['bandwidth_share']:.0%} of bandwidth",
                "40 %",
                yes,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    share = told["learner"]["matmul_share"]
    speed = median(number(x, "tokens/s") for x in told["learner"]["whet"])
    yes = "yes" if share >= 0.4 else "**no**"
    lines.append(f"| the learner | {speed:,.0f} tokens/s | | | {share:.0%} of products | 40 % | {yes} |")
    return lines


def prose(*lines: str) -> list[str]:
    """Sentences as lines of a page."""
    return textwrap.wrap(" ".join(lines), 118, break_on_hyphens=False)


def ratios(ours: Rows, theirs: Rows, of: str) -> list[float]:
    """whet over the other, turn by turn."""
    return [number(mine, of) / number(other, of) for mine, other in zip(ours, theirs, strict=True)]


def number(row: dict[str, Any], of: str) -> float:
    """One number of a measurement."""
    quotients = {"seconds per token": ("seconds", "tokens"), "tokens/s": ("tokens", "seconds")}
    return row[quotients[of][0]] / row[quotients[of][1]] if of in quotients else row[of]


def shown(rows: Rows, of: str) -> str:
    """The median of a number, with its unit."""
    value = median(number(row, of) for row in rows)
    return f"{value:.2f} s" if of == "seconds" else f"{value:,.0f}{' MiB' if of == 'peak_mib' else ''}"


def spread(found: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    return f"{median(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"


def main(words: list[str]) -> int:
    """Write the page, or with `--check` say whether it is stale."""
    page = made(json.loads(RESULTS.read_text()) if RESULTS.is_file() else {})
    if "--check" in words:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
            print("docs/benchmarks.md is stale: run `make docs`.", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
