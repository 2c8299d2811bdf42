"""Dynamic evaluation: the weights adapt to the text that was read so far."""

import contextlib
import itertools
from collections.abc import Iterator

import tensorflow as tf

from unroll.apps.core.protocol import Trained
from unroll.apps.shared.token_losses import token_losses

BATCHES = 200  # of the training text, for the mean squares of the gradients
_EPSILON = 1e-3  # added to their roots, which are of this size


@contextlib.contextmanager
def adapted(
    trained: Trained, dataset: tf.data.Dataset, train: tf.data.Dataset
) -> Iterator[Iterator[tuple]]:
    """The losses of a split, where the weights take a step after each batch.

    Krause, Kahembwe, Murray and Renals 2018, "Dynamic evaluation of neural sequence models",
    sections 3 and 4 ("RMS with decay"). With the trained weights w_0, the gradient g of a batch,
    and the root r of the mean square of the gradients of the training text:

        w <- w - rate g / (r + epsilon) + min(1, decay r / mean(r)) (w_0 - w)

    A batch is evaluated before the weights adapt to it. Afterwards the model has the trained
    weights again.

    Args:
        trained: the trained model, whose configuration has the rates.
        dataset: the batches to evaluate, in the order of the text.
        train: batches of the training text, of which the first `BATCHES` are read.

    Yields:
        As `metrics.losses`.
    """
    model, config = trained.model, trained.config
    weights = [weight.value for weight in model.trainable_variables]
    initial = [tf.identity(weight) for weight in weights]
    roots = _roots(model, weights, train)
    size = sum(tf.size(root, tf.int64) for root in roots)
    mean = sum(tf.reduce_sum(root) for root in roots) / tf.cast(size, tf.float32)
    decays = [tf.minimum(config.dynamic_decay * root / mean, 1.0) for root in roots]

    @tf.function(reduce_retracing=True)
    def adapt(features, labels):
        nats, gradients = _gradients(model, weights, features, labels)
        for weight, gradient, root, decay, first in zip(
            weights, gradients, roots, decays, initial, strict=True
        ):
            step = config.dynamic_rate * gradient / (root + _EPSILON)
            weight.assign(weight - step + decay * (first - weight))
        return nats

    def batches() -> Iterator[tuple]:
        for features, labels in dataset:
            yield features["tokens"].numpy(), labels.numpy(), adapt(features, labels).numpy()

    try:
        yield batches()
    finally:
        for weight, value in zip(weights, initial, strict=True):
            weight.assign(value)


def _roots(model, weights: list, train: tf.data.Dataset) -> list:
    """The root of the mean square of the gradients of batches of the training text."""
    sums = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

    @tf.function(reduce_retracing=True)
    def add(features, labels):
        _, gradients = _gradients(model, weights, features, labels)
        for each, gradient in zip(sums, gradients, strict=True):
            each.assign_add(tf.square(gradient))

    count = 0
    for features, labels in itertools.islice(train, BATCHES):
        add(features, labels)
        count += 1
    return [tf.sqrt(each / count) for each in sums]


def _gradients(model, weights: list, features, labels) -> tuple:
    """The losses `[B, T]`, and the gradients of their mean."""
    with tf.GradientTape() as tape:
        nats, counts = token_losses(labels, model(features, training=False))
        number = tf.maximum(tf.reduce_sum(tf.cast(counts, nats.dtype)), 1.0)
        mean = tf.reduce_sum(nats) / number
    found = tape.gradient(mean, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return nats, [tf.convert_to_tensor(gradient) for gradient in found]
