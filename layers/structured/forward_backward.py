"""The forward-backward algorithm of a linear-chain conditional random field.

Potentials x are `[T, B, K]`, time first. `steps` `[T, B, 1]` is False where a step is masked. The
parameters are the transitions `[K, K]` and the scores of the first and last tags, start and end
`[K]`, minus infinity where a tag or a transition is not allowed.

Each step is a product of matrices in log space, log sum_i exp(scores_i + transitions_ij). It is
computed as a product of matrices of exponentials (`_scaled_product`), with B K exponentials. A sum
of these underflows if each of its terms is far below the largest score of all tags. Then all steps
are computed again with B K K exponentials each (`_exact_product`).
"""

import keras
import numpy as np
from keras import ops

from unroll.layers import backend
from unroll.layers.structured.log_space import IMPOSSIBLE, log, log_sum_exp, maximum, softmax


def log_partition(x, steps, transitions, start, end):
    """log Z `[B]`, with the marginals as its gradient.

    It is 0 for a sequence without steps. For a sequence without an allowed path it is minus
    infinity, with a gradient of 0.
    """
    arguments = (x, steps, transitions, start, end)

    def value(*arguments):
        log_z, *residuals = forward(*arguments)
        return (log_z,), (*arguments, *residuals)

    if not backend.uses_custom_gradient():
        return value(*arguments)[0][0]
    return backend.custom_vjp(value, _gradient)(*arguments)[0]


def _gradient(residuals, cotangents) -> tuple:
    """The gradients of the arguments of `log_partition`."""
    (d_log_z,) = cotangents
    x, steps, transitions, _, end, alphas, products, is_precise = residuals
    betas = backward(x, steps, transitions, end)
    d_x = marginals(alphas, betas, steps) * d_log_z[:, None]  # [T, B, K]
    is_next = _is_next(steps)
    d_start = ops.sum(ops.where(is_next, 0.0, d_x), axis=(0, 1))
    d_last = softmax(alphas[-1] + end) * d_log_z[:, None]
    d_end = ops.sum(ops.where(ops.any(steps, axis=0), d_last, 0.0), axis=0)
    # The marginal of a pair of tags is that of the second tag times P(first tag | second tag).
    pairs = (alphas[:-1], transitions, products, ops.where(is_next, d_x, 0.0))
    d_transitions = ops.cond(
        is_precise, lambda: _scaled_pairs(*pairs), lambda: _exact_pairs(*pairs)
    )
    return d_x, None, d_transitions, d_start, d_end


def forward(x, steps, transitions, start, end) -> tuple:
    """The forward recursion.

    Returns:
        A tuple of log Z `[B]`; the forward scores before the first step and after each step,
        `[T + 1, B, K]`, whose maximum is 0; their products with the transitions, `[T, B, K]`; and
        whether these are precise with `_scaled_product`.
    """
    first = ops.zeros((ops.shape(x)[1], x.shape[-1]), x.dtype)
    is_next = _is_next(steps)

    def run(product) -> tuple:
        def body(carry, xs):
            (alpha,), (x, step, is_next) = carry, xs
            values = product(alpha)
            new = x + ops.where(is_next, values, start)
            top = maximum(new)
            alpha = ops.where(step, new - top, alpha)
            return (alpha,), (alpha, values, top)

        like = (first, first, first[:, :1])
        _, (alphas, *rest) = backend.scan(body, (first,), (x, steps, is_next), like, False)
        return ops.concatenate([first[None], alphas], axis=0), *rest

    alphas, products, tops = scaled = run(_scaled_product(transitions))
    is_precise = _is_precise(products, alphas[:-1], transitions, is_next)
    exact = _exact_product(transitions)
    alphas, products, tops = ops.cond(is_precise, lambda: scaled, lambda: run(exact))
    log_z = ops.sum(ops.where(steps, tops, 0.0)[..., 0], axis=0) + log_sum_exp(alphas[-1] + end)
    log_z = ops.where(ops.any(steps, axis=0)[:, 0], log_z, 0.0)
    return log_z, alphas, products, is_precise


def backward(x, steps, transitions, end):
    """The backward scores after each step, `[T, B, K]`, up to a constant of each step."""
    kernel = ops.transpose(transitions)
    last = ops.zeros((ops.shape(x)[1], 1), x.dtype) + end

    def run(product) -> tuple:
        def body(carry, xs):
            (beta,), (x, step) = carry, xs
            scores = x + beta
            scores = scores - maximum(scores)
            values = product(scores)
            return (ops.where(step, values, beta),), (beta, scores, values)

        return backend.scan(body, (last,), (x, steps), (last,) * 3, True)[1]

    scaled, scores, products = run(_scaled_product(kernel))
    is_precise = _is_precise(products, scores, kernel, steps)
    return ops.cond(is_precise, lambda: scaled, lambda: run(_exact_product(kernel))[0])


def marginals(alphas, betas, steps):
    """P(y_t = k), `[T, B, K]`, from the results of `forward` and `backward`; 0 at masked steps."""
    return ops.where(steps, softmax(alphas[1:] + betas), 0.0)


def _is_next(steps):
    """Whether a step `[T, B, 1]` is neither masked nor the first of its sequence."""
    counts = ops.cumsum(ops.cast(steps, "int32"), axis=0)
    return ops.logical_and(steps, counts > 1)


def _scaled_product(kernel):
    """A function from scores `[B, K]`, whose maximum is 0, to log(exp(scores) exp(kernel))."""
    tops = maximum(kernel, axis=0)
    weights = ops.exp(kernel - tops)
    return lambda scores: log(ops.matmul(ops.exp(scores), weights)) + tops


def _exact_product(kernel):
    """As `_scaled_product`, without a product of matrices."""
    return lambda scores: log_sum_exp(scores[:, :, None] + kernel, axis=1)


def _is_precise(products, scores, kernel, steps):
    """Whether products `[T, B, K]` of `_scaled_product` are precise at the steps `[T, B, 1]`."""
    # A term below the smallest number is lost. It must be less than a rounding error of the sum.
    numbers = np.finfo(keras.backend.standardize_dtype(scores.dtype))
    limit = float(np.log(numbers.tiny / numbers.eps))
    is_small = ops.logical_and(steps, products - maximum(kernel, axis=0) < limit)

    def small_ones_are_impossible():
        is_possible = ops.matmul(*(ops.cast(x > IMPOSSIBLE, x.dtype) for x in (scores, kernel))) > 0
        return ops.logical_not(ops.any(ops.logical_and(is_small, is_possible)))

    any_small = ops.any(is_small)
    return ops.cond(any_small, small_ones_are_impossible, lambda: ops.logical_not(any_small))


def _scaled_pairs(scores, kernel, products, d_products):
    """The gradient of the kernel of `_scaled_product` from those of its results, `[T, B, K]`."""
    tops = maximum(kernel, axis=0)
    is_zero = products == IMPOSSIBLE
    ratios = d_products * ops.where(is_zero, 0.0, ops.exp(tops - products))
    size = kernel.shape[0]
    pairs = ops.matmul(
        ops.transpose(ops.reshape(ops.exp(scores), (-1, size))), ops.reshape(ratios, (-1, size))
    )
    return pairs * ops.exp(kernel - tops)


def _exact_pairs(scores, kernel, products, d_products):
    """As `_scaled_pairs`, for `_exact_product`."""

    def body(carry, xs):
        (total,), (scores, products, d_products) = carry, xs
        is_zero = products == IMPOSSIBLE
        ratios = scores[:, :, None] + kernel - ops.where(is_zero, 0.0, products)[:, None]
        pairs = ops.exp(ratios) * d_products[:, None]  # [B, K, K]
        return (total + ops.sum(pairs, axis=0),), ()

    xs = (scores, products, d_products)
    (total,), _ = backend.scan(body, (ops.zeros_like(kernel),), xs, (), False)
    return ops.reshape(total, kernel.shape)
