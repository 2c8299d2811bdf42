"""Tagged sentences: a person's own files, the generated flights, ATIS and SNIPS."""

import re

import pytest

from unroll.pipelines import datasets
from unroll.pipelines.datasets.tagging import flights
from unroll.pipelines.datasets.tagging.atis_snips import to_bio
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
    builder = datasets.builder(str(folder), folder="tagged", data_dir=data_dir, **options)
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
    found = read(tmp_path / "own", tmp_path)
    assert sorted(found) == [
        ("Bonn please", "B-from O", "fare"),
        ("to Bonn at 8", "O B-to O B-time", "flight"),
    ]
    assert read(tmp_path / "own", tmp_path, "valid") == [found[0]] or len(found) == 2


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
        found = read(tmp_path / name, tmp_path, **options)
        assert sorted(found) == [
            ("Harry Potter met", "B-PER I-PER O", ""),
            ("Hermione", "B-PER", ""),
        ]


def test_iobes_becomes_bio():
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
def test_broken_lines_are_named(change, words, tmp_path):
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
def test_broken_columns_are_named(text, words, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.conll").write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path / "own", tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_an_intent_that_training_lacks_is_named(tmp_path):
    write(tmp_path / "own", "train", LINES)
    write(tmp_path / "own", "test", {**LINES, "label": "flight\nhotel\n"})
    with pytest.raises(
        DataError, match=re.escape("test/label, line 2") + ".*'hotel'.*fare, flight"
    ):
        read(tmp_path / "own", tmp_path)


def test_a_folder_has_one_layout(tmp_path):
    write(tmp_path / "own", "train", LINES)
    (tmp_path / "own" / "train.txt").write_text(CONLL)
    with pytest.raises(DataError, match="train twice"):
        read(tmp_path / "own", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no training data"):
        read(tmp_path / "none", tmp_path)


GENERATED = flights.generate()


def test_flights_are_valid_and_none_occurs_twice():
    assert {split: len(rows) for split, rows in GENERATED.items()} == flights.SIZES
    sentences = [tuple(e["words"]) for rows in GENERATED.values() for e in rows]
    assert len(set(sentences)) == len(sentences)
    for rows in GENERATED.values():
        for example in rows:
            assert len(example["words"]) == len(example["tags"])
            assert to_bio(example["tags"], "flights") == example["tags"]
    assert flights.generate() == GENERATED
    assert flights.generate(seed=2) != GENERATED


def test_a_city_is_whatever_the_words_around_it_say():
    roles = {}
    for example in GENERATED["train"]:
        for word, tag in zip(example["words"], example["tags"], strict=True):
            roles.setdefault(word, set()).add(tag)
    for city in ("boston", "denver", "oakland"):
        assert roles[city] == {"B-fromloc", "B-toloc", "B-stoploc", "B-city", "O"}


def names_in(example: dict) -> set[str]:
    roles = ("fromloc", "toloc", "stoploc", "city", "airline")
    pairs = zip(example["words"], example["tags"], strict=True)
    return {word for word, tag in pairs if tag[2:] in roles} - {"airlines"}


def test_the_second_halves_of_validation_and_test_have_new_names():
    known = {word for example in GENERATED["train"] for word in example["words"]}
    new = {}
    for split in ("valid", "test"):
        names = [names_in(example) for example in GENERATED[split]]
        half = len(names) // 2
        assert set().union(*names[:half]) <= known
        new[split] = set().union(*names[half:])
        assert not new[split] & known
    assert not new["valid"] & new["test"]
    assert min(map(len, new.values())) > 8


@pytest.mark.parametrize(
    ("name", "sizes"), [("atis", (4478, 500, 893)), ("snips", (13084, 700, 700))]
)
def test_published_datasets_in_whole(name, sizes, manual_dir, tmp_path):
    builder = datasets.builder(name, manual_dir=manual_dir, data_dir=tmp_path)
    splits = builder.info.splits
    assert tuple(splits[s].num_examples for s in ("train", "valid", "test")) == sizes
    example = next(datasets.read(builder, "train").as_numpy_iterator())
    assert len(example["words"]) == len(example["tags"]) > 0
    assert example["intent"]
