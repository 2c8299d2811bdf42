"""Recurrent layers as one node of ONNX: `LSTM`, `GRU` or `RNN`.

While a function is traced, `stand_in` is the layer: an operation of cuDNN, because that has the
inputs and outputs of the node, and TensorFlow knows their shapes. It is not executed. tf2onnx calls
`convert` for it.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from unroll.layers.fused_cudnn_tensorflow import flat_weights

# For each kernel, the node and its attributes, and the numbers of Keras's gates in the order of
# ONNX: i, f, g, o of an LSTM are i, o, f, c there, and z, r, g of a GRU are z, r, h.
_NODES = {
    "lstm": ("LSTM", {}, (0, 3, 1, 2)),
    "gru": ("GRU", {"linear_before_reset": 1}, (0, 1, 2)),
    "rnn_tanh": ("RNN", {"activations": ["Tanh"]}, (0,)),
    "rnn_relu": ("RNN", {"activations": ["Relu"]}, (0,)),
}
OPERATIONS = ("CudnnRNNV2", "CudnnRNNV3")  # without and with lengths


def obstacle(inputs) -> str | None:
    """Why `stand_in` cannot be used for sequences `[B, T, D]`, or None if it can."""
    if inputs.dtype != tf.float32:
        return "ONNX Runtime's recurrent nodes compute in float32"
    return None


def stand_in(kind: str, inputs, states, kernel, recurrent_kernel, bias, lengths=None):
    """The operation that `convert` replaces by a node.

    ONNX Runtime fails without a sequence or a step. So there is a sequence of one step where there
    is none.

    Args:
        kind: as in `backend_torch.fused_recurrence`.
        inputs: `[B, T, D]`.
        states: the initial states, `[B, U]` each.
        kernel, recurrent_kernel, bias: in the layout of Keras; the bias may be None.
        lengths: `[B]`, int32, or None.

    Returns:
        The outputs `[B, T, U]`, which are 0 after the end of a sequence, and the final states.
    """
    units, features = recurrent_kernel.shape[0], kernel.shape[0]
    batch, steps = tf.unstack(tf.shape(inputs)[:2])
    more_rows, more_steps = (tf.maximum(1 - n, 0) for n in (batch, steps))
    sequences = tf.pad(inputs, [[0, more_rows], [0, more_steps], [0, 0]])
    sequences = tf.ensure_shape(sequences, [None, None, features])
    start = [
        tf.ensure_shape(tf.pad(state, [[0, more_rows], [0, 0]])[None], [1, None, units])
        for state in states
    ]
    operation = tf.raw_ops.CudnnRNNV2
    if lengths is not None:
        lengths = tf.pad(lengths, [[0, more_rows]])
        operation = functools.partial(tf.raw_ops.CudnnRNNV3, sequence_lengths=lengths)
    found = operation(
        input=tf.transpose(sequences, [1, 0, 2]),
        input_h=start[0],
        input_c=start[-1],
        params=flat_weights(_NODES[kind][2], kernel, recurrent_kernel, bias),
        rnn_mode=kind,
        is_training=False,
    )
    outputs = tf.transpose(found.output, [1, 0, 2])[:batch, :steps]
    outputs = tf.ensure_shape(outputs, [*inputs.shape[:2], units])
    is_empty = steps == 0 if lengths is None else (lengths == 0)[:batch, None]
    final = [
        tf.ensure_shape(tf.where(is_empty, first, last[0, :batch]), first.shape)
        for first, last in zip(states, (found.output_h, found.output_c), strict=False)
    ]
    return outputs, final


def convert(graph, operation, name: str, _) -> None:
    """Replaces a `stand_in` of a graph of tf2onnx by a node."""
    from tf2onnx.utils import make_name

    sequences, h, c, weights, *lengths = operation.input
    node, attributes, order = _NODES[operation.get_attr_str("rnn_mode")]
    features, units = graph.get_shape(sequences)[-1], graph.get_shape(h)[-1]
    shapes, dtype = operation.output_shapes, operation.output_dtypes[0]
    results = list(zip(operation.output, shapes, strict=True))
    graph.remove_node(operation.name)

    def constant(values: list[int]) -> str:
        return graph.make_const(make_name(name), np.array(values, np.int64)).output[0]

    def make(op: str, inputs: list[str], **options) -> list[str]:
        return graph.make_node(op, inputs, skip_conversion=True, **options).output

    rows = len(order) * units
    shapes = [[1, rows, features], [1, rows, units], [1, 2 * rows]]
    sizes = constant([math.prod(shape) for shape in shapes])
    parts = make("Split", [weights, sizes], attr={"axis": 0}, output_count=3)
    reshaped = [
        make("Reshape", [part, constant(shape)])[0]
        for part, shape in zip(parts, shapes, strict=True)
    ]
    count = 3 if node == "LSTM" else 2
    made = make(
        node,
        [sequences, *reshaped, *(lengths or [""]), h, *([c] if node == "LSTM" else [])],
        attr={**attributes, "hidden_size": units},
        output_count=count,
        dtypes=[dtype] * count,
    )
    inputs = [[made[0], constant([1])], *([state] for state in made[1:])]
    ops = ["Squeeze", "Identity", "Identity"][:count]
    for op, given, (result, shape) in zip(ops, inputs, results[:count], strict=True):
        make(op, given, outputs=[result], shapes=[shape], dtypes=[dtype])
