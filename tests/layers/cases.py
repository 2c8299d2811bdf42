"""The table of layers: one row, and a layer gets every check."""

from tests.layers import (
    attention_cases,
    decoding_cases,
    embedding_cases,
    memory_cases,
    recurrent_cases,
    structured_cases,
)

CASES = (
    *recurrent_cases.CASES,
    *attention_cases.CASES,
    *memory_cases.CASES,
    *decoding_cases.CASES,
    *structured_cases.CASES,
    *embedding_cases.CASES,
)
