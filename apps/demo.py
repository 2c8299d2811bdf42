"""`make demo`: from nothing to a served model, with the sentiment app on its generated reviews."""

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

from unroll.apps.core.cli import main

EXAMPLES = Path(__file__).parent / "sentiment" / "examples"


def run(title: str, *command: str) -> str:
    """Runs a command of `unroll`, shows it, and gives its last line."""
    print(f"\n== {title}\n$ unroll {' '.join(command)}", flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(_Both(sys.stdout, said)):
        code = main(list(command))
    if code:
        sys.exit(code)
    return said.getvalue().strip().splitlines()[-1]


def ask(title: str, script: str, folder: str, sentences: list[str]) -> None:
    """Runs one of the examples of asking an exported model, in a process of its own."""
    path = EXAMPLES / script
    print(f"\n== {title}\n$ python apps/sentiment/examples/{script} {folder} TEXT...", flush=True)
    # The messages of TensorFlow's start are kept apart, and shown if something went wrong.
    done = subprocess.run(
        [sys.executable, "-I", path, folder, *sentences], capture_output=True, text=True
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.stderr)


class _Both(io.TextIOBase):
    def __init__(self, *streams):
        self.streams = streams

    def write(self, text):
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self):
        for stream in self.streams:
            stream.flush()

    def isatty(self):
        return self.streams[0].isatty()


def demo() -> None:
    """Trains, evaluates, exports, and asks what was exported."""
    started = time.monotonic()
    folder = run("Train on generated reviews", "sentiment", "train")
    figures = json.loads(run("Evaluate on the test split", "sentiment", "evaluate", folder))
    exported = run("Export for TF Serving and LiteRT", "sentiment", "export", folder)
    from unroll.apps.sentiment.app import EXAMPLES as SENTENCES

    ask("Ask the SavedModel", "serving.py", exported, SENTENCES)
    ask("Ask the LiteRT file", "litert.py", exported, SENTENCES)

    from rich.console import Console
    from rich.table import Table

    print()
    table = Table(title="Done", show_header=False)
    table.add_row("accuracy", f"{figures['accuracy']:.1%} of {figures['examples']:,} test reviews")
    table.add_row("run", folder)
    table.add_row("SavedModel", exported)
    litert = Path(exported) / "model.tflite"
    table.add_row("LiteRT file", f"{litert}, {litert.stat().st_size / 1024:.0f} KB")
    table.add_row("seconds", f"{time.monotonic() - started:.0f}")
    Console().print(table)


if __name__ == "__main__":
    demo()
