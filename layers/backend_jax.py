"""Loops over time and custom gradients on the JAX backend; see `layers/backend.py`."""

import jax


def uses_custom_gradient() -> bool:
    """True: JAX runs the custom gradient only where a gradient is taken."""
    return True


def split_batch(structure, work: int) -> list:
    """The whole batch as one part: JAX does not run two loops in parallel."""
    del work
    return [structure]


def steps_at_once() -> int | None:
    """None: the inputs of all steps are projected at once."""
    return None


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    del like
    return jax.lax.scan(body, carry, xs, reverse=reverse)


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. JAX differentiates the loop."""
    del variables
    full = tuple(c.astype(jax.numpy.promote_types(c.dtype, "float32")) for c in constants)

    def body(carry, x):
        # Cast in each step, so that the gradients of all steps are added in float32.
        return step(
            carry, x, tuple(f.astype(c.dtype) for f, c in zip(full, constants, strict=True))
        )

    return scan(body, carry, xs, like, False)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    _, pullback = jax.vjp(function, *primals)
    return pullback(cotangents)


def custom_vjp(forward, backward, infer=None, tangent=None):
    """A function that returns the outputs of `forward` and has a gradient of its own.

    Args:
        forward, backward, infer: as on the TensorFlow backend.
        tangent: `tangent(residuals, tangents, jvp) -> tangents of the outputs`, linear in
            `tangents`, which has one tangent for each argument, of the same structure. `jvp` is a
            function to use for Jacobian-vector products. If given, JAX derives the gradient from
            `tangent` instead of from `backward`, and has forward-mode derivatives and derivatives
            of any order.
    """

    def outputs(*arguments):
        return infer(*arguments) if infer else forward(*arguments)[0]

    if tangent is None:
        function = jax.custom_vjp(outputs)
        function.defvjp(forward, backward)
        return function
    function = jax.custom_jvp(outputs)

    @function.defjvp
    def jvp(arguments, tangents):
        found, residuals = forward(*arguments)
        return found, tangent(residuals, tangents, _jvp)

    return function


def _jvp(function, primals, tangents):
    """The product of the Jacobian of `function` with `tangents`.

    The gradient computes the Jacobian again from `primals`, instead of storing it for each step of
    a loop.
    """
    product = jax.checkpoint(lambda *pair: jax.jvp(function, *pair)[1], prevent_cse=False)
    return product(primals, tangents)
