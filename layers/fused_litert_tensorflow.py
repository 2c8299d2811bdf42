"""LSTMs of fixed shape as one operation of LiteRT, `UNIDIRECTIONAL_SEQUENCE_LSTM`.

The converter makes that operation from a call of a `tf.function` with certain attributes, whose
weights are constants. A function loses such attributes when its variables become constants, so this
takes two steps: while a function is traced, `stand_in` is the LSTM; once the variables are
constants, `with_fused_lstms` replaces it by a call with the attributes.

The operation keeps its state from one invocation of the model to the next, until the interpreter's
`reset_all_variables`. Here each sequence starts with a step that closes all gates, after which the
state is zero whatever it was, unless it is not a number.
"""

import contextlib
import contextvars
import uuid
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

# The graph in which `stand_in` may be used, or None.
_GRAPH = contextvars.ContextVar("graph", default=None)
_OPERATION, _OUTPUT = "BlockLSTMV2", 6  # and the number of its output h
# A row of a kernel with such a weight is for a column of ones and zeros, see `recurrent/fused.py`.
_LARGE = 1e6
_CLOSED = 1e9  # what closes a gate if it is subtracted


@contextlib.contextmanager
def fusing():
    """Uses `stand_in` in the graph that is being traced, though not in its loops and branches."""
    token = _GRAPH.set(tf.compat.v1.get_default_graph())
    try:
        yield
    finally:
        _GRAPH.reset(token)


def obstacle(inputs, states) -> str | None:
    """Why `stand_in` cannot be used for sequences `[B, T, D]`, or None if it can."""
    if _GRAPH.get() is None or tf.compat.v1.get_default_graph() is not _GRAPH.get():
        return "LiteRT's fused LSTM needs a function without a loop around it"
    if not inputs.shape.is_fully_defined() or inputs.shape[1] < 2:
        return "LiteRT's fused LSTM needs a fixed batch size and a fixed length above 1"
    if inputs.dtype != tf.float32:
        return "LiteRT's fused LSTM computes in float32"
    values = [tf.get_static_value(state) for state in states]
    if any(value is None or np.any(value) for value in values):
        return "LiteRT's fused LSTM starts from zeros"
    return None


def stand_in(inputs, states, kernel, recurrent_kernel, bias):
    """An LSTM that `with_fused_lstms` finds. Any function that uses its final c is not converted.

    Args:
        inputs: `[B, T, D]`.
        states: h and c, zeros, `[B, U]` each.
        kernel, recurrent_kernel, bias: `[D, 4U]`, `[U, 4U]` and `[4U]` or None, in Keras's order of
            the gates.

    Returns:
        The outputs `[B, T, U]`, and the final states.
    """
    units = recurrent_kernel.shape[0]
    found = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.constant(inputs.shape[1], tf.int64),
        x=tf.transpose(inputs, [1, 0, 2]),
        cs_prev=states[1],
        h_prev=states[0],
        w=tf.concat([kernel, recurrent_kernel], axis=0),
        wci=tf.zeros([units]),
        wcf=tf.zeros([units]),
        wco=tf.zeros([units]),
        b=tf.zeros([4 * units]) if bias is None else bias,
        cell_clip=0.0,
    )
    return tf.transpose(found.h, [1, 0, 2]), [found.h[-1], found.cs[-1]]


def has_stand_ins(concrete) -> bool:
    """Whether there is a `stand_in` in the graph of a concrete function."""
    return any(each.type == _OPERATION for each in concrete.graph.get_operations())


def with_fused_lstms(frozen) -> Callable | None:
    """A concrete function without variables, with LiteRT's operation for each `stand_in`.

    Args:
        frozen: a concrete function, whose loops are functions: `_import` copies parts of it.

    Returns:
        A function of tensors that returns a list of the outputs, or None where a final c is used,
        which the operation does not return.
    """
    graph = frozen.graph.as_graph_def()
    names = [node.name for node in graph.node if node.op == _OPERATION]
    nested = [node.op for function in graph.library.function for node in function.node_def]
    if _OPERATION in nested or _used_outputs(graph, names) - {_OUTPUT}:
        return None
    outputs = [tensor.name for tensor in frozen.outputs]

    nodes = {node.name: node for node in graph.node}
    names.sort(key=lambda name: sum(n.op == _OPERATION for n in _part(graph, [name])[0].node))
    weights = {name: _evaluate(graph, [nodes[name].input[k] for k in (4, 8)]) for name in names}
    results = {name: f"{name}:{_OUTPUT}" for name in names}
    # The constants of all parts are imported once.
    rest, _ = _part(
        graph, [*outputs, *(nodes[name].input[1] for name in names)], set(results.values())
    )
    constants = [f"{node.name}:0" for node in rest.node if node.op == "Const"]

    def function(*tensors) -> list:
        known = {each.name: x for each, x in zip(frozen.inputs, tensors, strict=True)}
        known |= zip(constants, _import(graph, constants, {}), strict=True)
        for name in names:
            (x,) = _import(graph, [nodes[name].input[1]], known)
            known[results[name]] = _fused(x, *weights[name])
        return _import(graph, outputs, known)

    return function


def _used_outputs(graph, names: list[str]) -> set[int]:
    """The numbers of the outputs of some nodes that others use."""
    used = [each.partition(":") for node in graph.node for each in node.input]
    return {int(number or 0) for name, _, number in used if name in names}


def _import(graph, names: list[str], known: dict) -> list:
    """The tensors `names` of a graph, in the graph that is being traced.

    Args:
        graph: a `GraphDef`.
        names: of the tensors.
        known: tensors that are there already, by their names in `graph`.
    """
    names = list(map(_full, names))
    part, used = _part(graph, [name for name in names if name not in known], known)
    given = {name: known[name] for name in used}
    missing = [name for name in names if name not in known]
    found = tf.graph_util.import_graph_def(part, input_map=given, return_elements=missing)
    found = known | dict(zip(missing, found, strict=True))
    return [found[name] for name in names]


def _part(graph, names: list[str], known: Collection[str] = ()) -> tuple:
    """The part of a graph that tensors or nodes depend on, up to known tensors.

    Returns:
        A `GraphDef`, and the names of the known tensors that it uses.
    """
    nodes = {node.name: node for node in graph.node}
    needed, used, waiting = set(), set(), [_node_of(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        for each in nodes[name].input:
            if _full(each) in known:
                used.add(_full(each))
            else:
                waiting.append(_node_of(each))
    part = tf.compat.v1.GraphDef(versions=graph.versions, library=graph.library)
    part.node.extend(node for node in graph.node if node.name in needed)
    return part, used


def _full(name: str) -> str:
    """The name of a tensor with the number of the output, or that of a control input."""
    return name if ":" in name or name.startswith("^") else f"{name}:0"


def _node_of(name: str) -> str:
    """The name of the node of a tensor, or of a control input."""
    return name.partition(":")[0].removeprefix("^")


def _evaluate(graph, names: list[str]) -> list[np.ndarray]:
    """The values of tensors that depend on constants alone."""
    function = tf.compat.v1.wrap_function(lambda: _import(graph, names, {}), [])
    return [value.numpy() for value in function()]


def _fused(x, weights: np.ndarray, bias: np.ndarray):
    """The outputs `[T, B, U]` of LiteRT's operation for `[T, B, D]`.

    One scale applies to all int8 weights of a matrix. So the weights that close gates are as small
    as the others, and their inputs are large.
    """
    length, batch, size = x.shape
    units = len(bias) // 4
    kernel, recurrent_kernel = weights[:size], weights[size:]
    is_large = np.max(np.abs(kernel), axis=1) > _LARGE
    largest = max(np.max(np.abs(kernel[~is_large]), initial=0.0), 1e-3)
    scales = np.where(is_large, _CLOSED / largest, 1.0).astype("float32")
    reset = np.repeat(np.float32([-1, -1, 0, -1]) * largest, units)
    kernel = np.concatenate([kernel / scales[:, None], reset[None]]).astype("float32")
    first = np.zeros([1, batch, size + 1], "float32")
    first[..., size] = _CLOSED / largest
    x = x * scales if is_large.any() else x
    x = tf.concat([first, tf.pad(x, [[0, 0], [0, 0], [0, 1]])], axis=0)

    # The converter looks for these attributes, and replaces the function.
    attributes = {
        "api_implements": f"lstm_{uuid.uuid4()}",
        "api_preferred_device": "CPU",
        "time_major": True,
        "go_backwards": False,
    }

    @tf.function(autograph=False, experimental_attributes=attributes)
    def lstm(x, h, c, kernel, recurrent_kernel, bias):
        z = tf.matmul(tf.reshape(x, [-1, size + 1]), kernel) + bias
        outputs = tf.reshape(z, [length + 1, batch, 4 * units])[..., :units]
        return outputs[-1], outputs, h + tf.reduce_sum(recurrent_kernel), c, tf.constant(1.0)

    zeros = tf.zeros([batch, units])
    return lstm(x, zeros, zeros, kernel, recurrent_kernel, bias)[1][1:]
