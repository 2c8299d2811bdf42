"""Export: a SavedModel in TF Serving's layout, LiteRT and ONNX files, all verified."""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core import card, litert, onnx_files, parity
from unroll.apps.core import config as configs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.files import (
    is_abandoned,
    unique_name,
    write_assets,
    write_bytes,
    write_json,
)
from unroll.apps.core.protocol import Assets, Service, Trained, hook
from unroll.apps.core.runs import Run, app_name, environment

FORMATS = ("saved_model", "litert", "onnx")
DEFAULT_FORMATS = FORMATS[:2]
TOLERANCE = 1e-5


def export(
    app: ModuleType,
    run: Run,
    to: str | Path = "saved_models",
    formats: tuple[str, ...] = DEFAULT_FORMATS,
    name: str | None = None,
    quantize: str = "",
    litert_shapes: str = "",
    litert_loops: bool = False,
) -> Path:
    """Writes `<to>/<name>/<n + 1>/` from a run, in float32. The name defaults to the app's.

    Further LiteRT files have weights of the types `quantize`, and the shapes `litert_shapes`: see
    `litert.parse_quantize` and `litert.parse_shapes`. With `litert_loops`, LSTMs of fixed shape are
    loops, which LiteRT.js needs, in place of one operation.

    Returns:
        The folder.

    Raises:
        UsageError: if a format, a type or a shape is not possible, the folder or an artifact cannot
            be written, or an artifact's outputs differ from those of the model.
    """
    kinds, shapes = litert.parse_quantize(quantize), litert.parse_shapes(litert_shapes)
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        raise UsageError(f"--formats={','.join(formats)}: choose from {', '.join(FORMATS)}.")
    if "onnx" in formats:
        onnx_files.require_packages()
    if (kinds or shapes) and "litert" not in formats:
        raise UsageError("--quantize and --litert-shapes need litert among the --formats.")
    if litert_loops and not shapes:
        raise UsageError("--litert-loops is for files of fixed shapes: add --litert-shapes.")
    trained = load_trained(app, run)
    config, assets = trained.config, trained.assets
    if config.precision != "float32":
        # LiteRT has no kernels for half precision, and the weights are float32 anyway.
        single = replace(config, precision="float32")
        model = app.build(single, assets)
        model.set_weights(trained.model.get_weights())
        trained = Trained(single, assets, model)
    about = {"app": app_name(app), "data": config.data, "run": str(run.path)}
    about |= {"config": configs.to_json(config), "assets": sorted(assets)}
    about["metrics"] = run.read_metrics()
    parent = Path(to) / (name or app_name(app))
    service, files = app.serve(trained), None
    if kinds or shapes:
        if not service.litert:
            raise UsageError("--quantize and --litert-shapes: this model has no LiteRT function.")
        files = litert.files(service, shapes, kinds, fuse=not litert_loops)
    further = {**hook(app, "export_files")(trained), card.NAME: card.for_export(app, run)}
    return write(service, assets, app.examples(), parent, formats, about, further, files)


def write(
    service: Service,
    assets: Assets,
    examples: list,
    parent: Path,
    formats: tuple[str, ...] = DEFAULT_FORMATS,
    about: dict | None = None,
    further: dict[str, bytes] | None = None,
    litert_files: list[litert.File] | None = None,
) -> Path:
    """Exports a service as the next version in `parent`, completely or not at all.

    `further` has the contents of further files by name. By default there is one LiteRT file, of
    dynamic shapes in float32.
    """
    if not service.litert:
        formats = tuple(name for name in formats if name == "saved_model")
    files = (litert_files or litert.files(service)) if "litert" in formats else []
    if not formats:
        raise UsageError("This model has no LiteRT or ONNX function: use --formats=saved_model.")
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(".export-*"):
            if is_abandoned(left):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        # TF Serving reads only folders whose name is a number.
        folder = parent / f".export-{unique_name()}"
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"{parent} cannot be written to: {error.strerror}.") from None
    try:
        signatures = {name: _signature(f) for name, f in service.functions.items()}
        if "saved_model" in formats:
            _refuse_device_ops(service)
            # A server needs no gradients.
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            with _quiet("saved_model"):
                tf.saved_model.save(_trackable(service), str(folder), _guarded(service), options)
            with _quiet("file of warm-up requests"):
                _write_warmup(folder, parent.name, service, examples)
        of_litert = {name: _signature(f) for name, f in service.litert.items()}
        for file in files:
            with _quiet(file.artifact):
                write_bytes(folder / file.name, file.content(parent.name, assets, of_litert))
        of_onnx = {}
        in_onnx = onnx_files.functions(service) if "onnx" in formats else {}
        for name, function in in_onnx.items():
            of_onnx[name] = onnx_files.describe(name, _signature(function))
            with _quiet("onnx"):
                write_bytes(folder / of_onnx[name]["file"], onnx_files.content(function))
        write_assets(folder, assets)
        for name, content in (further or {}).items():
            write_bytes(folder / name, content)
        differences, agreement = check(service, folder, examples, formats, files, in_onnx)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            **(about or {}),
            "signatures": signatures,
            "litert": of_litert if files else None,
            "onnx": of_onnx or None,
            "largest_difference": differences,
            "agreement": agreement,
            "bytes": {str(path.relative_to(folder)): path.stat().st_size for path in paths},
            **environment(),
        }
        write_json(folder / "manifest.json", manifest)
        folder.chmod(0o755)
        return _move_into_place(folder, parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # another export may use it by now
                path.rmdir()
        raise


def check(
    service: Service,
    folder: Path,
    examples: list,
    formats: tuple[str, ...],
    litert_files: list[litert.File] | None = None,
    in_onnx: dict | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Compares the outputs of the artifacts, in a clean process, with those of the service.

    Returns:
        By artifact, the largest difference of a float; and for those of quantized weights the share
        of the other values that are equal, if there are any.

    Raises:
        UsageError: if a difference is above `TOLERANCE`, or other values differ at all; for
            quantized weights, above `litert.TOLERANCES`.
        ValueError: if the service has no request for one of its functions.
    """
    batches = [service.requests(batch) for batch in (examples, *([e] for e in examples))]
    if missing := (service.functions.keys() | service.litert.keys()) - batches[0].keys():
        raise ValueError(f"The service has no requests for {', '.join(sorted(missing))}.")
    requests = []
    if "saved_model" in formats:
        for artifact in ("saved_model", "saved_model_session"):
            for each in batches:
                requests += [(artifact, name, each[name]) for name in service.functions]
    files = (litert_files or litert.files(service)) if "litert" in formats else []
    for file in files:
        requests += litert.requests(file, service, batches)
    requests += onnx_files.requests(in_onnx or {}, batches)
    try:
        answers = parity.run(folder, requests)
    except RuntimeError as error:
        raise UsageError(f"The export does not run in a clean process: {error}") from None
    tolerant = {
        file.artifact: litert.Agreement(*litert.TOLERANCES[file.quantize])
        for file in files
        if file.quantize
    }
    largest: dict[str, float] = {}
    # In reverse order: outputs that depend on earlier requests would agree in the same order.
    for (artifact, name, inputs), found in reversed([*zip(requests, answers, strict=True)]):
        functions = service.functions if artifact.startswith("saved_model") else service.litert
        if artifact == "onnx":
            functions = in_onnx
        expected = _call(functions[name], inputs)
        if expected.keys() != found.keys():
            raise UsageError(
                f"The {artifact} returns {sorted(found)}, but the model {sorted(expected)}."
            )
        if artifact in tolerant:
            tolerant[artifact].add(name, expected, found)
            continue
        for output, value in expected.items():
            difference = parity.difference(value, found[output])
            largest[artifact] = max(largest.get(artifact, 0.0), difference)
            if not difference <= TOLERANCE:
                raise UsageError(
                    f"The {artifact} differs from the model: {name}, output {output!r}, by "
                    f"{difference:.3g} (at most {TOLERANCE:g} is allowed). Nothing was exported."
                )
    for artifact, agreement in tolerant.items():
        if error := agreement.error():
            raise UsageError(
                f"The {artifact} differs from the model: {error}. Nothing was exported."
            )
        largest[artifact] = agreement.largest
    return largest, {name: each.share for name, each in tolerant.items() if each.total}


def _call(function, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # The clean process runs on the CPU, which has no TensorFloat-32.
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        return {k: v.numpy() for k, v in function(**tensors).items()}
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


def _trackable(service: Service) -> tf.Module:
    """The content of the SavedModel: the functions' variables and the service's tables.

    It tracks the TensorFlow variables instead of Keras's. `tf.saved_model.save` copies a tracked
    Keras variable and restores the copy: a server, unlike `tf.saved_model.load`, would find the
    original without a value.
    """
    module = tf.Module()
    concrete = [function.get_concrete_function() for function in service.functions.values()]
    module.used = list({id(v): v for each in concrete for v in each.variables}.values())
    module.keep = [
        each for each in tf.nest.flatten(service.keep) if not isinstance(each, keras.Variable)
    ]
    return module


def _guarded(service: Service) -> dict:
    """The functions, each of which first compares the shapes of its inputs with its signature.

    A server does not. Some kernels, such as oneDNN's convolution, end the process if an input has
    another rank.
    """
    return {name: _with_shapes(function) for name, function in service.functions.items()}


def _with_shapes(function):
    specs = function.input_signature

    @tf.function(input_signature=specs, autograph=False)
    def guarded(*tensors):
        given = zip(specs, tensors, strict=True)
        return function(**{spec.name: tf.ensure_shape(x, spec.shape) for spec, x in given})

    return guarded


def _signature(function) -> dict:
    def describe(tensors: dict) -> dict:
        return {
            name: {
                "dtype": t.dtype.name,
                "shape": t.shape.as_list() if t.shape.rank is not None else None,
            }
            for name, t in sorted(tensors.items())
        }

    concrete = function.get_concrete_function()
    inputs = {spec.name: spec for spec in function.input_signature}
    return {"inputs": describe(inputs), "outputs": describe(concrete.structured_outputs)}


def _refuse_device_ops(service: Service) -> None:
    """Raises a `UsageError` if a function has an op that runs on one kind of device only."""
    for name, function in service.functions.items():
        graph = function.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        for node in nodes:
            if "Cudnn" in node.op or re.search("device:(?!CPU)|job:(?!localhost)", node.device):
                device = f" on {node.device}" if node.device else ""
                raise UsageError(f"{name} needs one device: op {node.op}{device} ({node.name}).")


def _write_warmup(folder: Path, model_name: str, service: Service, examples: list) -> None:
    """Writes the requests that TF Serving runs before it serves a version."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for example in examples:
            requests = service.requests([example])
            for signature in service.functions:
                inputs = requests[signature]
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                for key, value in inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                writer.write(log.SerializeToString())


def _move_into_place(folder: Path, parent: Path) -> Path:
    while True:
        # TF Serving does not read a number that no int64 holds.
        taken = [int(p.name) for p in parent.iterdir() if re.fullmatch("[0-9]{1,18}", p.name)]
        final = parent / str(max(taken, default=0) + 1)
        try:
            # The rename fails if another export took the number meanwhile.
            return folder.rename(final)
        except OSError:
            if not final.exists():
                raise


@contextlib.contextmanager
def _quiet(artifact: str) -> Iterator[None]:
    """Discards what TensorFlow's C++ code writes to the standard error. A failure is one line."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 400 else f"{reason[:400]} ..."
        raise UsageError(f"The {artifact} cannot be written: {reason}") from error
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
