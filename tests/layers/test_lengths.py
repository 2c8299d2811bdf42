"""Decoders over hundreds of tokens, and attention windows hundreds of steps into the memory."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.layers import attention_cases, decoding_cases, running
from tests.layers.checks import LONG, assert_precise, lengthened
from tests.parameters import first_of
from unroll import layers

BY_NAME = {case.name: case for case in decoding_cases.CASES}
TOKENS = np.random.default_rng(40).integers(decoding_cases.VOCABULARY, size=(2, LONG))


def with_long_tokens(case, monkeypatch):
    """The case with the first two examples, because its oracle is slow, and `TOKENS`."""
    case = replace(case, inputs=case.inputs[:2], mask=None if case.mask is None else case.mask[:2])
    for dtype in ("float32", "mixed_bfloat16"):
        case.layer(dtype)  # is built by a call, which is faster with few tokens
    monkeypatch.setattr(decoding_cases, "TOKENS", TOKENS)
    return case


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", first_of(["RecurrentDecoder", "AttentionDecoder before", "AttentionDecoder after"])
)
def test_decoders_over_hundreds_of_tokens(name, monkeypatch):
    assert_precise(with_long_tokens(BY_NAME[name], monkeypatch), tolerance=0.04)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_window_that_moves_over_hundreds_of_steps(monkeypatch):
    case = with_long_tokens(lengthened(BY_NAME["AttentionDecoder after local"]), monkeypatch)
    assert_precise(case, tolerance=0.04)


@pytest.mark.slow
def test_a_window_hundreds_of_steps_into_the_memory(monkeypatch):
    monkeypatch.setattr(attention_cases, "POSITION", LONG - 10)
    case = attention_cases.luong("local-m", score="general", window="local_m", half_width=2)
    assert_precise(lengthened(case), tolerance=0.04)


@pytest.mark.slow
def test_a_predicted_window_with_a_query_rounded_to_bfloat16():
    """The center is S sigmoid(...): the rounding of a query alone moves it by a part of a step."""
    rng = np.random.default_rng(0)
    queries = running.tensors(rng.normal(size=(4, 6)).astype("float32"))[0]
    memory = running.tensors(rng.normal(size=(4, LONG, 3)).astype("float32"))[0]
    rounded = [ops.cast(ops.cast(x, "bfloat16"), "float32") for x in (queries, memory)]
    cotangents = [rng.normal(size=(4, 8)), np.zeros((4, LONG))]
    weights, found = None, []
    for dtype in ("float32", "mixed_bfloat16"):
        layer = layers.LuongAttention(8, window="local_p", half_width=2, dtype=dtype)
        layer.build((4, 6), (4, LONG, 3))
        if weights is None:
            random = [rng.normal(size=w.shape, scale=0.3) for w in layer.weights]
            weights = [running.numpy(ops.cast(ops.cast(w, "bfloat16"), "float32")) for w in random]
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            outputs = layer(*rounded)
        factors = [tf.cast(c, y.dtype) for c, y in zip(cotangents, outputs, strict=True)]
        found.append(tape.gradient(outputs, layer.trainable_variables, factors))
    for exact, half in zip(*found, strict=True):
        error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
        assert error <= 0.06  # eight spacings of bfloat16
