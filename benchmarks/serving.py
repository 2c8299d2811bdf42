"""How long an exported app takes for one input: its SavedModel and its LiteRT file.

    python benchmarks/serving.py slot_filling RUN

A trained run of any app is exported into a temporary folder. Each of the app's examples is asked
alone, in turns, and the medians are shown with the sizes of the files.
"""

import importlib
import statistics
import sys
import tempfile
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
    from unroll.apps.core.evaluation import load_model
    from unroll.apps.core.runs import Run

    run = Run(Path(folder))
    app = importlib.import_module(f"unroll.apps.{name}.app")
    model, _, assets = load_model(app, run)
    service = app.serve(model, assets)
    with tempfile.TemporaryDirectory() as temporary:
        exported = export.export(app, run, Path(temporary))
        served = tf.saved_model.load(str(exported)).signatures["serving_default"]
        path = exported / "model.tflite"
        runners = {
            f"LiteRT, {n} thread{'s' * (n > 1)}": Interpreter(str(path), num_threads=n)
            for n in (1, 2)
        }
        functions = {}
        for k, example in enumerate(app.EXAMPLES):
            requests = service.requests([example])
            raw = {name: tf.constant(x) for name, x in requests["serving_default"].items()}
            functions["SavedModel", k] = lambda raw=raw: served(**raw)
            for name, interpreter in runners.items():
                ask = interpreter.get_signature_runner()
                given = requests[service.litert]
                functions[name, k] = lambda ask=ask, given=given: ask(**given)
        taken = seconds_of(functions, rounds=30, first=3)
        size = {"LiteRT": path.stat().st_size}
        variables = exported.glob("variables/*")
        size["SavedModel"] = sum(file.stat().st_size for file in variables)
    rows = []
    for what in ("SavedModel", *runners):
        times = [value for (name, _), value in taken.items() if name == what]
        megabytes = size[what.partition(",")[0]] / 1e6
        rows.append([what, f"{1e3 * statistics.median(times):.2f}", f"{megabytes:.2f}"])
    print("\n".join(table(["what", "ms an input", "MB"], rows)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/serving.py APP RUN")
    main(*sys.argv[1:])
