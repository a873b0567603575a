"""A chat model of 20 million parameters, from nothing to reinforcement learning through two engines.

    python -m examples.showcase base FOLDER       tokenizer, weights from nothing, taught level 1 of `compose`
    python -m examples.showcase commands FOLDER   the commands that improve it, with both engines and three seeds
    python -m examples.showcase report RUNS       what came of them: results/showcase.json, and from it docs/showcase.md

Qwen3's architecture, a byte-level BPE tokenizer trained here, a chat template: what a user brings, made small enough
for two CPU cores.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from whet.compare.stats import estimate
from whet.evaluate import pass_at
from whet.models.base import Lessons, teach
from whet.models.chat import Formatter
from whet.report import quoted
from whet.runs.store import Store, all_runs
from whet.tasks import compose
from whet.tasks.splits import held_out
from whet.tasks.strings import TRAINED

SIZES = {  # width, layers, width inside, learning rate from nothing, and for reinforcement learning: ours, untuned
    "20m": (576, 6, 1536, 1.5e-3, 5e-5),
    "2m": (192, 4, 576, 3e-3, 1e-4),
}
EXAMPLES = 44_800
# The first share of them is one pass of its own, without mistakes. Of the second pass the last lessons, a share of all
# of them, are wrong with probability NOISE: the model then errs at random, where reinforcement learning has a hold.
FIRST, UNRELIABLE, NOISE = 4 / 7, 3 / 28, 0.4
VOCABULARY = 288  # 256 bytes, four special tokens and 28 merges: enough for the names of the functions
SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def problems(seed: int, count: int) -> list[compose.Problem]:
    """Problems of level 1 on the 13 training functions, none of which the task holds out."""
    rng, found = Random(f"showcase {seed}"), []
    while len(found) < count:
        problem = compose.draw(rng, TRAINED, 1)
        if not held_out(problem.id, compose.HELD_OUT_SHARE):
            found.append(problem)
    return found


def tokenizer(seed: int = 0) -> Any:
    """A byte-level BPE tokenizer, trained on 4,000 problems with their solutions, with a chat template."""
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    found.train_from_iterator((text for p in problems(seed, 4000) for text in (p.prompt, p.answer)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=found, eos_token=SPECIAL[0], pad_token=SPECIAL[0], chat_template=TEMPLATE,
        extra_special_tokens=list(SPECIAL[1:]), clean_up_tokenization_spaces=False, model_max_length=256,
    )  # fmt: skip


def model(words: Any, size: str = "20m", seed: int = 0) -> Any:
    """A fresh Qwen3 of a size, with heads of 64 numbers, which vLLM knows on a CPU too."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hidden, layers, inner = SIZES[size][:3]
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 192, head_dim=64, max_position_embeddings=256,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def rows(words: Any, seed: int, count: int, noise: Callable[[int], float]) -> list[tuple[list[int], int]]:
    """Chats of a problem and a solution, wrong with probability `noise`: token ids, and where the answer begins."""
    ask, rng, found = Formatter(words), Random(f"noise {seed}"), []
    for i, problem in enumerate(problems(seed, count)):
        prompt = list(ask(problem.prompt))
        answer = compose.worked_solution(problem, rng, noise(i))
        found.append(([*prompt, *ask.plain(answer), words.eos_token_id], len(prompt)))
    return found


def passes(words: Any, seed: int, examples: int) -> list[list[tuple[list[int], int]]]:
    """The lessons of both passes."""
    first = round(FIRST * examples)
    second, reliable = examples - first, examples - first - round(UNRELIABLE * examples)
    return [
        rows(words, seed, first, lambda i: 0.0),
        rows(words, seed + 1, second, lambda i: 0.0 if i < reliable else NOISE),
    ]


def base(
    folder: Path, size: str, examples: int, seed: int = 0, progress: Callable[[float], None] = lambda share: None
) -> None:
    """Make the model in `folder`: tokenizer, fresh weights, and the two passes of lessons, computed in bfloat16."""
    words, (*_, lr, lr_for_rl) = tokenizer(seed), SIZES[size]
    how, made = Lessons(seed=seed, examples=examples, lr=lr, muon_lr=0.0), model(words, size, seed)
    taught, updates = passes(words, seed, examples), 0
    began = time.process_time()
    # without the cache, which would keep the first weights' copies for as long as this block lasts
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        for i, lessons in enumerate(taught):

            def tell(share: float, i: int = i) -> None:
                progress((i + share) / len(taught))

            updates += teach(made, lessons, words.pad_token_id, how, 600, tell)
    words.save_pretrained(folder)
    made.eval().save_pretrained(folder)
    card = {
        "lr": lr_for_rl, "made_by": f"python -m examples.showcase base --size {size}",
        "parameters": made.num_parameters(), "vocabulary": len(words), "examples": examples,
        "tokens": sum(len(ids) for lessons in taught for ids, _ in lessons),
        "updates": updates, "cpu_minutes": round((time.process_time() - began) / 60, 1),
    }  # fmt: skip
    (folder / "whet.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card))


# --- what came of it --------------------------------------------------------------------------------------

COMMAND = (
    "whet train grpo --model {folder} --task compose --task.levels=1 --task.evaluated=1 --task.count=48 --lora r=16 "
    "--dtype bfloat16 --choose.prompts=16 --sample.responses=8 --update.lr=1e-3 --steps 60 --eval-every 0 "
    "--eval-samples 16 --engine {engine} --seed {seed} --name {engine}-{seed} --runs {folder}-runs"
)
ENGINES, SEEDS = ("local", "vllm"), (0, 1, 2)
ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "results" / "showcase.json", ROOT / "docs" / "showcase.md"


def row(store: Store) -> dict[str, Any]:
    """One run: what it was, held-out pass@1 and pass@8 before and after, and what its metrics say."""
    about, metrics, found = store.about["run"], store.metrics(), store.evaluations()
    level1 = {
        step: [e for s, e in found if s == step and e.split == "level1"] for step in sorted({s for s, _ in found})
    }
    first, *_, last = level1
    curve = [round(float(x), 4) for x in metrics["correct"][1]]
    return {
        "engine": about["settings"].get("engine", "local"), "seed": about["seed"], "updates": last,
        **{f"pass@{k}": [round(pass_at(level1[step], k), 4) for step in (first, last)] for k in (1, 8)},
        "correct": curve, "entropy": [round(float(metrics["entropy"][1][i]), 4) for i in (0, -1)],
        "sampler_gap_mean": float(f"{metrics['sampler_gap_mean'][1].max():.3g}"),
        "sampler_ess": float(f"{metrics['sampler_ess'][1].min():.6g}"),
        "seconds": round(float(metrics["seconds"][1].sum()), 1),
    }  # fmt: skip


def told(result: dict[str, Any]) -> str:
    """The tables of docs/showcase.md."""
    lines = ["| engine | seed | pass@1 before | after | pass@8 before | after | largest mean gap | least ESS |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for mine in result["runs"]:
        numbers = " | ".join(f"{100 * x:.1f} %" for k in (1, 8) for x in mine[f"pass@{k}"])
        lines.append(
            f"| {mine['engine']} | {mine['seed']} | {numbers} | {mine['sampler_gap_mean']:.1g} nats "
            f"| {mine['sampler_ess']:.4f} |"
        )
    base = result["base"]
    return (
        f"The base: {base['parameters']:,} weights, {base['vocabulary']} tokens, {base['updates']} updates on "
        f"{base['examples']:,} chats ({base['tokens']:,} tokens), {base['cpu_minutes']} CPU-minutes. Then "
        f"{len(lines) - 2} runs of {result['runs'][0]['updates']} updates each:\n\n" + "\n".join(lines)
    ) + beside(result["runs"])


MEASURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "right, first 10 updates": lambda run: mean(run["correct"][:10]),
    "right, last 10 updates": lambda run: mean(run["correct"][-10:]),
    "held-out pass@1 after": lambda run: run["pass@1"][1],
    "pass@1, after less before": lambda run: run["pass@1"][1] - run["pass@1"][0],
}


def spread(values: list[float], sign: str = "+") -> str:
    """A mean over seeds with its 95 % interval (Student's t), in points.

    >>> spread([0.1, 0.2, 0.3])
    '+20.0 (-4.8 to +44.8)'
    """
    found = estimate([100 * x for x in values])
    value, low, high = (f"{x:{sign}.1f}" for x in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def beside(runs: list[dict[str, Any]]) -> str:
    """The engines side by side, on the seeds that both have; nothing where those are fewer than two."""
    by = {engine: {run["seed"]: run for run in runs if run["engine"] == engine} for engine in ENGINES}
    seeds = sorted(by["local"].keys() & by["vllm"].keys())
    if len(seeds) < 2:
        return ""
    said = f"Means over seeds {', '.join(map(str, seeds))} with 95 % intervals, in points; differences seed by seed:"
    lines = [said, "", "| | local | vllm | vllm less local |", "|---|---|---|---|"]
    for name, measure in MEASURES.items():
        local, vllm = ([measure(by[engine][seed]) for seed in seeds] for engine in ENGINES)
        gaps = [b - a for a, b in zip(local, vllm, strict=True)]
        sign = "+" if "less" in name else "-"  # as Python's format has it: - is for negative numbers only
        lines.append(f"| {name} | {spread(local, sign)} | {spread(vllm, sign)} | {spread(gaps)} |")
    return "\n\n" + "\n".join(lines)


def report(runs: Path) -> None:
    """results/showcase.json from the runs in a folder, and the passage of docs/showcase.md from it."""
    stores = [store for store in all_runs(runs) if store.about["status"] == "finished"]
    base_card = json.loads((Path(stores[0].about["run"]["model"]) / "whet.json").read_text(encoding="utf-8"))
    result = {
        "command": COMMAND,
        "base": base_card,
        "runs": sorted(map(row, stores), key=lambda r: (r["engine"], r["seed"])),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quoted.put(PAGE, "showcase", told(result))


def main() -> None:
    """One of base, commands and report, with its folder."""
    from rich.console import Console

    from whet.live import with_progress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "commands", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="20m")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    typed = parser.parse_args()
    if typed.what == "base":
        with_progress(Console(), "training", lambda tell: base(typed.folder, typed.size, typed.examples, progress=tell))
    elif typed.what == "commands":
        runs = [COMMAND.format(folder=typed.folder, engine=engine, seed=seed) for seed in SEEDS for engine in ENGINES]
        print("\n".join(runs))
    else:
        report(typed.folder)


if __name__ == "__main__":
    main()
