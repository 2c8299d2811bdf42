"""The loop over time on the PyTorch backend, which differentiates it by itself."""

import torch


def only_inference() -> bool:
    """PyTorch's own tape keeps what it needs."""
    return True


def halves(structure, work: int) -> list:
    """The batch as a whole: nothing runs side by side here."""
    del work
    return [structure]


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs`; stacks the `ys_t`."""
    del like
    collected = []
    times = range(len(xs[0]))
    for t in reversed(times) if reverse else times:
        carry, ys = body(carry, tuple(x[t] for x in xs))
        collected.append(ys)
    if reverse:
        collected.reverse()
    return carry, tuple(torch.stack(ys) for ys in zip(*collected, strict=True))


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `recurrence.scan`; PyTorch differentiates the loop by itself."""
    del variables
    return scan(lambda carry, x: step(carry, x, constants), carry, xs, like, False)
