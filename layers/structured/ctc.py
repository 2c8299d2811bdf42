"""Connectionist temporal classification: the loss, and the best labels.

Graves et al. 2006, "Connectionist temporal classification". A network says at each frame which of K
labels it hears, or none of them (blank). A path is one choice per frame; it spells a sequence of
labels when repeats are collapsed and then the blanks are dropped:

    collapse(a a - a b b) = a a b
    P(labels) = sum over all paths that collapse to them of the product of the frames' probabilities

So a blank between two equal labels is what spells a doubled one; labels with r pairs of equal
neighbours need r frames more than there are labels.

Everywhere: logits `[B, T, K]`, not normalised, computed on in float32 under any policy; the number
of frames of each example, `[B]`, by default all T; `blank`, the index of the blank.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from unroll.layers import backend
from unroll.layers.operations import LOG_ZERO, argmax, require_size


class CTCResult(NamedTuple):
    """What was heard, from the likeliest down where there are several.

    Attributes:
        labels: `[B, T]` or `[B, n, T]`, int32, -1 after the end.
        lengths: `[B]` or `[B, n]`, int32.
        log_probabilities: `[B]` or `[B, n]`: of the best path, or of the labels (the sum of the
            paths that the beam kept). An entry that does not exist has -1e8 or less.
    """

    labels: Any
    lengths: Any
    log_probabilities: Any


def ctc_loss(labels, logits, label_lengths, frame_lengths=None, blank: int = 0):
    """-log P(labels), `[B]`; 0, and without a gradient, where the frames are too few.

    Such examples must be counted, and not averaged: `ctc_infeasible` tells which they are.

    Args:
        labels: `[B, L]`, integers; what stands beyond the length does not matter.
        logits: `[B, T, K]`.
        label_lengths: `[B]`.
        frame_lengths: `[B]`.
        blank: the index of the blank.

    Raises:
        ValueError: if the ranks are others, or `blank` is no index of the K.

    >>> import numpy as np
    >>> loss = ctc_loss(np.array([[1]]), np.zeros((1, 2, 3), "float32"), np.array([1]))
    >>> round(float(np.exp(-loss[0])) * 9)  # three of nine paths: a a, a -, - a
    3
    """
    logits, frame_lengths = _prepare(logits, frame_lengths, blank)
    labels, label_lengths = (ops.cast(x, "int32") for x in (labels, label_lengths))
    if len(labels.shape) != 2:
        raise ValueError(f"labels must be [B, L], got {tuple(labels.shape)}.")
    valid = ops.logical_not(ctc_infeasible(labels, label_lengths, frame_lengths))
    valid = ops.logical_and(valid, frame_lengths > 0)
    # What is not valid takes part with no labels and one frame, which gives a finite number.
    label_lengths = ops.where(valid, label_lengths, 0)
    within = ops.arange(ops.shape(labels)[1]) < label_lengths[:, None]
    filler = 1 if blank == 0 else 0
    labels = ops.where(within, labels, filler)
    losses = ops.ctc_loss(
        labels, logits, label_lengths, ops.maximum(frame_lengths, 1), mask_index=blank
    )
    return ops.where(valid, losses, 0.0)


class CTCLoss(keras.losses.Loss):
    """The mean over a batch of `ctc_loss`, for `compile`; one weight per sequence may be given.

    It reads no lengths: of the labels what is blank or below zero is padding, and the logits come
    from `pad_with_blanks`.

    Args:
        blank: the index of the blank.

    Call arguments:
        y_true: the labels, `[B, L]`, no padding before one.
        y_pred: the logits, `[B, T, K]`.
    """

    def __init__(self, blank: int = 0, name: str = "ctc_loss"):
        super().__init__(name=name)
        self.blank = blank

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras would weight the sequences by a mask of frames, where one hangs on the logits.
        return super().__call__(y_true, y_pred + 0, sample_weight)

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        real = ops.logical_and(labels != self.blank, labels >= 0)
        return ctc_loss(labels, y_pred, ops.sum(ops.cast(real, "int32"), axis=1), blank=self.blank)

    def get_config(self):
        return {"name": self.name, "blank": self.blank}


def pad_with_blanks(logits, mask, blank: int = 0):
    """Logits that are sure of the blank where there is no frame, `[B, T, K]`.

    Losses, searches and streams then need no lengths: such frames add nothing to any path.

    Args:
        logits: `[B, T, K]`.
        mask: `[B, T]`, boolean: which frames there are.
        blank: the index of the blank.

    >>> import numpy as np
    >>> logits = np.array([[[0.0, 2.0], [0.0, 2.0]]], "float32")
    >>> np.array(pad_with_blanks(logits, np.array([[True, False]]))).tolist()
    [[[0.0, 2.0], [100.0, 0.0]]]
    """
    sure = 100.0 * ops.one_hot(blank, logits.shape[-1], dtype=logits.dtype)
    return ops.where(ops.expand_dims(mask, -1), logits, sure)


def ctc_infeasible(labels, label_lengths, frame_lengths):
    """Whether the frames are too few for the labels, `[B]`, boolean.

    Args:
        labels: `[B, L]`, integers.
        label_lengths: `[B]`.
        frame_lengths: `[B]`.

    >>> import numpy as np
    >>> labels = np.array([[1, 1], [1, 2]])
    >>> np.array(ctc_infeasible(labels, np.array([2, 2]), np.array([2, 2]))).tolist()
    [True, False]
    """
    labels, label_lengths, frame_lengths = (
        ops.cast(x, "int32") for x in (labels, label_lengths, frame_lengths)
    )
    places = ops.arange(1, ops.shape(labels)[1])
    equal = ops.logical_and(labels[:, 1:] == labels[:, :-1], places < label_lengths[:, None])
    return frame_lengths < label_lengths + ops.sum(ops.cast(equal, "int32"), axis=1)


def ctc_greedy(logits, frame_lengths=None, blank: int = 0) -> CTCResult:
    """The likeliest path, collapsed; `[B, T]`.

    >>> import numpy as np
    >>> path = np.eye(3, dtype="float32")[[[1, 1, 0, 1, 2, 2]]]
    >>> np.array(ctc_greedy(path).labels).tolist()
    [[1, 1, 2, -1, -1, -1]]
    """
    logits, frame_lengths = _prepare(logits, frame_lengths, blank)
    best = argmax(logits)  # [B, T]
    before = ops.concatenate([ops.zeros_like(best[:, :1]) - 1, best[:, :-1]], axis=1)
    places = ops.arange(ops.shape(best)[1], dtype="int32")
    heard = places < ops.expand_dims(frame_lengths, -1)
    kept = ops.logical_and(ops.logical_and(best != blank, best != before), heard)
    kept = ops.cast(kept, "int32")
    # Each label that is kept goes to the place that its count tells.
    target = ops.expand_dims(ops.cumsum(kept, axis=1) * kept - 1, 1)  # [B, 1, T]
    here = ops.cast(target == ops.expand_dims(places, -1), "int32")  # [B, T, T]
    labels = ops.sum(here * ops.expand_dims(best + 1, 1), axis=-1) - 1
    log_probs = ops.max(ops.log_softmax(logits, axis=-1), axis=-1)  # [B, T]
    total = ops.sum(ops.where(heard, log_probs, 0.0), axis=-1)
    return CTCResult(labels, ops.sum(kept, axis=1), total)


def ctc_beam_search(
    logits, frame_lengths=None, beam_width: int = 10, blank: int = 0, num_return_sequences: int = 1
) -> CTCResult:
    """The likeliest labels that a beam of prefixes finds, `[B, best, T]`.

    Graves 2012, "Supervised sequence labelling with recurrent neural networks", section 7.5.3; as
    in Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1, without a language model. A prefix is scored by the
    sum of all its paths: those that end in a blank, and those that end in its last label.

    Args:
        beam_width: W, how many prefixes are kept.
        num_return_sequences: how many to return.

    Raises:
        ValueError: if `beam_width` or `num_return_sequences` is below one, or `num_return_sequences` above `beam_width`.
    """
    require_size("beam_width", beam_width)
    require_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, got {num_return_sequences} of {beam_width}."
        )
    logits, frame_lengths = _prepare(logits, frame_lengths, blank)
    log_probs = ops.transpose(ops.log_softmax(logits, axis=-1), (1, 0, 2))  # [T, B, K]
    steps, batch, w = ops.shape(log_probs)[0], ops.shape(log_probs)[1], beam_width
    size = log_probs.shape[-1]
    places, kinds = ops.arange(steps, dtype="int32"), ops.arange(size, dtype="int32")
    heard = places[:, None] < frame_lengths  # [T, B]

    def take(x, rows):
        flat = ops.reshape(x, (-1, *ops.shape(x)[2:]))
        return ops.take(flat, rows + w * ops.arange(batch, dtype="int32")[:, None], axis=0)

    def body(carry, xs):
        prefixes, lengths, last, in_blank, in_label = carry
        frame, goes_on = xs[0][:, None], xs[1][:, None, None]  # [B, 1, K], [B, 1, 1]
        total = ops.logaddexp(in_blank, in_label)  # [B, W]
        is_last = kinds == last[..., None]  # [B, W, K]
        of_last = ops.sum(ops.where(is_last, frame, 0.0), axis=-1)  # [B, W]
        begun = lengths > 0

        # Prefixes go on by each label; a repeated one needs the blank before it.
        longer = ops.where(is_last, in_blank[..., None], total[..., None]) + frame  # [B, W, K]
        longer = ops.where(kinds == blank, LOG_ZERO, longer)
        # Some of them stand in the beam already: prefix j is prefix i and one label.
        parents = ops.where(places == lengths[..., None] - 1, -1, prefixes)
        one_more = ops.all(prefixes[:, :, None] == parents[:, None], axis=-1)  # [B, i, j]
        # What the beam holds only to be full may be the copy of a prefix that is there.
        exists = ops.logical_and(begun, total > LOG_ZERO / 2)
        one_more = ops.logical_and(one_more, exists[:, None])
        reached = ops.sum(ops.where(is_last[:, None], longer[:, :, None], 0.0), axis=-1)
        reached = ops.logsumexp(ops.where(one_more, reached, LOG_ZERO), axis=1)  # [B, j]
        twice = ops.any(ops.logical_and(one_more[..., None], is_last[:, None]), axis=2)
        longer = ops.where(twice, LOG_ZERO, longer)

        stays_in_blank = total + frame[..., blank]
        stays_in_label = ops.where(begun, ops.logaddexp(in_label + of_last, reached), LOG_ZERO)
        stays = ops.logaddexp(stays_in_blank, stays_in_label)
        options = ops.concatenate([stays, ops.reshape(longer, (batch, w * size))], axis=1)
        scores, chosen = ops.top_k(options, w)
        chosen = ops.cast(chosen, "int32")
        is_longer = chosen >= w
        parent = ops.where(is_longer, (chosen - w) // size, chosen)
        label = ops.where(is_longer, (chosen - w) % size, take(last, parent))
        length, prefix = take(lengths, parent), take(prefixes, parent)
        writes = ops.logical_and(is_longer[..., None], places == length[..., None])
        new = (
            ops.where(writes, label[..., None], prefix),
            length + ops.cast(is_longer, "int32"),
            label,
            ops.where(is_longer, LOG_ZERO, take(stays_in_blank, parent)),
            ops.where(is_longer, scores, take(stays_in_label, parent)),
        )
        kept = tuple(
            ops.where(goes_on if len(a.shape) == 3 else goes_on[..., 0], a, b)
            for a, b in zip(new, carry, strict=True)
        )
        return kept, ()

    def full(value, dtype, *shape):
        return ops.full((batch, w, *shape), value, dtype)

    # One empty prefix; what else the beam holds at the start is as good as impossible.
    first = ops.where(ops.arange(w) > 0, LOG_ZERO, 0.0)
    carry = (
        full(-1, "int32", steps),
        full(0, "int32"),
        full(-1, "int32"),
        full(0.0, "float32") + first,
        full(LOG_ZERO, "float32"),
    )
    (prefixes, lengths, _, *ends), _ = backend.scan(body, carry, (log_probs, heard), (), False)
    found, rows = ops.top_k(ops.logaddexp(*ends), num_return_sequences)
    rows = ops.cast(rows, "int32")
    return CTCResult(take(prefixes, rows), take(lengths, rows), found)


def _prepare(logits, frame_lengths, blank):
    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 3:
        raise ValueError(f"logits must be [B, T, K], got {tuple(logits.shape)}.")
    if not 0 <= blank < logits.shape[-1]:
        raise ValueError(f"blank must be one of the {logits.shape[-1]} labels, got {blank!r}.")
    logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
    if frame_lengths is None:
        frame_lengths = ops.full((ops.shape(logits)[0],), ops.shape(logits)[1])
    return logits, ops.cast(frame_lengths, "int32")
