"""Decoders over hundreds of tokens, and attention windows hundreds of steps into the memory."""

from dataclasses import replace

import numpy as np
import pytest

from tests.layers import attention_cases, decoding_cases
from tests.layers.checks import LONG, assert_precise, lengthened

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
    "name", ["RecurrentDecoder", "AttentionDecoder before", "AttentionDecoder after"]
)
def test_decoders_over_hundreds_of_tokens(name, monkeypatch):
    assert_precise(with_long_tokens(BY_NAME[name], monkeypatch), tolerance=0.04)


@pytest.mark.slow
def test_a_window_that_moves_over_hundreds_of_steps(monkeypatch):
    case = with_long_tokens(lengthened(BY_NAME["AttentionDecoder after local"]), monkeypatch)
    assert_precise(case, tolerance=0.04)


@pytest.mark.slow
def test_a_window_hundreds_of_steps_into_the_memory(monkeypatch):
    monkeypatch.setattr(attention_cases, "POSITION", LONG - 10)
    case = attention_cases.luong("local-m", score="general", window="local_m", half_width=2)
    assert_precise(lengthened(case), tolerance=0.04)
