"""Identities between layers."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T, U
from tests.layers.cases import CASES
from tests.layers.checks import assert_near, cotangents
from tests.layers.embedding_cases import TRIGRAMS
from unroll import layers

BY_NAME = {case.name: case for case in CASES}
STATES = BY_NAME["LSTM"].initial_state()
BOTH = {"return_sequences": True, "return_state": True, "dtype": running.PRECISE}


@pytest.mark.parametrize(("states", "mask"), [(STATES, None), ([], MASK)])
@pytest.mark.parametrize("training", [False, True])
def test_lstm_equals_keras_lstm(states, mask, training):
    ours = BY_NAME["LSTM"].build()
    theirs = keras.layers.LSTM(U, **BOTH)
    theirs.build(SEQUENCES.shape)
    theirs.set_weights(ours.get_weights())
    again = layers.LSTM(U, **BOTH)
    again.build(SEQUENCES.shape)
    again.set_weights(theirs.get_weights())
    factors = cotangents(running.outputs(ours, SEQUENCES, states, mask))
    results = [
        running.evaluate(layer, SEQUENCES, states, mask, factors, training)
        for layer in (ours, theirs, again)
    ]
    for result in results[1:]:
        assert_near(result.outputs, results[0].outputs, running.EXACT)
        assert_near(result.gradients, results[0].gradients, 10 * running.EXACT, "gradients")


def test_initial_weights_equal_those_of_keras():
    ours, theirs = (
        cls(
            U,
            kernel_initializer=keras.initializers.GlorotUniform(seed=1),
            recurrent_initializer=keras.initializers.Orthogonal(seed=2),
        )
        for cls in (layers.LSTM, keras.layers.LSTM)
    )
    for layer in (ours, theirs):
        layer.build(SEQUENCES.shape)
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    assert_near(ours.get_weights(), theirs.get_weights(), 0.0, "weights")


def test_lstm_with_zero_peepholes_equals_lstm():
    lstm = BY_NAME["LSTM"].build()
    peephole = layers.PeepholeLSTM(U, **BOTH)
    peephole.build(SEQUENCES.shape)
    peephole.set_weights([*lstm.get_weights(), np.zeros((3, U))])
    expected = running.outputs(lstm, SEQUENCES, STATES, MASK)
    assert_near(running.outputs(peephole, SEQUENCES, STATES, MASK), expected, running.EXACT)
    peephole.set_weights([*lstm.get_weights(), np.full((3, U), 0.5)])
    assert np.abs(running.outputs(peephole, SEQUENCES, STATES, MASK)[0] - expected[0]).max() > 0.01


def test_reversed_input_swaps_the_halves_of_a_bidirectional_layer():
    lengths = np.array([5, 3, 1, 4, 2, 0])
    mask = np.arange(T) < lengths[:, None]
    order = np.tile(np.arange(T), (B, 1))
    for row, n in enumerate(lengths):
        order[row, :n] = order[row, :n][::-1]
    reversed_inputs = np.take_along_axis(SEQUENCES, order[..., None], axis=1)
    layer = layers.Stack(
        [layers.LSTM(U, dtype=running.PRECISE)], bidirectional=True, dtype=running.PRECISE
    )
    layer.build(SEQUENCES.shape)
    rng = np.random.default_rng(11)
    weights = [rng.normal(size=w.shape) for w in layer.weights]
    layer.set_weights(weights)
    (outputs,) = running.outputs(layer, SEQUENCES, mask=mask)
    layer.set_weights([*weights[3:], *weights[:3]])
    (swapped,) = running.outputs(layer, reversed_inputs, mask=mask)
    swapped = np.take_along_axis(swapped, order[..., None], axis=1)
    assert_near(
        [swapped[..., :U], swapped[..., U:]], [outputs[..., U:], outputs[..., :U]], running.EXACT
    )
    assert np.abs(outputs).max() > 0.1


def test_stack_equals_stacked_cells_in_keras():
    stack = layers.Stack(
        [layers.LSTM(U, dtype=running.PRECISE), layers.PeepholeLSTM(7, dtype=running.PRECISE)],
        dtype=running.PRECISE,
    )
    stack.build(SEQUENCES.shape)
    cells = keras.layers.StackedRNNCells(
        [layer.cell for layer in stack.layers], dtype=running.PRECISE
    )
    rnn = keras.layers.RNN(cells, return_sequences=True, dtype=running.PRECISE)
    assert_near(running.outputs(rnn, SEQUENCES), running.outputs(stack, SEQUENCES), running.EXACT)


def test_stack_applies_dropout_between_its_layers():
    stack = layers.Stack([layers.LSTM(U), layers.LSTM(7)], dropout=0.5, seed=1, return_state=True)
    stack.build(SEQUENCES.shape)
    before = running.outputs(stack, SEQUENCES)
    after = running.outputs(stack, SEQUENCES, training=True)
    assert_near(after[1:3], before[1:3], 1e-6, "states of the first layer")
    assert np.abs(after[0] - before[0]).max() > 1e-3


def test_stack_copies_its_layers():
    given = [layers.LSTM(U, return_sequences=False), layers.LSTM(7)]
    stack = layers.Stack(given)
    stack.build(SEQUENCES.shape)
    assert not any(layer.built for layer in given)
    assert stack.count_params() == 4 * (U * (D + U + 1) + 7 * (U + 7 + 1))


def test_segmented_runs_the_layer_on_each_segment():
    lstm = layers.LSTM(U, return_sequences=True)
    one, two = layers.Segmented(lstm, 9), layers.Segmented(lstm, 3)
    inputs = SEQUENCES.astype("float32")
    expected = running.outputs(lstm, inputs, mask=MASK)
    assert_near(running.outputs(one, inputs, mask=MASK), expected, 1e-6)
    pieces = [
        running.outputs(lstm, inputs[:, s], mask=MASK[:, s])[0] for s in (np.s_[:3], np.s_[3:])
    ]
    assert_near(running.outputs(two, inputs, mask=MASK), [np.concatenate(pieces, axis=1)], 1e-6)


def test_attention_pool_with_a_zero_context_vector_is_the_mean():
    pool = layers.AttentionPool(U, context_initializer="zeros")
    vector, weights = running.outputs(pool, SEQUENCES, mask=MASK)
    counts = MASK.sum(axis=1, keepdims=True)
    assert_near([weights], [MASK / np.maximum(counts, 1)], 1e-6)
    means = (SEQUENCES * MASK[..., None]).sum(axis=1) / np.maximum(counts, 1)
    assert_near([vector], [means], 1e-6)


def test_attention_pool_is_finite_for_large_scores():
    pool = layers.AttentionPool(U, dtype="mixed_float16")
    pool.build(SEQUENCES.shape)
    pool.set_weights([np.full(w.shape, 1000.0) for w in pool.weights])
    result = running.evaluate(
        pool, SEQUENCES, mask=MASK, cotangents=[np.ones((B, D)), np.ones((B, T))]
    )
    assert_near([result.outputs[1].sum(axis=1)], [MASK.any(axis=1)], 1e-2)
    assert all(np.isfinite(x).all() for x in (*result.outputs, *result.gradients))


def test_word_hashing_ignores_order_and_repetition():
    layer = BY_NAME["WordHashing"].build("float32")
    expected = running.outputs(layer, TRIGRAMS)
    assert_near(running.outputs(layer, TRIGRAMS[..., ::-1]), expected, 1e-6)
    twice = np.concatenate([TRIGRAMS, TRIGRAMS], axis=-1)
    assert_near(running.outputs(layer, twice), expected, 1e-6)


def test_word_dropout_replaces_its_rate_of_unmasked_tokens():
    tokens = np.random.default_rng(12).integers(5, 99, size=(50, 80)).astype("int32")
    mask = np.random.default_rng(13).random(tokens.shape) > 0.4
    layer = layers.WordDropout(0.3, unknown=1, seed=2)
    (found,) = running.outputs(layer, tokens, mask=mask, training=True)
    replaced = found != tokens
    assert found.dtype == tokens.dtype
    assert set(found[replaced]) == {1}
    assert not replaced[~mask].any()
    assert abs(replaced[mask].mean() - 0.3) < 0.04
    (unmasked,) = running.outputs(layer, tokens, training=True)
    assert abs((unmasked != tokens).mean() - 0.3) < 0.03


@pytest.mark.exhaustive
def test_a_model_learns_to_compare_the_first_and_the_last_step():
    """With `fit`, and with every kind of dropout."""
    rng = np.random.default_rng(14)
    inputs = rng.normal(size=(256, 6, 2)).astype("float32")
    labels = (inputs[:, 0, 0] > inputs[:, -1, 0]).astype("float32")
    recurrent = [layers.PeepholeLSTM(8, recurrent_dropout=0.1), layers.LSTM(6, dropout=0.1)]
    tokens = keras.Input((None, 2))
    x = layers.Stack(recurrent, skip="dense", dropout=0.1)(tokens)
    x, _ = layers.AttentionPool(5)(x)
    model = keras.Model(tokens, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
    model.fit(inputs, labels, batch_size=32, epochs=16, verbose=0)
    assert model.evaluate(inputs, labels, verbose=0, return_dict=True)["accuracy"] > 0.8


def test_a_functional_model_propagates_masks():
    tokens = np.array([[3, 4, 0, 0], [5, 0, 0, 0]], "int32")
    embedding = keras.layers.Embedding(9, D, mask_zero=True)
    lstm = layers.LSTM(U)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), embedding, lstm])
    short = running.outputs(lstm, ops.take(embedding.embeddings, tokens[1:, :1], axis=0))
    assert_near([running.numpy(model(tokens))[1:]], short, 1e-6)
