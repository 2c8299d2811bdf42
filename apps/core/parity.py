"""Asks an exported model in a clean process: `python -I parity.py REQUESTS ANSWERS`.

It imports TensorFlow, TensorFlow Text, NumPy and the LiteRT interpreter, and nothing of this
project: what it can load, a server can load.

REQUESTS is a JSON file: `{"saved_model": FOLDER, "litert": FILE, "requests": [{"artefact": ...,
"signature": ..., "inputs": {name: TENSOR}}]}`, where a TENSOR is `{"dtype": ..., "shape": ...,
"value": nested list}`. ANSWERS gets a list of as many `{name: TENSOR}`. The artefacts are
`saved_model`, as Python loads it; `saved_model_session`, as TF Serving does, which restores the
variables in another way; and `litert`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Ask = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


def ask(folder: Path, requests: list[tuple[str, str, dict]]) -> list[dict[str, np.ndarray]]:
    """Runs this file in a process of its own.

    Args:
        folder: of the SavedModel, with `model.tflite` in it.
        requests: triples of artefact, signature and inputs.

    Returns:
        The outputs for each request.

    Raises:
        RuntimeError: with the last line that the process wrote, if it failed.
    """
    job = {"saved_model": str(folder), "litert": str(folder / "model.tflite")}
    job["requests"] = [
        {"artefact": artefact, "signature": name, "inputs": _each(encode, inputs)}
        for artefact, name, inputs in requests
    ]
    # On the CPU: that it loads without an accelerator is part of the proof.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "requests.json", Path(scratch) / "answers.json"
        asked.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", __file__, str(asked), str(answered)],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **quiet},
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise RuntimeError(last[0].removeprefix("RuntimeError: "))
        return [_each(decode, outputs) for outputs in json.loads(answered.read_text("utf-8"))]


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference of floats; 0 or infinity for anything else."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind == "f":
        unequal = expected != found  # infinity less itself is no number
        return float(np.max(np.abs(expected[unequal] - found[unequal]), initial=0.0))
    return 0.0 if np.array_equal(expected, found) else float("inf")


def decode(tensor: dict) -> np.ndarray:
    """An array from JSON; strings travel as Latin-1, byte for byte."""
    if tensor["dtype"] == "string":
        array = np.array(tensor["value"], object).reshape(tensor["shape"])
        return np.vectorize(lambda s: s.encode("latin-1"), otypes=[object])(array)
    return np.array(tensor["value"], tensor["dtype"]).reshape(tensor["shape"])


def encode(array: np.ndarray) -> dict:
    """An array as JSON, with its shape, for an empty one has none of its own."""
    array = np.asarray(array)
    shape, dtype = list(array.shape), str(array.dtype)
    if array.dtype.kind in "OSU":
        as_bytes = (s if isinstance(s, bytes) else str(s).encode() for s in array.flat)
        text = np.array([None, *(s.decode("latin-1") for s in as_bytes)], object)[1:]
        array, dtype = text.reshape(shape), "string"
    return {"dtype": dtype, "shape": shape, "value": array.tolist()}


def _each(function: Callable, tensors: dict) -> dict:
    return {name: function(tensor) for name, tensor in tensors.items()}


def load(folder: str) -> Ask:
    """A SavedModel as `tf.saved_model.load` gives it."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (its ops)

    loaded = tf.saved_model.load(folder)

    def ask(signature, inputs):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return {k: v.numpy() for k, v in loaded.signatures[signature](**tensors).items()}

    ask.loaded = loaded  # the variables live as long as it does
    return ask


def load_in_session(folder: str) -> Ask:
    """A SavedModel in a session, with the operations that TF Serving runs to restore it."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    session = tf.compat.v1.Session(graph=tf.Graph())
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def

    def ask(signature, inputs):
        names = signatures[signature]
        feed = {names.inputs[name].name: value for name, value in inputs.items()}
        return session.run({k: info.name for k, info in names.outputs.items()}, feed)

    return ask


def load_litert(path: str) -> Ask:
    """A LiteRT file in the interpreter, which has built-in ops alone."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path).get_signature_runner()
    return lambda signature, inputs: runner(**inputs)


def answer(job: dict) -> list[dict]:
    """The answers to all requests, and a complaint if anything of this project was imported."""
    loaders = {"saved_model": load, "saved_model_session": load_in_session, "litert": load_litert}
    loaded: dict[str, Ask] = {}
    answers = []
    for request in job["requests"]:
        artefact = request["artefact"]
        try:
            if artefact not in loaded:
                loaded[artefact] = loaders[artefact](job[artefact.removesuffix("_session")])
            outputs = loaded[artefact](request["signature"], _each(decode, request["inputs"]))
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            raise RuntimeError(f"{artefact}: {type(error).__name__}: {reason}") from error
        answers.append(_each(encode, outputs))
    foreign = {"apps", "layers", "pipelines"} & {name.split(".")[0] for name in sys.modules}
    if foreign:
        raise RuntimeError(f"The exported model imported {sorted(foreign)}.")
    return answers


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    found = answer(given)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(found, file)
