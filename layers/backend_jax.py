"""Loops over time and custom gradients on the JAX backend; see `layers/backend.py`."""

import jax


def uses_custom_gradient() -> bool:
    """True: JAX runs the custom gradient only where a gradient is taken."""
    return True


def split_batch(structure, work: int) -> list:
    """The whole batch as one part: JAX does not run two loops in parallel."""
    del work
    return [structure]


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    del like
    return jax.lax.scan(body, carry, xs, reverse=reverse)


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. JAX differentiates the loop."""
    del variables
    return scan(lambda carry, x: step(carry, x, constants), carry, xs, like, False)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    _, pullback = jax.vjp(function, *primals)
    return pullback(cotangents)


def custom_vjp(forward, backward):
    """A function that returns the outputs of `forward` and has `backward` as its gradient.

    Args:
        forward: `forward(*arguments) -> (outputs, residuals)`. Arguments and outputs are tensors,
            or tuples of tensors. An argument may hold None.
        backward: `backward(residuals, cotangents) -> gradients`, with one gradient for each
            argument, of the same structure, and None where there is no gradient.
    """
    function = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    function.defvjp(forward, backward)
    return function
