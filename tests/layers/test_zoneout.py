"""Zoneout in training, of the LSTM family."""

from functools import partial

import keras
import numpy as np
import pytest

from tests import reference
from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, T, U
from tests.layers.checks import assert_near, slope
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from unroll import layers

ORACLES = {
    layers.LSTM: reference.lstm,
    layers.LayerNormLSTM: reference.layer_norm_lstm,
    layers.PeepholeLSTM: reference.peephole_lstm,
    layers.CoupledLSTM: reference.coupled_lstm,
}
RATES = {"zoneout_cell": 0.5, "zoneout_hidden": 0.25}


def built(layer_class, **options):
    layer = layer_class(U, return_sequences=True, return_state=True, **{**RATES, **options})
    layer.build(SEQUENCES.shape)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
    return layer


@pytest.mark.parametrize("backwards", first_of([True, False]))
@pytest.mark.parametrize("layer_class", first_of(ORACLES, layers.LayerNormLSTM))
def test_outputs_and_gradients_are_those_of_the_kept_units(layer_class, backwards, monkeypatch):
    layer = built(layer_class, dtype=running.PRECISE, go_backwards=backwards)
    rng = np.random.default_rng(4)
    kept = (rng.random((B, T, 2 * U)) < 0.5).astype(running.PRECISE)
    monkeypatch.setattr(layer.cell, "noise", lambda sequences: kept)
    states = [rng.normal(size=(B, U)) for _ in range(2)]
    factors = [rng.normal(size=shape) for shape in ((B, T, U), (B, U), (B, U))]

    def oracle(weights, inputs, states):
        weights = [*weights[:3], np.eye(U), *weights[3:]]
        outputs, *final = reference.extended_lstm(
            ORACLES[layer_class],
            weights,
            inputs,
            states,
            MASK,
            backwards,
            kept=kept.transpose(1, 0, 2),
        )
        return [outputs[:, ::-1] if backwards else outputs, *final]

    def loss(given):
        outputs = oracle(given[3:], given[0], given[1:3])
        return sum((c * y).sum() for c, y in zip(factors, outputs, strict=True))

    found = running.evaluate(layer, SEQUENCES, states, MASK, factors, training=True)
    arguments = [SEQUENCES, *states, *layer.get_weights()]
    assert_near(found.outputs, oracle(arguments[3:], SEQUENCES, states), running.EXACT)
    slopes = slope(loss, arguments, dict(enumerate(found.gradients)), seed=0)
    assert_near([slopes[0]], [slopes[1]], running.SLOPE)


def test_each_unit_of_each_step_and_sequence_is_kept_with_its_probability():
    cell = layers.LSTMCell(50, projection=30, zoneout_cell=0.75, zoneout_hidden=0.25, seed=1)
    sequences = keras.ops.zeros((40, 20, 3))
    once, twice = (running.numpy(cell.noise(sequences)) for _ in range(2))
    assert once.shape == (40, 20, 80)
    assert set(np.unique(once)) == {0, 1}
    assert (once != twice).any()
    for part, rate in ((once[..., :30], 0.25), (once[..., 30:], 0.75)):
        assert abs(part.mean() - rate) < 0.02
        for axis in range(3):  # no two sequences, steps or units share their numbers
            rows = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1)
            assert len(np.unique(rows, axis=0)) == len(rows)


def test_two_batches_differ_and_a_seed_repeats_them():
    first, second = (built(layers.LSTM, seed=3) for _ in range(2))
    run = partial(running.evaluate, inputs=SEQUENCES.astype("float32"), training=True)
    once, twice = (run(first).outputs for _ in range(2))
    assert (once[0] != twice[0]).any()
    assert_near(run(second).outputs, once, 1e-6)
    for mode in running.OTHER_MODES[-1:]:
        compiled = [run(first, mode=mode).outputs[0] for _ in range(2)]
        assert (compiled[0] != compiled[1]).any()


def test_a_probability_of_one_keeps_the_states():
    layer = built(layers.LSTM, zoneout_cell=1.0, zoneout_hidden=1.0)
    states = [np.full((B, U), value, "float32") for value in (0.5, -2.0)]
    for training in (True, False):
        found = running.outputs(layer, SEQUENCES.astype("float32"), states, training=training)
        assert_near(found, [np.repeat(states[0][:, None], T, axis=1), *states], 1e-6)


def test_eager_parts_of_a_long_sequence_have_numbers_of_their_own(monkeypatch):
    layer = built(layers.LSTM)
    inputs = np.random.default_rng(5).normal(size=(2, 150, 3)).astype("float32")
    kept = (np.random.default_rng(6).random((2, 150, 2 * U)) < 0.5).astype("float32")
    monkeypatch.setattr(layer.cell, "noise", lambda sequences: kept)
    weights = [*layer.get_weights()[:3], np.eye(U)]
    expected = reference.extended_lstm(
        reference.lstm,
        weights,
        inputs,
        reference.zeros(inputs, U, U),
        kept=kept.transpose(1, 0, 2),
    )
    assert_near(running.outputs(layer, inputs, training=True), expected, 1e-4)


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="only TensorFlow splits a batch")
def test_a_split_batch_has_the_same_kept_units(monkeypatch):
    from unroll.layers import backend_tensorflow

    layer = built(layers.LSTM, dtype="float64")
    kept = np.random.default_rng(6).random((B, T, 2 * U)) < 0.5
    monkeypatch.setattr(layer.cell, "noise", lambda sequences: kept.astype("float64"))
    expected = running.outputs(layer, SEQUENCES, training=True)
    monkeypatch.setattr(backend_tensorflow, "MIN_WORK_TO_SPLIT", 0)
    monkeypatch.setattr(backend_tensorflow, "_parallel_loops", lambda: 2)
    found = running.evaluate(layer, SEQUENCES, training=True, mode="graph").outputs
    assert_near(found, expected, 1e-12)


def test_other_loops_refuse_a_cell_with_zoneout_in_training():
    x = np.zeros((2, 3, 4), "float32")
    rnn = keras.layers.RNN(layers.LSTMCell(U, zoneout_hidden=0.5))
    assert running.numpy(rnn(x)).shape == (2, U)
    assert_refused(lambda: rnn(x, training=True), "zoneout needs the layer", "LSTMCell")
    assert_refused(
        lambda: layers.RecurrentDecoder(9, 4, [layers.LSTMCell(U, zoneout_cell=0.5)]),
        "without dropout and zoneout",
        "zoneout_cell",
    )
