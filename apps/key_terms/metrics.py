"""Predictions on a split, the field's figures, and the baseline."""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np
import snowballstemmer
import tensorflow as tf
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from unroll.apps.core.protocol import Data, Trained
from unroll.apps.key_terms.network import begin_and_inside
from unroll.pipelines import tagging

RANKS = (5, 10)  # the numbers of terms at which F1 is reported
_LEAST = 1e-3  # the probability of a candidate that is ranked
_LONGEST = 3  # words of a candidate of the baseline

Term = tuple[str, ...]  # words


@dataclass(frozen=True)
class Document:
    """A document with its tags and what is predicted for it.

    Attributes:
        words: as in the text.
        tags, predicted_tags: BIO, of each word.
        scores: of the predicted span that begins at a word, 0 at other words.
        ranking: the predicted terms, stemmed, the best first, more than those of the tags.
    """

    words: list[str]
    tags: list[str]
    predicted_tags: list[str]
    scores: list[float]
    ranking: list[Term]


def spans_of(tags: list[str]) -> list[tuple[str, int, int]]:
    """The label, the first word and the end of each span of BIO tags.

    >>> spans_of(["O", "B-KEY", "I-KEY", "B-KEY"])
    [('KEY', 1, 3), ('KEY', 3, 4)]
    """
    return [(label, begin, last + 1) for label, begin, last in get_entities(tags)]


def terms_of(words: list[str], tags: list[str]) -> set[Term]:
    """The different terms of the spans, in lower case."""
    return {_folded(words[begin:end]) for _, begin, end in spans_of(tags)}


def _folded(words: Iterable[str]) -> Term:
    return tuple(word.casefold() for word in words)


@functools.cache
def _stem(word: str) -> str:
    return _stemmer().stemWord(word.casefold())


@functools.cache
def _stemmer():
    return snowballstemmer.stemmer("porter")


def stemmed(words: Iterable[str]) -> Term:
    """The stems of words, by Porter's algorithm.

    >>> stemmed(["Neural", "networks"])
    ('neural', 'network')
    """
    return tuple(map(_stem, words))


def rank(words: list[str], scored: Iterable[tuple[float, int, int]]) -> list[Term]:
    """The different stems of spans, the best first.

    Args:
        words: of the document.
        scored: the score, the first word and the end of each span. Several spans of a term have
            the score of the best.
    """
    ranking: dict[Term, None] = {}
    for _, begin, end in sorted(scored, key=lambda span: (-span[0], span[1:])):
        ranking.setdefault(stemmed(words[begin:end]))
    return list(ranking)


def predictor(model: keras.Model) -> keras.Model:
    """A model of the selected tags and scores, the probabilities of all candidates, and attention.

    There is attention if the model has it.
    """
    tags, scores = model.get_layer("tags").output
    outputs = {"tags": tags, "scores": scores}
    outputs["candidates"] = model.get_layer("candidates").output
    if any(layer.name == "attention" for layer in model.layers):
        outputs["attention"] = model.get_layer("attention").output[1]
    return keras.Model(model.input, outputs)


def predictions(trained: Trained, dataset: tf.data.Dataset) -> list[Document]:
    """What a model predicts for each document of a split that was not loaded for training."""
    names = trained.assets["tags"]
    model = predictor(trained.model)
    tag_name = functools.cache(lambda tag: tagging.tag_name(tag, names))
    documents = []
    for features, targets in dataset:
        found = model.predict_on_batch(features)
        best = np.max(found["candidates"], axis=-1)  # [B, T, N]
        for k, correct in enumerate(targets["tags"].numpy()):
            length = int(np.sum(correct >= 0))
            words = [word.decode() for word in targets["words"][k, :length].numpy()]
            begins, sizes = np.nonzero(best[k, :length] > _LEAST)
            spans = zip(best[k][begins, sizes], begins, begins + sizes + 1, strict=True)
            spans = [(float(p), int(b), int(e)) for p, b, e in spans if e <= length]
            documents.append(
                Document(
                    words=words,
                    tags=[tag_name(int(tag)) for tag in correct[:length]],
                    predicted_tags=[names[tag] for tag in found["tags"][k, :length]],
                    scores=found["scores"][k, :length].tolist(),
                    ranking=rank(words, spans),
                )
            )
    return documents


def figures(documents: list[Document]) -> dict:
    """The figures of a split.

    - `span_f1`: of all mentions with their labels, micro-averaged, like conlleval.
      `span_f1_without_labels` is the same where there are several labels.
    - `term_f1`: of the different terms of each document in lower case, micro-averaged.
    - `f1_at_5`, `f1_at_10`: of the first 5 and 10 terms of the ranking, stemmed, the mean over the
      documents that have terms. A shorter ranking is not filled.
    """
    tags, predicted = ([getattr(d, name) for d in documents] for name in ("tags", "predicted_tags"))
    results = {
        "examples": len(documents),
        "span_f1": float(f1_score(tags, predicted, zero_division=0)),
    }
    if len({tag[2:] for row in tags for tag in row if tag != "O"}) > 1:
        plain = [[[tag[:2] for tag in row] for row in rows] for rows in (tags, predicted)]
        plain = [[[f"{t}X" if t != "O" else t for t in row] for row in rows] for rows in plain]
        results["span_f1_without_labels"] = float(f1_score(*plain, zero_division=0))
    sets = [(terms_of(d.words, d.tags), terms_of(d.words, d.predicted_tags)) for d in documents]
    both, one, other = (
        sum(map(len, each)) for each in zip(*((a & b, a, b) for a, b in sets), strict=True)
    )
    results["term_f1"] = 2 * both / max(one + other, 1)
    for k in RANKS:
        results[f"f1_at_{k}"] = f1_at(documents, k)
    return results


def f1_at(documents: list[Document], k: int) -> float:
    """The mean F1 of the first k terms of the rankings, of the documents that have terms."""
    values = []
    for document in documents:
        correct = {stemmed(term) for term in terms_of(document.words, document.tags)}
        first = document.ranking[:k]
        if correct:
            both = len(correct & set(first))
            values.append(2 * both / (len(correct) + len(first)))
    return float(np.mean(values)) if values else 0.0


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The figures of a trained model on a split."""
    return figures(predictions(trained, dataset))


class TfIdf:
    """Ranks the phrases of a document by their number in it times their idf in the training split.

    A phrase has up to three words, which are letters, and neither begins nor ends with a stop word.

    Args:
        train: the words of the training documents.
    """

    def __init__(self, train: list[list[str]]):
        self.number = len(train)
        self.in_documents = Counter(
            phrase for words in train for phrase in {p for p, _, _ in self._phrases(words)}
        )

    def rank(self, words: list[str]) -> list[tuple[float, int, int]]:
        """The score, the first word and the end of each phrase."""
        phrases = list(self._phrases(words))
        counts = Counter(phrase for phrase, _, _ in phrases)
        return [(counts[p] * self.idf(p), begin, end) for p, begin, end in phrases]

    def idf(self, phrase: Term) -> float:
        """log((1 + N) / (1 + n)) + 1, of N documents of which n have the phrase."""
        return math.log((1 + self.number) / (1 + self.in_documents[phrase])) + 1

    def _phrases(self, words: list[str]):
        folded = _folded(words)
        plain = [any(c.isalpha() for c in word) for word in folded]
        for begin in range(len(folded)):
            for end in range(begin + 1, min(begin + _LONGEST, len(folded)) + 1):
                if not plain[end - 1]:
                    break
                if not {folded[begin], folded[end - 1]} & ENGLISH_STOP_WORDS:
                    yield folded[begin:end], begin, end


def baseline(config, data: Data, split: str) -> dict:
    """The phrases with the largest TF-IDF, as many as a training document has terms."""
    train = read(data["train"], data.assets["tags"])
    model = TfIdf([words for words, _ in train])
    count = max(1, round(np.mean([len(terms_of(*each)) for each in train])))
    label = data.assets["tags"][begin_and_inside(data.assets["tags"])[0][0]][2:]
    documents = []
    for words, tags in read(data[split], data.assets["tags"]):
        scored = model.rank(words)
        ranking = rank(words, scored)
        chosen = set(ranking[:count])
        predicted, own = ["O"] * len(words), [s[1:] for s in scored]
        for begin, end in sorted(own, key=lambda span: span[0] - span[1]):  # the longest first
            if stemmed(words[begin:end]) in chosen and set(predicted[begin:end]) == {"O"}:
                predicted[begin:end] = [f"B-{label}", *[f"I-{label}"] * (end - begin - 1)]
        documents.append(Document(words, tags, predicted, [0.0] * len(words), ranking))
    found = figures(documents)
    return {"what": f"TF-IDF, the best {count} phrases"} | {
        name: value for name, value in found.items() if name != "examples"
    }


def read(dataset: tf.data.Dataset, names: list[str]) -> list[tuple[list[str], list[str]]]:
    """The words and the tags of each document."""
    found = []
    for _, targets in dataset.as_numpy_iterator():
        for words, tags in zip(targets["words"], targets["tags"], strict=True):
            length = int(np.sum(tags >= 0))
            own = [tagging.tag_name(int(tag), names) for tag in tags[:length]]
            found.append(([word.decode() for word in words[:length]], own))
    return found
