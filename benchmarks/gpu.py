"""The speed of recurrent layers on a GPU, on the JAX and PyTorch backends.

A forward pass and a training step (gradients of the inputs and of all weights) at batch size 64,
compiled on JAX and eager on PyTorch, medians. Beside the layers: `keras.layers.LSTM` and
`torch.nn.LSTM`. "loop" is a layer with `use_cudnn=False`, "fused" one with `use_cudnn=True`.

On PyTorch, cuDNN may round to TF32 in the rows "TF32" only; it does so by default, but not in the
layers of this package. In JAX the precision is that of its default, TF32.

    KERAS_BACKEND=torch python benchmarks/gpu.py --seconds=200 --json=torch.json
    KERAS_BACKEND=jax python benchmarks/gpu.py --seconds=300 --json=jax.json
    python benchmarks/gpu.py --tables torch.json jax.json > benchmarks/results/recurrent-gpu.md

It stops after `--seconds`; what is measured by then is printed and in the file.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from measuring import table

from unroll import layers

BACKEND = keras.backend.backend()
BATCH, LENGTHS, UNITS = 64, (100, 1000), (256, 1024)
DTYPES = ("float32", "mixed_bfloat16")
# The rows: a layer, or another implementation of an LSTM.
ROWS = {
    "LSTM fused": lambda **options: layers.LSTM(use_cudnn=True, **options),
    "LSTM loop": lambda **options: layers.LSTM(use_cudnn=False, **options),
    "GRU": lambda **options: layers.GRU(**options),
    "PeepholeLSTM": lambda **options: layers.PeepholeLSTM(**options),
    "LayerNormLSTM": lambda **options: layers.LayerNormLSTM(**options),
    "keras LSTM": lambda **options: keras.layers.LSTM(**options),
    "keras LSTM TF32": lambda **options: keras.layers.LSTM(**options),
    "torch.nn.LSTM": None,
    "torch.nn.LSTM TF32": None,
}


def of_jax(layer, inputs) -> dict:
    import jax

    def run(values, x, training):
        mapping = zip(layer.trainable_variables, values, strict=True)
        fixed = [(v, v.value) for v in layer.non_trainable_variables]
        with keras.StatelessScope(state_mapping=[*mapping, *fixed]):
            return layer(x, training=training)

    def loss(values, x):
        return keras.ops.sum(keras.ops.square(run(values, x, True).astype("float32")))

    values, x = [v.value for v in layer.trainable_variables], jax.numpy.asarray(inputs)
    forward = jax.jit(lambda values, x: run(values, x, False))
    train = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return {
        "forward": lambda: jax.block_until_ready(forward(values, x)),
        "train": lambda: jax.block_until_ready(train(values, x)),
    }


def of_torch(layer, inputs) -> dict:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.tensor(inputs, device=device, requires_grad=True)
    plain = isinstance(layer, torch.nn.LSTM)
    if plain:
        layer, x = layer.to(device), x.detach().to(next(layer.parameters()).dtype).requires_grad_()
        weights = list(layer.parameters())
    else:
        weights = [w.value for w in layer.trainable_variables]

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def outputs():
        return layer(x)[0] if plain else layer(x)

    def forward():
        with torch.no_grad():
            outputs()
        wait()

    def train():
        torch.autograd.grad(outputs().float().square().sum(), [x, *weights])
        wait()

    return {"forward": forward, "train": train}


def functions(row: str, length: int, units: int, dtype: str) -> dict | None:
    """The forward pass and the training step of a row, or None if the backend does not have it."""
    inputs = np.random.default_rng(0).normal(size=(BATCH, length, units)).astype("float32")
    if "TF32" in row and (BACKEND != "torch" or dtype != "float32"):
        return None
    if BACKEND == "torch":
        import torch

        torch.backends.cudnn.rnn.fp32_precision = "tf32" if "TF32" in row else "ieee"
    if row.startswith("torch.nn"):
        if BACKEND != "torch":
            return None
        kind = torch.float32 if dtype == "float32" else torch.bfloat16
        return of_torch(torch.nn.LSTM(units, units, batch_first=True, dtype=kind), inputs)
    layer = ROWS[row](units=units, return_sequences=True, dtype=dtype)
    layer.build(inputs.shape)
    return (of_jax if BACKEND == "jax" else of_torch)(layer, inputs)


def milliseconds(function, seconds: float = 0.5) -> float:
    """The median time of calls, two to thirty of them, after two that are not measured."""
    function()
    start = time.perf_counter()
    function()
    count = int(np.clip(seconds / (time.perf_counter() - start), 2, 30))
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def device() -> str:
    if BACKEND == "jax":
        import jax

        return jax.devices()[0].device_kind
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def versions() -> str:
    library = __import__(BACKEND)
    return f"keras {keras.__version__}, {BACKEND} {library.__version__}"


def tables(files: list[Path]) -> list[str]:
    """The lines of Markdown for files of results."""
    lines = []
    for file in files:
        found = json.loads(file.read_text())
        lines += [f"## {found['versions']} on {found['device']}", ""]
        lines += [f"Milliseconds at B = {BATCH} and D = U, forward / training step.", ""]
        measured = {(x["row"], x["T"], x["U"], x["dtype"]): x for x in found["rows"]}
        sizes = list(itertools.product(LENGTHS, UNITS))
        for dtype in DTYPES:
            rows = []
            for row in ROWS:
                cells = [measured.get((row, *size, dtype)) for size in sizes]
                if any(cells):
                    shown = [x and f"{x['forward']:.2f} / {x['train']:.2f}" for x in cells]
                    rows.append([row, *(x or "" for x in shown)])
            header = [dtype, *(f"T {t:,}, U {u:,}" for t, u in sizes)]
            lines += [*table(header, rows), ""]
    return lines[:-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--tables", type=Path, nargs="*", help="files of results to show")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--units", default=",".join(map(str, UNITS)))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    arguments = parser.parse_args()
    if arguments.tables:
        print("\n".join(tables(arguments.tables)))
        return
    if arguments.json is None:
        parser.error("--json: where to write the results?")
    end = time.monotonic() + arguments.seconds
    found = {"device": device(), "versions": versions(), "rows": []}
    print(f"{found['device']}, {found['versions']}", flush=True)
    cases = itertools.product(
        map(int, arguments.lengths.split(",")),
        arguments.dtypes.split(","),
        map(int, arguments.units.split(",")),
        [row for row in ROWS if row in arguments.rows.split(",")],
    )
    for length, dtype, units, row in cases:
        if time.monotonic() > end:
            print("out of time")
            break
        try:
            given = functions(row, length, units, dtype)
            if given is None:
                continue
            taken = {way: milliseconds(function) for way, function in given.items()}
        except ValueError as error:
            print(f"{row}: {error}".splitlines()[0], flush=True)
            continue
        case = {"row": row, "T": length, "U": units, "dtype": dtype}
        found["rows"].append(case | taken)
        print(*case.values(), *(f"{way} {t:.2f}" for way, t in taken.items()), flush=True)
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
