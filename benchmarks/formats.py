"""Size, latency, agreement and test figure of each format that an app exports.

    python benchmarks/formats.py export FOLDER [--epochs=N] [APP | APP=RUN ...]
    python benchmarks/formats.py time FOLDER

`export` exports runs in every format into a folder, and measures all but the time. Without a run,
an app is trained on its generated data. `time`, which needs an idle core, measures all exports in
the folder. It writes `formats.json` and the section of `results.md` of each app, and a summary,
`benchmarks/results/formats.md`.

All formats of an app run the same function, that of its LiteRT file (see `format_figures.py`), and
a time is that of this function alone: medians over inputs of the test split, one in each request,
in interleaved rounds. The fixed shape has room for the longest input of the test split; others are
padded before the time is taken. LiteRT files contain the app's assets. "ONNX with loops" has a
`Loop` where ONNX otherwise has a node for a recurrent layer.
"""

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from generated_runs import train
from measuring import processor, seconds_of, table

from unroll.apps.core import cli
from unroll.apps.core.quiet import import_tensorflow

RESULTS = Path(__file__).parent / "results" / "formats.md"
QUANTIZED = ("int8", "float16")
INPUTS, ROUNDS = 10, 20  # of the times
PACKAGES = ("tensorflow", "ai-edge-litert", "onnxruntime")
_LOOPS = "onnx-loops"
_SHAPE = re.compile(r"-(\d+(?:x\d+)*)")  # in the name of an artifact


class Recorder:
    """A function of a service that remembers some inputs, and the largest sizes of all.

    Args:
        function: of any batch size.

    Attributes:
        inputs: the first row of the first requests.
        sizes: the largest shape of each input.
    """

    def __init__(self, function):
        self.function = function
        self.inputs: list[dict[str, np.ndarray]] = []
        self.sizes: dict[str, tuple[int, ...]] = {}

    def __call__(self, **arrays) -> dict[str, np.ndarray]:
        import tensorflow as tf

        arrays = {spec.name: arrays[spec.name] for spec in self.function.input_signature}
        if len(self.inputs) < INPUTS:
            self.inputs.append({name: x[:1] for name, x in arrays.items()})
        for name, x in arrays.items():
            self.sizes[name] = tuple(map(max, x.shape, self.sizes.get(name, x.shape)))
        found = self.function(**{name: tf.constant(x) for name, x in arrays.items()})
        return {name: x.numpy() for name, x in found.items()}


def export_app(name: str, path: str, folder: Path) -> None:
    """Exports a run, and measures all but the times. `FOLDER/APP.json` is what `time_app` reads."""
    from format_figures import FIGURES

    from unroll.apps.core import litert, onnx_files, results
    from unroll.apps.core.evaluation import load_trained
    from unroll.apps.core.runs import Run

    app, measured = importlib.import_module(f"unroll.apps.{name}.app"), FIGURES[name]
    run = Run.open(app, path)
    trained = load_trained(app, run)
    service, function = app.serve(trained), measured.function
    dataset = app.load(trained.config, ("test",), trained.assets)["test"]
    recorder = Recorder(onnx_files.functions(service)[function])
    examples = measured.of(recorder, trained, dataset)["examples"]
    shape = fixed_shape(service, function, recorder.sizes, app.examples())
    exported, refused = export_all(app, run, folder, shape)
    manifest = json.loads((exported / "manifest.json").read_text("utf-8"))
    artifacts = [a for a in manifest["largest_difference"] if a != "saved_model_session"]
    if write_loops(app, trained, function, exported):
        artifacts.append(_LOOPS)
    specs, inputs, rows = service.litert[function].input_signature, {}, []
    for artifact in sorted(artifacts, key=_order):
        signature = (artifact == "saved_model" and measured.saved_model) or function
        call, sizes = load(exported, artifact, signature), _sizes(artifact)
        if sizes or (specs[0].shape[0] == 1 and artifact.startswith("litert")):
            call = by_row(call, lambda arrays, sizes=sizes: litert.fit(arrays, specs, sizes))
        figure = measured.of(lambda call=call, **arrays: call(arrays), trained, dataset)
        for k, given in enumerate(recorder.inputs):
            given = litert.fit(given, specs, sizes) if sizes else given
            inputs |= {f"{artifact}/{k}/{n}": x for n, x in given.items()}
        rows.append(
            {
                "artifact": artifact,
                "signature": signature,
                "bytes": size_of(exported, artifact, signature),
                "difference": manifest["largest_difference"].get(artifact),
                "equal": manifest["agreement"].get(artifact),
                "figure": figure[measured.name],
            }
        )
        print(name, rows[-1], file=sys.stderr, flush=True)
    np.savez_compressed(folder / f"{name}.npz", **inputs)
    record = {
        "command": results.command(app, trained.config, [trained.config.seed]),
        "data": trained.config.data,
        "function": function,
        "figure": measured.name,
        "examples": examples,
        "refused": refused,
        "formats": rows,
    }
    about = {"exported": str(exported.relative_to(folder)), "record": record}
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2), "utf-8")


def fixed_shape(service, function: str, sizes: dict, examples: list) -> str:
    """The sizes of the dynamic axes of the LiteRT file, with a batch of one; "" if it has none.

    Args:
        service: of an app.
        function: the name of the one that the sizes are of.
        sizes: the largest shape of each input.
        examples: raw inputs; they give the sizes of axes that this function does not have.
    """
    found = []
    for example in examples:
        requests = service.requests([example])
        found += [_dynamic_sizes(f, requests[name]) for name, f in service.litert.items()]
    largest = [max(own) for own in itertools.zip_longest(*found, fillvalue=1)]
    own = _dynamic_sizes(service.litert[function], {n: np.empty(x) for n, x in sizes.items()})
    return "x".join(map(str, [1, *own[1:], *largest[max(1, len(own)) :]])) if largest else ""


def _dynamic_sizes(function, inputs: dict[str, np.ndarray]) -> list[int]:
    """The sizes of inputs along the first dynamic axis of each, the second one, and so on."""
    found = [
        [inputs[spec.name].shape[k] for k, size in enumerate(spec.shape) if size is None]
        for spec in function.input_signature
    ]
    return [max(own) for own in itertools.zip_longest(*found, fillvalue=1)]


def export_all(app: ModuleType, run, folder: Path, shape: str) -> tuple[Path, dict[str, str]]:
    """An export in all formats and types that agree with the model, and why others do not."""
    from unroll.apps.core import export
    from unroll.apps.core.errors import UsageError

    kinds, refused = list(QUANTIZED), {}
    while True:
        try:
            made = export.export(
                app, run, folder, export.FORMATS, quantize=",".join(kinds), litert_shapes=shape
            )
        except UsageError as error:
            wrong = [kind for kind in kinds if f"-{kind} " in str(error)]
            if not wrong:
                raise
            kinds.remove(wrong[0])
            refused[wrong[0]] = str(error)
        else:
            return made, refused


def write_loops(app: ModuleType, trained, function: str, exported: Path) -> bool:
    """Writes an ONNX file with loops in place of recurrent nodes, if the other file has some."""
    import onnx
    from onnx_runtime import recurrent_nodes

    from unroll.apps.core import onnx_files, parity

    made = onnx.load(exported / parity.onnx_file(function))
    if not {"LSTM", "GRU", "RNN"} & set(recurrent_nodes(made.graph)):
        return False
    for layer in trained.model._flatten_layers():
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False
    content = onnx_files.content(onnx_files.functions(app.serve(trained))[function])
    (exported / parity.onnx_file(f"{function}-loops")).write_bytes(content)
    return True


def load(exported: Path, artifact: str, signature: str) -> Callable[[dict], dict]:
    """A function of an export on one core, of a dict of arrays to such a dict."""
    from unroll.apps.core import parity

    if artifact == "saved_model":
        model = parity.load(str(exported))
        return lambda arrays: model(signature, arrays)
    if artifact.startswith("litert"):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(exported / parity.litert_file(artifact)), num_threads=1)
        runner = interpreter.get_signature_runner(signature)
        names = set(runner.get_input_details())
        return lambda arrays: runner(**{n: x for n, x in arrays.items() if n in names})
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(file_of(exported, artifact, signature)), options, providers=["CPUExecutionProvider"]
    )
    inputs = {each.name for each in session.get_inputs()}
    outputs = [each.name.removeprefix("next_") for each in session.get_outputs()]
    return lambda arrays: dict(
        zip(outputs, session.run(None, {n: arrays[n] for n in inputs}), strict=True)
    )


def file_of(exported: Path, artifact: str, signature: str) -> Path:
    """The file of an artifact that is one file."""
    from unroll.apps.core import parity

    if artifact.startswith("litert"):
        return exported / parity.litert_file(artifact)
    return exported / parity.onnx_file(signature + artifact.removeprefix("onnx"))


def size_of(exported: Path, artifact: str, signature: str) -> int:
    """The bytes of an artifact."""
    if artifact == "saved_model":
        files = [exported / "saved_model.pb", *exported.glob("variables/*")]
    else:
        files = [file_of(exported, artifact, signature)]
    return sum(path.stat().st_size for path in files)


def by_row(call: Callable[[dict], dict], fit: Callable[[dict], dict]) -> Callable[[dict], dict]:
    """A function of a batch from one of a single row that fits."""

    def of_batch(arrays: dict) -> dict:
        count = len(next(iter(arrays.values())))
        rows = [call(fit({n: x[k : k + 1] for n, x in arrays.items()})) for k in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return of_batch


def _sizes(artifact: str) -> tuple[int, ...]:
    """The fixed shape of an artifact; () if it has none."""
    found = _SHAPE.search(artifact)
    return tuple(map(int, found[1].split("x"))) if found else ()


def _order(artifact: str) -> tuple:
    formats = ("saved_model", "litert", "onnx")
    return [artifact.startswith(name) for name in formats].index(True), bool(_sizes(artifact))


def label(artifact: str) -> str:
    """An artifact for a person.

    >>> label("litert-1x50-int8")
    'LiteRT, 1x50, int8'
    """
    first, *rest = artifact.split("-")
    name = {"saved_model": "SavedModel", "litert": "LiteRT", "onnx": "ONNX"}[first]
    return " with ".join([name, *rest]) if artifact == _LOOPS else ", ".join([name, *rest])


def time_app(name: str, folder: Path) -> None:
    """Measures the times of an export, and writes `formats.json` and `results.md` of the app."""
    from unroll.apps.core import results
    from unroll.apps.core.files import write_json

    about = json.loads((folder / f"{name}.json").read_text("utf-8"))
    record, exported = about["record"], folder / about["exported"]
    inputs: dict[tuple[str, str], dict] = {}
    for key, array in np.load(folder / f"{name}.npz").items():
        artifact, k, argument = key.split("/")
        inputs.setdefault((artifact, k), {})[argument] = array
    calls = {
        row["artifact"]: load(exported, row["artifact"], row.pop("signature"))
        for row in record["formats"]
    }
    seconds = seconds_of(
        {
            key: lambda call=calls[key[0]], arrays=arrays: call(arrays)
            for key, arrays in inputs.items()
        },
        rounds=ROUNDS,
        first=2,
    )
    for row in record["formats"]:
        times = [taken for (artifact, _), taken in seconds.items() if artifact == row["artifact"]]
        row["format"] = label(row["artifact"])
        row["milliseconds"] = round(1e3 * statistics.median(times), 4)
    record["hardware"] = hardware()
    app = importlib.import_module(f"unroll.apps.{name}.app")
    parent = Path(app.__file__).parent
    write_json(parent / "formats.json", record)
    results.write_tables(app, results.read(parent))


def hardware() -> str:
    """The processor and the versions of what ran on it."""
    return ", ".join([processor(), *(f"{n} {importlib.metadata.version(n)}" for n in PACKAGES)])


def summary() -> str:
    """Tables of the times, sizes and figures of all apps that have a `formats.json`."""
    from unroll.apps.core import results

    apps = Path(cli.__file__).parents[1]
    found = {name: results.read_formats(apps / name) for name in cli.describe()}
    found = {name: record for name, record in found.items() if record}
    columns = ["saved_model"]
    columns += [
        f"litert{s}{k}" for s in ("", "-fixed") for k in ("", *(f"-{q}" for q in QUANTIZED))
    ]
    columns += ["onnx", _LOOPS]
    contents = {
        "Milliseconds for one input": ("milliseconds", "{:.3g}"),
        "Kilobytes": ("bytes", "{:,.0f}"),
        "Figure of the function on the whole test split": ("figure", "{:.4f}"),
    }
    parts = [
        "# Formats of exports",
        "`python benchmarks/formats.py` explains and writes this. The tables of the apps, with how "
        "far each format agrees with the model, are in their `results.md`. Full integer "
        "quantization is not among the formats: [why](../../saved_models/README.md).",
    ]
    for title, (key, form) in contents.items():
        rows = []
        for name, record in found.items():
            own = {_SHAPE.sub("-fixed", row["artifact"]): row[key] for row in record["formats"]}
            scale = 1e3 if key == "bytes" else 1
            cells = [form.format(own[c] / scale) if c in own else "" for c in columns]
            what = f"[{name}](../../apps/{name}/results.md#formats-of-exports)"
            figure = record["figure"].replace("_", " ")
            rows.append([what, record["data"], *([figure] if key == "figure" else []), *cells])
        heads = ["app", "data", *(["figure"] if key == "figure" else []), *map(label, columns)]
        parts += [f"## {title}", "\n".join(table(heads, rows))]
    about = sorted({record["hardware"] for record in found.values()})
    return "\n\n".join([*parts, f"One core: {'; '.join(about)}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    export = verbs.add_parser("export", help="export, and measure all but the times")
    export.add_argument("folder", type=Path)
    export.add_argument("--epochs", type=int, help="of trainings; by default those of the app")
    export.add_argument("apps", nargs="*", metavar="APP[=RUN]", default=list(cli.describe()))
    time = verbs.add_parser("time", help="measure the times of all exports of a folder")
    time.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import_tensorflow()
    if arguments.verb == "time":
        for path in sorted(arguments.folder.glob("*.json")):
            time_app(path.stem, arguments.folder)
        RESULTS.write_text(summary(), encoding="utf-8")
        print(RESULTS)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for each in arguments.apps:
        name, _, run = each.partition("=")
        with tempfile.TemporaryDirectory() as temporary:
            options = [] if arguments.epochs is None else [f"--epochs={arguments.epochs}"]
            run = run or train(name, Path(temporary), *options)
            export_app(name, run, arguments.folder)


if __name__ == "__main__":
    main()
