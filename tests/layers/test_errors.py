"""Errors for wrong arguments. Those of all recurrent layers are in the bench."""

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
    (partial(layers.Stack, []), ["Stack: layers", "at least one", "[]"]),
    (partial(layers.Stack, [keras.layers.Dense(3, name="dense_3")]), ["recurrent", "dense_3"]),
    (partial(layers.Stack, [LSTM, "lstm"]), ["recurrent", "'lstm'"]),
    (
        partial(layers.Stack, [LSTM], skip="highway"),
        ["Stack: skip", "'highway'", "'residual'", "'dense'"],
    ),
    (
        partial(layers.Stack, [layers.LSTM(4, go_backwards=True, name="back")]),
        ["go_backwards", "'back'", "bidirectional"],
    ),
    (partial(layers.Stack, [LSTM], dropout=1.5), ["Stack: dropout", "[0, 1]", "1.5"]),
    (
        lambda: called(layers.Stack([LSTM, LSTM]), 6, 5, 3, initial_state=[sequences(6, 4)] * 3),
        ["4 initial states", "got 3"],
    ),
    (lambda: called(layers.Stack([LSTM]), 6, 5), ["ndim=3", "ndim=2"]),
    (partial(layers.ElmanRNN, 4, output_units=0), ["ElmanRNN: output_units", "0"]),
    (partial(layers.IRNN, 4, output_units="2"), ["IRNN: output_units", "'2'"]),
    (partial(layers.JordanRNN, 4, output_units=-1), ["JordanRNN: output_units", "-1"]),
    (partial(layers.SCRN, 4, context_units=0), ["SCRN: context_units", "0"]),
    (partial(layers.SCRN, 4, alpha=1.5), ["SCRN: alpha", "[0, 1]", "1.5"]),
    (partial(layers.LayerNormLSTM, 4, epsilon=0.0), ["LayerNormLSTM: epsilon", "0.0"]),
    (partial(layers.LayerNormLSTMCell, 4, epsilon=0.0), ["LayerNormLSTMCell: epsilon", "0.0"]),
    (partial(layers.LSTM, 0), ["LSTM: units", "0"]),
    (partial(layers.LSTM, 4, dropout=2), ["LSTM: dropout", "[0, 1]", "2"]),
    (partial(layers.LSTM, 4, activation="sin"), ["LSTM: ", "sin"]),
    (partial(layers.LSTM, 4, peepholes=True), ["passed to LSTM:", "peepholes"]),
    (partial(layers.LSTMCell, 4, peepholes=True), ["passed to LSTMCell:", "peepholes"]),
    (partial(layers.ClockworkRNN, 4, periods=[]), ["ClockworkRNN: periods", "[]"]),
    (partial(layers.ClockworkRNN, 4, periods=[0, 2]), ["periods", "at least 1", "[0, 2]"]),
    (partial(layers.ClockworkRNN, 4, periods=[1, 2.5]), ["periods", "[1, 2.5]"]),
    (partial(layers.ClockworkRNN, 4, periods=[4, 1]), ["periods", "ascending", "[4, 1]"]),
    (partial(layers.ClockworkRNN, 5, periods=[1, 2]), ["divisible", "5 units", "2 periods"]),
    (partial(layers.LSTM, 4, projection=0), ["LSTM: projection", "0"]),
    (partial(layers.LSTM, 4, projection_clip=1.0), ["projection_clip", "needs a projection"]),
    (partial(layers.LSTM, 4, cell_clip=0.0), ["LSTM: cell_clip", "above 0", "0.0"]),
    (partial(layers.LayerNormLSTM, 4, zoneout_cell=-0.5), ["zoneout_cell", "[0, 1]", "-0.5"]),
    (partial(layers.ContextLSTM, 4, zoneout_hidden=2), ["zoneout_hidden", "[0, 1]", "2"]),
    (partial(layers.IndRNN, 4, time_steps=0), ["IndRNN: time_steps", "0"]),
    (partial(layers.SLSTM, 4, heads=3), ["SLSTM: units", "divisible", "4 units", "3 heads"]),
    (partial(layers.SLSTM, 4, heads=0), ["SLSTM: heads", "0"]),
    (
        partial(layers.SLSTM, 4, forget_activation="tanh"),
        ["SLSTM: forget_activation", "'sigmoid', 'exponential'", "'tanh'"],
    ),
    (partial(layers.NAS, 4, projection=2.5), ["NAS: projection", "2.5"]),
    (partial(layers.ESN, 4, connectivity=1.5), ["ESN: connectivity", "[0, 1]", "1.5"]),
    (partial(layers.ESN, 4, leaky=0.0), ["ESN: leaky", "above 0", "0.0"]),
    (partial(layers.ESN, 4, spectral_radius=-1), ["ESN: spectral_radius", "-1"]),
    (
        partial(layers.ESN, 4, recurrent_regularizer="l2"),
        ["ESN: recurrent_regularizer", "None", "not trained"],
    ),
    (partial(layers.ContextLSTM, 4, context_size=-1), ["ContextLSTM: context_size", "-1"]),
    (
        lambda: called(layers.ContextLSTM(4, context_size=3), 6, 5, 3),
        ["ContextLSTM: the inputs", "more features than the 3", "got 3"],
    ),
    (
        lambda: called(layers.ContextLSTM(4, context_size=2), 6, 5, 3, context=sequences(6, 7)),
        ["context", "[B, 2]", "(6, 7)"],
    ),
    (
        lambda: called(layers.ContextLSTM(4, context_size=2), 6, 5, 3, context=sequences(6, 4, 2)),
        ["context", "5 steps", "(6, 4, 2)"],
    ),
    (partial(layers.Segmented, LSTM, 0), ["Segmented: length", "0"]),
    (partial(layers.Segmented, LSTM, 2.5), ["length", "2.5"]),
    (partial(layers.AttentionPool, 0), ["units", "0"]),
    (partial(layers.AttentionPool, "8"), ["units", "'8'"]),
    (partial(layers.WordHashing, 0), ["WordHashing: units", "0"]),
    (partial(layers.WordHashing, 4, trigrams=-1), ["trigrams", "-1"]),
    (partial(layers.CharacterEmbedding, 0, 4), ["CharacterEmbedding: characters", "0"]),
    (
        partial(layers.CharacterEmbedding, 9, 4, reader="attention"),
        ["CharacterEmbedding: reader", "'attention'", "'convolution'", "'recurrent'"],
    ),
    (partial(layers.CharacterEmbedding, 9, 4, width=2), ["width", "odd", "2"]),
    (partial(layers.CharacterEmbedding, 9, 5, reader="recurrent"), ["units", "even", "5"]),
    (partial(layers.AdaptiveSoftmax, 0, [1]), ["AdaptiveSoftmax: vocabulary_size", "0"]),
    (partial(layers.AdaptiveSoftmax, 9, []), ["AdaptiveSoftmax: cutoffs", "at least one", "[]"]),
    (partial(layers.AdaptiveSoftmax, 9, [4, 9]), ["cutoffs", "below vocabulary_size, 9", "[4, 9]"]),
    (partial(layers.AdaptiveSoftmax, 9, [4, 4]), ["cutoffs", "ascending", "[4, 4]"]),
    (partial(layers.AdaptiveSoftmax, 9, [0, 4]), ["AdaptiveSoftmax: a cutoff", "0"]),
    (partial(layers.AdaptiveSoftmax, 9, [4], div_value=0.5), ["div_value", "at least 1", "0.5"]),
    (partial(layers.AdaptiveSoftmax, 9, [4], input_size=0), ["AdaptiveSoftmax: input_size", "0"]),
    (
        lambda: layers.AdaptiveSoftmax(9, [4])(np.zeros((6, 5), "int32"), embed=True),
        ["adaptive_softmax", "embed=True", "input_size"],
    ),
    (partial(layers.WordDropout, 1.0, unknown=1), ["WordDropout: rate", "1.0"]),
    (partial(layers.WordDropout, -0.5, unknown=1), ["rate", "-0.5"]),
]


@pytest.mark.parametrize(("action", "words"), REFUSED)
def test_error_names_the_layer_the_argument_and_the_value(action, words):
    assert_refused(action, *words)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_of_zero_and_one_are_allowed(rate):
    layer = layers.LSTM(4, dropout=rate, recurrent_dropout=rate)
    found = running.numpy(layer(np.ones((6, 5, 3), "float32"), training=True))
    assert np.isfinite(found).all()
    assert found.any() == (rate == 0.0)  # with 1 everything is dropped


def test_a_cell_must_define_its_step():
    class Cell(RecurrentCell):
        gates, states = 1, 1

    with pytest.raises(NotImplementedError, match=r"Cell must define step\(\)"):
        Cell(4)(sequences(6, 3), [sequences(6, 4)])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow converts to LiteRT"
)
def test_litert_rejects_strings():
    import tensorflow as tf

    from unroll.layers.litert_tensorflow import convert

    signature = {"text": tf.TensorSpec([None], tf.string)}
    assert_refused(lambda: convert(lambda text: {"text": text}, signature), "'text'", "strings")
