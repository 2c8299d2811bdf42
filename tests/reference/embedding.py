"""Layers that encode words."""

import numpy as np

from tests.reference.recurrent import lstm, zeros


def word_hashing(weights, trigrams, states=(), mask=None) -> list:
    """Huang et al. 2013: the multi-hot vector of the trigrams of a word, times the matrix."""
    (matrix,) = weights
    bags = np.zeros((*trigrams.shape[:-1], len(matrix)))
    for index in np.ndindex(trigrams.shape):
        if trigrams[index]:
            bags[(*index[:-1], trigrams[index])] = 1
    return [bags @ matrix]


def unchanged(weights, inputs, states=(), mask=None) -> list:
    return [inputs]


def characters_by_convolution(weights, characters, states=(), mask=None) -> list:
    """dos Santos and Zadrozny 2014, equations 2 and 3, with windows of three characters."""
    embeddings, kernel, bias = weights
    found = np.zeros((*characters.shape[:-1], len(bias)))
    for index in np.ndindex(characters.shape[:-1]):
        word = characters[index]
        nothing = np.zeros(embeddings.shape[1])
        vectors = [nothing, *(embeddings[k] if k else nothing for k in word), nothing]
        windows = [
            np.concatenate(vectors[j : j + 3]) @ kernel + bias
            for j, character in enumerate(word)
            if character
        ]
        if windows:
            found[index] = np.max(windows, axis=0)
    return [found]


def characters_by_lstm(weights, characters, states=(), mask=None) -> list:
    """Lample et al. 2016, section 4.1: the last states in both directions."""
    embeddings, *both = weights
    size = both[1].shape[0]
    found = np.zeros((*characters.shape[:-1], 2 * size))
    for index in np.ndindex(characters.shape[:-1]):
        word = [k for k in characters[index] if k]
        if word:
            vectors = embeddings[word][None]
            for k, own in enumerate((both[:3], both[3:])):
                states = lstm(own, vectors[:, :: -1 if k else 1], zeros(vectors, size, size))
                found[index][k * size : (k + 1) * size] = states[1][0]
    return [found]
