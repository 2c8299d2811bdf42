"""What is particular to IndRNN, SLSTM, NAS, ESN and the options of the LSTM family."""

import keras
import numpy as np
import pytest

from tests import reference
from tests.layers import running
from tests.layers.case import SEQUENCES, D, T, U
from tests.layers.checks import assert_near
from tests.parameters import first_of
from unroll import layers

X = SEQUENCES.astype("float32")


def test_the_recurrent_weights_of_an_ind_rnn_stay_within_the_limit_of_the_paper():
    layer = layers.IndRNN(50, time_steps=4)
    layer.build((None, T, D))
    u, limit = layer.cell.recurrent_kernel, 2**0.25
    start = running.numpy(u.value)
    assert start.min() >= 0
    assert 1 < start.max() <= limit
    constrained = running.numpy(u.constraint(keras.ops.convert_to_tensor(3 * start - 2.0)))
    np.testing.assert_allclose(constrained, np.clip(3 * start - 2, -limit, limit), atol=1e-5)
    plain = layers.IndRNN(50)
    assert plain.cell.recurrent_constraint is None
    own = layers.IndRNN(50, time_steps=4, recurrent_constraint="non_neg")
    assert isinstance(own.cell.recurrent_constraint, keras.constraints.NonNeg)
    again = layers.IndRNN.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_the_default_kernels_of_two_ind_rnns_differ():
    first, second = layers.IndRNN(U), layers.IndRNN(U)
    for layer in (first, second):
        layer.build((None, T, D))
    assert (first.get_weights()[1] != second.get_weights()[1]).any()


def test_an_slstm_of_one_block_has_the_weights_of_two_with_zeros_between():
    blocks, dense = layers.SLSTM(U, heads=2), layers.SLSTM(U, heads=1)
    for layer in (blocks, dense):
        layer.build((None, T, D))
    kernel, recurrent, bias = blocks.get_weights()
    size, full = U // 2, np.zeros((U, 4, U))
    for head in range(2):
        own = slice(head * size, (head + 1) * size)
        full[own, :, own] = recurrent[head].reshape(size, 4, size)
    dense.set_weights([kernel, full.reshape(1, U, 4 * U), bias])
    assert_near(running.outputs(blocks, X), running.outputs(dense, X), 1e-6)


@pytest.mark.parametrize("size", [-300.0, 300.0])
@pytest.mark.parametrize("forget_activation", ["sigmoid", "exponential"])
def test_an_slstm_is_finite_for_gates_beyond_the_range_of_exp(size, forget_activation):
    layer = layers.SLSTM(U, return_state=True, forget_activation=forget_activation)
    layer.build((None, T, D))
    layer.set_weights([size * w for w in layer.get_weights()])
    factors = [np.ones(shape, "float32") for shape in [(len(X), U)] * 5]
    found = running.evaluate(layer, X, cotangents=factors)
    for array in (*found.outputs, *found.gradients):
        assert np.isfinite(array).all()


def test_an_open_gate_of_rg_lru_keeps_the_decay_to_the_power_of_the_exponent():
    layer = layers.RGLRU(200, return_state=True, seed=1)
    layer.build((1, 1, 2))
    kernel = np.zeros((2, 600))
    kernel[0, :200] = 100  # the gate r is open
    layer.set_weights([kernel, *layer.get_weights()[1:]])
    inputs = np.array([[[1, 0]]], "float32")
    _, kept = layer(inputs, initial_state=np.ones((1, 200), "float32"))
    kept = np.sort(running.numpy(kept)[0])
    assert 0.9**8 <= kept[0] < 0.47
    assert 0.96 < kept[-1] <= 0.999**8


def test_each_head_of_an_slstm_has_initial_weights_of_its_own():
    layer = layers.SLSTM(8, heads=2)
    layer.build((None, T, D))
    first, second = layer.get_weights()[1]
    assert (first != second).any()
    for block in (first, second):
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)


@pytest.mark.parametrize("use_norm2", [False, True])
def test_the_reservoir_is_sparse_and_has_the_spectral_radius(use_norm2):
    layer = layers.ESN(60, connectivity=0.25, spectral_radius=0.8, use_norm2=use_norm2, seed=1)
    layer.build((None, T, D))
    assert not layer.trainable_weights
    _, kernel, _ = layer.get_weights()
    assert abs((kernel != 0).mean() - 0.25) < 0.05
    radius = np.abs(np.linalg.eigvals(kernel)).max()
    if use_norm2:
        np.testing.assert_allclose(np.linalg.norm(kernel), 0.8, rtol=1e-5)
        assert radius <= 0.8
    else:
        np.testing.assert_allclose(radius, 0.8, rtol=1e-5)
    again = layers.ESN(60, connectivity=0.25, seed=1)
    again.build((None, T, D))
    np.testing.assert_array_equal(again.get_weights()[1] != 0, kernel != 0)


HALF = {f"{part}_initializer": keras.initializers.Constant(0.5) for part in ("kernel", "recurrent")}
ROWS = np.array([[1.0], [2.0], [3.0]], "float32") * np.ones((1, 4), "float32")


@pytest.mark.parametrize(
    ("projection", "h", "c"),
    [
        (None, [0.576751, 0.618936, 0.627393], [0.715798, 0.780416, 0.794576]),
        (5, [1.697418, 1.840037, 1.873985], [0.698552, 0.770738, 0.789740]),
    ],
)
def test_a_nas_cell_has_the_values_of_tensorflow_addons(projection, h, c):
    """The values that its own tests expect of constant weights."""
    cell = layers.NASCell(6, projection=projection, **HALF)
    states = [np.full((3, size), 0.1, "float32") for size in cell.state_size]
    output, (_, new) = cell(ROWS, states)
    np.testing.assert_allclose(running.numpy(output), np.transpose([h] * (projection or 6)), 1e-5)
    np.testing.assert_allclose(running.numpy(new), np.transpose([c] * 6), 1e-5)


def test_an_esn_cell_has_the_values_of_tensorflow_addons():
    options = {"connectivity": 1.0, "use_norm2": True, "activation": None}
    bias = {"bias_initializer": keras.initializers.Constant(0.5)}
    cell = layers.ESNCell(3, **options, **HALF, **bias)
    output, _ = cell(ROWS, [np.full((3, 3), 0.3, "float32")])
    expected = np.transpose([[2.77, 4.77, 6.77]] * 3)
    np.testing.assert_allclose(running.numpy(output), expected, 1e-5)


def test_a_reservoir_without_connections_is_zero():
    layer = layers.ESN(4, connectivity=0.0)
    layer.build((None, T, D))
    assert not layer.get_weights()[1].any()


@pytest.mark.skipif(
    running.BACKEND != "tensorflow", reason="only TensorFlow builds a layer in a graph"
)
def test_a_reservoir_is_built_in_a_graph_and_under_a_strategy():
    import tensorflow as tf

    layer = layers.ESN(U)
    assert tf.function(lambda x: layer(x))(X).shape == (len(X), U)
    np.testing.assert_allclose(abs(np.linalg.eigvals(layer.get_weights()[1])).max(), 0.9, rtol=1e-4)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        again = layers.ESN(U)
        again.build((None, T, D))
    assert again.get_weights()[1].any()


def test_a_model_on_a_reservoir_trains_its_readout_alone():
    model = keras.Sequential([keras.Input((T, D)), layers.ESN(U), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.MeanSquaredError())
    before = model.get_weights()
    model.fit(X, np.ones((len(X), 1)), verbose=0)
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, False, False, True, True]


CLIPPED = {
    layers.LayerNormLSTM: reference.layer_norm_lstm,
    layers.PeepholeLSTM: reference.peephole_lstm,
    layers.CoupledLSTM: reference.coupled_lstm,
}


@pytest.mark.parametrize("layer_class", first_of(CLIPPED))
def test_the_cell_state_is_clipped_before_the_output(layer_class):
    layer = layer_class(U, return_sequences=True, return_state=True, cell_clip=0.25)
    layer.build((None, T, D))
    layer.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in layer.weights])
    kernel, recurrent, bias, *others = layer.get_weights()
    weights = [kernel, recurrent, bias, np.eye(U), *others]
    states = reference.zeros(X, U, U)
    expected = reference.extended_lstm(CLIPPED[layer_class], weights, X, states, cell_clip=0.25)
    found = running.outputs(layer, X)
    assert_near(found, expected, 1e-5)
    assert (abs(found[2]) > 0.2499).any()


def test_options_of_an_lstm_without_effect_give_the_lstm():
    plain = layers.LSTM(U, return_state=True)
    same = layers.LSTM(U, return_state=True, projection=U, projection_clip=9.0, cell_clip=9.0)
    for layer in (plain, same):
        layer.build((None, T, D))
    same.set_weights([*plain.get_weights(), np.eye(U)])
    assert_near(running.outputs(same, X), running.outputs(plain, X), 1e-6)
    assert (plain.cell.fused_kernel, same.cell.fused_kernel) == ("lstm", None)
