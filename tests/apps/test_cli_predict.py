"""The command line: `predict` and its options."""

import io
import json
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tests.apps import toy
from tests.apps.test_cli import files
from unroll.apps.core import export
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import Run


def test_predict_prints_text_or_json(call, run):
    code, out, err = call("toy", "predict", run, "1 5 9", "8 2")
    assert (code, err) == (0, [])
    assert len(out) == 2
    code, again, _ = call("toy", "predict", run, "--json", "1 5 9", "8 2")
    answers = [json.loads(line) for line in again]
    assert [answer["text"] for answer in answers] == ["1 5 9", "8 2"]
    assert out == [toy.show(answer) for answer in answers]


def test_search_options_apply_to_a_trained_run(call, run, monkeypatch):
    monkeypatch.setattr(export, "check", lambda *_: ({}, {}))  # `test_export.py` tests it
    _, own, _ = call("toy", "predict", run, "1 5 9", "--json")
    _, strict, _ = call("toy", "predict", run, "1 5 9", "--json", "--least=1.0")
    assert json.loads(own[0])["label"] in ("rising", "falling")
    assert json.loads(strict[0])["label"] == ""
    assert json.loads(own[0])["probabilities"] == json.loads(strict[0])["probabilities"]
    assert call("toy", "evaluate", run, "--split=valid", "--least", "0.5")[0] == 0
    assert json.loads(Path(run, "metrics.json").read_text())["valid"]["search"] == {"least": 0.5}
    assert call("toy", "export", run, "--formats=saved_model", "--least=1")[0] == 0
    [folder] = Path().glob("saved_models/**/saved_model.pb")
    served = tf.saved_model.load(folder.parent).signatures["serving_default"]
    assert served(text=tf.constant(["1 5 9"]))["label"].numpy().tolist() == [b""]
    assert Run.open(toy, run).config(toy).least == 0


def test_predict_and_export_read_no_data(call, run, monkeypatch):
    monkeypatch.setattr(export, "check", lambda *_: ({}, {}))
    monkeypatch.setattr(toy, "load", lambda *_: pytest.fail("data were loaded"))
    before = files()
    assert call("toy", "predict", run, "1 5 9")[0] == 0
    assert files() == before
    code, out, err = call("toy", "export", run, "--to=models", "--formats=litert")
    assert (code, err) == (0, [])
    assert out[-1] == "models/toy/1"
    assert Path(out[-1], "model.tflite").is_file()
    assert not Path(out[-1], "saved_model.pb").exists()
    new = {path.parts[0] for path in files() - before}
    assert new == {"models"}


@pytest.fixture
def echo(monkeypatch):
    """Makes the app return its inputs."""
    monkeypatch.setattr(toy, "predict", lambda trained, inputs: [{"x": x} for x in inputs])
    monkeypatch.setattr(toy, "show", lambda result: result["x"])


def test_predict_does_not_change_lines(call, run, echo, monkeypatch):
    given = b"a\0b\n\n  [bold] :smile: -1\n" + "é 你好\u2028x\n".encode() + b"\xff\n--json"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    code, out, _ = call("toy", "predict", run, "first", "-", "last", "--json")
    assert code == 0
    expected = ["a\0b", "", "  [bold] :smile: -1", "é 你好\u2028x", "\ufffd", "--json"]
    assert [json.loads(line)["x"] for line in out] == ["first", *expected, "last"]


def test_a_conversation_answers_line_by_line(call, run, echo, monkeypatch):
    """An answer is there before the next line is read, and depends on the lines before."""
    read = []

    class Lines(io.BytesIO):
        def readline(self):
            read.append(len(said))
            return super().readline()

    said = []

    def converse(trained):
        return lambda line: said.append(line) or {"x": f"{len(said)} {line}"}

    monkeypatch.setattr(toy, "converse", converse, raising=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Lines(b"hello\n\xff\n\nbye")))
    code, out, _ = call("toy", "predict", run, "-")
    assert (code, out) == (0, ["1 hello", "2 \ufffd", "3 ", "4 bye"])
    assert read == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("given", "code"), [(b"a\nb\n", 0), (b"", 2)])
def test_a_model_that_does_not_converse_reads_all_lines(call, run, echo, monkeypatch, given, code):
    monkeypatch.setattr(toy, "converse", lambda trained: None, raising=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    found, out, err = call("toy", "predict", run, "-")
    assert found == code
    assert out == given.decode().splitlines()
    assert code == 0 or "needs an input" in err[0]


def test_several_runs_are_an_ensemble(call, run, monkeypatch):
    monkeypatch.setattr(toy, "ensemble", lambda members: len(members), raising=False)
    monkeypatch.setattr(
        toy, "predict", lambda trained, inputs: [{"x": f"{trained} {x}"} for x in inputs]
    )
    monkeypatch.setattr(toy, "show", lambda result: result["x"])
    assert call("toy", "predict", run, run, run, "1 2") == (0, ["3 1 2"], [])
    before = files()
    with monkeypatch.context() as patch:
        patch.setattr(toy, "ensemble", lambda members: members[1])
        code, out, _ = call("toy", "evaluate", run, run)
    figures = json.loads(out[0])
    assert (code, figures["runs"], figures["split"]) == (0, [run, run], "test")
    assert figures["examples"] > 0
    assert files() == before
    code, _, err = call("toy", "predict", "none", run, "1 2")
    assert (code, len(err)) == (2, 1)


def test_predict_does_not_change_printed_text(call, run, echo):
    texts = ["[bold]x[/nope] :smile:", "long " * 100 + "end", "-1", "--json"]
    code, out, _ = call("toy", "predict", run, "--", *texts)
    assert code == 0
    assert out == texts


def test_invalid_utf_8_is_replaced_except_in_file_names(call, run, echo):
    code, out, _ = call("toy", "predict", run, "bad \udcff byte")
    assert (code, out) == (0, ["bad \ufffd byte"])
    Path("\udcff").touch()
    code, out, _ = call("toy", "predict", run, "--json", "\udcff")
    assert json.loads(out[0])["x"] == "\udcff"


def test_an_empty_standard_input_is_refused(call, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    code, _, err = call("toy", "predict", run, "-")
    assert code == 2
    assert "needs an input" in err[0]


def test_an_app_can_parse_its_inputs(call, run, echo, monkeypatch):
    def parse(arguments):
        if "bad" in arguments:
            raise UsageError("bad is not an input.")
        return [("parsed", argument) for argument in arguments]

    monkeypatch.setattr(toy, "parse_inputs", parse, raising=False)
    _, out, _ = call("toy", "predict", run, "1", "2", "--json")
    assert [json.loads(line)["x"] for line in out] == [["parsed", "1"], ["parsed", "2"]]
    assert call("toy", "predict", run, "1", "bad") == (2, [], ["unroll: bad is not an input."])


def test_a_stream_is_printed_piece_by_piece(call, run, monkeypatch):
    monkeypatch.setattr(toy, "stream", lambda trained, text: iter(text.split()), raising=False)
    code, out, _ = call("toy", "predict", run, "1 5 9", "8 2", "--stream")
    assert (code, out) == (0, ["159", "82"])
    for option in ("--json", "--plot=x"):
        code, _, err = call("toy", "predict", run, "1 5 9", "--stream", option)
        assert (code, err) == (
            2,
            ["unroll: --stream cannot be combined with --json or --plot."],
        )


def test_a_plot_of_each_result_never_overwrites_a_file(call, run, echo, monkeypatch):
    def plot(result, path):
        path.write_text(result["x"])

    monkeypatch.setattr(toy, "plot", plot, raising=False)
    Path("plots").mkdir()
    Path("plots/prediction-2.png").write_text("a file of the user")
    code, out, err = call("toy", "predict", run, "1", "2", "--plot=plots")
    assert (code, out) == (0, ["1", "2"])
    assert err == [f"unroll: wrote plots/prediction-{n}.png" for n in (1, 3)]
    code, out, err = call("toy", "predict", run, "3", "--plot=plots", "--json")
    assert (code, [json.loads(line) for line in out]) == (0, [{"x": "3"}])
    assert err == ["unroll: wrote plots/prediction-4.png"]
    contents = [Path(f"plots/prediction-{n}.png").read_text() for n in (1, 2, 3, 4)]
    assert contents == ["1", "a file of the user", "2", "3"]
    assert call("toy", "predict", run, "1", "--plot=new/folder")[0] == 0
    assert Path("new/folder/prediction-1.png").is_file()
    message = "unroll: --plot=plots/prediction-1.png is a file: name a folder."
    assert call("toy", "predict", run, "1", "--plot=plots/prediction-1.png") == (2, [], [message])


def test_a_plot_that_fails_leaves_no_file(call, run, echo, monkeypatch):
    def plot(result, path):
        path.write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(toy, "plot", plot, raising=False)
    code, out, err = call("toy", "predict", run, "1", "--plot=plots")
    assert (code, out) == (2, ["1"])
    assert err == ["unroll: plots/prediction-1.png: No space left on device."]
    assert list(Path("plots").iterdir()) == []
