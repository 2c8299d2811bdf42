"""Sentences of a probabilistic grammar, whose entropy is known exactly."""

import math
import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate, islice

import numpy as np
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.language.base import PlainText

SIZES = {"train": 3_000, "valid": 100, "test": 200}
SENTENCES = 20  # of a piece
START = "SENTENCE"
_COUNTS = ("one", "two", "three", "four", "five", "six")


def _choice(words: str) -> list[tuple[float, str]]:
    """Rules with equal probabilities, one for each word."""
    return [(1 / len(words.split()), word) for word in words.split()]


# The rules of each nonterminal: their probabilities and right sides. A symbol that is not a
# nonterminal is a word. The number 1 stands for the singular, 2 for the plural.
RULES: dict[str, list[tuple[float, str]]] = {
    START: [(1.0, "CLAUSE .")],
    "CLAUSE": [(0.5, "NP1 VP1"), (0.5, "NP2 VP2")],
    "NP1": [(1.0, "DET1 NOUN1 MORE")],
    "NP2": [(1.0, "DET2 NOUN2 MORE")],
    "MORE": [
        (0.72, ""),
        (0.07, "that NP1 TAKE1"),
        (0.07, "that NP2 TAKE2"),
        (0.06, "( CLAUSE )"),
        (0.08, "[ LIST ]"),
    ],
    "VP1": [(0.3, "GO1"), (0.4, "TAKE1 OBJECT"), (0.15, 'SAY1 " CLAUSE "'), (0.15, "SING1 SONG")],
    "VP2": [(0.3, "GO2"), (0.4, "TAKE2 OBJECT"), (0.15, 'SAY2 " CLAUSE "'), (0.15, "SING2 SONG")],
    "OBJECT": [(0.5, "NP1"), (0.5, "NP2")],
    "SONG": [(0.5, "la lo"), (0.5, "la SONG lo")],
    "LIST": [
        (1 / len(_COUNTS), " ".join([count, *["ITEM"] * number]))
        for number, count in enumerate(_COUNTS, start=1)
    ],
    "ITEM": _choice("red green blue gold"),
    "DET1": _choice("the every this one"),
    "DET2": _choice("the most these some"),
    "NOUN1": _choice("dog cat bird child king queen sailor baker"),
    "NOUN2": _choice("dogs cats birds children kings queens sailors bakers"),
    "GO1": _choice("runs sleeps waits falls"),
    "GO2": _choice("run sleep wait fall"),
    "TAKE1": _choice("sees likes follows finds"),
    "TAKE2": _choice("see like follow find"),
    "SAY1": _choice("says thinks writes hopes"),
    "SAY2": _choice("say think write hope"),
    "SING1": _choice("sings hums"),
    "SING2": _choice("sing hum"),
}
_SIDES = {
    symbol: (list(accumulate(p for p, _ in rules)), [right.split() for _, right in rules])
    for symbol, rules in RULES.items()
}


def sample(rng: random.Random) -> tuple[list[str], float]:
    """The words of a random sentence, and the natural logarithm of its probability."""
    words, stack, log_probability = [], [START], 0.0
    while stack:
        symbol = stack.pop()
        if symbol not in RULES:
            words.append(symbol)
            continue
        cumulative, sides = _SIDES[symbol]
        k = min(bisect(cumulative, rng.random()), len(sides) - 1)
        log_probability += math.log(RULES[symbol][k][0])
        stack.extend(reversed(sides[k]))
    return words, log_probability


def _expected(own) -> dict[str, float]:
    """The expected sum of `own(p, words)` over all rules of a derivation, by first nonterminal.

    The expectations x of the nonterminals solve `x = own + M x`, where M has the expected number of
    each nonterminal in the right side of each.
    """
    names = list(RULES)
    matrix, constant = np.zeros((len(names), len(names))), np.zeros(len(names))
    for row, symbol in enumerate(names):
        for p, right in RULES[symbol]:
            words = [each for each in right.split() if each not in RULES]
            constant[row] += p * own(p, words)
            for each in right.split():
                if each in RULES:
                    matrix[row, names.index(each)] += p
    solved = np.linalg.solve(np.eye(len(names)) - matrix, constant)
    return dict(zip(names, solved.tolist(), strict=True))


def sentence_entropy() -> float:
    """The entropy of a sentence in nats, exact: no sentence has two derivations."""
    return _expected(lambda p, words: -math.log(p))[START]


def entropy(unit: str) -> float:
    """The entropy per token of the text in nats, for units "characters" or "words".

    It is the entropy of a sentence divided by its expected length. The space or the line end after
    a word is a character. The line end is a word of its own.
    """
    if unit == "characters":
        length = _expected(lambda p, words: sum(len(word) + 1 for word in words))[START]
    elif unit == "words":
        length = _expected(lambda p, words: len(words))[START] + 1
    else:
        raise ValueError(f"unit must be 'characters' or 'words', got {unit!r}.")
    return sentence_entropy() / length


def sentences(split: str, count: int, seed: int = 0) -> Iterator[tuple[str, float]]:
    """Lines of one sentence each, and the natural logarithm of its probability."""
    rng = random.Random(f"{split} {seed}")
    for _ in range(count):
        words, log_probability = sample(rng)
        yield " ".join(words) + "\n", log_probability


class Grammar(Generated, PlainText, skip_registration=True):
    """Generated sentences, 60,000 / 2,000 / 4,000, one per line.

    A probabilistic context-free grammar with nested quotes and brackets, subjects and verbs that
    agree over relative clauses of any depth, numbers followed by as many items, and songs with as
    many "lo" as "la":

        the dogs that every king likes sleep .
        this bird [ two red gold ] says " most cats ( the queen waits ) hum la la lo lo " .

    The sentences are independent, and no sentence has two derivations. So the entropy of the text
    is known exactly (`entropy`): 0.3643 nats or 0.5256 bits per character, and 1.4924 nats per word
    (a perplexity of 4.448), where a line end counts as a word. A perfect model reaches it, and no
    model is better on average. On the test split the grammar itself has 0.3639 nats per character.
    A perfect model needs a stack: brackets, quotes and relative clauses are nested to any depth.
    """

    VERSION = tfds.core.Version("1.0.0")
    SIZES = SIZES

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.sizes}

    def _generate_examples(self, split: str):
        lines = (line for line, _ in sentences(split, SENTENCES * self.sizes[split]))
        for number in range(self.sizes[split]):
            yield number, {"text": "".join(islice(lines, SENTENCES))}
