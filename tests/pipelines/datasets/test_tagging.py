"""Datasets of tagged sentences: the generated flights, ATIS and SNIPS."""

import hashlib

import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines.datasets.tagging import flights
from unroll.pipelines.datasets.tagging.atis import Atis
from unroll.pipelines.datasets.tagging.schemes import to_bio
from unroll.pipelines.datasets.tagging.snips import Snips


@pytest.fixture(scope="module")
def generated():
    return flights.generate()


def test_flights_are_valid_and_unique(generated):
    assert {split: len(rows) for split, rows in generated.items()} == flights.SIZES
    sentences = [tuple(e["words"]) for rows in generated.values() for e in rows]
    assert len(set(sentences)) == len(sentences)
    for rows in generated.values():
        for example in rows:
            assert len(example["words"]) == len(example["tags"])
            lines = range(len(example["tags"]))
            assert to_bio("flights", [example["tags"]], [lines]) == [example["tags"]]


def test_flights_are_deterministic_in_the_seed_and_the_size(generated):
    sizes = {"train": 50, "valid": 32, "test": 32}
    small = flights.generate(sizes)
    assert flights.generate(sizes) == small
    assert flights.generate(sizes, seed=2) != small
    assert small["train"] == generated["train"][:50]
    assert {example["intent"] for example in small["test"]} == set(flights._OPENINGS)


def test_version_changes_with_the_flights(generated):
    """If this fails, the sentences have changed: increase `VERSION`, or prepared ones are read."""
    digest = hashlib.sha256(repr(generated).encode()).hexdigest()[:12]
    assert (str(flights.Flights.VERSION), digest) == ("1.1.0", "46155817dcb4")


def test_context_gives_the_slot_of_a_city(generated):
    roles = {}
    for example in generated["train"]:
        for word, tag in zip(example["words"], example["tags"], strict=True):
            roles.setdefault(word, set()).add(tag)
    for city in ("boston", "denver", "oakland"):
        assert roles[city] == {"B-fromloc", "B-toloc", "B-stoploc", "B-city", "O"}


def names_in(example: dict) -> set[str]:
    roles = ("fromloc", "toloc", "stoploc", "city", "airline")
    pairs = zip(example["words"], example["tags"], strict=True)
    return {word for word, tag in pairs if tag[2:] in roles} - {"airlines"}


def test_second_halves_of_validation_and_test_have_new_names(generated):
    known = {word for example in generated["train"] for word in example["words"]}
    new = {}
    for split in ("valid", "test"):
        names = [names_in(example) for example in generated[split]]
        half = len(names) // 2
        assert set().union(*names[:half]) <= known
        new[split] = set().union(*names[half:])
        assert not new[split] & known
    assert not new["valid"] & new["test"]
    assert min(map(len, new.values())) > 8


@pytest.mark.parametrize(
    ("dataset", "sizes", "tags", "intents"),
    [(Atis, (4478, 500, 893), 120, 21), (Snips, (13084, 700, 700), 72, 7)],
)
def test_published_datasets(dataset, sizes, tags, intents, manual_dir, tmp_path):
    splits = read_all(dataset, tmp_path)
    assert tuple(len(splits[split]) for split in ("train", "valid", "test")) == sizes
    for rows in splits.values():
        assert all(len(row["words"]) == len(row["tags"]) > 0 for row in rows)
    assert len({tag for row in splits["train"] for tag in row["tags"]}) == tags
    assert len({row["intent"] for row in splits["train"]} - {""}) == intents
