"""The speed of the recurrent layers, compared with the alternatives.

For each layer and shape: the forward pass and a training step (gradients of the inputs and of all
weights), compiled (on PyTorch: eager) and interleaved in one process, medians:

- the layer; `keras.layers.LSTM`; `keras.layers.RNN` with the layer's own cell; `torch.nn.LSTM`
  if PyTorch is installed;
- the limit: only the layer's large matrix products, and its small one T times.

    python benchmarks/recurrent.py                       # all layers and shapes, about 15 minutes
    python benchmarks/recurrent.py --layers=LSTM,GRU --shapes=32,100,128,128
    KERAS_BACKEND=jax python benchmarks/recurrent.py     # uses a GPU if JAX has one
    KERAS_BACKEND=torch python benchmarks/recurrent.py
    python benchmarks/recurrent.py --only-parallel       # also beside minGRU-pytorch, if installed
    taskset --cpu-list 1 python benchmarks/recurrent.py  # on one core

`benchmarks/gpu.py` is for GPUs.

The tables are printed, and written to `benchmarks/results/recurrent-<backend>-<device>.md`, or
`-<device>-one-core.md`.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops
from measuring import in_a_fresh_process, peak_of, processor, table

from unroll import layers
from unroll.layers import backend
from unroll.layers.recurrent import RECURRENT_LAYERS

SHAPES = ((32, 100, 128, 128), (64, 50, 256, 256), (32, 200, 128, 256), (1, 100, 128, 256))
LENGTHS = (125, 250, 500, 1000, 2000)  # at B, D, U = 16, 64, 64
PARALLEL_SHAPE, PARALLEL_LENGTHS = (16, 128, 128), (100, 1000, 4000)
WITHOUT_MATRIX = ("MinGRU", "MinLSTM", "QRNN", "SRU", "LRU", "RGLRU", "MLSTM")
MEMORY_SHAPE = (32, 200, 128, 256)
RESULTS = Path(__file__).parent / "results"


def random(*shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape, scale=0.1).astype("float32")


def compiled(function, *arguments):
    """A compiled function of tensors. A call waits until the computation ends."""
    tensors = [ops.convert_to_tensor(x) for x in arguments]
    if keras.backend.backend() == "jax":
        import jax

        traced = jax.jit(function)
        return lambda: jax.block_until_ready(traced(*tensors))
    if keras.backend.backend() == "torch":
        return lambda: function(*tensors)
    import tensorflow as tf

    traced = tf.function(function, autograph=False)

    def run():
        traced(*tensors)
        tf.test.experimental.sync_devices()

    return run


def forward(layer, inputs):
    if keras.backend.backend() == "torch":
        import torch

        return compiled(torch.no_grad()(lambda x: layer(x)), inputs)
    if keras.backend.backend() == "tensorflow":
        return compiled(layer, inputs)

    def run(values, x):
        with keras.StatelessScope(state_mapping=zip(layer.variables, values, strict=True)):
            return layer(x)

    values = [v.value for v in layer.variables]
    return compiled(lambda x: run(values, x), inputs)


def training_step(layer, inputs):
    """The gradients of inputs and weights, for the sum of the squares of the outputs."""
    if keras.backend.backend() == "jax":
        import jax

        fixed = layer.non_trainable_variables

        def loss(values, x):
            mapping = [*zip(layer.trainable_variables, values, strict=True)]
            mapping += [(v, v.value) for v in fixed]
            with keras.StatelessScope(state_mapping=mapping):
                return ops.sum(ops.square(layer(x, training=True)))

        values = [v.value for v in layer.trainable_variables]
        return compiled(lambda x: jax.grad(loss, argnums=(0, 1))(values, x), inputs)
    if keras.backend.backend() == "torch":
        import torch

        def gradients(x):
            loss = layer(x.requires_grad_(), training=True).square().sum()
            return torch.autograd.grad(loss, [x, *(w.value for w in layer.trainable_variables)])

        return compiled(gradients, inputs)
    import tensorflow as tf

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x, training=True)))
        return tape.gradient(loss, [x, *(w.value for w in layer.trainable_variables)])

    return compiled(step, inputs)


def torch_lstm(inputs, units: int) -> dict:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = torch.nn.LSTM(inputs.shape[-1], units, batch_first=True).to(device)
    x = torch.tensor(inputs, device=device, requires_grad=True)

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def run():
        with torch.no_grad():
            layer(x)
        wait()

    def train():
        layer.zero_grad()
        x.grad = None
        layer(x)[0].square().sum().backward()
        wait()

    return {"forward": run, "train": train}


def has_small_product(layer) -> bool:
    """Whether a step multiplies the state with one matrix."""
    kernel = getattr(layer.cell, "loop_kernel", None)
    return kernel is not None and len(kernel.shape) == 2


def large_products(layer, shape: tuple) -> dict:
    """Only the product of the inputs of all steps with the kernel, and those of its gradient."""
    batch, length, _, _ = shape
    *rows, columns = layer.cell.kernel.shape
    x, dz = random(length * batch, math.prod(rows)), random(length * batch, columns)
    kernel = random(math.prod(rows), columns)

    def train(x, dz):
        d_x = ops.matmul(dz, ops.convert_to_tensor(kernel.T.copy()))
        return ops.matmul(x, kernel), d_x, ops.matmul(ops.transpose(x), dz)

    return {
        "forward": compiled(lambda x: ops.matmul(x, kernel), x),
        "train": compiled(train, x, dz),
    }


def limit(layer, shape: tuple) -> dict:
    """Only the matrix products: the large ones over all steps, the small one step by step."""
    if not has_small_product(layer):
        return large_products(layer, shape)
    batch, length, features, _ = shape
    cell = layer.cell
    rows, columns = tuple(cell.loop_kernel.shape)
    x, h = random(length * batch, features), random(batch, rows)
    dz, z = random(length * batch, cell.kernel.shape[-1]), random(batch, columns)
    kernel, recurrent = random(*cell.kernel.shape), random(rows, columns)
    times = random(length, 1)

    def loop(start, matrix, to):
        def body(carry, _):
            product = ops.matmul(carry[0], matrix)
            if to > product.shape[-1]:
                product = ops.tile(product, (1, -(-to // product.shape[-1])))
            return (product[:, :to],), ()

        xs = (ops.convert_to_tensor(times),)
        return [
            backend.scan(body, (part["start"],), xs, (), False)[0]
            for part in backend.split_batch({"start": start}, math.prod(matrix.shape))
        ]

    def run(x, h):
        return ops.matmul(x, kernel), loop(h, ops.convert_to_tensor(recurrent), rows)

    def train(x, h, dz, z):
        transposed = ops.convert_to_tensor(recurrent.T.copy())
        d_x = ops.matmul(dz, ops.convert_to_tensor(kernel.T.copy()))
        d_kernel = ops.matmul(ops.transpose(x), dz)
        repeated = ops.convert_to_tensor(random(length * batch, rows))
        d_recurrent = ops.matmul(ops.transpose(repeated), dz[:, : min(columns, dz.shape[-1])])
        return (*run(x, h), d_x, d_kernel, d_recurrent, loop(z, transposed, columns))

    return {"forward": compiled(run, x, h), "train": compiled(train, x, h, dz, z)}


LAST_OF_TORCH = ("torch LSTM", "train")


def medians(functions: dict, repeats: int) -> dict:
    """Milliseconds of each, taken in turns."""
    for function in functions.values():
        function()
        function()
    taken = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - start)
            if name == LAST_OF_TORCH:
                time.sleep(0.3)  # PyTorch's threads keep the cores busy for a while after its work
    return {name: 1e3 * float(np.median(values)) for name, values in taken.items()}


def measure(name: str, shape: tuple, repeats: int) -> dict:
    """Milliseconds by (what, pass)."""
    batch, length, features, units = shape
    inputs = random(batch, length, features)
    ours = getattr(layers, name)(units, return_sequences=True)
    theirs = keras.layers.LSTM(units, return_sequences=True, use_cudnn="auto")
    ours.build(inputs.shape)
    theirs.build(inputs.shape)
    same = keras.layers.RNN(ours.cell, return_sequences=True)
    same.build(inputs.shape)
    functions = {}
    for what, layer in (("layer", ours), ("keras LSTM", theirs), ("keras RNN", same)):
        functions[what, "forward"] = forward(layer, inputs)
        functions[what, "train"] = training_step(layer, inputs)
    if importlib.util.find_spec("torch"):
        functions |= {("torch LSTM", k): f for k, f in torch_lstm(inputs, units).items()}
    if name != "ClockworkRNN":  # whose products depend on its periods
        functions |= {("limit", k): f for k, f in limit(ours, shape).items()}
    return medians(functions, repeats)


def peak_memory(name: str) -> float:
    """MiB that training steps at `MEMORY_SHAPE` add to a fresh process, at their peak."""
    batch, length, features, units = MEMORY_SHAPE
    layer_class = keras.layers.LSTM if name == "keras LSTM" else getattr(layers, name)
    layer = layer_class(units, return_sequences=True)
    layer.build((batch, length, features))
    training_step(layer, random(batch, 2, features))()  # what the libraries themselves take
    step = training_step(layer, random(batch, length, features))
    return peak_of(lambda: [step() for _ in range(3)])


def shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f}"


def speed_table(shape: tuple, found: dict[str, dict]) -> list[str]:
    columns = ("layer", "keras LSTM", "keras RNN", "torch LSTM", "limit")
    rows = []
    for name, times in found.items():
        for way in ("forward", "train"):
            own = times["layer", way]
            ratios = (own / times["keras LSTM", way], own / times["keras RNN", way])
            rows.append(
                [name, way, *(shown(times.get((c, way))) for c in columns)]
                + [f"{r:.2f}" for r in ratios]
            )
    header = ["layer", "pass", "this", "`keras.layers.LSTM`", "`keras.layers.RNN(cell)`"]
    header += ["`torch.nn.LSTM`", "limit", "to Keras's LSTM", "to Keras's RNN"]
    return [f"### B, T, D, U = {', '.join(map(str, shape))}", "", *table(header, rows), ""]


def parallel_table(repeats: int) -> list[str]:
    """A training step of the layers without a recurrent matrix, beside those with one."""
    batch, features, units = PARALLEL_SHAPE
    rows = []
    for length in PARALLEL_LENGTHS:
        shape = (batch, length, features, units)
        inputs = random(batch, length, features)
        made = {
            name: getattr(layers, name)(units, return_sequences=True) for name in WITHOUT_MATRIX
        }
        made |= {
            "LSTM": layers.LSTM(units, return_sequences=True),
            "`keras.layers.LSTM`": keras.layers.LSTM(units, return_sequences=True),
        }
        functions = {}
        for name, layer in made.items():
            layer.build(inputs.shape)
            functions[name] = training_step(layer, inputs)
        functions["products of `MinGRU`"] = limit(made["MinGRU"], shape)["train"]
        if importlib.util.find_spec("minGRU_pytorch"):
            functions["minGRU-pytorch"] = other_min_gru(inputs, units)
        if importlib.util.find_spec("torch"):
            functions[LAST_OF_TORCH] = torch_lstm(inputs, units)["train"]
        taken = medians(functions, repeats)
        taken["`torch.nn.LSTM`"] = taken.pop(LAST_OF_TORCH, None)
        rows.append(taken)
    names = list(rows[-1])
    title = f"### Length: a training step at B, D, U = {', '.join(map(str, PARALLEL_SHAPE))}, ms"
    header = ["layer", *(f"T = {length}" for length in PARALLEL_LENGTHS)]
    cells = [[name, *(shown(row[name]) for row in rows)] for name in names]
    return [title, "", *table(header, cells), ""]


def other_min_gru(inputs, units: int):
    """A training step of the minGRU of the package minGRU-pytorch."""
    import torch
    from minGRU_pytorch import minGRU

    layer = minGRU(inputs.shape[-1], expansion_factor=units / inputs.shape[-1])
    x = torch.tensor(inputs, requires_grad=True)

    def train():
        layer.zero_grad()
        x.grad = None
        layer(x).square().sum().backward()

    return train


def length_table(repeats: int) -> list[str]:
    rows = []
    for length in LENGTHS:
        inputs = random(16, length, 64)
        layer = layers.LSTM(64, return_sequences=True)
        layer.build(inputs.shape)
        taken = medians({"train": training_step(layer, inputs)}, repeats)["train"]
        rows.append([length, f"{taken:.1f}", f"{1e3 * taken / length:.0f}"])
    title = "### Length: a training step of `LSTM`, B, D, U = 16, 64, 64"
    return [title, "", *table(["T", "ms", "µs a step"], rows), ""]


def periods_table(shape: tuple, repeats: int) -> list[str]:
    batch, length, features, units = shape
    inputs = random(batch, length, features)
    functions = {}
    for periods in ((1, 1, 1, 1), (1, 2, 4, 8), (1, 4, 16, 64), (8, 16, 32, 64)):
        layer = layers.ClockworkRNN(units, periods=periods, return_sequences=True)
        layer.build(inputs.shape)
        functions[periods, "forward"] = forward(layer, inputs)
        functions[periods, "train"] = training_step(layer, inputs)
    taken = medians(functions, repeats)
    rows = [
        [periods, shown(taken[periods, "forward"]), shown(taken[periods, "train"])]
        for periods, way in functions
        if way == "train"
    ]
    title = f"### Periods: `ClockworkRNN` at B, T, D, U = {', '.join(map(str, shape))}"
    return [title, "", *table(["periods", "forward", "train"], rows), ""]


def memory_table(names: list[str]) -> list[str]:
    rows = [
        [name, f"{in_a_fresh_process(peak_memory, name):.0f}"] for name in ("keras LSTM", *names)
    ]
    shape = ", ".join(map(str, MEMORY_SHAPE))
    title = f"### Memory: peak of a training step at B, T, D, U = {shape}, MiB"
    return [title, "", *table(["layer", "MiB"], rows), ""]


def device() -> str:
    if keras.backend.backend() == "jax":
        import jax

        kind = jax.devices()[0].device_kind
        if kind != "cpu":
            return kind
    return f"{cores()} CPU core{'s' if cores() > 1 else ''}, {processor()}"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default=",".join(RECURRENT_LAYERS))
    parser.add_argument("--shapes", nargs="*", default=SHAPES, help="B,T,D,U ...")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only-speed", action="store_true", help="no lengths, periods and memory")
    parser.add_argument("--only-parallel", action="store_true", help="layers without a matrix")
    arguments = parser.parse_args()
    names = arguments.layers.split(",")
    shapes = [
        tuple(int(n) for n in shape.split(",")) if isinstance(shape, str) else shape
        for shape in arguments.shapes
    ]
    if unknown := set(names) - set(RECURRENT_LAYERS):
        parser.error(f"--layers: unknown {sorted(unknown)}; choose from {RECURRENT_LAYERS}")
    packages = dict.fromkeys(["keras", keras.backend.backend(), "torch"])
    versions = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    lines = [
        f"## Recurrent layers on {device()}: {', '.join(versions)}",
        "",
        "Milliseconds, medians; ratios below one mean that the layer here is faster.",
        "",
    ]
    print("\n".join(lines), flush=True)
    parts = [
        lambda s=s: speed_table(s, {n: measure(n, s, arguments.repeats) for n in names})
        for s in shapes
    ]
    if arguments.only_parallel:
        parts = [lambda: parallel_table(arguments.repeats)]
    elif not arguments.only_speed:
        parts += [
            lambda: periods_table(shapes[0], arguments.repeats),
            lambda: length_table(arguments.repeats),
            lambda: parallel_table(arguments.repeats),
            lambda: memory_table(names),
        ]
    RESULTS.mkdir(exist_ok=True)
    kind = "cpu" if "CPU" in device() else "gpu"
    kind += "-one-core" if kind == "cpu" and cores() == 1 else ""
    kind += "-parallel" if arguments.only_parallel else ""
    path = RESULTS / f"recurrent-{keras.backend.backend()}-{kind}.md"
    for part in parts:
        made = part()
        print("\n".join(made), flush=True)
        lines += made
        path.write_text("\n".join(lines).rstrip() + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
