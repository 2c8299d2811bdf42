"""`make demo`: trains, evaluates, exports and queries the sentiment app on generated reviews."""

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
    """Prints and runs an `unroll` command, and returns its last line of output."""
    print(f"\n== {title}\n$ unroll {' '.join(command)}", flush=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(_Both(sys.stdout, output)):
        code = main(list(command))
    if code:
        sys.exit(code)
    return output.getvalue().strip().splitlines()[-1]


def query(title: str, script: str, folder: str, sentences: list[str]) -> None:
    """Runs one of the example scripts, which query an export, in its own process."""
    path = EXAMPLES / script
    print(f"\n== {title}\n$ python apps/sentiment/examples/{script} {folder} TEXT...", flush=True)
    # TensorFlow's start-up messages are shown only on failure.
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
    """Trains, evaluates, exports, and queries the export."""
    started = time.monotonic()
    folder = run("Train on generated reviews", "sentiment", "train")
    figures = json.loads(run("Evaluate on the test split", "sentiment", "evaluate", folder))
    exported = run("Export for TF Serving and LiteRT", "sentiment", "export", folder)
    from unroll.apps.sentiment import app

    query("Query the SavedModel", "serving.py", exported, app.examples())
    query("Query the LiteRT file", "litert.py", exported, app.examples())

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
