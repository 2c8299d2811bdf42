"""Identities between recurrent layers, and the worked examples of the lectures."""

import inspect

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T, U
from tests.layers.cases import CASES
from tests.layers.checks import assert_near, cotangents
from tests.layers.recurrent_checks import assert_refused
from unroll import layers
from unroll.layers.recurrent import RecurrentCell, RecurrentLayer, clockwork

BY_NAME = {case.name: case for case in CASES}
BOTH = {"return_sequences": True, "return_state": True, "dtype": running.PRECISE}
NO_BIAS = {"use_bias": False, **BOTH}


def built(layer_class, *settings, width=D, weights=None, **options):
    """A layer with random weights, or with the given ones."""
    layer = layer_class(*settings, **{**BOTH, **options})
    layer.build((None, None, width))
    rng = np.random.default_rng(20)
    layer.set_weights(weights or [rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
    return layer


def all_layers() -> list[type]:
    found = [getattr(layers, name) for name in layers.__all__]
    return [x for x in found if isinstance(x, type) and issubclass(x, RecurrentLayer)]


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("GRU", keras.layers.GRU, {"reset_after": True}),
        ("GRU of the paper", keras.layers.GRU, {"reset_after": False}),
        ("ElmanRNN", keras.layers.SimpleRNN, {}),
    ],
)
def test_weights_and_values_equal_those_of_keras(name, theirs, options):
    ours = BY_NAME[name].build()
    theirs = built(theirs, U, weights=ours.get_weights(), **options)
    states = BY_NAME[name].initial_state()
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    for mask in (None, MASK):
        given = states if mask is None else []
        expected = running.outputs(theirs, SEQUENCES, given, mask)
        factors = cotangents(expected)
        found, wanted = (
            running.evaluate(layer, SEQUENCES, given, mask, factors) for layer in (ours, theirs)
        )
        assert_near(found.outputs, expected, running.EXACT)
        assert_near(found.gradients, wanted.gradients, 10 * running.EXACT, "gradients")


KERAS_CLASSES = [
    (keras.layers.LSTM, layers.LSTM),
    (keras.layers.GRU, layers.GRU),
    (keras.layers.SimpleRNN, layers.ElmanRNN),
    (keras.layers.LSTMCell, layers.LSTMCell),
    (keras.layers.GRUCell, layers.GRUCell),
    (keras.layers.SimpleRNNCell, layers.ElmanRNNCell),
]


@pytest.mark.parametrize(("theirs", "ours"), KERAS_CLASSES, ids=lambda x: x.__name__)
def test_arguments_start_with_those_of_keras(theirs, ours):
    """The same names and defaults in the same order, then those that only this layer has."""
    expected = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values()]
    found = [(p.name, p.default) for p in inspect.signature(ours).parameters.values()]
    assert expected[-1][0] == found[-1][0] == "kwargs"
    assert found[: len(expected) - 1] == expected[:-1]


@pytest.mark.parametrize(("theirs", "ours"), KERAS_CLASSES, ids=lambda x: x.__name__)
def test_configs_of_keras_are_accepted(theirs, ours):
    config = theirs(U, activation="relu", dropout=0.25, name="other").get_config()
    found = ours.from_config(config).get_config()
    assert {name: found.get(name) for name in config} == config


@pytest.mark.parametrize("name", [x for x in layers.recurrent.__all__ if "Layer" not in x])
def test_arguments_are_written_out(name):
    cls = getattr(layers.recurrent, name)
    if isinstance(cls, type) and issubclass(cls, (RecurrentCell, RecurrentLayer)):
        arguments = inspect.signature(cls).parameters
        assert {"activation", "kernel_regularizer", "dropout", "seed"} <= set(arguments)
        assert ("return_sequences" in arguments) == issubclass(cls, RecurrentLayer)


def test_unroll_and_implementation_have_no_effect():
    expected = built(layers.GRU, U)
    weights = expected.get_weights()
    layer = built(layers.GRU, U, weights=weights, unroll=True, implementation=1)
    assert layer(keras.Input((None, D)))[0].shape == (None, None, U)
    assert_near(running.outputs(layer, SEQUENCES), running.outputs(expected, SEQUENCES), 0.0)


def test_untrained_irnn_does_not_change_its_state_without_inputs():
    layer = layers.IRNN(U, **BOTH)
    state = np.random.default_rng(21).random((B, U))
    found = running.outputs(layer, np.zeros_like(SEQUENCES), [state])
    assert_near([found[0]], [np.repeat(state[:, None], T, axis=1)], running.EXACT)


def test_clockwork_of_period_one_equals_a_block_triangular_elman_network():
    clockwork = built(layers.ClockworkRNN, U, periods=[1, 1])
    kernel, recurrent, bias = clockwork.get_weights()
    triangular = recurrent.copy()
    triangular[: U // 2, U // 2 :] = 0
    elman = built(layers.ElmanRNN, U, weights=[kernel, triangular, bias])
    state = BY_NAME["ElmanRNN"].initial_state()
    expected = running.outputs(elman, SEQUENCES, state, MASK)
    found = running.outputs(clockwork, SEQUENCES, [*state, np.zeros((B, 2))], MASK)
    assert_near(found[:2], expected, running.EXACT)
    factors = cotangents(found)
    gradients = running.evaluate(clockwork, SEQUENCES, cotangents=factors).gradients
    of_recurrent = gradients[[w.name for w in clockwork.weights].index("recurrent_kernel") + 1]
    assert not of_recurrent[: U // 2, U // 2 :].any()
    assert of_recurrent[U // 2 :].all()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_the_loops_of_the_modules_equal_one_loop(mask, reverse, monkeypatch):
    """Outputs, final states and gradients, also from clocks in the middle of a period."""
    layer = built(layers.ClockworkRNN, 6, periods=[1, 2, 3], go_backwards=reverse)
    rng = np.random.default_rng(4)
    states = [rng.normal(size=(B, 6)), rng.integers(0, (1, 2, 3), size=(B, 3)).astype("float64")]
    factors = [rng.normal(size=y.shape) for y in running.outputs(layer, SEQUENCES, states, mask)]
    found = {}
    for units in (0, 256):
        monkeypatch.setattr(clockwork, "UNITS_OF_SEPARATE_LOOPS", units)
        assert layer.cell.has_one_loop == (units > 0)
        found[units] = running.evaluate(layer, SEQUENCES, states, mask, factors, mode="eager")
    assert_near(found[0].outputs, found[256].outputs, running.EXACT)
    assert_near(found[0].gradients, found[256].gradients, 10 * running.EXACT, "gradients")


def test_a_clockwork_module_changes_once_per_period():
    layer = built(layers.ClockworkRNN, 6, periods=[1, 3, 4])
    outputs = running.outputs(layer, np.tile(SEQUENCES, (1, 3, 1)))[0]
    changed = np.abs(np.diff(outputs, axis=1)).max(axis=0) > 0  # [steps but the first, units]
    for module, period in enumerate([1, 3, 4]):
        active = np.arange(1, outputs.shape[1]) % period == 0
        assert (changed[:, 2 * module : 2 * module + 2] == active[:, None]).all()


def test_scrn_with_alpha_one_does_not_change_its_context():
    layer = built(layers.SCRN, U, context_units=2, alpha=1.0)
    state = np.random.default_rng(22).normal(size=(B, U + 2))
    outputs = running.outputs(layer, SEQUENCES, [state])[0]
    assert_near([outputs[..., U:]], [np.repeat(state[:, None, U:], T, axis=1)], running.EXACT)
    assert np.abs(np.diff(outputs[..., :U], axis=1)).min() > 0


def test_gru_with_a_saturated_update_gate_copies_its_state():
    for reset_after in (True, False):
        layer = built(layers.GRU, U, reset_after=reset_after)
        kernel, recurrent, bias = layer.get_weights()
        bias[..., :U] = 1000
        layer.set_weights([kernel, recurrent, bias])
        state = np.random.default_rng(23).normal(size=(B, U))
        outputs = running.outputs(layer, SEQUENCES, [state])[0]
        assert_near([outputs], [np.repeat(state[:, None], T, axis=1)], running.EXACT)


def test_coupled_lstm_equals_an_lstm_with_mirrored_input_gate():
    coupled = BY_NAME["CoupledLSTM"].build()
    mirrored = []
    for weight in coupled.get_weights():
        f, g, o = np.split(weight, 3, axis=-1)
        mirrored.append(np.concatenate([-f, f, g, o], axis=-1))
    lstm = built(layers.LSTM, U, weights=mirrored)
    states = BY_NAME["LSTM"].initial_state()
    expected = running.outputs(lstm, SEQUENCES, states, MASK)
    assert_near(running.outputs(coupled, SEQUENCES, states, MASK), expected, running.EXACT)


def test_jordan_network_with_an_identity_output_map_equals_an_elman_network():
    elman = BY_NAME["ElmanRNN"].build()
    weights = [*elman.get_weights(), np.eye(U), np.zeros(U)]
    jordan = built(layers.JordanRNN, U, output_activation="linear", weights=weights)
    state = BY_NAME["ElmanRNN"].initial_state()
    expected = running.outputs(elman, SEQUENCES, state, MASK)
    assert_near(running.outputs(jordan, SEQUENCES, state, MASK), expected, running.EXACT)


def test_layer_norm_lstm_is_invariant_to_the_scale_of_its_matrices():
    layer = built(layers.LayerNormLSTM, U, epsilon=1e-9)
    weights = layer.get_weights()
    outputs, _, cell_state = running.outputs(layer, SEQUENCES)
    layer.set_weights([3 * weights[0], 7 * weights[1], *weights[2:]])
    found = running.outputs(layer, SEQUENCES)
    assert_near([found[0], found[2]], [outputs, cell_state], 1e-4)


def test_layer_norm_lstm_does_not_normalize_its_cell_state():
    layer = built(layers.LayerNormLSTM, U)
    weights = layer.get_weights()
    one_step = running.outputs(layer, SEQUENCES[:, :1])
    layer.set_weights([*weights[:5], 5 * weights[5], weights[6]])  # the gain of the cell state
    other = running.outputs(layer, SEQUENCES[:, :1])
    assert_near([other[2]], [one_step[2]], 1e-4, "cell state")
    assert np.abs(other[1] - one_step[1]).max() > 0.01


CONTEXT = np.random.default_rng(24).normal(size=(B, 2))


def test_context_lstm_without_context_equals_lstm():
    lstm = BY_NAME["LSTM"].build()
    states = BY_NAME["LSTM"].initial_state()
    expected = running.outputs(lstm, SEQUENCES, states, MASK)
    for size in (0, 2):
        layer = built(layers.ContextLSTM, U, context_size=size, width=D + size)
        layer.set_weights([*lstm.get_weights(), *([np.zeros((2, 4 * U))] if size else [])])
        inputs = np.concatenate([SEQUENCES, np.repeat(CONTEXT[:, None, :size], T, 1)], axis=-1)
        assert_near(running.outputs(layer, inputs, states, MASK), expected, running.EXACT)


def test_the_context_affects_each_of_the_four_gates():
    layer = built(layers.ContextLSTM, U, context_size=2, width=D + 2)
    weights, states = layer.get_weights(), BY_NAME["LSTM"].initial_state()
    for gate in range(4):
        kernel = np.zeros_like(weights[3])
        kernel[:, gate * U : (gate + 1) * U] = weights[3][:, gate * U : (gate + 1) * U]
        layer.set_weights([*weights[:3], kernel])
        one_step = SEQUENCES[:, :1]
        sequences, start, *contexts = running.tensors(one_step, states, CONTEXT, 2 * CONTEXT)
        found, other = (
            [running.numpy(y) for y in layer(sequences, context=context, initial_state=start)]
            for context in contexts
        )
        assert np.abs(found[1] - other[1]).min() > 0  # h
        assert (np.abs(found[2] - other[2]).max() > 0) == (
            gate != 3
        )  # the cell state, except for the output gate


def test_the_three_ways_to_pass_a_context_agree():
    layer = built(layers.ContextLSTM, U, context_size=2, width=D + 2)
    repeated = np.repeat(CONTEXT[:, None], T, axis=1)
    expected = running.outputs(layer, np.concatenate([SEQUENCES, repeated], axis=-1), mask=MASK)
    sequences, mask, *contexts = running.tensors(SEQUENCES, MASK, CONTEXT, repeated)
    for context in contexts:
        found = layer(sequences, context=context, mask=mask)
        assert_near([running.numpy(y) for y in found], expected, running.EXACT)


@pytest.mark.parametrize("shape", [(2,), (None, 2)])
def test_a_model_with_context_can_be_saved(shape, tmp_path):
    tokens, image = keras.Input((None, D)), keras.Input(shape)
    outputs = layers.ContextLSTM(U, context_size=2)(tokens, context=image)
    model = keras.Model([tokens, image], outputs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    context = CONTEXT if len(shape) == 1 else np.repeat(CONTEXT[:, None], T, axis=1)
    arrays = [SEQUENCES.astype("float32"), context.astype("float32")]
    assert_near([running.numpy(again(arrays))], [running.numpy(model(arrays))], 1e-6)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([(1, 1), (1, 1), (2, 2)], [(4, 4), (12, 12), (32, 32)]),
        ([(1, 1), (2, 2)], [(4, 4), (16, 16)]),
    ],
)
def test_elman_example_of_the_lectures(inputs, expected):
    """All weights are one, without bias, linear: the order of the inputs changes the outputs."""
    linear = {"activation": "linear", "output_activation": "linear", **NO_BIAS}
    layer = layers.ElmanRNN(2, output_units=2, **linear)
    layer.build((None, None, 2))
    layer.set_weights([np.ones(w.shape) for w in layer.weights])
    assert_near([running.outputs(layer, np.array([inputs], "float64"))[0]], [[expected]], 1e-12)


def test_jordan_example_of_the_lectures():
    """As above, with the output as the recurrent input: h = 2, 2 + 8, 4 + 40."""
    linear = {"activation": "linear", "output_activation": "linear", **NO_BIAS}
    layer = layers.JordanRNN(2, output_units=2, **linear)
    layer.build((None, None, 2))
    layer.set_weights([np.ones(w.shape) for w in layer.weights])
    inputs = np.array([[(1, 1), (1, 1), (2, 2)]], "float64")
    assert_near([running.outputs(layer, inputs)[0]], [[[(4, 4), (20, 20), (88, 88)]]], 1e-12)


def test_lstm_example_of_the_lectures():
    """x2 = 1 adds x1 to the memory, x2 = -1 resets it, x3 = 1 outputs it."""
    layer = layers.LSTM(1, activation="linear", **BOTH)
    layer.build((None, None, 3))
    kernel = np.zeros((3, 4))
    kernel[1, 0], kernel[1, 1], kernel[0, 2], kernel[2, 3] = 100, 100, 1, 100
    bias = np.array([-10, 10, 0, -10], "float64")
    layer.set_weights([kernel, np.zeros((1, 4)), bias])
    rows = ([1, 3, 2, 4, 2, 1, 3, 6, 1], [0, 1, 0, 1, 0, 0, -1, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0, 1])
    outputs = running.outputs(layer, np.array(rows, "float64").T[None])[0]
    assert_near([outputs[0, :, 0]], [[0, 0, 0, 0, 0, 7, 0, 0, 6]], 2e-3)


# Layers with loops of each kind; the others are exhaustive.
LOOPS = (layers.LSTM, layers.GRU, layers.ClockworkRNN, layers.SLSTM, layers.MinGRU)
# The layer, the batch size, and whether it is static. The sizes do not depend on the layer.
SPLIT_BATCHES = [
    (layers.LSTM, 17, True),
    (layers.LSTM, 1, True),
    (layers.LSTM, 1, False),
    *(
        pytest.param(
            layer_class, 17, False, marks=() if layer_class in LOOPS else pytest.mark.exhaustive
        )
        for layer_class in all_layers()
    ),
]


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="only TensorFlow splits a batch")
@pytest.mark.parametrize(("layer_class", "batch", "static"), SPLIT_BATCHES)
def test_a_split_batch_gives_the_same_results(layer_class, batch, static, monkeypatch):
    import tensorflow as tf

    from unroll.layers import backend_tensorflow

    monkeypatch.setattr(backend_tensorflow, "MIN_WORK_TO_SPLIT", 0)
    monkeypatch.setattr(backend_tensorflow, "_parallel_loops", lambda: 2)
    layer = layer_class(U, **BOTH)
    layer.build((batch, T, D))
    rng = np.random.default_rng(25)
    inputs, mask = rng.normal(size=(batch, T, D)), rng.random((batch, T)) > 0.3
    states = [rng.normal(size=(batch, size)) for size in layer.state_size]
    expected = running.outputs(layer, inputs, states, mask)
    given = running.tensors(inputs, states, mask)
    size = batch if static else None
    traced = tf.function(
        lambda x, states, mask: layer(x, initial_state=states, mask=mask),
        input_signature=tf.nest.map_structure(
            lambda x: tf.TensorSpec([size, *x.shape[1:]], x.dtype), given
        ),
    )
    assert_near([running.numpy(y) for y in traced(*given)], expected, running.EXACT)


@keras.saving.register_keras_serializable(package="unroll_tests")
class LeakyRNNCell(RecurrentCell):
    """h' = a h + (1 - a) tanh(x W + h R + b), as in the docstring of `RecurrentCell`."""

    gates = 1
    states = 1

    def __init__(self, units, leak=0.9, **kwargs):
        super().__init__(units, **kwargs)
        self.leak = leak

    def step(self, z, states):
        (h,) = states
        return (self.leak * h + (1 - self.leak) * self.activation(z),)

    def get_config(self):
        return {**super().get_config(), "leak": self.leak}


@keras.saving.register_keras_serializable(package="unroll_tests")
class LeakyRNN(RecurrentLayer):
    cell_class = LeakyRNNCell


def test_a_layer_of_the_user_runs_as_in_keras_and_keeps_its_arguments():
    layer = built(LeakyRNN, U, leak=0.5, activation="softsign")
    rnn = keras.layers.RNN(layer.cell, **BOTH)
    factors = cotangents(running.outputs(layer, SEQUENCES))
    found, expected = (running.evaluate(x, SEQUENCES, cotangents=factors) for x in (layer, rnn))
    assert_near(found.outputs, expected.outputs, running.EXACT)
    assert_near(found.gradients, expected.gradients, 10 * running.EXACT, "gradients")
    config = layer.get_config()
    assert (config["leak"], config["activation"]) == (0.5, "softsign")
    assert LeakyRNN.from_config(config).get_config() == config
    assert_refused(lambda: LeakyRNN(0), "LeakyRNN: units", "0")
    assert_refused(lambda: LeakyRNN(U, lag=1), "passed to LeakyRNN:", "lag")


@pytest.mark.parametrize("layer_class", all_layers(), ids=lambda x: x.__name__)
def test_runs_in_the_wrappers_of_keras(layer_class):
    inputs = keras.Input((None, D))
    x = keras.layers.Bidirectional(layer_class(U, return_sequences=True))(inputs)
    cells = [layer_class.cell_class(U), layers.LSTMCell(7)]
    x = keras.layers.RNN(keras.layers.StackedRNNCells(cells), return_sequences=True)(x)
    model = keras.Model(inputs, keras.layers.TimeDistributed(keras.layers.Dense(2))(x))
    assert model(SEQUENCES.astype("float32")).shape == (B, T, 2)
