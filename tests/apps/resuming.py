"""Helpers of the apps' tests: training that is interrupted and resumed."""

import json
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from unroll.apps.core import training
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.runs import Run


def histories(app: ModuleType, config: TrainingConfig, folder: Path, monkeypatch) -> list[list]:
    """The figures by epoch of an uninterrupted run, and of one resumed after its first epoch."""
    runs = [Run(folder / name) for name in ("uninterrupted", "resumed")]
    for run in runs:
        run.path.mkdir()
    training.train(app, config, runs[0])
    save = training.Progress.save

    def save_and_stop(self):
        save(self)
        if self.epochs == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(app, config, runs[1])
    training.train(app, config, runs[1], resume=True)
    return [json.loads(run.history.read_text()) for run in runs]


def differences(one: Path, other: Path) -> list[str]:
    """What differs between the folders of two runs, apart from their times.

    Compared are all files but `environment.json` and the logs: arrays bit by bit.
    """
    contents = [_contents(path) for path in (one, other)]
    names = contents[0].keys() | contents[1].keys()
    return sorted(n for n in names if contents[0].get(n) != contents[1].get(n))


def _contents(run: Path) -> dict[str, object]:
    """The content of each file, or of each array in it."""
    found: dict[str, object] = {}
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or name.startswith(("checksums/", "logs/", "environment.json")):
            continue
        if path.suffix == ".npz":
            with np.load(path) as file:
                arrays = {key: file[key] for key in file.files}
            progress = json.loads(str(arrays.pop("progress")))
            del progress["seconds"]
            found[f"{name}/progress"] = progress
        elif path.suffix == ".h5":
            arrays = {}
            with h5py.File(path) as file:
                file.visititems(lambda key, value, arrays=arrays: arrays.update({key: value}))
                arrays = {k: v[()] for k, v in arrays.items() if isinstance(v, h5py.Dataset)}
        else:
            found[name] = path.read_bytes()
            continue
        found |= {f"{name}/{k}": (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()}
    return found
