"""Training: what it writes, when it stops, and that a kill changes nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps import toy
from unroll.apps.core import training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_model
from unroll.apps.core.runs import Run

ROOT = Path(__file__).parents[2]
CONFIG = dataclasses.replace(toy.PRESETS["digits"], units=8, epochs=4, schedule="cosine")


def train(path, config=CONFIG, **how):
    return training.train(toy, config, Run(path), **how)


def made(path):
    path.mkdir()
    return path


def state(path):
    with np.load(path / "state.npz") as file:
        variables = {name: file[name] for name in file.files if name != "progress"}
        return variables, json.loads(str(file["progress"]))


def contents(path):
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def assert_same_run(one, other):
    (variables, progress), (variables_too, progress_too) = state(one), state(other)
    assert variables.keys() == variables_too.keys()
    for name, value in variables.items():
        np.testing.assert_array_equal(value, variables_too[name], err_msg=name)
    for timed in (progress, progress_too):
        assert timed.pop("seconds") > 0
    assert progress == progress_too
    assert (one / "history.json").read_text() == (other / "history.json").read_text()
    (model, *_), (model_too, *_) = (load_model(toy, Run(path)) for path in (one, other))
    for weight, weight_too in zip(model.get_weights(), model_too.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, weight_too)


class Stopped(Exception):
    pass


def stop_after(monkeypatch, epochs):
    """Ends training right after the state of an epoch is written, before Keras hears of it."""
    save = training.Progress.save

    def save_and_stop(self):
        save(self)
        if self.epochs == epochs:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "save", save_and_stop)
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    return path, train(path)


def test_what_a_run_holds(unbroken):
    path, result = unbroken
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


def test_the_learning_rate_follows_half_a_cosine(unbroken):
    history = json.loads((unbroken[0] / "history.json").read_text())
    rates = [epoch["learning_rate"] for epoch in history]
    expected = 0.01 * np.array([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_the_learning_rate_is_halved_after_each_quarter(tmp_path):
    config = dataclasses.replace(CONFIG, schedule="halving", epochs=6, patience=6)
    train(made(tmp_path / "run"), config)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    rates = [epoch["learning_rate"] for epoch in history]
    np.testing.assert_allclose(rates, 0.01 / np.array([1, 1, 2, 4, 4, 8]), rtol=1e-6)


def test_an_app_adds_callbacks_behind_the_usual_ones(tmp_path, monkeypatch):
    seen = []

    class Watch(keras.callbacks.Callback):
        def __init__(self, history):
            super().__init__()
            self.history = history

        def on_epoch_begin(self, epoch, logs=None):
            seen.append((len(self.history), float(self.model.optimizer.learning_rate)))

    monkeypatch.setattr(toy, "callbacks", lambda _, history: [Watch(history)], raising=False)
    train(made(tmp_path / "run"), dataclasses.replace(CONFIG, epochs=2))
    assert seen == [(0, pytest.approx(0.01)), (1, pytest.approx(0.005))]


def test_the_best_weights_give_the_best_figure(unbroken):
    path, result = unbroken
    model, config, assets = load_model(toy, Run(path))
    figures = toy.score(model, assets, toy.load(config, assets).valid)
    assert figures["accuracy"] == pytest.approx(result["val_accuracy"], abs=1e-6)


def test_tensorboard_shows_each_epoch(unbroken):
    path, _ = unbroken
    history = json.loads((path / "history.json").read_text())
    for folder, name in (("train", "loss"), ("validation", "val_loss")):
        [file] = (path / "logs" / folder).iterdir()
        shown = {
            event.step: float(tf.make_ndarray(value.tensor))
            for record in tf.data.TFRecordDataset(str(file))
            for event in [tf.compat.v1.Event.FromString(record.numpy())]
            for value in event.summary.value
            if value.tag == "epoch_loss"
        }
        assert shown == pytest.approx(dict(enumerate(epoch[name] for epoch in history)))


def test_a_seed_gives_the_same_run_and_another_seed_another(unbroken, tmp_path):
    train(made(tmp_path / "same"))
    assert_same_run(unbroken[0], tmp_path / "same")
    train(made(tmp_path / "other"), dataclasses.replace(CONFIG, seed=1, epochs=1))
    first = json.loads((unbroken[0] / "history.json").read_text())[0]
    other = json.loads((tmp_path / "other/history.json").read_text())[0]
    assert first["loss"] != other["loss"]


KILLED = """
import os, signal, sys
from unroll.apps.core import training
from tests.apps import test_training

class Progress(training.Progress):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if (self.epochs, batch) == (int(sys.argv[2]), 7):
            os.kill(os.getpid(), signal.SIGKILL)

training.Progress = Progress
test_training.train(test_training.Path(sys.argv[1]))
"""


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_killed_run_ends_as_an_unbroken_one(unbroken, tmp_path, epochs):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(epochs)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=100)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert (tmp_path / "state.npz").exists() == (epochs > 0)
    (tmp_path / ".99.state.npz").touch()  # as if the kill had come in the middle of writing
    result = train(tmp_path, resume=True)
    assert result["epochs"] == 4
    assert_same_run(unbroken[0], tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(tmp_path, monkeypatch, precision):
    config = dataclasses.replace(CONFIG, precision=precision, epochs=2)
    built = []
    build = toy.build
    monkeypatch.setattr(toy, "build", lambda *given: built.append(build(*given)) or built[-1])
    train(made(tmp_path / "one"), config)
    model = built[0]
    assert {w.dtype for w in model.trainable_variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {precision[6:], "float32"}
    assert hasattr(model.optimizer, "dynamic_scale") == (precision == "mixed_float16")
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(Stopped):
        next_stop(monkeypatch, 1, made(tmp_path / "two"), config)
    train(tmp_path / "two", config, resume=True)
    assert_same_run(tmp_path / "one", tmp_path / "two")


def next_stop(monkeypatch, epochs, path, config):
    for _ in stop_after(monkeypatch, epochs):
        train(path, config)


def test_patience(tmp_path, monkeypatch):
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-12, epochs=20, patience=2, normalize=False
    )
    result = train(made(tmp_path / "one"), config)
    assert (result["best_epoch"], result["epochs"]) == (1, 3)
    # Killed between the state of its last epoch and its end, it has nothing left to do.
    with pytest.raises(Stopped):
        next_stop(monkeypatch, 3, made(tmp_path / "two"), config)
    assert train(tmp_path / "two", config, resume=True)["epochs"] == 3
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_epochs_that_prepare_are_not_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(type(CONFIG), "preparing_epochs", lambda _, history: 2)
    # The rate goes down so fast that nothing gets better after the first epoch.
    monkeypatch.setattr(
        type(CONFIG), "learning_rate_at", lambda _, epoch, history: 1e-2 * 1e-9**epoch
    )
    config = dataclasses.replace(CONFIG, epochs=20, patience=1)
    result = train(tmp_path, config)
    assert (result["best_epoch"], result["epochs"]) == (3, 4)


def test_a_loss_is_better_when_it_is_less(tmp_path):
    result = train(tmp_path, dataclasses.replace(CONFIG, monitor="val_loss"))
    losses = [epoch["val_loss"] for epoch in json.loads((tmp_path / "history.json").read_text())]
    assert result["val_loss"] == min(losses) < losses[0]
    assert result["best_epoch"] == losses.index(min(losses)) + 1


def test_resuming_an_ended_run_changes_nothing(unbroken, capsys):
    path, result = unbroken
    before = contents(path)
    again = train(path, resume=True)
    assert contents(path) == before
    assert "had ended after 4 epochs" in capsys.readouterr().out
    assert again == pytest.approx(result)


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_broken_state_is_one_line(unbroken, tmp_path, cut):
    train(tmp_path, dataclasses.replace(CONFIG, epochs=1))
    data = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(data[:cut])
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz cannot be read: [^\n]+$"):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_the_state_of_another_model(tmp_path):
    train(tmp_path, dataclasses.replace(CONFIG, epochs=1))
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz is of another model"):
        train(tmp_path, dataclasses.replace(CONFIG, units=9), resume=True)


def raised_rate(self, epoch, logs=None):
    self.rate = 1e30 if epoch == 1 else 1e-3
    self.model.optimizer.learning_rate = self.rate


def test_a_loss_that_is_not_finite_stops_and_keeps_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(training.Progress, "on_epoch_begin", raised_rate)
    kept = {}
    end = training.Progress.on_epoch_end

    def end_and_keep(self, epoch, logs=None):
        end(self, epoch, logs)
        kept.update(contents(tmp_path))

    monkeypatch.setattr(training.Progress, "on_epoch_end", end_and_keep)
    with pytest.raises(
        UsageError, match=r"^The loss is (nan|inf) at epoch 2, step \d+: try [^\n]+$"
    ):
        train(tmp_path, dataclasses.replace(CONFIG, clip_norm=0.0))
    after = contents(tmp_path)
    for name in ("best.weights.h5", "state.npz", "history.json"):
        assert after[str(tmp_path / name)] == kept[str(tmp_path / name)]
    assert keras.config.dtype_policy().name == "float32"


def test_weights_that_the_last_step_spoils_are_not_the_best(tmp_path, monkeypatch):
    check = training.Progress.on_train_batch_end

    def spoil(self, batch, logs=None):
        check(self, batch, logs)
        if batch == 15:
            self.model.trainable_variables[-1].assign([np.nan] * 2)

    monkeypatch.setattr(training.Progress, "on_train_batch_end", spoil)
    with pytest.raises(UsageError, match=r"^The val_loss is nan at epoch 1, step 16"):
        train(tmp_path)
    assert not (tmp_path / "best.weights.h5").exists()
    assert not (tmp_path / "state.npz").exists()


def test_a_figure_that_is_not_there(tmp_path):
    expected = r"^--monitor=val_f1: this model has accuracy, loss, val_accuracy, val_loss\.$"
    with pytest.raises(UsageError, match=expected):
        train(tmp_path, dataclasses.replace(CONFIG, monitor="val_f1"))


def test_data_of_an_unknown_number_of_batches(tmp_path, monkeypatch):
    data = toy.load(CONFIG)
    endless = dataclasses.replace(data, train=data.train.repeat())
    monkeypatch.setattr(toy, "load", lambda *given: endless)
    with pytest.raises(ValueError, match="must know its number of batches"):
        train(tmp_path)


def test_data_without_a_training_split(tmp_path, monkeypatch):
    load = toy.load
    monkeypatch.setattr(toy, "load", lambda *given: dataclasses.replace(load(*given), train=None))
    with pytest.raises(UsageError, match=r"^digits has no training split\.$"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_jit_compiles_the_step_and_gives_the_same_losses(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=1, dropout=0.0)
    data = toy.load(config)
    one_shape = data.train.take(1).cache()  # each is compiled anew
    data = dataclasses.replace(data, train=one_shape.repeat(3), valid=one_shape)
    monkeypatch.setattr(toy, "load", lambda *given: data)
    built = []
    build = toy.build
    monkeypatch.setattr(toy, "build", lambda *given: built.append(build(*given)) or built[-1])
    for name, jit in (("plain", False), ("jit", True)):
        train(made(tmp_path / name), dataclasses.replace(config, jit=jit))
        assert built[-1].jit_compile is jit
    one, other = (json.loads((tmp_path / n / "history.json").read_text()) for n in ("plain", "jit"))
    assert one[0] == pytest.approx(other[0], rel=1e-3)
