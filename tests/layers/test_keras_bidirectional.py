"""Bidirectional, stacked and time-distributed layers against the behaviour of Keras's."""

import json

import keras
import numpy as np
import pytest

from tests.layers.checks import assert_near
from tests.layers.keras_rnn_cases import (
    ALL,
    CELLS,
    GAPS,
    NARROW,
    SHORT,
    TOLERANCE,
    called,
    columns,
    constant,
    counting,
    label,
)
from unroll import layers

BIDIRECTIONAL = [
    (
        {},
        columns([[0.39687276, 0.10004295], [0.7237238, 0.53391594]], 2).reshape(2, 4),
    ),
    ({"merge_mode": "ave"}, columns([0.24845785, 0.6288199], 2)),
]


@pytest.mark.parametrize(("options", "expected"), BIDIRECTIONAL, ids=label)
def test_both_directions_merged(options, expected):
    layer = keras.layers.Bidirectional(constant(layers.ElmanRNN, 2), **options)
    assert_near(called(layer, SHORT), [expected], TOLERANCE)
    assert len(layer.trainable_weights) == 6
    assert layer.supports_masking


def test_both_directions_apart_and_of_two_layers():
    forward = constant(layers.ElmanRNN, 2)
    apart = keras.layers.Bidirectional(forward, merge_mode=None)
    expected = [columns([0.39687276, 0.7237238], 2), columns([0.10004295, 0.53391594], 2)]
    assert_near(called(apart, SHORT), expected, TOLERANCE)
    backward = constant(layers.ElmanRNN, 2, kernel=0.03, bias=0.01, go_backwards=True)
    product = keras.layers.Bidirectional(forward, backward_layer=backward, merge_mode="mul")
    assert_near(called(product, SHORT), [columns([0.08374989, 0.6740834], 2)], TOLERANCE)


def test_the_sum_of_both_directions_at_each_step():
    layer = keras.layers.Bidirectional(
        constant(layers.GRU, 2, return_sequences=True), merge_mode="sum"
    )
    expected = [[0.20937867, 0.34462988, 0.40290534], [0.59829646, 0.6734641, 0.6479671]]
    assert_near(called(layer, SHORT), [columns(expected, 2)], TOLERANCE)


def test_both_directions_are_stateful():
    layer = keras.layers.Bidirectional(constant(layers.LSTM, 2, stateful=True))
    expected = columns([[0.26234663, 0.16959146], [0.6137073, 0.5381646]], 2).reshape(2, 4)
    for _ in range(2):
        called(layer, NARROW)
        assert_near(called(layer, NARROW), [expected], TOLERANCE)
        layer.reset_state()


def test_both_directions_take_initial_states():
    layer = keras.layers.Bidirectional(constant(layers.LSTM, 2))
    states = [k * counting(2, 2) for k in (1, 2, 3, 4)]
    expected = [
        [0.20794602, 0.4577124, 0.14046375, 0.48191673],
        [0.6682636, 0.6711909, 0.60943645, 0.60950446],
    ]
    assert_near(called(layer, NARROW, initial_state=states), [expected], TOLERANCE)


def test_both_directions_take_a_mask():
    layer = keras.layers.Bidirectional(constant(layers.GRU, 2))
    expected = columns([[0.19393763, 0.11669192], [0.30818558, 0.28380975]], 2).reshape(2, 4)
    assert_near(called(layer, NARROW, mask=GAPS), [expected], TOLERANCE)


def test_both_directions_return_their_states():
    layer = keras.layers.Bidirectional(constant(layers.LSTM, 2, return_state=True))
    h, c = [0.1990008, 0.52335435], [0.35567185, 1.0492687]
    backward_h, backward_c = [0.12659755, 0.44717982], [0.2501858, 0.941473]
    expected = [columns(values, 2) for values in (h, c, backward_h, backward_c)]
    output = np.concatenate([expected[0], expected[2]], axis=1)
    assert_near(called(layer, NARROW), [output, *expected], TOLERANCE)


@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("merge_mode", ["concat", "ave", "mul", "sum", None])
def test_shapes_of_both_directions(merge_mode, state):
    """Also with integers as inputs."""
    layer = keras.layers.Bidirectional(layers.LSTM(2, return_state=state), merge_mode=merge_mode)
    inputs = np.array([[[101, 202], [303, 404]]])
    shapes = layer.compute_output_shape(inputs.shape)
    single = merge_mode is not None and not state
    expected = [tuple(s) for s in ([shapes] if single else shapes)]
    assert [y.shape for y in called(layer, inputs)] == expected


@pytest.mark.parametrize("use_cudnn", [True, False, "auto"])
@pytest.mark.parametrize("layer_class", [layers.LSTM, layers.GRU])
def test_both_directions_keep_use_cudnn(layer_class, use_cudnn):
    layer = keras.layers.Bidirectional(layer_class(1, use_cudnn=use_cudnn))
    for one in (layer.forward_layer, layer.backward_layer):
        assert one.get_config()["use_cudnn"] == use_cudnn


@pytest.mark.parametrize("layer_class", [layers.LSTM, layers.GRU])
def test_both_directions_are_the_same_with_and_without_use_cudnn(layer_class):
    found = []
    for use_cudnn in (False, "auto"):
        layer = keras.layers.Bidirectional(
            layer_class(5, use_cudnn=use_cudnn, return_sequences=True)
        )
        layer.build((3, 6, 4))
        rng = np.random.default_rng(1)
        layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
        found.append(called(layer, np.random.default_rng(0).normal(size=(3, 6, 4))))
    assert_near(*found, TOLERANCE)


STACKED = [*CELLS.values()]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("cell", STACKED, ids=lambda cell: cell.__name__)
def test_stacked_cells(cell, sequences):
    """Three cells of different sizes with dropout in Keras's loop."""
    cells = [cell(units, dropout=0.1, recurrent_dropout=0.1) for units in (3, 4, 5)]
    layer = keras.layers.RNN(cells, return_sequences=sequences)
    again = keras.layers.RNN.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    inputs = np.random.default_rng(0).normal(size=(2, 3, 4))
    assert called(layer, inputs)[0].shape == ((2, 3, 5) if sequences else (2, 5))
    assert called(layer, inputs, training=True)[0].shape == ((2, 3, 5) if sequences else (2, 5))
    assert len(layer.trainable_weights) == 9
    assert not layer.non_trainable_weights
    assert len(layer.non_trainable_variables) == 3  # one seed per cell


def test_states_of_stacked_cells():
    layer = keras.layers.RNN([layers.LSTMCell(10), layers.LSTMCell(10)], return_state=True)
    output, *states = layer(np.zeros((2, 3, 5)))
    assert tuple(output.shape) == (2, 10)
    assert [[tuple(s.shape) for s in pair] for pair in states] == [[(2, 10), (2, 10)]] * 2
    shapes = layer.compute_output_shape((2, 3, 5))
    assert [[tuple(s) for s in pair] for pair in shapes[1:]] == [[(2, 10), (2, 10)]] * 2


def test_stacked_cells_take_a_mask():
    cells = [
        layers.LSTMCell(1, kernel_initializer="ones", recurrent_initializer="ones")
        for _ in range(2)
    ]
    mask = np.array([[True, True, True], [True, True, False]])
    found = called(keras.layers.RNN(cells), np.ones((2, 3, 4)), mask=mask)
    assert_near(found, [[[0.7793], [0.5998]]], 1e-4)


@pytest.mark.parametrize("dtype", [None, "mixed_float16"])
@ALL
def test_time_distributed(layer_class, dtype):
    """A sequence of sequences: the outputs are those of each inner sequence alone."""
    layer = layer_class(2)
    layer.build((None, None, 3))
    inputs = np.random.default_rng(0).normal(size=(3, 2, 4, 3)).astype("float32")
    expected = np.stack([called(layer, inputs[:, k])[0] for k in range(2)], axis=1)
    wrapper = keras.layers.TimeDistributed(layer, dtype=dtype)
    found = called(wrapper, inputs)
    assert_near(found, [expected], 1e-2 if dtype else TOLERANCE)
