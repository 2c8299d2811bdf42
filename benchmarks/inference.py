"""A recurrent layer reads one sequence of 100 steps on one core: each format and its alternatives.

    python benchmarks/inference.py

The layers have the same weights, and their outputs are compared: TensorFlow runs the layer and
`keras.layers` as a `tf.function`; LiteRT runs files of a fixed shape, with its fused operation, and
of dynamic shapes, with a loop; ONNX Runtime runs its node and a loop; PyTorch runs its own layer.
Times are medians of interleaved rounds. Writes `benchmarks/results/inference.md`.
"""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import torch
from ai_edge_litert.interpreter import Interpreter
from measuring import processor, seconds_of, table
from onnx_runtime import session_of

from unroll import layers
from unroll.layers.litert_tensorflow import convert
from unroll.layers.onnx_tensorflow import convert as convert_to_onnx

RESULTS = Path(__file__).parent / "results" / "inference.md"
LENGTH, SIZES = 100, (64, 256)
COLUMNS = [
    "layer", "`keras.layers`", "LiteRT, fixed", "LiteRT, dynamic", "ONNX node", "ONNX loop",
    "`torch.nn`",
]  # fmt: skip


def runs_of(name: str, units: int, x: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """What computes the outputs of a layer for `x`, by column."""
    made = {
        kind: getattr(module, name)(units, return_sequences=True, use_cudnn=use_cudnn)
        for kind, module, use_cudnn in (
            ("layer", layers, "auto"), ("loop", layers, False), ("keras", keras.layers, "auto")
        )
    }  # fmt: skip
    for layer in made.values():
        layer.build(x.shape)
        layer.set_weights(made["layer"].get_weights())
    dynamic = {"x": tf.TensorSpec([None, None, x.shape[-1]])}

    def graph(layer) -> Callable:
        traced, given = tf.function(layer, autograph=False), tf.constant(x)
        return lambda: traced(given).numpy()

    def function(layer) -> Callable:
        return lambda x: {"y": layer(x)}

    def litert(specs: dict) -> Callable:
        file = convert(function(made["layer"]), specs)
        runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
        return lambda: runner(x=x)["y"]

    def onnx(layer) -> Callable:
        run = session_of(convert_to_onnx(function(layer), dynamic))
        return lambda: run({"x": x})[0]

    return {
        "layer": graph(made["layer"]),
        "`keras.layers`": graph(made["keras"]),
        "LiteRT, fixed": litert({"x": tf.TensorSpec(x.shape)}),
        "LiteRT, dynamic": litert(dynamic),
        "ONNX node": onnx(made["layer"]),
        "ONNX loop": onnx(made["loop"]),
        "`torch.nn`": in_torch(name, made["layer"], x),
    }


def in_torch(name: str, layer: keras.layers.Layer, x: np.ndarray) -> Callable:
    """PyTorch's layer with the weights of `layer`."""
    kernel, recurrent_kernel, bias = layer.get_weights()
    biases = bias if name == "GRU" else (bias, np.zeros_like(bias))
    order = [1, 0, 2] if name == "GRU" else [0, 1, 2, 3]  # of the gates
    values = []
    for weight in (kernel, recurrent_kernel, *biases):
        parts = np.split(weight.T, len(order))
        values.append(torch.from_numpy(np.concatenate([parts[k] for k in order])))
    other = getattr(torch.nn, name)(x.shape[-1], layer.units, batch_first=True)
    given = torch.from_numpy(x)
    with torch.no_grad():
        for parameter, value in zip(other.parameters(), values, strict=True):
            parameter.copy_(value)

    def run():
        with torch.no_grad():
            return other(given)[0].numpy()

    return run


def main() -> None:
    """Prints the table and writes it."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rows, runs = [], {}
    for name in ("LSTM", "GRU"):
        for units in SIZES:
            x = np.random.default_rng(0).normal(size=(1, LENGTH, units)).astype("float32")
            found = runs_of(name, units, x)
            expected = found["layer"]()
            for run in found.values():
                np.testing.assert_allclose(run(), expected, atol=1e-5)
            runs |= {(name, units, column): run for column, run in found.items()}
    seconds = seconds_of(runs, rounds=100, first=5)
    for name, units in dict.fromkeys(key[:2] for key in runs):
        times = (f"{1e3 * seconds[name, units, column]:.2f}" for column in COLUMNS)
        rows.append([f"`{name}`", units, *times])
    text = "\n".join(
        [
            "# Inference",
            "",
            f"One sequence of {LENGTH} steps on one core of {processor()}, milliseconds; as many "
            "features as units. `python benchmarks/inference.py` explains and writes this.",
            "",
            *table(["", "units", *COLUMNS], rows),
            "",
        ]
    )
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
