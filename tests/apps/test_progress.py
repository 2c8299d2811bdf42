"""`training.Progress`: the best epoch, patience, and a process that is killed while it writes."""

import contextlib
import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from tests.apps import toy
from tests.apps.progress_cases import CONFIG, dense_progress, end_epoch
from unroll.apps.core import files, training
from unroll.apps.core.runs import Run


def test_a_run_can_be_killed_at_any_moment_of_a_write(tmp_path, monkeypatch):
    """Kills the process before each file gets its name, at the end of the second epoch."""
    first = Run(tmp_path / "first")
    first.path.mkdir()
    first.write_config(toy, CONFIG)
    first.write_assets({"labels": ["a"]})
    with first.lock:
        end_epoch(dense_progress(first))
    replace, outcomes = files.Path.replace, []
    for steps in range(99):
        run, made = Run(tmp_path / str(steps)), []
        shutil.copytree(first.path, run.path)

        def replace_or_die(path, target, steps=steps, made=made):
            if len(made) == steps:
                raise KeyboardInterrupt
            made.append(target)
            return replace(path, target)

        progress = dense_progress(run)
        progress.restore()
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt), run.lock:
            patch.setattr(files.Path, "replace", replace_or_die)
            end_epoch(progress)
        run.verify()
        resumed = dense_progress(run)
        resumed.restore()
        for variable in resumed.model.variables:
            np.testing.assert_array_equal(variable, np.full(variable.shape, float(resumed.epochs)))
        outcomes.append(resumed.epochs)
        if len(made) < steps:  # it was not killed
            break
    # Three renamings for each of four files: its checksum, itself, its checksum.
    assert outcomes == [1] * 11 + [2] * 3


def progress_after(values, monitor="val_accuracy", direction="max", **changes):
    """A `Progress` that received the values of the monitored figure, one per epoch."""
    config = dataclasses.replace(CONFIG, monitor=monitor, **changes)
    progress = training.Progress(Run("unused"), config, direction, writes=False)
    progress.set_model(SimpleNamespace(optimizer=SimpleNamespace()))
    for epoch, value in enumerate(values):
        progress.on_epoch_begin(epoch)
        progress.step = 1
        progress.on_epoch_end(epoch, {"loss": 1.0, monitor: value})
        if progress.model.stop_training:
            break
    return progress


@pytest.mark.parametrize(
    ("monitor", "direction", "best_epoch"),
    [
        ("val_accuracy", "max", 2),
        ("val_mae", "min", 3),
        ("cer", "min", 3),
        ("nll", "min", 3),
        ("val_loss", "min", 3),
    ],
)
def test_the_best_epoch_is_that_of_the_declared_direction(monitor, direction, best_epoch):
    values = [0.5, 0.7, 0.2, 0.3]
    progress = progress_after(values, monitor, direction)
    assert (progress.best_epoch, progress.best) == (best_epoch, values[best_epoch - 1])
    assert progress.epochs == 4


def test_of_equal_epochs_the_first_is_the_best():
    assert progress_after([0.5, 0.7, 0.7]).best_epoch == 2
    assert progress_after([0.5, 0.3, 0.3], direction="min").best_epoch == 2


def test_preparing_epochs_are_not_the_best(monkeypatch):
    monkeypatch.setattr(type(CONFIG), "preparing_epochs", lambda _, history: 2)
    progress = progress_after([0.9, 0.8, 0.5, 0.4, 0.3], epochs=20, patience=1)
    assert (progress.best_epoch, progress.best, progress.epochs) == (3, 0.5, 4)


def test_training_stops_when_patience_ends():
    progress = progress_after([0.5, 0.4, 0.3, 0.9], epochs=20, patience=2)
    assert (progress.best_epoch, progress.epochs) == (1, 3)
    assert progress.model.stop_training
    assert progress.finished


def test_figures_of_earlier_weights_are_removed_with_these(tmp_path):
    run = Run(tmp_path)
    progress = dense_progress(run)
    with run.lock:
        end_epoch(progress)
        run.write_metrics("test", {"accuracy": 0.5})  # it was interrupted and evaluated
        end_epoch(progress)
    assert progress.best_epoch == 2
    assert run.read_metrics() == {}
    with run.lock:
        run.write_metrics("test", {"accuracy": 0.5})
        progress.best = 1.0
        end_epoch(progress)
    assert run.read_metrics() == {"test": {"accuracy": 0.5}}
