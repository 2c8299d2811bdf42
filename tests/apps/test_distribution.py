"""Distribution strategies: they agree with one device, on every app."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.apps.children import run_command
from tests.apps.distributed import Trainer, cluster_of_two, train_together
from tests.apps.small_trainings import options_of
from tests.apps.test_contract import NAMES
from unroll.apps.core import distribution
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import Run


@pytest.fixture(scope="module")
def two_devices() -> Iterator[Trainer]:
    """A process with two logical devices."""
    with Trainer(devices=2) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Trainer]]:
    """Two processes that train together."""
    first, second = cluster_of_two()
    with Trainer(tf_config=first) as one, Trainer(tf_config=second) as two:
        yield [one, two]


# A bucket of 31 leaves a batch of one example: one replica gets none of it. The clipping is active
# in each step, so that clipping the gradient of each replica would give other losses.
OPTIONS = ["--no-normalize", "--dropout=0", "--clip-norm=0.05", "--batch-size=31", "--epochs=3"]


@pytest.fixture(scope="module")
def one_device(two_devices, tmp_path_factory) -> list[dict]:
    """The history of the default strategy."""
    path = tmp_path_factory.mktemp("default")
    return two_devices.train(path, *OPTIONS, strategy="default")["history"]


def assert_close(history, expected):
    assert len(history) == len(expected) == 3
    for name in ("loss", "val_loss"):
        values, others = ([epoch[name] for epoch in each] for each in (history, expected))
        np.testing.assert_allclose(values, others, atol=5e-3)


def training_of(name: str) -> tuple[list[str], dict]:
    """The options and the job of a training."""
    return [*options_of(name), "--epochs=2"], {"app": f"unroll.apps.{name}.app"}


def assert_trained(result: dict, path: Path, name: str) -> None:
    """The figures of all epochs are finite, and the run can be evaluated."""
    assert len(result["history"]) == 2
    for figures in result["history"]:
        assert np.isfinite([*figures.values()]).all()
    assert {"best.weights.h5", "state.npz", "history.json"} <= {p.name for p in path.iterdir()}
    run_command(name, "evaluate", str(path))
    assert Run(path).read_metrics()["test"]["examples"] > 0


def test_mirrored_gives_the_losses_of_one_device(tmp_path, two_devices, one_device):
    result = two_devices.train(tmp_path, *OPTIONS, strategy="mirrored")
    assert_close(result["history"], one_device)


def state(path):
    with np.load(path / "state.npz") as file:
        return {name: file[name] for name in file.files if name != "progress"}


@pytest.mark.exhaustive
def test_mirrored_resumes(tmp_path, two_devices):
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    options = ["--batch-size=31", "--epochs=2"]
    two_devices.train(uninterrupted, *options, strategy="mirrored", copy=resumed)
    two_devices.train(resumed, *options, strategy="mirrored", resume=True)
    expected, variables = state(uninterrupted), state(resumed)
    assert expected.keys() == variables.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(variables[name], value, atol=1e-6, err_msg=name)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_every_app_trains_on_mirrored_devices(tmp_path, two_devices, name):
    options, job = training_of(name)
    result = two_devices.train(tmp_path, *options, strategy="mirrored", **job)
    assert_trained(result, tmp_path, name)


def test_workers_agree_with_each_other_and_with_one_device(tmp_path, workers, one_device):
    paths = [tmp_path / "chief", tmp_path / "other"]
    chief, other = train_together(workers, paths, *OPTIONS)
    assert chief == other
    assert_close(chief["history"], one_device)
    assert {"best.weights.h5", "state.npz", "history.json"} <= {p.name for p in paths[0].iterdir()}
    assert list(paths[1].iterdir()) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_every_app_trains_in_two_processes(tmp_path, workers, name):
    paths = [tmp_path / "chief", tmp_path / "other"]
    options, job = training_of(name)
    chief, other = train_together(workers, paths, *options, **job)
    assert chief == other
    assert_trained(chief, paths[0], name)
    assert list(paths[1].iterdir()) == []


def test_one_replica_has_nothing_to_average():
    for used in (tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("/cpu:0")):
        assert distribution.callbacks(used) == []


@pytest.mark.parametrize("name", ["two", ""])
def test_an_unknown_strategy_is_refused(name):
    with pytest.raises(UsageError, match="must be one of default, mirrored, multiworker, tpu"):
        distribution.strategy(name)


def test_a_missing_tpu_is_one_line():
    with pytest.raises(UsageError, match=r"^--strategy=tpu finds no TPU: [^\n]+$"):
        distribution.strategy("tpu")


@pytest.mark.parametrize(
    "given",
    [
        None,
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "boss", "index": 0}}',
    ],
)
def test_a_broken_tf_config_is_one_line(monkeypatch, given):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_CONFIG", given)
    for function in (distribution.strategy, distribution.is_chief):
        with pytest.raises(UsageError, match="needs the environment variable TF_CONFIG"):
            function("multiworker")


@pytest.mark.parametrize(
    ("cluster", "task", "chief"),
    [
        (["worker"], ("worker", 0), True),
        (["worker"], ("worker", 1), False),
        (["chief", "worker"], ("worker", 0), False),
        (["chief", "worker"], ("chief", 0), True),
    ],
)
def test_only_the_chief_writes(monkeypatch, cluster, task, chief):
    spec = {job: ["a:1", "b:2"] for job in cluster}
    config = {"cluster": spec, "task": {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.is_chief("multiworker") is chief
    assert distribution.is_chief("mirrored") is True
