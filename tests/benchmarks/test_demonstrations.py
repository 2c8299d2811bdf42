"""Attention learns the mirrored position, and beam search is better than greedy search."""

import demonstrations
import keras
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (402, "four hundred two"),
        (117_000, "one hundred seventeen thousand"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_numbers_in_words(number, words):
    assert " ".join(demonstrations.in_words(number)) == words


def test_training_and_test_numbers_differ():
    train, test = demonstrations.numbers(3000).split(2000)
    assert not {"".join(row) for row in train.target} & {"".join(row) for row in test.target}
    assert len(test.source) == len(test.target) == 1000


@pytest.mark.exhaustive
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it trains on TensorFlow")
def test_reversing_a_string_attends_along_the_anti_diagonal():
    accuracy, mirrored, plots = demonstrations.reverse(examples=3000, epochs=8)
    assert accuracy > 0.9
    assert mirrored > 0.95
    for source, translation, alignment in plots:
        assert alignment.shape == (len(translation), len(source))
        np.testing.assert_allclose(alignment.sum(axis=1), 1, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it trains on TensorFlow")
def test_beam_search_is_better_than_greedy_search_on_numbers():
    greedy, beam, _ = demonstrations.count()
    assert 0.3 < greedy < beam
