"""Recurrent layers in half precision, with state between batches, and in wrappers of Keras."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import SEQUENCES, B, D, T, U
from tests.parameters import first_of
from unroll import layers
from unroll.layers.recurrent import RecurrentLayer

X = SEQUENCES.astype("float32")
RECURRENT = sorted(
    name
    for name in layers.__all__
    if isinstance(getattr(layers, name), type)
    and issubclass(getattr(layers, name), RecurrentLayer)
    and getattr(layers, name) is not RecurrentLayer
)


def test_the_list_of_layers_is_not_empty():
    assert {"LSTM", "GRU", "SCRN", "ClockworkRNN"} <= set(RECURRENT)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_cell_state_counts_the_steps_in_half_precision(dtype):
    """With open gates, c grows by one in each step. In bfloat16, 256 + 1 is 256."""
    layer = layers.LSTM(1, return_state=True, dtype=dtype)
    layer.build((1, 400, 1))
    layer.set_weights([np.zeros((1, 4)), np.zeros((1, 4)), np.full(4, 20.0)])
    *_, c = layer(np.zeros((1, 400, 1), "float32"))
    assert running.numpy(c).item() == 400


def test_layer_normalization_of_large_values_in_float16():
    """The squares of the projected inputs are above the largest number of float16."""
    small = layers.LayerNormLSTM(U, dtype="mixed_float16")
    exact = layers.LayerNormLSTM(U)
    for layer in (small, exact):
        layer.build(X.shape)
    small.set_weights(exact.get_weights())
    found, expected = (running.numpy(layer(1000 * X)) for layer in (small, exact))
    np.testing.assert_allclose(found, expected, atol=0.005)


def test_layer_normalization_of_a_sequence_that_begins_with_zeros():
    """Before the first other step, the gradient grows from step to step."""
    inputs = np.where(np.arange(16)[:, None] < 12, 0, np.ones((2, 16, 1), "float32"))
    layer = layers.LayerNormLSTM(32, seed=1)
    layer.build(inputs.shape)
    found = running.evaluate(layer, inputs, cotangents=[np.ones((2, 32), "float32")])
    assert all(np.isfinite(x).all() for x in (*found.outputs, *found.gradients))


@pytest.mark.parametrize("name", first_of(RECURRENT, "LSTM", "ClockworkRNN"))
def test_a_stateful_layer_trains(name):
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, T, D)), getattr(layers, name)(U, stateful=True)]
    )
    model.compile("sgd", keras.losses.MeanSquaredError())
    before = model.layers[0].get_weights()[0]
    model.fit(X[:4], np.zeros((4, model.output_shape[-1])), batch_size=2, verbose=0)
    changed = (model.layers[0].get_weights()[0] != before).any()
    assert changed == (name != "ESN")  # whose weights are fixed
    # On JAX, `fit` of Keras does not keep the states of any recurrent layer.
    kept = running.numpy(model.layers[0].states[0].value).any()
    assert kept == (running.BACKEND != "jax")


def test_a_smaller_batch_continues_the_first_sequences():
    stateful, plain = layers.GRU(U, stateful=True), layers.GRU(U)
    stateful.build((3, T, D))
    plain.build((None, T, D))
    plain.set_weights(stateful.get_weights()[: len(plain.weights)])
    stateful(X[:3])
    found = running.numpy(stateful(X[3:4]))
    expected = running.numpy(plain(np.concatenate([X[:1], X[3:4]], axis=1)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # The other sequences go on from where they were.
    found = running.numpy(stateful(X[3:6]))[1:]
    expected = running.numpy(plain(np.concatenate([X[1:3], X[4:6]], axis=1)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_last_batch_may_be_smaller_in_fit():
    model = keras.Sequential([keras.Input(batch_shape=(4, T, D)), layers.LSTM(U, stateful=True)])
    model.compile("sgd", keras.losses.MeanSquaredError())
    history = model.fit(X, np.zeros((B, U)), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_a_larger_batch_is_refused():
    layer = layers.LSTM(U, stateful=True)
    layer(X[:2])
    with pytest.raises(ValueError, match="has states for 2 sequences, got a batch of 3"):
        layer(X[:3])


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_time_distributed_with_another_policy(dtype):
    layer = layers.LSTM(U)
    found = keras.layers.TimeDistributed(layer, dtype=dtype)(X[:, None])
    np.testing.assert_allclose(running.numpy(found)[:, 0], running.numpy(layer(X)), atol=0.03)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("LSTM", "LSTM"), ("GRU", "GRU"), ("ElmanRNN", "SimpleRNN")]
)
def test_the_config_of_the_layer_of_keras_is_accepted(ours, theirs):
    config = json.loads(json.dumps(getattr(keras.layers, theirs)(U, dropout=0.25).get_config()))
    layer = getattr(layers, ours).from_config(config)
    assert (layer.units, layer.cell.dropout) == (U, 0.25)


def test_a_carried_mask_is_used_beside_other_tensors():
    tokens = np.array([[1, 2, 0, 0], [3, 0, 4, 5]])
    embedded = keras.layers.Embedding(6, D, mask_zero=True)(tokens)
    plain = ops.convert_to_tensor(running.numpy(embedded))
    mask = ops.convert_to_tensor(tokens > 0)
    context = ops.ones((2, 2))
    for layer, options in (
        (layers.LSTM(U), {"initial_state": [ops.ones((2, U)), ops.ones((2, U))]}),
        (layers.ContextLSTM(U, context_size=2), {"context": context}),
        (layers.Stack([layers.GRU(U)]), {"initial_state": [ops.ones((2, U))]}),
    ):
        found = running.numpy(layer(embedded, **options))
        expected = running.numpy(layer(plain, mask=mask, **options))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        other = ops.convert_to_tensor(tokens > 1)
        found = running.numpy(layer(embedded, mask=other, **options))
        expected = running.numpy(layer(plain, mask=other, **options))
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg="an explicit mask wins")


@pytest.mark.parametrize("dtype", [running.PRECISE, "mixed_float16"])
def test_a_policy_reaches_the_layers_of_a_stack(dtype):
    stack = layers.Stack([layers.LSTM(D), layers.GRU(D)], skip="residual", dtype=dtype)
    segmented = layers.Segmented(layers.LSTM(U, return_sequences=True), 2, dtype=dtype)
    expected = keras.DTypePolicy(dtype).compute_dtype
    for layer in (stack, segmented):
        assert keras.backend.standardize_dtype(layer(X).dtype) == expected
    assert all(w.dtype == keras.DTypePolicy(dtype).variable_dtype for w in stack.trainable_weights)
