"""LSTMs of fixed shape in LiteRT: one operation with the answers of the loop."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("LiteRT models are made with the TensorFlow backend", allow_module_level=True)

import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from unroll import layers
from unroll.layers.litert_tensorflow import convert

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
B, T, D, U = 2, 9, 3, 5


def function_of(layer, masked: bool = True):
    """The layer, with random weights, as a function of `x` and `mask`."""
    layer.build((B, T, D))
    random = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(random.normal(scale=0.8, size=weight.shape))

    def function(x, mask):
        outputs = layer(x, mask=mask if masked else None)
        return {f"y{k}": y for k, y in enumerate(tf.nest.flatten(outputs))}

    return function


def specs(batch: int | None = B, length: int | None = T) -> dict:
    return {
        "x": tf.TensorSpec([batch, length, D]),
        "mask": tf.TensorSpec([batch, length], tf.bool),
    }


def operations(file: bytes) -> list[str]:
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    return [each["op_name"] for each in interpreter._get_ops_details()]


def requests() -> list[dict]:
    """Masks with gaps, at both ends, of padding alone, and without a masked step."""
    random = np.random.default_rng(1)
    masks = random.random((4, B, T)) > 0.4
    masks[1, 0], masks[2] = False, True
    return [{"x": random.normal(size=(B, T, D)).astype("float32"), "mask": m} for m in masks]


def assert_agrees(file: bytes, function, given: list[dict], tolerance: float = 1e-6):
    """For each request, also after others."""
    runner = Interpreter(model_content=file).get_signature_runner("serving_default")
    for request in [*given, *reversed(given)]:
        expected = function(**{name: tf.constant(value) for name, value in request.items()})
        found = runner(**request)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=tolerance)


def test_both_directions_and_masks_need_no_loop():
    layer = keras.layers.Bidirectional(layers.LSTM(U, return_sequences=True))
    function = function_of(layer)
    file = convert(function, specs())
    assert operations(file).count(FUSED) == 2
    assert "WHILE" not in operations(file)
    assert FUSED not in operations(convert(function, specs(), fuse=False))
    # The operation keeps its state from one invocation to the next.
    assert_agrees(file, function, requests())


@pytest.mark.exhaustive
def test_the_last_output_of_a_stack_without_a_mask():
    stack = keras.Sequential([layers.LSTM(U, return_sequences=True), layers.LSTM(4)])
    stack.build((B, T, D))
    file = convert(lambda x: {"y": stack(x)}, {"x": tf.TensorSpec([B, T, D])})
    assert operations(file).count(FUSED) == 2
    given = [{"x": request["x"]} for request in requests()]
    assert_agrees(file, lambda x: {"y": stack(x)}, given)


@pytest.mark.exhaustive
def test_a_large_cell_is_not_clipped():
    layer = layers.LSTM(U, return_sequences=True)
    function = function_of(layer, masked=False)
    kernel, recurrent_kernel, bias = (np.zeros(weight.shape, "float32") for weight in layer.weights)
    bias[: 2 * U] = 20  # i and f are open
    kernel[0, 2 * U : 3 * U] = 20  # g is the sign of the first feature
    kernel[1, U : 2 * U] = -21  # the second feature halves c, or so
    for weight, value in zip(layer.weights, (kernel, recurrent_kernel, bias), strict=True):
        weight.assign(value)
    length = 40
    x = np.zeros((B, length, D), "float32")
    x[:, :30, 0], x[:, 30:, 1] = 1, 1  # c rises to 30 and falls
    file = convert(function, specs(length=length))
    assert FUSED in operations(file)
    assert_agrees(file, function, [{"x": x, "mask": np.ones((B, length), bool)}])
    found = function(x=x, mask=None)["y0"].numpy()[0, :, 0]
    assert found[31] > 2 * found[39] > 0


def test_a_layer_that_was_trained_with_cudnn_is_converted():
    layer = layers.LSTM(U, use_cudnn=True)
    function = function_of(layer)
    for length, kept in ((T, False), (None, True)):
        found = operations(convert(function, specs(length=length)))
        assert (FUSED in found) is not kept
        layer.use_cudnn = False
        assert_agrees(convert(function, specs(length=length)), function, requests()[:1])
        layer.use_cudnn = True


KEPT = {
    "states": (layers.LSTM(U, return_sequences=True, return_state=True), specs()),
    "use_cudnn": (layers.LSTM(U, use_cudnn=False), specs()),
    "activation": (layers.LSTM(U, activation="relu"), specs()),
    "peepholes": (layers.PeepholeLSTM(U), specs()),
    "length": (layers.LSTM(U), specs(length=None)),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KEPT)
def test_other_layers_keep_their_loop(name):
    layer, signature = KEPT[name]
    function = function_of(layer)
    file = convert(function, signature)
    assert FUSED not in operations(file)
    assert_agrees(file, function, requests()[:2])


@pytest.mark.exhaustive
def test_a_layer_in_a_loop_keeps_its_own():
    layer = layers.LSTM(D, return_sequences=True)
    function_of(layer)

    def function(x, mask):
        x = tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, layer(x, mask=mask)), (0, x))[1]
        return {"y": x}

    file = convert(function, specs())
    assert FUSED not in operations(file)
    assert_agrees(file, function, requests()[:2])


@pytest.mark.exhaustive
def test_one_step_needs_no_loop():
    layer = layers.PeepholeLSTM(U, return_state=True)
    layer.build((1, 1, D))

    def function(x, h, c):
        y, *states = layer(x, initial_state=[h, c])
        return {"y": y, "h": states[0], "c": states[1]}

    signature = {"x": tf.TensorSpec([1, 1, D])}
    signature |= {name: tf.TensorSpec([1, U]) for name in "hc"}
    file = convert(function, signature)
    assert not {"WHILE", "IF"} & set(operations(file))
    random = np.random.default_rng(0)
    given = {name: random.normal(size=spec.shape) for name, spec in signature.items()}
    assert_agrees(file, function, [{name: x.astype("float32") for name, x in given.items()}])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("quantize", "share", "tolerance"), [("int8", 0.3, 0.02), ("float16", 0.55, 1e-3)]
)
def test_quantized_weights_are_smaller_and_close_to_the_others(quantize, share, tolerance):
    layer = keras.layers.Bidirectional(layers.LSTM(128))
    layer.build((1, 30, 64))

    def function(x, mask):
        return {"y": layer(x, mask=mask)}

    signature = {"x": tf.TensorSpec([1, 30, 64]), "mask": tf.TensorSpec([1, 30], tf.bool)}
    file = convert(function, signature, quantize)
    assert FUSED in operations(file)
    assert len(file) < share * len(convert(function, signature))
    random = np.random.default_rng(0)
    given = {"x": random.normal(size=(1, 30, 64)).astype("float32")}
    for real in (30, 12, 0):
        assert_agrees(file, function, [{**given, "mask": np.arange(30)[None] < real}], tolerance)


def test_an_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="quantize must be one of int8, float16, got 'int4'"):
        convert(lambda x: {"y": x}, {"x": tf.TensorSpec([1])}, "int4")
