"""One step of each recurrent layer in LiteRT, as a device runs it on a stream.

    python benchmarks/streaming.py [--units=256] [--rounds=30]

The file of a layer has a function without a loop, of one input vector and the states to the outputs
and the new states, all in float32 or with weights in int8 (dynamic range). The times are medians of
the interpreter's `invoke` on one core, in interleaved rounds of 100 calls; copying inputs and
outputs is not included. Writes `benchmarks/results/streaming.md`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from measuring import processor, seconds_of, table

from unroll import layers
from unroll.layers.litert_tensorflow import convert

RESULTS = Path(__file__).parent / "results" / "streaming.md"
LAYERS = {
    "LSTM": {}, "GRU": {}, "ElmanRNN": {}, "PeepholeLSTM": {}, "CoupledLSTM": {},
    "LayerNormLSTM": {}, "IndRNN": {}, "MinGRU": {}, "MinLSTM": {}, "QRNN": {}, "SRU": {},
    "LRU": {}, "RGLRU": {}, "SLSTM": {"heads": 4}, "MLSTM": {"heads": 4},
}  # fmt: skip
CALLS = 100
HEADER = [
    "layer", "parameters", "bytes", "bytes, int8", "microseconds", "int8", "of the LSTM's",
    "of the LSTM's, int8",
]  # fmt: skip


def step_of(layer: keras.layers.Layer, features: int) -> tuple[Callable, dict]:
    """A function of one step of a layer, and the specs of its inputs."""
    layer.build((1, None, features))
    states = keras.tree.flatten(layer.get_initial_state(1))
    specs = {"x": tf.TensorSpec([1, features])}
    specs |= {f"state_{k}": tf.TensorSpec(state.shape) for k, state in enumerate(states)}

    def step(x, **states):
        outputs, new = layer.cell(x, [states[f"state_{k}"] for k in range(len(states))])
        return {"outputs": outputs, **{f"new_{k}": state for k, state in enumerate(new)}}

    return step, specs


def runner(content: bytes) -> Callable:
    """A function that runs a file some times, on random numbers."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for each in interpreter.get_input_details():
        interpreter.set_tensor(each["index"], rng.normal(size=each["shape"]).astype("float32"))

    def run() -> None:
        for _ in range(CALLS):
            interpreter.invoke()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=256, help="features and units")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    functions, facts = {}, {}
    for name, options in LAYERS.items():
        layer = getattr(layers, name)(arguments.units, **options)
        step, specs = step_of(layer, arguments.units)
        files = {kind: convert(step, specs, quantize=kind) for kind in (None, "int8")}
        facts[name] = [layer.count_params(), *(len(content) for content in files.values())]
        functions |= {(name, kind): runner(content) for kind, content in files.items()}
    seconds = seconds_of(functions, arguments.rounds, first=3)
    rows = []
    for name, (parameters, *sizes) in facts.items():
        own = [seconds[name, kind] / CALLS * 1e6 for kind in (None, "int8")]
        ratios = [seconds[name, kind] / seconds["LSTM", kind] for kind in (None, "int8")]
        rows.append(
            [f"`{name}`", f"{parameters:,}", *(f"{size:,}" for size in sizes)]
            + [f"{each:.1f}" for each in own]
            + [f"{each:.2f}" for each in ratios]
        )
    lines = [
        "# A step in LiteRT",
        "",
        f"`python benchmarks/streaming.py --units={arguments.units}`: one core of {processor()}; "
        f"{arguments.units} features and units.",
        "",
        *table(HEADER, rows),
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
