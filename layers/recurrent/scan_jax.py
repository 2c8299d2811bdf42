"""The loop over time on the JAX backend."""

import jax


def only_inference() -> bool:
    """JAX traces the gradient apart: the plain call keeps nothing in any case."""
    return False


def halves(structure, work: int) -> list:
    """The batch as a whole: nothing runs side by side here."""
    del work
    return [structure]


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs`; stacks the `ys_t`."""
    del like
    return jax.lax.scan(body, carry, xs, reverse=reverse)


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `recurrence.scan`; JAX differentiates the loop by itself."""
    del variables
    return scan(lambda carry, x: step(carry, x, constants), carry, xs, like, False)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    _, pullback = jax.vjp(function, *primals)
    return pullback(cotangents)


def custom_vjp(forward, backward):
    """`forward(*xs) -> (ys, residuals)` with `backward(residuals, cotangents)` as its gradient."""
    function = jax.custom_vjp(lambda *xs: forward(*xs)[0])
    function.defvjp(forward, backward)
    return function
