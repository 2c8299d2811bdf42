"""The decoders under dtype policies, in half precision and quantized."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import SEQUENCES, B, D
from tests.layers.checks import assert_near
from tests.layers.decoding_cases import make_decoder, random_weights
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from unroll import layers

MEMORY = ops.convert_to_tensor(SEQUENCES.astype("float32"))


class WithTokens(keras.layers.Layer):
    """A decoder as a layer of its memory."""

    def __init__(self, decoder, tokens):
        super().__init__(dtype=decoder.dtype_policy)
        self.decoder, self.tokens = decoder, ops.convert_to_tensor(tokens)

    def build(self, memory_shape):
        self.decoder.build(self.tokens.shape, memory_shape)

    def call(self, memory):
        return self.decoder(self.tokens, memory)[0]


@pytest.mark.slow
@pytest.mark.parametrize("length", first_of([1000, 50]))
def test_gradients_in_bfloat16_do_not_depend_on_the_length(length):
    rng = np.random.default_rng(5)
    tokens, memory = rng.integers(0, 20, (4, length)), rng.normal(size=(4, 6, 8))
    cotangents, found, weights = [rng.normal(size=(4, length, 20))], [], None
    for policy in ("float32", "mixed_bfloat16"):
        decoder = make_decoder(dtype=policy)
        layer = WithTokens(decoder, tokens)
        layer.build(memory.shape)
        weights = weights or decoder.get_weights()
        decoder.set_weights(weights)
        mode = "graph" if running.BACKEND == "tensorflow" else running.QUICK
        result = running.evaluate(layer, memory.astype("float32"), (), None, cotangents, mode=mode)
        found.append(result.gradients[1:])
    for weight, exact, half in zip(decoder.weights, *found, strict=True):
        if "kernel" in weight.name:
            error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
            assert error < 0.02, f"{weight.path}: relative error {error:.3f}"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("attend", ["before", "after"])
def test_a_dtype_policy_reaches_every_part(policy, attend):
    if policy == "float64" and running.BACKEND != "tensorflow":
        pytest.skip("Keras's operations support float64 on TensorFlow only")
    cells = [keras.layers.StackedRNNCells([layers.GRUCell(5), layers.GRUCell(12)])]
    made = make_decoder(attend, gated=attend == "before", dtype=policy)
    stacked = layers.RecurrentDecoder(20, 8, cells, dtype=policy)
    for decoder, memory in ((made, [MEMORY]), (stacked, [])):
        outputs = decoder(ops.convert_to_tensor(np.ones((B, 3), "int32")), *memory)
        dtype = keras.dtype_policies.get(policy)
        found = {keras.backend.standardize_dtype(x.dtype) for x in keras.tree.flatten(outputs)}
        assert found == {dtype.compute_dtype}
        assert {w.dtype for w in decoder.weights} == {dtype.variable_dtype}
        parts = [decoder.cells[0], getattr(decoder, "attention", None), decoder.embedding]
        parts += getattr(decoder.cells[0], "cells", [])
        assert {p.dtype_policy.name for p in parts if p is not None} == {policy}
        again = type(decoder).from_config(decoder.get_config())
        assert again.get_config() == decoder.get_config()


def test_a_part_without_a_policy_of_its_own_is_kept_where_nothing_changes():
    cell, attention = layers.LSTMCell(4), layers.BahdanauAttention(7)
    same = layers.AttentionDecoder(5, 3, [cell], attention)
    assert same.cells[0] is cell
    assert same.attention is attention
    cell.build((None, 3))
    assert_refused(
        lambda: layers.RecurrentDecoder(5, 3, [cell], dtype="mixed_bfloat16"),
        cell.name,
        "built",
        "'float32'",
        "'mixed_bfloat16'",
    )


# Keras's own code warns.
QUANTIZED = [("before", True), ("after", True), ("before", False)]


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.filterwarnings("ignore:.*The use of `x.T`")  # Keras on PyTorch
@pytest.mark.parametrize(("attend", "tie_weights"), QUANTIZED)
def test_quantized_decoders_are_right_and_saved(attend, tie_weights, tmp_path):
    tokens, memory = keras.Input((None,), dtype="int32"), keras.Input((None, D))
    decoder = make_decoder(attend, tie_weights, gated=attend == "before")
    model = random_weights(keras.Model([tokens, memory], decoder(tokens, memory)[0]))
    rng = np.random.default_rng(3)
    given = [ops.convert_to_tensor(rng.integers(0, 20, (B, 7))), MEMORY]
    exact = running.numpy(model(given))
    model.quantize("int8")
    found = running.numpy(model(given))
    assert decoder.embedding.quantization_mode == "int8"
    assert abs(found - exact).max() < 0.06 * exact.std()
    for name in ("once", "twice"):  # the config of a loaded model has a map of policies
        model.save(tmp_path / f"{name}.keras")
        model = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert_near([running.numpy(model(given))], [found], 1e-6)
    model.save_weights(tmp_path / "quantized.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "quantized.weights.h5")
    assert_near([running.numpy(clone(given))], [found], 1e-6)
    assert_refused_by_keras(lambda: decoder.quantize("int8"))


def assert_refused_by_keras(action):
    with pytest.raises(NotImplementedError, match="quantize"):
        action()


@pytest.mark.parametrize("policy", ["float32", *running.POLICIES])
def test_steps_are_counted_exactly_in_half_precision(policy):
    """Beyond 256 a bfloat16 counts no steps: the window would stop."""
    attention = layers.LuongAttention(4, score="dot", window="local_m", half_width=1)
    cells = [layers.GRUCell(D)]
    decoder = layers.AttentionDecoder(5, 4, cells, attention, "after", dtype=policy)
    memory = ops.convert_to_tensor(np.ones((2, 2070, D), "float32"))
    decoder.build((None, None), memory.shape)
    decoder.output_bias.assign([-1e4, 0, 0, 0, 0])  # no sequence ends
    start = {"mixed_bfloat16": 254.0, "mixed_float16": 2046.0, "float32": 30.0}[policy]

    def assert_window(alignments):
        for row in running.numpy(alignments).reshape(-1, 6, 2070):
            for t, weights in enumerate(row):
                center = int(start) + t
                assert np.flatnonzero(weights).tolist() == [center - 1, center, center + 1]

    *states, count = decoder.initial_states(memory)
    states.append(count + start)
    step = decoder.step_function(memory)
    options = {"start": 1, "end": 0, "max_length": 6}
    assert_window(layers.greedy(step, states, **options).alignments)
    assert_window(layers.sample(step, states, num_samples=2, seed=1, **options).alignments)
    found = layers.beam_search(step, states, beam_width=2, num_return_sequences=2, **options)
    assert_window(found.alignments)


@pytest.mark.exhaustive
@pytest.mark.parametrize("policy", first_of(running.POLICIES))
def test_teacher_forcing_counts_steps_exactly_in_half_precision(policy):
    attention = layers.LuongAttention(4, score="dot", window="local_m", half_width=1)
    decoder = layers.AttentionDecoder(5, 4, [layers.GRUCell(D)], attention, "after", dtype=policy)
    memory = ops.convert_to_tensor(np.ones((1, 300, D), "float32"))
    _, weights = decoder(ops.convert_to_tensor(np.ones((1, 290), "int32")), memory)
    for t, row in enumerate(running.numpy(weights)[0]):
        assert np.flatnonzero(row).tolist() == [p for p in (t - 1, t, t + 1) if p >= 0]
