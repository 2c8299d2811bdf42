"""Figures of translations and of replies: BLEU, chrF, perplexity, variety, selection."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from sacrebleu.metrics import BLEU, CHRF

from unroll.pipelines import translation

CANDIDATES = 10  # replies of which one is to be selected
_BATCH = 256  # texts that are split into words at once
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")

# Scores of replies, `[N, C]`, from N sources, their histories, and C replies to each.
Scorer = Callable[[list[str], list[list[str]], list[list[str]]], np.ndarray]


@dataclass
class Texts:
    """The texts of a split, one of each for an example.

    Attributes:
        sources, targets: as in the files.
        histories: the turns before the sources, the oldest first.
    """

    sources: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    histories: list[list[str]] = field(default_factory=list)

    def contexts(self) -> list[tuple[str, ...]]:
        """The turns before each target."""
        return [
            (*history, source) for history, source in zip(self.histories, self.sources, strict=True)
        ]

    def references(self) -> dict[tuple[str, ...], list[str]]:
        """The different targets of each context, which are all correct."""
        found: dict[tuple[str, ...], dict[str, None]] = {}
        for context, target in zip(self.contexts(), self.targets, strict=True):
            found.setdefault(context, {})[target] = None
        return {context: list(targets) for context, targets in found.items()}


def texts_of(dataset: tf.data.Dataset) -> Texts:
    """The texts of batches that `translation.batches` made `with_text`."""
    texts = Texts()
    for _, labels in dataset.as_numpy_iterator():
        texts.sources += [text.decode() for text in labels["source"]]
        texts.targets += [text.decode() for text in labels["target"]]
        texts.histories += [[t.decode() for t in turns if t] for turns in labels["history"]]
    return texts


def tokenization(texts: list[str]) -> str:
    """The tokenization of sacreBLEU for a language, which it tells from the characters.

    `char` for Japanese, `zh` for Chinese, `13a` otherwise.
    """
    characters = "".join(texts)
    kana, chinese = (len(each.findall(characters)) for each in (_KANA, _CHINESE))
    if kana + chinese <= len(characters) // 5:
        return "13a"
    return "char" if kana > chinese // 10 else "zh"


def translation_figures(texts: Texts, outputs: list[str]) -> dict:
    """The figures of translations, in percent.

    Each different source counts once, with all targets that the split has for it.

    - `bleu`: sacreBLEU, with the tokenization of `tokenization`, otherwise its defaults: with one
      target for each source `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`. `bleu_lowercase` is the
      same in lower case.
    - `chrf`: chrF2 of sacreBLEU, `nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no`.
    - `exact_match`: the share of outputs that are equal to a target.

    Args:
        texts: of the split.
        outputs: a translation of each example. Of a source that occurs again, the first counts.
    """
    hypotheses, references, kind = _scored(texts, outputs)
    streams = _streams(references)
    exact = [output in own for output, own in zip(hypotheses, references, strict=True)]
    lowercase = BLEU(tokenize=kind, lowercase=True)
    return {
        "examples": len(outputs),
        "bleu": BLEU(tokenize=kind).corpus_score(hypotheses, streams).score,
        "bleu_lowercase": lowercase.corpus_score(hypotheses, streams).score,
        "chrf": CHRF().corpus_score(hypotheses, streams).score,
        "exact_match": 100 * float(np.mean(exact)),
    }


def bleu(texts: Texts, outputs: list[str]) -> float:
    """The BLEU of `translation_figures` alone."""
    hypotheses, references, kind = _scored(texts, outputs)
    return BLEU(tokenize=kind).corpus_score(hypotheses, _streams(references)).score


def _scored(texts: Texts, outputs: list[str]) -> tuple[list[str], list[list[str]], str]:
    """The output for each different source, its references, and the tokenization."""
    references = texts.references()
    first: dict[tuple[str, ...], str] = {}
    for context, output in zip(texts.contexts(), outputs, strict=True):
        first.setdefault(context, output)
    of_each = [references[context] for context in first]
    return list(first.values()), of_each, tokenization([own[0] for own in of_each])


def _streams(references: list[list[str]]) -> list[list[str | None]]:
    """References of each text as sacreBLEU takes them: first ones, second ones, and so on."""
    most = max(map(len, references))
    return [[each[k] if k < len(each) else None for each in references] for k in range(most)]


def perplexities(nats: float, tokens: int, targets: list[str]) -> dict:
    """Perplexity per token, and per word, which models with different tokens are compared by.

    Args:
        nats: the sum of -log P of the targets, with their ends.
        tokens: their number of tokens, with the ends.
        targets: the texts. Their words are those of `translation.split_words`, and an end for each.
    """
    words = sum(map(len, words_of(targets))) + len(targets)
    return {"perplexity": math.exp(nats / tokens), "word_perplexity": math.exp(nats / words)}


def words_of(texts: list[str]) -> Iterator[list[str]]:
    """The words and punctuation marks of each text."""
    for k in range(0, len(texts), _BATCH):
        rows = translation.split_words(tf.constant(texts[k : k + _BATCH])).to_list()
        yield from ([word.decode() for word in row] for row in rows)


def reply_figures(texts: Texts, outputs: list[str]) -> dict:
    """The figures of replies: BLEU against the true ones in percent, and how varied they are.

    `distinct_1` and `distinct_2` are the numbers of different words and pairs of words, in lower
    case, divided by the number of all (Li et al. 2016, "A diversity-promoting objective function
    for neural conversation models"); `people_distinct_1` and `people_distinct_2` those of the true
    replies. They fall with the length of a text, so they are comparable on the same split only.
    """
    found = {"examples": len(outputs), "bleu": bleu(texts, outputs)}
    for prefix, own in (("", outputs), ("people_", texts.targets)):
        rows = list(words_of([text.lower() for text in own]))
        found |= {f"{prefix}distinct_{n}": distinct(rows, n) for n in (1, 2)}
    return found


def distinct(rows: list[list[str]], n: int) -> float:
    """The number of different n-grams of texts, divided by the number of all.

    >>> distinct([["i", "see"], ["i", "see", "it"]], 2)
    0.6666666666666666
    """
    counts = Counter(tuple(row[k : k + n]) for row in rows for k in range(len(row) - n + 1))
    return len(counts) / max(counts.total(), 1)


def candidates(targets: list[str], seed: int = 0) -> list[list[str]]:
    """For each target, itself and nine others of the split, which differ from it and each other.

    There are fewer if the split has fewer different targets.
    """
    different = list(dict.fromkeys(targets))
    generator = np.random.default_rng(seed)
    found = []
    for target in targets:
        # One more than needed: the target itself may be among them.
        count = min(CANDIDATES, len(different))
        others = [different[k] for k in generator.choice(len(different), count, replace=False)]
        others = [other for other in others if other != target]
        found.append([target, *others[: CANDIDATES - 1]])
    return found


def selection(texts: Texts, score: Scorer, seed: int = 0) -> dict:
    """How often the true reply has the largest score of ten, in percent.

    The nine others are replies of the split at random. Chance is 10 %. Of equal scores, each is as
    likely to be the first.

    Args:
        texts: of the split.
        score: of more probable replies larger.
        seed: of the other replies.
    """
    replies = candidates(texts.targets, seed)
    scores = score(texts.sources, texts.histories, replies)
    hits = []
    for row, own in zip(scores, replies, strict=True):
        row = np.asarray(row)[: len(own)]
        hits.append((row[0] == row.max()) / np.sum(row == row.max()))
    return {"selection": 100 * float(np.mean(hits))}
