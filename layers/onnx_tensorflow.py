"""Conversion of a TensorFlow function to an ONNX model."""

import contextlib
import logging
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from unroll.layers.litert_tensorflow import require_no_assignments
from unroll.layers.onnx_handlers_tensorflow import HANDLERS
from unroll.layers.scan_tensorflow import onnx_ops

OPSET = 18


def convert(function: tf.types.experimental.PolymorphicFunction, signature: dict) -> bytes:
    """Converts a function to an ONNX model with dynamic shapes, for ONNX Runtime.

    It needs tf2onnx: `pip install 'unroll-keras[onnx]'`. An `LSTM`, a `GRU` with `reset_after`, an
    `ElmanRNN` and an `IRNN` with their default activations become nodes `LSTM`, `GRU` and `RNN` of
    ONNX, also with a mask. With `use_cudnn=False` they become a `Loop`, as all other recurrent
    layers, decoders and searches do.

    Args:
        function: a Python function or `tf.function` that takes named tensors and returns a dict of
            tensors. Its variables become constants of the model.
        signature: the `tf.TensorSpec` of each argument by name. A `None` in a shape stays dynamic.

    Returns:
        The bytes of the file. Its inputs and outputs have the names of the arguments and results,
        except that a result with the name of an argument is called `next_<name>`.

    Raises:
        ImportError: if tf2onnx is not installed.
        ValueError: if an operation has no counterpart in ONNX, or the function changes variables,
            as a stateful layer does.
    """
    try:
        import onnx
        from tf2onnx import optimizer, tf_loader, tfonnx
    except ImportError as error:
        command = "pip install 'unroll-keras[onnx]'"
        raise ImportError(f"ONNX needs {error.name}: {command}", name=error.name) from None

    specs = {name: tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in signature.items()}
    inner = getattr(function, "python_function", function)
    with onnx_ops():
        concrete = tf.function(inner, autograph=False).get_concrete_function(**specs)
    require_no_assignments(concrete.graph.as_graph_def(), "An ONNX model")
    arguments = tf.nest.flatten(concrete.structured_input_signature)
    arguments = [x for x in arguments if isinstance(x, tf.TensorSpec)]
    # The inputs after the arguments are variables and constants.
    inputs = {x.name: spec.name for x, spec in zip(concrete.inputs, arguments, strict=False)}
    outputs = {
        tensor.name: result_name(name, signature)
        for name, tensor in concrete.structured_outputs.items()
    }
    frozen = _frozen(concrete)
    ends = {"input_names": list(inputs), "output_names": list(outputs)}
    with tf.Graph().as_default() as graph, tf.device("/cpu:0"), _errors() as errors:
        tf.import_graph_def(tf_loader.tf_optimize(*ends.values(), frozen), name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            custom_op_handlers={op: (handler, []) for op, handler in HANDLERS.items()},
            tensors_to_rename=inputs | outputs,
            continue_on_error=True,
            **ends,
        )
        model = optimizer.optimize_graph(converted).make_model("Converted by Unroll")
    missing = {node.op_type for node in _nodes(model.graph) if not onnx.defs.has(node.op_type)}
    if missing:
        raise ValueError(f"ONNX has no counterpart of {', '.join(sorted(missing))}.")
    if errors:
        raise ValueError(f"tf2onnx failed: {errors[0]}")
    _allow_zero(model.graph)
    return model.SerializeToString()


def result_name(name: str, arguments) -> str:
    """The name of a result in the ONNX model, where it must differ from those of the arguments.

    >>> result_name("state_0", ["token", "state_0"])
    'next_state_0'
    """
    return f"next_{name}" if name in arguments else name


def _frozen(concrete) -> tf.compat.v1.GraphDef:
    """The graph of a function whose variables and captured tensors are constants."""
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    graph = frozen.graph.as_graph_def(add_shapes=True)
    captured = {inner.op.name: outer for outer, inner in concrete.graph.captures}
    for node in graph.node:
        if node.op == "Placeholder" and node.name in captured:
            node.op = "Const"
            del node.attr["shape"]
            value = tf.make_tensor_proto(captured[node.name].numpy())
            node.attr["value"].tensor.CopyFrom(value)
    return graph


@contextlib.contextmanager
def _errors() -> Iterator[list[str]]:
    """The errors that tf2onnx logs, because it goes on after them. Its other messages are lost."""
    found = []

    class Collector(logging.Handler):
        def emit(self, record):
            reason = record.exc_info and record.exc_info[1]
            found.append(" ".join(str(reason or record.getMessage()).split()))

    logger, collector = logging.getLogger("tf2onnx"), Collector(logging.ERROR)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate


def _nodes(graph) -> Iterator:
    """The nodes of an ONNX graph, and of the loops and branches in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _allow_zero(graph, constants: frozenset[str] = frozenset()) -> None:
    """Lets a computed size of 0 in a new shape be 0.

    By default, it is the size of the same axis of the input, which tf2onnx uses in constants.

    Args:
        constants: the names of those of the graphs around this one.
    """
    from onnx.helper import make_attribute

    own = {each.name for each in graph.initializer}
    constants |= own | {node.output[0] for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in constants:
            node.attribute.append(make_attribute("allowzero", 1))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _allow_zero(attribute.g, constants)
