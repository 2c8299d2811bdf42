"""Loops over time and gradients on the PyTorch backend; see `layers/backend.py`.

PyTorch differentiates a Python loop, so nothing here defines a gradient of its own.
"""

import torch


def uses_custom_gradient() -> bool:
    """False: PyTorch records the loop while it runs."""
    return False


def split_batch(structure, work: int) -> list:
    """The whole batch as one part: a Python loop runs one operation at a time."""
    del work
    return [structure]


def steps_at_once() -> int | None:
    """None: the inputs of all steps are projected at once."""
    return None


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    collected = []
    times = range(len(xs[0]))
    for t in reversed(times) if reverse else times:
        carry, ys = body(carry, tuple(None if x is None else x[t] for x in xs))
        collected.append(ys)
    if not collected:
        return carry, tuple(torch.zeros((0, *y.shape), dtype=y.dtype) for y in like)
    if reverse:
        collected.reverse()
    return carry, tuple(torch.stack(ys) for ys in zip(*collected, strict=True))


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. PyTorch differentiates the loop."""
    del variables
    full = tuple(c.to(torch.promote_types(c.dtype, torch.float32)) for c in constants)

    def body(carry, x):
        # Cast in each step, so that the gradients of all steps are added in float32.
        return step(carry, x, tuple(f.to(c.dtype) for f, c in zip(full, constants, strict=True)))

    return scan(body, carry, xs, like, False)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    _, pullback = torch.func.vjp(function, *primals)
    return pullback(cotangents)


def custom_vjp(forward, backward, infer=None, tangent=None):
    """The outputs of `infer`, or of `forward`, which PyTorch differentiates."""
    del backward, tangent
    return infer or (lambda *arguments: forward(*arguments)[0])
