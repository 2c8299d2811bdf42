"""Kills a small training of each app at random moments, and resumes it after each kill.

    python benchmarks/kills.py [--kills=50] [--seed=0] [APP ...]        # minutes per app

About half of the kills (SIGKILL) come within five milliseconds after a file of the run appears or
disappears, the others at any time. Then the weights, the state of the optimizer, the history, the
best epoch and the figures of `evaluate` are compared, bit by bit, with those of a run that was not
killed.

Writes `benchmarks/results/kills.md` after each app; the rows of other apps remain.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import table

from tests.apps import children, killing
from tests.apps.resuming import differences
from unroll.apps.core import cli

RESULTS = Path(__file__).parent / "results" / "kills.md"
HEADER = ["app", "kills", *killing.MOMENTS, "seed", "differs from the unbroken run", "minutes"]


def row_of(app: str, kills: int, seed: int) -> list:
    """The row of an app."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        moments = killing.kill_again_and_again(app, Path(folder), kills, seed)
        minutes = (time.monotonic() - start) / 60
        different = differences(Path(folder) / "unbroken", Path(folder) / "killed")
    counts = [moments[each] for each in killing.MOMENTS]
    found = ", ".join(different) or "nothing"
    return [app, moments.total(), *counts, seed, found, f"{minutes:.1f}"]


def read_rows() -> dict[str, list]:
    """The recorded rows by app."""
    if not RESULTS.exists():
        return {}
    lines = [line for line in RESULTS.read_text().splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    return {row[0]: row for row in rows}


def main():
    apps = list(cli.describe())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("apps", nargs="*", metavar="APP", default=apps, help="all by default")
    parser.add_argument("--kills", type=int, default=50, help="of each app")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    if unknown := set(given.apps) - set(apps):
        parser.error(f"{', '.join(sorted(unknown))}: the apps are {', '.join(apps)}.")
    children.preload([*killing.PRELOADED, *(f"unroll.apps.{app}.app" for app in given.apps)])
    rows = read_rows()
    for app in given.apps:
        rows[app] = row_of(app, given.kills, given.seed)
        print(*table(HEADER, [rows[app]])[2:], flush=True)
        lines = [
            "## Trainings that are killed and resumed",
            "",
            *table(HEADER, [rows[name] for name in sorted(rows)]),
            "",
            f"Python {platform.python_version()}, {platform.machine()}; `benchmarks/kills.py`.",
        ]
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
