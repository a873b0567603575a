"""GSM8K, MATH and AIME as they are published, from a local copy, judged with math-verify.

hf download openai/gsm8k --repo-type dataset --local-dir gsm8k
whet train grpo --task gsm8k --task.path=gsm8k/main --model path/to/model
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.refusal import Refused
from whet.tasks import tables
from whet.tasks.answers import boxed
from whet.tasks.data import Data, as_text

# (prompt, answer) as the columns are called in the copies that people have, the usual one first
LAYOUTS = {
    "gsm8k": (("question", "answer"),),
    "math": (("problem", "answer"), ("problem", "solution")),
    "aime": (("problem", "answer"), ("Problem", "Answer"), ("question", "answer")),
}
FROM = {
    "gsm8k": "hf download openai/gsm8k --repo-type dataset --local-dir gsm8k",
    "math": "hf download EleutherAI/hendrycks_math --repo-type dataset --local-dir math",
    "aime": "hf download HuggingFaceH4/aime_2024 --repo-type dataset --local-dir aime",
}


@dataclass(frozen=True)
class Maths(Data):
    r"""A published collection of problems; the answer is what stands behind `####` or in the last \boxed{}."""

    judge_by: str | None = "math"
    instruction: str = "Put your final answer within \\boxed{}."  # as the model cards of Qwen and DeepSeek ask for
    max_tokens: int = 1024

    def gold(self, row: tables.Row) -> str:
        """The final answer alone, without the way to it."""
        said = as_text(tables.column(row, self.answer))
        return said.rpartition("####")[2].strip() if "####" in said else (boxed(said) or said).strip()

    def _known(self, row: Any, prompt: str, response: str, gold: str) -> dict[str, Any]:
        return {**super()._known(row, prompt, response, gold), "answer": gold}


def make(name: str, path: str = "", **options: Any) -> Maths:
    """The collection `name`, with the columns found in the first row of the data at `path`."""
    if not path:
        raise Refused(f"--task {name} needs its data: run `{FROM[name]}`, and pass --task.path={name}.")
    rows = next(iter(tables.splits(Path(path)).values()))
    if "prompt" not in options and "answer" not in options:
        there = tables.names(rows[0][1])
        found = next((layout for layout in LAYOUTS[name] if set(layout) <= set(there)), None)
        if found is None:
            raise Refused(
                f"{rows[0][0]} is not laid out as {name}: it has {', '.join(there)} and not "
                f"{' and '.join(LAYOUTS[name][0])}; name the columns with --task.prompt= and --task.answer=."
            )
        options |= dict(zip(("prompt", "answer"), found, strict=True))
    return Maths(path, **options)
