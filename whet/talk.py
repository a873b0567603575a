"""Talking to what was trained: in the terminal, or through a server with OpenAI's interface."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console

from whet.models.setup import Setup
from whet.prepare import BASE, resolved, run_of
from whet.refusal import Refused
from whet.tasks import Problem

MERGED = "whet-serve-"  # a folder for a model with its adapters merged, which is gone when the server ends


def chat(
    model: str, runs: str, out: Console, lines: Iterable[str], temperature: float, max_tokens: int,
    setup: Setup | None = None,
) -> None:  # fmt: skip
    """Answer each line; a chat model sees all that was said before, any other model the line alone."""
    from whet.engines.local import LocalEngine

    run = run_of(model, runs)
    path, _ = resolved(model, "", runs)
    engine = LocalEngine.load(path or BASE, setup=run.setup.asked_only() if run else setup)
    said: list[dict[str, str]] = []
    for turn, line in enumerate(lines):
        said.append({"role": "user", "content": line})
        about = {"messages": list(said)} if engine.tokenizer.chat_template else {}
        greedy = temperature == 0
        try:
            batch = engine.sample(
                [Problem(f"line {turn + 1}", line, "", about=about)], [1],
                temperature=temperature or 1.0, greedy=greedy, max_tokens=max_tokens, seed=turn,
            )  # fmt: skip
        except Refused as refusal:
            out.print(f"[red]whet:[/] {refusal}")
            said.pop()
            continue
        cut = "" if batch["finished"][0] else f" [dim](cut off after {max_tokens} tokens)[/]"
        out.print(batch.texts[0], markup=False, end="" if cut else "\n")
        if cut:
            out.print(cut)
        said.append({"role": "assistant", "content": batch.texts[0]})


def typed(out: Console) -> Iterable[str]:
    """Lines from the keyboard, until Ctrl-D or an empty line."""
    while True:
        try:
            line = out.input("[bold]> [/]")
        except (EOFError, KeyboardInterrupt):
            return
        if not line.strip():
            return
        yield line


def serve(model: str, runs: str, host: str, port: int, out: Console, setup: Setup | None = None) -> int:
    """Start `transformers serve` on the model, adapters merged; returns its exit status when it ends."""
    run = run_of(model, runs)
    setup = run.setup.asked_only() if run else setup or Setup()
    path = served(model, runs, setup)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise Refused("whet serve needs the server of transformers: pip install 'whet[serve]'.") from None
    out.print(f"http://{host}:{port}/v1/chat/completions · the model is named {path}\nCtrl-C ends it.", soft_wrap=True)
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", str(path), "--host", host, "--port", str(port)]
    trusting = ["--trust-remote-code"] if setup.trust_remote_code else []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server ends with this process
    process = subprocess.Popen([*command, "--device", "auto", *trusting])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        if path.name.startswith(MERGED):
            shutil.rmtree(path, ignore_errors=True)


def served(model: str, runs: str, setup: Setup | None = None) -> Path:
    """The directory to serve: the model's own, or one with its adapters merged."""
    from whet.models import load, lora

    path = Path(resolved(model, "", runs)[0] or BASE).resolve()
    if load.tokenizer(path, setup).chat_template is None:
        raise Refused(
            f"{path} has no chat template, which a chat server needs: use `whet chat`, or another server on the folder."
        )
    if not lora.is_adapter(path):
        return path
    merged = Path(mkdtemp(prefix=MERGED))
    with load.quiet():
        load.model(path, setup=setup).save_pretrained(merged)
        load.tokenizer(path, setup).save_pretrained(merged)
    return merged
