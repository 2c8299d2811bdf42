"""Forecasts what follows a CSV file with an exported SavedModel, with TensorFlow only.

    python serving.py saved_models/forecasting/1 history.csv

The first column has times as ISO 8601, at regular steps; the header names the others. Empty cells
are missing values. Covariates that are known ahead of time go on for the steps to forecast, in rows
whose other cells are empty.
"""

import csv
import datetime
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(folder: str, path: str) -> None:
    """Prints the mean and the quantiles of each step and column."""
    names = (Path(folder) / "columns.txt").read_text("utf-8").splitlines()
    known = (Path(folder) / "known.txt").read_text("utf-8").splitlines()
    forecast = tf.saved_model.load(folder).signatures["serving_default"]
    accepted = forecast.structured_input_signature[1]
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    cells = np.array([[cell or "nan" for cell in row[1:]] for row in rows], "float32")
    columns = {name: cells[:, k] for k, name in enumerate(header[1:])}
    values = np.stack([columns[name] for name in names], axis=-1)
    length = 1 + int(np.flatnonzero(~np.isnan(values).all(axis=-1))[-1])
    times = [
        datetime.datetime.fromisoformat(row[0]).replace(tzinfo=datetime.UTC).timestamp()
        for row in rows[:length]
    ]
    inputs = {"history": values[None, :length]}
    horizon = forecast.structured_outputs["mean"].shape[1]
    if "times" in accepted:
        ahead = times[-1] + (times[-1] - times[-2]) * np.arange(1, horizon + 1)
        inputs["times"] = np.array([times], "int64")
        inputs["future_times"] = np.array([ahead], "int64")
    if "known" in accepted:
        covariates = np.stack([columns[name] for name in known], axis=-1)
        inputs["known"] = covariates[None, :length]
        inputs["future_known"] = covariates[None, length : length + horizon]
    if "series" in accepted:
        inputs["series"] = np.array([""])  # a name of series.txt
    found = forecast(**{name: tf.constant(value) for name, value in inputs.items()})
    for step, means in enumerate(found["mean"][0].numpy()):
        for k, name in enumerate(names):
            row = [means[k], *(found["quantiles"][0, step, k] if "quantiles" in found else ())]
            print(step + 1, name, *(f"{float(value):.4g}" for value in row), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python serving.py FOLDER FILE")
    main(*sys.argv[1:])
