"""Parts of the network: what sees pictures and clips, cells, losses and a metric."""

import keras
from keras import ops

from unroll import layers
from unroll.apps.shared import groups
from unroll.apps.shared.residual import residual_encoder
from unroll.pipelines.captions import PADDING, UNKNOWN


def viewer(config, settings: dict) -> keras.Model:
    """What becomes of pictures before there are words.

    Its outputs are the `memory` `[P, S, D]` that a decoder looks at, and which of its rows there
    are, `mask` `[P, S]`. The memory is the cells of a grid, or regions as they are given; of a clip
    a vector for each frame, which recurrent layers in both directions make of what a model saw in
    all frames. Where frames have labels there are their logits too, `frames` `[P, F, K]`.
    """
    given = x = keras.Input(settings["shape"], name=settings["kind"])
    frames = settings["frames"]
    if settings["kind"] == "image":
        if frames:
            grids = residual_encoder(config, frames)(groups.Merge()(given))
            x = look_at_motion(groups.Split()(grids, given), config.attention_units)
        else:
            x = residual_encoder(config)(given)
    if len(x.shape) == 4:
        x = keras.layers.Reshape((-1, x.shape[-1]))(x)
    # Where there is no region there are zeros.
    mask = ops.any(ops.not_equal(x, 0), axis=-1)
    outputs = {"mask": mask}
    if frames:
        recurrent = getattr(layers, config.clip_cell)(config.units, return_sequences=True)
        x = keras.layers.Dense(config.units, "relu")(x)
        states = keras.layers.Bidirectional(recurrent, name="over_time")(x, mask=mask)
        x = ops.concatenate([x, states], axis=-1)
    if settings["labels"]:
        outputs["frames"] = keras.layers.Dense(len(settings["labels"]), name="frame")(x)
    return keras.Model(given, outputs | {"memory": x}, name="viewer")


def look_at_motion(grids, units: int):
    """What is seen of each frame, `[P, F, H, W, D]` to `[P, F, 2 D]`, by attention over its cells.

    Beside the features of a cell stands how they differ from those of the frame before: where that
    is much, something moves.
    """
    before = ops.concatenate([grids[:, :1], grids[:, :-1]], axis=1)
    cells = ops.concatenate([grids, grids - before], axis=-1)
    pool = layers.AttentionPool(units, name="motion")
    seen, _ = pool(ops.reshape(cells, (-1, grids.shape[2] * grids.shape[3], cells.shape[-1])))
    return groups.Split()(seen, grids)


def cell(name: str, units: int, context_size: int):
    """A cell by the name of its layer; a `ContextLSTM` takes the context by weights of its own."""
    make = getattr(layers, f"{name}Cell")
    return make(units, context_size=context_size) if name == "ContextLSTM" else make(units)


def split(states, sizes: list[int]) -> list:
    """States of all cells side by side, `[N, U]`, as one of each size."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [states[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


@keras.saving.register_keras_serializable(package="unroll")
class DoublyStochastic(keras.layers.Layer):
    """Adds to the loss what attention leaves out: Xu et al. 2015, equation 14.

    With weights `a_ti` of word t on region i the loss grows by `strength` times the mean over the
    captions of the sum over i of `(1 - sum over t of a_ti)^2`, divided by the number of words, as
    the loss of the words is.

    Call arguments:
        logits: handed on.
        weights: `[N, T, S]`.
        tokens: `[N, T]`; words that are padding do not count.
    """

    def __init__(self, strength: float, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def call(self, logits, weights, tokens):
        words = ops.cast(ops.not_equal(tokens, PADDING), weights.dtype)  # [N, T]
        seen = ops.sum(weights * ops.expand_dims(words, -1), axis=1)  # [N, S]
        there = ops.cast(ops.sum(words, axis=1) > 0, weights.dtype)
        missed = ops.sum(there * ops.sum(ops.square(1 - seen), axis=-1))
        self.add_loss(self.strength * missed / ops.maximum(ops.sum(words), 1))
        return logits

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


def word_losses(labels, logits, smoothing: float = 0.0):
    """The cross entropy of each word, and whether it counts: `[P, C, T]` each, not padding.

    Labels from the vocabulary's size on are words that it lacks.
    """
    vocabulary_size = logits.shape[-1]
    labels = ops.cast(labels, "int32")
    wanted = ops.where(labels >= vocabulary_size, UNKNOWN, labels)
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    chosen = ops.expand_dims(wanted, -1)
    losses = -ops.squeeze(ops.take_along_axis(log_probabilities, chosen, axis=-1), -1)
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * ops.mean(log_probabilities, axis=-1)
    return losses, ops.cast(ops.not_equal(labels, PADDING), "float32")


@keras.saving.register_keras_serializable(package="unroll")
class CaptionLoss(keras.losses.Loss):
    """The mean cross entropy of the words of all captions; labels `[P, C, T]`."""

    def __init__(self, smoothing: float = 0.0, name="caption_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        losses, there = word_losses(y_true, y_pred + 0, self.smoothing)
        return ops.sum(losses * there) / ops.maximum(ops.sum(there), 1)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable(package="unroll")
class WordLoss(keras.metrics.Metric):
    """The mean cross entropy of the words of a split, without label smoothing."""

    def __init__(self, name="word_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.words = self.add_weight(name="words", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        losses, there = word_losses(y_true, y_pred + 0)
        self.total.assign_add(ops.sum(losses * there))
        self.words.assign_add(ops.sum(there))

    def result(self):
        return self.total / ops.maximum(self.words, 1)
