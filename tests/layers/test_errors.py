"""Wrong arguments of the layers that are not recurrent; the recurrent ones' are in the bench."""

from functools import partial

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.recurrent_checks import assert_refused
from unroll import layers
from unroll.layers.recurrent import RecurrentCell


def sequences(*shape):
    return np.zeros(shape, "float32")


def called(layer, *shape, **arguments):
    return layer(sequences(*shape), **arguments)


LSTM = layers.LSTM(4)
REFUSED = [
    (partial(layers.Stack, []), ["at least one layer", "none"]),
    (partial(layers.Stack, [keras.layers.Dense(3, name="dense_3")]), ["recurrent", "dense_3"]),
    (partial(layers.Stack, [LSTM, "lstm"]), ["recurrent", "'lstm'"]),
    (partial(layers.Stack, [LSTM], skip="highway"), ["skip", "'highway'", "'residual'", "'dense'"]),
    (
        partial(layers.Stack, [layers.LSTM(4, go_backwards=True, name="back")]),
        ["go_backwards", "'back'", "bidirectional"],
    ),
    (partial(layers.Stack, [LSTM], dropout=1.5), ["1.5"]),
    (
        lambda: called(layers.Stack([LSTM, LSTM]), 6, 5, 3, initial_state=[sequences(6, 4)] * 3),
        ["4 initial states", "got 3"],
    ),
    (lambda: called(layers.Stack([LSTM]), 6, 5), ["ndim=3", "ndim=2"]),
    (partial(layers.ElmanRNN, 4, output_units=0), ["output_units", "0"]),
    (partial(layers.IRNN, 4, output_units="2"), ["output_units", "'2'"]),
    (partial(layers.JordanRNN, 4, output_units=-1), ["output_units", "-1"]),
    (partial(layers.SCRN, 4, context_units=0), ["context_units", "0"]),
    (partial(layers.SCRN, 4, alpha=1.5), ["alpha", "[0, 1]", "1.5"]),
    (partial(layers.LayerNormLSTM, 4, epsilon=0.0), ["epsilon", "0.0"]),
    (partial(layers.ClockworkRNN, 4, periods=[]), ["periods", "[]"]),
    (partial(layers.ClockworkRNN, 4, periods=[0, 2]), ["periods", "at least 1", "[0, 2]"]),
    (partial(layers.ClockworkRNN, 4, periods=[1, 2.5]), ["periods", "[1, 2.5]"]),
    (partial(layers.ClockworkRNN, 4, periods=[4, 1]), ["periods", "fall", "[4, 1]"]),
    (partial(layers.ClockworkRNN, 5, periods=[1, 2]), ["divisible", "5 units", "2 periods"]),
    (partial(layers.ContextLSTM, 4, context_size=-1), ["context_size", "-1"]),
    (
        lambda: called(layers.ContextLSTM(4, context_size=3), 6, 5, 3),
        ["3 features", "last 3", "context"],
    ),
    (
        lambda: called(layers.ContextLSTM(4, context_size=2), 6, 5, 3, context=sequences(6, 7)),
        ["context", "[B, 2]", "(6, 7)"],
    ),
    (
        lambda: called(layers.ContextLSTM(4, context_size=2), 6, 5, 3, context=sequences(6, 4, 2)),
        ["context", "5 steps", "(6, 4, 2)"],
    ),
    (partial(layers.Segmented, LSTM, 0), ["length", "0"]),
    (partial(layers.Segmented, LSTM, 2.5), ["length", "2.5"]),
    (partial(layers.AttentionPool, 0), ["units", "0"]),
    (partial(layers.AttentionPool, "8"), ["units", "'8'"]),
    (partial(layers.WordHashing, 0), ["units", "0"]),
    (partial(layers.WordHashing, 4, trigrams=-1), ["trigrams", "-1"]),
    (partial(layers.CharacterEmbedding, 0, 4), ["characters", "0"]),
    (partial(layers.CharacterEmbedding, 9, 4, reader="attention"), ["reader", "'attention'"]),
    (partial(layers.CharacterEmbedding, 9, 4, width=2), ["width", "odd", "2"]),
    (partial(layers.CharacterEmbedding, 9, 5, reader="recurrent"), ["units", "even", "5"]),
    (partial(layers.WordDropout, 1.0, unknown=1), ["rate", "1.0"]),
    (partial(layers.WordDropout, -0.5, unknown=1), ["rate", "-0.5"]),
]


@pytest.mark.parametrize(("action", "words"), REFUSED)
def test_refused(action, words):
    assert_refused(action, *words)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_range_of_dropout_are_allowed(rate):
    layer = layers.LSTM(4, dropout=rate, recurrent_dropout=rate)
    found = running.numpy(layer(np.ones((6, 5, 3), "float32"), training=True))
    assert np.isfinite(found).all()
    assert found.any() == (rate == 0.0)  # all inputs and all of h dropped: nothing is left


def test_a_cell_without_equations():
    class Cell(RecurrentCell):
        gates, states = 1, 1

    with pytest.raises(AttributeError, match="Cell has no equations"):
        Cell(4)(sequences(6, 3), [sequences(6, 4)])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="LiteRT is converted from TensorFlow alone"
)
def test_litert_has_no_strings():
    import tensorflow as tf

    from unroll.layers.litert_tensorflow import convert

    signature = {"text": tf.TensorSpec([None], tf.string)}
    assert_refused(lambda: convert(lambda text: {"text": text}, signature), "'text'", "strings")
