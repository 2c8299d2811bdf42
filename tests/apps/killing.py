"""A small training that is killed at random moments, and resumed after each kill."""

import os
import random
import time
from collections import Counter
from pathlib import Path

from tests.apps.children import Child, command, must_succeed, run_command
from tests.apps.small_trainings import options_of
from unroll.apps.core import files

MOMENTS = ("before an epoch", "in an epoch", "while files are written")
# What a server of processes should import, so that the processes start faster.
PRELOADED = [
    "h5py",
    "rich.console",
    "rich.table",
    "tensorboard.plugins.scalar.summary_v2",
    "tyro",
    "unroll.apps.core.cli",
]
# At the end of an epoch the names in a run's folder change 24 times: four files are written, each
# with a checksum that is written twice. About this many are seen, since some follow at once.
_CHANGES = 8


def kill_again_and_again(app: str, folder: Path, kills: int, seed: int = 0) -> Counter:
    """Trains and evaluates one run without and one with kills, after each of which it continues.

    About half of the kills come within five milliseconds after a file of the run appears or
    disappears, the others at any time of an attempt, but not long after it has saved an epoch.

    Args:
        app: the name of an app.
        folder: an empty folder, which receives the runs `unbroken` and `killed`.
        kills: their number.
        seed: of the moments.

    Returns:
        The number of kills by what the process was doing, one of `MOMENTS`.

    Raises:
        RuntimeError: if an attempt, or an evaluation, fails.
    """
    rng, moments = random.Random(f"{app} {seed}"), Counter()
    unbroken, killed = folder / "unbroken", folder / "killed"
    # More epochs than attempts: also the last one, which is not killed, has something to do.
    epochs = kills + kills // 5 + 2
    train = (app, "train", *options_of(app), f"--epochs={epochs}", f"--patience={epochs}")
    with Child(command, *train, f"--run={unbroken}") as child:
        start = time.monotonic()
        while not (unbroken / "state.npz").exists() and not child.ended(0.01):
            pass
        seconds = time.monotonic() - start
        must_succeed(child, train)
    ended = False
    while not ended:
        begun = (killed / "config.json").exists()
        arguments = (app, "train", "--resume") if begun else train
        before = _half_written(killed)
        with Child(command, *arguments, f"--run={killed}") as child:
            if moments.total() < kills:
                _wait(child, killed, rng, seconds)
                child.process.kill()
            if ended := child.wait() >= 0:
                must_succeed(child, arguments)
            else:
                writing = bool(_half_written(killed) - before)
                training = "Epoch " in child.output()
                moments[MOMENTS[2 if writing else training]] += 1
    for path in (unbroken, killed):
        run_command(app, "evaluate", str(path))
    return moments


def _wait(child: Child, folder: Path, rng: random.Random, seconds: float) -> None:
    """Waits for the moment of a kill, or until the process has ended."""
    changes = rng.randint(1, _CHANGES) if rng.random() < 0.5 else None
    until = time.monotonic() + rng.uniform(0, seconds)
    names, state = _names(folder), _identity(folder / "state.npz")
    while not child.ended():
        if (now := _names(folder)) != names and changes is not None:
            changes -= 1
        names = now
        if changes == 0:
            time.sleep(rng.uniform(0, 0.005))
            return
        if changes is None and time.monotonic() > until:
            return
        if _identity(folder / "state.npz") != state:  # an epoch has been saved
            time.sleep(rng.uniform(0, 0.1))
            return
        time.sleep(0.001)


def _names(folder: Path) -> set[tuple[str, str]]:
    return {(where, name) for where, _, names in os.walk(folder) for name in names}


def _identity(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _half_written(folder: Path) -> set[Path]:
    """The temporary files, and the checksums of files that are being replaced."""
    records = [path for path in folder.glob("checksums/**/[!.]*") if path.is_file()]
    replaced = {record for record in records if len(record.read_text().split()) > 1}
    return replaced | {path for path in folder.rglob(".*") if files.is_abandoned(path)}
