"""A helper of the apps' tests: training that is interrupted and resumed."""

import json
from pathlib import Path
from types import ModuleType

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
