"""The loss of connectionist temporal classification (CTC).

Graves et al. 2006, "Connectionist temporal classification". At each frame a network predicts one of
K labels, one of which is the blank. A path is one label per frame. It spells a sequence of labels:
merge repeated labels, then remove the blanks.

    collapse(a a - a b b) = a a b
    P(labels) = sum over all paths that collapse to the labels, of the product of the probabilities
                of the frames

A blank separates two equal labels, so that labels with r pairs of equal neighbors need at least r
more frames than there are labels.

All functions take logits `[B, T, K]` and compute in float32 under any dtype policy.
`frame_lengths` is `[B]`, the number of frames of each example, by default T. `blank` is the index
of the blank.
"""

import keras
from keras import ops


def ctc_loss(labels, logits, label_lengths, frame_lengths=None, blank: int = 0):
    """-log P(labels) of each example.

    Args:
        labels: `[B, L]`, integers. Values after the length of an example are ignored.
        logits: `[B, T, K]`.
        label_lengths: `[B]`.
        frame_lengths: `[B]`; by default T.
        blank: the index of the blank.

    Returns:
        The losses, `[B]`. An example with too few frames has the loss 0 and no gradient. Count
        these examples with `ctc_infeasible` and leave them out of a mean.

    Raises:
        ValueError: if the labels or the logits have another rank, or `blank` is not an index of the
            K labels.

    >>> import numpy as np
    >>> loss = ctc_loss(np.array([[1]]), np.zeros((1, 2, 3), "float32"), np.array([1]))
    >>> round(float(np.exp(-loss[0])) * 9)  # three of nine paths: a a, a -, - a
    3
    """
    logits, frame_lengths = prepare(logits, frame_lengths, blank)
    labels, label_lengths = (ops.cast(x, "int32") for x in (labels, label_lengths))
    if len(labels.shape) != 2:
        raise ValueError(f"labels must be [B, L], got {tuple(labels.shape)}.")
    valid = ops.logical_not(ctc_infeasible(labels, label_lengths, frame_lengths))
    valid = ops.logical_and(valid, frame_lengths > 0)
    # An example that is not valid gets no labels and one frame, so that its loss is finite.
    label_lengths = ops.where(valid, label_lengths, 0)
    is_label = ops.arange(ops.shape(labels)[1]) < label_lengths[:, None]
    padding = 1 if blank == 0 else 0
    labels = ops.where(is_label, labels, padding)
    losses = ops.ctc_loss(
        labels, logits, label_lengths, ops.maximum(frame_lengths, 1), mask_index=blank
    )
    return ops.where(valid, losses, 0.0)


class CTCLoss(keras.losses.Loss):
    """The mean of `ctc_loss` over a batch, for `compile`.

    Sample weights are one per sequence. The loss takes no lengths: labels that are blank or below
    zero are padding, and `pad_with_blanks` pads the logits.

    Args:
        blank: the index of the blank.

    Call arguments:
        y_true: the labels, `[B, L]`, with all padding at the end.
        y_pred: the logits, `[B, T, K]`.
    """

    def __init__(self, blank: int = 0, name: str = "ctc_loss"):
        super().__init__(name=name)
        self.blank = blank

    def __call__(self, y_true, y_pred, sample_weight=None):
        # `+ 0` removes the Keras mask of the logits, which would weight the sequences by frames.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        is_label = ops.logical_and(labels != self.blank, labels >= 0)
        lengths = ops.sum(ops.cast(is_label, "int32"), axis=1)
        return ctc_loss(labels, y_pred, lengths, blank=self.blank)

    def get_config(self):
        return {"name": self.name, "blank": self.blank}


def pad_with_blanks(logits, mask, blank: int = 0):
    """Sets the logits of masked frames to certain blanks.

    Such frames do not change the probability of any labels, so that a loss or a search of the
    result needs no lengths.

    Args:
        logits: `[B, T, K]`.
        mask: `[B, T]`, boolean, True for the frames of each example.
        blank: the index of the blank.

    Returns:
        The logits, `[B, T, K]`.

    >>> import numpy as np
    >>> logits = np.array([[[0.0, 2.0], [0.0, 2.0]]], "float32")
    >>> np.array(pad_with_blanks(logits, np.array([[True, False]]))).tolist()
    [[[0.0, 2.0], [100.0, 0.0]]]
    """
    certain = 100.0 * ops.one_hot(blank, logits.shape[-1], dtype=logits.dtype)
    return ops.where(ops.expand_dims(mask, -1), logits, certain)


def ctc_infeasible(labels, label_lengths, frame_lengths):
    """Whether an example has too few frames for its labels.

    Args:
        labels: `[B, L]`, integers.
        label_lengths: `[B]`.
        frame_lengths: `[B]`.

    Returns:
        `[B]`, boolean.

    >>> import numpy as np
    >>> labels = np.array([[1, 1], [1, 2]])
    >>> np.array(ctc_infeasible(labels, np.array([2, 2]), np.array([2, 2]))).tolist()
    [True, False]
    """
    labels, label_lengths, frame_lengths = (
        ops.cast(x, "int32") for x in (labels, label_lengths, frame_lengths)
    )
    positions = ops.arange(1, ops.shape(labels)[1])
    is_label = positions < label_lengths[:, None]
    is_repeated = ops.logical_and(labels[:, 1:] == labels[:, :-1], is_label)
    return frame_lengths < label_lengths + ops.sum(ops.cast(is_repeated, "int32"), axis=1)


def prepare(logits, frame_lengths, blank: int) -> tuple:
    """The logits in float32 and the frame lengths, after a check of the arguments."""
    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 3:
        raise ValueError(f"logits must be [B, T, K], got {tuple(logits.shape)}.")
    size = logits.shape[-1]
    if not 0 <= blank < size:
        raise ValueError(f"blank must be at least 0 and below the {size} labels, got {blank!r}.")
    logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
    if frame_lengths is None:
        frame_lengths = ops.full((ops.shape(logits)[0],), ops.shape(logits)[1])
    return logits, ops.cast(frame_lengths, "int32")
