"""The transitions of the BIO scheme."""

from collections.abc import Sequence

import numpy as np


def bio_transitions(labels: Sequence[str]) -> np.ndarray:
    """The transitions that the BIO scheme allows: only B-x or I-x may precede I-x.

    Args:
        labels: the names of the K tags, such as O, B-city and I-city.

    Returns:
        `[K + 1, K + 1]`, boolean, as `CRF` takes it.

    Raises:
        ValueError: if a label has another form.

    >>> bio_transitions(["O", "B-city", "I-city"]).astype(int).tolist()
    [[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1]]
    """
    for label in labels:
        if label != "O" and label[:2] not in ("B-", "I-"):
            raise ValueError(f"labels must be O, B-<name> or I-<name>, got {label!r}.")
    allowed = np.ones((len(labels) + 1, len(labels) + 1), "bool")
    for column, label in enumerate(labels):
        if label.startswith("I-"):
            predecessors = ("B-" + label[2:], label)
            allowed[:-1, column] = [other in predecessors for other in labels]
            allowed[-1, column] = False
    return allowed
