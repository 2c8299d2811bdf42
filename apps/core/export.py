"""Export: a SavedModel in TF Serving's layout and a LiteRT file, both proven before they land."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import tensorflow as tf

from apps.core import parity
from apps.core.errors import UsageError
from apps.core.evaluation import load_model
from apps.core.protocol import Assets, Service
from apps.core.runs import Run, app_name, environment, write_json
from layers.litert_tensorflow import convert

FORMATS = ("saved_model", "litert")
TOLERANCE = 1e-5
# The shapes that a LiteRT file is tried with, beside the examples: batch and length.
SHAPES = ((1, 7), (3, 60), (5, 200))


def export(
    app: ModuleType,
    run: Run,
    to: str | Path = "saved_models",
    formats: tuple[str, ...] = FORMATS,
) -> Path:
    """Writes `<to>/<app>/<n + 1>/` from a run.

    Returns:
        The folder.

    Raises:
        UsageError: if a format is unknown, or an artefact answers otherwise than the model.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise UsageError(f"--formats={','.join(formats)}: choose of {', '.join(FORMATS)}.")
    model, config, assets = load_model(app, run)
    about = {"app": app_name(app), "data": config.data, "run": str(run.path)}
    about["metrics"] = run.read_metrics()
    service = app.serve(model, assets)
    return write(service, assets, app.EXAMPLES, Path(to) / app_name(app), formats, about)


def write(
    service: Service,
    assets: Assets,
    examples: list,
    parent: Path,
    formats: tuple[str, ...] = FORMATS,
    about: dict | None = None,
) -> Path:
    """Exports a service as the next version below `parent`: all of it, or nothing."""
    if "litert" in formats and not service.litert:
        formats = tuple(name for name in formats if name != "litert")
    parent.mkdir(parents=True, exist_ok=True)
    # TF Serving looks at folders whose name is a number alone.
    folder = Path(tempfile.mkdtemp(prefix=".export-", dir=parent))
    try:
        signatures = {name: _signature(f) for name, f in service.functions.items()}
        if "saved_model" in formats:
            _refuse_device_ops(service)
            tf.saved_model.save(service, str(folder), signatures=service.functions)
            _write_warmup(folder, parent.name, service, examples)
        if "litert" in formats:
            function = service.functions[service.litert]
            specs = {spec.name: spec for spec in function.input_signature}
            with _quiet():
                (folder / "model.tflite").write_bytes(convert(function, specs))
        for name, lines in assets.items():
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        differences = check(service, folder, examples, formats)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            **(about or {}),
            "signatures": signatures,
            "litert": service.litert if "litert" in formats else None,
            "largest_difference": differences,
            "bytes": {str(path.relative_to(folder)): path.stat().st_size for path in files},
            **environment(),
        }
        write_json(folder / "manifest.json", manifest)
        folder.chmod(0o755)
        return _move_into_place(folder, parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check(
    service: Service, folder: Path, examples: list, formats: tuple[str, ...]
) -> dict[str, float]:
    """Compares the answers of the artefacts, in a clean process, with those of the service.

    Returns:
        The largest difference of a float, by artefact.

    Raises:
        UsageError: if one is above `TOLERANCE`, or anything else differs at all.
    """
    requests = []
    if "saved_model" in formats:
        for batch in (examples, *([example] for example in examples)):
            for name, inputs in service.requests(batch).items():
                requests.append(("saved_model", name, inputs))
    if "litert" in formats:
        for batch in (examples, *([example] for example in examples)):
            requests.append(("litert", service.litert, service.requests(batch)[service.litert]))
        whole = service.requests(examples)[service.litert]
        specs = service.functions[service.litert].input_signature
        for shape in SHAPES:
            tiled = {spec.name: _tile(whole[spec.name], spec.shape, shape) for spec in specs}
            requests.append(("litert", service.litert, tiled))
    answers = _ask(folder, formats, requests)
    largest = dict.fromkeys(formats, 0.0)
    for (artefact, name, inputs), found in zip(requests, answers, strict=True):
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        expected = {k: v.numpy() for k, v in service.functions[name](**tensors).items()}
        if expected.keys() != found.keys():
            raise UsageError(
                f"The {artefact} gives {sorted(found)} where the model gives {sorted(expected)}."
            )
        for output, value in expected.items():
            difference = _difference(value, parity.decode(found[output]))
            largest[artefact] = max(largest[artefact], difference)
            if not difference <= TOLERANCE:
                raise UsageError(
                    f"The {artefact} disagrees with the model: {name}, output {output!r}, by "
                    f"{difference:.3g} (at most {TOLERANCE:g} is allowed). Nothing was exported."
                )
    return largest


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind == "f":
        return float(np.max(np.abs(expected - found), initial=0.0))
    return 0.0 if np.array_equal(expected, found) else float("inf")


def _ask(folder: Path, formats: tuple[str, ...], requests: list) -> list[dict]:
    job = {
        "saved_model": str(folder) if "saved_model" in formats else None,
        "litert": str(folder / "model.tflite") if "litert" in formats else None,
        "requests": [
            {
                "artefact": artefact,
                "signature": name,
                "inputs": {key: parity.encode(np.asarray(v)) for key, v in inputs.items()},
            }
            for artefact, name, inputs in requests
        ],
    }
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "requests.json", Path(scratch) / "answers.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", parity.__file__, str(asked), str(answered)],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UsageError(f"The exported model does not run in a clean process: {reason[0]}")
        return json.loads(answered.read_text(encoding="utf-8"))


def _tile(array: np.ndarray, shape: tf.TensorShape, sizes: tuple[int, int]) -> np.ndarray:
    """Repeats an example array to another size along its first two dynamic axes."""
    sizes_left = list(sizes)
    for axis, size in enumerate(shape):
        if size is None and sizes_left:
            array = np.take(array, np.arange(sizes_left.pop(0)) % array.shape[axis], axis=axis)
    return array


def _signature(function) -> dict:
    def describe(tensors: dict) -> dict:
        return {
            name: {"dtype": t.dtype.name, "shape": t.shape.as_list()}
            for name, t in sorted(tensors.items())
        }

    concrete = function.get_concrete_function()
    inputs = {spec.name: spec for spec in function.input_signature}
    return {"inputs": describe(inputs), "outputs": describe(concrete.structured_outputs)}


def _refuse_device_ops(service: Service) -> None:
    """A SavedModel with an op of one device, or placed on one, does not load everywhere."""
    for name, function in service.functions.items():
        graph = function.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        for node in nodes:
            if "Cudnn" in node.op or "GPU" in node.device or "TPU" in node.device:
                raise UsageError(
                    f"{name} is bound to a device: op {node.op} {node.device} ({node.name})."
                )


def _write_warmup(folder: Path, model_name: str, service: Service, examples: list) -> None:
    """Requests that TF Serving answers before it calls a version ready."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for example in examples:
            inputs = service.requests([example])["serving_default"]
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = "serving_default"
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())


def _move_into_place(folder: Path, parent: Path) -> Path:
    while True:
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdigit()]
        final = parent / str(max(taken, default=0) + 1)
        try:
            # A rename onto a folder that is not empty fails: another export took the number.
            return folder.rename(final)
        except OSError:
            if not final.exists():
                raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter writes to the standard error from C++; it is shown if the conversion fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
