"""The command line: what it prints, what it leaves behind, how it fails."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from tests.apps import toy
from unroll import __main__
from unroll.apps.core import cli, quiet, results, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Data, settings_of
from unroll.apps.core.runs import Run
from unroll.pipelines.errors import DataError

QUICK = ["--epochs=1", "--units=3"]


@pytest.fixture(autouse=True)
def the_toy_app(monkeypatch, tmp_path):
    """`toy` among the apps, in an empty folder."""
    apps = {**cli.describe(), "toy": toy.__doc__.splitlines()[0]}
    monkeypatch.setattr(cli, "describe", lambda: apps)
    monkeypatch.setitem(sys.modules, "unroll.apps.toy.app", toy)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    config = dataclasses.replace(toy.PRESETS["digits"], epochs=1, units=3)
    training.train(toy, config, Run(path))
    return path


@pytest.fixture
def run(trained, tmp_path) -> str:
    """The folder of a trained run, by a name as people type it."""
    shutil.copytree(trained, tmp_path / "a run")
    return "a run"


@pytest.fixture
def call(capsys):
    """Runs a command; gives its exit code and the lines of both outputs."""

    def call(*arguments: str):
        code = cli.main(list(arguments))
        said = capsys.readouterr()
        return code, said.out.split("\n")[:-1], said.err.split("\n")[:-1]

    return call


def a_terminal(*arguments: str, **more) -> subprocess.Popen:
    """A process of its own, without this one's settings."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **more},
    )


def test_the_apps_one_line_each_without_tensorflow():
    process = a_terminal("-X", "importtime", "-m", "unroll")
    out, imports = process.communicate(timeout=240)
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
        ("train", ["--units INT", "the size of the recurrent state (default: 12)", "--run STR",
                   "how the work is spread", "go on with the run in --run"]),
        ("evaluate", ["RUN...", "--split STR", "the split: train, valid or test", "--record"]),
        ("predict", ["RUN INPUT...", "--json", "the standard input, one a line"]),
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
    assert list(Path().iterdir()) == []


def test_train_ends_with_a_table_and_the_folder(call):
    code, out, _ = call("toy", "train", *QUICK, "--data=long_digits")
    assert code == 0
    assert out[-1] == "runs/toy/long_digits-1"
    table = dict([cell.strip() for cell in line.split("│")[1:3]] for line in out if "│" in line)
    assert table.keys() >= {"data", "parameters", "epochs", "best val_accuracy", "minutes", "run"}
    assert table["data"] == "long_digits"
    assert table["epochs"] == "1, the best 1"
    config = Run.open(toy, out[-1]).config(toy)
    assert config == dataclasses.replace(toy.PRESETS["long_digits"], epochs=1, units=3)
    assert (Path(out[-1]) / "environment.json").is_file()


def test_a_folder_of_ones_own_and_options_in_any_order(call):
    code, out, _ = call("toy", "train", "--units", "3", "--run", "mine/1", "--epochs", "1")
    assert code == 0
    assert out[-1] == "mine/1"
    assert Run.open(toy, "mine/1").config(toy).units == 3
    code, _, err = call("toy", "train", *QUICK, "--run=mine/1")
    assert code == 2
    assert err == ["unroll: --run=mine/1 exists: name another folder, or use --resume."]
    assert Run.open(toy, "mine/1").config(toy).units == 3


def test_resume_of_a_finished_run_changes_nothing(call, run):
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
def test_a_run_that_fails_in_its_first_epoch_leaves_nothing(call, monkeypatch, error, code):
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
    assert list(Path("runs/toy").iterdir()) == []


def test_a_failed_resume_takes_nothing_away(call, monkeypatch, run):
    Path(run, "state.npz").unlink()
    before = sorted(path.name for path in Path(run).iterdir())

    def load(config, assets=None):
        raise DataError("the data are elsewhere")

    monkeypatch.setattr(toy, "load", load)
    assert call("toy", "train", f"--run={run}", "--resume")[0] == 2
    assert sorted(path.name for path in Path(run).iterdir()) == before


def test_a_loss_that_is_not_finite_is_one_line(call):
    code, _, err = call("toy", "train", *QUICK, "--learning-rate=1e30", "--clip-norm=0")
    assert code == 2
    assert len(err) == 1
    assert "--learning-rate" in err[0]
    assert not any(Path("runs/toy").iterdir())


def test_a_defect_is_a_traceback(monkeypatch):
    def build(config, assets):
        raise RuntimeError("a defect")

    monkeypatch.setattr(toy, "build", build)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["toy", "train"])
    assert list(Path("runs/toy").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("nope", ["no app 'nope'", "sentiment, ", ", toy"]),
        ("toy", ["needs a verb", "train, evaluate, predict, export", "none"]),
        ("toy learn", ["needs a verb", "'learn'"]),
        ("toy train --unitz=3", ["--unitz=3", "did you mean --units?", "--strategy", "--epochs"]),
        ("toy train --units=x", ["--units", "'x'"]),
        ("toy train --strategy=two", ["--strategy", "'two'", "'mirrored'"]),
        ("toy train --data=nope", ["--data=nope", "digits, long_digits"]),
        ("toy train --resume", ["--resume", "--run=DIR"]),
        ("toy train --strategy=multiworker --run=x", ["TF_CONFIG"]),
        ("toy train --resume --run=none", ["none is no run folder"]),
        ("toy train --resume --run=RUN --units=4", ["own configuration", "--units=4"]),
        ("toy train --run=file/below", ["file/below cannot be made"]),
        ("toy evaluate", ["needs the folder of a run"]),
        ("toy evaluate none", ["none is no run folder", "config.json"]),
        ("toy evaluate RUN RUN", ["--record"]),
        ("toy evaluate RUN --split=dev", ["--split=dev", "train, valid, test"]),
        ("toy evaluate RUN --splits=dev", ["--splits=dev", "--split"]),
        ("toy evaluate WEIGHTLESS", ["WEIGHTLESS has no weights"]),
        ("toy predict", ["RUN"]),
        ("toy predict RUN", ["needs an input"]),
        ("toy predict none x", ["none is no run folder"]),
        ("toy predict RUN 1 --jsn", ["--jsn", "--json"]),
        ("toy predict RUN 1 --least=2", ["least", "[0, 1]", "2.0"]),
        ("toy predict RUN 1 --units=2", ["--units=2", "--least"]),
        ("toy export none", ["none is no run folder"]),
        ("toy export RUN --formats=onnx", ["--formats=onnx", "saved_model, litert"]),
        ("toy export RUN --to=file", ["file"]),
        ("sentiment evaluate RUN", ["RUN is a run of toy, not of sentiment"]),
    ],
)
def test_wrong_use_is_one_line_and_changes_nothing(call, monkeypatch, run, command, parts):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    Path("file").touch()
    shutil.copytree(run, "WEIGHTLESS")
    Path("WEIGHTLESS/best.weights.h5").unlink()
    os.rename(run, "RUN")
    before = sorted(Path().rglob("*"))
    code, out, err = call(*command.split())
    assert code == 2
    assert len(err) == 1, err
    assert err[0].startswith("unroll: ")
    for part in parts:
        assert part in err[0]
    assert not any("{" in line for line in out)
    assert sorted(Path().rglob("*")) == before


def test_evaluate_ends_with_an_object_that_the_run_keeps(call, run):
    code, out, err = call("toy", "evaluate", run, "--split=valid")
    assert (code, err) == (0, [])
    figures = json.loads(out[-1])
    assert figures["examples"] == toy.SIZES["valid"]
    assert json.loads(Path(run, "metrics.json").read_text()) == {"valid": figures}


def test_record_writes_the_row(call, run, monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("".join(f"{mark}\n" for mark in results.MARKS))
    monkeypatch.setattr(toy, "__file__", str(tmp_path / "app.py"))
    code, out, _ = call("toy", "evaluate", run, "--record", "--variant=small")
    assert code == 0
    [row] = json.loads((tmp_path / "results.json").read_text())
    assert json.loads(out[-1]) == row
    assert row["variant"] == "small"
    assert "small" in (tmp_path / "README.md").read_text()


def test_a_split_that_the_data_lack(call, run, monkeypatch):
    data = toy.load(toy.PRESETS["digits"])
    monkeypatch.setattr(toy, "load", lambda *_: Data(data.train, data.valid, None, data.assets))
    code, _, err = call("toy", "evaluate", run)
    assert (code, err) == (2, ["unroll: --split=test: digits has train, valid."])


def test_predict_for_people_and_for_programs(call, run):
    code, out, err = call("toy", "predict", run, "1 5 9", "8 2")
    assert (code, err) == (0, [])
    assert len(out) == 2
    code, again, _ = call("toy", "predict", run, "--json", "1 5 9", "8 2")
    answers = [json.loads(line) for line in again]
    assert [answer["text"] for answer in answers] == ["1 5 9", "8 2"]
    assert out == [toy.show(answer) for answer in answers]


def test_what_only_the_search_reads_can_be_set_for_a_trained_run(call, run):
    _, own, _ = call("toy", "predict", run, "1 5 9", "--json")
    _, strict, _ = call("toy", "predict", run, "1 5 9", "--json", "--least=1.0")
    assert json.loads(own[0])["label"] in ("rising", "falling")
    assert json.loads(strict[0])["label"] == ""
    assert json.loads(own[0])["probabilities"] == json.loads(strict[0])["probabilities"]
    assert call("toy", "evaluate", run, "--split=valid", "--least", "0.5")[0] == 0
    assert json.loads(Path(run, "metrics.json").read_text())["valid"]["search"] == {"least": 0.5}
    opened = Run.open(toy, run, search={"least": 0.5})
    assert opened.config(toy).least == settings_of(opened.assets())["least"] == 0.5
    assert call("toy", "export", run, "--formats=saved_model", "--least=1")[0] == 0
    [folder] = Path().glob("saved_models/**/saved_model.pb")
    served = tf.saved_model.load(folder.parent).signatures["serving_default"]
    assert served(text=tf.constant(["1 5 9"]))["label"].numpy().tolist() == [b""]
    assert Run.open(toy, run).config(toy).least == 0


@pytest.fixture
def echo(monkeypatch):
    """An app that shows what it was given."""
    monkeypatch.setattr(toy, "predict", lambda model, assets, inputs: [{"x": x} for x in inputs])
    monkeypatch.setattr(toy, "show", lambda result: result["x"])


def test_predict_reads_lines_as_they_are(call, run, echo, monkeypatch):
    given = b"a\0b\n\n  [bold] :smile: -1\n" + "é 你好\u2028x\n".encode() + b"\xff\n--json"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    code, out, _ = call("toy", "predict", run, "first", "-", "last", "--json")
    assert code == 0
    expected = ["a\0b", "", "  [bold] :smile: -1", "é 你好\u2028x", "\ufffd", "--json"]
    assert [json.loads(line)["x"] for line in out] == ["first", *expected, "last"]


def test_predict_prints_a_text_as_it_is(call, run, echo):
    texts = ["[bold]x[/nope] :smile:", "long " * 100 + "end", "-1", "--json"]
    code, out, _ = call("toy", "predict", run, "--", *texts)
    assert code == 0
    assert out == texts


def test_predict_of_bytes_that_are_no_text(call, run, echo):
    code, out, _ = call("toy", "predict", run, "bad \udcff byte")
    assert (code, out) == (0, ["bad \ufffd byte"])
    Path("\udcff").touch()
    code, out, _ = call("toy", "predict", run, "--json", "\udcff")
    assert json.loads(out[0])["x"] == "\udcff"


def test_predict_without_a_line(call, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    code, _, err = call("toy", "predict", run, "-")
    assert code == 2
    assert "needs an input" in err[0]


def test_predict_in_a_stream(call, run, monkeypatch):
    code, _, err = call("toy", "predict", run, "1 5 9", "--stream")
    assert (code, err) == (2, ["unroll: --stream: this app reads an input as a whole."])
    monkeypatch.setattr(toy, "stream", lambda *given: iter(given[-1].split()), raising=False)
    code, out, _ = call("toy", "predict", run, "1 5 9", "8 2", "--stream")
    assert (code, out) == (0, ["159", "82"])
    code, _, err = call("toy", "predict", run, "1 5 9", "--stream", "--json")
    assert (code, len(err)) == (2, 1)
    assert "leave --json out" in err[0]


def test_export_ends_with_the_folder(call, run):
    code, out, err = call("toy", "export", run, "--to=models", "--formats=litert")
    assert (code, err) == (0, [])
    assert out[-1] == "models/toy/1"
    assert Path(out[-1], "model.tflite").is_file()
    assert not Path(out[-1], "saved_model.pb").exists()


def test_a_terminal_sees_no_start_up_and_can_stop_and_go_on(tmp_path):
    for split, repeats in (("train", 20), ("valid", 5), ("test", 5)):
        text = "text\tlabel\n" + "a good film\tyes\na bad film\tno\n" * repeats
        (tmp_path / f"{split}.tsv").write_text(text)
    command = ["-m", "unroll", "sentiment", "train", "--data=.", "--units=2", "--run=run"]
    # What runs in a shell's background ignores an interrupt, and its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    training = a_terminal(*command, "--epochs=10000", "--patience=10000")
    signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "state.npz").exists() and time.monotonic() < deadline:
            assert training.poll() is None, training.communicate()
            time.sleep(0.1)
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=240)
    finally:
        training.kill()
    assert training.returncode == 130
    resume = "unroll sentiment train --run=run --resume"
    assert err == f"unroll: stopped. To go on: {resume}\n"
    assert (tmp_path / "run" / "best.weights.h5").exists()


def test_chatter_is_dropped_and_all_else_is_kept(capfd):
    with quiet.without_chatter():
        os.write(2, b"I0000 00:00 port.cc:153] oneDNN custom operations are on. You may\n")
        os.write(2, b"E0000 something is wrong\nhalf a line")
    os.write(2, b" and what follows\n")
    err = capfd.readouterr().err
    assert err == "E0000 something is wrong\nhalf a line and what follows\n"


def test_what_an_aborted_process_says_is_kept():
    abort = (
        "import os; from unroll.apps.core import quiet\n"
        "with quiet.without_chatter():\n"
        "    os.write(2, b'F0000 no such instruction\\n')\n"
        "    os.abort()\n"
    )
    process = a_terminal("-c", abort)
    _, err = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGABRT
    assert "F0000 no such instruction\n" in err


def test_the_installed_command_is_this_one(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda: 7)
    assert __main__.main() == 7
