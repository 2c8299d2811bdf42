"""Your own labeled texts: the formats, and an error of one line for everything else."""

import json

import pytest

from tests.pipelines.mutations import outcomes
from unroll.pipelines import datasets, errors
from unroll.pipelines.datasets.sentiment.text_files import UNSEEN, TextFiles, read_texts
from unroll.pipelines.errors import DataError

ROWS = [
    ("good, very good", "pos"),
    ('"bad" it says', "neg"),
    ("", "pos"),
    ("ünïcödé 😀 فيلم", "neg"),
    ("two\twords, a nul \0", "mixed"),
    ("line\u2028separator\x85next\x0bline", "mixed"),
]
MANY = [(f"text {k}", ("pos", "neg")[k % 2]) for k in range(40)]


def as_csv(rows, delimiter=",", end="\n") -> str:
    quoted = (delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    return end.join([f"text{delimiter}label", *quoted]) + end


def as_jsonl(rows) -> str:
    return "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows)


def as_tsv(rows) -> str:
    return "\n".join(["text\tlabel", *("\t".join(row) for row in rows)]) + "\n"


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.fixture
def write(folder):
    """A function that writes a file, `write("train.csv", content)`, and returns its path."""

    def write(name, content):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "content", "rows"),
        [
            ("a.csv", as_csv(ROWS), ROWS),
            ("a.jsonl", as_jsonl(ROWS), ROWS),
            ("a.csv", as_csv(ROWS, ";", "\r\n"), ROWS),
            ("a.csv", "sep=;\r\n" + as_csv(ROWS, ";", "\r\n"), ROWS),
            ("a.csv", as_csv(ROWS).encode("utf-8-sig"), ROWS),
            ("a.tsv", as_csv(ROWS, "\t", "\r\n").encode("utf-16"), ROWS),
            ("a.csv", as_csv(ROWS).replace("\n", "\r"), ROWS),
            ("a.tsv", as_tsv(ROWS[:4]), ROWS[:4]),
            ("a.tsv", as_csv(ROWS, "\t"), ROWS),
            ("a.csv", 'label,text\r\npos,"a\r\nb"\r\n', [("a\r\nb", "pos")]),
            ("a.tsv", 'text\tlabel\n"say ""hi"""\tpos', [('say "hi"', "pos")]),
            ("a.tsv", "id\tlabel \ttext\n1\tpos\tgood", [("good", "pos")]),
            ("a.csv", ",text,label\n0,a,x\n\n,,\n", [("a", "x")]),
            ("a.csv", as_csv([("word " * 40_000, "pos")]), [("word " * 40_000, "pos")]),
        ],
    )  # fmt: skip
    def test_rows(self, name, content, rows, write):
        assert read_texts(write(name, content)) == rows

    def test_numbers_are_the_same_label_in_all_formats(self, write, capsys):
        values = [1, 1.0, "1", "1.0", 0.5, 2, -1.0, "01", "v1.0"]
        path = write("a.jsonl", as_jsonl([("a", value) for value in values]))
        labels = [label for _, label in read_texts(path)]
        assert labels == ["1", "1", "1", "1", "0.5", "2", "-1", "01", "v1.0"]
        message = f"unroll: {path}: 3 labels are read as numbers: 1.0 as 1, -1.0 as -1.\n"
        assert capsys.readouterr().err == message
        assert read_texts(write("a.csv", "text,label\na,1.0\nb,1\n")) == [("a", "1"), ("b", "1")]

    def test_what_is_not_read_is_reported(self, write, capsys):
        path = write("a.csv", "text,id,label\na,1,x\n,,\n")
        read_texts(path)
        assert capsys.readouterr().err == (
            f"unroll: {path}: 1 other columns are not read: 'id'.\n"
            f"unroll: {path}: 1 rows without any content are skipped.\n"
        )
        path = write("a.jsonl", '{"text": "a", "label": "x", "id": 1, "by": "me"}')
        read_texts(path)
        assert "2 other columns are not read: 'by', 'id'." in capsys.readouterr().err


GOOD = "text\tlabel\ngood\tpos\nbad\tneg\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "a.tsv has no rows"),
        ("a.csv", "text,label\n", "a.csv has no rows"),
        ("a.jsonl", "\n", "a.jsonl has no rows"),
        ("a.tsv", "text\tclass\na\tb\n", "a.tsv, line 1: no column 'label'; it has text, class."),
        ("a.csv", "good,pos\nbad,neg\n", "a.csv, line 1: no column 'text'; it has good"),
        ("a.csv", "text,label,text\na,b,c\n", "a.csv, line 1: more than one column 'text'"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a"}', "line 2: no column 'label'"),
        ("a.tsv", GOOD + "a\tpos\textra\n", "a.tsv, line 4: 3 columns, the header has 2"),
        ("a.tsv", GOOD + "\nalone\n", "a.tsv, line 5: 1 columns"),
        ("a.csv", 'text,label\n"a\n\nb",pos\nc\n', "a.csv, line 5: 1 columns"),
        ("a.csv", 'text,label\na,pos\n"b,neg\nc,pos\n', "line 3: a quoted field is not closed"),
        ("a.csv", 'text,label\na,pos\n"b"c,neg\n', "a.csv, line 3: a quoted field"),
        ("a.tsv", GOOD.encode() + b"\xff\tpos\n", "a.tsv, line 4: byte 28 is not UTF-8"),
        ("a.jsonl", GOOD.encode("utf-16-le"), "a.jsonl, line 1: zero bytes between the characters"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text"', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '["a", "b"]\n', "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", '{"text": 1, "label": "b"}', "a.jsonl, line 1: the text is not a string"),
        ("a.jsonl", '{"text": "\\ud83d", "label": "b"}', "a.jsonl, line 1: an unpaired surrogate"),
        ("a.jsonl", '{"text": "a", "label": NaN}', "a.jsonl, line 1: the label is nan, not"),
        ("a.jsonl", '{"text": "a", "label": 1e999}', "a.jsonl, line 1: the label is inf, not"),
        ("a.csv", "text,label\na,1\nb,nan\n", "a.csv: 'nan' stands for a missing label"),
        ("a.tsv", GOOD + "fair\t \n", "a.tsv, line 4: the label is empty"),
        ("a.csv", 'text,label\na,"b\nc"\n', "a.csv, line 2: the label is empty or has several"),
        *(
            ("a.jsonl", json.dumps({"text": "a", "label": label}), "line 1: the label is neither")
            for label in (None, True, [], {})
        ),
    ],
)
def test_broken_files(name, content, message, write):
    with pytest.raises(DataError) as error:
        read_texts(write(name, content))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no training data: one of train.tsv, train.csv, train.jsonl"),
        ({"valid.tsv": GOOD}, "has no training data"),
        ({"train.tsv": GOOD, "train.csv": GOOD}, "has both train.tsv and train.csv"),
        ({"train.tsv": GOOD, "dev.csv": GOOD}, "dev.csv: rename the file to valid.csv"),
        ({"train.tsv": GOOD, "test.txt": GOOD}, "test.txt is not read: name the file test.tsv"),
        ({"train.tsv": GOOD, "Valid.TSV": GOOD}, "Valid.TSV is not read: name the file valid.tsv"),
        ({"train.tsv": GOOD, "test.tsv": ""}, "test.tsv has no rows"),
        ({"train.tsv": "text\tlabel\na\tpos\nb\tpos\n"}, "train.tsv: all rows have the same label"),
        ({"train.tsv": GOOD}, "train.tsv has no validation split, and a tenth of 2 texts"),
    ],
)
def test_folders_that_are_refused(files, message, folder, write, tmp_path):
    for name, content in files.items():
        write(name, content)
    with pytest.raises(DataError) as error:
        TextFiles(folder, data_dir=tmp_path / "prepared")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "prepared").exists()


def test_file_instead_of_a_folder(folder, write, tmp_path):
    with pytest.raises(DataError, match="nor a folder"):
        datasets.builder(str(write("train.tsv", GOOD)), data_dir=tmp_path)


@pytest.fixture
def rows(folder, tmp_path):
    """A function that returns the texts and labels of each split."""

    def rows() -> dict:
        builder = TextFiles(folder, data_dir=tmp_path / "prepared")
        names = [*builder.LABELS, None]  # None for the id -1
        return {
            split: [(e["text"], names[e["label"]]) for _, e in examples]
            for split, examples in builder._split_generators(None).items()
        }

    return rows


def test_equal_texts_are_held_out_together(write, rows, capsys):
    texts = [f"text {k}" for k in range(30)]
    twice = [(t, "pos") for t in texts] + [(f" {t.title()}\u00a0", "neg") for t in texts]
    path = write("train.tsv", as_tsv(twice))
    found = {split: {t.strip().casefold() for t, _ in own} for split, own in rows().items()}
    assert len(found["train"]) == 27
    assert found["train"] | found["valid"] == set(texts)
    assert not found["train"] & found["valid"]
    assert f"{path} has no validation split: 6 of 60 texts are held out" in capsys.readouterr().err


def test_hardly_any_different_texts_are_held_out_all_the_same(write, rows, capsys):
    write("train.tsv", as_tsv([("good", "pos"), ("bad", "neg")] * 10))
    assert {split: len(own) for split, own in rows().items()} == {"train": 18, "valid": 2}
    assert "only 2 of 20 texts are different" in capsys.readouterr().err


def test_labels_are_those_of_the_training_split(write, rows, capsys):
    write("train.tsv", as_tsv([*MANY, ("rare", "mixed")]))
    test = write("test.jsonl", as_jsonl([("a", "meh"), ("text 1", "pos"), ("b", "Pos")]))
    found = rows()
    assert ("rare", "mixed") in found["train"]
    assert found["test"] == [("a", None), ("text 1", "pos"), ("b", None)]
    assert UNSEEN == -1
    printed = capsys.readouterr().err
    assert f"{test}: 2 of 3 labels are not in the training split (meh, Pos)" in printed


def test_texts_of_valid_that_are_also_in_train_are_counted(write, rows, capsys):
    write("train.tsv", as_tsv(MANY))
    write("valid.tsv", as_tsv([MANY[3], ("new", "pos"), ("TEXT  4", "pos")]))
    rows()
    assert "valid: 2 of 3 texts are also in the training split." in capsys.readouterr().err


def test_only_changed_rows_are_prepared_again(folder, write, tmp_path):
    def load() -> list:
        builder = datasets.builder(str(folder), data_dir=tmp_path / "prepared")
        names = builder.features["label"].names
        dataset = datasets.read(builder, "test").as_numpy_iterator()
        return sorted((e["text"].decode(), names[e["label"]]) for e in dataset)

    def prepared() -> list:
        return sorted((tmp_path / "prepared" / "text_files").iterdir())

    write("train.csv", as_csv([*MANY, ("x", " x y "), ("y", "é")]))
    write("test.csv", as_csv([("a", "x y"), ("b", "é")]))
    assert load() == [("a", "x y"), ("b", "é")]
    first = prepared()
    load()
    assert prepared() == first
    write("test.csv", as_csv([("a", "x y")]))
    assert load() == [("a", "x y")]
    assert len(prepared()) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", as_tsv(ROWS[:4])),
        ("a.tsv", as_csv(ROWS, "\t")),
        ("a.csv", as_csv(ROWS)),
        ("a.jsonl", as_jsonl([*ROWS, ("a", 1.0)])),
    ],
)
def test_mutated_files_are_read_or_refused_in_one_line(name, content, tmp_path):
    """1,000 mutations of each format."""
    for rows in outcomes(tmp_path / name, read_texts, content.encode()):
        assert all(isinstance(text, str) and label.strip() for text, label in rows)
