"""The ONNX files of an export: one for each function, because a model of ONNX has one."""

import importlib.util

import numpy as np

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

    They are those of the LiteRT file, with a dynamic batch size. Where a function of the same name
    is exported to TF Serving, it is that one, which takes several rows. A function of LiteRT alone
    whose shapes are all fixed is not among them: there is another one of dynamic shapes.
    """
    found = {name: service.functions.get(name, each) for name, each in service.litert.items()}
    return {name: each for name, each in found.items() if litert.is_dynamic(each)}


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


def requests(service: Service, batches: list[dict]) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """The requests that the files are tested with: triples of artifact, signature and inputs.

    They are the examples, and the first batch of them repeated to each of `litert.SHAPES`.

    Args:
        service: the functions.
        batches: the requests of each batch of examples, by signature name.
    """
    found = []
    for name, function in functions(service).items():
        given = [each[name] for each in batches]
        specs = function.input_signature
        given += [litert.tiled(given[0], specs, shape) for shape in litert.SHAPES]
        found += [("onnx", name, each) for each in given]
    return found
