"""The LiteRT files of an export: dynamic and fixed shapes, float32 and quantized weights."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from unroll.apps.core import parity
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import encode_assets, encode_json
from unroll.apps.core.litert_metadata import pack
from unroll.apps.core.protocol import Assets, Service
from unroll.layers.litert_tensorflow import QUANTIZED, convert_functions

# Of a file with quantized weights: the difference of a float that is allowed, relative to the
# largest value of the output if that is above 1, and the share of the integers that may differ.
TOLERANCES = {"float16": (0.01, 0.05), "int8": (0.1, 0.2)}
# Batch sizes and lengths that a file of dynamic shapes is tested with, besides the examples.
SHAPES = ((1, 7), (3, 60), (5, 200))


@dataclass(frozen=True)
class File:
    """One LiteRT file of an export.

    Attributes:
        functions: by signature name.
        shape: the sizes of the dynamic axes of the inputs, or `None` if they stay dynamic.
        quantize: the type of the weights in the file, or `None` for float32.
        fuse: whether LSTMs of fixed shape become one operation.
    """

    functions: dict
    shape: tuple[int, ...] | None = None
    quantize: str | None = None
    fuse: bool = True

    @property
    def artifact(self) -> str:
        """Its name in the manifest, such as `litert-1x50-int8`."""
        shape = self.shape and "x".join(map(str, self.shape))
        return "-".join(["litert", *filter(None, [shape, self.quantize])])

    @property
    def name(self) -> str:
        """Its name in the folder, such as `model-1x50-int8.tflite`."""
        return parity.litert_file(self.artifact)

    def content(self, name: str, assets: Assets, signatures: dict) -> bytes:
        """The bytes of the file. It contains the assets: see `litert_metadata.pack`.

        Args:
            name: of the model.
            assets: of the app.
            signatures: those of the functions of dynamic shapes, by name. With the shapes of this
                file, `signatures.json` in the archive contains them.
        """
        model = convert_functions(self.functions, self.quantize, self.fuse)
        for key, function in self.functions.items():
            inputs = signatures[key]["inputs"]
            fixed = {
                spec.name: {**inputs[spec.name], "shape": spec.shape.as_list()}
                for spec in function.input_signature
            }
            signatures = {**signatures, key: {**signatures[key], "inputs": fixed}}
        packed = {"signatures.json": encode_json(signatures), **encode_assets(assets)}
        return pack(model, name, packed)


def parse_shapes(text: str) -> list[tuple[int, ...]]:
    """The shapes of `--litert-shapes`: `"1x50,4x20"` is `[(1, 50), (4, 20)]`.

    Raises:
        UsageError: if it is not a list of such shapes.
    """
    if not text:
        return []
    shapes = text.split(",")
    if not all(re.fullmatch("[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", shape) for shape in shapes):
        raise UsageError(
            f"--litert-shapes={text}: give sizes above 0 joined by x, such as 1x50 for one "
            "sequence of 50 steps, and commas between shapes."
        )
    return [tuple(map(int, shape.split("x"))) for shape in dict.fromkeys(shapes)]


def parse_quantize(text: str) -> list[str]:
    """The types of `--quantize`.

    Raises:
        UsageError: if one is unknown.
    """
    names = list(dict.fromkeys(text.split(","))) if text else []
    if unknown := [name for name in names if name not in QUANTIZED]:
        raise UsageError(f"--quantize={text}: {unknown[0]!r} is none of {', '.join(QUANTIZED)}.")
    return names


def files(
    service: Service,
    shapes: Iterable[tuple[int, ...]] = (),
    quantize: Iterable[str] = (),
    fuse: bool = True,
) -> list[File]:
    """The files of a service: dynamic shapes and each of `shapes`, in float32 and each type.

    Raises:
        UsageError: if a shape does not fit the functions.
    """
    functions = {None: service.litert}
    functions |= {shape: fixed(service.litert, shape) for shape in shapes}
    return [
        File(found, shape, kind, fuse)
        for shape, found in functions.items()
        for kind in (None, *quantize)
    ]


def fixed(functions: dict, shape: tuple[int, ...]) -> dict:
    """Functions whose inputs have the sizes `shape` along their dynamic axes, in order.

    An input with fewer dynamic axes than `shape` has sizes takes the first ones. A function without
    dynamic axes stays as it is.

    Raises:
        UsageError: if no input has as many dynamic axes as `shape` has sizes.
    """
    specs = [spec for each in functions.values() for spec in each.input_signature]
    axes = max((spec.shape.as_list().count(None) for spec in specs), default=0)
    given = "x".join(map(str, shape))
    if not axes:
        raise UsageError(f"--litert-shapes={given}: all functions have fixed shapes already.")
    if len(shape) != axes:
        inputs = sorted(
            {
                f"{spec.name} [{', '.join('?' if n is None else str(n) for n in spec.shape)}]"
                for spec in specs
                if None in spec.shape.as_list()
            }
        )
        raise UsageError(
            f"--litert-shapes={given}: give {axes} sizes joined by x, one for each ? of the "
            f"longest of {', '.join(inputs)}."
        )
    return {name: _fixed(function, shape) for name, function in functions.items()}


def is_dynamic(function) -> bool:
    """Whether an input of an exported function has an axis of any size."""
    return any(None in spec.shape.as_list() for spec in function.input_signature)


def _fixed(function, shape: tuple[int, ...]):
    specs = function.input_signature
    if not is_dynamic(function):
        return function
    specs = [
        tf.TensorSpec(_with_sizes(spec.shape, shape), spec.dtype, name=spec.name) for spec in specs
    ]
    return tf.function(function.python_function, input_signature=specs, autograph=False)


def _with_sizes(shape: tf.TensorShape, sizes: tuple[int, ...]) -> list[int]:
    left = iter(sizes)
    return [next(left) if size is None else size for size in shape.as_list()]


def requests(
    file: File, service: Service, batches: list[dict]
) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """The requests that a file is tested with: triples of artifact, signature and inputs.

    They are the examples, padded with zeros to a fixed shape that is larger, and for float32 also
    the first batch of them repeated to the fixed shape, or to each of `SHAPES`. There, the greedy
    search of a quantized model may find another text, since such inputs are none of its data.

    Args:
        file: the file.
        service: its functions of dynamic shapes give the correct answers.
        batches: the requests of each batch of examples, by signature name.
    """
    found = []
    for name, function in file.functions.items():
        specs = service.litert[name].input_signature
        given = [each[name] for each in batches]
        if function is service.litert[name]:
            shapes = SHAPES if is_dynamic(function) else ()
            inputs = [each for each in given if _accepts(specs, each)]
        else:
            shapes = [file.shape]
            fitted = [fit(each, specs, file.shape) for each in given]
            inputs = [each for each in fitted if each is not None]
        if not inputs and not shapes:
            raise ValueError(f"The service has no requests of the shapes of {name}.")
        if not file.quantize or not inputs:
            inputs += [tiled(given[0], specs, shape) for shape in shapes]
        found += [(file.artifact, name, each) for each in inputs]
    return found


def _accepts(specs, inputs: dict[str, np.ndarray]) -> bool:
    return all(spec.shape.is_compatible_with(inputs[spec.name].shape) for spec in specs)


def tiled(inputs: dict, specs, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Repeats arrays to other sizes along their first dynamic axes."""
    return {spec.name: _tile(inputs[spec.name], spec.shape, sizes) for spec in specs}


def _tile(array: np.ndarray, shape: tf.TensorShape, sizes: tuple[int, ...]) -> np.ndarray:
    sizes_left = list(sizes)
    for axis, size in enumerate(shape):
        if size is None and sizes_left:
            array = np.take(array, np.arange(sizes_left.pop(0)) % array.shape[axis], axis=axis)
    return array


def fit(inputs: dict, specs, sizes: tuple[int, ...]) -> dict[str, np.ndarray] | None:
    """Repeats the examples to the size of the batch and pads them with zeros along other axes.

    Returns:
        The arrays, or `None` if an example is larger.
    """
    found = {}
    for spec in specs:
        array = _tile(inputs[spec.name], spec.shape, sizes[:1])
        target = _with_sizes(spec.shape, sizes)
        widths = [(0, new - old) for new, old in zip(target, array.shape, strict=True)]
        if any(width < 0 for _, width in widths):
            return None
        found[spec.name] = np.pad(array, widths) if widths else array
    return found


@dataclass
class Agreement:
    """How far the answers of an artifact agree with those of the model.

    Attributes:
        tolerance: of a float.
        share_tolerance: of the share of the other values that differ.
        largest: the largest difference of a float.
        equal: the number of other values that are equal.
        total: the number of other values.
    """

    tolerance: float
    share_tolerance: float
    largest: float = 0.0
    equal: int = 0
    total: int = 0
    reason: str = field(default="", repr=False)

    def add(self, name: str, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
        """Compares the outputs of function `name` for one request.

        Floats are not compared where an output of another type differs, since they may belong to
        another answer, as the attention of another word.
        """
        others = {n: x for n, x in expected.items() if x.dtype.kind != "f"}
        same = True
        for output, value in others.items():
            fits = value.shape == found[output].shape and value.dtype == found[output].dtype
            equal = int(np.sum(value == found[output])) if fits else 0
            self.equal += equal
            self.total += value.size
            same = same and fits and equal == value.size
        if not same:
            return
        for output in expected.keys() - others.keys():
            difference = parity.difference(expected[output], found[output])
            difference = float("inf") if math.isnan(difference) else difference
            if difference > self.largest:
                self.largest = difference
                self.reason = f"{name}, output {output!r}, by {difference:.3g}"

    @property
    def share(self) -> float:
        """The share of the other values that are equal; 1 without any."""
        return self.equal / self.total if self.total else 1.0

    def error(self) -> str | None:
        """What is above the tolerance."""
        if not self.largest <= self.tolerance:
            return f"{self.reason} (at most {self.tolerance:g} is allowed)"
        if 1 - self.share > self.share_tolerance:
            allowed = f"at most {self.share_tolerance:.0%} is allowed"
            return f"in {1 - self.share:.1%} of the integers ({allowed})"
        return None


def describe(manifest: dict) -> list[str]:
    """A line for each LiteRT file of an export, with its size and how far it agrees."""
    lines = []
    for artifact, difference in manifest["largest_difference"].items():
        if artifact.partition("-")[0] == "litert":
            name = parity.litert_file(artifact)
            line = f"{name}: {manifest['bytes'][name]:,} bytes, largest difference {difference:.2g}"
            agreement = manifest["agreement"].get(artifact)
            lines.append(
                line if agreement is None else f"{line}, {agreement:.1%} of the integers are equal"
            )
    return lines
