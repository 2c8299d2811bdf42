"""`LSTM`, `GRU` and `ElmanRNN` take the place of Keras's `LSTM`, `GRU` and `SimpleRNN`.

What Keras's own tests of these three layers prove, and those of the wrappers that contain them
(`RNN`, `StackedRNNCells`, `Bidirectional`, `TimeDistributed`), each proved again for the layers of
this package. The numbers are those that Keras publishes in its tests: all weights are constants, so
that every layer with the same equations must give them.
"""

import itertools
import json

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.keras_rnn_cases import (
    ALL,
    CELLS,
    GAPS,
    LEFT,
    LONG,
    NARROW,
    RIGHT,
    SHORT,
    TOLERANCE,
    called,
    columns,
    constant,
    counting,
    label,
)
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

KERAS = {
    layers.LSTM: keras.layers.LSTM,
    layers.GRU: keras.layers.GRU,
    layers.ElmanRNN: keras.layers.SimpleRNN,
}
NAMES = {"LSTM": layers.LSTM, "GRU": layers.GRU, "SimpleRNN": layers.ElmanRNN}
# All units of a sequence have the same output, one number per sequence.
OUTPUTS = [
    ("LSTM", 3, LONG, {}, [0.6288687, 0.86899155, 0.9460773]),
    ("LSTM", 3, LONG, {"go_backwards": True}, [0.35622165, 0.74789524, 0.8872726]),
    ("LSTM", 3, LONG, {"unroll": True}, [0.6288687, 0.86899155, 0.9460773]),
    ("LSTM", 3, LONG, {"unit_forget_bias": False}, [0.57019705, 0.8661914, 0.9459622]),
    ("LSTM", 3, LONG, {"use_bias": False}, [0.54986924, 0.86226785, 0.9443936]),
    ("GRU", 3, LONG, {}, [0.5217289, 0.6371659, 0.39384964]),
    ("GRU", 3, LONG, {"go_backwards": True}, [0.24406259, 0.611516, 0.3928808]),
    ("GRU", 3, LONG, {"unroll": True}, [0.5217289, 0.6371659, 0.39384964]),
    ("GRU", 3, LONG, {"reset_after": False}, [0.51447755, 0.6426879, 0.40208298]),
    ("GRU", 3, LONG, {"use_bias": False}, [0.49988455, 0.64701194, 0.4103359]),
    ("SimpleRNN", 4, SHORT, {}, [0.405432, 0.73605347]),
    ("SimpleRNN", 4, SHORT, {"unroll": True}, [0.405432, 0.73605347]),
    ("SimpleRNN", 4, SHORT, {"go_backwards": True}, [0.11144729, 0.5528889]),
    ("SimpleRNN", 4, SHORT, {"go_backwards": True, "unroll": True}, [0.11144729, 0.5528889]),
]


@pytest.mark.parametrize(("name", "units", "sequences", "options", "expected"), OUTPUTS, ids=label)
def test_outputs_with_constant_weights(name, units, sequences, options, expected):
    layer = constant(NAMES[name], units, **options)
    assert_near(called(layer, sequences), [columns(expected, units)], TOLERANCE)


WITHOUT_EFFECT = [
    {"unroll": True},
    {"implementation": 0},
    {"implementation": 1},
    {"implementation": 2},
    {"use_cudnn": False},
    {"use_cudnn": "auto"},
]


@ALL
@pytest.mark.parametrize("options", WITHOUT_EFFECT, ids=label)
def test_arguments_about_keras_loops_are_accepted_and_change_nothing(layer_class, options):
    """By the layer; `implementation` by the cell too; all in a config, as old files have them."""
    plain = constant(layer_class, 3)
    config = {**plain.get_config(), **options}
    expected = called(plain, SHORT)
    for layer in (constant(layer_class, 3, **options), layer_class.from_config(config)):
        assert_near(called(layer, SHORT), expected, TOLERANCE if "use_cudnn" in options else 0.0)
        assert layer_class.from_config(layer.get_config()).get_config() == layer.get_config()


@ALL
def test_a_cell_takes_the_arguments_of_the_cells_of_keras(layer_class):
    cell = constant(CELLS[layer_class], 3, implementation=1)
    expected = called(constant(layer_class, 3), SHORT)
    assert_near(called(keras.layers.RNN(cell), SHORT), expected, TOLERANCE)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LSTM", [0.3124785, 0.6863672]),
        ("GRU", [0.29542392, 0.5885018]),
        ("SimpleRNN", [0.40559256, 0.7361247]),
    ],
)
def test_a_stateful_layer_goes_on_until_it_is_reset(name, expected):
    layer = constant(NAMES[name], 4, stateful=True)
    for _ in range(2):
        first = called(layer, SHORT)
        assert_near(called(layer, SHORT), [columns(expected, 4)], TOLERANCE, "second batch")
        assert np.abs(first[0] - columns(expected, 4)).max() > 1e-4
        layer.reset_state()


PASSED = [
    ("LSTM", 2, False, [[0.20574439, 0.3558822], [0.64930826, 0.66276]]),
    ("LSTM", 2, True, [[0.13281618, 0.2790356], [0.5839337, 0.5992567]]),
    ("GRU", 2, False, [[0.23774096, 0.33508456], [0.83659905, 1.0227708]]),
    ("GRU", 2, True, [[0.13486053, 0.23261218], [0.78257304, 0.9691353]]),
    ("SimpleRNN", 4, False, columns([0.33621645, 0.6262637], 4)),
    ("SimpleRNN", 4, True, columns([0.07344437, 0.43043602], 4)),
]


@pytest.mark.parametrize(("name", "units", "backwards", "expected"), PASSED)
def test_initial_and_final_states(name, units, backwards, expected):
    """One state is passed as a tensor or in a list, two in a list; the first final one is h."""
    state = counting(2, units)
    two = name == "LSTM"
    layer = constant(NAMES[name], units, go_backwards=backwards, return_state=True)
    output, *states = called(layer, NARROW, initial_state=[state, state] if two else state)
    assert_near([output], [expected], TOLERANCE)
    assert len(states) == 1 + two
    assert_near(states[:1], [output], 0.0, "state")
    if not two:
        assert_near(called(layer, NARROW, initial_state=[state]), [output, *states], 0.0)


MASKED = [
    ("LSTM", 2, RIGHT, {}, [0.11755939, 0.28556206]),
    ("LSTM", 2, RIGHT, {"unroll": True}, [0.11755939, 0.28556206]),
    ("LSTM", 2, LEFT, {"go_backwards": True}, [0.15341201, 0.3844719]),
    (
        "LSTM",
        2,
        RIGHT,
        {"return_sequences": True},
        [
            [0.01588910, 0.05552048, 0.11755939, 0.11755939],
            [0.14185596, 0.28556206, 0.28556206, 0.28556206],
        ],
    ),
    (
        "LSTM",
        2,
        RIGHT,
        {"return_sequences": True, "zero_output_for_mask": True},
        [[0.01588910, 0.05552048, 0.11755939, 0], [0.14185596, 0.28556206, 0, 0]],
    ),
    ("GRU", 2, GAPS, {}, [0.19393763, 0.30818558]),
    ("GRU", 2, GAPS, {"unroll": True}, [0.19393763, 0.30818558]),
    ("GRU", 2, GAPS, {"go_backwards": True}, [0.11669192, 0.28380975]),
    (
        "GRU",
        2,
        GAPS,
        {"return_sequences": True},
        [
            [0.03606692, 0.09497581, 0.09497581, 0.19393763],
            [0.16051409, 0.16051409, 0.16051409, 0.30818558],
        ],
    ),
    (
        "GRU",
        2,
        GAPS,
        {"return_sequences": True, "zero_output_for_mask": True},
        [[0.03606692, 0.09497581, 0, 0.19393763], [0.16051409, 0, 0, 0.30818558]],
    ),
    ("SimpleRNN", 4, GAPS, {}, [0.32951632, 0.61799484]),
    ("SimpleRNN", 4, GAPS, {"unroll": True}, [0.32951632, 0.61799484]),
    ("SimpleRNN", 4, GAPS, {"go_backwards": True}, [0.07376196, 0.43645123]),
    (
        "SimpleRNN",
        2,
        GAPS,
        {"return_sequences": True},
        [
            [0.0599281, 0.15122814, 0.15122814, 0.32394567],
            [0.3969304, 0.3969304, 0.3969304, 0.608085],
        ],
    ),
    (
        "SimpleRNN",
        2,
        GAPS,
        {"return_sequences": True, "zero_output_for_mask": True},
        [[0.0599281, 0.15122814, 0, 0.32394567], [0.3969304, 0, 0, 0.608085]],
    ),
]


@pytest.mark.parametrize(("name", "units", "mask", "options", "expected"), MASKED, ids=label)
def test_outputs_with_a_mask(name, units, mask, options, expected):
    layer = constant(NAMES[name], units, **options)
    assert_near(called(layer, NARROW, mask=mask), [columns(expected, units)], TOLERANCE)


@ALL
@pytest.mark.parametrize(
    "rates", [{"dropout": 0.5}, {"dropout": 0.5, "recurrent_dropout": 0.5}], ids=label
)
def test_variables_with_dropout(layer_class, rates):
    """Three trainable weights, and the state of the random numbers, which is no weight."""
    layer = layer_class(3, seed=1337, **rates)
    layer.build((3, 2, 4))
    assert layer.built
    assert layer.supports_masking
    assert len(layer.trainable_weights) == 3
    assert not layer.non_trainable_weights
    assert len(layer.non_trainable_variables) == 1
    assert len(layer.cell.non_trainable_variables) == 1
    assert called(layer, counting(3, 2, 4), training=True)[0].shape == (3, 3)


@ALL
def test_one_loss_per_regularized_weight(layer_class):
    layer = layer_class(
        3,
        return_sequences=True,
        kernel_regularizer="l2",
        recurrent_regularizer="l2",
        bias_regularizer="l1",
    )
    assert called(layer, counting(3, 2, 4))[0].shape == (3, 2, 3)
    assert len(layer.losses) == 3


@ALL
def test_a_model_trains_with_dropout(layer_class):
    """By `fit`, compiled as is the default of the backend; every weight changes."""
    layer = layer_class(3, dropout=0.5, recurrent_dropout=0.5, return_sequences=True)
    model = keras.Sequential([keras.Input((2, 4)), layer])
    model.compile("sgd", "mse")
    before = layer.get_weights()
    inputs = np.random.default_rng(0).normal(size=(6, 2, 4))
    model.fit(inputs, np.ones((6, 2, 3)), batch_size=3, verbose=0)
    changes = [np.abs(a - b).max() for a, b in zip(layer.get_weights(), before, strict=True)]
    assert min(changes) > 0


SHAPES = list(itertools.product((False, True), (False, True), ((3, 4, 5), (None, None, 5))))


@ALL
@pytest.mark.parametrize(("sequences", "state", "shape"), SHAPES)
def test_declared_shapes(layer_class, sequences, state, shape):
    layer = layer_class(8, return_sequences=sequences, return_state=state)
    batch, time, _ = shape
    expected = [(batch, time, 8) if sequences else (batch, 8)]
    if state:
        expected += [(batch, 8)] * (2 if layer_class is layers.LSTM else 1)
    found = layer.compute_output_shape(shape)
    assert [tuple(s) for s in (found if state else [found])] == expected
    symbolic = layer(keras.KerasTensor(shape))
    assert [tuple(y.shape) for y in keras.tree.flatten(symbolic)] == expected


@ALL
def test_declared_dtypes_in_mixed_precision(layer_class):
    layer = layer_class(3, return_sequences=True, return_state=True, dtype="mixed_float16")
    found = keras.tree.flatten(layer(counting(3, 2, 4)))
    spec = keras.tree.flatten(layer.compute_output_spec(keras.KerasTensor((3, 2, 4), "float16")))
    for tensors in (found, spec):
        assert {keras.backend.standardize_dtype(y.dtype) for y in tensors} == {"float16"}
    assert {w.dtype for w in layer.weights} == {"float32"}


# Every argument of Keras's layers, with a value that is not the default.
OPTIONS = {
    "activation": "softsign",
    "use_bias": False,
    "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
    "recurrent_initializer": "glorot_normal",
    "bias_initializer": "ones",
    "kernel_regularizer": "l1",
    "recurrent_regularizer": "l2",
    "bias_regularizer": keras.regularizers.L1(0.2),
    "activity_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "unit_norm",
    "bias_constraint": keras.constraints.MaxNorm(1.5),
    "dropout": 0.25,
    "recurrent_dropout": 0.125,
    "seed": 11,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "zero_output_for_mask": True,
    "name": "another",
    "dtype": "mixed_bfloat16",
    "trainable": False,
}
OWN_OPTIONS = {
    layers.LSTM: {
        "recurrent_activation": "hard_sigmoid",
        "unit_forget_bias": False,
        "use_cudnn": False,
    },
    layers.GRU: {"recurrent_activation": "hard_sigmoid", "reset_after": False, "use_cudnn": True},
    layers.ElmanRNN: {},
}


@ALL
def test_configs_survive_json(layer_class):
    """The config, and the serialized layer, give the same layer after a round trip as JSON."""
    layer = layer_class(3, **OPTIONS, **OWN_OPTIONS[layer_class])
    config = layer.get_config()
    assert layer_class.from_config(json.loads(json.dumps(config))).get_config() == config
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    revived = keras.saving.deserialize_keras_object(serialized)
    assert type(revived) is layer_class
    assert revived.get_config() == config


@ALL
def test_configs_of_keras_layers(layer_class):
    """The config of Keras's layer gives a layer with the same options, weights and outputs."""
    for options in ({}, OPTIONS | OWN_OPTIONS[layer_class]):
        config = KERAS[layer_class](3, **options).get_config()
        found = layer_class.from_config(config).get_config()
        assert {name: found.get(name) for name in config} == config
    theirs = KERAS[layer_class](3, return_sequences=True)
    theirs.build(SHORT.shape)
    ours = layer_class.from_config(theirs.get_config())
    ours.build(SHORT.shape)
    ours.set_weights(theirs.get_weights())
    assert_near(called(ours, SHORT), called(theirs, SHORT), TOLERANCE)


@ALL
def test_a_stateful_layer_refuses_a_larger_batch(layer_class):
    """Keras refuses every other batch size. Here a smaller batch goes on with its own states."""
    inputs = keras.Input((5, 3), batch_size=4)
    model = keras.Model(inputs, constant(layer_class, 2, stateful=True)(inputs))
    first, second = counting(4, 5, 3), counting(1, 5, 3)
    called(model, first)
    other = constant(layer_class, 2, stateful=True)
    called(other, first[:1])
    assert_near(called(model, second), called(other, second), TOLERANCE)
    assert_refused(lambda: model(counting(6, 5, 3)), "stateful", "4 sequences", "batch of 6")


@ALL
def test_a_stateful_layer_trains(layer_class):
    """The states of one batch are the start of the next, as constants.

    On JAX, Keras's `fit` does not store them, so that each batch starts from zeros.
    """
    inputs = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    targets = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    layer = constant(layer_class, 3, stateful=True)
    model = keras.Sequential([keras.Input((3, 2), batch_size=2), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(inputs, targets, batch_size=2, shuffle=False, verbose=0).history
    expected = constant(layer_class, 3, stateful=running.BACKEND != "jax")
    found = [called(expected, part)[0] for part in np.split(inputs, 2)]
    loss = np.mean((np.concatenate(found) - targets) ** 2)
    assert_near(history["loss"], [loss], TOLERANCE)


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="a TensorFlow graph of any batch size")
@ALL
def test_a_stateful_layer_in_a_graph_of_any_batch_size(layer_class):
    import tensorflow as tf

    layer = layer_class(5, stateful=True)
    inputs = np.ones((2, 10, 10), "float32")
    layer(inputs, training=True)
    signature = [tf.TensorSpec((None, 10, 10), "float32")]
    graph = tf.function(lambda x: layer(x, training=True), input_signature=signature)
    assert graph(inputs).shape == (2, 5)
