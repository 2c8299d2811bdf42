"""How the outputs of an export are compared with those of the model."""

import json

import numpy as np
import pytest

from unroll.apps.core import parity


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "\u00fc"], ["", "\0"]]),
        np.array([[b"\xff\x00", "\u65e5".encode()]], object),
        np.zeros((2, 0), object),
        np.zeros((0, 3), "float32"),
        np.array([np.inf, np.nan, 1 / 3], "float32"),
        np.array([[1, 2]], "int64"),
        np.array(True),
    ],
    ids=lambda array: f"{array.dtype.kind}{array.shape}",
)
def test_tensors_round_trip_through_json(array):
    decoded = parity.decode(json.loads(json.dumps(parity.encode(array))))
    expected = array
    if array.dtype.kind == "U":
        expected = np.vectorize(str.encode, otypes=[object])(array)
    assert (decoded.shape, decoded.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(decoded, expected)


def test_equal_infinities_do_not_differ():
    values = np.array([-np.inf, np.inf, 1], "float32")
    assert parity.difference(values, values.copy()) == 0
    assert parity.difference(values, -values) == np.inf
    # Relative to the largest finite value, above 1.
    assert parity.difference(np.array([0.5, 0.1]), np.array([0.5, 0.2])) == pytest.approx(0.1)
    found = parity.difference(np.array([1e4, np.inf, 2.0]), np.array([1e4, np.inf, 3.0]))
    assert found == pytest.approx(1e-4)


def test_an_imported_project_is_reported():
    # Unlike the clean process, this one has imported the project.
    with pytest.raises(RuntimeError, match=r"imported .*unroll\.apps"):
        parity.outputs_of({"requests": []})
