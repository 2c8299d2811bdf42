"""Asks an exported model in a clean process: `python -I parity.py REQUESTS ANSWERS`.

It imports TensorFlow, TensorFlow Text, NumPy and the LiteRT interpreter, and nothing of this
project: what it can load, a server can load.

REQUESTS is a JSON file: `{"saved_model": FOLDER or null, "litert": FILE or null, "requests":
[{"artefact": ..., "signature": ..., "inputs": {name: {"dtype": ..., "value": nested list}}}]}`.
ANSWERS gets a list of as many `{name: {"dtype": ..., "value": nested list}}`.
"""

import json
import sys

import numpy as np


def decode(tensor: dict) -> np.ndarray:
    """An array from JSON; strings travel as Latin-1, byte for byte."""
    if tensor["dtype"] == "string":
        array = np.array(tensor["value"], object)
        return np.vectorize(lambda s: s.encode("latin-1"), otypes=[object])(array)
    return np.array(tensor["value"], tensor["dtype"]).reshape(tensor["shape"])


def encode(array: np.ndarray) -> dict:
    """An array as JSON, with its shape, for an empty one has none of its own."""
    shape = list(array.shape)
    if array.dtype == object:
        as_text = np.vectorize(
            lambda b: (b if isinstance(b, bytes) else str(b).encode()).decode("latin-1"),
            otypes=[object],
        )
        value = as_text(array).tolist() if array.size else []
        return {"dtype": "string", "shape": shape, "value": value}
    return {"dtype": str(array.dtype), "shape": shape, "value": array.tolist()}


def answer(job: dict) -> list[dict]:
    """The answers to all requests, and a complaint if anything of this project was imported."""
    signatures = {}
    if job["saved_model"]:
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (its ops)

        loaded = tf.saved_model.load(job["saved_model"])
        signatures = loaded.signatures
    interpreter = None
    if job["litert"]:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=job["litert"])
    answers = []
    for request in job["requests"]:
        inputs = {name: decode(tensor) for name, tensor in request["inputs"].items()}
        if request["artefact"] == "litert":
            outputs = interpreter.get_signature_runner()(**inputs)
        else:
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            outputs = signatures[request["signature"]](**tensors)
            outputs = {name: value.numpy() for name, value in outputs.items()}
        answers.append({name: encode(np.asarray(value)) for name, value in outputs.items()})
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
