"""`PeepholeLSTM` against the LSTM of ONNX Runtime with peepholes, in one and in both directions."""

from functools import cache

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.properties.common import FIFTY, SEEDS, given, lengths, st
from unroll import layers

onnx = pytest.importorskip("onnx", reason="ONNX Runtime, the oracle, reads ONNX models")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is the oracle")

# Sums of about ten float32 products, over at most nine steps.
TOLERANCE = 1e-5
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


@st.composite
def cases(draw):
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    return {
        "time": time,
        "lengths": draw(lengths(batch, time)),
        "features": draw(st.integers(1, 5)),
        "units": draw(st.integers(1, 6)),
        "directions": draw(st.integers(1, 2)),
        "seed": draw(SEEDS),
    }


@FIFTY
@given(case=cases())
def test_outputs_and_states(case):
    units, directions, size = case["units"], case["directions"], case["lengths"]
    rng = np.random.default_rng(case["seed"])

    def normal(*shape):
        return rng.normal(size=shape).astype("float32")

    layer = layers.PeepholeLSTM(
        units, return_sequences=True, return_state=True, zero_output_for_mask=True
    )
    if directions == 2:
        layer = keras.layers.Bidirectional(layer)
    batch, time, features = len(size), case["time"], case["features"]
    layer.build((batch, time, features))
    layer.set_weights([normal(*w.shape) for w in layer.weights])
    inputs, h, c = (
        normal(batch, time, features),
        normal(directions, batch, units),
        normal(directions, batch, units),
    )
    kernel, recurrent, bias, peepholes = (
        np.stack(layer.get_weights()[k::4]) for k in range(4)
    )  # [directions, ...] each
    given = {
        "X": inputs.transpose(1, 0, 2),
        "W": by_gate(kernel).swapaxes(1, 2),
        "R": by_gate(recurrent).swapaxes(1, 2),
        "B": np.concatenate([by_gate(bias), np.zeros_like(bias)], axis=-1),
        "sequence_lens": size.astype("int32"),
        "initial_h": h,
        "initial_c": c,
        "P": peepholes[:, [0, 2, 1]].reshape(directions, -1),  # of i, o, f
    }
    outputs, *final = session(units, directions).run(None, given)
    outputs = outputs.transpose(2, 0, 1, 3).reshape(batch, time, -1)
    expected = [outputs, *(state[k] for k in range(directions) for state in final)]
    mask = np.arange(time) < size[:, None]
    states = [state[k] for k in range(directions) for state in (h, c)]
    assert_near(running.outputs(layer, inputs, states, mask), expected, TOLERANCE)


def by_gate(x):
    """The columns of i, f, g, o in the order of ONNX: i, o, f, g."""
    i, f, g, o = np.split(x, 4, axis=-1)
    return np.ascontiguousarray(np.concatenate([i, o, f, g], axis=-1))


@cache
def session(units: int, directions: int):
    """An LSTM in ONNX Runtime for sequences of any size."""
    types = dict.fromkeys(INPUTS, onnx.TensorProto.FLOAT)
    types["sequence_lens"] = onnx.TensorProto.INT32
    names = ("Y", "Y_h", "Y_c")
    node = onnx.helper.make_node(
        "LSTM",
        INPUTS,
        names,
        hidden_size=units,
        direction="bidirectional" if directions == 2 else "forward",
    )

    def declared(name, type=onnx.TensorProto.FLOAT):  # noqa: A002
        return onnx.helper.make_tensor_value_info(name, type, None)

    graph = onnx.helper.make_graph(
        [node],
        "lstm",
        [declared(name, type) for name, type in types.items()],  # noqa: A001
        [declared(name) for name in names],
    )
    opset = [onnx.helper.make_opsetid("", 14)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)
