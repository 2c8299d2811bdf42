"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/forecasting/1 request.json

The request is one for TensorFlow Serving's REST interface, {"inputs": {"history": ...}}, in which
NaN is a missing value. A `series` is a number: that of its line in `series.txt`, from 1.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(folder: str, path: str) -> None:
    """Prints the mean and the quantiles of each window, step and column."""
    model = Interpreter(model_path=str(Path(folder) / "model.tflite"))
    forecast = model.get_signature_runner("forecast")
    request = json.loads(Path(path).read_text("utf-8"))["inputs"]
    types = {name: detail["dtype"] for name, detail in forecast.get_input_details().items()}
    found = forecast(**{name: np.array(request[name], types[name]) for name in types})
    for window, step, column in np.ndindex(found["mean"].shape):
        own = [found["mean"][window, step, column]]
        if "quantiles" in found:
            own += list(found["quantiles"][window, step, column])
        print(window + 1, step + 1, column + 1, *(f"{value:.4g}" for value in own), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python litert.py FOLDER REQUEST")
    main(*sys.argv[1:])
