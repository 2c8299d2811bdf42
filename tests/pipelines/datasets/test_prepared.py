"""Splits are prepared one by one: what is read, written, named and logged."""

import itertools
import logging
import random

import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import write_own_files
from unroll.pipelines import datasets
from unroll.pipelines.datasets.sentiment import reviews

SECRET = "mellifluous"  # a word of a user's data


@pytest.mark.parametrize("kind", datasets.KINDS)
def test_a_split_is_prepared_when_it_is_read_and_no_data_are_logged(
    kind, tmp_path, caplog, monkeypatch
):
    folder, data_dir = tmp_path / "own", tmp_path / "prepared"
    folder.mkdir()
    write_own_files(folder, kind, dict.fromkeys(("train", "valid", "test"), SECRET))
    caplog.set_level(logging.DEBUG)
    made = datasets.builder(str(folder), kind=kind, data_dir=data_dir)
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
