"""What is particular to residual blocks: sequences in parts, layers inside, wrong arguments."""

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T, U
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from unroll import layers
from unroll.layers.recurrent import RECURRENT_LAYERS


def built(layer, **options):
    block = layers.ResidualBlock(layer, return_state=True, dtype=running.PRECISE, **options)
    block.build((None, None, D))
    rng = np.random.default_rng(2)
    block.set_weights([rng.normal(size=w.shape, scale=0.6) for w in block.weights])
    return block


def inner(name: str):
    """A recurrent layer of this name with few arguments."""
    return getattr(layers, name)(U, dtype=running.PRECISE)


@pytest.mark.parametrize("name", first_of(sorted(set(RECURRENT_LAYERS) - {"ContextLSTM"})))
def test_a_sequence_in_parts_gives_the_same(name):
    block = built(inner(name), expansion=2)
    whole = running.outputs(block, SEQUENCES, mask=MASK)
    pieces, states, collected = [np.s_[:, a:b] for a, b in ((0, 1), (1, 3), (3, T))], (), []
    for piece in pieces:
        outputs, *states = running.outputs(block, SEQUENCES[piece], states, MASK[piece])
        collected.append(outputs)
    assert_near([np.concatenate(collected, axis=1), *states], whole, running.EXACT)
    assert [s.shape for s in states] == [(B, size) for size in (3 * D, *block.layer.state_size)]


@pytest.mark.parametrize("name", first_of(sorted(set(RECURRENT_LAYERS) - {"ContextLSTM"}), "MLSTM"))
@pytest.mark.parametrize("options", [{"expansion": 2, "input_units": 8}, {"kernel_size": None}])
def test_single_steps_give_the_same(name, options):
    block = built(inner(name), **options)
    whole, *last = running.outputs(block, SEQUENCES)
    states = [np.zeros((B, size), running.PRECISE) for size in block.state_size]
    for t in range(T):
        outputs, states = block.step(*running.tensors(SEQUENCES[:, t], list(states)))
        assert_near([running.numpy(outputs)], [whole[:, t]], 10 * running.EXACT)
    assert_near([running.numpy(s) for s in states], last, 10 * running.EXACT)


def test_its_parts_are_those_of_keras():
    block = built(
        keras.layers.GRU(U, dtype=running.PRECISE), normalization="layer", activation="gelu"
    )
    kernel, bias, gate, gate_bias, output, output_bias, *others = block.get_weights()
    norm = keras.layers.LayerNormalization(epsilon=1e-6, dtype=running.PRECISE)
    convolution = keras.layers.DepthwiseConv1D(4, dtype=running.PRECISE)
    rnn = keras.layers.GRU(U, return_sequences=True, dtype=running.PRECISE)
    for layer in (norm, convolution):
        layer.build((None, None, D))
    rnn.build((None, None, D))
    norm.set_weights(others[:2])
    convolution.set_weights([kernel[..., None], bias])
    rnn.set_weights(others[2:])
    x = keras.ops.convert_to_tensor(SEQUENCES)
    n = norm(x)
    c = convolution(keras.ops.pad(n, [[0, 0], [3, 0], [0, 0]]))
    z = keras.ops.add(keras.ops.matmul(n, gate), gate_bias)
    y = rnn(c) * keras.activations.gelu(z)
    expected = keras.ops.add(x + keras.ops.matmul(y, output), output_bias)
    found = running.outputs(block, SEQUENCES)[:1]
    assert_near(found, [running.numpy(expected)], 10 * running.EXACT)


@pytest.mark.exhaustive
def test_a_model_of_blocks_trains_in_half_precision_and_is_saved(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(tokens)
    for _ in range(2):
        x = layers.ResidualBlock(
            layers.MLSTM(8, heads=2), expansion=2, dropout=0.1, dtype="mixed_bfloat16"
        )(x)
    model = keras.Model(tokens, keras.layers.Dense(9)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss=loss)
    data = np.random.default_rng(3).integers(1, 9, size=(32, 12))
    data[:, 9:] = 0
    history = model.fit(data, data, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(data, verbose=0), model.predict(data, verbose=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": keras.layers.Dense(3)}, ("layer", "recurrent")),
        ({"layer": layers.GRU(3, go_backwards=True)}, ("go_backwards=False",)),
        ({"layer": layers.GRU(3, stateful=True)}, ("stateful=False",)),
        ({"kernel_size": 1}, ("kernel_size", "at least 2")),
        ({"input_units": 0}, ("input_units", "at least 1")),
        ({"expansion": 0.0}, ("expansion", "above 0")),
        ({"normalization": "batch"}, ("normalization", "'batch'")),
        ({"dropout": 1.5}, ("dropout", "1.5")),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    assert_refused(lambda: layers.ResidualBlock(**{"layer": layers.GRU(3), **options}), *words)


def test_a_wrong_number_of_states_is_refused():
    block = built(layers.GRU(U, dtype=running.PRECISE))
    assert_refused(
        lambda: block(SEQUENCES, initial_state=[np.zeros((B, U))]), "2 initial states", "got 1"
    )
