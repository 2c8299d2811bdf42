"""Your own tagged sentences: the layouts, the schemes of tags, and errors of one line."""

import re

import pytest

from tests.pipelines.mutations import outcomes
from unroll.pipelines import datasets, errors
from unroll.pipelines.datasets.tagging.base import read_lines
from unroll.pipelines.datasets.tagging.columns import read_columns
from unroll.pipelines.datasets.tagging.schemes import to_bio
from unroll.pipelines.datasets.tagging.tagged_files import TaggedFiles
from unroll.pipelines.errors import DataError

LINES = {
    "seq.in": "to Bonn at 8\nBonn please\n",
    "seq.out": "O B-to O B-time\nB-from O\n",
    "label": "flight\nfare\n",
}
CONLL = "-DOCSTART- -X- O\n\nHarry NNP B-PER\nPotter NNP I-PER\nmet VBD O\n\nHermione NNP S-PER\n"


@pytest.fixture(autouse=True)
def messages():
    """Every test prints its messages, although some are the same."""
    errors.report_once.cache_clear()


def write(folder, split: str, files: dict) -> None:
    (folder / split).mkdir(parents=True)
    for name, text in files.items():
        (folder / split / name).write_bytes(text.encode())


def read_three(folder) -> list[tuple]:
    """The sentences of the first layout."""
    paths = [folder / "train" / name for name in LINES]
    examples = read_lines(paths[0], paths[1], paths[2] if paths[2].exists() else None)
    return [(" ".join(e["words"]), " ".join(e["tags"]), e["intent"]) for e in examples]


@pytest.fixture
def columns(tmp_path):
    """A function from the text of a file of columns to pairs of words and tags."""

    def columns(text: str, tag_first: bool = False) -> list[tuple]:
        path = tmp_path / "train.conll"
        path.write_bytes(text.encode())
        return [(e["words"], " ".join(e["tags"])) for e in read_columns(path, tag_first)]

    return columns


class TestThreeFiles:
    EXPECTED = [("to Bonn at 8", "O B-to O B-time", "flight"), ("Bonn please", "B-from O", "fare")]

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends(self, end, tmp_path):
        write(tmp_path, "train", {k: v.replace("\n", end) for k, v in LINES.items()})
        assert read_three(tmp_path) == self.EXPECTED

    def test_blank_lines_at_the_end_of_some_files(self, tmp_path):
        write(tmp_path, "train", LINES | {"label": LINES["label"] + "\n \n"})
        assert read_three(tmp_path) == self.EXPECTED

    def test_any_white_space_separates_words(self, tmp_path):
        text = LINES["seq.in"].replace("to Bonn at 8", "to\u00a0Bonn\u3000at\u2028\x0b8")
        write(tmp_path, "train", LINES | {"seq.in": text})
        assert read_three(tmp_path) == self.EXPECTED

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seq.out": "O B-to O\nB-from O\n"}, "seq.out, line 1: 3 tags for 4 words of seq.in"),
            ({"seq.out": "O B-to O I-to\nB-from O\n"}, "seq.out, line 1: 'I-to' follows 'O'"),
            ({"seq.out": "O B-to O time\nB-from O\n"}, "line 1: the tag 'time' is not one of BIO"),
            ({"seq.out": "O B-to O O\n"}, r"seq.in has 2 lines, but .*seq.out has 1"),
            ({"label": "flight\n"}, r"seq.in has 2 lines, but .*label has 1"),
            ({"label": "flight\nfare\nfare\n"}, r"label has 3 lines, but .*seq.in has 2"),
            ({"label": " \nfare"}, "label, line 1: no intent"),
            ({"seq.in": "\nBonn please"}, "seq.in, line 1: no words"),
        ],
    )
    def test_error_names_the_file_and_the_line(self, change, message, tmp_path):
        write(tmp_path, "train", LINES | change)
        with pytest.raises(DataError, match=message):
            read_three(tmp_path)


class TestColumns:
    EXPECTED = [(["Harry", "Potter", "met"], "B-PER I-PER O"), (["Hermione"], "B-PER")]

    @pytest.mark.parametrize(
        "text", [CONLL, CONLL.replace("\n", "\r\n"), CONLL.replace("\n", "\r"), CONLL + "\n\n"]
    )
    def test_line_ends(self, text, columns):
        assert columns(text) == self.EXPECTED

    def test_the_tag_first(self, columns):
        turned = "\n".join(" ".join(line.split()[::-1]) for line in CONLL.split("\n"))
        assert columns(turned, tag_first=True) == self.EXPECTED

    def test_words_between_tabs_may_contain_spaces(self, columns, tmp_path, capsys):
        words = ["New York", "26 000", "10\u00a0000", "a\u2028b", "1,5", "p.m."]
        text = "".join(f"{word} \tO\n" for word in words)
        assert columns(text) == [(words, "O O O O O O")]
        (tmp_path / "train.conll").write_text(text + "\nx\tO\n" * 10)
        TaggedFiles(tmp_path, data_dir=tmp_path)
        message = "5 of 16 words contain spaces or punctuation at which `predict` splits a text: "
        assert message + "'New York', '26 000'" in capsys.readouterr().err

    def test_a_no_break_space_is_part_of_a_word_between_spaces(self, columns):
        assert columns("10\u00a0000 O\n") == [(["10\u00a0000"], "O")]

    def test_comments(self, columns, capsys):
        text = "# sent_id = 1\n# text = Vitamin O\n# id 4-5\tdomain=en\n#\tO\n#a=b\tO\n\n#x\tO\n"
        assert columns(text) == [(["#", "#a=b"], "O O"), (["#x"], "O")]
        assert "3 lines that begin with # are comments" in capsys.readouterr().err
        assert columns("# newdoc\n# O\n") == [(["#"], "O")]

    def test_conll_u(self, columns, capsys):
        text = (
            "# global.columns = ID FORM UPOS NE\n1-2\tdu\t_\t_\n1\tde\tX\tO\n2\tle\tX\tB-P\n"
            "2.1\tx\t_\t_\n\n1\tzu\tX\tO\n"
        )
        assert columns(text) == [(["de", "le"], "O B-P"), (["zu"], "O")]
        message = "the second has the words. 1 ranges and 1 empty nodes are skipped."
        assert message in capsys.readouterr().err

    def test_numbers_are_words_where_they_do_not_count(self, columns):
        assert columns("1\tCD\tO\n3\tCD\tO\n") == [(["1", "3"], "O O")]
        assert columns("1\tO\n2\tO\n") == [(["1", "2"], "O O")]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("Harry B-PER\nmet\n", "line 2: a line is a word and a tag, got 'met'"),
            ("Harry\tB-PER\nmet O\n", "line 2: a line is a word and a tag with a tab between"),
            ("a O\nNew York O\n", "line 2: 3 columns, but line 1 has 2"),
            ("\u00a0\tO\nb\tO\n", "line 1: the word is empty"),
            ("a B-PER\n\nmet O\nRon I-PER\n", "line 4: 'I-PER' follows 'O'.* in line 1, 'B-PER'"),
        ],
    )
    def test_error_names_the_line(self, text, message, columns):
        with pytest.raises(DataError, match=re.escape("train.conll, ") + message):
            columns(text)


SPANS = ["B-x", "B-x", "I-x", "O", "B-x", "I-x", "I-x", "B-y"]
SCHEMES = {
    "BIO": "B-x B-x I-x O B-x I-x I-x B-y",
    "IOB1": "I-x B-x I-x O I-x I-x I-x I-y",
    "IOBES": "S-x B-x E-x O B-x I-x E-x S-y",
    "BILOU": "U-x B-x L-x O B-x I-x L-x U-y",
    "BMES": "S-x B-x E-x O B-x M-x E-x S-y",
    "BMEWO": "W-x B-x E-x O B-x M-x E-x W-y",
}


def bio(tags: str) -> list[str]:
    row = tags.split()
    return to_bio("x.conll", [row], [range(1, len(row) + 1)])[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scheme_is_detected_and_said(scheme, capsys):
    assert bio(SCHEMES[scheme]) == SPANS
    said = f"unroll: x.conll has {scheme} tags, which are converted to BIO.\n"
    assert capsys.readouterr().err == (said if scheme != "BIO" else "")


def test_spans_that_are_not_ended_are_counted(capsys):
    assert bio("B-x I-x O S-y B-x B-y") == ["B-x", "I-x", "O", "B-y", "B-x", "B-y"]
    assert "x.conll: 3 spans of IOBES have no tag that ends them." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("O E-x", "line 2: 'E-x' follows 'O', which IOBES does not allow"),
        ("S-x I-x", "line 2: 'I-x' follows 'S-x', which IOBES does not allow"),
        ("B-x L-y", "line 2: 'L-y' follows 'B-x', which BILOU does not allow"),
        ("M-x E-x", "line 1: 'M-x' follows the beginning of a sentence, which BMES"),
        ("B-x L-x S-x", r"'L-x' \(line 2\), 'S-x' \(line 3\) are tags of different schemes"),
        ("B-x X-x", "line 2: the tag 'X-x' is not one of BIO, IOB1"),
        ("B-", "line 1: the tag 'B-' is not one of"),
        ("B-x O I-y B-y", "line 3: 'I-y' follows 'O'.*not IOB1 either: in line 1, 'B-x'"),
    ],
)
def test_other_tags_are_refused(tags, message):
    with pytest.raises(DataError, match=f"x.conll.*{message}"):
        bio(tags)


def many(count: int = 30) -> str:
    return "\n".join(f"word{k} O\nBonn B-to\n" for k in range(count))


class TestFolders:
    def splits(self, folder, tmp_path) -> dict:
        builder = TaggedFiles(folder, data_dir=tmp_path)
        return {
            split: [(" ".join(e["words"]), e["intent"]) for _, e in rows]
            for split, rows in builder._split_generators(None).items()
        }

    def test_layouts_and_splits_are_prepared(self, tmp_path):
        write(tmp_path / "own", "train", LINES)
        write(tmp_path / "own", "dev", {k: v.splitlines()[0] for k, v in LINES.items()})
        builder = datasets.builder(str(tmp_path / "own"), kind="tagging", data_dir=tmp_path)
        [example] = datasets.read(builder, "valid").as_numpy_iterator()
        assert example["words"].tolist() == b"to Bonn at 8".split()
        assert example["tags"].tolist() == b"O B-to O B-time".split()
        assert example["intent"] == b"flight"

    def test_equal_sentences_are_held_out_together(self, tmp_path, capsys):
        (tmp_path / "train.conll").write_text(many() + "\n" + many())
        found = self.splits(tmp_path, tmp_path)
        assert len(found["train"]) == 54
        assert len(set(found["valid"])) == 3
        assert not set(found["train"]) & set(found["valid"])
        assert "6 of 60 sentences are held out" in capsys.readouterr().err

    def test_what_valid_and_test_have_beyond_is_counted(self, tmp_path, capsys):
        write(tmp_path, "train", LINES)
        write(tmp_path, "valid", LINES)
        test = {"seq.in": "a b\nc\n", "seq.out": "B-to I-to\nB-x\n", "label": "flight\nhotel\n"}
        write(tmp_path, "test", test)
        assert self.splits(tmp_path, tmp_path)["test"] == [("a b", "flight"), ("c", "hotel")]
        printed = capsys.readouterr().err
        assert "valid: 2 of 2 sentences are also in the training split" in printed
        assert "1 of 2 intents are not in the training split (hotel)" in printed
        assert "2 of 3 tags are not in the training split (I-to, B-x)" in printed

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, "no training data"),
            ({"train.conll": CONLL}, "train.conll has no validation split, and a tenth of 2"),
            ({"train.conll": "\n\n"}, "train.conll has no sentences"),
            ({"train.conll": CONLL, "train.txt": CONLL}, "has train twice"),
            ({"train.conll": CONLL, "test.bio": CONLL}, "test.bio is not read: name the file test"),
            ({"train.conll": CONLL, "train/label": "x"}, "train has no seq.in and no seq.out"),
            ({"train/seq.in": "a"}, "train has no seq.out"),
            ({"train/label.txt": "x"}, "train/label.txt is not read: name the file label"),
            ({"train/intents": "x"}, "train/intents is not read: name the file label"),
            ({"train/seq.in.bak": "x"}, "train/seq.in.bak is not read: name the file seq.in"),
            ({"valid/seq.in": "a", "valid/seq.out": "O"}, "all splits or none .* 'label'"),
        ],
    )
    def test_folders_that_are_refused(self, files, message, tmp_path):
        own = tmp_path / "own"
        (own / "train").mkdir(parents=True)
        whole = not files or any(name.startswith("train.") for name in files)
        if whole or "train/seq.in" in files:
            (own / "train").rmdir()
        else:
            files = {f"train/{name}": text for name, text in LINES.items()} | files
        for name, text in files.items():
            (own / name).parent.mkdir(exist_ok=True)
            (own / name).write_text(text)
        with pytest.raises(DataError, match=message) as error:
            TaggedFiles(own, data_dir=tmp_path)
        assert "\n" not in str(error.value)

    def test_other_files_are_counted(self, tmp_path, capsys):
        write(tmp_path, "train", LINES | {"README": "x", ".DS_Store": "x"})
        write(tmp_path, "valid", LINES)
        self.splits(tmp_path, tmp_path)
        assert "train: 1 other files are not read: README." in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", [CONLL, CONLL.replace(" ", "\t"), "# a = b\n1-2 du _ _\n1 de X O\n2 le X B-P\n"]
)
def test_mutated_columns_are_read_or_refused_in_one_line(text, tmp_path):
    """1,000 mutations of each format."""
    for examples in outcomes(tmp_path / "x.conll", read_columns, text.encode()):
        for example in examples:
            assert len(example["words"]) == len(example["tags"]) > 0
            assert all(tag == "O" or tag[:2] in ("B-", "I-") for tag in example["tags"])


@pytest.mark.parametrize("part", LINES)
def test_mutated_lines_are_read_or_refused_in_one_line(part, tmp_path):
    """1,000 mutations of each file."""
    write(tmp_path, "train", LINES)
    paths = [tmp_path / "train" / name for name in LINES]

    def read(path):
        try:
            return read_lines(*paths)
        except DataError as error:  # it may name one of the other files
            raise DataError(f"{path}: {error}") from None

    for examples in outcomes(tmp_path / "train" / part, read, LINES[part].encode()):
        for example in examples:
            assert len(example["words"]) == len(example["tags"]) > 0
