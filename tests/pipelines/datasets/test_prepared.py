"""Splits are prepared one by one: what is read, written, named and logged."""

import itertools
import logging
import random
from pathlib import Path

import pytest
import soundfile
import tensorflow as tf

from tests.pipelines.datasets.helpers import png
from unroll.pipelines import datasets
from unroll.pipelines.datasets.sentiment import reviews

SECRET = "mellifluous"  # a word of a user's data


def write(folder: Path, kind: str) -> str:
    """Three splits of your own files of a kind; returns the folder."""
    for split in ("train", "valid", "test"):
        if kind == "text_classification":
            rows = "".join(f"{SECRET} text {k}\tlabel {k % 2}\n" for k in range(20))
            (folder / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
        elif kind == "stories":
            lines = f"1 Mary is {SECRET}.\n2 What is Mary?\t{SECRET}\t1\n"
            (folder / f"{split}.txt").write_text(20 * lines)
        elif kind == "tagging":
            (folder / f"{split}.conll").write_text(20 * f"{SECRET} B-x\n\n")
        elif kind == "speech":
            soundfile.write(folder / f"{split}.wav", [0.5, -0.5] * 100, 8000)
            (folder / f"{split}.tsv").write_text(20 * f"{split}.wav\t{SECRET}\n")
        else:
            (folder / f"{split}.png").write_bytes(png())
            columns = {"captions": SECRET, "visual_questions": f"Is it {SECRET} ?\tyes"}[kind]
            name = "captions" if (kind, split) == ("captions", "train") else split
            (folder / f"{name}.tsv").write_text(20 * f"{split}.png\t{columns}\n")
    return str(folder)


@pytest.mark.parametrize("kind", datasets.KINDS)
def test_a_split_is_prepared_when_it_is_read_and_no_data_are_logged(
    kind, tmp_path, caplog, monkeypatch
):
    (tmp_path / "own").mkdir()
    folder, data_dir = write(tmp_path / "own", kind), tmp_path / "prepared"
    caplog.set_level(logging.DEBUG)
    made = datasets.builder(folder, kind=kind, data_dir=data_dir)
    assert datasets.split_names(made) == ["train", "valid", "test"]
    assert not list(data_dir.rglob("*"))
    examples = repr(list(datasets.splits(made, ["test"])["test"].as_numpy_iterator()))
    assert SECRET in examples
    assert [made.folder(split).exists() for split in ("train", "valid", "test")] == [0, 0, 1]
    assert repr(list(datasets.read(made, "test").as_numpy_iterator())) == examples
    assert caplog.records
    for record in caplog.records:
        assert SECRET not in record.getMessage()
        assert len(record.getMessage()) < 1000


def test_only_the_examples_of_a_split_that_is_read_are_generated(tmp_path, monkeypatch):
    generated = []
    original = reviews.Reviews._generate_examples

    def generate(self, rows):
        generated.append(len(rows))
        yield from original(self, rows)

    monkeypatch.setattr(reviews.Reviews, "_generate_examples", generate)
    made = datasets.builder("reviews", size=0.02, data_dir=tmp_path)
    assert len(datasets.read(made, "valid")) == 10
    assert generated == [10]
    assert not made.is_prepared()
    assert len(datasets.read(made, "train[:50%]+valid")) == 50
    assert generated == [10, 80]
    datasets.read(made, "test")
    assert made.is_prepared()
    again = datasets.builder("reviews", size=0.02, data_dir=tmp_path)
    datasets.splits(again)
    assert generated == [10, 80, 20]


def test_a_split_whose_preparation_failed_can_be_prepared_again(tmp_path, monkeypatch):
    made = datasets.builder("reviews", size=0.02, data_dir=tmp_path)

    def fail(self, rows):
        yield from ()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reviews.Reviews, "_generate_examples", fail)
        with pytest.raises(KeyboardInterrupt):
            datasets.read(made, "valid")
    assert not list(tmp_path.rglob("*"))
    made = datasets.builder("reviews", size=0.02, data_dir=tmp_path)
    assert len(datasets.read(made, "valid")) == 10


def test_processes_with_the_same_seed_write_into_different_folders(tmp_path, monkeypatch):
    names = []
    original = reviews.Reviews._generate_examples

    def generate(self, rows):
        names.extend(path.name for path in tmp_path.rglob("incomplete*"))
        yield from original(self, rows)

    monkeypatch.setattr(reviews.Reviews, "_generate_examples", generate)
    for split in ("valid", "test"):
        random.seed(7)
        before = random.getstate()
        datasets.load("reviews", split, size=0.02, data_dir=tmp_path)
        assert random.getstate() == before
    assert len(names) == len(set(names)) == 2


def test_examples_are_not_kept_in_memory(tmp_path):
    """Each pass over a prepared split reads it from disk."""
    made = datasets.builder("reviews", size=0.02, data_dir=tmp_path)
    valid = datasets.read(made, "valid")
    assert len(list(itertools.chain(valid, valid))) == 20
    for file in made.folder("valid").glob("*tfrecord*"):
        file.write_bytes(b"")
    with pytest.raises(tf.errors.FailedPreconditionError, match="10 elements but contained only 0"):
        list(valid)
