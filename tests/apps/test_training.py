"""Training: what it writes, when it stops, and that an interrupted run resumes exactly."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps import toy
from unroll.apps.core import training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.runs import Run

ROOT = Path(__file__).parents[2]
CONFIG = dataclasses.replace(toy.PRESETS["digits"], units=8, epochs=4, schedule="cosine")


def train(path, config=CONFIG, **how):
    path.mkdir(exist_ok=True)
    return training.train(toy, config, Run(path), **how)


def state(path):
    with np.load(path / "state.npz") as file:
        variables = {name: file[name] for name in file.files if name != "progress"}
        return variables, json.loads(str(file["progress"]))


def contents(path):
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def assert_same_run(one, other):
    (variables, progress), (other_variables, other_progress) = state(one), state(other)
    assert variables.keys() == other_variables.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(value, other_variables[name], err_msg=name)
    for timed in (progress, other_progress):
        assert timed.pop("seconds") > 0
    assert progress == other_progress
    assert (one / "history.json").read_text() == (other / "history.json").read_text()
    best = [load_trained(toy, Run(path)).model.get_weights() for path in (one, other)]
    for weight, other_weight in zip(*best, strict=True):
        np.testing.assert_array_equal(weight, other_weight)


def train_and_copy(path, config, monkeypatch, copy):
    """Trains, and copies the folder right after the state of the first epoch is written."""
    save = training.Progress.save

    def save_and_copy(self):
        save(self)
        if self.epochs == 1:
            shutil.copytree(path, copy)

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "save", save_and_copy)
        train(path, config)


class Watch(keras.callbacks.Callback):
    """Records, at the start of each epoch, the number of finished epochs and the learning rate."""

    def __init__(self, history):
        super().__init__()
        self.history = history
        self.records = []

    def on_epoch_begin(self, epoch, logs=None):
        self.records.append((len(self.history), float(self.model.optimizer.learning_rate)))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder, the result, the calls of `load` and the callback of a run."""
    path, calls, callbacks = tmp_path_factory.mktemp("runs") / "uninterrupted", [], []
    load = toy.load

    def recorded_load(config, splits, assets=None, training=False):
        calls.append((splits, assets, training))
        return load(config, splits, assets, training)

    def add_callback(config, history):
        callbacks.append(Watch(history))
        return callbacks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "load", recorded_load)
        patch.setattr(toy, "callbacks", add_callback, raising=False)
        result = train(path)
    return SimpleNamespace(path=path, result=result, loads=calls, callback=callbacks[0])


@pytest.fixture
def copy(uninterrupted, tmp_path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(uninterrupted.path, tmp_path / "copy"))


def test_the_files_of_a_run(uninterrupted):
    path, result = uninterrupted.path, uninterrupted.result
    assert {file.name for file in path.iterdir()} == {
        "assets",
        "best.weights.h5",
        "config.json",
        "environment.json",
        "history.json",
        "logs",
        "state.npz",
    }
    history = json.loads((path / "history.json").read_text())
    assert len(history) == result["epochs"] == 4
    values = [epoch["val_accuracy"] for epoch in history]
    assert result["val_accuracy"] == max(values) > 0.6
    assert result["best_epoch"] == values.index(max(values)) + 1
    about = json.loads((path / "environment.json").read_text())
    assert about["seconds"] == pytest.approx(result["seconds"], abs=0.1)


def test_training_loads_two_splits_and_builds_the_assets(uninterrupted):
    assert uninterrupted.loads == [(("train", "valid"), None, True)]


def test_the_learning_rate_follows_the_schedule(uninterrupted):
    history = json.loads((uninterrupted.path / "history.json").read_text())
    rates = [epoch["learning_rate"] for epoch in history]
    expected = 0.01 * np.array([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_callbacks_of_an_app_run_after_the_learning_rate_is_set(uninterrupted):
    finished, rates = zip(*uninterrupted.callback.records, strict=True)
    assert finished == (0, 1, 2, 3)
    expected = 0.01 * np.array([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_best_weights_have_the_best_figure(uninterrupted):
    trained = load_trained(toy, Run(uninterrupted.path))
    figures = toy.score(trained, toy.load(trained.config, ("valid",), trained.assets)["valid"])
    best = uninterrupted.result["val_accuracy"]
    assert figures["accuracy"] == pytest.approx(best, abs=1e-6)


def test_tensorboard_has_each_epoch(uninterrupted):
    path = uninterrupted.path
    history = json.loads((path / "history.json").read_text())
    for folder, name in (("train", "loss"), ("validation", "val_loss")):
        [file] = (path / "logs" / folder).iterdir()
        logged = {
            event.step: float(tf.make_ndarray(value.tensor))
            for record in tf.data.TFRecordDataset(str(file))
            for event in [tf.compat.v1.Event.FromString(record.numpy())]
            for value in event.summary.value
            if value.tag == "epoch_loss"
        }
        assert logged == pytest.approx(dict(enumerate(epoch[name] for epoch in history)))


KILLED = """
import os, signal, sys
from unroll.apps.core import training
from tests.apps import test_training

class Progress(training.Progress):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if (self.epochs, batch) == (2, 7):
            os.kill(os.getpid(), signal.SIGKILL)

training.Progress = Progress
test_training.train(test_training.Path(sys.argv[1]))
"""


def test_a_killed_run_resumes_exactly(uninterrupted, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert state(tmp_path)[1]["best_epoch"] <= 2
    (tmp_path / ".99.state.npz").touch()  # as if the process was killed while it wrote a file
    result = train(tmp_path, resume=True)
    assert result["epochs"] == 4
    assert_same_run(uninterrupted.path, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_stopped_in_its_first_epoch_starts_again(uninterrupted, tmp_path, monkeypatch):
    check = training.Progress.on_train_batch_end

    def stop(self, batch, logs=None):
        check(self, batch, logs)
        if batch == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / "state.npz").exists()
    assert train(tmp_path, resume=True)["epochs"] == 4
    # This also shows that the seed determines the run.
    assert_same_run(uninterrupted.path, tmp_path)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(tmp_path, monkeypatch, precision):
    scaled = precision == "mixed_float16"
    config = dataclasses.replace(CONFIG, precision=precision, epochs=2 if scaled else 1)
    built = []
    build = toy.build
    monkeypatch.setattr(toy, "build", lambda *given: built.append(build(*given)) or built[-1])
    train_and_copy(tmp_path / "one", config, monkeypatch, tmp_path / "two")
    model = built[0]
    assert {w.dtype for w in model.trainable_variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {precision[6:], "float32"}
    assert hasattr(model.optimizer, "dynamic_scale") == scaled
    assert keras.config.dtype_policy().name == "float32"
    if scaled:  # the state includes the scale of the loss
        train(tmp_path / "two", config, resume=True)
        assert_same_run(tmp_path / "one", tmp_path / "two")


def test_training_stops_when_patience_ends_and_has_nothing_to_resume(tmp_path, capsys):
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-12, epochs=20, patience=2, normalize=False
    )
    result = train(tmp_path, config)
    assert (result["best_epoch"], result["epochs"]) == (1, 3)
    before = contents(tmp_path)
    assert train(tmp_path, config, resume=True)["epochs"] == 3
    assert contents(tmp_path) == before
    assert "finished after 3 epochs: nothing to do" in capsys.readouterr().out


def test_resuming_a_finished_run_changes_nothing(uninterrupted, capsys, monkeypatch):
    calls = []
    load = toy.load
    monkeypatch.setattr(
        toy, "load", lambda *given, **how: calls.append(given) or load(*given, **how)
    )
    before = contents(uninterrupted.path)
    again = train(uninterrupted.path, resume=True)
    assert contents(uninterrupted.path) == before
    assert "finished after 4 epochs: nothing to do" in capsys.readouterr().out
    assert again == pytest.approx(uninterrupted.result)
    # The assets are those of the run, not built again.
    assert [given[1:] for given in calls] == [
        (("train", "valid"), {"digits": ["<pad>", *"123456789"], "labels": ["falling", "rising"]})
    ]


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


@pytest.fixture(scope="module")
def minimized(tmp_path_factory) -> Path:
    """A run with another seed, whose monitored figure is declared as "min"."""
    path = tmp_path_factory.mktemp("runs") / "minimized"
    train(path, dataclasses.replace(CONFIG, monitor="val_error_rate", seed=1, epochs=3))
    return path


def test_a_figure_that_an_app_declares_as_min_is_minimized(minimized):
    history = json.loads((minimized / "history.json").read_text())
    rates = [epoch["val_error_rate"] for epoch in history]
    assert min(rates) < rates[0]
    assert state(minimized)[1]["best"] == min(rates)
    assert state(minimized)[1]["best_epoch"] == rates.index(min(rates)) + 1
    trained = load_trained(toy, Run(minimized))
    figures = toy.score(trained, toy.load(trained.config, ("valid",), trained.assets)["valid"])
    assert figures["accuracy"] == pytest.approx(1 - min(rates), abs=1e-6)


def test_another_seed_gives_another_run(uninterrupted, minimized):
    first, other = (
        json.loads((path / "history.json").read_text())[0]
        for path in (uninterrupted.path, minimized)
    )
    assert first["loss"] != other["loss"]


def test_an_unknown_monitor_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "load", lambda *_: pytest.fail("it was loaded"))
    expected = r"^--monitor=val_acuracy: it must be one of loss, val_loss, val_accuracy, "
    with pytest.raises(UsageError, match=expected):
        train(tmp_path, dataclasses.replace(CONFIG, monitor="val_acuracy"))
    assert list(tmp_path.iterdir()) == []


def test_a_declared_monitor_that_the_model_lacks_is_one_line():
    message = r"^--monitor=val_accuracy: this model has loss, val_f1\.$"
    progress = training.Progress(Run("unused"), CONFIG, "max", writes=False)
    with pytest.raises(UsageError, match=message):
        progress.on_epoch_end(0, {"loss": 1.0, "val_f1": 0.5})


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_broken_state_is_one_line(copy, length):
    data = (copy / "state.npz").read_bytes()
    (copy / "state.npz").write_bytes(data[:length])
    before = contents(copy)
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz cannot be read: [^\n]+$"):
        train(copy, resume=True)
    assert contents(copy) == before


def test_the_state_of_another_model_is_refused(copy):
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz belongs to another model"):
        train(copy, dataclasses.replace(CONFIG, units=9), resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best_weights(tmp_path, monkeypatch):
    def raised_rate(self, epoch, logs=None):
        self.rate = 1e30 if epoch == 1 else 1e-3
        self.model.optimizer.learning_rate = self.rate

    monkeypatch.setattr(training.Progress, "on_epoch_begin", raised_rate)
    after_first = {}
    end = training.Progress.on_epoch_end

    def end_and_read(self, epoch, logs=None):
        end(self, epoch, logs)
        after_first.update(contents(tmp_path))

    monkeypatch.setattr(training.Progress, "on_epoch_end", end_and_read)
    message = r"^The loss is (nan|inf) at epoch 2, step \d+: try [^\n]*--learning-rate [^\n]+$"
    with pytest.raises(UsageError, match=message):
        train(tmp_path, dataclasses.replace(CONFIG, clip_norm=0.0))
    after = contents(tmp_path)
    for name in ("best.weights.h5", "state.npz", "history.json"):
        assert after[str(tmp_path / name)] == after_first[str(tmp_path / name)]
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("name", ["val_loss", "val_accuracy"])
def test_weights_that_the_last_step_made_non_finite_are_not_saved(tmp_path, name):
    progress = training.Progress(Run(tmp_path), CONFIG, "max")
    progress.step = 16
    logs = {"loss": 0.5, "val_loss": 0.5, "val_accuracy": 0.5, name: np.nan}
    with pytest.raises(UsageError, match=rf"^The {name} is nan at epoch 1, step 16"):
        progress.on_epoch_end(0, logs)
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_batches_must_be_known(tmp_path, monkeypatch):
    data = toy.load(CONFIG, ("train", "valid"))
    endless = {**data.splits, "train": data["train"].repeat()}
    monkeypatch.setattr(toy, "load", lambda *_, **__: dataclasses.replace(data, splits=endless))
    with pytest.raises(ValueError, match="must know its number of batches"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_without_a_training_split_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "SIZES", {"valid": 101, "test": 103})
    with pytest.raises(UsageError, match=r"^--split=train: digits has valid, test\.$"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_jit_compiles_the_step_and_gives_the_same_losses(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=1, dropout=0.0)
    data = toy.load(config, ("train", "valid"))
    one_shape = data["train"].take(1).cache()  # XLA compiles each shape
    splits = {"train": one_shape.repeat(3), "valid": one_shape}
    monkeypatch.setattr(toy, "load", lambda *_, **__: dataclasses.replace(data, splits=splits))
    built = []
    build = toy.build
    monkeypatch.setattr(toy, "build", lambda *given: built.append(build(*given)) or built[-1])
    losses = []
    for name, jit in (("plain", False), ("jit", True)):
        train(tmp_path / name, dataclasses.replace(config, jit=jit))
        assert built[-1].jit_compile is jit
        losses.append(json.loads((tmp_path / name / "history.json").read_text())[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
