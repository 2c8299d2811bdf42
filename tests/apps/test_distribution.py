"""Strategies, each in processes of its own: devices are set before TensorFlow starts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unroll.apps.core import distribution
from unroll.apps.core.errors import UsageError

ROOT = Path(__file__).parents[2]
# Arguments: the strategy, the run's folder, how many CPU devices, options of the toy app.
CHILD = """
import json, sys
import tensorflow as tf
from unroll.apps.core import config, training
from unroll.apps.core.runs import Run
from tests.apps import toy

strategy, path, devices, *options = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
split = [tf.config.LogicalDeviceConfiguration()] * int(devices)
tf.config.set_logical_device_configuration(cpu, split)
train = training.train
logs, weights = [], {}

class Progress(training.Progress):
    def on_epoch_end(self, epoch, given=None):
        super().on_epoch_end(epoch, given)
        logs.append(self.history[-1])
        total = sum(float(abs(v.numpy()).sum()) for v in self.model.trainable_variables)
        weights["sum"] = total

training.Progress = Progress
resume = "--resume" in options
settings = config.parse(toy, [option for option in options if option != "--resume"])
train(toy, settings, Run(path), strategy=strategy, resume=resume)
print("RESULT", json.dumps([logs, weights]))
"""


def start(strategy, path, *options, devices=1, tf_config=None):
    Path(path).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    if tf_config:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, strategy, str(path), str(devices), *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(*processes, seconds=100):
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-3000:]
    lines = [out.strip().splitlines()[-1] for out, _ in said]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def state(path):
    with np.load(path / "state.npz") as file:
        return {name: file[name] for name in file.files if name != "progress"}


def figures(logs, name):
    return np.array([epoch[name] for epoch in logs])


def cluster_of_two():
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two)]
    return [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in (0, 1)
    ]


# One bucket of 31 leaves a batch of one example: one replica has none of it. The clipping binds at
# each step, so that clipping the replicas' parts instead of their sum would show.
OPTIONS = ["--no-normalize", "--dropout=0", "--clip-norm=0.05", "--batch-size=31", "--epochs=3"]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    path = tmp_path_factory.mktemp("default")
    [(logs, _)] = results(start("default", path, *OPTIONS))
    return logs


def test_mirrored_gives_the_losses_of_one_device(tmp_path, default):
    [(logs, _)] = results(start("mirrored", tmp_path, *OPTIONS, devices=2))
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(figures(logs, name), figures(default, name), atol=5e-3)


def test_mirrored_resumes(tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    options = ["--batch-size=31"]
    first = start("mirrored", twice, *options, "--epochs=1", devices=2)
    results(start("mirrored", once, *options, "--epochs=2", devices=2), first)
    results(start("mirrored", twice, *options, "--epochs=2", "--resume", devices=2))
    expected, resumed = state(once), state(twice)
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(resumed[name], value, atol=1e-6, err_msg=name)


def test_workers_agree_with_each_other_and_with_one_device(tmp_path, default):
    paths = [tmp_path / "chief", tmp_path / "other"]
    children = [
        start("multiworker", path, *OPTIONS, tf_config=config)
        for path, config in zip(paths, cluster_of_two(), strict=True)
    ]
    (chief, chief_weights), (other, other_weights) = results(*children)
    assert chief == other
    assert chief_weights == other_weights
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(figures(chief, name), figures(default, name), atol=5e-3)
    assert {"best.weights.h5", "state.npz", "history.json"} <= {p.name for p in paths[0].iterdir()}
    assert list(paths[1].iterdir()) == []


@pytest.mark.parametrize("name", ["two", ""])
def test_unknown_strategy(name):
    with pytest.raises(UsageError, match="must be one of default, mirrored, multiworker, tpu"):
        distribution.strategy(name)


def test_without_a_tpu():
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
def test_broken_tf_config(monkeypatch, given):
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
def test_chief(monkeypatch, cluster, task, chief):
    spec = {job: ["a:1", "b:2"] for job in cluster}
    config = {"cluster": spec, "task": {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.is_chief("multiworker") is chief
    assert distribution.is_chief("mirrored") is True
