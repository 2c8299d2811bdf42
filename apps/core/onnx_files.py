"""The ONNX files of an export: one for each function, because a model of ONNX has one."""

import importlib.util

import numpy as np
import tensorflow as tf

from unroll.apps.core import litert, parity
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service
from unroll.layers.onnx_tensorflow import convert, result_name

PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def require_packages() -> None:
    """Raises a `UsageError` if a package is missing, with the command that installs it."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--formats=onnx needs the package {name}: pip install 'unroll-keras[onnx]'."
            )


def functions(service: Service) -> dict:
    """The functions of a service that ONNX files contain, by name.

    They are those of the LiteRT file, and each takes any number of rows. `<name>_fixed` is not
    among them: it is the function `<name>` in the shapes that LiteRT needs to run it faster.
    """
    fixed = {f"{name}_fixed" for name in service.litert}
    return {name: _of_any_batch(f) for name, f in service.litert.items() if name not in fixed}


def _of_any_batch(function):
    if litert.is_dynamic(function):
        return function
    specs = [
        tf.TensorSpec([None, *spec.shape[1:]] if spec.shape.rank else [], spec.dtype, spec.name)
        for spec in function.input_signature
    ]
    return tf.function(function.python_function, input_signature=specs, autograph=False)


def content(function) -> bytes:
    """The bytes of the file of a function."""
    return convert(function, {spec.name: spec for spec in function.input_signature})


def describe(name: str, signature: dict) -> dict:
    """A function for the manifest: its file, and its inputs and outputs by their names there.

    Args:
        name: of the function.
        signature: its inputs and outputs.
    """
    outputs = {
        result_name(each, signature["inputs"]): value
        for each, value in signature["outputs"].items()
    }
    return {"file": parity.onnx_file(name), "inputs": signature["inputs"], "outputs": outputs}


def requests(made: dict, batches: list[dict]) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """The requests that the files are tested with: triples of artifact, signature and inputs.

    They are the examples, and the first batch of them repeated to each of `litert.SHAPES`.

    Args:
        made: the `functions` of the files.
        batches: the requests of each batch of examples, by signature name.
    """
    found = []
    for name, function in made.items():
        given = [each[name] for each in batches]
        specs = function.input_signature
        given += [litert.tiled(given[0], specs, shape) for shape in litert.SHAPES]
        found += [("onnx", name, each) for each in given]
    return found
