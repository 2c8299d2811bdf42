"""Random and hostile command lines: each ends in an answer or in one line and exit code 2."""

import io
import random
import string
import sys
from pathlib import Path

import pytest

from tests.apps import toy
from unroll.apps.core import card, cli, evaluation, page, training
from unroll.apps.core import export as exports

# Parts of options and values that are unusual or have a meaning somewhere on the way.
PIECES = [
    "", "-", "--", "---", "=", "-1", "0", "nan", "inf", "1e999", "-1e999", "99999999999999999999",
    "0x10", "1_000", "٣", "True", "None", "null", "[]", "{}", "()", "'", '"', "\\", "*", "~",
    "%s", "{x}", "a\nb", "a\rb", "\t", "\x1b[31m", "é", "日本", "\u2028", "\udcff", "$HOME",
    ".", "..", "/", "/dev/null/x", "file", "file/below", "a" * 300, "../" * 40, "-h", "--help",
    "digits", "toy", "RUN", "test", "--json", "--units", "--data", "--run", "--resume", "--least",
    "--start", "--split", "--formats", "--to", "--plot", "--stream", "--record", "--variant",
    "--monitor", "--strategy", "--no-normalize", "--no-resume", "--generated-size",
]  # fmt: skip


def arguments(rng: random.Random) -> list[str]:
    """A verb with random arguments, often the beginning of a correct command."""
    verb = rng.choice([*cli.VERBS, *cli.VERBS, rng.choice(PIECES)])
    made = [] if verb == "train" or rng.random() < 0.3 else ["RUN"]
    for _ in range(rng.randrange(5)):
        kind = rng.random()
        if kind < 0.4:
            made.append(rng.choice(PIECES))
        elif kind < 0.8:
            made.append(f"{rng.choice(PIECES)}={rng.choice(PIECES)}")
        else:
            letters = rng.choices(string.printable + "\udc80é\u200b", k=rng.randrange(12))
            made.append("".join(letters))
    return ["toy", verb, *made]


@pytest.fixture
def answering(monkeypatch) -> None:
    """The verbs answer at once: what they do is tested elsewhere."""

    def train(app, config, run, **how):
        run.write_config(app, config)
        run.write(run.best.name, b"weights")
        return {"parameters": 1, "epochs": 1, "best_epoch": 1, config.monitor: 0.5, "seconds": 1.0}

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(evaluation, "load_split", lambda *_: (None, None))
    monkeypatch.setattr(evaluation, "compute", lambda app, run, split: {"split": split})
    monkeypatch.setattr(evaluation, "report", lambda *_, show: (show("text"), []))
    monkeypatch.setattr(evaluation, "load_trained", lambda *_: None)
    monkeypatch.setattr(exports, "export", lambda *_, **__: Path("exported"))
    monkeypatch.setattr(card, "write", lambda *_: Path("card"))
    monkeypatch.setattr(page, "entry", lambda *_: None)
    monkeypatch.setattr(cli, "_serve", lambda entries, chosen: print("address") or 0)
    monkeypatch.setattr(toy, "predict", lambda trained, inputs: [{"x": x} for x in inputs])
    monkeypatch.setattr(toy, "show", lambda result: result["x"])


def test_random_arguments_end_in_an_answer_or_one_line(call, run, answering, tmp_path):
    Path(run).rename("RUN")
    Path("file").touch()
    before = {path: path.read_bytes() for path in Path("RUN").rglob("*") if path.is_file()}
    rng, codes = random.Random(0), []
    for _ in range(80):
        given = arguments(rng)
        code, out, err = call(*given)
        codes.append(code)
        assert code in (0, 2), given
        if code:
            assert len(err) == 1, (given, err)
            assert err[0].startswith("unroll: "), given
            assert len(err[0]) > 15
        else:
            assert out or "predict" in given, given
        assert all(ord(character) < 0xD800 for line in out for character in line), given
    assert 5 < codes.count(0) < 75
    metrics = {Path("RUN/metrics.json"), Path("RUN/checksums/metrics.json")}
    after = {path: path.read_bytes() for path in Path("RUN").rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) <= metrics
    assert Path("file").read_bytes() == b""


def test_random_bytes_on_the_standard_input_are_inputs(call, run, answering, monkeypatch):
    rng = random.Random(1)
    for _ in range(20):
        given = rng.randbytes(rng.randrange(200))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code, out, err = call("toy", "predict", run, "-", "--json")
        assert (code, len(out)) == (0, given.removesuffix(b"\n").count(b"\n") + 1) or not given
        assert err == [] or not given
