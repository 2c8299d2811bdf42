"""Decoders over hundreds of tokens, and attention windows hundreds of steps into the memory."""

from dataclasses import replace

import numpy as np
import pytest

from tests.layers import attention_cases, decoding_cases
from tests.layers.checks import LONG, assert_precise, lengthened

BY_NAME = {case.name: case for case in decoding_cases.CASES}
TOKENS = np.random.default_rng(40).integers(decoding_cases.VOCABULARY, size=(2, LONG))


@pytest.fixture(autouse=True)
def long_tokens(monkeypatch):
    monkeypatch.setattr(decoding_cases, "TOKENS", TOKENS)


def two_examples(case):
    """A new case with the first two examples: the oracles are slow."""
    return replace(case, inputs=case.inputs[:2], mask=None if case.mask is None else case.mask[:2])


@pytest.mark.parametrize(
    "name", ["RecurrentDecoder", "AttentionDecoder before", "AttentionDecoder after"]
)
def test_decoders_over_hundreds_of_tokens(name):
    assert_precise(two_examples(BY_NAME[name]))


def test_a_window_that_moves_over_hundreds_of_steps():
    assert_precise(two_examples(lengthened(BY_NAME["AttentionDecoder after local"])))


def test_a_window_hundreds_of_steps_into_the_memory(monkeypatch):
    monkeypatch.setattr(attention_cases, "POSITION", LONG - 10)
    case = attention_cases.luong("local-m", score="general", window="local_m", half_width=2)
    assert_precise(lengthened(case))
