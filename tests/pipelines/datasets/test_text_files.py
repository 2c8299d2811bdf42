"""Your own labeled texts: the formats, and an error of one line for everything else."""

import json

import pytest

from unroll.pipelines import datasets
from unroll.pipelines.errors import DataError

ROWS = [
    ("good, very good", "pos"),
    ('"bad" it says', "neg"),
    ("", "pos"),
    ("ünïcödé 😀 فيلم", "neg"),
    ("two\twords, a nul \0", "mixed"),
]


def as_csv(rows) -> str:
    quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    return "\n".join(["text,label", *quoted]) + "\n"


def as_jsonl(rows) -> str:
    return "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows)


def as_tsv(rows) -> str:
    return "\n".join(["text\tlabel", *("\t".join(row) for row in rows)]) + "\n"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.fixture
def load(folder, tmp_path):
    """A function that returns the rows of a split, with the names of the labels."""

    def load(split="train"):
        builder = datasets.builder(str(folder), data_dir=tmp_path / "prepared")
        names = builder.features["label"].names
        assert names == sorted(names)
        dataset = datasets.read(builder, split).as_numpy_iterator()
        return sorted((e["text"].decode(), names[e["label"]]) for e in dataset)

    return load


@pytest.fixture
def error_message(folder, tmp_path):
    """A function of files, `train_tsv=content`, that returns the error. It is one line."""

    def error_message(**files) -> str:
        for old in folder.iterdir():
            old.unlink()
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name.replace("_", ".")).write_bytes(data)
        with pytest.raises(DataError) as error:
            datasets.builder(str(folder), data_dir=tmp_path / "prepared")
        assert len(str(error.value).splitlines()) == 1
        assert not [path for path in (tmp_path / "prepared").rglob("*") if path.is_file()]
        return str(error.value).removeprefix(f"{folder}").lstrip("/ ")

    return error_message


class TestFormats:
    def test_csv(self, folder, load):
        (folder / "train.csv").write_text(as_csv(ROWS), encoding="utf-8")
        assert load() == sorted(ROWS)

    def test_csv_with_line_breaks_in_quotes(self, folder, load):
        (folder / "train.csv").write_text(
            'label,text\r\npos,"a\r\nb"\r\nneg,"c\n\nd"\r\n', newline=""
        )
        assert load() == [("a\r\nb", "pos"), ("c\n\nd", "neg")]

    def test_jsonl(self, folder, load):
        (folder / "train.jsonl").write_text(as_jsonl(ROWS), encoding="utf-8")
        assert load() == sorted(ROWS)

    def test_tsv_has_no_quotes(self, folder, load):
        (folder / "train.tsv").write_text(as_tsv(ROWS[:4]), encoding="utf-8")
        assert load() == sorted(ROWS[:4])

    def test_other_columns_and_a_byte_order_mark(self, folder, load):
        text = "\ufeffid\tlabel\ttext\r\n1\tpos\tgood\r\n2\tneg\tbad\r\n"
        (folder / "train.tsv").write_text(text, encoding="utf-8", newline="")
        assert load() == [("bad", "neg"), ("good", "pos")]

    def test_no_line_break_at_end_of_file(self, folder, load):
        (folder / "train.tsv").write_text("text\tlabel\ngood\tpos\nbad\tneg")
        assert load() == [("bad", "neg"), ("good", "pos")]

    def test_numbers_as_labels(self, folder, load):
        (folder / "train.jsonl").write_text(as_jsonl([("a", 10), ("b", 2), ("c", "2"), ("d", 0.5)]))
        assert load() == [("a", "10"), ("b", "2"), ("c", "2"), ("d", "0.5")]

    def test_text_longer_than_the_limit_of_csv_fields(self, folder, load):
        (folder / "train.csv").write_text(as_csv([("word " * 40_000, "pos"), ("b", "neg")]))
        assert load()[1] == ("word " * 40_000, "pos")

    def test_splits_of_different_formats(self, folder, load):
        (folder / "train.csv").write_text(as_csv(ROWS), encoding="utf-8")
        (folder / "valid.jsonl").write_text(as_jsonl(ROWS[:1]))
        (folder / "test.tsv").write_text(as_tsv(ROWS[1:3]))
        assert load("valid") == ROWS[:1]
        assert load("test") == sorted(ROWS[1:3])

    def test_only_a_changed_file_is_prepared_again(self, folder, load, tmp_path):
        def prepared():
            return sorted((tmp_path / "prepared" / "text_files").iterdir())

        (folder / "train.csv").write_text(as_csv(ROWS), encoding="utf-8")
        load()
        first = prepared()
        load()
        assert prepared() == first
        (folder / "train.csv").write_text(as_csv(ROWS[:3]), encoding="utf-8")
        assert load() == sorted(ROWS[:3])
        assert len(prepared()) == 2

    def test_labels_of_a_prepared_folder(self, folder, load):
        (folder / "train.jsonl").write_text(as_jsonl([("a", " x y "), ("b", "é"), ("c", "1")]))
        assert load() == load() == [("a", "x y"), ("b", "é"), ("c", "1")]


GOOD = "text\tlabel\ngood\tpos\nbad\tneg\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no training data: one of train.tsv, train.csv, train.jsonl"),
        ({"valid_tsv": GOOD}, "has no training data"),
        ({"train_tsv": GOOD, "train_csv": GOOD}, "has both train.tsv and train.csv"),
        ({"train_tsv": GOOD, "dev_csv": GOOD}, "dev.csv: rename the file to valid.csv"),
        ({"train_tsv": ""}, "train.tsv has no rows"),
        ({"train_csv": "text,label\n"}, "train.csv has no rows"),
        ({"train_jsonl": "\n"}, "train.jsonl has no rows"),
        ({"train_tsv": GOOD, "test_tsv": ""}, "test.tsv has no rows"),
        ({"train_tsv": "text\tclass\na\tb\n"}, "train.tsv, row 1: no column 'label'"),
        ({"train_csv": "good,pos\nbad,neg\n"}, "train.csv, row 1: no column 'text'; it has good"),
        (
            {"train_csv": "text,label,text\na,b,c\n"},
            "train.csv, row 1: more than one column 'text'",
        ),
        (
            {"train_jsonl": '{"text": "a", "label": "b"}\n{"text": "a"}\n'},
            "train.jsonl, row 2: no column 'label'",
        ),
        ({"train_tsv": GOOD + "a\tpos\textra\n"}, "train.tsv, row 4: 3 columns, the header has 2"),
        ({"train_tsv": GOOD + "\nalone\n"}, "train.tsv, row 5: 1 columns"),
        ({"train_csv": 'text,label\n"a\n\nb",pos\nc\n'}, "train.csv, row 5: 1 columns"),
        ({"train_csv": 'text,label\na,pos\n"b,neg\nc,pos\n'}, "train.csv, row 3: unexpected end"),
        ({"train_csv": 'text,label\na,pos\n"b"c,neg\n'}, "train.csv, row 3: "),
        ({"train_tsv": GOOD.encode() + b"\xff\tpos\n"}, "train.tsv, row 4: not UTF-8"),
        ({"train_jsonl": GOOD.encode("utf-16")}, "train.jsonl, row 1: not UTF-8"),
        ({"train_jsonl": '{"text": "a", "label": "b"}\n{"text"'}, "train.jsonl, row 2: not JSON"),
        ({"train_jsonl": '["a", "b"]\n'}, "train.jsonl, row 1: not a JSON object"),
        (
            {"train_jsonl": '{"text": 1, "label": "b"}\n'},
            "train.jsonl, row 1: the text is not a string",
        ),
        (
            {"train_jsonl": '{"text": "\\ud83d", "label": "b"}\n'},
            "train.jsonl, row 1: an unpaired surrogate",
        ),
        ({"train_tsv": GOOD + "fair\t \n"}, "train.tsv, row 4: the label is empty"),
        (
            {"train_csv": 'text,label\na,"b\nc"\n'},
            "train.csv, row 2: the label is empty or has several",
        ),
        (
            {"train_tsv": GOOD, "test_tsv": GOOD + "so\tmid\n"},
            "test.tsv, row 4: the training split",
        ),
        ({"train_tsv": "text\tlabel\na\tpos\nb\tpos\n"}, "train.tsv: all rows have the same label"),
    ],
)
def test_wrong_files(files, message, error_message):
    assert error_message(**files).startswith(message)


@pytest.mark.parametrize("label", [None, True, [], {}])
def test_labels_of_other_types(label, error_message):
    line = json.dumps({"text": "a", "label": label})
    expected = "train.jsonl, row 1: the label is neither a string nor a number"
    assert error_message(train_jsonl=line).startswith(expected)


def test_error_lists_the_labels_of_training(error_message):
    message = error_message(train_tsv=GOOD, valid_jsonl=as_jsonl([("a", "meh")]))
    assert "valid.jsonl, row 1" in message
    assert "'meh'" in message
    assert "neg, pos" in message


def test_file_instead_of_a_folder(folder, tmp_path):
    (folder / "train.tsv").write_text(GOOD)
    with pytest.raises(DataError, match="nor a folder"):
        datasets.builder(str(folder / "train.tsv"), data_dir=tmp_path)
