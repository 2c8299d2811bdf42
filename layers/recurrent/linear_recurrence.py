"""Recurrences that are linear in the state, with their gradient.

`h_t = a_t h_{t-1} + b_t`, elementwise. There are three forms of it, which give the same results:

| form | steps in a row | used on |
| --- | --- | --- |
| sequential | T | CPUs, and where the number of steps is not known (LiteRT) |
| blocks | 2 sqrt(T) | GPUs with TensorFlow and PyTorch, which launch an operation at a time |
| associative | 2 log2(T) | GPUs and TPUs with JAX, which compiles all of them |

On a CPU the time of a step is that of reading its inputs. The sequential form therefore computes
the coefficients in the loop, from a few steps at a time that stay in the cache, and its gradient
computes them again. The other forms read and write all steps several times.
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
    folded,
    full_precision,
    unfolded,
    zeros_of_a_step,
)

FORMS = ("sequential", "blocks", "associative")
SIZE_OF_A_BLOCK = 32  # if the number of steps is not static


def linear_recurrence(
    a, b, initial_state=None, mask=None, reverse: bool = False, form: str | None = None
):
    """Runs `h_t = a_t h_{t-1} + b_t` over time, elementwise.

    Each of a, b and the state is a tensor, or a pair of tensors, the real and the imaginary part of
    complex numbers. Sums have float32 where the dtype is a half precision.

    Args:
        a: the factors, `[T, B, ...]`, time first.
        b: the terms, `[T, B, ...]`.
        initial_state: h before the first step, `[B, ...]`; zeros by default.
        mask: `[T, B]`, boolean. A step where it is False changes no state.
        reverse: whether the recurrence runs from the last step to the first.
        form: one of `FORMS`; by default the fastest on the backend and its device. The associative
            form needs a static number of steps.

    Returns:
        h of all steps, `[T, B, ...]`, and h after the last step, `[B, ...]`.

    >>> import numpy as np
    >>> from unroll.layers.recurrent import linear_recurrence
    >>> a, b = np.full((4, 1, 1), 0.5, "float32"), np.ones((4, 1, 1), "float32")
    >>> h, last = linear_recurrence(a, b)
    >>> np.array(h)[:, 0, 0].tolist(), float(last[0, 0])
    ([1.0, 1.5, 1.75, 1.875], 1.875)
    """
    pair = isinstance(b, (tuple, list))
    a, b = _parts(a), _parts(b)
    if initial_state is None:
        initial_state = tuple(zeros_of_a_step(x) for x in b)
    outputs, final = gated_recurrence(
        _halves, (*a, *b), _parts(initial_state), mask=mask, reverse=reverse, form=form
    )
    return (outputs, final) if pair else (outputs[0], final[0])


def gated_recurrence(
    coefficients: Callable,
    inputs: Sequence,
    states: Sequence,
    weights: Sequence = (),
    *,
    mask=None,
    reverse: bool = False,
    form: str | None = None,
):
    """Runs `h_t = a_t h_{t-1} + b_t` with `a_t, b_t = coefficients(inputs_t, weights)`.

    Args:
        coefficients: an elementwise function of the inputs and the weights, in float32. It returns
            a and b, in tuples of one tensor or of a real and an imaginary part. Every axis but the
            last ones is a batch axis. An axis of `a` may have the size 1.
        inputs: tensors `[T, B, ...]`, time first.
        states: the initial state in its parts, `[B, ...]` each.
        weights: the weights that `coefficients` takes.
        mask, reverse, form: as in `linear_recurrence`.

    Returns:
        The parts of h at all steps, `[T, B, ...]` each, and after the last step, `[B, ...]` each.
    """
    inputs, states = tuple(map(ops.convert_to_tensor, inputs)), tuple(states)
    length = inputs[0].shape[0]
    dtype = inputs[0].dtype
    if length == 0:
        empty = tuple(ops.zeros((0, *ops.shape(s)), dtype=dtype) for s in states)
        return empty, states
    weights = tuple(map(ops.convert_to_tensor, weights))
    arguments = _Arguments(inputs, weights, states, mask)
    form = form or backend.linear_recurrence_form(inputs[0])
    if form == "sequential":
        loop = _Loop(coefficients, reverse)
    else:
        masked = None if mask is None else _like_parts(mask, inputs[0])
        a, b = _coefficients(coefficients, inputs, weights, masked)
        a = tuple(ops.broadcast_to(x, ops.shape(y)) for x, y in zip(a, b, strict=True))
        arguments = _Arguments((*a, *b), (), states, None)
        loop = _PARALLEL[form](_halves, reverse)
    outputs = backend.custom_vjp(loop.forward, loop.backward, loop.infer, loop.tangent)(arguments)
    outputs = tuple(cast_to(x, dtype) for x in outputs)
    return outputs, tuple(last_step(x, s, reverse) for x, s in zip(outputs, states, strict=True))


def _halves(parts, weights=()):
    """The coefficients whose inputs are the parts of a and those of b."""
    del weights
    n = len(parts) // 2
    return tuple(parts[:n]), tuple(parts[n:])


class _Arguments(NamedTuple):
    """The tensors that a recurrence runs on."""

    inputs: tuple  # [T, B, ...] each
    weights: tuple
    states: tuple  # [B, ...] each
    mask: Any  # [T, B] or None


@dataclass(frozen=True)
class _Recurrence:
    """The forward and the backward pass of one recurrence.

    The gradient g of the terms b is the recurrence from the end, with the same factors:
    `g_t = d_t + a_{t+1} g_{t+1}`, where d are the gradients of the outputs. That of the factors is
    `g_t h_{t-1}`. For complex numbers, the factors and states in both are conjugated.
    """

    coefficients: Callable
    reverse: bool

    def infer(self, arguments: _Arguments):
        """The parts of h at all steps, `[T, B, ...]` each."""
        raise NotImplementedError

    def backward(self, residuals, cotangents):
        """The gradients of the `_Arguments`, in a tuple of one."""
        raise NotImplementedError

    def forward(self, arguments: _Arguments):
        outputs = self.infer(arguments)
        return outputs, (arguments, outputs)

    def tangent(self, residuals, tangents, jvp: Callable):
        """The tangents of the outputs: a recurrence with the same factors."""
        arguments, outputs = residuals
        (given,) = tangents
        mask = None if arguments.mask is None else _like_parts(arguments.mask, outputs[0])

        def of_all_steps(inputs, weights):
            a, b = _coefficients(self.coefficients, inputs, weights, mask)
            return tuple(ops.broadcast_to(x, y.shape) for x, y in zip(a, b, strict=True)), b

        primals = (arguments.inputs, arguments.weights)
        a, _ = of_all_steps(*primals)
        t_a, t_b = jvp(of_all_steps, primals, (given.inputs, given.weights))
        before = full_precision(self._before(arguments, outputs))
        terms = multiply_add(t_a, before, t_b)
        linear = type(self)(_halves, self.reverse)
        found = linear.infer(_Arguments((*a, *terms), (), full_precision(given.states), None))
        return cast_like(found, outputs)

    def _before(self, arguments: _Arguments, outputs) -> tuple:
        """h before each step, `[T, B, ...]`."""
        length = ops.shape(outputs[0])[0]
        states = [cast_to(s, x.dtype) for s, x in zip(arguments.states, outputs, strict=True)]
        states = [s[None][:length] for s in states]  # none without steps
        if self.reverse:
            pairs = zip(outputs, states, strict=True)
            return tuple(ops.concatenate([x[1:], s], axis=0) for x, s in pairs)
        return tuple(
            ops.concatenate([s, x[:-1]], axis=0) for x, s in zip(outputs, states, strict=True)
        )


class _Loop(_Recurrence):
    """The sequential form: a loop over chunks of a few steps."""

    def infer(self, arguments: _Arguments):
        chunks = _Chunks(ops.shape(arguments.inputs[0])[0], self.reverse)
        weights = full_precision(arguments.weights)
        dtype = arguments.inputs[0].dtype

        def body(h, xs):
            mask, *inputs = xs
            a, b = _coefficients(self.coefficients, inputs, weights, mask)
            a, b = chunks.steps(a), chunks.steps(b)
            collected = [None] * len(b)
            for k in chunks.order(len(b)):
                h = multiply_add(a[k], h, b[k])
                collected[k] = h
            stacked = (ops.stack(part) for part in zip(*collected, strict=True))
            return h, tuple(cast_to(x, dtype) for x in stacked)

        states = full_precision(arguments.states)
        like = tuple(chunks.zeros(cast_to(s, dtype)) for s in states)
        xs = (chunks.mask(arguments), *map(chunks.fold, arguments.inputs))
        _, outputs = chunks.scan(body, states, xs, like, self.reverse)
        return tuple(map(chunks.unfold, outputs))

    def backward(self, residuals, cotangents):
        arguments, outputs = residuals
        chunks = _Chunks(ops.shape(arguments.inputs[0])[0], self.reverse)
        weights = full_precision(arguments.weights)
        n, m = len(arguments.inputs), len(arguments.states)

        def body(carry, xs):
            d_h, sums = carry[:m], carry[m:]
            mask, *xs = xs
            inputs, given, before = full_precision((xs[:n], xs[n : n + m], xs[n + m :]))
            (a, _), pullback = backend.pullback(
                lambda inputs, weights: _coefficients(self.coefficients, inputs, weights, mask),
                (inputs, weights),
            )
            a_steps, d_steps = chunks.steps(a), chunks.steps(given)
            collected = [None] * len(d_steps)
            for k in reversed(chunks.order(len(d_steps))):
                g = tuple(x + y for x, y in zip(d_steps[k], d_h, strict=True))
                d_h = conjugate_product(a_steps[k], g)
                collected[k] = g
            g = tuple(ops.stack(part) for part in zip(*collected, strict=True))
            d_a = conjugate_product(before, g)
            d_a = tuple(_sum_to(x, like) for x, like in zip(d_a, a, strict=True))
            d_inputs, d_weights = pullback((d_a, g))
            sums = tuple(s + d for s, d in zip(sums, d_weights, strict=True))
            return (*d_h, *sums), cast_like(d_inputs, arguments.inputs)

        start = (*map(ops.zeros_like, full_precision(arguments.states)),)
        start += (*map(ops.zeros_like, weights),)
        like = tuple(chunks.zeros(zeros_of_a_step(x)) for x in arguments.inputs)
        folded = (*arguments.inputs, *cotangents, *self._before(arguments, outputs))
        xs = (chunks.mask(arguments), *map(chunks.fold, folded))
        end, d_inputs = chunks.scan(body, start, xs, like, not self.reverse)
        gradients = _Arguments(
            inputs=tuple(map(chunks.unfold, d_inputs)),
            weights=cast_like(end[m:], arguments.weights),
            states=cast_like(end[:m], arguments.states),
            mask=None,
        )
        return (gradients,)


class _Chunks:
    """The steps of a sequence, a few at a time.

    Steps that fill the last chunk are the last ones in the order of the recurrence, so that no
    other step depends on them. Their coefficients are those of inputs of zero.
    """

    def __init__(self, length, reverse: bool):
        self.length, self.reverse = length, reverse
        self.size = _size_of_a_chunk(length, backend.largest_chunk())
        self.number = (length + self.size - 1) // self.size

    def fold(self, x):
        """`[T, ...]` to `[chunks, steps of one, ...]`."""
        return folded(x, self.number, self.size, at_start=self.reverse)

    def unfold(self, x):
        """`[chunks, steps of one, ...]` to `[T, ...]`."""
        return unfolded(x, self.length, at_start=self.reverse)

    def mask(self, arguments: _Arguments):
        """The mask in chunks, with the number of axes of the inputs; None without one."""
        if arguments.mask is None:
            return None
        return self.fold(_like_parts(arguments.mask, arguments.inputs[0]))

    def steps(self, parts) -> list[tuple]:
        """The parts of each step of a chunk. A part with one step is the same at all steps."""
        rows = [
            ops.unstack(x, self.size, axis=0) if x.shape[0] != 1 else [x[0]] * self.size
            for x in parts
        ]
        return list(zip(*rows, strict=True))

    def order(self, number: int):
        return range(number)[::-1] if self.reverse else range(number)

    def zeros(self, step):
        """Zeros of the shape of the chunk of a step."""
        return ops.zeros((self.size, *ops.shape(step)), dtype=step.dtype)

    def scan(self, body, carry, xs, like, reverse: bool):
        """`backend.scan`, whose first tensor must not be None: the mask comes first in the body."""
        mask, *rest = xs

        def moved(carry, xs):
            *rest, mask = xs
            return body(carry, (mask, *rest))

        return backend.scan(moved, tuple(carry), (*rest, mask), like, reverse)


def _size_of_a_chunk(length, largest: int | None) -> int:
    """A divisor of the number of steps, which needs no padding, or half of the largest size."""
    if largest is None:
        return length
    sizes = range(largest, 3, -1) if isinstance(length, int) else ()
    return next((size for size in sizes if length % size == 0), largest // 2)


class _Parallel(_Recurrence):
    """A form that runs on the coefficients of all steps."""

    def run(self, a, b, states, reverse: bool):
        """The parts of h at all steps, from those of a, of b, and of the initial state."""
        raise NotImplementedError

    def infer(self, arguments: _Arguments):
        dtype = arguments.inputs[0].dtype
        a, b = _halves(full_precision(arguments.inputs))
        outputs = self.run(a, b, full_precision(arguments.states), self.reverse)
        return tuple(cast_to(x, dtype) for x in outputs)

    def backward(self, residuals, cotangents):
        arguments, outputs = residuals
        a, _ = _halves(full_precision(arguments.inputs))
        one = tuple(ops.ones_like(x[:1]) for x in a)
        if self.reverse:
            after = tuple(ops.concatenate([o, x[:-1]], axis=0) for o, x in zip(one, a, strict=True))
        else:
            after = tuple(ops.concatenate([x[1:], o], axis=0) for o, x in zip(one, a, strict=True))
        conjugated = (after[0], *(-x for x in after[1:]))
        start = tuple(ops.zeros_like(s) for s in full_precision(arguments.states))
        g = self.run(conjugated, full_precision(tuple(cotangents)), start, not self.reverse)
        d_a = conjugate_product(full_precision(self._before(arguments, outputs)), g)
        first = -1 if self.reverse else 0
        d_states = conjugate_product([x[first] for x in a], [x[first] for x in g])
        gradients = _Arguments(
            inputs=cast_like((*d_a, *g), arguments.inputs),
            weights=(),
            states=cast_like(d_states, arguments.states),
            mask=None,
        )
        return (gradients,)


class _Blocks(_Parallel):
    """Blocks of about sqrt(T) steps: side by side within the blocks, then over the blocks."""

    def run(self, a, b, states, reverse: bool):
        length = ops.shape(b[0])[0]
        size = math.ceil(math.sqrt(length)) if isinstance(length, int) else SIZE_OF_A_BLOCK
        number = (length + size - 1) // size

        def fold(x, fill):
            """`[T, ...]` to `[steps of a block, blocks, ...]`."""
            return ops.swapaxes(folded(x, number, size, fill, at_start=reverse), 0, 1)

        a = (fold(a[0], 1.0), *(fold(x, 0.0) for x in a[1:]))
        b = tuple(fold(x, 0.0) for x in b)
        n = len(b)

        def of_a_block(carry, xs):
            a, b = _halves(xs)
            zero = tuple(map(ops.zeros_like, b))
            return (*multiply_add(a, carry[:n], zero), *multiply_add(a, carry[n:], b)), ()

        ones = (ops.ones_like(b[0][0]), *(ops.zeros_like(x[0]) for x in b[1:]))
        start = (*ones, *(ops.zeros_like(x[0]) for x in b))
        ends, _ = backend.scan(of_a_block, start, (*a, *b), (), reverse)

        def over_blocks(h, xs):
            factor, term = _halves(xs)
            return multiply_add(factor, h, term), tuple(h)

        _, before = backend.scan(over_blocks, tuple(states), ends, tuple(states), reverse)

        def of_all(h, xs):
            factor, term = _halves(xs)
            h = multiply_add(factor, h, term)
            return h, h

        _, outputs = backend.scan(of_all, before, (*a, *b), before, reverse)

        return tuple(unfolded(ops.swapaxes(x, 0, 1), length, at_start=reverse) for x in outputs)


class _Associative(_Parallel):
    """The associative scan: pairs of steps, pairs of pairs, and so on."""

    def run(self, a, b, states, reverse: bool):
        first = -1 if reverse else 0
        start = multiply_add([x[first] for x in a], states, [x[first] for x in b])
        if reverse:
            b = tuple(
                ops.concatenate([x[:-1], s[None]], axis=0) for x, s in zip(b, start, strict=True)
            )
        else:
            b = tuple(
                ops.concatenate([s[None], x[1:]], axis=0) for x, s in zip(b, start, strict=True)
            )

        def combine(left, right):
            (a, b), (c, d) = _halves(left), _halves(right)
            zero = tuple(ops.zeros_like(x) for x in a)
            return (*multiply_add(c, a, zero), *multiply_add(c, b, d))

        found = ops.associative_scan(combine, (*a, *b), reverse=reverse, axis=0)
        return tuple(found[len(b) :])


_PARALLEL = {"blocks": _Blocks, "associative": _Associative}


def _coefficients(coefficients: Callable, inputs, weights, mask):
    """a and b; 1 and 0 where the mask, which has the axes of the inputs, is False."""
    a, b = coefficients(full_precision(tuple(inputs)), full_precision(tuple(weights)))
    if mask is None:
        return tuple(a), tuple(b)
    a = tuple(ops.where(mask, x, float(k == 0)) for k, x in enumerate(a))
    return a, tuple(ops.where(mask, x, 0.0) for x in b)


def multiply_add(a, h, b) -> tuple:
    """a h + b, of real numbers or of pairs of real and imaginary parts."""
    if len(b) == 1:
        return (a[0] * h[0] + b[0],)
    return a[0] * h[0] - a[1] * h[1] + b[0], a[0] * h[1] + a[1] * h[0] + b[1]


def conjugate_product(a, h) -> tuple:
    """The conjugate of a times h, as in `multiply_add`."""
    if len(h) == 1:
        return (a[0] * h[0],)
    return a[0] * h[0] + a[1] * h[1], a[0] * h[1] - a[1] * h[0]


def _parts(x) -> tuple:
    """A tensor in a tuple, or a pair of them."""
    return tuple(map(ops.convert_to_tensor, x if isinstance(x, (tuple, list)) else (x,)))


def _like_parts(mask, x):
    """A mask `[T, B]` with as many axes as x."""
    return ops.reshape(mask, (*ops.shape(mask), *[1] * (len(x.shape) - 2)))


def _sum_to(x, like):
    """The sum of x over the axes that have the size 1 in `like`."""
    pairs = zip(x.shape, like.shape, strict=True)
    axes = [k for k, (m, n) in enumerate(pairs) if n == 1 and m != 1]
    return ops.sum(x, axis=axes, keepdims=True) if axes else x


def hold(x, state, mask, reverse: bool = False):
    """The values of the last steps that are not masked.

    Args:
        x: `[T, B, U]`.
        state: the value before the first step, `[B, U]`.
        mask: `[T, B]`, boolean, or None.
        reverse: as in `linear_recurrence`.

    Returns:
        At each step the last value up to it, `[T, B, U]`, and that after the last step, `[B, U]`.
    """
    if mask is None:
        return x, last_step(x, state, reverse)
    keep = ops.expand_dims(mask, -1)
    held = ops.cast(ops.logical_not(keep), x.dtype)
    return linear_recurrence(held, ops.where(keep, x, 0.0), state, reverse=reverse)


def last_step(outputs, state, reverse: bool):
    """The state after the last step; the initial state if there are no steps."""
    last = outputs[:1] if reverse else outputs[ops.shape(outputs)[0] - 1 :]
    return ops.concatenate([cast_to(state, outputs.dtype)[None], last], axis=0)[-1]
