"""Trains, evaluates and records the rows of an app's results, one command each.

    make results APP=vqa DATA=scenes_qa,easy_vqa [VARIANT=default] [SEEDS=0,1,2]

A row that exists is repeated with its own options and seeds. A new one is trained with the preset
of its dataset. The runs are kept in `runs/results/<commit>/`: the same command continues after an
interruption, and finished runs are not repeated.
"""

import argparse
import importlib
import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

from unroll.apps.core import results
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import git_commit


def row_of(app: ModuleType, data: str, variant: str) -> dict:
    """The row of the test split of a dataset, or an empty one."""
    rows = results.read(Path(app.__file__).parent)
    key = (data, variant, "test")
    return next((r for r in rows if (r["data"], r["variant"], r["split"]) == key), {})


def commands(app: ModuleType, data: str, variant: str, seeds: str) -> dict[str, list[str]]:
    """The options of `train` for each run of a row, by a name for the run.

    >>> from unroll.apps.sentiment import app
    >>> commands(app, "sst2", "default", "3,4")
    {'3': ['--data=sst2', '--seed=3'], '4': ['--data=sst2', '--seed=4']}

    Raises:
        UsageError: if the row is new and its variant is not "default".
    """
    row = row_of(app, data, variant)
    if not row and variant != "default":
        raise UsageError(f"{data} has no row {variant!r}: record it once with `evaluate --record`.")
    words = shlex.split(row["command"])[3:] if row else [f"--data={data}", "--seed={0,1,2}"]
    if seeds:
        words = [word for word in words if not word.startswith("--seed=")] + [f"--seed={{{seeds}}}"]
    fixed = [word for word in words if "={" not in word and not word.startswith("--seed=")]
    varied = [word.partition("=") for word in words if word not in fixed]
    values = [listed.strip("{}").split(",") for _, _, listed in varied]
    return {
        "-".join(chosen): fixed
        + [f"{name}={value}" for (name, _, _), value in zip(varied, chosen, strict=True)]
        for chosen in product(*values)
    }


def reproduce(name: str, data: str, variant: str, seeds: str) -> None:
    """Trains and records one row.

    Raises:
        UsageError: if the code has local changes, or a command fails.
    """
    commit = git_commit()
    if commit is None or commit.endswith("+"):
        raise UsageError("results need a checkout of the repository without local changes.")
    app = importlib.import_module(f"unroll.apps.{name}.app")
    folder = Path("runs", "results", commit[:12], name)
    paths = []
    for run, options in commands(app, data, variant, seeds).items():
        path = folder / f"{data}-{variant}-{run}".replace(" ", "_")
        paths.append(str(path))
        if (path / "finished").is_file():
            continue
        # Also a run that was killed in its first epoch: it starts again in the same folder.
        resume = (path / "config.json").is_file()
        _unroll(name, "train", *(["--resume"] if resume else options), f"--run={path}")
        (path / "finished").touch()
    options = ["--ensemble"] if row_of(app, data, variant).get("ensemble") else []
    _unroll(name, "evaluate", *paths, "--record", *options, f"--variant={variant}")


def _unroll(*arguments: str) -> None:
    print("$ unroll", *arguments, flush=True)
    if code := subprocess.run([sys.executable, "-m", "unroll", *arguments]).returncode:
        raise UsageError(f"unroll {' '.join(arguments)} failed with exit code {code}.")


def main() -> int:
    """Records the rows of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("app", help="name of the app")
    parser.add_argument("data", help="comma-separated names of datasets")
    parser.add_argument("--variant", default="default", help="name of the row")
    parser.add_argument("--seeds", default="", help="comma-separated seeds of the runs")
    options = parser.parse_args()
    try:
        for data in options.data.split(","):
            reproduce(options.app, data, options.variant, options.seeds)
    except (UsageError, OSError) as error:
        print(f"unroll: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
