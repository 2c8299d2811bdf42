"""Tatoeba: Chinese and English sentences that volunteers wrote and translated."""

import hashlib

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.translation.base import Pairs, pair
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text, split_lines

FILE = Source(
    "tatoeba_zh_en",
    "cmn.txt",
    "https://raw.githubusercontent.com/13luoyu/Transformer-machine-translation/"
    "aa43963320ccfacebd1d3542deae559bbca58d03/cmn.txt",
    "aa264a2447b26ab7c9d413f8321f9e2a779fd134b5118306b6e26a3499b3926e",
)


class TatoebaZhEn(Pairs, skip_registration=True):
    """29,155 pairs of short Chinese and English sentences.

    Many sentences have several translations. Pairs that have a sentence in common are in the same
    split, directly or through other pairs: no sentence of either language is in two of them. A hash
    of the English side puts a twentieth of these groups into "valid" and "test" each. Simplified
    and traditional characters are mixed, as in the file.
    """

    name = "tatoeba_zh_en"
    HOMEPAGE = "https://tatoeba.org"
    LICENSE = "CC BY 2.0 FR"
    LANGUAGES = ("zh", "en")

    def _split_generators(self, dl_manager):
        path = find(FILE, dl_manager, self.manual_dir)
        return {split: self._pairs(path, split) for split in self.SPLITS}

    def _pairs(self, path, split: str):
        rows = []
        for number, line in enumerate(split_lines(read_text(path)), start=1):
            if not line.strip():  # the last one
                continue
            fields = line.split("\t")
            if len(fields) != 3 or not all(field.strip() for field in fields):
                raise DataError(f"{path}, line {number}: expected English, Chinese, attribution.")
            rows.append((fields[0], fields[1]))
        backwards = self.languages == ("en", "zh")
        pairs = (
            pair(english, chinese) if backwards else pair(chinese, english)
            for (english, chinese), own in zip(rows, split_of(rows), strict=True)
            if own == split
        )
        yield from self._generate_examples(pairs)


def split_of(rows: list[tuple[str, str]]) -> list[str]:
    """The split of each pair of sentences. No sentence is in two splits."""
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node):
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for first, second in rows:
        parents[root((1, second))] = root((0, first))
    least: dict[tuple[int, str], str] = {}
    for first, _ in rows:
        own = root((0, first))
        least[own] = min(least.get(own, first), first)
    chosen = {own: _split(first) for own, first in least.items()}
    return [chosen[root((0, first))] for first, _ in rows]


def _split(sentence: str) -> str:
    k = int(hashlib.sha256(sentence.encode()).hexdigest()[:8], 16) % 20
    return {0: "valid", 1: "test"}.get(k, "train")
