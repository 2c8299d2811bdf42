"""CTC by the enumeration of all paths, in NumPy."""

import itertools

import numpy as np
from keras import ops


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def collapse(path, blank: int) -> tuple:
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def probabilities(logits, blank: int) -> dict:
    """The probability of each sequence of labels of one example `[T, K]`."""
    log_probs, found = log_softmax(logits.astype("float64")), {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = collapse(path, blank)
        prob = np.exp(sum(row[k] for row, k in zip(log_probs, path, strict=True)))
        found[labels] = found.get(labels, 0.0) + prob
    return found


def padded(rows, size: int) -> np.ndarray:
    return np.array([[*row, *[0] * (size - len(row))] for row in rows])
