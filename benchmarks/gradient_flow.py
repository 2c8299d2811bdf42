"""Gradient flow: the norms of dL/dh_t and dL/dc_t over t.

Each layer reads the adding problem (`tasks.adding`) of 100 steps, with the loss at the last step.
The norms are averaged over a batch, at initialization and after training. A network whose gradients
explode is trained with and without clipping.

    python benchmarks/gradient_flow.py        # about 10 minutes

The table is printed and written to `benchmarks/results/gradient_flow.md`, the plot to
`gradient_flow.png` in the same folder. TensorFlow only.
"""

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from measuring import table
from tasks import adding

from unroll import layers

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
LENGTH, UNITS, BATCH = 100, 32, 32
# The names of each cell's states. Clocks have no gradient.
STATES = {
    "ElmanRNN": ["h"],
    "IRNN": ["h"],
    "JordanRNN": ["y"],
    "SCRN": ["[h; s]"],
    "ClockworkRNN": ["h"],
    "GRU": ["h"],
    "LSTM": ["h", "c"],
    "PeepholeLSTM": ["h", "c"],
    "CoupledLSTM": ["h", "c"],
    "LayerNormLSTM": ["h", "c"],
}
OPTIONS = {"ClockworkRNN": {"periods": [1, 4, 16, 64]}}
EXPLODING = {"recurrent_initializer": keras.initializers.Orthogonal(1.5)}


def network(name: str, **options) -> keras.Model:
    keras.utils.set_random_seed(1)
    layer = getattr(layers, name)(UNITS, return_sequences=True, **OPTIONS.get(name, {}), **options)
    return keras.Sequential([keras.Input((None, 2)), layer, keras.layers.Dense(1)])


def norms(model: keras.Model, batch) -> list[np.ndarray]:
    """The mean over the batch of |dL/ds_t|, for each state s that has a gradient; `[T]` each.

    L is the squared error of one example, and s_t acts on it through all later steps.
    """
    recurrent, dense = model.layers
    cell = recurrent.cell
    inputs = tf.constant(batch.inputs)

    @tf.function
    def gradients():
        states = cell.get_initial_state(len(inputs))
        history = []
        with tf.GradientTape() as tape:
            tape.watch(states)
            for t in range(LENGTH):
                output, states = cell(inputs[:, t], states)
                # A tensor of its own for each state, since the output is computed from it too.
                states = [tf.identity(s) for s in states]
                output = cell.read_out(states[0])
                history.append(states)
            loss = tf.reduce_sum(tf.square(dense(output) - batch.targets[:, -1]))
        return tape.gradient(loss, history, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    found = gradients()
    count = len(STATES[recurrent.__class__.__name__])
    return [
        np.array([np.linalg.norm(step[k].numpy(), axis=-1).mean() for step in found])
        for k in range(count)
    ]


def train(model: keras.Model, steps: int, clip: float | None = 1.0) -> dict:
    """Trains on the adding problem. Returns the loss and the gradient norm of each step."""
    optimizer = keras.optimizers.Adam(3e-3, global_clipnorm=clip)
    rng = np.random.default_rng(1)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(inputs, training=True)[:, -1] - targets[:, -1]))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        norm = tf.linalg.global_norm(gradients)
        optimizer.apply(gradients, model.trainable_variables)
        return loss, norm

    taken = {"loss": [], "norm": []}
    for _ in range(steps):
        batch = adding(rng, BATCH, LENGTH)
        loss, norm = step(batch.inputs, batch.targets)
        taken["loss"].append(float(loss))
        taken["norm"].append(float(norm))
    return taken


def median(values) -> float:
    return float(np.median(values[-100:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default=",".join(STATES))
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    arguments = parser.parse_args()
    names = arguments.layers.split(",")
    if unknown := set(names) - set(STATES):
        parser.error(f"--layers: unknown {sorted(unknown)}; choose from {list(STATES)}")
    batch = adding(np.random.default_rng(0), BATCH, LENGTH)
    figure, (at_start, trained, clipping) = pyplot.subplots(1, 3, figsize=(18, 5))
    for axes in (at_start, trained):
        axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    lines = [
        f"## Gradients through {LENGTH} steps of the adding problem, {UNITS} units",
        "",
        f"Norms at the first and the last step, before and after {arguments.steps} steps of "
        "training, and the final training loss (0.167: nothing learned).",
        "",
    ]
    rows = []
    for name in names:
        model = network(name)
        before = norms(model, batch)
        reached = median(train(model, arguments.steps)["loss"])
        after = norms(model, batch)
        for state, a, b in zip(STATES[name], before, after, strict=True):
            label = f"{name}, {state}"
            style = "--" if state == "c" else "-"
            for axes, values in ((at_start, a), (trained, b)):
                axes.plot(
                    np.arange(1, LENGTH + 1),
                    np.where(values > 1e-20, values, np.nan),
                    style,
                    label=label,
                )
            ends = [f"{x:.1e}" for x in (a[0], a[-1], b[0], b[-1])]
            rows.append([f"`{name}`", state, *ends, f"{reached:.4f}"])
            print(rows[-1], flush=True)
    header = ["layer", "state", "first, initial", "last, initial", "first, trained"]
    lines += table([*header, "last, trained", "loss"], rows)
    lines += [
        "",
        "Clipping: an `IRNN` whose recurrent matrix is initialized to 1.5 times an orthogonal "
        "matrix.",
        "",
    ]
    rows = []
    for clip in (1.0, None):
        taken = train(network("IRNN", **EXPLODING), arguments.steps, clip)
        label = "clipped to norm 1" if clip else "not clipped"
        clipping.plot(taken["loss"], label=f"loss, {label}", linewidth=0.8)
        clipping.plot(taken["norm"], "--", label=f"norm of the gradient, {label}", linewidth=0.8)
        largest, reached = np.max(taken["norm"]), median(taken["loss"])
        rows.append([clip or "no", f"{largest:.1e}", f"{reached:.4g}"])
    header = ["gradient clipped to norm", "largest norm before clipping", "loss, last 100 steps"]
    lines += table(header, rows)
    at_start.set(title="at initialization", xlabel="t", ylabel="norm of dL/ds_t", yscale="log")
    trained.set(title=f"after {arguments.steps} steps", xlabel="t", yscale="log")
    clipping.set(title="explosion and clipping", xlabel="steps", yscale="log")
    at_start.legend(fontsize=7)
    clipping.legend(fontsize=8)
    figure.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "gradient_flow.png", dpi=90)
    (RESULTS / "gradient_flow.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
