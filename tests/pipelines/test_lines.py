"""Text files: encodings, line ends, words, quoting, JSON; a thousand mutations of each format."""

import codecs
import csv
import io
import json
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipelines.mutations import outcomes
from unroll.pipelines import lines
from unroll.pipelines.errors import DataError, report_once

quick = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.tsv"


@pytest.fixture(autouse=True)
def unreported():
    report_once.cache_clear()


def write(path, text: str) -> None:
    path.write_bytes(text.encode())


def rows(path, delimiter="\t") -> list[list[str]]:
    return [fields for _, fields in lines.read_rows(path, delimiter)]


def written(table, **options) -> str:
    """What `DataFrame.to_csv` and Excel write: both quote as the module `csv` does."""
    text = io.StringIO(newline="")
    csv.writer(text, **{"lineterminator": "\n", **options}).writerows(table)
    return text.getvalue()


def error_of(function, *arguments) -> str:
    with pytest.raises(DataError) as error:
        list(function(*arguments) or ())
    message = str(error.value)
    assert len(lines.split_lines(message)) == 1
    return message


class TestText:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_encodings(self, path, encoding):
        path.write_bytes("Zoë 😀\r\nfilm".encode(encoding))
        assert lines.read_text(path) == "Zoë 😀\r\nfilm"

    def test_big_endian(self, path):
        path.write_bytes(codecs.BOM_UTF16_BE + "Zoë\n".encode("utf-16-be"))
        assert lines.read_text(path) == "Zoë\n"

    def test_the_byte_order_mark_of_a_concatenated_file(self):
        both = "a\n".encode("utf-8-sig") + "b\r".encode("utf-8-sig") + "\ufeffc\ufeff".encode()
        assert lines.decode_text(both, "x") == "a\nb\rc\ufeff"

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            ("a\r\nb\rZoë".encode("latin-1"), r"line 3: byte 7 is not UTF-8\. Save the file as"),
            (codecs.BOM_UTF16_LE + b"a\0\n\0b", "line 2: byte 6 is not UTF-16, as its byte order"),
            ("some\ntext".encode("utf-16-le"), "line 1: zero bytes between the characters"),
            ("some\ntext".encode("utf-32"), "line 1: zero bytes between the characters"),
        ],
    )
    def test_other_encodings_are_named(self, path, contents, message):
        path.write_bytes(contents)
        assert re.match(f"{re.escape(str(path))}, {message}", error_of(lines.read_text, path))

    def test_missing_files_are_named(self, path, tmp_path):
        assert (
            error_of(lines.read_text, path) == f"{path} cannot be read: No such file or directory."
        )
        assert error_of(lines.read_text, tmp_path).startswith(f"{tmp_path} cannot be read: ")

    @quick
    @given(st.text(st.sampled_from("a \n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=12))
    def test_line_ends(self, text):
        """A line ends where a text file of Python ends one, and every character is in a line."""
        expected = [line.rstrip("\r\n") for line in io.StringIO(text, newline="")]
        assert lines.split_lines(text) == expected

    @quick
    @given(st.text(st.characters(codec="utf-8"), max_size=12))
    def test_words(self, line):
        """As with `str.split`, control characters aside; and nothing but separators is lost."""
        spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in line)
        assert lines.split_words(line) == spaced.split()

    def test_all_white_space_separates_words(self):
        space = [chr(k) for k in range(0x110000) if chr(k).isspace()]
        assert len(space) > 25
        assert lines.split_words("".join(f"a{c}" for c in space)) == ["a"] * len(space)


HEADER = ["text", "label"]
SAMPLES = {
    "doubled": ['I love this "great" film', "pos"],
    "tab": ["a\tb", "pos"],
    "line break": ["a\nb", "pos"],
    "windows line break": ["a\r\nb", "pos"],
    "one mark": ['"', "pos"],
    "empty": ["", "neg"],
}


class TestQuoting:
    @pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("sample", SAMPLES)
    def test_pandas(self, path, sample, end, quoting, capsys):
        table = [HEADER, ["plain", "neg"], SAMPLES[sample], ["it's", "neg"]]
        text = written(table, delimiter="\t", lineterminator=end, quoting=quoting)
        write(path, text)
        assert rows(path) == rows(path) == table
        expected = f"unroll: {path} is read as quoted, as spreadsheets write it: the quotation"
        printed = capsys.readouterr().err
        assert printed.count(expected) == len(lines.split_lines(printed)) == int('"' in text)

    def test_excel_quotes_fields_with_commas(self, path):
        path.write_bytes('text\tlabel\r\n"Good, really"\tpos\r\nbad\tneg\r\n'.encode("utf-16"))
        assert rows(path) == [HEADER, ["Good, really", "pos"], ["bad", "neg"]]

    @pytest.mark.parametrize("header", ["text\tlabel", '"text"\t"label"'])
    def test_all_texts_quoted(self, path, header):
        write(path, f'{header}\n"good"\tpos\n"bad"\tneg\n')
        assert rows(path) == [HEADER, ["good", "pos"], ["bad", "neg"]]

    @pytest.mark.parametrize(
        "body",
        [
            ['"bad" it says\tneg'],
            ['it says "bad"\tneg', '"Great."\tpos'],
            ['"Great."\tpos', "bad\tneg"],
            ['"Yes, sir."\tpos', "bad, really\tneg"],
            ['"\tpos', 'it says "\tneg'],
            ['"it says\tpos', 'it is 5"\tneg'],
            ['a 5" screen\tpos', '""\tneg', '"\tneg'],
        ],
    )
    def test_marks_that_are_no_quoting_stay(self, path, body, capsys):
        write(path, "\n".join(["text\tlabel", *body]))
        assert rows(path) == [HEADER, *(line.split("\t") for line in body)]
        assert capsys.readouterr().err == ""

    def test_quoting_with_an_exception_is_reported(self, path, capsys):
        body = ['"He said ""hi""."\tpos', '"bad" it says\tneg']
        write(path, "\n".join(["text\tlabel", *body]))
        assert rows(path) == [HEADER, *(line.split("\t") for line in body)]
        assert "1 fields look quoted, but not that of line 3. All qu" in capsys.readouterr().err

    @quick
    @given(
        table=st.lists(
            st.tuples(*[st.text(st.sampled_from('ab" ,;é\u2028'), max_size=6)] * 2), min_size=1
        ),
        inside=st.sampled_from(["\t", "\n", "\r\n", ""]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    )
    def test_any_table_round_trips(self, path, table, inside, quoting, encoding):
        table = [HEADER, *([text.replace(";", inside), label] for text, label in table)]
        end = "\r\n" if "\r" in inside else "\n"
        for delimiter in "\t", ",":
            text = written(table, delimiter=delimiter, lineterminator=end, quoting=quoting)
            path.write_bytes(text.encode(encoding))
            assert rows(path, delimiter) == table


class TestDelimiters:
    @pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs")])
    def test_spreadsheets(self, path, delimiter, name, capsys):
        table = [HEADER, ["good, really; yes", "pos"], ['"bad"', "neg"]]
        write(path, written(table, delimiter=delimiter, lineterminator="\r\n"))
        assert rows(path, ",") == rows(path, ",") == table
        assert f"{path} is read with {name} between the columns." in capsys.readouterr().err

    def test_semicolons_in_a_file_with_commas(self, path, capsys):
        table = [["text; raw", "label"], ["good; really", "pos"], ["bad", "neg"]]
        write(path, written(table))
        assert rows(path, ",") == table
        assert capsys.readouterr().err == ""

    def test_commas_in_a_file_with_semicolons(self, path):
        table = [["text", "label, in words"], ["good", "pos"]]
        write(path, written(table, delimiter=";"))
        assert rows(path, ",") == table

    @pytest.mark.parametrize("delimiter", [",", "\t"])
    def test_declared(self, path, delimiter):
        write(path, 'sep=;\r\ntext;label\r\n"a;""b"";\tc,";pos\r\n')
        assert list(lines.read_rows(path, delimiter)) == [
            (2, HEADER),
            (3, ['a;"b";\tc,', "pos"]),
        ]

    def test_line_numbers(self, path):
        write(path, '\n"text","label"\r\n\r\n"a\r\nb\n\nc",pos\r \rd,neg')
        assert list(lines.read_rows(path, ",")) == [
            (2, HEADER),
            (4, ["a\r\nb\n\nc", "pos"]),
            (9, ["d", "neg"]),
        ]

    def test_rows_of_other_widths_are_the_callers(self, path):
        write(path, "a,b\nc\nd,e,f\n")
        assert rows(path, ",") == [["a", "b"], ["c"], ["d", "e", "f"]]

    def test_longer_than_the_limit_of_csv_fields(self, path):
        for delimiter in ",", "\t":
            write(path, f"text{delimiter}label\n{'word ' * 40_000}{delimiter}pos")
            assert rows(path, delimiter)[1] == ["word " * 40_000, "pos"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('a,b\n"c" d,e\n', "line 2: a quoted field ends inside the field. Double each"),
            ('a,b\r\rc,"d\re,f\n', "line 3: a quoted field is not closed. Double each"),
        ],
    )
    def test_broken_quotes_are_named(self, path, text, message):
        write(path, text)
        assert error_of(lines.read_rows, path, ",").startswith(f"{path}, {message}")


class TestJson:
    def test_with_a_byte_order_mark(self, path):
        path.write_bytes('{"a": "é\u2028"}\r\n\r\n[NaN]'.encode("utf-8-sig"))
        (one, first), (three, [nan]) = lines.read_json_lines(path)
        assert (one, first, three) == (1, {"a": "é\u2028"}, 3)
        assert nan != nan
        path.write_bytes(json.dumps({"a": 1}, indent=1).encode("utf-16"))
        assert lines.read_json(path) == {"a": 1}

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ('{"a":\r1,\n}', 3, "not JSON (Expecting property name"),
            ("", 1, "not JSON (Expecting value)"),
            ("[" * 100_000, 1, "not readable as JSON (maximum recursion depth"),
            ("[" + "1" * 9999 + "]", 1, "not readable as JSON (Exceeds the limit (4300 digits)"),
            ('\n"\\ud83d"', 1, "an unpaired surrogate"),
        ],
    )
    def test_broken_files(self, path, text, line, message):
        write(path, text)
        assert error_of(lines.read_json, path).startswith(f"{path}, line {line}: {message}")
        if text and "\n" not in text:
            write(path, f"1\r\n\n{text}\n")
            assert error_of(lines.read_json_lines, path).startswith(f"{path}, line 3: {message}")

    def test_surrogates_in_pairs(self, path):
        write(path, '"\\ud83d\\ude00"')
        assert lines.read_json(path) == "😀"


TABLE = [HEADER, ["good, really", "pos"], ["Zoë said", "neg"], ["5 inch; flat", "neg"]] * 3
QUOTED = [HEADER, ['He said "hi".', "pos"], ["a\nb, c", "neg"], ["plain; 'x'", "neg"]] * 3


def content(text: str) -> str:
    """The characters that a reader of rows must neither drop nor add."""
    return re.sub(f'[{lines.WORD_SEPARATORS}",;]', "", text.replace("\ufeff", ""))


@pytest.mark.parametrize("delimiter", ["\t", ","])
@pytest.mark.parametrize("table", [TABLE, QUOTED], ids=["plain", "quoted"])
def test_a_thousand_broken_tables(path, table, delimiter):
    """Rows or one line; and what is read is what the file has."""

    def read(path):
        return list(lines.read_rows(path, delimiter)), lines.read_text(path)

    for found, text in outcomes(path, read, written(table, delimiter=delimiter).encode()):
        fields = "".join(field for _, row in found for field in row)
        assert content(fields) == content(text.removeprefix("sep=;")), text
        numbers = [number for number, _ in found]
        assert numbers == sorted(set(numbers))
        assert max(numbers, default=0) <= len(lines.split_lines(text))


@pytest.mark.parametrize("read", [lines.read_json, lines.read_json_lines])
def test_a_thousand_broken_json_files(path, read):
    values = [{"text": "Zoë 😀", "label": n} for n in range(3)]
    contents = f"{json.dumps(values, ensure_ascii=False)}\n".encode()
    of_lines = read is lines.read_json_lines
    values = outcomes(
        path, lambda path: list(read(path)) if of_lines else read(path), contents * (1 + of_lines)
    )
    for found in values:
        assert json.dumps(found, ensure_ascii=False).encode()
