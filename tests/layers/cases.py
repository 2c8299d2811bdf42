"""The table of all cases: each check runs on each case that it applies to."""

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
