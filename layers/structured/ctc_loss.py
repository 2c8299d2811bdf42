"""The loss of connectionist temporal classification (CTC).

Graves et al. 2006, "Connectionist temporal classification". At each frame a network predicts one of
K labels, one of which is the blank. A path is one label per frame. It spells a sequence of labels:
merge repeated labels, then remove the blanks.

    collapse(a a - a b b) = a a b
    P(labels) = sum over all paths that collapse to the labels, of the product of the probabilities
                of the frames

A blank separates two equal labels, so that labels with r pairs of equal neighbors need at least r
more frames than there are labels.

All functions take logits `[B, T, K]` and compute in float32 under any dtype policy, or in float64
for logits in float64. `frame_lengths` is `[B]`, the number of frames of each example, by default T;
the logits of later frames are ignored, NaN included. `blank` is the index of the blank. A label
whose log probability is half of `LOG_ZERO` or less is impossible; see `pad_with_blanks`.
"""

import keras
from keras import ops

from unroll.layers import backend
from unroll.layers.operations import LOG_ZERO, require_size
from unroll.layers.structured import ctc_forward_backward
from unroll.layers.structured.arguments import require
from unroll.layers.structured.log_space import IMPOSSIBLE


def ctc_loss(labels, logits, label_lengths, frame_lengths=None, blank: int = 0):
    """-log P(labels) of each example.

    Args:
        labels: `[B, L]`, integers. Values after the length of an example are ignored.
        logits: `[B, T, K]`.
        label_lengths: `[B]`.
        frame_lengths: `[B]`; by default T.
        blank: the index of the blank.

    Returns:
        The losses, `[B]`. An example without a possible path, such as one with too few frames, has
        the loss 0 and no gradient. Count these examples with `ctc_infeasible` and leave them out of
        a mean. In a graph, an example with a label or a length out of its range has the loss NaN
        and no gradient.

    Raises:
        ValueError: if the labels or the logits have another rank, or `blank` is not an index of the
            K labels. In eager mode, also if a label is the blank or not one of the K labels, if a
            label length is not between 0 and L, or a frame length not between 0 and T.

    >>> import numpy as np
    >>> loss = ctc_loss(np.array([[1]]), np.zeros((1, 2, 3), "float32"), np.array([1]))
    >>> round(float(np.exp(-loss[0])) * 9)  # three of nine paths: a a, a -, - a
    3
    """
    logits, frame_lengths, frames = prepare(logits, frame_lengths, blank)
    labels, label_lengths = (ops.cast(x, "int32") for x in (labels, label_lengths))
    if len(labels.shape) != 2:
        raise ValueError(f"labels must be [B, L], got {tuple(labels.shape)}.")
    size, longest = logits.shape[-1], ops.shape(labels)[1]
    is_label = ops.arange(longest, dtype="int32") < label_lengths[:, None]  # [B, L]
    is_valid = ops.logical_and(_in_range(labels, size - 1), labels != blank)
    is_valid = ops.all(
        require(
            ops.logical_or(is_valid, ops.logical_not(is_label)),
            labels,
            "labels",
            f"at least 0, below {size} and not {blank}, the blank",
        ),
        axis=1,
    )
    is_length = _in_range(label_lengths, longest)
    is_length = require(is_length, label_lengths, "label_lengths", f"between 0 and {longest}")
    is_valid = ops.logical_and(is_valid, is_length)
    is_valid = ops.logical_and(is_valid, _in_range(frame_lengths, ops.shape(logits)[1]))
    used = ops.logical_and(is_label, is_valid[:, None])
    labels = ops.where(used, labels, 1 if blank == 0 else 0)
    # An example that is not valid has no labels.
    label_lengths = ops.where(is_valid, label_lengths, 0)
    losses = _losses(labels, logits, label_lengths, frame_lengths, frames, blank)
    return ops.where(is_valid, losses, float("nan"))


def _losses(labels, logits, label_lengths, frame_lengths, frames, blank: int):
    """`ctc_loss` of valid arguments."""
    if backend.uses_custom_gradient():
        log_probs = ops.log_softmax(logits)
        log_probs = ops.where(log_probs <= LOG_ZERO / 2, IMPOSSIBLE, log_probs)
        likelihood = ctc_forward_backward.log_likelihood(
            log_probs, labels, label_lengths, frames, blank
        )
        return ops.where(likelihood == IMPOSSIBLE, 0.0, -likelihood)
    if 0 in logits.shape:
        return ops.sum(logits, axis=(1, 2))
    # PyTorch has an operation for it, which is faster than a loop that it differentiates.
    is_infeasible = ctc_infeasible(labels, label_lengths, frame_lengths)
    is_feasible = ops.logical_not(ops.logical_or(is_infeasible, frame_lengths == 0))
    losses = ops.ctc_loss(
        labels,
        logits,
        ops.where(is_feasible, label_lengths, 0),
        ops.maximum(frame_lengths, 1),
        mask_index=blank,
    )
    is_possible = ops.logical_not(losses >= -LOG_ZERO / 2)  # NaN is kept
    return ops.where(ops.logical_and(is_feasible, is_possible), losses, 0.0)


def _in_range(x, maximum):
    return ops.logical_and(x >= 0, x <= maximum)


@keras.saving.register_keras_serializable(package="unroll")
class CTCLoss(keras.losses.Loss):
    """The mean of `ctc_loss` over a batch, for `compile`.

    Sample weights are one per sequence. The loss takes no lengths: labels that are blank or below
    zero are padding, and `pad_with_blanks` pads the logits.

    Args:
        blank: the index of the blank.
        reduction: as in `keras.losses.Loss`.
        name: the name of the loss.

    Call arguments:
        y_true: the labels, `[B, L]`, with all padding at the end.
        y_pred: the logits, `[B, T, K]`.

    Raises:
        ValueError: if `blank` is not an index. The errors of `ctc_loss` also apply.

    >>> import numpy as np
    >>> round(float(CTCLoss()(np.array([[1, -1]]), np.zeros((1, 2, 3), "float32"))), 4)
    1.0986
    """

    def __init__(
        self, blank: int = 0, reduction: str | None = "sum_over_batch_size", name: str = "ctc_loss"
    ):
        super().__init__(name=name, reduction=reduction)
        self.blank = require_size("blank", blank, 0)

    def __call__(self, y_true, y_pred, sample_weight=None):
        # `+ 0` removes the Keras mask of the logits, which would weight the sequences by frames.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        is_label = ops.logical_and(labels != self.blank, labels >= 0)
        lengths = ops.sum(ops.cast(is_label, "int32"), axis=1)
        return ctc_loss(labels, y_pred, lengths, blank=self.blank)

    def get_config(self):
        return {**super().get_config(), "blank": self.blank}


def pad_with_blanks(logits, mask, blank: int = 0):
    """Sets the logits of masked frames to certain blanks.

    Such frames do not change the probability of any labels, so that a loss or a search of the
    result needs no lengths. All labels but the blank get the logit `LOG_ZERO`, -1e9, with which
    they are impossible: an example that has too few frames without the padding has the loss 0.

    Args:
        logits: `[B, T, K]`.
        mask: `[B, T]`, boolean, True for the frames of each example.
        blank: the index of the blank.

    Returns:
        The logits, `[B, T, K]`.

    Raises:
        ValueError: if `blank` is not an index of the K labels.

    >>> import numpy as np
    >>> logits = np.array([[[0.0, 2.0], [0.0, 2.0]]], "float32")
    >>> np.array(pad_with_blanks(logits, np.array([[True, False]]))).tolist()
    [[[0.0, 2.0], [0.0, -1000000000.0]]]
    """
    size = logits.shape[-1]
    blank = _require_blank(blank, size)
    certain = ops.where(ops.arange(size) == blank, 0.0, LOG_ZERO)
    certain = ops.cast(certain, keras.backend.standardize_dtype(logits.dtype))
    return ops.where(ops.expand_dims(mask, -1), logits, certain)


def ctc_infeasible(labels, label_lengths, frame_lengths):
    """Whether an example has too few frames for its labels: one for each, and for each blank
    between two equal labels.

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
    positions = ops.arange(ops.shape(labels)[1], dtype="int32")[1:]
    is_label = positions < label_lengths[:, None]
    is_repeated = ops.logical_and(labels[:, 1:] == labels[:, :-1], is_label)
    return frame_lengths < label_lengths + ops.sum(ops.cast(is_repeated, "int32"), axis=1)


def prepare(logits, frame_lengths, blank: int) -> tuple:
    """The arguments of a loss or a search, after a check.

    Returns:
        A tuple of the logits in float32, 0 after the last frame and at least `LOG_ZERO`; the frame
        lengths `[B]`; and whether a frame is one of its example, `[B, T]`.
    """
    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 3:
        raise ValueError(f"logits must be [B, T, K], got {tuple(logits.shape)}.")
    _require_blank(blank, logits.shape[-1])
    dtype = keras.backend.standardize_dtype(logits.dtype)
    logits = ops.cast(logits, keras.backend.result_type(dtype, "float32"))
    logits = ops.maximum(logits, LOG_ZERO)
    batch, time = ops.shape(logits)[:2]
    if frame_lengths is None:
        return logits, ops.full((batch,), time, "int32"), ops.ones((batch, time), "bool")
    frame_lengths = ops.cast(frame_lengths, "int32")
    require(_in_range(frame_lengths, time), frame_lengths, "frame_lengths", f"between 0 and {time}")
    frames = ops.arange(time, dtype="int32") < ops.expand_dims(frame_lengths, -1)
    return ops.where(ops.expand_dims(frames, -1), logits, 0.0), frame_lengths, frames


def _require_blank(blank: int, size: int) -> int:
    blank = require_size("blank", blank, 0)
    if blank >= size:
        raise ValueError(f"blank must be below the {size} labels, got {blank}.")
    return blank
