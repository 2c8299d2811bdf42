"""Parts of the network: word vectors, the rounds of a dialog, fusion, loss and metric."""

import keras
from keras import ops

from unroll import layers
from unroll.apps.shared import groups
from unroll.layers.recurrent import mean_over_time
from unroll.pipelines.text import PADDING
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION

# The standard deviation of word vectors at the start, about that of published ones. With Keras's
# smaller default, attention was learned epochs later on drawn scenes.
SPREAD = 0.3
ROUNDS = 20  # of a dialog: the age of those further back is not told


def word_embedding(vocabulary_size: int, size: int) -> keras.layers.Embedding:
    """Word vectors that begin as far apart as published ones are."""
    return keras.layers.Embedding(
        vocabulary_size, size, keras.initializers.RandomNormal(stddev=SPREAD)
    )


@keras.saving.register_keras_serializable(package="unroll")
class RoundsBefore(keras.layers.Layer):
    """The rounds that each question of a dialog looks back on.

    Of `facts` `[P, R, U]`, `there` `[P, R]` and `like` `[P, Q, ...]`, whose questions are those of
    the last Q rounds: `[P * Q, R, U]`, and which of them are before the question, `[P * Q, R]`.
    """

    def call(self, facts, there, like):
        rounds, questions = ops.shape(there)[1], ops.shape(like)[1]
        number = ops.arange(rounds)
        before = number[None, :] < number[rounds - questions :, None]  # [Q, R]
        there = ops.logical_and(ops.expand_dims(there, 1), ops.expand_dims(before, 0))
        each = ops.zeros((1, questions, 1, 1), facts.dtype)
        facts = ops.expand_dims(facts, 1) + each  # [P, Q, R, U]
        return (
            ops.reshape(facts, (-1, rounds, facts.shape[-1])),
            ops.reshape(there, (-1, rounds)),
        )


def recall(question, given: dict, embedding: keras.layers.Embedding, hops: int) -> tuple:
    """Adds to questions `[P * Q, U]` what they find in the rounds `[P, R, T]` of their dialog.

    A round becomes, as a question does, a recurrent state with the mean of its words beside it.

    Returns:
        The questions, and the weight of each round in each hop, `[P * Q, hops, R]`.
    """
    units = question.shape[-1]
    rounds = groups.Merge()(given["rounds"])
    words, mask = embedding(rounds), ops.not_equal(rounds, PADDING)
    states = layers.LSTM(units - words.shape[-1], name="facts")(words, mask=mask)
    facts = ops.concatenate([states, mean_over_time(words, mask)], axis=-1)
    facts = groups.Split()(facts, given["rounds"])  # [P, R, U]
    there = ops.any(ops.not_equal(given["rounds"], PADDING), axis=-1)
    facts, before = RoundsBefore()(facts, there, given["tokens"])
    memory = layers.MemoryNetwork(units, hops, memory_size=ROUNDS, name="history")
    found, weights = memory(facts, question, mask=before)
    # Nothing at first: a model learns to see, or brings that from another run, before it listens.
    told = keras.layers.Dense(units, kernel_initializer="zeros", name="told")
    return question + told(found), weights


def glimpse(units: int, count_features: bool) -> layers.QuestionGuidedAttention:
    """An attention over regions whose weights differ from the start."""
    return layers.QuestionGuidedAttention(
        units,
        scale_initializer=keras.initializers.RandomNormal(stddev=1.0),
        count_features=count_features,
    )


def fuse(question, seen, units: int, dropout: float):
    """The product, of length one, of a dense layer of each: `[P, Q, ...]` to `[P, Q, units]`.

    One of the two may be None.
    """
    factors = []
    for x in (question, seen):
        if x is not None:
            factors.append(keras.layers.Dense(units, "tanh")(keras.layers.Dropout(dropout)(x)))
    product = ops.multiply(*factors) if len(factors) > 1 else factors[0]
    return keras.layers.UnitNormalization()(product)


@keras.saving.register_keras_serializable(package="unroll")
class AnswerLoss(keras.losses.Loss):
    """Cross entropy of the first answer of each question, where the vocabulary has it.

    Labels are `[P, Q, N]`, logits `[P, Q, A]`.
    """

    def __init__(self, name="answer_loss", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        first = ops.cast(y_true[..., 0], "int32")
        known = ops.cast(first >= FIRST_ANSWER, y_pred.dtype)
        wanted = ops.maximum(first - FIRST_ANSWER, 0)
        each = keras.losses.sparse_categorical_crossentropy(wanted, y_pred + 0, from_logits=True)
        return ops.sum(each * known) / ops.maximum(ops.sum(known), 1)


@keras.saving.register_keras_serializable(package="unroll")
class AnswerAccuracy(keras.metrics.Metric):
    """The share of questions whose first answer the logits name; `[P, Q, N]` and `[P, Q, A]`."""

    def __init__(self, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.right = self.add_weight(name="right", initializer="zeros")
        self.asked = self.add_weight(name="asked", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        first = ops.cast(y_true[..., 0], "int32")
        chosen = ops.cast(ops.argmax(y_pred, axis=-1), "int32") + FIRST_ANSWER
        self.right.assign_add(ops.sum(ops.cast(first == chosen, "float32")))
        self.asked.assign_add(ops.sum(ops.cast(first != NO_QUESTION, "float32")))

    def result(self):
        return self.right / ops.maximum(self.asked, 1)


def mean_over_regions(regions, mask=None):
    """The mean of `[B, S, D]` or `[B, H, W, D]`, `[B, D]`; without those that a mask leaves out."""
    if len(regions.shape) == 4:
        regions = keras.layers.Reshape((-1, regions.shape[-1]))(regions)
    return mean_over_time(regions, mask)
