"""Runs of apps on their generated data, for benchmarks that are given none."""

import sys
from pathlib import Path

from unroll.apps.core import cli


def train(name: str, folder: Path, *options: str) -> str:
    """Trains an app on its generated data, and returns the folder of the run."""
    run = str(folder / "runs" / name)
    if cli.main([name, "train", f"--run={run}", *options]):
        sys.exit(1)
    return run
