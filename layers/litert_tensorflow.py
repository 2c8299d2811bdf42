"""Conversion of a TensorFlow function to a LiteRT model of built-in operations."""

import contextlib
import functools
import struct
import tempfile

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from unroll.layers.fused_litert_tensorflow import fusing, has_stand_ins, with_fused_lstms
from unroll.layers.scan_tensorflow import builtin_ops

# The types of weights in a file, besides float32.
QUANTIZED = ("int8", "float16")


def convert(
    function: tf.types.experimental.PolymorphicFunction,
    signature: dict,
    quantize: str | None = None,
    fuse: bool = True,
) -> bytes:
    """Converts a function to a LiteRT (TFLite) model with dynamic shapes and without Flex.

    Where the batch size and the length of the sequences are fixed, an `LSTM` with default
    activations and zeros as its initial state becomes one operation, also with a mask, unless its
    final c is used or it has `use_cudnn=False`. It is faster than a loop. If its input is not a
    number, neither is its state, until the interpreter's `reset_all_variables`.

    Args:
        function: a Python function or `tf.function` that takes named tensors and returns a dict of
            tensors. Its variables become constants of the model.
        signature: the `tf.TensorSpec` of each argument by name. A `None` in a shape stays dynamic:
            call `resize_tensor_input`, or the signature runner, with any size.
        quantize: the type of the weights in the file. With "float16" they have half the size;
            computations are in float32. With "int8" they have a quarter of it, and products are of
            integers: an input of a product is quantized when it is computed ("dynamic range").
            Weights in loops stay float32. By default all weights do.
        fuse: whether such an `LSTM` becomes one operation. It keeps its state in a variable tensor,
            which LiteRT.js, the runtime for browsers, does not support.

    Returns:
        The bytes of the file. Its only signature is `serving_default`, with the names of the
        arguments and results.

    Raises:
        ValueError: if an argument or a result is a string, which has no built-in operations, if the
            function changes variables, as a stateful layer does, or if `quantize` is unknown.

    >>> import keras
    >>> from unroll import layers
    >>> model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    >>> file = convert(lambda x: {"y": model(x)}, {"x": tf.TensorSpec([None, None, 3])})
    >>> file[4:8]
    b'TFL3'
    """
    return _to_file({"serving_default": _frozen(function, signature, fuse)}, quantize)


def convert_functions(
    functions: dict[str, tf.types.experimental.PolymorphicFunction],
    quantize: str | None = None,
    fuse: bool = True,
) -> bytes:
    """Converts several functions to one LiteRT model, as `convert`.

    Args:
        functions: by the name of a signature, a `tf.function` with an `input_signature` of named
            specs that returns a dict of tensors. Variables that several of them use are in the file
            once.
        quantize: as of `convert`.
        fuse: as of `convert`.

    Returns:
        The bytes of the file: `Interpreter(...).get_signature_runner(name)` runs a function.

    Raises:
        ValueError: as `convert`.
    """
    specs = {
        name: {spec.name: spec for spec in function.input_signature}
        for name, function in functions.items()
    }
    frozen = {name: _frozen(functions[name], specs[name], fuse) for name in functions}
    return _to_file(frozen, quantize)


def _frozen(
    function, signature: dict, fuse: bool = True
) -> tf.types.experimental.PolymorphicFunction:
    """A function of built-in operations whose variables are constants.

    Args:
        function: as of `convert`.
        signature: likewise.
        fuse: whether LSTMs of fixed shape become one operation, if that is possible.
    """
    specs = {
        name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in signature.items()
    }
    inner = getattr(function, "python_function", function)

    @functools.wraps(inner)
    def traced(*args, **kwargs):
        with fusing() if fuse else contextlib.nullcontext():
            return inner(*args, **kwargs)

    with builtin_ops():
        concrete = tf.function(traced, autograph=False).get_concrete_function(**specs)
    for name, tensor in (*specs.items(), *concrete.structured_outputs.items()):
        if tensor.dtype == tf.string:
            raise ValueError(f"LiteRT has no strings, got the string {name!r}: use token ids.")
    require_no_assignments(concrete.graph.as_graph_def(), "A LiteRT model")
    fused = has_stand_ins(concrete)
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=not fused)
    names = sorted(concrete.structured_outputs)  # tf.nest flattens a dict in this order
    final = with_fused_lstms(frozen) if fused else frozen
    if final is None:
        return _frozen(function, signature, fuse=False)

    @tf.function(input_signature=list(specs.values()), autograph=False)
    def named(*tensors):
        return dict(zip(names, tf.nest.flatten(final(*tensors)), strict=True))

    return named


def _to_file(
    signatures: dict[str, tf.types.experimental.PolymorphicFunction], quantize: str | None
) -> bytes:
    if quantize not in (None, *QUANTIZED):
        raise ValueError(f"quantize must be one of {', '.join(QUANTIZED)}, got {quantize!r}.")
    # The converter writes the names of a signature only if it reads a SavedModel.
    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        no_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, signatures=signatures, options=no_gradients)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return _without_clipping(converter.convert())


def require_no_assignments(graph: tf.compat.v1.GraphDef, model: str) -> None:
    """Raises a `ValueError` if a graph changes variables: in `model` they are constants."""
    functions = [function.node_def for function in graph.library.function]
    nodes = [node for nodes in (graph.node, *functions) for node in nodes]
    if any(node.op.startswith("Assign") and node.op.endswith("VariableOp") for node in nodes):
        raise ValueError(
            f"{model} has no state, but the function changes variables. Replace a stateful "
            "recurrent layer by one with stateful=False, return_state=True and initial_state."
        )


def _without_clipping(model: bytes) -> bytes:
    """A LiteRT file in which no fused LSTM clips its c, as the converter has it at 10."""
    model = bytearray(model)
    root = schema.Model.GetRootAs(model, 0)
    for i in range(root.SubgraphsLength()):
        subgraph = root.Subgraphs(i)
        for k in range(subgraph.OperatorsLength()):
            operator = subgraph.Operators(k)
            kind = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
            if operator.BuiltinOptionsType() == kind:
                table = operator.BuiltinOptions()
                offset = table.Offset(6)  # of the second field, `cell_clip`
                if offset:
                    struct.pack_into("<f", model, table.Pos + offset, 0.0)
    return bytes(model)
