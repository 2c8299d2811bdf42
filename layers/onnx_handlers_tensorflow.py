"""Operations of TensorFlow that tf2onnx does not convert, or not precisely: handlers for it.

A handler gets a graph of tf2onnx, the node of an operation, the name of the node, and a list that
is not used. It puts nodes of ONNX in the place of that node.
"""

import numpy as np

from unroll.layers import fused_onnx_tensorflow


def _nodes(graph, node):
    """A function that makes a node with the type of the result of `node`, and returns its output.

    Of its arguments, arrays are constants.
    """
    from onnx import TensorProto
    from tf2onnx.utils import make_name

    def make(op: str, *inputs: str | np.ndarray, **attributes) -> str:
        names = [
            x if isinstance(x, str) else graph.make_const(make_name(node.name), x).output[0]
            for x in inputs
        ]
        dtypes = [TensorProto.BOOL] if op == "Less" else node.output_dtypes[:1]
        made = graph.make_node(op, names, attr=attributes, dtypes=dtypes, skip_conversion=True)
        return made.output[0]

    return make


def _constants(node, *values: float) -> list[np.ndarray]:
    """Numbers of the type of the result of a node."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return [np.array(x, tensor_dtype_to_np_dtype(node.output_dtypes[0])) for x in values]


def _replace(graph, node, result: str) -> None:
    """Replaces a node by a tensor."""
    made = {"outputs": node.output, "dtypes": node.output_dtypes, "shapes": node.output_shapes}
    graph.remove_node(node.name)
    graph.make_node("Identity", [result], skip_conversion=True, **made)


def _reverse(graph, node, name: str, _) -> None:
    """Reverses axes by a slice. tf2onnx transposes the tensor, whose rank it may not know."""
    axes = node.inputs[1].get_tensor_value(as_list=False).ravel().astype(np.int64)
    steps, ends = np.full_like(axes, -1), np.full_like(axes, np.iinfo(np.int64).min)
    make = _nodes(graph, node)
    _replace(graph, node, make("Slice", node.input[0], steps, ends, axes, steps))


def _select(graph, node, name: str, _) -> None:
    """Selects by `Where`. tf2onnx multiplies by 0 and 1, but 0 times infinity is NaN."""
    _replace(graph, node, _nodes(graph, node)("Where", *node.input))


def _floor(graph, node, name: str, _) -> None:
    """The quotient or the remainder of a division that rounds down.

    tf2onnx rounds a quotient of integers to 0.
    """
    from onnx import TensorProto

    x, y = node.input
    make = _nodes(graph, node)
    is_quotient = node.type == "FloorDiv"
    if node.output_dtypes[0] in (TensorProto.INT32, TensorProto.INT64):
        result = make("Mod", x, y)
        if is_quotient:
            result = make("Div", make("Sub", x, result), y)
    elif is_quotient:
        result = make("Floor", make("Div", x, y))
    else:
        rest = make("Mod", x, y, fmod=1)  # has the sign of x
        differs = make("Less", make("Mul", rest, y), *_constants(node, 0.0))
        result = make("Where", differs, make("Add", rest, y), rest)
    _replace(graph, node, result)


def _expm1(graph, node, name: str, _) -> None:
    """exp(x) - 1 as tanh(x / 2) (exp(x) + 1), which is precise for small x, too."""
    (x,), (half, one) = node.input, _constants(node, 0.5, 1.0)
    make = _nodes(graph, node)
    tanh = make("Tanh", make("Mul", x, half))
    _replace(graph, node, make("Mul", tanh, make("Add", make("Exp", x), one)))


def _log1p(graph, node, name: str, _) -> None:
    """log(1 + x), and where x is in (-1/2, 1/2) 2 artanh(x / (2 + x)), which is precise there."""
    (x,), (half, one, two) = node.input, _constants(node, 0.5, 1.0, 2.0)
    make = _nodes(graph, node)
    small = make("Mul", make("Atanh", make("Div", x, make("Add", x, two))), two)
    large = make("Log", make("Add", x, one))
    is_small = make("Less", make("Abs", x), half)
    _replace(graph, node, make("Where", is_small, small, large))


HANDLERS = {
    "Expm1": _expm1,
    "FloorDiv": _floor,
    "FloorMod": _floor,
    "Log1p": _log1p,
    "ReverseV2": _reverse,
    "SelectV2": _select,
    **dict.fromkeys(fused_onnx_tensorflow.OPERATIONS, fused_onnx_tensorflow.convert),
}
