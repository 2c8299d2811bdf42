"""The loss and the perplexity of tokens, of which some do not count."""

import keras
from keras import ops


def token_losses(labels, outputs, first: int = 0, smoothing: float = 0.0) -> tuple:
    """-log P of each label in nats, zero for a label below `first`; and which are not, `[B, T]`.

    Args:
        labels: `[B, T]`.
        outputs: of a network: logits `[B, T, V]`, or log P of the labels `[B, T]`.
        first: the smallest label that counts.
        smoothing: the share of the probability that all tokens have equally (Szegedy et al. 2016,
            "Rethinking the Inception architecture", section 7); only with logits.
    """
    labels = ops.cast(labels, "int32")
    counts, targets = labels >= first, ops.maximum(labels, 0)
    if len(outputs.shape) == len(labels.shape):
        losses = -outputs
    elif smoothing:
        size = outputs.shape[-1]
        targets = (1 - smoothing) * ops.one_hot(targets, size, dtype=outputs.dtype)
        losses = ops.categorical_crossentropy(targets + smoothing / size, outputs, from_logits=True)
    else:
        losses = ops.sparse_categorical_crossentropy(targets, outputs, from_logits=True)
    return ops.where(counts, losses, 0.0), counts


class MeanLoss(keras.losses.Loss):
    """The mean of -log P over the labels that are not below `first`.

    Args:
        first, smoothing: as of `token_losses`.
    """

    def __init__(self, first: int = 0, smoothing: float = 0.0):
        super().__init__()
        self.first = first
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        losses, counts = token_losses(y_true, y_pred, self.first, self.smoothing)
        share = ops.mean(ops.cast(counts, losses.dtype))
        return losses / ops.maximum(share, 1e-9)


class Perplexity(keras.metrics.Mean):
    """The exponential of the mean of -log P over the labels that are not below `first`.

    Args:
        first: as of `token_losses`.
    """

    def __init__(self, first: int = 0):
        super().__init__(name="perplexity")
        self.first = first

    def update_state(self, y_true, y_pred, sample_weight=None):
        losses, counts = token_losses(y_true, y_pred, self.first)
        # Flat: of a batch `[B, T]`, Keras would divide the weights by T, so that the tokens of long
        # sequences would count less than those of short ones.
        losses, weights = (ops.reshape(x, (-1,)) for x in (losses, ops.cast(counts, losses.dtype)))
        super().update_state(losses, sample_weight=weights)

    def result(self):
        return ops.exp(super().result())
