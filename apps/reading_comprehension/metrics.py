"""The errors of a model, task by task."""

import keras
import numpy as np
import tensorflow as tf

from unroll.pipelines.text import UNKNOWN

PASSED = 0.05  # the error up to which a task counts as learned (Weston et al. 2016)


def answers(model: keras.Model, dataset: tf.data.Dataset) -> np.ndarray:
    """What the best copy answers to each question, the right answer, and the task: `[N, 3]`."""
    best = int(model.get_layer("restarts").best())
    rows = []
    for features, labels in dataset:
        chosen = np.argmax(model.predict_on_batch(features)[:, best], axis=-1)
        rows.append(np.column_stack([chosen, labels.numpy()]))
    return np.concatenate(rows)


def most_frequent(data, split: str) -> np.ndarray:
    """As `answers`: to each question the most frequent answer that its task has in training."""
    known = np.concatenate([labels.numpy() for _, labels in data.train])
    asked = np.concatenate([labels.numpy() for _, labels in getattr(data, split)])
    common = {
        task: np.bincount(known[known[:, 1] == task, 0]).argmax() for task in np.unique(known[:, 1])
    }
    return np.column_stack([[common[task] for task in asked[:, 1]], asked])


def figures(found: np.ndarray, names: list[str]) -> dict:
    """The number of questions, the mean of the tasks' errors, and the error of each.

    An answer that the vocabulary lacks always counts as wrong.

    >>> figures(np.array([[5, 5, 0], [5, 6, 0], [7, 7, 1]]), ["1", "2"])["error"]
    0.25
    """
    chosen, right, task = found.T
    wrong = (chosen != right) | (right == UNKNOWN)
    errors = {name: float(np.mean(wrong[task == k])) for k, name in enumerate(names) if k in task}
    return {
        "examples": len(found),
        "error": float(np.mean([*errors.values()])),
        "tasks_above_5": sum(error > PASSED for error in errors.values()),
    } | {f"error_{name}": error for name, error in errors.items()}


def combine(figures: list[dict]) -> dict:
    """The figures of one model a task, from those of each.

    >>> parts = [{"error": 0.1, "error_1": 0.1}, {"error": 0.3, "error_2": 0.3}]
    >>> combine([{"examples": 9, "tasks_above_5": 1, **part} for part in parts])["error"]
    0.2
    """
    whole = {name: value for part in figures for name, value in part.items()}
    if "examples" in whole:
        whole["examples"] = sum(part["examples"] for part in figures)
    return whole | {
        "error": float(np.mean([part["error"] for part in figures])),
        "tasks_above_5": sum(part["tasks_above_5"] for part in figures),
    }
