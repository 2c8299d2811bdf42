"""The states of a search: any nested structure, any dtype, none."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers.recurrent_checks import assert_refused
from tests.layers.search_cases import EACH_SEARCH, assert_same, bigrams, run
from tests.layers.test_beam_search import FIRST_ROWS, step_of
from tests.parameters import first_of
from tests.reference.search import PrefixModel
from unroll import layers


class Pair(NamedTuple):
    first: object
    second: object


STRUCTURES = {
    "tensor": (lambda row: row, lambda states: states),
    "list": (lambda row: [row], lambda states: states[0]),
    "dict": (lambda row: {"b": {"row": row}, "a": None}, lambda states: states["b"]["row"]),
    "tuple": (lambda row: (None, ((row,), [])), lambda states: states[1][0][0]),
    "named tuple": (lambda row: Pair(None, {"x": row}), lambda states: states.second["x"]),
}


@EACH_SEARCH
@pytest.mark.parametrize("structure", STRUCTURES)
def test_states_are_any_nested_structure(search, structure):
    make, read = STRUCTURES[structure]
    plain = step_of(PrefixModel(1, 6))

    def step(tokens, states):
        assert isinstance(states, type(make(0))) or structure == "tensor"
        logits, row, weights = plain(tokens, read(states))
        return logits, make(row), weights

    found = run(search, step, make(FIRST_ROWS))
    assert_same(found, run(search, plain, FIRST_ROWS))


def test_a_step_may_return_a_tuple_for_a_list():
    plain = step_of(PrefixModel(1, 6))

    def step(tokens, states):
        logits, row, weights = plain(tokens, states[0])
        return logits, (row,), weights

    assert_same(run(layers.greedy, step, [FIRST_ROWS]), run(layers.greedy, plain, FIRST_ROWS))


@EACH_SEARCH
@pytest.mark.parametrize(
    "states", first_of([None, [], (), {}, {"a": [None]}], {"a": [None]}), ids=str
)
def test_a_step_without_states(search, states):
    """The batch size is that of `start`, or of `prefix`."""
    expected = run(search, bigrams, [np.zeros((2, 1))], start=[0, 3])
    assert_same(run(search, bigrams, states, start=[0, 3]), expected)
    prefix = {"prefix": [[-1], [4]]}
    expected = run(search, bigrams, [np.zeros((2, 1))], **prefix)
    assert_same(run(search, bigrams, states, **prefix), expected)
    assert_refused(lambda: run(search, bigrams, states), "start", "no states")


@EACH_SEARCH
def test_states_keep_their_dtypes(search):
    """Integers, booleans and floats of each precision, whatever the dtype of the logits."""
    plain = step_of(PrefixModel(1, 6))
    states = {
        "row": FIRST_ROWS,
        "flag": np.ones((3, 2), "bool"),
        "small": ops.zeros((3, 2, 1), "bfloat16"),
        "half": ops.zeros((3,), "float16"),
        "count": np.zeros((3,), "int32"),
    }
    expected = {name: keras.backend.standardize_dtype(x.dtype) for name, x in states.items()}

    def step(tokens, states):
        dtypes = {name: keras.backend.standardize_dtype(x.dtype) for name, x in states.items()}
        assert dtypes == expected
        logits, row, weights = plain(tokens, states["row"])
        states = {name: x for name, x in states.items() if name not in ("row", "count")}
        states |= {"row": row, "count": states["half"] > 0}
        states["count"] = ops.cast(states["count"], "int32")
        return ops.cast(logits, "bfloat16"), states, ops.cast(weights, "bfloat16")

    found = run(search, step, states)
    for x in (found.log_probabilities, found.scores, found.alignments):
        assert keras.backend.standardize_dtype(x.dtype) == "float32"


def test_wrong_states():
    def grows(tokens, states):
        return *bigrams(tokens, states)[:1], [*states, states[0]], None

    states = [np.zeros((2, 1), "float32")]
    assert_refused(lambda: run(layers.greedy, grows, states), "structure of the initial states")
    assert_refused(lambda: run(layers.greedy, bigrams, [np.zeros(())]), "[B, ...]", "scalar")
