"""Parts of the app: models that train in parallel, their loss, metric and optimizer."""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import ops

from unroll.pipelines.text import UNKNOWN


class Restarts(keras.layers.Layer):
    """Copies of one model with different initial weights, as one vectorized program.

    The outputs have the copies as their second axis. `copy_losses` `[R]` is a running mean of the
    training loss of each copy; the one with the lowest is the best.

    Args:
        copies: models of `(facts, question)` that return `(logits, attention)`.
    """

    def __init__(self, copies: list[keras.Model], **kwargs):
        super().__init__(**kwargs)
        self.copies = copies

    def build(self, facts_shape, question_shape):
        self.copy_losses = self.add_weight(
            name="losses", shape=(len(self.copies),), initializer="zeros", trainable=False
        )

    def call(self, facts, question, training=False):
        first = self.copies[0]
        if len(self.copies) == 1:
            outputs = first([facts, question], training=training)
            return tuple(ops.expand_dims(x, 1) for x in outputs)
        fixed = [v.value for v in first.non_trainable_variables]

        def run(weights):
            outputs, changed = first.stateless_call(
                weights, fixed, [facts, question], training=training
            )
            return *outputs, *map(ops.copy, changed)

        weights = zip(*(copy.trainable_variables for copy in self.copies), strict=True)
        stacked = [ops.stack([v.value for v in each]) for each in weights]  # [R, ...]
        logits, attention, *changed = ops.vectorized_map(run, stacked)
        if training:  # the seed of the noise, which is the same for all
            for variable, value in zip(first.non_trainable_variables, changed, strict=True):
                variable.assign(value[0])
        return ops.swapaxes(logits, 0, 1), ops.swapaxes(attention, 0, 1)

    def update(self, losses):
        """Updates the running means with the losses `[R]` of a training step."""
        means = self.copy_losses
        means.assign(0.99 * means + 0.01 * ops.cast(losses, means.dtype))

    def best(self):
        """The index of the copy with the lowest training loss."""
        return ops.argmin(self.copy_losses)


@keras.saving.register_keras_serializable(package="unroll")
class ConcatenateTokens(keras.layers.Layer):
    """The tokens of facts `[B, S, J]` followed by those of a question `[B, J']`."""

    def call(self, facts, question):
        flat = ops.reshape(facts, (ops.shape(facts)[0], -1))
        return ops.concatenate([flat, question], axis=1)


class Reader(keras.Model):
    """A functional model with a layer "restarts". Its loss is the sum over the copies.

    Labels are `[B, 2]`, the id of the answer and the task; logits are `[B, R, V]`. As in Sukhbaatar
    et al. 2015 the losses of a batch are summed. Answers that the vocabulary lacks have no loss.
    """

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        logits = ops.cast(y_pred, "float32")
        answers = ops.cast(y[:, :1], "int32")  # [B, 1]
        known = ops.cast(answers != UNKNOWN, "float32")
        losses = keras.losses.sparse_categorical_crossentropy(
            answers + ops.zeros_like(logits[..., 0], "int32"), logits, from_logits=True
        )  # [B, R]
        copy_losses = ops.sum(losses * known, axis=0)
        restarts = self.get_layer("restarts")
        if training:
            restarts.update(copy_losses / ops.maximum(ops.sum(known), 1))
        return ops.sum(copy_losses)


class BestAccuracy(keras.metrics.Metric):
    """The accuracy of the copy with the lowest training loss."""

    def __init__(self, restarts: Restarts, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.restarts = restarts
        self.correct = self.add_weight(name="correct", initializer="zeros")
        self.questions = self.add_weight(name="questions", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        predicted = ops.argmax(ops.take(y_pred, self.restarts.best(), axis=1), axis=-1)
        same = predicted == ops.cast(y_true[:, 0], predicted.dtype)
        correct = ops.logical_and(same, predicted != UNKNOWN)
        self.correct.assign_add(ops.sum(ops.cast(correct, "float32")))
        self.questions.assign_add(ops.cast(ops.shape(y_true)[0], "float32"))

    def result(self):
        return self.correct / ops.maximum(self.questions, 1)


@keras.saving.register_keras_serializable(package="unroll")
class ParallelSGD(keras.optimizers.SGD):
    """Stochastic gradient descent that clips the gradient of each copy separately.

    Args:
        learning_rate: as in `keras.optimizers.SGD`.
        copies: the number of copies. The variables are ordered by copy, the same number of each.
        **kwargs: as in `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate=0.01, copies: int = 1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.copies = copies

    def _clip_gradients(self, grads):
        # The norm of sparse gradients would be that of rows that are not summed yet.
        grads = [tf.convert_to_tensor(grad) for grad in grads]
        size = len(grads) // self.copies
        clipped = []
        for k in range(0, len(grads), size):
            clipped += super()._clip_gradients(grads[k : k + size])
        return clipped

    def get_config(self):
        return {**super().get_config(), "copies": self.copies}


class LinearStart(keras.callbacks.Callback):
    """Removes the softmax of the hops in the first epochs (Sukhbaatar et al. 2015, section 4.2).

    Args:
        epochs: returns the number of these epochs, which may depend on the training so far.
    """

    def __init__(self, epochs: Callable[[], int]):
        super().__init__()
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        for copy in self.model.get_layer("restarts").copies:
            copy.get_layer("hops").linear.assign(float(epoch < self.epochs()))
