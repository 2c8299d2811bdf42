"""Parts of the network: the encoder of images and clips, the loss and a metric."""

import keras
from keras import ops

from unroll import layers
from unroll.apps.shared import groups
from unroll.apps.shared.residual import residual_encoder
from unroll.pipelines.captions import PADDING, UNKNOWN


def image_encoder(config, spec: dict, num_frame_labels: int = 0) -> keras.Model:
    """The part of the model that runs once per image, before the decoder.

    Args:
        config: of the app.
        spec: `kind` and `shape` of the input: pixels, `image`, or features, `regions`.
        num_frame_labels: K, the number of labels of the frames of clips; 0 without labels.

    Returns:
        A model with the outputs `memory` `[P, S, D]`, which the decoder attends to, and `mask`
        `[P, S]`, which of its rows exist. They are the cells of a grid, regions, or the frames of a
        clip, which pass through a bidirectional recurrent layer. With frame labels there is a third
        output: their logits, `frames` `[P, F, K]`.
    """
    given = x = keras.Input(spec["shape"], name=spec["kind"])
    if spec["kind"] == "image":
        if config.frames:
            grids = residual_encoder(config, config.frames)(groups.Merge()(given))
            x = motion_features(groups.Split()(grids, given), config.attention_units)
        else:
            x = residual_encoder(config)(given)
    if len(x.shape) == 4:
        x = keras.layers.Reshape((-1, x.shape[-1]))(x)
    mask = ops.any(ops.not_equal(x, 0), axis=-1)  # rows of zeros are padding
    outputs = {"mask": mask}
    if config.frames:
        recurrent = getattr(layers, config.clip_cell)(config.units, return_sequences=True)
        x = keras.layers.Dense(config.units, "relu")(x)
        states = keras.layers.Bidirectional(recurrent, name="over_time")(x, mask=mask)
        x = ops.concatenate([x, states], axis=-1)
    if num_frame_labels:
        outputs["frames"] = keras.layers.Dense(num_frame_labels, name="frame")(x)
    return keras.Model(given, outputs | {"memory": x}, name="image_encoder")


def motion_features(grids, units: int):
    """A vector per frame, by attention over its grid: `[P, F, H, W, D]` to `[P, F, 2 D]`.

    The features of a cell are concatenated with their difference to the previous frame, which is
    large where something moves.
    """
    previous = ops.concatenate([grids[:, :1], grids[:, :-1]], axis=1)
    cells = ops.concatenate([grids, grids - previous], axis=-1)
    pool = layers.AttentionPool(units, name="motion")
    pooled, _ = pool(ops.reshape(cells, (-1, grids.shape[2] * grids.shape[3], cells.shape[-1])))
    return groups.Split()(pooled, grids)


def word_losses(labels, logits, smoothing: float = 0.0):
    """The cross entropy of each word, and 1 for words or 0 for padding; `[P, C, T]` each.

    Labels of the vocabulary's size and above are words that are not in the vocabulary.
    """
    vocabulary_size = logits.shape[-1]
    labels = ops.cast(labels, "int32")
    targets = ops.where(labels >= vocabulary_size, UNKNOWN, labels)
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    losses = -ops.squeeze(ops.take_along_axis(log_probs, targets[..., None], axis=-1), -1)
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * ops.mean(log_probs, axis=-1)
    return losses, ops.cast(ops.not_equal(labels, PADDING), "float32")


@keras.saving.register_keras_serializable(package="unroll")
class CaptionLoss(keras.losses.Loss):
    """The mean cross entropy of the words of all captions. Labels are `[P, C, T]`.

    Args:
        smoothing: label smoothing.
    """

    def __init__(self, smoothing: float = 0.0, name="caption_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        losses, weights = word_losses(y_true, y_pred, self.smoothing)
        return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1)

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
        losses, weights = word_losses(y_true, y_pred)
        self.total.assign_add(ops.sum(losses * weights))
        self.words.assign_add(ops.sum(weights))

    def result(self):
        return self.total / ops.maximum(self.words, 1)
