"""Questions about words, which word vectors are evaluated with: analogies and similarities."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text, split_lines, split_words


@dataclass
class Section:
    """Questions of one kind.

    Attributes:
        name: of the section.
        words: of each question. Four words are an analogy, the first is to the second as the third
            is to the fourth; two words are a pair whose similarity is rated.
        ratings: of each pair; empty for analogies.
    """

    name: str
    words: list[tuple[str, ...]] = field(default_factory=list)
    ratings: list[float] = field(default_factory=list)

    @property
    def is_analogies(self) -> bool:
        """Whether the questions are analogies."""
        return not self.ratings


def read_analogies(path: str | Path) -> list[Section]:
    """The analogies of a file in the format of word2vec's `questions-words.txt`.

    A line has four words, or a colon and the name of the section that begins. Questions before the
    first name are in a section named after the file.

    Raises:
        DataError: that names the file and the line, if it is neither; or if there are no questions.
    """
    sections = [Section(Path(path).stem)]
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        words = split_words(line)
        if words and words[0].startswith(":"):
            sections.append(Section(" ".join(words).removeprefix(":").strip()))
        elif words and len(words) != 4:
            raise DataError(
                f"{path}, line {number}: {len(words)} words; an analogy has four, and the name of "
                "a section begins with a colon."
            )
        elif words:
            sections[-1].words.append(tuple(words))
    sections = [section for section in sections if section.words]
    if not sections:
        raise DataError(f"{path} has no analogies.")
    return sections


def read_similarity(path: str | Path) -> Section:
    """The rated pairs of a file with lines of two words and a number, with tabs or spaces between.

    The section is named after the file.

    Raises:
        DataError: that names the file and the line, if it is something else; or if there are fewer
            than three pairs.
    """
    section = Section(Path(path).stem)
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        words = split_words(line)
        if not words:
            continue
        try:
            first, second, rating = words
            section.ratings.append(float(rating))
        except ValueError:
            section.ratings.append(math.nan)
        if not math.isfinite(section.ratings[-1]):
            raise DataError(f"{path}, line {number}: expected two words and a number.")
        section.words.append((first, second))
    if len(section.words) < 3:
        raise DataError(f"{path} has {len(section.words)} pairs; at least three are needed.")
    return section


def from_examples(examples: Iterable[dict]) -> list[Section]:
    """The sections of examples of the dataset `word_questions`, in their order."""
    sections: dict[str, Section] = {}
    for example in examples:
        name = example["section"].decode("utf-8")
        section = sections.setdefault(name, Section(name))
        section.words.append(tuple(example["words"].decode("utf-8").split(" ")))
        if len(section.words[-1]) == 2:
            section.ratings.append(float(example["rating"]))
    return list(sections.values())
