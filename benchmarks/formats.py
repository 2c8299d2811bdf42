"""Size, latency, agreement and test figure of each format that an app exports.

    python benchmarks/formats.py [--epochs=N] [APP | APP=RUN ...]

Without a run, an app is trained on its generated data. The script exports a run in every format
(ONNX if its packages are installed), measures, and writes `benchmarks/results/formats.md`; the
tables of other apps in that file are kept.

The times are medians of one input per request on one core, in interleaved rounds over the app's
examples. The sizes of LiteRT files contain the app's assets. A test figure is that of `evaluate` on
the whole test split, with the LiteRT function in place of the model; only some apps have it, since
the figures of the others need more than that function returns.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measuring import seconds_of, table

from unroll.apps.core import cli
from unroll.apps.core.quiet import import_tensorflow

RESULTS = Path(__file__).parent / "results" / "formats.md"
QUANTIZED = ("int8", "float16")
HEADER = ["format", "bytes", "ms", "largest difference", "integers equal", "test figure"]


class Standin:
    """A model whose predictions are those of a LiteRT function.

    Args:
        model: the model in its place, for everything else.
        predict: batches of features to what the model predicts for them.
    """

    def __init__(self, model, predict: Callable[[dict], np.ndarray | dict]):
        self._model = model
        self._predict = predict

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def predict_on_batch(self, features: dict):
        """What the LiteRT function answers, in the form of the model's predictions."""
        return self._predict({name: x.numpy() for name, x in features.items()})


def sentiment(run: Callable, trained) -> Callable:
    """Probabilities."""
    return lambda features: run(**features)["probabilities"]


def slot_filling(run: Callable, trained) -> Callable:
    """Tags, and a one-hot vector of the intent."""

    def predict(features: dict) -> dict:
        found = run(**features)
        if "intent" in found:
            found["intent"] = np.eye(len(trained.assets["intents"]))[found["intent"]]
        return found

    return predict


def reading_comprehension(run: Callable, trained) -> Callable:
    """The scores of all words, for each of the models that were trained in parallel."""
    copies = trained.config.restarts
    return lambda features: np.stack([run(**features)["scores"]] * copies, axis=1)


# For each app whose test figure the LiteRT function gives: the predictions of its model.
PREDICTIONS = {
    "reading_comprehension": reading_comprehension,
    "sentiment": sentiment,
    "slot_filling": slot_filling,
}


def rows_of(name: str, folder: str) -> list[list]:
    """The rows of an app's table, from the folder of a run."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.apps.core import litert, parity
    from unroll.apps.core.evaluation import load_trained
    from unroll.apps.core.runs import Run

    app = importlib.import_module(f"unroll.apps.{name}.app")
    run = Run.open(app, folder)
    trained = load_trained(app, run)
    service = app.serve(trained)
    requests = [service.requests([example]) for example in app.examples()]
    shape = "x".join(map(str, largest_shape(service, requests)))
    with tempfile.TemporaryDirectory() as temporary:
        exported, kinds = export_all(app, run, temporary, shape)
        manifest = json.loads((exported / "manifest.json").read_text("utf-8"))
        files = {"SavedModel": sum(p.stat().st_size for p in exported.glob("variables/*"))}
        signature = next(iter(service.litert))
        loaded = tf.saved_model.load(str(exported)).signatures["serving_default"]
        functions = {}
        for k, request in enumerate(requests):
            raw = {n: tf.constant(x) for n, x in request["serving_default"].items()}
            functions["SavedModel", k] = lambda raw=raw: loaded(**raw)
        runners = {}
        for file in litert.files(service, litert.parse_shapes(shape), kinds):
            path = exported / file.name
            files[file.artifact] = path.stat().st_size
            runner = Interpreter(str(path), num_threads=1).get_signature_runner(signature)
            runners[file.artifact] = runner
            specs = service.litert[signature].input_signature
            for k, request in enumerate(requests):
                inputs = request[signature]
                if file.shape:
                    inputs = litert.fit(inputs, specs, file.shape)
                functions[file.artifact, k] = lambda f=runner, inputs=inputs: f(**inputs)
        if "onnx" in manifest["largest_difference"]:
            path = exported / parity.onnx_file(signature)
            files["onnx"] = path.stat().st_size
            session = onnx_session(path)
            for k, request in enumerate(requests):
                inputs = request[signature]
                functions["onnx", k] = lambda inputs=inputs: session.run(None, inputs)
        seconds = seconds_of(functions, rounds=20, first=2)
        rows = []
        for artifact, size in files.items():
            times = [1e3 * taken for (name, _), taken in seconds.items() if name == artifact]
            key = "saved_model" if artifact == "SavedModel" else artifact
            share = manifest["agreement"].get(key)
            figure = test_figure(app, trained, runners.get(artifact), artifact, shape)
            rows.append(
                [
                    artifact,
                    f"{size:,}",
                    f"{statistics.median(times):.2f}",
                    f"{manifest['largest_difference'][key]:.1e}",
                    "" if share is None else f"{share:.1%}",
                    figure,
                ]
            )
    return rows


def export_all(app: ModuleType, run, folder: str, shape: str) -> tuple[Path, list[str]]:
    """An export in all formats and types that agree with the model, and these types."""
    from unroll.apps.core import export, onnx_files
    from unroll.apps.core.errors import UsageError

    kinds, formats = list(QUANTIZED), list(export.FORMATS)
    if not all(importlib.util.find_spec(name) for name in onnx_files.PACKAGES):
        formats.remove("onnx")
    while True:
        try:
            made = export.export(
                app, run, folder, tuple(formats), quantize=",".join(kinds), litert_shapes=shape
            )
        except UsageError as error:
            refused = [kind for kind in kinds if f"-{kind} " in str(error)]
            print(error, file=sys.stderr)
            if refused:
                kinds.remove(refused[0])
            elif "onnx" in formats and "onnx" in str(error):
                formats.remove("onnx")
            else:
                raise
        else:
            return made, kinds


def onnx_session(path: Path):
    """A session of ONNX Runtime on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def largest_shape(service, requests: list[dict]) -> list[int]:
    """The sizes of the dynamic axes into which each of the requests fits, with a batch of one."""
    axes = {}
    for name, function in service.litert.items():
        for spec in function.input_signature:
            dynamic = [k for k, size in enumerate(spec.shape.as_list()) if size is None]
            for position, k in enumerate(dynamic):
                sizes = [request[name][spec.name].shape[k] for request in requests]
                axes[position] = max(axes.get(position, 1), *sizes)
    return [1, *(axes[k] for k in sorted(axes)[1:])]


def test_figure(app: ModuleType, trained, runner, artifact: str, shape: str) -> str:
    """The first headline figure on the test split, if there is one of this artifact."""
    from unroll.apps.core.runs import app_name

    name, figure = app_name(app), next(iter(app.METRICS))
    if name not in PREDICTIONS or artifact == "onnx" or f"-{shape}" in artifact:
        return ""
    measured = trained
    if runner is not None:
        inputs = set(runner.get_input_details())

        def run(**features) -> dict:
            return runner(**{n: x for n, x in features.items() if n in inputs})

        standin = Standin(trained.model, PREDICTIONS[name](run, trained))
        measured = dataclasses.replace(trained, model=standin)
    dataset = app.load(trained.config, ("test",), trained.assets)["test"]
    return f"{figure} {app.score(measured, dataset)[figure]:.4f}"


def train(name: str, folder: Path, epochs: int | None) -> str:
    """Trains an app on its generated data, and returns the folder of the run."""
    run = str(folder / name)
    options = [] if epochs is None else [f"--epochs={epochs}"]
    if cli.main([name, "train", f"--run={run}", *options]):
        sys.exit(1)
    return run


def sections() -> dict[str, str]:
    """The sections of the results file, by app."""
    text = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.partition(",")[0]: f"## {part.strip()}\n" for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="of the trainings; by default those of the app")
    parser.add_argument("apps", nargs="*", metavar="APP[=RUN]", default=list(cli.describe()))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    import keras
    import tensorflow as tf

    found = sections()
    about = (
        f"one core, {platform.machine()}, tensorflow {tf.__version__}, keras {keras.__version__}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for each in arguments.apps:
            name, _, run = each.partition("=")
            rows = rows_of(name, run or train(name, Path(temporary), arguments.epochs))
            trained = f"run {Path(run).name}" if run else "the generated data"
            if not run and arguments.epochs is not None:
                trained += f" with --epochs={arguments.epochs}"
            lines = table(HEADER, rows)
            found[name] = "\n".join([f"## {name}, {trained}, {about}", "", *lines, ""])
            print(found[name], flush=True)
            text = "\n".join(found[key] for key in sorted(found))
            RESULTS.write_text(f"# Formats of exports\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
