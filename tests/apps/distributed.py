"""Trains in a process of its own, since TensorFlow's devices are set before it starts.

`python -m tests.apps.distributed DEVICES` splits the CPU into logical devices and reads jobs from
its standard input, one JSON object per line: `{"app": module, "options": [...], "strategy": name,
"run": folder, "resume": bool, "copy": folder or null}`. For each job it writes a line, either
`{"history": [...], "sum": float}` (of the absolute values of the trained weights) or `{"error":
traceback}`. With "copy", the run's folder is copied after the first epoch.
"""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Trainer:
    """The process. Use it in a `with` block."""

    def __init__(self, devices: int = 1, tf_config: dict | None = None):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment.pop("TF_CONFIG", None)
        if tf_config:
            environment["TF_CONFIG"] = json.dumps(tf_config)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.distributed", str(devices)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *exception) -> None:
        if exception[0]:
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self._errors.close()

    def train(self, run: Path, *options: str, app: str = "tests.apps.toy", **job) -> dict:
        """The result of a job.

        Raises:
            RuntimeError: with what the process wrote, if the training failed.
        """
        job = {"resume": False, "copy": None, **job, "app": app, "options": options}
        job["run"] = str(run)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(job, default=str) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read().decode(errors="replace")[-3000:])
        result = json.loads(line)
        if "error" in result:
            raise RuntimeError(result["error"])
        return result


def train_together(trainers: list[Trainer], runs: list[Path], *options: str, **job) -> list[dict]:
    """The results of workers that train together. If one fails, the others are killed."""

    def train(trainer: Trainer, run: Path) -> dict:
        try:
            return trainer.train(run, *options, **job)
        except BaseException:
            for other in trainers:
                other.process.kill()
            raise

    with ThreadPoolExecutor(len(trainers)) as pool:
        return list(pool.map(train, trainers, runs))


def _train(job: dict) -> dict:
    from unroll.apps.core import config, training
    from unroll.apps.core.runs import Run

    result = {}

    class Progress(training.Progress):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            weights = self.model.trainable_variables
            result["history"] = list(self.history)
            result["sum"] = sum(float(abs(weight.numpy()).sum()) for weight in weights)

        def save(self):
            super().save()
            if job["copy"] and self.epochs == 1:
                shutil.copytree(self.run.path, job["copy"])

    app = importlib.import_module(job["app"])
    run = Run(job["run"])
    run.path.mkdir(parents=True, exist_ok=True)
    whole, training.Progress = training.Progress, Progress
    try:
        settings = config.parse(app, job["options"])
        training.train(app, settings, run, strategy=job["strategy"], resume=job["resume"])
    finally:
        training.Progress = whole
    return result


def main() -> None:
    """Processes the jobs on the standard input."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    tf.config.set_logical_device_configuration(cpu, devices)
    answers = sys.stdout
    for line in sys.stdin:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = _train(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()[-3000:]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
