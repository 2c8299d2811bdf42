"""Parts of the app: models that train side by side, their loss, metric and optimizer."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from unroll.pipelines.text import UNKNOWN


class Restarts(keras.layers.Layer):
    """Copies of one model, each from a start of its own, as one vectorised program.

    `copies` are models of `(facts, question)` that return `(logits, attention)`. The outputs have
    the copies as their second axis. `losses_of_copies` `[R]` is the mean of the latest training
    losses of each: the copy with the least is the one to keep.
    """

    def __init__(self, copies: list[keras.Model], **kwargs):
        super().__init__(**kwargs)
        self.copies = copies

    def build(self, facts_shape, question_shape):
        self.losses_of_copies = self.add_weight(
            name="losses", shape=(len(self.copies),), initializer="zeros", trainable=False
        )

    def call(self, facts, question, training=False):
        first = self.copies[0]
        if len(self.copies) == 1:
            found = first([facts, question], training=training)
            return tuple(ops.expand_dims(x, 1) for x in found)
        fixed = [v.value for v in first.non_trainable_variables]

        def run(weights):
            found, changed = first.stateless_call(
                weights, fixed, [facts, question], training=training
            )
            return *found, *map(ops.copy, changed)

        weights = zip(*(copy.trainable_variables for copy in self.copies), strict=True)
        stacked = [ops.stack([v.value for v in each]) for each in weights]  # [R, ...]
        logits, attention, *changed = ops.vectorized_map(run, stacked)
        if training:  # all hear the same noise
            for variable, value in zip(first.non_trainable_variables, changed, strict=True):
                variable.assign(value[0])
        return ops.swapaxes(logits, 0, 1), ops.swapaxes(attention, 0, 1)

    def note(self, losses):
        """Takes the losses `[R]` of a training step into the running means."""
        kept = self.losses_of_copies
        kept.assign(0.99 * kept + 0.01 * ops.cast(losses, kept.dtype))

    def best(self):
        """The number of the copy with the least training loss."""
        return ops.argmin(self.losses_of_copies)


@keras.saving.register_keras_serializable(package="unroll")
class AllWords(keras.layers.Layer):
    """The words of facts `[B, S, J]` and behind them those of a question `[B, J']`."""

    def call(self, facts, question):
        told = ops.reshape(facts, (ops.shape(facts)[0], -1))
        return ops.concatenate([told, question], axis=1)


class Reader(keras.Model):
    """A functional model with a layer "restarts", whose loss is the sum over the copies'.

    Labels are `[B, 2]`, of which the first is the id of the answer; logits `[B, R, V]`. As in
    Sukhbaatar et al. 2015 the losses of a batch are added up. An answer that the vocabulary lacks
    is not learned.
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits = ops.cast(y_pred, "float32")
        answers = ops.cast(y[:, :1], "int32")  # [B, 1]
        known = ops.cast(answers != UNKNOWN, "float32")
        each = keras.losses.sparse_categorical_crossentropy(
            answers + ops.zeros_like(logits[..., 0], "int32"), logits, from_logits=True
        )  # [B, R]
        of_copies = ops.sum(each * known, axis=0)
        restarts = self.get_layer("restarts")
        if training:
            restarts.note(of_copies / ops.maximum(ops.sum(known), 1))
        return ops.sum(of_copies)


class BestAccuracy(keras.metrics.Metric):
    """The share of questions that the copy with the least training loss answers."""

    def __init__(self, restarts: Restarts, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.restarts = restarts
        self.right = self.add_weight(name="right", initializer="zeros")
        self.asked = self.add_weight(name="asked", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        chosen = ops.argmax(ops.take(y_pred, self.restarts.best(), axis=1), axis=-1)
        # What is unknown is no answer.
        right = ops.logical_and(chosen == ops.cast(y_true[:, 0], chosen.dtype), chosen != UNKNOWN)
        self.right.assign_add(ops.sum(ops.cast(right, "float32")))
        self.asked.assign_add(ops.cast(ops.shape(y_true)[0], "float32"))

    def result(self):
        return self.right / ops.maximum(self.asked, 1)


@keras.saving.register_keras_serializable(package="unroll")
class SideBySideSGD(keras.optimizers.SGD):
    """Stochastic gradient descent that clips the gradient of each of several copies by itself.

    The variables stand copy by copy, as many of each. A gradient of single rows is made whole
    first: its norm would be that of rows which are not added up yet.
    """

    def __init__(self, learning_rate=0.01, copies: int = 1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.copies = copies

    def _clip_gradients(self, grads):
        grads = [tf.convert_to_tensor(grad) for grad in grads]
        size = len(grads) // self.copies
        clipped = []
        for k in range(0, len(grads), size):
            clipped += super()._clip_gradients(grads[k : k + size])
        return clipped

    def get_config(self):
        return {**super().get_config(), "copies": self.copies}


class LinearStart(keras.callbacks.Callback):
    """Takes the softmax out of the hops for some epochs (Sukhbaatar et al. 2015, section 4.2).

    `epochs` tells how many, as far as is known by then.
    """

    def __init__(self, epochs: Callable[[], int]):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        for copy in self.model.get_layer("restarts").copies:
            copy.get_layer("hops").linear.assign(float(epoch < self.epochs()))
