"""Datasets of tagged sentences: your own files, the generated flights, ATIS and SNIPS."""

import hashlib
import re

import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets
from unroll.pipelines.datasets.tagging import flights
from unroll.pipelines.datasets.tagging.atis import Atis
from unroll.pipelines.datasets.tagging.base import to_bio
from unroll.pipelines.datasets.tagging.snips import Snips
from unroll.pipelines.errors import DataError

LINES = {
    "seq.in": "to Bonn at 8\nBonn please\n",
    "seq.out": "O B-to O B-time\nB-from O\n",
    "label": "flight\nfare\n",
}
CONLL = "-DOCSTART- -X- O\n\nHarry NNP B-PER\nPotter NNP I-PER\nmet VBD O\n\nHermione NNP S-PER\n"


def write(folder, split: str, files: dict) -> None:
    (folder / split).mkdir(parents=True)
    for name, text in files.items():
        (folder / split / name).write_text(text, encoding="utf-8")


def read(folder, data_dir, split="train", **options) -> list[tuple]:
    builder = datasets.builder(str(folder), kind="tagging", data_dir=data_dir, **options)
    return [
        (
            b" ".join(e["words"].tolist()).decode(),
            b" ".join(e["tags"].tolist()).decode(),
            e["intent"].decode(),
        )
        for e in datasets.read(builder, split).as_numpy_iterator()
    ]


def test_three_files(tmp_path):
    write(tmp_path / "own", "train", LINES)
    write(tmp_path / "own", "dev", {k: v.splitlines()[0] for k, v in LINES.items()})
    assert sorted(read(tmp_path / "own", tmp_path)) == [
        ("Bonn please", "B-from O", "fare"),
        ("to Bonn at 8", "O B-to O B-time", "flight"),
    ]
    assert read(tmp_path / "own", tmp_path, "valid") == [
        ("to Bonn at 8", "O B-to O B-time", "flight")
    ]


def test_columns_in_either_order(tmp_path):
    for name, text, options in (
        ("last", CONLL, {}),
        (
            "first",
            "\n".join(" ".join(line.split()[::-1]) for line in CONLL.split("\n")),
            {"tag_first": True},
        ),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.conll").write_text(text)
        assert sorted(read(tmp_path / name, tmp_path, **options)) == [
            ("Harry Potter met", "B-PER I-PER O", ""),
            ("Hermione", "B-PER", ""),
        ]


def test_iobes_is_converted_to_bio():
    assert to_bio(["S-a", "B-b", "I-b", "E-b", "O"], "x") == ["B-a", "B-b", "I-b", "I-b", "O"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq.out": "O B-to O\nB-from O\n"}, ["seq.out, line 1", "3 tags for 4 words"]),
        ({"seq.out": "O B-to O I-to\nB-from O\n"}, ["seq.out, line 1", "'I-to' follows 'O'"]),
        ({"seq.out": "O B-to O time\nB-from O\n"}, ["seq.out, line 1", "'time'", "BIO"]),
        ({"seq.out": "O B-to O O\n"}, ["seq.out ends before line 2"]),
        ({"label": "flight\n"}, ["label ends before line 2"]),
        ({"label": "flight\n \n"}, ["label, line 2", "no intent"]),
        ({"seq.in": "to Bonn at 8\n\n"}, ["seq.in, line 2", "no words"]),
        ({"seq.in": None}, ["train has no seq.in"]),
    ],
)
def test_error_names_the_broken_line(change, words, tmp_path):
    files = {name: change.get(name, text) for name, text in LINES.items()}
    write(tmp_path / "own", "train", {k: v for k, v in files.items() if v is not None})
    with pytest.raises(DataError) as error:
        read(tmp_path / "own", tmp_path)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Harry B-PER\nmet\n", ["train.conll, line 2", "a word and a tag"]),
        ("Harry B-PER\n\nmet O\nRon I-PER\n", ["train.conll, line 4", "'I-PER' follows 'O'"]),
        ("\n\n", ["no sentences"]),
    ],
)
def test_error_names_the_broken_column(text, words, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.conll").write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path / "own", tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_error_names_an_unseen_intent(tmp_path):
    write(tmp_path / "own", "train", LINES)
    write(tmp_path / "own", "test", {**LINES, "label": "flight\nhotel\n"})
    with pytest.raises(
        DataError, match=re.escape("test/label, line 2") + ".*'hotel'.*fare, flight"
    ):
        read(tmp_path / "own", tmp_path)


def test_folder_with_two_layouts_or_none(tmp_path):
    write(tmp_path / "own", "train", LINES)
    (tmp_path / "own" / "train.txt").write_text(CONLL)
    with pytest.raises(DataError, match="train twice"):
        read(tmp_path / "own", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no training data"):
        read(tmp_path / "none", tmp_path)


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
            assert to_bio(example["tags"], "flights") == example["tags"]


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
