"""The command line: its output, its files, its errors."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest

from tests.apps import toy
from unroll import __main__
from unroll.apps.core import cli, quiet, results, training
from unroll.apps.core import runs as run_folders
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Report
from unroll.apps.core.runs import Run
from unroll.pipelines.errors import DataError

QUICK = ["--epochs=1", "--units=3"]
COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def empty_working_directory(toy_among_the_apps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start(*arguments: str) -> subprocess.Popen:
    """A Python process without the environment variables of the tests."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def files() -> set[Path]:
    """All files and folders below the working directory."""
    return set(Path().rglob("*"))


def test_the_list_of_apps_does_not_import_tensorflow():
    process = start("-X", "importtime", "-m", "unroll")
    out, imports = process.communicate()
    assert process.returncode == 0
    assert "tensorflow" not in imports
    lines = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines())
    assert lines["sentiment"].startswith("Sentiment of a text")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["toy", "--help"]])
def test_help_names_the_verbs(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, [])
    for verb in cli.VERBS:
        assert any(f"APP {verb}" in line for line in out)


@pytest.mark.parametrize(
    ("verb", "parts"),
    [
        ("train", ["--units INT", "size of the recurrent state (default: 12)", "--run STR",
                   "distribution over devices", "continue the interrupted run"]),
        ("evaluate", ["RUN...", "--split STR", "train, valid or test", "--record", "--least"]),
        ("predict", ["RUN INPUT...", "--json", "reads lines from the standard input", "--plot"]),
        ("report", ["RUN", "--split STR", "(default: test)"]),
        ("export", ["RUN", "--to STR", "--formats STR", "(default: saved_models)"]),
    ],
)  # fmt: skip
def test_help_of_a_verb(call, verb, parts):
    code, out, err = call("toy", verb, "--help")
    assert (code, err) == (0, [])
    assert out[0].startswith(f"usage: unroll toy {verb} ")
    text = " ".join(line.strip("│ ") for line in out)
    for part in parts:
        assert part in text
    assert files() == set()


def test_train_ends_with_a_table_and_the_folder(trained):
    code, out = trained.code, trained.output
    assert code == 0
    assert out[-1] == "runs/toy/long_digits-1"
    table = dict([cell.strip() for cell in line.split("│")[1:3]] for line in out if "│" in line)
    assert table.keys() >= {"data", "parameters", "epochs", "best val_accuracy", "minutes", "run"}
    assert table["data"] == "long_digits"
    assert table["epochs"] == "1 (best: 1)"
    config = Run.open(toy, trained.folder / out[-1]).config(toy)
    assert config == dataclasses.replace(toy.PRESETS["long_digits"], epochs=1, units=3)
    assert (trained.folder / out[-1] / "environment.json").is_file()


def test_the_folder_of_a_run_can_be_named(call, monkeypatch):
    def train(app, config, run, **_):
        run.write_config(app, config)
        run.write(run.best.name, b"weights")
        names = ("epochs", "best_epoch", "parameters", "seconds", config.monitor)
        return dict.fromkeys(names, 0)

    monkeypatch.setattr(training, "train", train)
    code, out, _ = call("toy", "train", "--units", "3", "--run", "mine/1", "--epochs", "1")
    assert code == 0
    assert out[-1] == "mine/1"
    assert Run.open(toy, "mine/1").config(toy).units == 3
    code, _, err = call("toy", "train", *QUICK, "--run=mine/1")
    assert code == 2
    assert err == ["unroll: --run=mine/1 exists: name another folder, or use --resume."]
    assert Run.open(toy, "mine/1").config(toy).units == 3


def test_resuming_a_finished_run_changes_nothing(call, run):
    before = Path(run, "state.npz").read_bytes()
    code, out, _ = call("toy", "train", f"--run={run}", "--resume")
    assert code == 0
    assert out[-1] == run
    assert Path(run, "state.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("broken\nin two"), 2),
        (DataError("broken in two"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_run_that_fails_in_its_first_epoch_leaves_no_files(call, monkeypatch, error, code):
    def train(app, config, run, **_):
        run.write_config(app, config)
        (run.path / "logs").mkdir()
        raise error

    monkeypatch.setattr(training, "train", train)
    for options in ([], ["--run=mine"]):
        got, out, err = call("toy", "train", *options)
        assert (got, out) == (code, [])
        assert err == ["unroll: stopped." if code == 130 else "unroll: broken in two"]
    assert [path for path in Path().rglob("*") if path.is_file()] == []
    assert not Path("mine").exists()
    assert not Path("runs").exists()


def test_a_failed_resume_removes_nothing(call, monkeypatch, run):
    Path(run, "state.npz").unlink()
    before = files()

    def load(*given, **how):
        raise DataError("the data are missing")

    monkeypatch.setattr(toy, "load", load)
    assert call("toy", "train", f"--run={run}", "--resume")[0] == 2
    assert files() == before


def test_a_defect_is_a_traceback(monkeypatch):
    def build(config, assets):
        raise RuntimeError("a defect")

    monkeypatch.setattr(toy, "build", build)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["toy", "train"])
    assert not Path("runs").exists()


def test_sizes_that_a_layer_refuses_are_incorrect_use(call):
    code, _, err = call("toy", "train", "--units=0")
    assert code == 2
    assert err[0].startswith("unroll: The model cannot be built with these options: ")
    assert "units" in err[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("nope", ["no app 'nope'", "sentiment, ", ", toy"]),
        (
            "toy",
            [
                "one of the verbs",
                "train, evaluate, predict, report, card, export, demo",
                "got none",
            ],
        ),
        ("toy learn", ["one of the verbs", "'learn'"]),
        ("toy train --unitz=3", ["--unitz=3", "did you mean --units?", "--strategy", "--epochs"]),
        ("toy train --units=x", ["--units", "'x'"]),
        ("toy train --strategy=two", ["--strategy", "'two'", "'mirrored'"]),
        ("toy train --data=nope", ["--data=nope", "digits, long_digits"]),
        ("toy train --resume", ["--resume", "--run=DIR"]),
        ("toy train --strategy=multiworker --run=x", ["TF_CONFIG"]),
        ("toy train --resume --run=none", ["none is not a run folder"]),
        ("toy train --resume --run=RUN --units=4", ["configuration of the run", "--units=4"]),
        ("toy train --run=file/below", ["file/below cannot be created"]),
        ("toy train --monitor=val_acuracy", ["--monitor=val_acuracy", "val_accuracy"]),
        ("toy evaluate", ["needs the folder of a run"]),
        ("toy evaluate none", ["none is not a run folder", "config.json"]),
        ("toy evaluate RUN RUN", ["--record"]),
        ("toy evaluate RUN --record --ensemble", ["--ensemble is for --record of several runs"]),
        ("toy evaluate RUN --split=dev", ["--split=dev", "train, valid, test"]),
        ("toy evaluate RUN --splits=dev", ["--splits=dev", "--split"]),
        ("toy evaluate OLD", ["OLD is a run of format 1", "train it again"]),
        ("toy evaluate RUN --record", ["RUN was trained with local changes to the code"]),
        ("toy evaluate WEIGHTLESS", ["WEIGHTLESS has no weights"]),
        ("toy predict", ["RUN"]),
        ("toy predict RUN", ["needs an input"]),
        ("toy predict none x", ["none is not a run folder"]),
        ("toy predict RUN 1 --jsn", ["--jsn", "--json"]),
        ("toy predict RUN 1 --least=2", ["least", "[0, 1]", "2.0"]),
        ("toy predict RUN 1 --units=2", ["--units=2", "--least"]),
        ("toy predict RUN 1 --stream", ["--stream: this app reads an input as a whole"]),
        ("toy train --units=-3", ["units must be in [0, 2**31), got -3"]),
        ("toy train --batch-size=99999999999", ["batch_size must be in [0, 2**31)"]),
        ("toy train --weight-decay=nan", ["weight_decay must be a number"]),
        ("toy predict RUN 1 --plot=new", ["--plot: this app does not draw its results"]),
        ("toy report", ["RUN"]),
        ("toy report none", ["none is not a run folder"]),
        ("toy report RUN --split=dev", ["--split=dev", "train, valid, test"]),
        ("toy report RUN --units=2", ["--units=2", "--least"]),
        ("toy export none", ["none is not a run folder"]),
        ("toy export RUN --formats=torch", ["--formats=torch", "saved_model, litert, onnx"]),
        ("toy export RUN --to=file", ["file"]),
        ("sentiment evaluate RUN", ["RUN is a run of toy, not of sentiment"]),
    ],
)
def test_incorrect_use_is_one_line_and_changes_nothing(call, monkeypatch, run, command, parts):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(run_folders, "git_commit", lambda: COMMIT)
    Run(run).write_environment(commit=f"{COMMIT}+")
    Path("file").touch()
    shutil.copytree(run, "OLD")
    Run("OLD").write("config.json", b'{"app": "toy"}')
    shutil.copytree(run, "WEIGHTLESS")
    Path("WEIGHTLESS/best.weights.h5").unlink()
    os.rename(run, "RUN")
    before = files()
    code, out, err = call(*command.split())
    assert code == 2
    assert len(err) == 1, err
    assert err[0].startswith("unroll: ")
    for part in parts:
        assert part in err[0]
    assert not any("{" in line for line in out)
    assert files() == before


def test_evaluate_prints_the_figures_and_adds_them_to_the_run(call, run):
    code, out, err = call("toy", "evaluate", run, "--split=valid")
    assert (code, err) == (0, [])
    figures = json.loads(out[-1])
    assert figures["examples"] == toy.SIZES["valid"]
    assert Run(run).read_metrics() == {"valid": figures}


def test_record_writes_a_row(call, run, monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("".join(f"{mark}\n" for mark in results.MARKS))
    monkeypatch.setattr(toy, "__file__", str(tmp_path / "app.py"))
    monkeypatch.setattr(run_folders, "git_commit", lambda: COMMIT)
    monkeypatch.setattr(run_folders, "has_commit", lambda commit: commit == COMMIT)
    Run(run).write_environment(seconds=60.0, commit=COMMIT)
    code, out, _ = call("toy", "evaluate", run, "--record", "--variant=small")
    assert code == 0
    [row] = json.loads((tmp_path / "results.json").read_text())
    assert json.loads(out[-1]) == row
    assert row["variant"] == "small"
    for name in ("README.md", "results.md"):
        assert "small" in (tmp_path / name).read_text()


def test_a_split_that_the_data_lack_is_one_line(call, run, monkeypatch):
    monkeypatch.setattr(toy, "SIZES", {"train": 480, "valid": 101})
    code, _, err = call("toy", "evaluate", run)
    assert (code, err) == (2, ["unroll: --split=test: long_digits has train, valid."])


def test_a_report_is_printed_and_written_into_the_run(call, run, monkeypatch):
    count = toy.report

    def report(trained, dataset):
        figure = matplotlib.figure.Figure((1, 1))
        return Report(f"{count(trained, dataset).text}\n\n| a | b |", {"confusion": figure})

    monkeypatch.setattr(toy, "report", report)
    before = files()
    code, out, err = call("toy", "report", run, "--split=valid")
    assert code == 0
    made = [f"{run}/report/valid.md", f"{run}/report/valid-confusion.png"]
    assert err == [f"unroll: wrote {path}" for path in made]
    assert out[0].endswith(" errors")
    assert out[-1] == "| a | b |"
    assert Path(made[0]).read_text().splitlines() == out
    assert files() - before == {Path(path) for path in (f"{run}/report", *made)}


def test_only_startup_messages_are_removed(capfd):
    with quiet.without_startup_messages():
        os.write(2, b"I0000 00:00 port.cc:153] oneDNN custom operations are on. You may\n")
        os.write(2, b"E0000 something is wrong\nhalf a line")
    os.write(2, b" and what follows\n")
    err = capfd.readouterr().err
    assert err == "E0000 something is wrong\nhalf a line and what follows\n"


def test_the_messages_of_an_aborted_process_are_printed():
    abort = (
        "import os; from unroll.apps.core import quiet\n"
        "with quiet.without_startup_messages():\n"
        "    os.write(2, b'F0000 no such instruction\\n')\n"
        "    os.abort()\n"
    )
    process = start("-c", abort)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGABRT
    assert "F0000 no such instruction\n" in err


def test_the_installed_command_is_the_command_line(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda: 7)
    assert __main__.main() == 7
