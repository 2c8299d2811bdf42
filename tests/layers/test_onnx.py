"""ONNX models of layers, in ONNX Runtime: recurrent nodes, loops, and every layer of the bench."""

import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from tests.layers import export_checks
from tests.layers.case import U
from tests.layers.cases import CASES
from tests.layers.checks import assert_near
from tests.layers.test_bench import is_first
from unroll import layers
from unroll.layers.onnx_tensorflow import convert

# Batch and length.
SHAPES = ((1, 7), (3, 24), (4, 1))
RECURRENT_NODES = {"LSTM", "GRU", "RNN", "Loop"}


def session_of(file: bytes):
    """A function of named arrays that runs a model."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def recurrent_nodes(file: bytes) -> list[str]:
    nodes = onnx.load_from_string(file).graph.node
    return sorted(node.op_type for node in nodes if node.op_type in RECURRENT_NODES)


def with_random_weights(layer, shape=(None, None, 3)):
    layer.build(shape)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=0.4) for w in layer.weights])
    return layer


def random_inputs(batch: int, length: int) -> dict:
    """Sequences, and a mask with gaps, whose first row is empty."""
    rng = np.random.default_rng(batch + length)
    mask = rng.random((batch, length)) > 0.3
    mask[:1] &= batch == 1
    return {"x": rng.normal(size=(batch, length, 3)).astype("float32"), "mask": mask}


SPECS = {"x": tf.TensorSpec([None, None, 3]), "mask": tf.TensorSpec([None, None], tf.bool)}


def assert_agrees(function, specs: dict, shapes, tolerance=1e-5) -> bytes:
    file = convert(function, specs)
    answer = session_of(file)
    for shape in shapes:
        inputs = {name: x for name, x in random_inputs(*shape).items() if name in specs}
        expected = function(**{name: tf.constant(x) for name, x in inputs.items()})
        found = answer(inputs)
        assert found.keys() == expected.keys()
        arrays = [[each[name] for name in expected] for each in (found, expected)]
        assert_near(*[[np.asarray(x) for x in each] for each in arrays], tolerance, f"{shape}")
    return file


def test_a_stack_of_layers_of_any_shape():
    """An LSTM is a node, and a peephole LSTM a loop."""
    inputs, mask = keras.Input((None, 3)), keras.Input((None,), dtype="bool")
    x = layers.LSTM(4, return_sequences=True)(inputs, mask=mask)
    x = layers.PeepholeLSTM(3, return_sequences=True, go_backwards=True)(x, mask=mask)
    model = keras.Model([inputs, mask], keras.layers.Dense(2)(x))
    file = assert_agrees(lambda x, mask: {"y": model([x, mask])}, SPECS, SHAPES)
    assert recurrent_nodes(file) == ["LSTM", "Loop"]


NODES = {"LSTM": "LSTM", "GRU": "GRU", "ElmanRNN": "RNN", "IRNN": "RNN"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("use_cudnn", ["auto", False], ids=["node", "loop"])
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NODES), ("LSTM", {"use_bias": False}), ("GRU", {"use_bias": False})],
    ids=str,
)
def test_a_node_and_a_loop_give_outputs_and_states(name, options, use_cudnn, backwards):
    """Also of empty batches, of no steps, and from initial states."""
    layer = with_random_weights(
        getattr(layers, name)(
            4,
            return_sequences=True,
            return_state=True,
            go_backwards=backwards,
            use_cudnn=use_cudnn,
            **options,
        )
    )

    def plain(x):
        return {f"y{k}": y for k, y in enumerate(layer(x))}

    def masked(x, mask):
        start = [tf.reduce_sum(x[..., :1], axis=1) * tf.ones(4)] * len(layer.state_size)
        return {f"y{k}": y for k, y in enumerate(layer(x, initial_state=start, mask=mask))}

    shapes = (*SHAPES, (2, 0), (0, 3))
    for function, specs in ((plain, {"x": SPECS["x"]}), (masked, SPECS)):
        file = assert_agrees(function, specs, shapes)
        assert recurrent_nodes(file) == ["Loop" if use_cudnn is False else NODES[name]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [case for case in CASES if is_first(case)], ids=lambda c: c.name)
def test_every_layer(case):
    answer = session_of(
        convert(export_checks.serve(case.layer("float32")), export_checks.signature(case))
    )
    export_checks.assert_exported(case, answer)


@pytest.mark.exhaustive
def test_a_reversed_loop_writes_from_its_last_step():
    """tf2onnx appends what a loop writes, wherever the loop writes it."""
    layer = with_random_weights(layers.LSTM(U, return_sequences=True, use_cudnn=False))
    both = keras.layers.Bidirectional(layer)
    both.build((None, None, 3))
    assert_agrees(lambda x: {"y": both(x)}, {"x": SPECS["x"]}, [(2, 5)])


def test_operations_that_tf2onnx_converts_in_another_way():
    def function(x, k):
        return {
            "selected": tf.where(tf.math.is_finite(x), x, 0.0),
            "reversed": tf.reverse(x, [0, 1]),
            "quotients": tf.stack([k // 3, k // -3]),
            "remainders": tf.stack([k % 3, k % -3]),
            "float_quotients": x // 0.7,
            "float_remainders": x % 0.7,
            "expm1": tf.math.expm1(x),
            "log1p": tf.math.log1p(x),
        }

    specs = {"x": tf.TensorSpec([None, None]), "k": tf.TensorSpec([None], tf.int32)}
    x = np.array([[1e-7, np.nan, np.inf], [-np.inf, -0.01, 3e4]], "float32")
    inputs = {"x": x, "k": np.arange(-4, 5, dtype="int32")}
    found = session_of(convert(function, specs))(inputs)
    for name, expected in function(**{n: tf.constant(v) for n, v in inputs.items()}).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_a_result_with_the_name_of_an_argument_has_another_name():
    file = convert(
        lambda h, x: {"h": h + x, "y": x}, {name: tf.TensorSpec([None]) for name in "hx"}
    )
    found = session_of(file)({"h": np.float32([1]), "x": np.float32([2])})
    assert found == {"next_h": [3], "y": [2]}


def test_captured_tensors_are_constants():
    table = tf.random.normal([50, 3])
    file = convert(lambda k: {"y": tf.gather(table, k)}, {"k": tf.TensorSpec([None], tf.int32)})
    found = session_of(file)({"k": np.array([7, 0], "int32")})
    np.testing.assert_array_equal(found["y"], tf.gather(table, [7, 0]))


def test_an_operation_without_a_counterpart_is_named():
    with pytest.raises(ValueError, match=r"^ONNX has no counterpart of Betainc, Igamma\.$"):
        convert(
            lambda x: {"y": tf.math.igamma(x, x), "z": tf.math.betainc(x, x, x)},
            {"x": tf.TensorSpec([None])},
        )


def test_a_stateful_layer_is_refused():
    layer = layers.LSTM(2, stateful=True)
    layer.build((1, None, 3))
    with pytest.raises(ValueError, match="An ONNX model has no state"):
        convert(lambda x: {"y": layer(x)}, {"x": tf.TensorSpec([1, None, 3])})


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        ImportError, match=r"ONNX needs tf2onnx: pip install 'unroll-keras\[onnx\]'"
    ):
        convert(lambda x: {"y": x}, {"x": tf.TensorSpec([None])})
