"""Score functions of attention, and the masked softmax.

Queries are `[B, T, Q]`, keys `[B, S, Q]`, scores `[B, T, S]`: of each query and each position of
the memory. The keys contain what depends on the memory alone, so that they are computed once per
sequence.

| score | equation | keys |
| --- | --- | --- |
| `dot` | q . k | the memory |
| `scaled_dot` | q . k / sqrt(Q) | the memory |
| `general` | q . (W m) | W m, `general_keys` |
| `additive` | v . tanh(q' + k) | W_k m, with the projected query q' = W_q q |
| `concat` | v . tanh(W [q; m]) | as `additive`, with W split by `split_concat` |

Luong, Pham and Manning 2015, equation 8 (dot, general, concat); Bahdanau, Cho and Bengio 2015,
section A.1.2 (additive); Vaswani et al. 2017, equation 1 (scaled dot).
"""

import keras
from keras import ops

from unroll.layers.operations import full_precision


def dot(queries, keys):
    """q . k: `[B, T, Q]` and `[B, S, Q]` to `[B, T, S]`."""
    # Not a transposed product, whose second derivative does not compile under XLA in a loop.
    return ops.einsum("btq,bsq->bts", queries, keys)


def scaled_dot(queries, keys):
    """q . k / sqrt(Q): `[B, T, Q]` and `[B, S, Q]` to `[B, T, S]`."""
    return dot(queries, keys) / queries.shape[-1] ** 0.5


def general_keys(memory, kernel):
    """W m, the keys for `dot`: the memory `[B, S, D]` and W `[D, Q]` to `[B, S, Q]`."""
    return ops.matmul(memory, kernel)


def additive(queries, keys, scale):
    """v . tanh(q + k): `[B, T, U]`, `[B, S, U]` and v `[U]` to `[B, T, S]`."""
    hidden = ops.tanh(queries[:, :, None] + keys[:, None])  # [B, T, S, U]
    return ops.squeeze(ops.matmul(hidden, scale[:, None]), -1)


def concat(queries, memory, kernel, scale):
    """v . tanh(W [q; m]): `[B, T, Q]`, `[B, S, D]`, W `[Q + D, U]` and v `[U]` to `[B, T, S]`."""
    query_kernel, key_kernel = split_concat(kernel, queries.shape[-1])
    return additive(ops.matmul(queries, query_kernel), ops.matmul(memory, key_kernel), scale)


def split_concat(kernel, query_size: int):
    """W_q and W_m, where W [q; m] = W_q q + W_m m."""
    return kernel[:query_size], kernel[query_size:]


def masked_softmax(scores, mask=None):
    """Softmax over the last axis, where `mask` is True.

    It is computed in float32 or float64 and returned in the dtype of the scores.

    Args:
        scores: `[..., S]`.
        mask: boolean, of the shape of `scores` or one that broadcasts to it.

    Returns:
        `[..., S]`: zero where the mask is False; all zeros, not NaN, if it is False everywhere.

    >>> import numpy as np
    >>> weights = masked_softmax(np.zeros((1, 3), "float32"), np.array([[True, True, False]]))
    >>> np.array(weights).tolist()
    [[0.5, 0.5, 0.0]]
    """
    dtype = keras.backend.standardize_dtype(scores.dtype)
    scores = full_precision(scores)
    if mask is not None:
        mask = ops.cast(mask, "bool")
        # About the lowest number of float32. With -inf, a row without positions would be NaN.
        scores = ops.where(mask, scores, -3e38)
    # Keras warns about the softmax of a single score.
    weights = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)
    if mask is not None:
        weights = ops.where(mask, weights, 0.0)
    return ops.cast(weights, dtype)
