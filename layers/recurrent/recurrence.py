"""The time loop that all recurrent layers share, with its own backpropagation through time.

Everything that is not sequential is outside the loop. The caller computes the input projection for
all steps at once. Backward in time, the loop repeats only the recurrent product and the elementwise
part. The gradients of the weights are one matrix product, or one vector-Jacobian product, over all
steps after the loop. On JAX on a CPU, where tensors of all steps are slow, the loops compute most
of it (`backend.computes_in_loops`). All of this needs nothing but the `step` of a cell:
`RecurrentCell` describes what a cell gives to the loop.

A step that is more than a product and an elementwise part, such as that of a decoder with
attention, runs through `scan`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from unroll.layers import backend
from unroll.layers.operations import (
    cast_like,
    cast_to,
    full_precision,
    is_half,
    zeros_of_a_step,
)


def recurrence(
    step: Callable,
    inputs,
    states: Sequence,
    kernel,
    weights: Sequence = (),
    *,
    project: Callable | None = None,
    project_weights: Sequence = (),
    step_with_gradient=None,
    added_columns: int | None = None,
    mask=None,
    dropout_mask=None,
    reverse: bool = False,
):
    """Runs `s_t = step(pre_activation(x_t, h_{t-1} R), s_{t-1})`; h is the first state of s.

    Without R, z is x.

    Args:
        step: the elementwise part of a cell, `step(z, states, *weights) -> states`. Every axis but
            the last must be a batch axis, because the backward pass calls it once on all steps.
        inputs: the projected inputs x, `[T, B, G]`, time first.
        states: the initial states, `[B, units of that state]` each. The first is the output.
        kernel: the recurrent kernel R as in `recurrent_product`, of G columns in all, or with
            `added_columns` of any number from there.
        weights: the other weights that `step` takes, such as peepholes and gains.
        project: if given, `project(inputs, project_weights)` are the projected inputs, of one step
            or of all.
        project_weights: tensors.
        step_with_gradient: a `StepWithGradient` of the same equations as `step`, which takes the
            place of the gradient that the backend derives, or None. It is not used in half
            precision, and not on JAX, where the gradient is derived from a tangent.
        added_columns: as in `pre_activation`.
        mask: `[T, B]`, boolean. A step where it is False changes no state.
        dropout_mask: `[B, U]`, multiplied with h before the recurrent product.
        reverse: whether the loop runs from the last step to the first.

    Returns:
        The outputs h, `[T, B, U]`, each at its own time step whatever the direction, and the list
        of states after the last step.
    """
    # In half precision, a gate near 1 that is stored is 1: z tells how near.
    explicit = (
        step_with_gradient is not None
        and not backend.derives_from_tangent()
        and not is_half(inputs.dtype)
    )
    if not explicit:
        step_with_gradient = StepWithGradient(step)
    loop = _Loop(step, step_with_gradient, project, added_columns, reverse)
    arguments = _Arguments(
        inputs=inputs,
        project_weights=tuple(project_weights),
        kernel=None if kernel is None else cast_to(kernel, inputs.dtype),
        states=tuple(states),
        weights=tuple(cast_to(w, inputs.dtype) for w in weights),
        mask=None if mask is None else ops.expand_dims(mask, -1),
        dropout_mask=dropout_mask,
    )
    run = backend.custom_vjp(
        loop.forward, loop.backward, loop.infer, loop.tangent, explicit=explicit
    )
    outputs, final = run(arguments)
    return outputs, list(final)


def scan(step: Callable, carry: Sequence, xs: Sequence, constants: Sequence, variables: Sequence):
    """Runs `carry, ys = step(carry, xs_t, constants)` over time, with a gradient.

    Of each step only the carry is stored. The gradient computes the rest again, and stores the
    factors of the `backend.product`s with constants and variables until it has all steps.

    Args:
        step: any function. It may use layers if their weights are in `variables`, and tensors from
            outside that need no gradient.
        carry: floating-point tensors, `[B, ...]` each.
        xs: floating-point tensors, `[T, B, ...]` each.
        constants: floating-point tensors that are the same at every step.
        variables: the Keras variables that the step reads.

    Returns:
        The carry after the last step, and the `ys` of all steps, `[T, B, ...]` each.
    """
    carry, xs, constants = tuple(carry), tuple(xs), tuple(constants)
    like = step(carry, tuple(zeros_of_a_step(x) for x in xs), constants)[1]
    return backend.differentiable_scan(step, carry, xs, constants, list(variables), tuple(like))


def recurrent_product(h, kernel):
    """h R, `[..., U]` to `[..., G]`.

    Args:
        h: `[..., U]`.
        kernel: R, `[U, G]`; the blocks of a block diagonal R, `[blocks, U / blocks, G / blocks]`;
            or None, where the product is None too.
    """
    if kernel is None:
        return None
    if len(kernel.shape) == 2:
        return backend.product(h, kernel)
    parts = ops.matmul(_blocks(h, kernel.shape[0]), kernel)  # [blocks, N, G / blocks]
    columns = kernel.shape[0] * kernel.shape[2]
    return ops.reshape(ops.transpose(parts, (1, 0, 2)), (*ops.shape(h)[:-1], columns))


def _blocks(x, count: int):
    """The columns of each block, `[..., U]` to `[blocks, N, U / blocks]`."""
    return ops.transpose(ops.reshape(x, (-1, count, x.shape[-1] // count)), (1, 0, 2))


def _transposed(kernel):
    """R transposed, or the blocks of it."""
    return ops.swapaxes(kernel, -1, -2)


def _kernel_gradient(h, d_product, kernel):
    """The gradient of R, from h and the gradients of the products of all steps."""
    if len(kernel.shape) == 2:
        rows, width = kernel.shape
        h = ops.reshape(h, (-1, rows))
        return ops.matmul(ops.transpose(h), ops.reshape(d_product, (-1, width)))
    h, d_product = (_blocks(x, kernel.shape[0]) for x in (h, d_product))
    return ops.matmul(ops.transpose(h, (0, 2, 1)), d_product)


def pre_activation(x, product=None, added_columns: int | None = None):
    """z, the input of a cell's `step`, from x W + b and the product h R.

    By default z is their sum. With `added_columns` only that number of columns is added, and the
    other columns of both follow: `[x + product; rest of x; rest of product]`. Without a product z
    is x.
    """
    n = added_columns
    if product is None:
        return x
    if n is None:
        return x + product
    parts = [x[..., :n] + product[..., :n], x[..., n:], product[..., n:]]
    return ops.concatenate([part for part in parts if part.shape[-1]], axis=-1)


def _times_transposed(h, transposed):
    """h R from R transposed: the transpose of it, in the gradient on JAX, is a plain product."""
    if transposed is None:
        return None
    if len(transposed.shape) == 2:
        return ops.einsum("bu,gu->bg", h, transposed)
    parts = ops.einsum("kbu,kgu->bkg", _blocks(h, transposed.shape[0]), transposed)
    return ops.reshape(parts, (*ops.shape(h)[:-1], -1))


def _input_gradient(d_z, input_columns: int, added_columns: int | None):
    """The gradient of x from that of z, where x has `input_columns` columns."""
    return d_z if added_columns is None else d_z[..., :input_columns]


def _product_gradient(d_z, input_columns: int, added_columns: int | None):
    """The gradient of the product h R from that of z, where x has `input_columns` columns."""
    if added_columns is None:
        return d_z
    if d_z.shape[-1] == input_columns:
        return d_z[..., :added_columns]
    return ops.concatenate([d_z[..., :added_columns], d_z[..., input_columns:]], axis=-1)


class StepWithGradient:
    """The elementwise part of a cell, and its gradient, which the backend derives here.

    A cell may bring its own gradient, from activations that the step stores: the backend computes
    the step again from z. Every axis but the last is a batch axis.

    Args:
        step: `step(z, states, *weights) -> states`.
    """

    # Whether `weight_gradients` needs the gradients of the new states.
    needs_state_gradients = True

    def __init__(self, step: Callable):
        self.step = step

    def run(self, z, states, weights):
        """The new states, and a tuple of what the gradient needs beside the states before."""
        return tuple(self.step(z, states, *weights)), (z,)

    def gradient(self, stored, states, weights, d_new):
        """The gradients of z and of the states before, from those of the new states.

        That of h may be None, for zeros, in a cell which reads it through its product alone.
        """
        return backend.vjp(
            lambda z, states: tuple(self.step(z, states, *weights)), (*stored, states), d_new
        )

    def weight_gradients(self, stored, states, weights, d_z, d_new):
        """The gradients of the weights, from those of z and of the new states of all steps."""
        del d_z
        (found,) = backend.vjp(
            lambda weights: tuple(self.step(*stored, states, *weights)), (weights,), d_new
        )
        return found


class _Arguments(NamedTuple):
    """The tensors that a loop runs on."""

    inputs: Any  # [T, B, G], or [T, B, D] if the loop projects them
    project_weights: tuple
    kernel: Any  # [U, G], [blocks, U / blocks, G / blocks] or None
    states: tuple  # [B, U] each
    weights: tuple
    mask: Any  # [T, B, 1] or None
    dropout_mask: Any  # [B, U] or None


class _Residuals(NamedTuple):
    """What the backward pass needs: the arguments, and the values of all steps."""

    arguments: _Arguments
    stored: tuple  # by the step, [T, B, G] or [T, B, U] each
    states: tuple  # before each step, [T, B, U] each


# In a loop on a CPU, a step adds its gradient to that of the whole kernel. From this batch size and
# this number of weights on, it takes less time than the tensors of all steps, whose product runs on
# all cores.
MIN_BATCH_OF_PRODUCTS, MIN_WEIGHTS_OF_PRODUCTS = 24, 100_000


@dataclass(frozen=True)
class _Loop:
    """The forward and the backward pass of one recurrence.

    In half precision the products, and what is stored of each step, have the dtype of the inputs.
    The states, the elementwise part and the gradients of the states have float32, because many
    steps add to them.
    """

    step: Callable
    step_with_gradient: StepWithGradient
    project: Callable | None
    added_columns: int | None
    reverse: bool

    def infer(self, arguments: _Arguments):
        """The outputs `[T, B, U]` and the final states. Nothing is stored for a gradient."""
        weights = full_precision(arguments.weights)

        def body(states, xs):
            x, keep = xs
            z = self._pre_activation(arguments, states, x)
            new = _kept(keep, self.step(full_precision(z), states, *weights), states)
            return new, (cast_to(new[0], arguments.inputs.dtype),)

        xs = (arguments.inputs, arguments.mask)
        like = (cast_to(arguments.states[0], arguments.inputs.dtype),)
        final, (outputs,) = backend.scan(
            body, full_precision(arguments.states), xs, like, self.reverse
        )
        return outputs, cast_like(final, arguments.states)

    def forward(self, arguments: _Arguments):
        """The outputs and the final states, and the `_Residuals`."""
        dtype = arguments.inputs.dtype
        weights = full_precision(arguments.weights)

        def body(states, xs):
            x, keep = xs
            z = full_precision(self._pre_activation(arguments, states, x))
            new, stored = self.step_with_gradient.run(z, states, weights)
            new = _kept(keep, new, states)
            # The first state before each step is the output of the step before: it is stored once.
            return new, tuple(cast_to(s, dtype) for s in (*stored, new[0], *states[1:]))

        states = full_precision(arguments.states)
        _, like = body(states, (zeros_of_a_step(arguments.inputs), None))
        xs = (arguments.inputs, arguments.mask)
        final, stacked = backend.scan(body, states, xs, like, self.reverse)
        stored, (outputs, *others) = stacked[: -len(states)], stacked[-len(states) :]
        first = cast_to(arguments.states[0], dtype)[None]
        if self.reverse:
            h = ops.concatenate([outputs, first], axis=0)[1:]
        else:
            h = ops.concatenate([first, outputs], axis=0)[:-1]
        residuals = _Residuals(arguments, tuple(stored), (h, *others))
        return (outputs, cast_like(final, arguments.states)), residuals

    def backward(self, residuals: _Residuals, cotangents):
        """The gradients of the `_Arguments`, in a tuple of one."""
        arguments, stored, states = residuals
        d_outputs, d_final = cotangents
        columns = arguments.inputs.shape[-1]
        d_initial, d_z, d_states = self._backward_loop(residuals, d_outputs, d_final)
        d_kernel = None
        if arguments.kernel is not None:
            d_product = _product_gradient(d_z, columns, self.added_columns)  # [T, B, columns of R]
            h = _dropped(states[0], arguments.dropout_mask)  # [T, B, U]
            d_kernel = _kernel_gradient(h, d_product, arguments.kernel)
        d_weights = ()
        if arguments.weights:
            d_weights = self.step_with_gradient.weight_gradients(
                *full_precision((stored, states, arguments.weights, d_z, d_states))
            )
        gradients = _Arguments(
            inputs=_input_gradient(d_z, columns, self.added_columns),
            project_weights=(),
            kernel=d_kernel,
            states=cast_like(d_initial, arguments.states),
            weights=cast_like(d_weights, arguments.weights),
            mask=None,
            dropout_mask=None,
        )
        return (gradients,)

    def _backward_loop(self, residuals: _Residuals, d_outputs, d_final):
        """The gradients of the initial states, and those of z and of the new states of all steps.

        The last ones are an empty tuple where no `weights` need them.
        """
        arguments, stored, states = residuals
        columns, kernel = arguments.inputs.shape[-1], arguments.kernel
        transposed = None if kernel is None else _transposed(kernel)  # [G, U]
        weights = full_precision(arguments.weights)
        needed = bool(arguments.weights) and self.step_with_gradient.needs_state_gradients
        n = len(stored)

        def body(d_states, xs):
            d_output, keep, *others = xs
            d_states = (d_states[0] + full_precision(d_output), *d_states[1:])
            d_new = _kept(keep, d_states)
            d_z, d_before = self.step_with_gradient.gradient(
                *full_precision((others[:n], others[n:])), weights, d_new
            )
            if keep is not None:
                passed = (ops.where(keep, 0.0, d) for d in d_states)
                d_before = tuple(map(_sum, d_before, passed))
            d_z = cast_to(d_z, arguments.inputs.dtype)
            found = (d_z, *d_new) if needed else (d_z,)
            if transposed is None:
                return d_before, found
            d_product = _product_gradient(d_z, columns, self.added_columns)
            d_h = recurrent_product(d_product, transposed)  # [B, U]
            d_h = _dropped(d_h, arguments.dropout_mask)
            return (_sum(d_before[0], full_precision(d_h)), *d_before[1:]), found

        xs = (d_outputs, arguments.mask, *stored, *states)
        d_final = full_precision(d_final)
        z = self._pre_activation(arguments, d_final, zeros_of_a_step(arguments.inputs))
        like = (z, *(d_final if needed else ()))
        d_initial, (d_z, *d_states) = backend.scan(body, d_final, xs, like, not self.reverse)
        return d_initial, d_z, tuple(d_states)

    def tangent(self, residuals: _Residuals, tangents, jvp: Callable):
        """The tangents of the outputs and the final states, linear in those of the arguments.

        As in `backward`, everything that is not sequential is outside the loop, so that the
        gradient of a kernel is one product, unless `backend.computes_in_loops`.

        Args:
            residuals: from `forward`.
            tangents: of the `_Arguments`, in a tuple of one. Those of the masks are not used.
            jvp: `jvp(function, primals, tangents)`, the product of the Jacobian with `tangents`.
        """
        arguments, (z,), states = residuals
        (given,) = tangents
        dtype, n = arguments.inputs.dtype, len(states)
        weights, t_weights = full_precision((arguments.weights, given.weights))
        kernel = arguments.kernel
        transposed = None if kernel is None else _transposed(kernel)  # [G, U]
        in_loop = backend.computes_in_loops()
        products_in_loop = in_loop and self._sums_products_in_loop(kernel, z)

        def projected(x, t_x):
            if self.project is None:
                return t_x
            return jvp(self.project, (x, arguments.project_weights), (t_x, given.project_weights))

        def product_with_tangent_of_kernel(h):
            return recurrent_product(_dropped(h, arguments.dropout_mask), given.kernel)

        def step(keep):
            return lambda z, states, weights=weights: _kept(
                keep, self.step(full_precision(z), states, *weights), states
            )

        x, t_x, t_product, by_weights = arguments.inputs, given.inputs, None, ()
        if not products_in_loop:
            t_x, t_product = projected(x, t_x), product_with_tangent_of_kernel(states[0])
            if t_product is not None and self.added_columns is None:
                t_x, t_product = t_x + t_product, None
        if weights and not in_loop:  # what their tangents add to those of the states
            primals = (z, full_precision(states))
            by_weights = jvp(
                lambda weights: step(arguments.mask)(*primals, weights), (weights,), (t_weights,)
            )

        def body(t_states, xs):
            z, keep, x, t_x, t_product, *others = xs
            h, before, by_weights = others[0], full_precision(tuple(others[:n])), others[n:]
            t_h = _dropped(cast_to(t_states[0], dtype), arguments.dropout_mask)  # [B, U]
            product = _times_transposed(t_h, transposed)
            primals, t_primals = (z, before), (t_states,)
            if products_in_loop:
                t_x, t_product = projected(x, t_x), product_with_tangent_of_kernel(h)
            if in_loop:
                primals, t_primals = (z, before, weights), (t_states, t_weights)
            product = product if t_product is None else t_product + product
            t_z = pre_activation(t_x, product, self.added_columns)
            new = jvp(step(keep), primals, (t_z, *t_primals))
            if by_weights:
                new = tuple(map(_sum, new, by_weights))
            return new, (cast_to(new[0], dtype),)

        xs = (z, arguments.mask, x, t_x, t_product, *states, *by_weights)
        like = (cast_to(given.states[0], dtype),)
        final, (outputs,) = backend.scan(body, full_precision(given.states), xs, like, self.reverse)
        return outputs, cast_like(final, arguments.states)

    def _sums_products_in_loop(self, kernel, z) -> bool:
        """Whether a loop that may sum the gradients of kernels does."""
        # The sums would have the dtype of the kernel.
        if kernel is None or is_half(z.dtype) or z.shape[1] < MIN_BATCH_OF_PRODUCTS:
            return False
        # Products that are not added to the inputs are as large as these, again for all steps.
        return self.added_columns == 0 or math.prod(kernel.shape) >= MIN_WEIGHTS_OF_PRODUCTS

    def _pre_activation(self, arguments: _Arguments, states, x):
        """z `[B, G]` of one step."""
        if self.project is not None:
            x = self.project(x, arguments.project_weights)
        h = _dropped(cast_to(states[0], x.dtype), arguments.dropout_mask)
        return pre_activation(x, recurrent_product(h, arguments.kernel), self.added_columns)


def _kept(keep, new, before=None):
    """The tensors `new` where `keep` is True; elsewhere those of `before`, or zeros."""
    if keep is None:
        return tuple(new)
    before = before or [0.0] * len(new)
    return tuple(ops.where(keep, a, b) for a, b in zip(new, before, strict=True))


def _sum(a, b):
    """a + b, where a is None for zeros."""
    return b if a is None else a + b


def _dropped(h, dropout_mask):
    return h if dropout_mask is None else h * dropout_mask
