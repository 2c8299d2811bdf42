"""From a TensorFlow function to a LiteRT model that runs on built-in ops alone."""

import tempfile

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from unroll.layers.backend_tensorflow import builtin_ops


def convert(function: tf.types.experimental.PolymorphicFunction, signature: dict) -> bytes:
    """The LiteRT (TFLite) flat buffer of a function, with dynamic shapes and without Flex.

    Args:
        function: a Python function or `tf.function` of named tensors that returns a dict of
            tensors; its variables are frozen into the file.
        signature: the `tf.TensorSpec` of each argument by name. A `None` in a shape stays
            dynamic: call `resize_tensor_input` (or the signature runner) with any size.

    Returns:
        The file's bytes. Its one signature is `serving_default`, with the names given.

    Raises:
        ValueError: if an argument or a result is a string, which LiteRT's built-in ops lack.

    >>> import keras
    >>> from unroll import layers
    >>> model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    >>> file = convert(lambda x: {"y": model(x)}, {"x": tf.TensorSpec([None, None, 3])})
    >>> file[4:8]
    b'TFL3'
    """
    specs = {
        name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in signature.items()
    }
    inner = getattr(function, "python_function", function)
    with builtin_ops():
        concrete = tf.function(inner, autograph=False).get_concrete_function(**specs)
    for name, tensor in (*specs.items(), *concrete.structured_outputs.items()):
        if tensor.dtype == tf.string:
            raise ValueError(f"LiteRT has no strings, and {name!r} is one: use token ids instead.")
    frozen = convert_variables_to_constants_v2(concrete)
    names = sorted(concrete.structured_outputs)  # the order in which tf.nest flattens a dict

    @tf.function(input_signature=list(specs.values()), autograph=False)
    def named(*tensors):
        return dict(zip(names, tf.nest.flatten(frozen(*tensors)), strict=True))

    # Only by way of a SavedModel does the converter write the names of a signature.
    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        no_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, signatures=named, options=no_gradients)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
