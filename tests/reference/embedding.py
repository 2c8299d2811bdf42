"""What turns words into vectors."""

import numpy as np


def word_hashing(weights, trigrams, states=(), mask=None) -> list:
    """Huang et al. 2013: the multi-hot vector of a word's trigrams, times the matrix."""
    (matrix,) = weights
    bags = np.zeros((*trigrams.shape[:-1], len(matrix)))
    for place in np.ndindex(trigrams.shape):
        if trigrams[place]:
            bags[(*place[:-1], trigrams[place])] = 1
    return [bags @ matrix]


def unchanged(weights, inputs, states=(), mask=None) -> list:
    return [inputs]
