"""Predictions on a split, their accuracy, and the baseline."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Data, Trained
from unroll.apps.sentiment import bag_of_words
from unroll.pipelines import text as texts

UNSEEN_LABEL = "unseen"  # any label that the training split lacks; its id is -1


def label_names(trained: Trained) -> np.ndarray:
    """The labels by id."""
    return np.array([*trained.assets["labels"], UNSEEN_LABEL])


@dataclass(frozen=True)
class Predictions:
    """The examples of a split and what a model predicts.

    Attributes:
        texts: N texts, as their tokens joined by spaces.
        labels: ids of the correct classes, `[N]`; -1 for one that the training split lacks.
        probabilities: `[N, K]`.
    """

    texts: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """Ids of the predicted classes, `[N]`."""
        return self.probabilities.argmax(axis=-1)


def predictions(trained: Trained, dataset: tf.data.Dataset) -> Predictions:
    """What a model predicts for each example of a split."""
    vocabulary = np.array(trained.assets["vocabulary"])
    rows, labels, probabilities = [], [], []
    for features, batch_labels in dataset:
        tokens = features["tokens"].numpy()
        rows += [" ".join(vocabulary[row[row != texts.PADDING]]) for row in tokens]
        labels.append(batch_labels.numpy())
        probabilities.append(np.asarray(trained.model.predict_on_batch(features)))
    return Predictions(rows, np.concatenate(labels), np.concatenate(probabilities))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> dict:
    """The number of examples and the accuracy."""
    return {"examples": len(labels), "accuracy": float(np.mean(labels == predicted))}


def baseline(config, data: Data, split: str) -> dict:
    """A logistic regression on word counts."""
    sizes = len(data.assets["vocabulary"]), len(data.assets["labels"])
    model = bag_of_words.train(*sizes, data["train"], data["valid"], config.seed)
    found = predictions(Trained(config, data.assets, model), data[split])
    return {
        "what": "bag of words, logistic regression",
        "accuracy": accuracy(found.labels, found.predicted)["accuracy"],
    }
