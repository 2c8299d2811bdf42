"""The forward-backward algorithm of a linear-chain conditional random field.

Potentials x are `[T, B, K]`, time first. `steps` `[T, B, 1]` is False where a step is masked. The
parameters are the transitions `[K, K]` and the scores of the first and last tags, start and end
`[K]`.
"""

from keras import ops

from unroll.layers import backend

# A positive float32 number whose logarithm is finite.
TINY = 1e-37


def log_partition(x, steps, transitions, start, end):
    """log Z `[B]`, with the marginals as its gradient; 0 for a sequence without steps."""
    arguments = (x, steps, transitions, start, end)

    def value(*arguments):
        log_z, alphas, started = forward(*arguments)
        return (log_z,), (*arguments, alphas, started)

    if not backend.uses_custom_gradient():
        return value(*arguments)[0][0]
    return backend.custom_vjp(value, _gradient)(*arguments)[0]


def _gradient(residuals, cotangents) -> tuple:
    """The gradients of the arguments of `log_partition`."""
    (d_log_z,) = cotangents
    x, steps, transitions, _, end, alphas, started = residuals
    betas = backward(x, steps, transitions, end)
    d_x = marginals(alphas, betas, steps) * d_log_z[:, None]  # [T, B, K]
    previous = ops.concatenate([ops.zeros_like(alphas[:1]), alphas[:-1]], axis=0)
    had_started = ops.concatenate([ops.zeros_like(started[:1]), started[:-1]], axis=0)
    # The marginal of a pair of tags is exp(previous_i + A_ij + following_j) over the sum of all
    # pairs. One matrix product sums the marginals over all steps and examples.
    following = x + betas
    sums = log_product(previous, transitions) + following
    total = ops.logsumexp(sums, axis=-1, keepdims=True)
    top, top_transition = ops.max(previous, axis=-1, keepdims=True), ops.max(transitions)
    weighted = ops.exp(ops.minimum(following + top + top_transition - total, 80.0))
    weighted = weighted * d_log_z[:, None]
    weighted = ops.where(ops.logical_and(steps, had_started), weighted, 0.0)
    rows = (-1, x.shape[-1])
    pairs = ops.matmul(
        ops.transpose(ops.reshape(ops.exp(previous - top), rows)), ops.reshape(weighted, rows)
    )
    d_transitions = pairs * ops.exp(transitions - top_transition)
    is_first = ops.logical_and(steps, ops.logical_not(had_started))
    d_start = ops.sum(ops.where(is_first, d_x, 0.0), axis=(0, 1))
    last = ops.softmax(alphas[-1] + end) * d_log_z[:, None]
    d_end = ops.sum(ops.where(started[-1], last, 0.0), axis=0)
    return d_x, None, d_transitions, d_start, d_end


def forward(x, steps, transitions, start, end) -> tuple:
    """The forward recursion.

    Returns:
        A tuple of log Z `[B]`, the forward scores `[T, B, K]`, and whether the sequence has started
        `[T, B, 1]`. A constant is subtracted from the scores at each step, so that they stay close
        to zero.
    """

    def body(carry, xs):
        alpha, started = carry
        x, step = xs
        new = x + ops.where(started, log_product(alpha, transitions), start)
        top = ops.max(new, axis=-1, keepdims=True)
        alpha, started = ops.where(step, new - top, alpha), ops.logical_or(started, step)
        return (alpha, started), (alpha, started, ops.where(step, top, 0.0))

    carry = (ops.zeros_like(x[0]), ops.zeros_like(steps[0]))
    like = (*carry, x[0][:, :1])
    (alpha, started), (alphas, all_started, tops) = backend.scan(
        body, carry, (x, steps), like, False
    )
    log_z = ops.sum(tops[..., 0], axis=0) + ops.logsumexp(alpha + end, axis=-1)
    return ops.where(started[:, 0], log_z, 0.0), alphas, all_started


def backward(x, steps, transitions, end):
    """The backward scores `[T, B, K]`, with a constant subtracted at each step."""

    def body(carry, xs):
        (beta,), (x, step) = carry, xs
        new = log_product(x + beta, ops.transpose(transitions))
        new = new - ops.max(new, axis=-1, keepdims=True)
        return (ops.where(step, new, beta),), (beta,)

    carry = (ops.zeros_like(x[0]) + end,)
    return backend.scan(body, carry, (x, steps), carry, True)[1][0]


def marginals(alphas, betas, steps):
    """P(y_t = k) from the forward and backward scores, `[T, B, K]`; 0 at masked steps."""
    return ops.where(steps, ops.softmax(alphas + betas), 0.0)


def log_product(scores, kernel):
    """log(exp(scores) exp(kernel)), `[..., K]` and `[K, K]`, as a matrix product."""
    top = ops.max(scores, axis=-1, keepdims=True)
    top_kernel = ops.max(kernel)
    sums = ops.matmul(ops.exp(scores - top), ops.exp(kernel - top_kernel))
    return ops.log(ops.maximum(sums, TINY)) + top + top_kernel
