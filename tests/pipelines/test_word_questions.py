"""Files of questions about words."""

import pytest

from unroll.pipelines import datasets, word_questions
from unroll.pipelines.errors import DataError


def test_analogies_by_section(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("a b c d\n: first one\n\na b\tc d\ne f g h\n: empty\n", encoding="utf-8")
    first, second = word_questions.read_analogies(path)
    assert (first.name, first.words) == ("own", [("a", "b", "c", "d")])
    assert (second.name, len(second.words)) == ("first one", 2)
    assert first.is_analogies


def test_rated_pairs(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("a b 1.5\n\nc\td\t-2\ne f 3\n", encoding="utf-8")
    found = word_questions.read_similarity(path)
    assert found.name == "pairs"
    assert found.words == [("a", "b"), ("c", "d"), ("e", "f")]
    assert found.ratings == [1.5, -2.0, 3.0]
    assert not found.is_analogies


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (word_questions.read_analogies, "a b c d\na b c\n", "line 2: 3 words; an analogy has four"),
        (word_questions.read_analogies, ": section\n", "has no analogies"),
        (
            word_questions.read_similarity,
            "a b 1\na b c\n",
            "line 2: expected two words and a number",
        ),
        (word_questions.read_similarity, "a b nan\n", "line 1: expected two words and a number"),
        (word_questions.read_similarity, "a 1\n", "line 1: expected two words and a number"),
        (word_questions.read_similarity, "a b 1\n", "has 1 pairs; at least three"),
    ],
)
def test_broken_files_are_named(tmp_path, read, content, message):
    path = tmp_path / "questions.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"^{path}\S* {message}"):
        read(path)


@pytest.mark.exhaustive
def test_published_questions(manual_dir, tmp_path):
    examples = datasets.load("word_questions", "test", data_dir=tmp_path)
    found = word_questions.from_examples(examples.as_numpy_iterator())
    sizes = {section.name: len(section.words) for section in found}
    assert sum(len(s.words) for s in found if s.is_analogies) == 19_544
    assert len(found) == 17
    assert [sizes[name] for name in ("WordSim-353", "SimLex-999", "MEN")] == [353, 999, 3000]
    assert sizes["capital-common-countries"] == 506
    assert found[0].words[0] == ("Athens", "Greece", "Baghdad", "Iraq")
