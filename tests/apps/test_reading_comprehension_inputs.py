"""Stories on the command line of the reading comprehension app: typed, in files, numbered."""

import pytest

from tests.pipelines.mutations import outcomes
from unroll.apps.core.errors import UsageError
from unroll.apps.reading_comprehension.parsing import parse_inputs
from unroll.pipelines.errors import DataError

# As a file of training.
NUMBERED = "1 Ann went to the garden.\n2 Dan slept. Then he ate.\n3 Where is Ann? \tgarden\t1\n"
FACTS = "Ann went to the garden.\nDan slept.\u00a0Then he ate."


@pytest.fixture
def write(tmp_path):
    """A function that writes a file, and returns its path."""

    def write(content: str | bytes, name: str = "story.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_typed_stories():
    arguments = ["Ann left.", "Who?", "Where is she？", "1 dog ran\nto Bob", "من؟ "]
    arguments += ["1 dog ran.", "Who?", "2 dogs ran.\n2 cats slept.", "Who?"]
    assert parse_inputs(arguments) == [
        ("Ann left.", "Who?"),
        ("Ann left.", "Where is she？"),
        ("1 dog ran\nto Bob", "من؟ "),
        ("1 dog ran.", "Who?"),
        ("2 dogs ran.\n2 cats slept.", "Who?"),
    ]


@pytest.mark.parametrize("name", ["story.txt", "STORY.TXT", "story", "story.story"])
def test_a_file_of_plain_text(write, name):
    text = "Ann left. Bob is here.\n\n2 dogs ran.\n"
    assert parse_inputs([write(text, name), "Who?"]) == [(text, "Who?")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_numbered_file_is_read_as_in_training(write, end, encoding):
    path = write(NUMBERED.replace("\n", end).encode(encoding))
    assert parse_inputs([path, "Where is Dan?"]) == [(FACTS, "Where is Dan?")]
    assert parse_inputs([path]) == [(FACTS, "Where is Ann?")]
    path = write("1 Ann left.".encode(encoding))
    assert parse_inputs([path, "Who?"]) == [("Ann left.", "Who?")]


def test_a_numbered_story_that_is_typed():
    assert parse_inputs([NUMBERED, "Who?"]) == [(FACTS, "Who?")]


def test_the_questions_of_a_file_have_the_facts_before_them(write):
    path = write(f"{NUMBERED}4 Ann left.\n5 Is Ann here?\tno\n1 Bob left.\n2 Is Bob here?\tno\n")
    assert parse_inputs([path, "Ann left.", "Who?"]) == [
        (FACTS, "Where is Ann?"),
        (f"{FACTS}\nAnn left.", "Is Ann here?"),
        ("Bob left.", "Is Bob here?"),
        ("Ann left.", "Who?"),
    ]
    with pytest.raises(UsageError, match=r"story\.txt has 2 stories: ask about a file with one"):
        parse_inputs([path, "Who?"])


def test_a_story_without_facts():
    assert parse_inputs(["", "Who?"]) == [("", "Who?")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["Where is Bob?"], "'Where is Bob.': name the story before the questions about it"),
        (["Bob is here.", "Mary is there."], "Bob is here.: a question about it is missing"),
        (["Bob is here.", "Who?", "a"], "a: a question about it is missing"),
        (["1 Ann left.\n3 Bob left.", "Who?"], "the story, line 2: expected the number 2 or 1"),
        (["3 Ann left.\n4 Bob left.", "Who?"], "the story, line 1: expected the number 1, got 3"),
        (["none.txt", "Who?"], "none.txt cannot be read: No such file"),
    ],
)
def test_incorrect_inputs_are_named(inputs, message):
    with pytest.raises((UsageError, DataError), match=message):
        parse_inputs(inputs)


def test_incorrect_files_are_named(write):
    path = write("1 Ann left.\n2 Bob left.\n4 Who left?\tAnn\n")
    with pytest.raises(DataError, match=rf"{path}, line 3: expected the number 3 or 1, got 4"):
        parse_inputs([path, "Who?"])
    path = write("Ann left.\n2 Who left?\tAnn\n")
    with pytest.raises(DataError, match=rf"{path}, line 1: expected a number, a space and"):
        parse_inputs([path, "Who?"])
    with pytest.raises(DataError, match="line 1: byte 1 is not UTF-8"):
        parse_inputs([write(b"A\xff"), "Who?"])
    with pytest.raises(UsageError, match=r"story\.txt: a question about it is missing"):
        parse_inputs([write("1 Ann left.\n")])


def test_a_thousand_broken_files(tmp_path):
    """A story, or one line."""
    path = tmp_path / "story.txt"
    refusals = DataError, UsageError
    queries = outcomes(
        path, lambda p: parse_inputs([str(p), "Who?"]), NUMBERED.encode(), error=refusals
    )
    for [(_, question)] in queries:
        assert question == "Who?"
    own = outcomes(path, lambda p: parse_inputs([str(p)]), NUMBERED.encode(), error=refusals)
    assert all(question for pairs in own for _, question in pairs)
