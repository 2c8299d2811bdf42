"""English articles of Wikipedia, as WikiExtractor writes them."""

import hashlib
import re
import tarfile
import zlib
from pathlib import Path

from unroll.pipelines.datasets.language.base import PlainText
from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import decode_text, split_lines

ARCHIVE = Source(
    "wiki10m",
    "wiki_text_AA.tar.gz",
    "https://github.com/Vibhas-hs-edu/WikiTasks/raw/"
    "52b1f163137bc40b0f67cbf129d5dab4f6fd5901/text/wiki_text_AA.tar.gz",
)
_START = re.compile(r'<doc id="([^"]*)"')


class Wiki10m(PlainText, skip_registration=True):
    """96,339 English articles with 10.3 million words, held out by article.

    A hash of its number puts one article of fifty into "valid", and one into "test". Lines without
    text are left out; an empty line follows each article.
    """

    HOMEPAGE = "https://github.com/Vibhas-hs-edu/WikiTasks"
    LICENSE = "CC BY-SA"
    COUNT = 96_339

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        return {split: self._generate_examples(path, split) for split in self.SPLITS}

    def _generate_examples(self, path: Path, split: str):
        count = 0
        for name, lines in _articles(path):
            count += 1
            if split_of(name) == split:
                yield count, {"text": "\n".join([*lines, "", ""])}
        if count != self.COUNT:
            raise DataError(f"{path} has {count} articles, not {self.COUNT}.")


def split_of(name: str) -> str:
    """The split of an article with this number."""
    k = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 50
    return {0: "valid", 1: "test"}.get(k, "train")


def _articles(path: Path):
    """The number and the lines of each article."""
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda each: each.name):
                if not member.isfile():
                    continue
                contents = archive.extractfile(member).read()
                name, lines = "", []
                for line in split_lines(decode_text(contents, f"{path}, {member.name}")):
                    if found := _START.match(line):
                        name, lines = found[1], []
                    elif line == "</doc>":
                        yield name, lines
                    elif line.strip():
                        lines.append(line)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a complete archive: {error}.") from None
