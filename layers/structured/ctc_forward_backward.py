"""The forward-backward algorithm of connectionist temporal classification (CTC).

A path of labels l_1 .. l_L goes through S = 2 L + 1 states, blank, l_1, blank, l_2, .., blank. It
starts in one of the first two states and ends in one of the last two. In each frame it stays in its
state or goes to the next one; it may skip a blank between two labels that differ.
"""

from keras import ops

from unroll.layers import backend
from unroll.layers.operations import time_major
from unroll.layers.structured.log_space import (
    IMPOSSIBLE,
    LOWEST,
    log_sum_exp,
    maximum,
    softmax,
)


def log_likelihood(log_probs, labels, label_lengths, frames, blank: int):
    """log P(labels) `[B]`; minus infinity, with a gradient of 0, if there is no path.

    Args:
        log_probs: `[B, T, K]`, minus infinity where a label is impossible.
        labels: `[B, L]`, int32, at least 0 and below K.
        label_lengths: `[B]`, at least 0 and at most L.
        frames: `[B, T]`, boolean, True for the frames of each example.
        blank: the index of the blank.
    """
    states = _states(labels, blank)  # [B, S]
    positions = ops.arange(ops.shape(states)[1], dtype="int32")
    is_skipping = ops.logical_and(states != blank, states != _shifted(states, 2, blank))
    ends = 2 * label_lengths[:, None]
    is_last = ops.logical_or(positions == ends, positions == ends - 1)
    frames = ops.expand_dims(time_major(frames), -1)  # [T, B, 1]
    arguments = (_emissions(log_probs, states), is_skipping, is_last, frames)
    return backend.custom_vjp(_forward, _gradient)(*arguments)[0]


def _states(labels, blank: int):
    """A blank before each label and after the last, `[B, 2 L + 1]`."""
    batch, longest = ops.shape(labels)
    pairs = ops.stack([ops.full_like(labels, blank), labels], axis=-1)  # [B, L, 2]
    last = ops.full((batch, 1), blank, "int32")
    return ops.concatenate([ops.reshape(pairs, (batch, 2 * longest)), last], axis=1)


def _emissions(log_probs, states):
    """The log probability of the label of each state, `[T, B, S]`."""
    batch, time, size = *ops.shape(log_probs)[:2], log_probs.shape[-1]
    if 0 in log_probs.shape:  # which `keras.ops.take` does not accept on JAX
        return ops.zeros((time, *ops.shape(states)), log_probs.dtype) + ops.sum(log_probs)
    rows = ops.reshape(ops.transpose(log_probs, (0, 2, 1)), (batch * size, time))
    index = states + size * ops.arange(batch, dtype="int32")[:, None]
    return ops.transpose(ops.take(rows, index, axis=0), (2, 0, 1))


def _forward(emissions, is_skipping, is_last, frames) -> tuple:
    """log P as a tuple, and the residuals of the gradient."""
    # Before the first frame, a path is in the first blank.
    is_first = ops.arange(ops.shape(is_last)[1]) == 0
    first = ops.zeros((ops.shape(is_last)[0], 1), emissions.dtype)
    first = first + ops.cast(ops.where(is_first, 0.0, IMPOSSIBLE), emissions.dtype)  # [B, S]

    def body(carry, xs):
        (alpha,), (x, frame) = carry, xs
        skipped = ops.where(is_skipping, _shifted(alpha, 2, IMPOSSIBLE), IMPOSSIBLE)
        new = x + _log_sum(alpha, _shifted(alpha, 1, IMPOSSIBLE), skipped)
        top = maximum(new)
        alpha = ops.where(frame, new - top, alpha)
        return (alpha,), (alpha, top)

    like = (first, first[:, :1])
    (alpha,), (alphas, tops) = backend.scan(body, (first,), (emissions, frames), like, False)
    log_p = log_sum_exp(ops.where(is_last, alpha, IMPOSSIBLE))
    log_p = log_p + ops.sum(ops.where(frames, tops, 0.0)[..., 0], axis=0)
    return (log_p,), (emissions, is_skipping, is_last, frames, alphas)


def _gradient(residuals, cotangents) -> tuple:
    """The gradient of log P: the probability of each state in each frame."""
    emissions, is_skipping, is_last, frames, alphas = residuals
    last = ops.cast(ops.where(is_last, 0.0, IMPOSSIBLE), emissions.dtype)  # [B, S]

    def body(carry, xs):
        (beta,), (x, frame) = carry, xs
        scores = x + beta
        scores = scores - maximum(scores)
        skipped = _shifted(ops.where(is_skipping, scores, IMPOSSIBLE), -2, IMPOSSIBLE)
        new = _log_sum(scores, _shifted(scores, -1, IMPOSSIBLE), skipped)
        return (ops.where(frame, new, beta),), (beta,)

    _, (betas,) = backend.scan(body, (last,), (emissions, frames), (last,), True)
    probabilities = ops.where(frames, softmax(alphas + betas), 0.0)
    return probabilities * cotangents[0][:, None], None, None, None


def _shifted(x, n: int, padding):
    """`[B, S]`, moved by n to the right, or by -n to the left."""
    columns = ops.full((ops.shape(x)[0], abs(n)), padding, x.dtype)
    if n > 0:
        return ops.concatenate([columns, x], axis=1)[:, :-n]
    return ops.concatenate([x, columns], axis=1)[:, -n:]


def _log_sum(*terms):
    """The log of the sum of exponentials of the terms."""
    top = terms[0]
    for term in terms[1:]:
        top = ops.maximum(top, term)
    finite = ops.maximum(top, LOWEST)
    # The sum is 1 or more, or 0 where all terms are minus infinity.
    sums = sum(ops.exp(term - finite) for term in terms)
    return ops.log(ops.maximum(sums, 1.0)) + top
