"""Your own pairs: tables, a file for each language, dialogs."""

from pathlib import Path

import pytest

from tests.pipelines.datasets.helpers import read_all
from tests.pipelines.mutations import outcomes
from unroll.pipelines import errors
from unroll.pipelines.datasets.translation.pair_files import (
    PairFiles,
    read_dialogs,
    read_pairs,
)
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import split_words


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def write(folder: Path, **files: str) -> Path:
    """Files by their names, with `_` in place of the dot."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, **options) -> dict[str, list[dict]]:
    return read_all(PairFiles, folder / "data", folder=folder, **options)


class TestLayouts:
    def test_tables_and_files_of_two_languages_are_the_same(self, tmp_path):
        german, english = "Ein Hund.\n Eine Katze \n", "A dog.\r\nA cat\r\n"
        rows = "source\ttarget\nEin Hund.\tA dog.\nEine Katze\tA cat\n"
        write(tmp_path / "a", train_tsv=rows, valid_tsv=rows)
        write(tmp_path / "b", train_csv="nr;target;source\n1;A dog.;Ein Hund.\n2;A cat;Eine Katze")
        write(tmp_path / "b", valid_csv="target,source\nA dog.,Ein Hund.\nA cat,Eine Katze\n")
        write(tmp_path / "c", train_de=german, train_en=english, train_fr="Un chien.\n")
        write(tmp_path / "c", valid_de="\ufeff" + german, valid_en=english, test_fr="Un chien.\n")
        found = [
            read(tmp_path / name, **options)
            for name, options in (("a", {}), ("b", {}), ("c", {"source": "de", "target": "en"}))
        ]
        assert found[0] == found[1] == found[2]
        assert found[0]["train"] == [
            {"source": "Ein Hund.", "target": "A dog.", "history": []},
            {"source": "Eine Katze", "target": "A cat", "history": []},
        ]
        backwards = read(tmp_path / "c", source="en", target="de")
        assert backwards["valid"][0] == {"source": "A dog.", "target": "Ein Hund.", "history": []}
        assert set(backwards) == {"train", "valid"}

    def test_dialogs(self, tmp_path):
        text = "\n\nHi!\nHello.\nHow are you?\n\n \n\ta\u2028b\nc\n"
        write(tmp_path, train_txt=text, valid_txt="x\ny\n")
        found = read(tmp_path, history=2)
        assert found["train"] == [
            {"history": [], "source": "Hi!", "target": "Hello."},
            {"history": ["Hi!"], "source": "Hello.", "target": "How are you?"},
            {"history": [], "source": "a\u2028b", "target": "c"},
        ]
        assert [row["history"] for row in read(tmp_path)["train"]] == [[], [], []]
        builders = [PairFiles(tmp_path, history=n, data_dir=tmp_path / "data") for n in (1, 2)]
        assert all(builder.dialogs for builder in builders)
        # Examples with other histories are prepared in another folder.
        assert builders[0].builder_config.name != builders[1].builder_config.name

    @pytest.mark.parametrize(
        ("files", "options", "message"),
        [
            ({}, {}, "has no training data: train.tsv with the columns source and target, train.t"),
            ({"train_de": "a\n", "train_en": "b\n"}, {}, "has train in de, en: choose two of them"),
            ({"train_tsv": "", "train_txt": ""}, {}, "has both train.tsv and train.txt: remove on"),
            ({"train_txt": "a\nb\n", "train_csv": ""}, {}, "has both train.csv and train.txt"),
            ({"train_de": "a\n"}, {"source": "de", "target": "en"}, "train.en: there is no such f"),
            ({"train_de": "a\n"}, {"source": "de"}, "what the names of two files end in, .* 'de' "),
            ({"train_de": "a\n"}, {"source": "de", "target": "de"}, "source and target are the sa"),
            ({"train_de": "a\n"}, {"source": "de", "target": "../x"}, r"got 'de' and '../x'\."),
            ({"train_tsv": "source\ttarget\na\tb\n"}, {"history": 2}, "history must be 1, got 2"),
            (
                {"train_txt": "a\nb\n", "valid_txt": "a\nb\n"},
                {"history": 0},
                "history must be at least 1, got 0",
            ),
            (
                {"train_tsv": "source\ttarget\na\tb\n", "dev_tsv": ""},
                {},
                "dev.tsv is not read: name the file valid.tsv, or move it away",
            ),
            (
                {"train_de": "a\n", "train_en": "b\n", "val_de": "a\n"},
                {"source": "de", "target": "en"},
                "val.de is not read: name the file valid.de, valid.en, or move it away",
            ),
            (
                {"train_de": "a\n", "train_en": "b\n", "valid_de": "a\n"},
                {"source": "de", "target": "en"},
                "valid.en: there is no such file",
            ),
        ],
    )
    def test_errors(self, files, options, message, tmp_path):
        write(tmp_path, **files)
        with pytest.raises(DataError, match=message) as error:
            PairFiles(tmp_path, data_dir=tmp_path / "data", **options)
        assert "\n" not in str(error.value)


class TestErrorsNameTheLine:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a\tb\nc\td\n", r"train.tsv, line 1: no column 'source'; it has a, b\."),
            ("source\ttarget\na\n", "train.tsv, line 2: 1 columns, the header has 2"),
            ("source\ttarget\na\tb\tc\n", "train.tsv, line 2: 3 columns, the header has 2"),
            ("source\ttarget\na\tb\n \tc\n", r"train.tsv, line 3: the source is empty\."),
            ("source\ttarget\na\tb\n\nc\t\n", r"train.tsv, line 4: the target is empty\."),
            ("source\ttarget\n", r"train.tsv has no pairs\."),
        ],
    )
    def test_tables(self, text, message, tmp_path):
        path = write(tmp_path, train_tsv=text) / "train.tsv"
        with pytest.raises(DataError, match=message):
            read_pairs(path)

    @pytest.mark.parametrize(
        ("german", "english", "message"),
        [
            (
                "a\nb\n",
                "c\n",
                r"train.de, line 2: the line has no partner; .*train.de has 2 lines,",
            ),
            ("a\n", "c\nd\ne", "train.en, line 2: the line has no partner; .* and .*en has 3."),
            ("a\n\n", "c\nd\n", r"train.de, line 2: the source is empty\."),
            ("a\nb\n", "c\n\x01\n", r"train.en, line 2: the target is empty\."),
            ("a\nb\n", "c\n\t\n", r"train.en, line 2: the target is empty\."),
            ("\n\n", "\n\n", r"train.de has no pairs\."),
        ],
    )
    def test_files_of_two_languages(self, german, english, message, tmp_path):
        write(tmp_path, train_de=german, train_en=english)
        with pytest.raises(DataError, match=message):
            read_pairs(tmp_path / "train.de", tmp_path / "train.en")

    def test_lines_that_are_empty_in_both_are_counted(self, tmp_path, capsys):
        write(tmp_path, train_de="a\n\nb\n \n", train_en="c\n\nd\n\n")
        rows = read_pairs(tmp_path / "train.de", tmp_path / "train.en")
        assert rows == [("a", "c"), ("b", "d")]
        assert "2 lines that are empty in both are skipped" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a\nb\n\nc\n\nd\ne\n", "line 4: a dialog of one turn has no reply"),
            ("a\nb\n\nc", "line 4: a dialog of one turn has no reply"),
            ("\n\n", "has no dialogs"),
            (b"a\n\xff\n", "line 2: byte 2 is not UTF-8"),
        ],
    )
    def test_dialogs(self, text, message, tmp_path):
        path = tmp_path / "train.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=f"train.txt,? {message}"):
            read_dialogs(path)


def is_text(*sides: str) -> bool:
    return all(isinstance(side, str) and split_words(side) for side in sides)


class TestMutations:
    """Files are read or refused in one line."""

    @pytest.mark.parametrize("name", ["train.tsv", "train.csv"])
    def test_tables(self, name, tmp_path):
        rows = 'source\ttarget\nEin „Hund“, ja\tA "dog"\nBär\tbear 🐻\n'
        rows = rows.replace("\t", ",") if name.endswith("csv") else rows
        rows = rows.replace('"dog"', "dog").replace("“, ja", "“")
        for found in outcomes(tmp_path / name, read_pairs, rows.encode()):
            assert all(len(row) == 2 and is_text(*row) for row in found)

    def test_files_of_two_languages(self, tmp_path):
        write(tmp_path, train_en="A dog\nA bear\nyes\n")
        german = "Ein „Hund“\nBär 🐻\nja\n".encode()
        path = tmp_path / "train.de"
        for found in outcomes(path, lambda own: read_pairs(own, tmp_path / "train.en"), german):
            assert all(len(row) == 2 and is_text(*row) for row in found)

    def test_dialogs(self, tmp_path):
        text = "Hallo!\nWie geht's?\n\nBär 🐻\nja\nnein\n".encode()
        for found in outcomes(tmp_path / "train.txt", read_dialogs, text):
            assert all(len(turns) > 1 and is_text(*turns) for turns in found)


class TestHeldOut:
    def test_equal_sources_are_held_out_together(self, tmp_path, capsys):
        rows = "".join(f"Satz {k}\tsentence {k} {n}\n" for n in range(3) for k in range(30))
        write(tmp_path, train_tsv="source\ttarget\n" + rows)
        found = read(tmp_path)
        first, second = ({row["source"] for row in found[s]} for s in ("train", "valid"))
        assert not first & second
        assert len(found["valid"]) == 9
        message = "9 of 90 pairs are held out for it, by pair (3 of 30)"
        assert message in capsys.readouterr().err

    def test_dialogs_are_held_out_as_a_whole(self, tmp_path, capsys):
        text = "".join(f"Turn {k}\nReply {k}\nAnd {k}\n\n" for k in [*range(20)] * 2)
        write(tmp_path, train_txt=text)
        found = read(tmp_path, history=3)
        first, second = ({row["source"] for row in found[s]} for s in ("train", "valid"))
        assert not first & second
        assert len(found["valid"]) == 8
        message = "4 of 40 dialogs are held out for it, by dialog (2 of 20)"
        assert message in capsys.readouterr().err

    def test_repeated_sources_are_counted(self, tmp_path, capsys):
        rows = "source\ttarget\nEin Hund\tA dog\nEine Katze\tA cat\n"
        write(tmp_path, train_tsv=rows, test_tsv=rows, valid_tsv="source\ttarget\nein  HUND\tA\n")
        read(tmp_path)
        lines = capsys.readouterr().err
        assert "valid: 1 of 1 sources are also in the training split" in lines
        assert "test: 2 of 2 sources are also in the training split" in lines
