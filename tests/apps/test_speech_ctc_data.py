"""The speech app's data: labels of the training split, own files, the command line, splits."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.apps.core import cli, config
from unroll.apps.core.protocol import Trained
from unroll.apps.speech_ctc import app, decoding
from unroll.pipelines.datasets.speech import spoken_digits
from unroll.pipelines.errors import DataError


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """Datasets are prepared in a folder of the test."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of recordings. The last transcript is too long for its recording."""
    folder = tmp_path / "my f\N{LATIN SMALL LETTER U WITH DIAERESIS}lder"
    folder.mkdir()
    lines = []
    for i, (words, _, samples) in enumerate(spoken_digits.recordings("train", 24)):
        soundfile.write(folder / f"{i}.wav", samples, 8000, subtype="ULAW")
        lines.append(f"{i}.wav\t{' '.join(words)}\n")
    lines.append(f"0.wav\t{'one two ' * 200}\n")
    (folder / "train.tsv").write_text("".join(lines))
    (folder / "test.tsv").write_text("".join(lines[:4]) + "1.wav\tone hundred\n")
    return folder


@pytest.mark.exhaustive
def test_phones_of_your_own_files(own, tmp_path, capsys):
    lexicon = tmp_path / "digits.dic"
    names = spoken_digits.PRONUNCIATIONS.items()
    text = "".join(f"{word} {phones.replace('- ', '')}\n" for word, phones in names)
    lexicon.write_text(text + "hundred HH AH\n")
    arguments = [f"--data={own}", "--rate=8000", "--units=6", "--depth=1", "--cepstra=8"]
    options = config.parse(app, [*arguments, "--unit=phones", f"--lexicon={lexicon}"])
    data = app.load(options, ("train", "valid", "test"), training=True)
    labels = data.assets["labels"]
    assert labels == ["[BLANK]", *sorted({p for _, x in names for p in x.split()} - {"-"})]
    repeated, held_out, too_long, unknown = capsys.readouterr().err.splitlines()
    assert "4 of 4 recordings of test are also in train" in repeated
    assert "2 of 25 recordings are held out for it, by file" in held_out
    assert "1 training transcripts are too long for their recordings" in too_long
    assert unknown == (
        "unroll: 1 labels of test are not in the training transcripts, and each of their 1 "
        "occurrences counts as an error: 'HH' (1)"
    )
    trained = Trained(options, data.assets, app.build(options, data.assets))
    figures = app.score(trained, data["test"])
    assert figures["examples"] == 5
    assert "label_error_rate" in figures
    assert "word_error_rate" not in figures
    text = app.report(trained, data["test"]).text
    assert "HH" not in text
    assert "\N{REPLACEMENT CHARACTER}" in text  # the label that the model lacks


@pytest.mark.exhaustive
def test_labels_are_those_of_the_training_split(own, capsys):
    options = config.parse(app, [f"--data={own}", "--unit=words"])
    data = app.load(options, ("test",))
    words = {word for words, *_ in spoken_digits.recordings("train", 24) for word in words}
    assert data.assets["labels"] == ["[BLANK]", *sorted(words)]
    assert "hundred" not in "".join(data.assets["language_model"])
    assert "1 labels of test are not in the training transcripts" in capsys.readouterr().err
    unknown = [row[row == len(data.assets["labels"])] for _, row in data["test"]]
    assert sum(map(len, unknown)) == 1


def test_librispeech_can_be_loaded():
    def examples_of(builder, **_):
        # The recordings that TFDS mocks are too short for their transcripts.
        rows = {"speech": np.zeros([3, 16_000], "int64"), "speaker_id": np.arange(3)}
        return tf.data.Dataset.from_tensor_slices(rows | {"text": ["ONE", "TWO", "A TEN"]})

    with tfds.testing.mock_data(as_dataset_fn=examples_of):
        options = config.parse(app, ["--data=librispeech", "--batch-size=3"])
        data = app.load(options, ("valid",))
        inputs, labels = next(iter(data["valid"]))
    assert data.assets["labels"] == ["[BLANK]", *" AENOTW"]
    assert data.assets["interface"]["features"] == 40
    assert inputs["features"].shape == [3, 100, 40]
    assert labels.shape == [3, 5]


@pytest.mark.parametrize(
    "contents", [b"\\data\\\r\n", b"\xff\xfe", b"mmap lm http://kheafield.com/code"]
)
def test_a_file_that_is_not_a_language_model(contents, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    path = tmp_path / "broken"
    path.write_bytes(contents)
    with pytest.raises(DataError, match=f"--language-model={path}: ") as error:
        decoding.language_model_asset(app.Config(language_model=str(path)), [], list)
    assert "\n" not in str(error.value)


def test_a_broken_language_model_stops_the_training(own, tmp_path, capsys):
    broken = tmp_path / "broken.arpa"
    broken.write_text("\\data\\\n")
    again = [f"--data={own}", f"--language-model={broken}", f"--run={tmp_path / 'no'}"]
    assert cli.main(["speech_ctc", "train", *again]) == 2
    assert (
        "broken.arpa, line 1: expected \\end\\, got the end of the file" in capsys.readouterr().err
    )
    assert not (tmp_path / "no").exists()


def test_the_language_model_of_phones_has_phones():
    lexicon = {"a": ["AH"], "b": ["B", "IY"]}
    made = app.Config(unit="phones", lexicon="x", lm_order=1)
    lines = decoding.language_model_asset(
        made, ["a b"], lambda t: [p for w in t.split() for p in lexicon[w]]
    )
    assert all(any(f"\t{phone}" in line for line in lines) for phone in ("AH", "B", "IY"))
    words = decoding.language_model_asset(app.Config(lm_order=1), ["a b"], list)
    assert any(line.split("\t")[1:2] == ["a"] for line in words)
    assert not any("\tAH" in line for line in words)


def test_a_recording_that_disappears_is_one_line(own, monkeypatch, capsys):
    data = app.load(config.parse(app, [f"--data={own}"]), ("test",))
    (own / "0.wav").unlink()
    with pytest.raises(tf.errors.OpError) as error:
        list(data["test"])

    def fail(arguments):
        raise error.value

    monkeypatch.setattr(cli, "_dispatch", fail)
    capsys.readouterr()
    assert cli.main([]) == 2
    assert capsys.readouterr().err == f"unroll: {own}/0.wav does not exist.\n"
