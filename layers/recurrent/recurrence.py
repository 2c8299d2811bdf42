"""The one time loop: every recurrent layer of this package runs through `recurrence`.

What need not be sequential stands outside the loop. The input projection comes in ready made; back
in time only the recurrent product and the elementwise part are repeated; the gradients of the
weights are one matrix product (or one vector-Jacobian product) over all steps at the end. The
backward pass is written here once, for every cell and backend, from the cell's `step` alone.

The loop itself is the backend's `scan`, of which each has its own in a file named for it. What is
not a product and an elementwise part (a decoder with attention) runs through `scan` here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    from unroll.layers.recurrent import scan_tensorflow as backend
elif keras.backend.backend() == "jax":
    from unroll.layers.recurrent import scan_jax as backend
elif keras.backend.backend() == "torch":
    from unroll.layers.recurrent import scan_torch as backend
else:
    raise ImportError(
        f"Keras runs on the {keras.backend.backend()} backend; "
        "the recurrent layers run on tensorflow, jax and torch."
    )


# `halves(structure, work)`: the parts of a batch that are best run side by side.
halves = backend.halves


def recurrence(
    step: Callable,
    inputs,
    states: Sequence,
    kernel,
    weights: Sequence = (),
    *,
    summed: int | None = None,
    mask=None,
    dropout_mask=None,
    reverse: bool = False,
):
    """Runs `s_t = step(x_t + h_{t-1} R, s_{t-1})` over time, where h is the first state of s.

    A step that needs the two apart, or columns of x that meet no recurrent product, says how many
    columns are `summed`: it is then given what `join(x_t, h_{t-1} R, summed)` returns.

    Args:
        step: the elementwise part of a cell, `step(z, states, *weights) -> states`. It must treat
            every axis but the last as a batch axis: the backward pass calls it once on all steps.
        inputs: the projected inputs x, `[T, B, G]`, time first, T at least 1.
        states: the initial states, each `[B, units of that state]`. The first is the output.
        kernel: the recurrent kernel R, `[U, G]` (with `summed`, any number of columns from that).
        weights: what else `step` learns (peepholes, gains), passed on to it.
        summed: how many of the first columns of x and h R are added; all of them by default.
        mask: `[T, B]`, boolean. Where it is False every state keeps its value.
        dropout_mask: `[B, U]`, multiplied into h before the recurrent product.
        reverse: whether time runs from the last step to the first.

    Returns:
        The outputs h, `[T, B, U]`, at their own places in time whatever the direction, and the
        list of states after the last step.
    """
    n, m = len(states), len(weights)
    masks = tuple(x for x in (mask, dropout_mask) if x is not None)

    # A gradient function takes a flat list of tensors, and no None among them.
    def flatten(given: _Arguments):
        return (given.inputs, given.kernel, *given.states, *given.weights, *masks)

    def unflatten(flat) -> _Arguments:
        rest = list(flat[2 + n + m :])
        return _Arguments(
            inputs=flat[0],
            kernel=flat[1],
            states=flat[2 : 2 + n],
            weights=flat[2 + n : 2 + n + m],
            mask=None if mask is None else ops.expand_dims(rest.pop(0), -1),  # [T, B, 1]
            dropout_mask=rest.pop() if rest else None,
        )

    def masked_step(z, states, keep, weights):
        new = step(z, states, *weights)
        if keep is None:
            return tuple(new)
        return tuple(ops.where(keep, a, b) for a, b in zip(new, states, strict=True))

    def run(given: _Arguments, keep_all: bool):
        def body(states, xs):
            h = _masked(states[0], given.dropout_mask)
            z = join(xs[0], ops.matmul(h, given.kernel), summed)  # [B, G]
            new = masked_step(z, states, xs[1] if len(xs) > 1 else None, given.weights)
            return new, (new[0], *states[1:], z) if keep_all else new[:1]

        xs = (given.inputs,) if given.mask is None else (given.inputs, given.mask)
        like = given.states[:1]
        if keep_all:
            z = join(given.inputs[0], ops.matmul(given.states[0], given.kernel), summed)
            like = (*given.states, z)
        return backend.scan(body, given.states, xs, like, reverse)

    def forward(*flat):
        final, kept = run(unflatten(flat), keep_all=True)
        return (kept[0], *final), (flat, kept)

    def backward(residuals, cotangents):
        flat, (outputs, *others_before, z) = residuals
        given = unflatten(flat)
        first = given.states[0][None]
        h_before = ops.concatenate([outputs[1:], first] if reverse else [first, outputs[:-1]], 0)
        before = (h_before, *others_before)  # [T, B, U] each
        transposed = ops.transpose(given.kernel)  # [G, U]
        columns = given.inputs.shape[-1]

        def body(d_states, xs):
            z, d_output, *rest = xs
            states, keep = tuple(rest[:n]), rest[n] if len(rest) > n else None
            d_states = (d_states[0] + d_output, *d_states[1:])
            d_z, d_before = backend.vjp(
                lambda z, states: masked_step(z, states, keep, given.weights), (z, states), d_states
            )
            d_product = of_product(d_z, columns, summed)
            d_h = _masked(ops.matmul(d_product, transposed), given.dropout_mask)  # [B, U]
            return (d_before[0] + d_h, *d_before[1:]), (d_z, *d_states) if m else (d_z,)

        xs = (z, cotangents[0], *before, *(() if given.mask is None else (given.mask,)))
        like = (z[0], *given.states) if m else (z[0],)
        d_states, (d_z, *d_after) = backend.scan(
            body, tuple(cotangents[1:]), xs, like, reverse=not reverse
        )

        h = ops.reshape(_masked(h_before, given.dropout_mask), (-1, given.kernel.shape[0]))
        d_product = ops.reshape(of_product(d_z, columns, summed), (-1, given.kernel.shape[1]))
        d_kernel = ops.matmul(ops.transpose(h), d_product)
        d_weights = ()
        if m:
            (d_weights,) = backend.vjp(
                lambda weights: masked_step(z, before, given.mask, weights),
                (given.weights,),
                tuple(d_after),
            )
        d_inputs = d_z if summed is None else d_z[..., :columns]
        return (d_inputs, d_kernel, *d_states, *d_weights, *(None for _ in masks))

    given = _Arguments(inputs, kernel, tuple(states), tuple(weights), mask, dropout_mask)
    if backend.only_inference():
        final, (outputs,) = run(unflatten(flatten(given)), keep_all=False)
    else:
        outputs, *final = backend.custom_vjp(forward, backward)(*flatten(given))
    return outputs, list(final)


def scan(step: Callable, carry: Sequence, xs: Sequence, constants: Sequence, variables: Sequence):
    """Runs `carry, ys = step(carry, xs_t, constants)` over time, with its gradient.

    For a step that is more than a product and an elementwise part, such as a decoder with
    attention. Only what it carries is kept of each step; the rest is computed again for the
    gradient.

    Args:
        step: any function. It may use layers, the weights of which are among `variables`, and
            tensors of its surroundings that take no gradient.
        carry: floating-point tensors, `[B, ...]` each.
        xs: floating-point tensors, `[T, B, ...]` each, T at least 1.
        constants: floating-point tensors that are the same at every step.
        variables: the Keras variables that the step reads.

    Returns:
        The carry after the last step, and what `step` returned beside it, `[T, B, ...]` each.
    """
    carry, xs, constants = tuple(carry), tuple(xs), tuple(constants)
    like = step(carry, tuple(x[0] for x in xs), constants)[1]
    return backend.differentiable_scan(step, carry, xs, constants, list(variables), tuple(like))


def join(x, product, summed: int | None):
    """`[x + product]`, or side by side: `[the summed columns, the rest of x, that of product]`."""
    if summed is None:
        return x + product
    parts = [x[..., :summed] + product[..., :summed], x[..., summed:], product[..., summed:]]
    return ops.concatenate([part for part in parts if part.shape[-1]], axis=-1)


def of_product(z, columns: int, summed: int | None):
    """What `join` took from the product, where x had so many columns."""
    if summed is None:
        return z
    if z.shape[-1] == columns:
        return z[..., :summed]
    return ops.concatenate([z[..., :summed], z[..., columns:]], axis=-1)


class _Arguments(NamedTuple):
    inputs: Any  # [T, B, G]
    kernel: Any  # [U, G]
    states: tuple  # [B, U] each
    weights: tuple
    mask: Any  # [T, B, 1]
    dropout_mask: Any  # [B, U]


def _masked(h, dropout_mask):
    return h if dropout_mask is None else h * dropout_mask
