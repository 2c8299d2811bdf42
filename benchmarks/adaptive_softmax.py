"""The time of a training step of an output layer: full softmax and adaptive softmax.

2,048 inputs of 320 features. The frequencies of the tokens are those of Zipf's law. A tenth of the
tokens are in the head, and the others in two clusters, as in the language model. Interleaved in one
process, in seconds of CPU time, medians: the loss, and the gradients of inputs and weights.

    python benchmarks/adaptive_softmax.py        # about a minute

The table is printed, and written to `benchmarks/results/adaptive_softmax.md`.
"""

import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import tensorflow as tf
import torch
from measuring import seconds_of, table

from unroll import layers

RESULTS = Path(__file__).parent / "results"
ROWS, FEATURES, REPEATS = 2048, 320, 7
VOCABULARIES = (10_000, 20_000, 50_000, 100_000)


def cutoffs(vocabulary: int) -> list[int]:
    return [vocabulary // 10, vocabulary // 2]


def full(x, targets, vocabulary: int):
    """A step of `keras.layers.Dense` with the cross-entropy of the logits."""
    layer = keras.layers.Dense(vocabulary)
    layer.build(x.shape)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return step_of(lambda x: loss(targets, layer(x)), layer, x)


def adaptive(x, targets, vocabulary: int):
    layer = layers.AdaptiveSoftmax(vocabulary, cutoffs(vocabulary))
    layer.build(x.shape)
    return step_of(lambda x: -tf.reduce_mean(layer(x, targets)), layer, x)


def step_of(loss, layer, x):
    weights = [weight.value for weight in layer.trainable_variables]

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return tape.gradient(value, [x, *weights])

    x = tf.constant(x)
    return lambda: step(x)


def pytorch(x, targets, vocabulary: int):
    layer = torch.nn.AdaptiveLogSoftmaxWithLoss(
        FEATURES, vocabulary, cutoffs(vocabulary), head_bias=True
    )
    x, targets = torch.tensor(x, requires_grad=True), torch.tensor(targets).long()

    def step():
        loss = layer(x, targets).loss
        torch.autograd.grad(loss, [x, *layer.parameters()])

    return step


def main() -> None:
    rng = np.random.default_rng(0)
    implementations = {
        "full softmax": full,
        "`AdaptiveSoftmax`": adaptive,
        "`torch.nn.AdaptiveLogSoftmaxWithLoss`": pytorch,
    }
    rows = []
    for vocabulary in VOCABULARIES:
        x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
        frequencies = 1 / np.arange(1, vocabulary + 1)
        targets = rng.choice(vocabulary, size=ROWS, p=frequencies / frequencies.sum())
        steps = {name: make(x, targets, vocabulary) for name, make in implementations.items()}
        seconds = seconds_of(steps, REPEATS, clock=time.process_time)
        rows.append([f"{vocabulary:,}", *(f"{seconds[name]:.3f}" for name in implementations)])
    lines = "\n".join(table(["tokens", *implementations], rows))
    text = (
        f"## A training step of an output layer, tensorflow {tf.__version__}, "
        f"torch {torch.__version__}\n\n{ROWS:,} inputs of {FEATURES} features, seconds of CPU "
        f"time.\n\n{lines}\n"
    )
    print(text)
    (RESULTS / "adaptive_softmax.md").write_text(text)


if __name__ == "__main__":
    main()
