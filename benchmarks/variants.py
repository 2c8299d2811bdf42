"""Which recurrent layer learns which task, as compared in the papers.

Every layer has the same number of parameters, trains with the same optimizer on the same examples,
and is tested on 2,000 other examples, with three seeds.

    python benchmarks/variants.py                                   # all, about 90 minutes
    python benchmarks/variants.py --tasks=parity,waves --layers=LSTM,ClockworkRNN --seeds=1

Runs in `benchmarks/results/variants.json` are not repeated: delete the file to start again. The
table is printed and written to `benchmarks/results/variants.md`, the training curves to
`variants.png` in the same folder.
"""

import argparse
import bisect
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
from measuring import table
from tasks import TASKS, Task

from unroll import layers

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
PARAMETERS = 5_000
PERIODS = [1, 2, 4, 8, 16, 32, 64, 128]
# The arguments of each layer, and the step of its number of units. `MinGRU-2` are two of them, one
# on top of the other.
LAYERS = {
    "ElmanRNN": ({}, 1),
    "IRNN": ({}, 1),
    "SCRN": ({}, 1),
    "ClockworkRNN": ({"periods": PERIODS}, len(PERIODS)),
    "GRU": ({}, 1),
    "LSTM": ({}, 1),
    "PeepholeLSTM": ({}, 1),
    "CoupledLSTM": ({}, 1),
    "LayerNormLSTM": ({}, 1),
    "IndRNN-2": ({"time_steps": 400}, 1),
    "SLSTM": ({"heads": 2}, 2),
    "MLSTM": ({}, 1),
    "MinGRU": ({}, 1),
    "MinGRU-2": ({}, 1),
    "MinGRU-3": ({}, 1),
    "MinLSTM": ({}, 1),
    "QRNN": ({}, 1),
    "SRU": ({}, 1),
    "LRU": ({}, 1),
    "RGLRU": ({}, 1),
}
LEARNING_RATE = 3e-3
REPORT = 50  # steps
TEST_EXAMPLES = 2_000

# Orderings that papers report: task, measure, the better layer, the other layer, the paper.
CLAIMS = [
    ("adding_100", "adding 100", "LSTM", "ElmanRNN", "Hochreiter and Schmidhuber 1997"),
    ("temporal_order", "temporal order", "LSTM", "ElmanRNN", "Hochreiter and Schmidhuber 1997"),
    ("adding_400", "adding 400", "IRNN", "LSTM", "Le, Jaitly and Hinton 2015"),
    ("adding_200", "adding 200", "IRNN", "ElmanRNN", "Le, Jaitly and Hinton 2015"),
    ("waves", "waves", "ClockworkRNN", "LSTM", "Koutník et al. 2014"),
    ("waves", "waves", "LSTM", "ElmanRNN", "Koutník et al. 2014"),
    ("copying", "copying", "LSTM", "ElmanRNN", "Arjovsky, Shah and Bengio 2016"),
    ("adding_200", "adding 200", "SCRN", "ElmanRNN", "Mikolov et al. 2015"),
    ("adding_200", "adding 200", "GRU", "ElmanRNN", "Chung et al. 2014"),
    ("parity", "parity 40", "LSTM", "ElmanRNN", "Hochreiter and Schmidhuber 1997"),
    ("parity_of_lengths", "parity of 40 to 256", "SLSTM", "MLSTM", "Beck et al. 2024"),
    ("parity_of_lengths", "parity of 40 to 256", "LSTM", "MLSTM", "Beck et al. 2024"),
    ("selective_copying", "selective copying", "MinGRU-2", "MinGRU", "Feng et al. 2024"),
    ("selective_copying", "selective copying", "MinGRU-3", "MinGRU-2", "Feng et al. 2024"),
    ("selective_copying", "selective copying", "MinGRU-3", "LRU", "Gu and Dao 2023"),
    ("adding_400", "adding 400", "IndRNN-2", "LSTM", "Li et al. 2018"),
    ("copying", "copying", "LRU", "LSTM", "Arjovsky et al. 2016, of unitary recurrences"),
]


def network(name: str, units: int, features: int, answers: int) -> keras.Model:
    options, _ = LAYERS[name]
    class_name, _, depth = name.partition("-")
    h = inputs = keras.Input((None, features))
    for _ in range(int(depth or 1)):
        h = getattr(layers, class_name)(units, return_sequences=True, **options)(h)
    return keras.Model(inputs, keras.layers.Dense(answers)(h))


def parameters(name: str, units: int, features: int, answers: int) -> int:
    """The number of parameters that take part: a clockwork matrix is block-triangular."""
    count = network(name, units, features, answers).count_params()
    if name == "ClockworkRNN":
        modules = len(PERIODS)
        count -= (units // modules) ** 2 * modules * (modules - 1) // 2
    return count


def units_for(name: str, features: int, answers: int) -> int:
    """The most units that stay within the budget."""
    sizes = range(LAYERS[name][1], 1000, LAYERS[name][1])
    found = bisect.bisect_right(
        sizes, PARAMETERS, key=lambda units: parameters(name, units, features, answers)
    )
    return sizes[found - 1]


def train(name: str, task: Task, seed: int) -> dict:
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    fixed = task.generate(rng, task.batch)
    features, answers = fixed.inputs.shape[-1], fixed.targets.shape[-1]
    units = units_for(name, features, answers)
    model = network(name, units, features, answers)
    loss = keras.losses.CategoricalCrossentropy if task.classes else keras.losses.MeanSquaredError
    options = {"from_logits": True} if task.classes else {}
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, global_clipnorm=1.0),
        loss(reduction="mean_with_sample_weight", **options),
        jit_compile=True,
    )

    def batches():
        while True:
            yield tuple(fixed) if task.fixed else tuple(task.generate(rng, task.batch))

    start = time.perf_counter()
    curve = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            curve.append(round(float(logs["loss"]), 5))
            self.model.stop_training = curve[-1] < task.solved

    model.fit(
        batches(),
        steps_per_epoch=REPORT,
        epochs=task.steps // REPORT,
        shuffle=False,
        callbacks=[Stop()],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    tested = {}
    for what, generate in task.tests.items():
        batch = fixed if task.fixed else generate(np.random.default_rng(10_000), TEST_EXAMPLES)
        tested[what] = measure(model, task, batch)
    return {
        "units": units,
        "parameters": parameters(name, units, features, answers),
        "steps": len(curve) * REPORT,
        "solved": curve[-1] < task.solved,
        "seconds": round(seconds, 1),
        "tests": tested,
        "curve": curve,
    }


def measure(model, task: Task, batch) -> float:
    """Accuracy or mean squared error of the evaluated outputs."""
    answers = model.predict(batch.inputs, batch_size=250, verbose=0)
    if task.classes:
        right = answers.argmax(axis=-1) == batch.targets.argmax(axis=-1)
    else:
        right = np.square(answers - batch.targets).mean(axis=-1)
    return round(float((right * batch.weights).sum() / batch.weights.sum()), 5)


def scores(results: dict) -> list[str]:
    """A row for each test: the mean of each layer over the seeds, and the number of solved runs."""
    names = [name for name in LAYERS if any(key.split("/")[1] == name for key in results)]
    rows = []
    for key, task in TASKS.items():
        for what in task.tests:
            cells = {}
            for name in names:
                runs = runs_of(results, key, name)
                if runs:
                    solved = sum(run["solved"] for run in runs)
                    cells[name] = f"{shown(mean(runs, what))} ({solved}/{len(runs)})"
            if cells:
                kind = "accuracy" if task.classes else "squared error"
                value, trivial = task.trivial
                row = [what, kind, f"{value:.3f} ({trivial})"]
                rows.append(row + [cells.get(name, "") for name in names])
    return table(["task", "measure", "trivial", *(f"`{name}`" for name in names)], rows)


def claims(results: dict) -> list[str]:
    """Whether the orderings that papers report hold here."""
    rows = []
    for key, what, better, other, source in CLAIMS:
        a, b = runs_of(results, key, better), runs_of(results, key, other)
        if a and b:
            x, y = mean(a, what), mean(b, what)
            ordering = f"`{better}` before `{other}`"
            judged = holds(TASKS[key], *([run["tests"][what] for run in runs] for runs in (a, b)))
            rows.append([what, ordering, source, f"{shown(x)}, {shown(y)}", judged])
    return table(["task", "ordering", "source", "here", "holds"], rows)


def holds(task: Task, first: list[float], second: list[float]) -> str:
    """Whether the runs of the first are better than those of the second."""
    if not np.isfinite(first).all():
        return "no: the first diverges"
    if not np.isfinite(second).all():
        return "yes: the second diverges"
    x, y = np.mean(first), np.mean(second)
    trivial = task.trivial[0]
    best = 1.0 if task.classes else 0.0
    if max(abs(z - trivial) for z in (x, y)) < 0.1 * abs(best - trivial):
        return "undecided: neither learns it"
    if abs(x - y) <= max(np.ptp(first), np.ptp(second)):
        return "undecided: the seeds differ by more"
    return "yes" if task.better(x, y) else "no"


def shown(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "diverged"


def runs_of(results: dict, task: str, layer: str) -> list[dict]:
    return [run for key, run in results.items() if key.startswith(f"{task}/{layer}/")]


def mean(runs: list[dict], what: str) -> float:
    return float(np.mean([run["tests"][what] for run in runs]))


def plot(results: dict, path: Path):
    """The training loss of each task, the median of the seeds."""
    shown = [key for key in TASKS if any(k.startswith(f"{key}/") for k in results)]
    figure, grid = pyplot.subplots(2, (len(shown) + 1) // 2, figsize=(16, 7), squeeze=False)
    for axes, key in zip(grid.flat, shown, strict=False):
        for k, name in enumerate(LAYERS):
            curves = [run["curve"] for run in runs_of(results, key, name)]
            if curves:
                # A run that ended early keeps its last loss.
                longest = max(map(len, curves))
                filled = [c + c[-1:] * (longest - len(c)) for c in curves]
                steps = REPORT * np.arange(1, longest + 1)
                style = "--" if k > 5 else "-"
                axes.plot(steps, np.median(filled, axis=0), style, label=name, linewidth=1.2)
        axes.set(title=key.replace("_", " "), xlabel="steps", ylabel="training loss", yscale="log")
    for axes in list(grid.flat)[len(shown) :]:
        axes.axis("off")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="lower right", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    arguments = parser.parse_args()
    chosen = {}
    for option, allowed in (("tasks", TASKS), ("layers", LAYERS)):
        chosen[option] = getattr(arguments, option).split(",")
        if unknown := set(chosen[option]) - set(allowed):
            parser.error(f"--{option}: unknown {sorted(unknown)}; choose from {list(allowed)}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "variants.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for task in chosen["tasks"]:
        for name in chosen["layers"]:
            for seed in range(1, arguments.seeds + 1):
                key = f"{task}/{name}/{seed}"
                if key in results:
                    continue
                run = results[key] = train(name, TASKS[task], seed)
                print(key, {k: v for k, v in run.items() if k != "curve"}, flush=True)
                lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in results.items())
                path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    budget = (
        f"{PARAMETERS:,} parameters at most, Adam with rate {LEARNING_RATE}, gradients clipped to "
        f"norm 1. Means over {arguments.seeds} seeds; in brackets the number of runs that "
        "reached the training loss at which a task counts as solved."
    )
    lines = ["## What recurrent layers learn", "", budget, "", *scores(results), ""]
    lines += ["### Orderings that papers report", "", *claims(results)]
    (RESULTS / "variants.md").write_text("\n".join(lines) + "\n")
    plot(results, RESULTS / "variants.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
