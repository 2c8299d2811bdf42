"""Recurrent layers as language models of Tiny Shakespeare, in equal minutes and parameters.

    python benchmarks/cells.py --minutes=10
    python benchmarks/cells.py --minutes=10 --cells=LSTM:MinGRU --seeds=0,1,2

Each is trained by the app `language_model`, with `--residual-blocks`, three blocks of `WIDTH`
features, and as many units as fit into `PARAMETERS`; `LSTM` and `GRU` also as a plain stack of two
layers. Two short runs tell how many characters a minute each reads. The run that counts then reads
as many as fit into the minutes, with the learning rate's schedule over them; the table has the
minutes that it took. Its loss is that of the whole validation split. Needs the data of
`tiny_shakespeare` in `UNROLL_MANUAL_DIR`.

Runs in `benchmarks/results/cells.json` are not repeated: delete the file to start again. Writes
`benchmarks/results/cells.md`.
"""

import argparse
import bisect
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import processor, table

from unroll.apps.language_model import app, network

RESULTS = Path(__file__).parent / "results"
CELLS = (
    "LSTM, plain", "GRU, plain", "LSTM", "GRU", "MinGRU", "MinLSTM", "QRNN", "SRU", "IndRNN", "LRU",
    "RGLRU", "SLSTM", "MLSTM",
)  # fmt: skip
PARAMETERS, WIDTH, CHARACTERS = 1_150_000, 192, 68
EPOCHS = 5
# The tokens of the runs that measure the speed.
SHORT, LONGER = 50_000, 250_000


def options_of(cell: str) -> dict:
    """The options of the network of a cell, with the most units, a multiple of 8."""
    name, _, plain = cell.partition(", ")
    fixed = {"cell": name, "embedding_dim": WIDTH, "dropout": 0.1, "output_dropout": 0.1}
    fixed |= {"depth": 2} if plain else {"depth": 3, "residual_blocks": True}

    def parameters(units: int) -> int:
        config = replace(app.PRESETS["tiny_shakespeare"], **fixed, units=units)
        model = network.build(config, CHARACTERS)
        return sum(math.prod(weight.shape) for weight in model.trainable_weights)

    sizes = range(8, 2048, 8)
    units = sizes[bisect.bisect_right(sizes, PARAMETERS, key=parameters) - 1]
    return {**fixed, "units": units, "parameters": parameters(units)}


def train(options: dict, epochs: int, tokens: int, seed: int, folder: Path) -> Path:
    """A run with a number of tokens an epoch."""
    run = folder / f"{epochs}-{tokens}"
    given = {k: v for k, v in options.items() if k != "parameters"}
    given |= {"epochs": epochs, "patience": epochs, "epoch_tokens": tokens, "seed": seed}
    given = {name.replace("_", "-"): value for name, value in given.items()}
    unroll("train", "--data=tiny_shakespeare", *(f"--{k}={v}" for k, v in given.items()), run=run)
    return run


def unroll(verb: str, *arguments: str, run: Path) -> str:
    """The standard output of a command of the app for a run."""
    where = [f"--run={run}"] if verb == "train" else [str(run)]
    command = [sys.executable, "-m", "unroll", "language_model", verb, *where, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def seconds_of(run: Path) -> float:
    return json.loads((run / "environment.json").read_text("utf-8"))["seconds"]


def measure(cell: str, minutes: float, seed: int) -> dict:
    """One run of a cell."""
    options = options_of(cell)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, longer = (train(options, 1, tokens, seed, folder) for tokens in (SHORT, LONGER))
        rate = (LONGER - SHORT) / (seconds_of(longer) - seconds_of(short))  # tokens a second
        tokens = round(rate * 60 * minutes / EPOCHS)
        run = train(options, EPOCHS, tokens, seed, folder)
        figures = json.loads(unroll("evaluate", "--split=valid", run=run).splitlines()[-1])
        return {
            "cores": len(os.sched_getaffinity(0)),
            "units": options["units"],
            "parameters": options["parameters"],
            "characters": EPOCHS * tokens,
            "minutes": round(seconds_of(run) / 60, 1),
            "nats": figures["nats_per_token"],
        }


def main() -> None:
    """Measures what is missing, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default=":".join(CELLS), help="names, separated by colons")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    path = RESULTS / "cells.json"
    results = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for cell in arguments.cells.split(":"):
        for seed in arguments.seeds.split(","):
            key = f"{cell}/{arguments.minutes:g}/{seed}"
            if key not in results:
                results[key] = measure(cell, arguments.minutes, int(seed))
                print(key, results[key], flush=True)
                path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    rows = []
    for cell, minutes in dict.fromkeys(tuple(key.split("/")[:2]) for key in results):
        runs = [run for key, run in results.items() if key.startswith(f"{cell}/{minutes}/")]
        nats = [run["nats"] for run in runs]
        spread = f" ± {np.std(nats, ddof=1):.3f}" if len(nats) > 1 else ""
        characters = np.mean([run["characters"] for run in runs]) / 1e6
        first = runs[0]
        shown = f"{np.mean(nats):.3f}{spread} ({len(nats)})"
        taken = f"{np.mean([run['minutes'] for run in runs]):.1f}"
        sizes = (first["cores"], first["units"], f"{first['parameters']:,}")
        rows.append([float(minutes), shown, cell, taken, *sizes, f"{characters:.1f}"])
    rows = [[*row[2:], row[1]] for row in sorted(rows)]
    header = [
        *("layer", "minutes", "cores", "units", "parameters", "million characters"),
        "nats per character",
    ]
    text = "\n".join(
        [
            "# Language models of Tiny Shakespeare in equal minutes",
            "",
            f"{processor()}; the loss on the validation split, mean ± standard deviation (runs). "
            "`python benchmarks/cells.py` explains and writes this.",
            "",
            *table(header, rows),
            "",
        ]
    )
    print(text)
    (RESULTS / "cells.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
