"""ONNX Runtime: recurrent nodes compared with loops, and the ONNX files of all apps.

    python benchmarks/onnx_runtime.py [APP ...]

It writes `benchmarks/results/onnx_runtime.md`. All times are medians of one input on one core, in
interleaved rounds. The first table compares the node of ONNX for a layer with its loop, in ONNX
Runtime, and with the loop in LiteRT, for files of dynamic shapes.

The second table has the exported functions of each app. The networks have the sizes of the first
preset and initial weights: a search runs to its last step. The differences to TensorFlow are the
largest of those that `unroll APP export` measures: the examples of the app, alone and in a batch,
and three other shapes, up to 5 sequences of 200 steps. An input is the first example, in a batch of
one.
"""

import collections
import importlib
import json
import os
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measuring import seconds_of, table

from unroll.apps.core import cli
from unroll.apps.core.quiet import import_tensorflow

RESULTS = Path(__file__).parent / "results" / "onnx_runtime.md"
FEATURES, UNITS, LENGTHS = 64, 64, (50, 100)


def session_of(model: str | bytes):
    """A function of named arrays, in ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def rows_of_layers() -> list[list]:
    """A row for each layer, mask and length."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll import layers
    from unroll.layers import litert_tensorflow, onnx_tensorflow

    functions, specs = {}, {"x": tf.TensorSpec([None, None, FEATURES])}
    mask_spec = {"mask": tf.TensorSpec([None, None], tf.bool)}
    rng = np.random.default_rng(0)
    for name in ("LSTM", "GRU"):
        for mask in ({}, mask_spec):
            runs = {}
            for kind, use_cudnn in (("node", "auto"), ("loop", False), ("litert", False)):
                layer = getattr(layers, name)(UNITS, return_sequences=True, use_cudnn=use_cudnn)
                layer.build((None, None, FEATURES))

                def function(x, mask=None, layer=layer):
                    return {"y": layer(x, mask=mask)}

                if kind == "litert":
                    file = litert_tensorflow.convert(function, specs | mask)
                    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
                    runs[kind] = lambda inputs, runner=runner: runner(**inputs)
                else:
                    runs[kind] = session_of(onnx_tensorflow.convert(function, specs | mask))
            for length in LENGTHS:
                inputs = {"x": rng.normal(size=(1, length, FEATURES)).astype("float32")}
                if mask:
                    inputs["mask"] = np.arange(length)[None] < length - 5
                for kind, run in runs.items():
                    key = (name, "yes" if mask else "no", length, kind)
                    functions[key] = lambda run=run, inputs=inputs: run(inputs)
    seconds = seconds_of(functions, rounds=30, first=3)
    return [
        [*key, *(f"{1e3 * seconds[(*key, kind)]:.2f}" for kind in ("node", "loop", "litert"))]
        for key in dict.fromkeys(key[:3] for key in functions)
    ]


def rows_of_app(name: str) -> list[list]:
    """A row for each ONNX file of an app."""
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    from unroll.apps.core import export
    from unroll.apps.core.protocol import Trained

    app = importlib.import_module(f"unroll.apps.{name}.app")
    config = replace(next(iter(app.PRESETS.values())), generated_size=1e-3)
    assets = app.load(config, ()).assets
    service = app.serve(Trained(config, assets, app.build(config, assets)))
    requests = service.requests(app.examples()[:1])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = export.write(service, {}, app.examples(), Path(folder) / name, ("litert", "onnx"))
        manifest = json.loads((made / "manifest.json").read_text("utf-8"))
        interpreter = Interpreter(str(made / "model.tflite"), num_threads=1)
        for signature, about in manifest["onnx"].items():
            model = onnx.load(made / about["file"])
            counts = collections.Counter(recurrent_nodes(model.graph))
            run = session_of(str(made / about["file"]))
            runner, inputs = interpreter.get_signature_runner(signature), requests[signature]
            seconds = seconds_of(
                {
                    "onnx": lambda run=run, inputs=inputs: run(inputs),
                    "litert": lambda runner=runner, inputs=inputs: runner(**inputs),
                },
                rounds=20,
                first=2,
            )
            shapes = (x.shape for x in inputs.values())
            rows.append(
                [
                    name,
                    signature,
                    ", ".join("x".join(map(str, shape)) for shape in shapes if shape),
                    ", ".join(f"{n} {op}" for op, n in sorted(counts.items())) or "none",
                    f"{manifest['largest_difference']['onnx']:.1e}",
                    f"{manifest['bytes'][about['file']] / 1e6:.2f}",
                    *(f"{1e3 * seconds[kind]:.2f}" for kind in ("onnx", "litert")),
                ]
            )
    return rows


def recurrent_nodes(graph) -> list[str]:
    """The recurrent nodes and loops of a graph, and of the branches in it."""
    found = [node.op_type for node in graph.node if node.op_type in ("LSTM", "GRU", "RNN", "Loop")]
    for node in graph.node:
        if node.op_type == "If":
            for attribute in node.attribute:
                found += recurrent_nodes(attribute.g)
    return found


def main(names: list[str]) -> None:
    """Prints both tables and writes them."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    import keras
    import onnxruntime
    import tensorflow as tf

    versions = f"onnxruntime {onnxruntime.__version__}, tensorflow {tf.__version__}"
    of_layers = ["layer", "mask", "length", "ONNX node, ms", "ONNX loop, ms", "LiteRT loop, ms"]
    lines = [
        "# ONNX Runtime",
        "",
        f"One input on one core, medians; {platform.machine()}, {versions}, keras "
        f"{keras.__version__}. `python benchmarks/onnx_runtime.py` explains and writes this.",
        "",
        f"## Layers of {UNITS} units, {FEATURES} features",
        "",
        *table(of_layers, rows_of_layers()),
        "",
        "## Apps, with initial weights",
        "",
    ]
    header = ["app", "file", "inputs", "recurrent nodes", "largest difference", "MB"]
    rows = []
    for name in names or cli.describe():
        rows += rows_of_app(name)
        print(rows[-1], file=sys.stderr, flush=True)
    text = "\n".join([*lines, *table([*header, "ONNX, ms", "LiteRT, ms"], rows), ""])
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
