"""Trains in processes of their own, since TensorFlow's devices are set before it starts."""

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.apps.children import Child


class Trainer(Child):
    """A process that trains one job after another.

    Args:
        devices: the number of logical devices into which the CPU is split.
        tf_config: the worker that the process is.
    """

    def __init__(self, devices: int = 1, tf_config: dict | None = None):
        super().__init__(_serve, devices, json.dumps(tf_config or {}))

    def train(self, run: Path, *options: str, app: str = "tests.apps.toy", **job) -> dict:
        """Trains into a folder.

        Args:
            run: the folder.
            *options: of `train`.
            app: the module.
            **job: `strategy`; `resume`, whether to continue; `copy`, a folder to which the run is
                copied after its first epoch.

        Returns:
            The `history`, and `weights`, a hash of the bits of all weights, which are equal on all
            devices.

        Raises:
            RuntimeError: with the traceback, if the training failed.
        """
        defaults = {"resume": False, "copy": None}
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(defaults | job | {"app": app, "options": options, "run": run})
        result = self.receive()
        if "error" in result:
            raise RuntimeError(result["error"])
        return result


def train_together(trainers: list[Trainer], runs: list[Path], *options: str, **job) -> list[dict]:
    """The results of workers that train together. If one fails, the others are killed."""

    def train(trainer: Trainer, run: Path) -> dict:
        try:
            return trainer.train(run, *options, strategy="multiworker", **job)
        except BaseException:
            for other in trainers:
                other.process.kill()
            raise

    with ThreadPoolExecutor(len(trainers)) as pool:
        return list(pool.map(train, trainers, runs))


def cluster_of_two() -> list[dict]:
    """`TF_CONFIG` of two workers on free ports."""
    ports = []
    while len(ports) < 2:
        # Below those that the system gives to connections: nobody takes them before the workers do.
        port = random.randrange(15000, 32000)
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            ports.append(port)
    workers = [f"127.0.0.1:{port}" for port in ports]
    return [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}} for i in (0, 1)
    ]


def _serve(connection, devices: int, tf_config: str) -> None:
    import tensorflow as tf

    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CONFIG": tf_config}
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, logical)
    # Takes longer than what it saves in a short training.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send(_train(job))
        except Exception:
            connection.send({"error": traceback.format_exc()[-3000:]})


def _train(job: dict) -> dict:
    from unroll.apps.core import config, training
    from unroll.apps.core.runs import Run

    result = {}

    class Progress(training.Progress):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            result["history"] = list(self.history)
            result["weights"] = _hash(self.model)

        def save(self):
            super().save()
            if job["copy"] and self.epochs == 1:
                shutil.copytree(self.run.path, job["copy"])

    app = importlib.import_module(job["app"])
    run = Run(job["run"])
    run.path.mkdir(parents=True, exist_ok=True)
    settings = config.parse(app, list(job["options"]))
    whole, training.Progress = training.Progress, Progress
    try:
        training.train(app, settings, run, strategy=job["strategy"], resume=job["resume"])
    finally:
        training.Progress = whole
    return result


def _hash(model) -> str:
    """A hash of the bits of a model's weights, after a check that the devices' copies are equal."""
    found = hashlib.sha256()
    for weight in model.weights:
        if weight.aggregation == "only_first_replica":
            continue  # a state that each replica carries from batch to batch
        copies = getattr(weight.value, "values", (weight.value,))
        contents = {copy.numpy().tobytes() for copy in copies}
        assert len(contents) == 1, f"{weight.path} differs among the devices"
        found.update(contents.pop())
    return found.hexdigest()
