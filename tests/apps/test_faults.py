"""Faults of the machine: full disks, signals, deleted folders, two processes, broken files."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.apps import toy
from tests.apps.children import Child
from tests.apps.test_locks import hold
from unroll.apps.core import checksums, cli, export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import Run

TRAIN = ["toy", "train", "--units=3", "--run=a run"]


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def main(*arguments: str) -> int:
    """The command line in a child process."""
    sys.modules["unroll.apps.toy.app"] = toy
    apps = cli.describe()
    cli.describe = lambda: apps | {"toy": "a toy"}
    return cli.main(list(arguments))


def after_first_epoch(function) -> None:
    """Calls a function when the first epoch of a training is saved."""
    save = training.Progress.save

    def save_and_call(self):
        save(self)
        if self.epochs == 1:
            function()

    training.Progress.save = save_and_call


def train_for_long(connection):
    after_first_epoch(lambda: connection.send("saved"))
    return main(*TRAIN, "--epochs=100000", "--patience=100000")


def test_sigterm_ends_a_training_with_how_to_continue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Child(train_for_long) as child:
        assert child.receive() == "saved"
        os.kill(child.process.pid, signal.SIGTERM)
        assert child.wait() == 128 + signal.SIGTERM
        last = child.output().splitlines()[-1]
    resume = "unroll toy train --run='a run' --resume"
    assert last == f"unroll: stopped. To continue: {resume}"
    Run("a run").verify()
    assert not list(Path("a run").glob(".*"))


def train_on_a_full_disk(connection):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    after_first_epoch(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)))
    return main(*TRAIN, "--epochs=3")


def test_a_full_disk_ends_a_training_with_one_line_and_keeps_the_last_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Child(train_on_a_full_disk) as child:
        assert child.wait() == 2
        last = child.output().splitlines()[-1]
    name, reason = last.removeprefix("unroll: a run/").split(": ", 1)
    assert name in ("best.weights.h5", "state.npz")
    resume = "unroll toy train --run='a run' --resume"
    assert reason == f"{os.strerror(errno.EFBIG)}. To continue: {resume}"
    run = Run("a run")
    run.verify()
    progress = training.Progress(run, run.config(toy), "max")
    model = toy.build(run.config(toy), run.assets())
    model.optimizer.build(model.trainable_variables)
    progress.set_model(model)
    progress.restore()
    assert progress.epochs == 1
    assert not list(Path("a run").glob(".*"))


def export_and_wait(connection):
    def check(*arguments):
        connection.send("exported")
        connection.recv()

    export.check = check
    return main("toy", "export", "a run", "--formats=litert")


@pytest.mark.exhaustive
def test_sigterm_ends_an_export_without_a_trace(run):
    with Child(export_and_wait) as child:
        assert child.receive() == "exported"
        assert list(Path("saved_models/toy").glob(".export-*"))
        os.kill(child.process.pid, signal.SIGTERM)
        assert child.wait() == 128 + signal.SIGTERM
        assert child.output().splitlines()[-1] == "unroll: stopped."
    assert not Path("saved_models").exists()


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_an_exit_code_and_the_handlers_are_restored(call, monkeypatch, stop, code):
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    # The process of the tests may have been started in the background, or by `nohup`.
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    monkeypatch.setattr(training, "train", lambda *_, **__: os.kill(os.getpid(), stop))
    try:
        got, out, err = call("toy", "train", "--run=mine")
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (got, out, err) == (code, [], ["unroll: stopped."])
    assert not Path("mine").exists()


def test_an_ignored_signal_remains_ignored(call, monkeypatch):
    def train(*arguments, **how):
        os.kill(os.getpid(), signal.SIGHUP)
        raise UsageError("trained on")

    monkeypatch.setattr(training, "train", train)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        assert call("toy", "train")[2] == ["unroll: trained on"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_how_to_continue_has_the_options_that_the_run_lacks(call, run, monkeypatch):
    def interrupted(*arguments, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    options = ["--strategy=mirrored", "--manual-dir=my data"]
    code, _, err = call("toy", "train", f"--run={run}", "--resume", *options)
    assert code == 130
    command = "unroll toy train --run='a run' --resume --strategy=mirrored --manual-dir='my data'"
    assert err == [f"unroll: stopped. To continue: {command}"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "a run/x"), "a run/x: No space left on device."),
        (OSError(30, "Read-only file system"), "the output: Read-only file system."),
        (OSError("unable to lock file"), "unable to lock file"),
        (MemoryError(), "there is not enough memory: try a smaller model or --batch-size."),
        (tf.errors.ResourceExhaustedError(None, None, "OOM: 9\n1"), "OOM: 9 (ResourceExhausted"),
        (tf.errors.UnavailableError(None, None, "peer is down"), "peer is down (Unavailable"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_one_line(call, monkeypatch, error, line):
    def train(*arguments, **how):
        raise error

    monkeypatch.setattr(training, "train", train)
    code, out, err = call("toy", "train")
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"unroll: {line}")
    assert not Path("runs").exists()


@pytest.mark.parametrize("verb", ["evaluate", "report"])
def test_figures_are_printed_where_they_cannot_be_written(call, run, monkeypatch, verb):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    before = files(run)
    monkeypatch.setattr(checksums, "write_bytes", refuse)
    monkeypatch.setattr("unroll.apps.core.evaluation.write_bytes", refuse)
    monkeypatch.setattr(toy, "score", lambda trained, dataset: {"examples": 103, "errors": 7})
    code, out, err = call("toy", verb, run)
    assert code == 2
    assert "7" in out[-1]
    name = {"evaluate": "checksums/metrics.json", "report": "report/test.md"}[verb]
    assert err == [f"unroll: a run/{name}: Permission denied."]
    assert files(run) == before
    assert not Path(run, "report").exists()


def test_a_standard_output_that_is_full_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "unroll"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "unroll: the output: No space left on device.\n"


def test_a_run_in_use_is_refused_and_not_changed(call, run):
    live = Path("live")
    live.mkdir()
    with Child(hold, Path(run).resolve()) as child, Child(hold, live.resolve()) as other:
        pids = child.receive(), other.receive()
        before = files("."), sorted(Path().rglob("*"))
        for pid, options in zip(pids, ([f"--run={run}", "--resume"], ["--run=live"]), strict=True):
            code, out, err = call("toy", "train", *options)
            assert (code, out, len(err)) == (2, [], 1)
            assert f"is in use by process {pid} on " in err[0]
        assert (files("."), sorted(Path().rglob("*"))) == before
        for each in (child, other):
            each.process.kill()
            each.wait()


@pytest.mark.parametrize(
    "name",
    ["best.weights.h5", "state.npz", "history.json", "environment.json", "config.json",
     "assets/digits.txt", "assets/labels.txt"],
)  # fmt: skip
def test_a_broken_file_of_a_run_is_named_when_it_is_resumed(call, run, monkeypatch, name):
    monkeypatch.setattr(toy, "load", lambda *_, **__: pytest.fail("data were loaded"))
    content = Path(run, name).read_bytes()
    changed = bytes([content[0] ^ 255]) + content[1:]
    for broken in (content[:-1], b"", changed):
        Path(run, name).write_bytes(broken)
        before = files(run)
        code, out, err = call("toy", "train", f"--run={run}", "--resume")
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith(f"unroll: a run/{name} ")
        assert files(run) == before


@pytest.mark.parametrize("verb", ["evaluate", "predict", "report", "export"])
def test_a_broken_file_of_a_run_is_named_when_it_is_used(call, run, verb):
    inputs = ["1 2"] if verb == "predict" else []
    for name in ("best.weights.h5", "assets/digits.txt", "config.json"):
        content = Path(run, name).read_bytes()
        Path(run, name).write_bytes(content[:-2])
        code, out, err = call("toy", verb, run, *inputs)
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].startswith(f"unroll: a run/{name} ")
        Path(run, name).write_bytes(content)
    shutil.rmtree(Path(run, "checksums"))
    assert "has no checksum" in call("toy", verb, run, *inputs)[2][0]
