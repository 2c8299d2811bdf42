"""Runs an exported model in a clean process, which executes this file with `python -I`.

The process imports TensorFlow, TensorFlow Text, NumPy, the LiteRT interpreter and ONNX Runtime, and
nothing of this project: a model that it can load, a server can load.

It reads jobs from its standard input, one JSON object per line: `{"folder": FOLDER, "requests":
[{"artifact": ..., "signature": ..., "inputs": {name: TENSOR}}]}`, where a TENSOR is `{"dtype": ...,
"shape": ..., "value": nested list}`. For each job it writes a line, either
`{"outputs": [{name: TENSOR}, ...]}`, one for each request, or `{"error": message}`. The artifacts
are `saved_model`, loaded with `tf.saved_model.load`; `saved_model_session`, loaded like TF Serving
does, which restores the variables in another way; `litert`, or `litert-...` for
`model-....tflite`; and `onnx`, in which each signature has a file, run by ONNX Runtime.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Model = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


class Process:
    """A clean process. It ends with the `with` block."""

    def __enter__(self) -> "Process":
        # On the CPU: the artifacts must load without an accelerator.
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *exception) -> None:
        if exception and exception[0]:
            self._process.kill()  # it may be in the middle of a long job
        with contextlib.suppress(BrokenPipeError):  # it ended with unread jobs
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def run(
        self, folder: Path, requests: list[tuple[str, str, dict]]
    ) -> list[dict[str, np.ndarray]]:
        """The outputs of an export for each request.

        Args:
            folder: of the SavedModel; it also contains the LiteRT files.
            requests: triples of artifact, signature and inputs.

        Raises:
            RuntimeError: with one line, if an artifact cannot be loaded or run.
        """
        folder = folder.resolve()  # this process may have changed its working directory
        job: dict = {"folder": str(folder)}
        job["requests"] = [
            {"artifact": artifact, "signature": name, "inputs": _map(encode, inputs)}
            for artifact, name, inputs in requests
        ]
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit code {code}") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return [_map(decode, outputs) for outputs in answer["outputs"]]


def run(folder: Path, requests: list[tuple[str, str, dict]]) -> list[dict[str, np.ndarray]]:
    """Like `Process.run`, in a process that is started for it."""
    with Process() as process:
        return process.run(folder, requests)


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference of floats; 0 or infinity for other types.

    It is relative to the largest of the expected values if that is above 1, such as 1,000 of a
    forecast in the units of its data.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind == "f":
        unequal = expected != found  # infinity minus infinity is NaN
        largest = np.max(np.abs(expected[np.isfinite(expected)]), initial=1.0)
        return float(np.max(np.abs(expected[unequal] - found[unequal]), initial=0.0) / largest)
    return 0.0 if np.array_equal(expected, found) else float("inf")


def decode(tensor: dict) -> np.ndarray:
    """An array from JSON. Strings are encoded as Latin-1, byte for byte."""
    if tensor["dtype"] == "string":
        array = np.array(tensor["value"], object).reshape(tensor["shape"])
        return np.vectorize(lambda s: s.encode("latin-1"), otypes=[object])(array)
    return np.array(tensor["value"], tensor["dtype"]).reshape(tensor["shape"])


def encode(array: np.ndarray) -> dict:
    """An array for JSON, with its shape, which the nested list of an empty array lacks."""
    array = np.asarray(array)
    shape, dtype = list(array.shape), str(array.dtype)
    if array.dtype.kind in "OSU":
        as_bytes = (s if isinstance(s, bytes) else str(s).encode() for s in array.flat)
        text = np.array([None, *(s.decode("latin-1") for s in as_bytes)], object)[1:]
        array, dtype = text.reshape(shape), "string"
    return {"dtype": dtype, "shape": shape, "value": array.tolist()}


def _map(function: Callable, tensors: dict) -> dict:
    return {name: function(tensor) for name, tensor in tensors.items()}


def load(folder: str) -> Model:
    """A SavedModel, loaded with `tf.saved_model.load`."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers its ops)

    loaded = tf.saved_model.load(folder)

    def call(signature, inputs):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {k: v.numpy() for k, v in loaded.signatures[signature](**tensors).items()}

    call.loaded = loaded  # keeps the variables alive
    return call


def load_in_session(folder: str) -> Model:
    """A SavedModel in a session, restored by the operations that TF Serving runs."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    session = tf.compat.v1.Session(graph=tf.Graph())
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def

    def call(signature, inputs):
        names = signatures[signature]
        feed = {names.inputs[name].name: value for name, value in inputs.items()}
        return session.run({k: info.name for k, info in names.outputs.items()}, feed)

    return call


def litert_file(artifact: str) -> str:
    """The name of the file of an artifact `litert` or `litert-...`."""
    return f"model{artifact.removeprefix('litert')}.tflite"


def load_litert(path: str) -> Model:
    """A LiteRT file in the interpreter, which has only built-in ops."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    return lambda signature, inputs: interpreter.get_signature_runner(signature)(**inputs)


def onnx_file(signature: str) -> str:
    """The name of the ONNX file of a function."""
    return f"{signature}.onnx"


def load_onnx(folder: str) -> Model:
    """The ONNX files of a folder in ONNX Runtime. A result `next_x`, where x is an input, is x."""
    import onnxruntime

    sessions = {}

    def call(signature, inputs):
        if signature not in sessions:
            path = str(Path(folder, onnx_file(signature)))
            providers = ["CPUExecutionProvider"]
            sessions[signature] = onnxruntime.InferenceSession(path, providers=providers)
        session = sessions[signature]
        names = [each.name for each in session.get_outputs()]
        own = [name.removeprefix("next_") for name in names]
        names = [x if x in inputs else name for name, x in zip(names, own, strict=True)]
        return dict(zip(names, session.run(None, inputs), strict=True))

    return call


def outputs_of(job: dict) -> list[dict]:
    """The outputs for all requests of a job.

    Raises:
        RuntimeError: if an artifact fails, or if loading it imported a module of this project.
    """
    loaders = {"saved_model": load, "saved_model_session": load_in_session, "onnx": load_onnx}
    loaded: dict[str, Model] = {}
    outputs = []
    for request in job["requests"]:
        artifact = request["artifact"]
        try:
            if artifact not in loaded and artifact.startswith("litert"):
                path = Path(job["folder"], litert_file(artifact))
                loaded[artifact] = load_litert(str(path))
            elif artifact not in loaded:
                loaded[artifact] = loaders[artifact](job["folder"])
            found = loaded[artifact](request["signature"], _map(decode, request["inputs"]))
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            raise RuntimeError(f"{artifact}: {type(error).__name__}: {reason}") from error
        outputs.append(_map(encode, found))
    project = [name for name in sys.modules if name.split(".")[0] == "unroll"]
    if project:
        raise RuntimeError(f"The exported model imported {sorted(project)}.")
    return outputs


def main() -> None:
    """Processes the jobs on the standard input."""
    # Libraries that print to the standard output must not break the protocol.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                answer = {"outputs": outputs_of(json.loads(line))}
            except RuntimeError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
