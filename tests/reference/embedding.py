"""What turns words into vectors."""

import numpy as np

from tests.reference.recurrent import lstm, zeros


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


def letters_by_convolution(weights, characters, states=(), mask=None) -> list:
    """dos Santos and Zadrozny 2014, equations 2 and 3, with windows of three letters."""
    embeddings, kernel, bias = weights
    found = np.zeros((*characters.shape[:-1], len(bias)))
    for place in np.ndindex(characters.shape[:-1]):
        letters = characters[place]
        nothing = np.zeros(embeddings.shape[1])
        vectors = [nothing, *(embeddings[k] if k else nothing for k in letters), nothing]
        windows = [
            np.concatenate(vectors[j : j + 3]) @ kernel + bias
            for j, letter in enumerate(letters)
            if letter
        ]
        if windows:
            found[place] = np.max(windows, axis=0)
    return [found]


def letters_by_lstm(weights, characters, states=(), mask=None) -> list:
    """Lample et al. 2016, section 4.1: the last states in both directions."""
    embeddings, *both = weights
    size = both[1].shape[0]
    found = np.zeros((*characters.shape[:-1], 2 * size))
    for place in np.ndindex(characters.shape[:-1]):
        letters = [k for k in characters[place] if k]
        if letters:
            vectors = embeddings[letters][None]
            for k, own in enumerate((both[:3], both[3:])):
                states = lstm(own, vectors[:, :: -1 if k else 1], zeros(vectors, size, size))
                found[place][k * size : (k + 1) * size] = states[1][0]
    return [found]
