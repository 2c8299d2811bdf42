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


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    del like
    collected = []
    times = range(len(xs[0]))
    for t in reversed(times) if reverse else times:
        carry, ys = body(carry, tuple(None if x is None else x[t] for x in xs))
        collected.append(ys)
    if reverse:
        collected.reverse()
    return carry, tuple(torch.stack(ys) for ys in zip(*collected, strict=True))


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. PyTorch differentiates the loop."""
    del variables
    return scan(lambda carry, x: step(carry, x, constants), carry, xs, like, False)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    _, pullback = torch.func.vjp(function, *primals)
    return pullback(cotangents)


def custom_vjp(forward, backward):
    """The outputs of `forward`, which PyTorch differentiates; `backward` is not used."""
    del backward
    return lambda *arguments: forward(*arguments)[0]
