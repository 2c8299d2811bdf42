"""Training: what it writes, when it stops, and that an interrupted run resumes exactly."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps import toy
from tests.apps.children import Child
from tests.apps.progress_cases import CONFIG, dense_progress, end_epoch
from tests.apps.resuming import differences
from unroll.apps.core import training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.files import unique_name
from unroll.apps.core.runs import Run


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
    assert differences(one, other) == []
    assert state(one)[1]["seconds"] > 0


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
        "checksums",
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


def assert_tensorboard_has_each_epoch(path):
    history = json.loads((path / "history.json").read_text())
    for folder, name in (("train", "loss"), ("train", "learning_rate"), ("validation", "val_loss")):
        tag = f"epoch_{name.removeprefix('val_')}"
        logged = {
            event.step: float(tf.make_ndarray(value.tensor))
            for file in (path / "logs" / folder).iterdir()
            for record in tf.data.TFRecordDataset(str(file))
            for event in [tf.compat.v1.Event.FromString(record.numpy())]
            for value in event.summary.value
            if value.tag == tag
        }
        assert logged == pytest.approx(dict(enumerate(epoch[name] for epoch in history)))


def test_tensorboard_has_each_epoch(uninterrupted):
    assert_tensorboard_has_each_epoch(uninterrupted.path)


def kill_in_the_third_epoch(connection, path):
    class Progress(training.Progress):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if (self.epochs, batch) == (2, 7):
                (path / f".{unique_name()}.state.npz").touch()  # as if it was writing a file
                os.kill(os.getpid(), signal.SIGKILL)

    training.Progress = Progress
    train(path)


def test_a_killed_run_resumes_exactly(uninterrupted, tmp_path):
    with Child(kill_in_the_third_epoch, tmp_path) as child:
        assert child.wait() == -signal.SIGKILL, child.output()
    assert state(tmp_path)[1]["best_epoch"] <= 2
    assert {path.name[:2] for path in tmp_path.glob(".*")} == {".l", f".{unique_name()[0]}"}
    result = train(tmp_path, resume=True)
    assert result["epochs"] == 4
    assert_same_run(uninterrupted.path, tmp_path)
    assert_tensorboard_has_each_epoch(tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.exhaustive
def test_a_run_that_stopped_in_its_first_epoch_starts_again(uninterrupted, tmp_path, monkeypatch):
    def stop(self, epoch, logs=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Progress, "on_epoch_begin", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / "state.npz").exists()
    assert train(tmp_path, resume=True)["epochs"] == 4
    # This also shows that the seed determines the run.
    assert_same_run(uninterrupted.path, tmp_path)


def kill_while_the_data_are_prepared(connection, path):
    toy.load = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    train(path)


def test_a_run_that_was_killed_before_it_had_data_is_resumed(tmp_path, monkeypatch):
    with Child(kill_while_the_data_are_prepared, tmp_path) as child:
        assert child.wait() == -signal.SIGKILL, child.output()
    run = Run.open(toy, tmp_path, trained=False)
    assert run.config(toy) == CONFIG
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **how: None)
    train(tmp_path, resume=True)
    assert run.assets()


def test_resuming_reads_no_training_example_twice(copy, monkeypatch):
    """The finished epochs are skipped without filling the buffers of their shuffles."""
    read, passes = [], []
    load = toy.load

    def recorded(*given, **how):
        data = load(*given, **how)
        count = data["train"].cardinality()

        def record(features, labels):
            tf.py_function(lambda: read.append(len(passes)), [], [])
            return features, labels

        data.splits["train"] = (
            data["train"].map(record).apply(tf.data.experimental.assert_cardinality(count))
        )
        return data

    def fit(self, dataset, **how):
        passes.append(how["initial_epoch"])

    monkeypatch.setattr(toy, "load", recorded)
    monkeypatch.setattr(keras.Model, "fit", fit)
    config = dataclasses.replace(CONFIG, epochs=9)
    train(copy, config, resume=True)
    assert passes == [4]
    assert read == []


def test_a_folder_that_is_deleted_or_replaced_ends_the_training(tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    with run.lock:
        progress = dense_progress(run)
        shutil.rmtree(run.path)
        for make in (lambda: None, run.path.mkdir):
            make()
            with pytest.raises(UsageError, match="run was deleted or replaced while"):
                end_epoch(progress)
    assert list(run.path.iterdir()) == []


def test_a_folder_in_use_is_not_trained_into(copy, monkeypatch):
    monkeypatch.setattr(toy, "load", lambda *_, **__: pytest.fail("it was loaded"))
    before = contents(copy)
    with Run(copy).lock, pytest.raises(UsageError, match="is in use by"):
        train(copy, resume=True)
    assert contents(copy) == before


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> SimpleNamespace:
    """A run in half precision with another seed and a figure to minimize; its model, and a copy."""
    folder, built = tmp_path_factory.mktemp("half"), []
    config = dataclasses.replace(
        CONFIG, precision="mixed_float16", epochs=2, seed=1, monitor="val_error_rate"
    )
    build = toy.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "build", lambda *given: built.append(build(*given)) or built[-1])
        train_and_copy(folder / "run", config, patch, folder / "copy")
    return SimpleNamespace(path=folder / "run", copy=folder / "copy", config=config, model=built[0])


@pytest.mark.exhaustive
def test_mixed_precision_resumes_exactly(half):
    assert {w.dtype for w in half.model.trainable_variables} == {"float32"}
    assert {layer.compute_dtype for layer in half.model.layers} == {"float16", "float32"}
    assert hasattr(half.model.optimizer, "dynamic_scale")  # the state includes it
    assert keras.config.dtype_policy().name == "float32"
    train(half.copy, half.config, resume=True)
    assert_same_run(half.path, half.copy)


def test_bfloat16_needs_no_scale_of_the_loss(tmp_path, monkeypatch):
    fitted = []
    monkeypatch.setattr(keras.Model, "fit", lambda model, *_, **__: fitted.append(model))
    train(tmp_path, dataclasses.replace(CONFIG, precision="mixed_bfloat16"))
    [model] = fitted
    assert {w.dtype for w in model.trainable_variables} == {"float32"}
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert not hasattr(model.optimizer, "dynamic_scale")
    assert keras.config.dtype_policy().name == "float32"


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


def test_a_figure_that_an_app_declares_as_min_is_minimized(half):
    history = json.loads((half.path / "history.json").read_text())
    rates = [epoch["val_error_rate"] for epoch in history]
    assert rates[0] != rates[1]
    assert state(half.path)[1]["best"] == min(rates)
    assert state(half.path)[1]["best_epoch"] == rates.index(min(rates)) + 1


def test_another_seed_gives_another_run(uninterrupted, half):
    first, other = (
        json.loads((path / "history.json").read_text())[0]
        for path in (uninterrupted.path, half.path)
    )
    assert first["loss"] != pytest.approx(other["loss"], rel=1e-2)


def test_an_unknown_monitor_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "load", lambda *_: pytest.fail("it was loaded"))
    expected = r"^--monitor=val_acuracy: it must be one of loss, val_loss, val_accuracy, "
    with pytest.raises(UsageError, match=expected):
        train(tmp_path, dataclasses.replace(CONFIG, monitor="val_acuracy"))
    assert list(tmp_path.iterdir()) == []


def test_a_declared_monitor_that_the_model_lacks_is_one_line_after_one_step():
    message = r"^--monitor=val_accuracy: this model has loss, f1, val_loss, val_f1\.$"
    progress = training.Progress(Run("unused"), CONFIG, "max", writes=False)
    with pytest.raises(UsageError, match=message):
        progress.on_train_batch_end(0, {"loss": 1.0, "f1": 0.5})


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_a_broken_state_is_one_line(copy, content):
    data = (copy / "state.npz").read_bytes()
    (copy / "state.npz").write_bytes(data[:-1] if content is None else content)
    before = contents(copy)
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz is broken or was changed: [^\n]+$"):
        train(copy, resume=True)
    assert contents(copy) == before
    if content is not None:  # a state that was never one
        Run(copy).write("state.npz", content)
        with pytest.raises(UsageError, match=r"^[^\n]*state\.npz cannot be read: [^\n]+$"):
            dense_progress(Run(copy)).restore()


def test_the_state_of_another_model_is_refused(copy):
    with pytest.raises(UsageError, match=r"^[^\n]*state\.npz belongs to another model"):
        dense_progress(Run(copy)).restore()


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_training(loss):
    progress = training.Progress(Run("unused"), CONFIG, "max", writes=False)
    progress.history = [{"loss": 1.0}]
    message = rf"^The loss is {loss} at epoch 2, step 4: try [^\n]*--learning-rate [^\n]+$"
    with pytest.raises(UsageError, match=message):
        progress.on_train_batch_end(3, {"loss": loss})


@pytest.mark.parametrize("name", ["val_loss", "val_accuracy"])
def test_weights_that_the_last_step_made_non_finite_are_not_saved(tmp_path, name):
    run = Run(tmp_path)
    progress = training.Progress(run, CONFIG, "max")
    progress.step = 16
    logs = {"loss": 0.5, "val_loss": 0.5, "val_accuracy": 0.5, name: np.nan}
    with run.lock, pytest.raises(UsageError, match=rf"^The {name} is nan at epoch 1, step 16"):
        progress.on_epoch_end(0, logs)
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_batches_must_be_known(tmp_path, monkeypatch):
    data = toy.load(CONFIG, ("train", "valid"))
    endless = {**data.splits, "train": data["train"].repeat()}
    monkeypatch.setattr(toy, "load", lambda *_, **__: dataclasses.replace(data, splits=endless))
    with pytest.raises(ValueError, match="must know its number of batches"):
        train(tmp_path)


def test_data_without_a_training_split_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "SIZES", {"valid": 101, "test": 103})
    with pytest.raises(UsageError, match=r"^--split=train: digits has valid, test\.$"):
        train(tmp_path)


def test_jit_compiles_the_step_and_gives_the_same_loss(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=1, dropout=0.0, monitor="loss", jit=True)
    data = toy.load(config, ("train",))
    one_batch = data["train"].take(1).cache()  # XLA compiles each shape
    splits = {"train": one_batch, "valid": None}
    monkeypatch.setattr(toy, "load", lambda *_, **__: dataclasses.replace(data, splits=splits))
    built, losses = [], []
    build = toy.build

    def build_and_compute(config, assets):
        model = build(config, assets)
        [(features, labels)] = one_batch
        built.append(model)
        loss = keras.losses.SparseCategoricalCrossentropy()
        losses.append(float(loss(labels, model(features, training=True))))
        return model

    monkeypatch.setattr(toy, "build", build_and_compute)
    train(tmp_path, config)
    assert built[0].jit_compile is True
    [epoch] = json.loads((tmp_path / "history.json").read_text())
    assert epoch["loss"] == pytest.approx(losses[0], rel=1e-3)
