"""Predictions on a split, the errors by task, and the baseline."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Data, Trained
from unroll.pipelines.text import UNKNOWN

PASSED = 0.05  # the largest error of a task that counts as passed (Weston et al. 2016)


class Predictions(NamedTuple):
    """Of N questions: ids of the predicted and correct answers, and the index of the task."""

    predicted: np.ndarray
    correct: np.ndarray
    task: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Which answers are wrong. An answer that the vocabulary lacks always counts as wrong."""
        return (self.predicted != self.correct) | (self.correct == UNKNOWN)


def predictions(trained: Trained, dataset: tf.data.Dataset) -> Predictions:
    """What the best of the models trained in parallel predicts for each question of a split."""
    best = int(trained.model.get_layer("restarts").best())
    rows = []
    for features, labels in dataset:
        predicted = np.argmax(trained.model.predict_on_batch(features)[:, best], axis=-1)
        rows.append(np.column_stack([predicted, labels.numpy()]))
    return Predictions(*np.concatenate(rows).T)


def most_frequent(data: Data, split: str) -> Predictions:
    """Predicts the most frequent training answer of each task."""
    training, labels = (
        np.concatenate([labels.numpy() for _, labels in data[name]]) for name in ("train", split)
    )
    common = {
        task: np.bincount(training[training[:, 1] == task, 0]).argmax()
        for task in np.unique(training[:, 1])
    }
    return Predictions(np.array([common[task] for task in labels[:, 1]]), *labels.T)


def figures(found: Predictions, names: list[str]) -> dict:
    """The number of questions, the mean error over the tasks, and the error of each task.

    >>> found = Predictions(*np.array([[5, 5, 0], [5, 6, 0], [7, 7, 1]]).T)
    >>> figures(found, ["1", "2"])["error"]
    0.25
    """
    errors = {
        name: float(np.mean(found.wrong[found.task == k]))
        for k, name in enumerate(names)
        if k in found.task
    }
    return {
        "examples": len(found.correct),
        "error": float(np.mean([*errors.values()])),
        "tasks_above_5": sum(error > PASSED for error in errors.values()),
    } | {f"error_{name}": error for name, error in errors.items()}


def baseline(data: Data, split: str) -> dict:
    """The most frequent answer of each task."""
    results = figures(most_frequent(data, split), data.assets["tasks"])
    names = ("error", "tasks_above_5")
    return {"what": "most frequent answer of each task"} | {name: results[name] for name in names}


def combine(parts: list[dict]) -> dict:
    """The figures of one model per task, from those of each.

    >>> parts = [{"error": 0.1, "error_1": 0.1}, {"error": 0.3, "error_2": 0.3}]
    >>> combine([{"examples": 9, "tasks_above_5": 1, **part} for part in parts])["error"]
    0.2
    """
    whole = {name: value for part in parts for name, value in part.items()}
    if "examples" in whole:
        whole["examples"] = sum(part["examples"] for part in parts)
    return whole | {
        "error": float(np.mean([part["error"] for part in parts])),
        "tasks_above_5": sum(part["tasks_above_5"] for part in parts),
    }
