"""The losses of a split's tokens, the figures made of them, and the baseline."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Data, Trained
from unroll.apps.shared.token_losses import token_losses
from unroll.layers import NGramLanguageModel
from unroll.pipelines import language_modeling as modeling

ORDERS = {"characters": 8}  # of the n-grams of the baseline; 5 for other units
_LOG_2 = math.log(2)


@dataclass
class Totals:
    """Sums over the tokens of a split.

    Attributes:
        nats: of -log P.
        tokens: their number.
        characters: their number of characters, NaN if it is not known.
        words: the number of words and line ends; zero if the units are characters.
    """

    nats: float = 0.0
    tokens: int = 0
    characters: float = 0.0
    words: int = 0

    def figures(self) -> dict:
        """The figures that a language model is compared by."""
        nats = self.nats / self.tokens
        found = {"examples": self.tokens, "nats_per_token": nats, "perplexity": math.exp(nats)}
        if self.words:
            found["word_perplexity"] = math.exp(self.nats / self.words)
        if self.characters > 0:
            found["bits_per_character"] = self.nats / self.characters / _LOG_2
        return found


class Counter:
    """Adds tokens and their losses up to `Totals`.

    Args:
        kind: of the units.
        vocabulary: the units.
    """

    def __init__(self, kind: str, vocabulary: list[str]):
        self.lengths = modeling.unit_lengths(kind, vocabulary)
        self.starts = modeling.starts_of_words(kind, vocabulary)
        self.totals = Totals()

    def add(self, previous: np.ndarray, tokens: np.ndarray, nats: float) -> None:
        """Counts tokens, each with the one before it, and the sum of their losses."""
        self.totals.nats += float(nats)
        self.totals.tokens += len(tokens)
        self.totals.characters += float(self.lengths[tokens].sum())
        if self.starts is not None:
            self.totals.words += int(self.starts[tokens].sum())
            # The end of an empty line.
            is_empty = (tokens == modeling.END) & (previous == modeling.END)
            self.totals.characters += int(is_empty.sum())


def losses(trained: Trained, dataset: tf.data.Dataset) -> Iterator[tuple]:
    """The tokens before, the labels and the losses of each batch, `[B, T]`, with carried states."""
    model = trained.model

    @tf.function(reduce_retracing=True)
    def of_batch(features, labels):
        return token_losses(labels, model(features, training=False))[0]

    for features, labels in dataset:
        yield features["tokens"].numpy(), labels.numpy(), of_batch(features, labels).numpy()


def score(trained: Trained, batches: Iterator[tuple]) -> dict:
    """Perplexity and bits per character of the batches of a split, as from `losses`."""
    counter = Counter(trained.config.units_of_text, trained.assets["vocabulary"])
    for previous, labels, nats in batches:
        counts = labels >= 0
        counter.add(previous[counts], labels[counts], nats.sum(dtype="float64"))
    return counter.totals.figures()


def text_of(dataset: tf.data.Dataset) -> np.ndarray:
    """The ids of a split in their order, `[N]`, from its batches for evaluation."""
    rows: list[list[np.ndarray]] = []
    for _, labels in dataset.as_numpy_iterator():
        rows = rows or [[] for _ in labels]
        for row, own in zip(rows, labels, strict=True):
            row.append(own[own >= 0])
    return np.concatenate([np.concatenate(row) for row in rows])


def baseline(config, data: Data, split: str) -> dict:
    """An n-gram model of the training text, with modified Kneser-Ney smoothing.

    It has the vocabulary of the model, and reads the text line by line.
    """
    vocabulary, order = data.assets["vocabulary"], ORDERS.get(config.units_of_text, 5)
    names = np.array([f"{k}" for k in range(len(vocabulary))], object)

    def lines(ids: np.ndarray) -> Iterator[list[str]]:
        ends = np.flatnonzero(ids == modeling.END)
        for line in np.split(ids, ends + 1):
            if len(line):
                yield names[line[line != modeling.END]].tolist()

    model = NGramLanguageModel.from_texts(
        lines(text_of(data["train"])), order, smoothing="kneser_ney"
    )
    counter = Counter(config.units_of_text, vocabulary)
    ids = text_of(data[split])
    nats, state = 0.0, model.initial_state()
    for token in ids.tolist():
        if token == modeling.END:
            nats -= model.score(state, "</s>")[0]
            state = model.initial_state()
        else:
            log_probability, state = model.score(state, names[token])
            nats -= log_probability
    counter.add(np.concatenate([[modeling.END], ids[:-1]]), ids, nats)
    figures = counter.totals.figures()
    del figures["examples"]
    return {"what": f"{order}-gram, modified Kneser-Ney smoothing", **figures}
