"""Commands for what comes before and after training: moving in from TRL, exporting, talking, serving."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RUN = Annotated[str, typer.Argument(help="A run by name, unique beginning or path; the last one if empty.")]
MODEL = Annotated[str, typer.Argument(help="A run, or a model directory.")]
TRUST = Annotated[bool, typer.Option("--trust-remote-code", help="Run the Python files of a model directory.")]
PICKLE = Annotated[bool, typer.Option("--allow-pickle", help="Open pytorch_model.bin where there is no safetensors.")]
RUNS = Annotated[str, typer.Option("--runs", help="The folder that holds the runs.")]
out = Console(highlight=False)


def add(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    for command in (export, chat, serve, from_trl):
        app.command()(command)


def export(
    folder: Annotated[Path, typer.Argument(help="A new folder for the model.")],
    run: RUN = "last",
    adapters: Annotated[bool, typer.Option(help="Keep adapters as they are instead of merging them.")] = False,
    runs: RUNS = "runs",
) -> None:
    """Write what a run made as a Hugging Face directory, with a model card.

    For llama.cpp and its relatives, run their own convert_hf_to_gguf.py on the folder.
    """
    from whet.export import export as write
    from whet.runs.store import find

    out.print(f"model: [bold]{write(find(run, runs), folder, adapters)}[/]")


def chat(
    model: MODEL = "last",
    temperature: Annotated[float, typer.Option(min=0, help="0 for the likeliest answer.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    trust_remote_code: TRUST = False,
    allow_pickle: PICKLE = False,
    runs: RUNS = "runs",
) -> None:
    """Talk to what you trained; an empty line or Ctrl-D ends it. Lines can also be piped in."""
    import sys

    from whet import talk
    from whet.models.setup import Setup

    setup = Setup(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    lines = talk.typed(out) if sys.stdin.isatty() else (line.rstrip("\n") for line in sys.stdin)
    talk.chat(model, runs, out, lines, temperature, max_tokens, setup)


def serve(
    model: MODEL = "last",
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.")] = 8000,
    trust_remote_code: TRUST = False,
    allow_pickle: PICKLE = False,
    runs: RUNS = "runs",
) -> None:
    """Serve a chat model that you trained through transformers' OpenAI-compatible server."""
    from whet.models.setup import Setup
    from whet.talk import serve as start

    setup = Setup(trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    raise typer.Exit(start(model, runs, host, port, out, setup))


def from_trl(
    config: Annotated[Path, typer.Argument(help="A YAML file, or a Python file that makes a GRPOConfig.")],
) -> None:
    """The whet command that trains as a TRL GRPOConfig does, and what has no equivalent. TRL is not imported."""
    from whet.moving import from_trl as read

    print(read(config).told())
