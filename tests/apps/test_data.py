"""The raw splits of an app's dataset."""

import dataclasses

import pytest

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.pipelines import datasets

CONFIG = TrainingConfig(data="reviews", generated_size=0.05)


@pytest.fixture
def read(monkeypatch) -> list:
    """The splits of each read."""
    calls = []
    splits = datasets.splits

    def recorded(builder, names=None):
        calls.append(list(names))
        return splits(builder, names)

    monkeypatch.setattr(datasets, "splits", recorded)
    return calls


def test_a_split_is_read_once_and_only_when_it_is_used(read):
    raw = RawSplits(CONFIG, "text_classification")
    assert raw.builder.features["label"].names == ["negative", "positive"]
    assert read == []
    examples = [*raw["valid"].as_numpy_iterator()]
    assert {type(example["text"]) for example in examples} == {bytes}
    assert raw["valid"] is raw["valid"]
    assert read == [["valid"]]


def test_generated_size_scales_a_generated_dataset():
    sizes = []
    for size in (0.05, 0.1):
        config = dataclasses.replace(CONFIG, generated_size=size)
        raw = RawSplits(config, "text_classification")
        sizes.append([int(raw[split].cardinality()) for split in ("train", "valid", "test")])
    for small, large in zip(*sizes, strict=True):
        assert small > 0
        assert large == pytest.approx(2 * small, abs=2)


def test_a_split_that_does_not_exist_is_refused(read):
    raw = RawSplits(CONFIG, "text_classification")
    with pytest.raises(UsageError, match=r"^--split=dev: reviews has train, valid, test\.$"):
        raw["dev"]
    assert read == []


def test_a_folder_may_lack_a_split(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\ngood\tyes\nbad\tno\n")
    raw = RawSplits(TrainingConfig(data=str(tmp_path)), "text_classification")
    assert int(raw["train"].cardinality()) == 2
    with pytest.raises(UsageError, match=r"^--split=test: .* has train, valid\.$"):
        raw["test"]
