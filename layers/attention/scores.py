"""How well a query fits each place of a memory, and the one softmax of all attention.

Queries are `[B, T, Q]`, keys `[B, S, Q]`, scores `[B, T, S]`: each query against each place. What
of a score depends on the memory alone is in its keys, so that they are made once a sequence.

| score | equation | keys |
| --- | --- | --- |
| `dot` | q . k | the memory |
| `scaled_dot` | q . k / sqrt(Q) | the memory |
| `general` | q . (W m) | W m, `general_keys` |
| `additive` | v . tanh(q' + k) | W_k m, with the query projected, q' = W_q q |
| `concat` | v . tanh(W [q; m]) | `additive` with W split, `split_concat` |

Luong, Pham and Manning 2015, equation 8 (dot, general, concat); Bahdanau, Cho and Bengio 2015,
section A.1.2 (additive); Vaswani et al. 2017, equation 1 (scaled dot).
"""

import keras
from keras import ops


def dot(queries, keys):
    """q . k, `[B, T, Q]` and `[B, S, Q]` to `[B, T, S]`."""
    return ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))


def scaled_dot(queries, keys):
    """q . k / sqrt(Q)."""
    return dot(queries, keys) / queries.shape[-1] ** 0.5


def general_keys(memory, kernel):
    """W m for `dot`, with the kernel W `[D, Q]` and the memory `[B, S, D]`."""
    return ops.matmul(memory, kernel)


def additive(queries, keys, scale):
    """v . tanh(q + k) of projected queries and keys, with the scale v `[U]`."""
    hidden = ops.tanh(queries[:, :, None] + keys[:, None])  # [B, T, S, U]
    return ops.squeeze(ops.matmul(hidden, scale[:, None]), -1)


def concat(queries, memory, kernel, scale):
    """v . tanh(W [q; m]) with the kernel W `[Q + D, U]` and the scale v `[U]`."""
    of_query, of_memory = split_concat(kernel, queries.shape[-1])
    return additive(ops.matmul(queries, of_query), ops.matmul(memory, of_memory), scale)


def split_concat(kernel, query_size: int):
    """The two parts of W that meet the query and the memory: W [q; m] = W_q q + W_m m."""
    return kernel[:query_size], kernel[query_size:]


def masked_softmax(scores, mask=None):
    """Softmax over the last axis, of the places that `mask` allows.

    Args:
        scores: `[..., S]`.
        mask: boolean, of the shape of `scores` or one that broadcasts to it.

    Returns:
        `[..., S]`: exactly zero where the mask is False, and all zeros, not NaN, where it is False
        everywhere.

    >>> import numpy as np
    >>> weights = masked_softmax(np.zeros((1, 3), "float32"), np.array([[True, True, False]]))
    >>> np.array(weights).tolist()
    [[0.5, 0.5, 0.0]]
    """
    if mask is None:
        return ops.softmax(scores, axis=-1)
    mask = ops.cast(mask, "bool")
    # The least finite number and not -inf: a row of -inf has no maximum to subtract.
    floor = -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e30
    scores = ops.where(mask, scores, ops.cast(floor, scores.dtype))
    exponentials = ops.where(
        mask, ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))), 0.0
    )
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / ops.where(total > 0, total, ops.ones_like(total))
