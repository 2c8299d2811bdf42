"""Conversion of a TensorFlow function to a LiteRT model of built-in operations."""

import tempfile

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from unroll.layers.backend_tensorflow import builtin_ops


def convert(function: tf.types.experimental.PolymorphicFunction, signature: dict) -> bytes:
    """Converts a function to a LiteRT (TFLite) model with dynamic shapes and without Flex.

    Args:
        function: a Python function or `tf.function` that takes named tensors and returns a dict of
            tensors. Its variables become constants of the model.
        signature: the `tf.TensorSpec` of each argument by name. A `None` in a shape stays dynamic:
            call `resize_tensor_input`, or the signature runner, with any size.

    Returns:
        The bytes of the file. Its only signature is `serving_default`, with the names of the
        arguments and results.

    Raises:
        ValueError: if an argument or a result is a string, which has no built-in operations, or if
            the function changes variables, as a stateful layer does.

    >>> import keras
    >>> from unroll import layers
    >>> model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    >>> file = convert(lambda x: {"y": model(x)}, {"x": tf.TensorSpec([None, None, 3])})
    >>> file[4:8]
    b'TFL3'
    """
    return _to_file({"serving_default": _frozen(function, signature)})


def convert_functions(functions: dict[str, tf.types.experimental.PolymorphicFunction]) -> bytes:
    """Converts several functions to one LiteRT model, as `convert`.

    Args:
        functions: by the name of a signature, a `tf.function` with an `input_signature` of named
            specs that returns a dict of tensors. Variables that several of them use are in the file
            once.

    Returns:
        The bytes of the file: `Interpreter(...).get_signature_runner(name)` runs a function.

    Raises:
        ValueError: as `convert`.
    """
    specs = {
        name: {spec.name: spec for spec in function.input_signature}
        for name, function in functions.items()
    }
    return _to_file({name: _frozen(functions[name], specs[name]) for name in functions})


def _frozen(function, signature: dict) -> tf.types.experimental.PolymorphicFunction:
    """A function of built-in operations whose variables are constants."""
    specs = {
        name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in signature.items()
    }
    inner = getattr(function, "python_function", function)
    with builtin_ops():
        concrete = tf.function(inner, autograph=False).get_concrete_function(**specs)
    for name, tensor in (*specs.items(), *concrete.structured_outputs.items()):
        if tensor.dtype == tf.string:
            raise ValueError(f"LiteRT has no strings, got the string {name!r}: use token ids.")
    _assert_constant(concrete.graph.as_graph_def())
    frozen = convert_variables_to_constants_v2(concrete)
    names = sorted(concrete.structured_outputs)  # tf.nest flattens a dict in this order

    @tf.function(input_signature=list(specs.values()), autograph=False)
    def named(*tensors):
        return dict(zip(names, tf.nest.flatten(frozen(*tensors)), strict=True))

    return named


def _to_file(signatures: dict[str, tf.types.experimental.PolymorphicFunction]) -> bytes:
    # The converter writes the names of a signature only if it reads a SavedModel.
    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        no_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, signatures=signatures, options=no_gradients)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()


def _assert_constant(graph):
    """Raises a `ValueError` if a graph changes variables: in a LiteRT model they are constants."""
    functions = [function.node_def for function in graph.library.function]
    nodes = [node for nodes in (graph.node, *functions) for node in nodes]
    if any(node.op.startswith("Assign") and node.op.endswith("VariableOp") for node in nodes):
        raise ValueError(
            "A LiteRT model has no state, but the function changes variables. Replace a stateful "
            "recurrent layer by one with stateful=False, return_state=True and initial_state."
        )
