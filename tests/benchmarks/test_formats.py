"""The benchmark of export formats: what it measures of each app, shapes, names."""

from types import SimpleNamespace

import format_figures
import formats
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core import cli
from unroll.apps.core.protocol import with_inputs


def test_every_app_has_a_figure():
    assert set(format_figures.FIGURES) == set(cli.describe())


def function(*shapes):
    """A function with inputs of these shapes, `a`, `b`, ..."""
    specs = {name: tf.TensorSpec(shape) for name, shape in zip("abc", shapes, strict=False)}
    return with_inputs(dict, specs)


def service(**functions):
    """Functions, for examples that are the shapes of their inputs."""

    def requests(examples):
        return {
            name: {key: np.zeros(shape) for key, shape in own.items()}
            for name, own in examples[0].items()
        }

    return SimpleNamespace(litert=functions, requests=requests)


@pytest.mark.parametrize(
    ("functions", "measured", "examples", "expected"),
    [
        # The sizes of the split, whatever those of the examples.
        ({"f": function([None, None])}, {"a": (32, 7)}, [{"f": {"a": (1, 50)}}], "1x7"),
        (
            {"f": function([None, None, 4], [None, None])},
            {"a": (32, 7, 4), "b": (32, 9)},
            [{"f": {"a": (1, 1, 4), "b": (1, 1)}}],
            "1x9",
        ),
        # Those of the examples, for axes that the function lacks.
        (
            {"f": function([1]), "g": function([None, None, None])},
            {"a": (16,)},
            [{"f": {"a": (1,)}, "g": {"a": (1, n, 12 - n)}} for n in (3, 5)],
            "1x5x9",
        ),
        ({"f": function([1])}, {"a": (16,)}, [{"f": {"a": (1,)}}], ""),
        ({"f": function([None, 8])}, {"a": (16, 8)}, [{"f": {"a": (1, 8)}}], "1"),
    ],
)
def test_a_fixed_shape_has_room_for_the_test_split(functions, measured, examples, expected):
    assert formats.fixed_shape(service(**functions), "f", measured, examples) == expected


def test_a_function_of_one_row_answers_batches():
    calls = []

    def call(arrays):
        calls.append(arrays["a"].tolist())
        return {"b": 2 * arrays["a"]}

    of_batch = formats.by_row(call, lambda arrays: {"a": arrays["a"] + 1})
    assert of_batch({"a": np.arange(3)})["b"].tolist() == [2, 4, 6]
    assert calls == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("artifact", "name", "sizes"),
    [
        ("saved_model", "SavedModel", ()),
        ("litert-float16", "LiteRT, float16", ()),
        ("litert-1x50-int8", "LiteRT, 1x50, int8", (1, 50)),
        ("litert-1", "LiteRT, 1", (1,)),
        ("onnx-loops", "ONNX with loops", ()),
    ],
)
def test_an_artifact_has_a_name_and_sizes(artifact, name, sizes):
    assert formats.label(artifact) == name
    assert formats._sizes(artifact) == sizes
