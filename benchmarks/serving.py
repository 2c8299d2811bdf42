"""Latency and size of an exported app: its SavedModel and its LiteRT file.

    python benchmarks/serving.py slot_filling RUN

A trained run of an app is exported into a temporary folder. The times are medians over the app's
examples, one input per request, in interleaved rounds.
"""

import importlib
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import seconds_of, table

from unroll.apps.core.quiet import import_tensorflow


def main(name: str, folder: str) -> None:
    """Prints the table."""
    import_tensorflow()
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.apps.core import export
    from unroll.apps.core.evaluation import load_trained
    from unroll.apps.core.runs import Run

    app = importlib.import_module(f"unroll.apps.{name}.app")
    run = Run.open(app, folder)
    service = app.serve(load_trained(app, run))
    with tempfile.TemporaryDirectory() as temporary:
        exported = export.export(app, run, Path(temporary))
        saved_model = tf.saved_model.load(str(exported)).signatures["serving_default"]
        litert = exported / "model.tflite"
        interpreters = {n: Interpreter(str(litert), num_threads=n) for n in (1, 2)}
        functions = {}
        for k, example in enumerate(app.examples()):
            requests = service.requests([example])
            raw = {name: tf.constant(x) for name, x in requests["serving_default"].items()}
            functions["SavedModel", k] = lambda raw=raw: saved_model(**raw)
            for signature, (n, interpreter) in product(service.litert, interpreters.items()):
                artifact = f"LiteRT {signature}, {n} thread{'s' * (n > 1)}"
                runner, arrays = interpreter.get_signature_runner(signature), requests[signature]
                functions[artifact, k] = lambda runner=runner, arrays=arrays: runner(**arrays)
        seconds = seconds_of(functions, rounds=30, first=3)
        size = {"LiteRT": litert.stat().st_size}
        size["SavedModel"] = sum(file.stat().st_size for file in exported.glob("variables/*"))
    rows = []
    for artifact in dict.fromkeys(name for name, _ in functions):
        times = [value for (name, _), value in seconds.items() if name == artifact]
        megabytes = size[artifact.partition(" ")[0]] / 1e6
        rows.append([artifact, f"{1e3 * statistics.median(times):.2f}", f"{megabytes:.2f}"])
    print("\n".join(table(["artifact", "ms per input", "MB"], rows)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/serving.py APP RUN")
    main(*sys.argv[1:])
