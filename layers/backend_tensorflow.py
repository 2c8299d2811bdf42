"""Loops over time and custom gradients on the TensorFlow backend; see `layers/backend.py`."""

import contextlib
import contextvars
import functools

import keras
import tensorflow as tf

_BUILTIN_OPS = contextvars.ContextVar("builtin_ops", default=False)


@contextlib.contextmanager
def builtin_ops():
    """Traces recurrent layers in the form that LiteRT runs without Flex.

    LiteRT has no list of tensors of dynamic shape, so a loop writes its outputs into one tensor.
    TensorFlow copies that tensor at each step of a training loop, so this form is for export only.
    """
    token = _BUILTIN_OPS.set(True)
    try:
        yield
    finally:
        _BUILTIN_OPS.reset(token)


def uses_custom_gradient() -> bool:
    """Whether a gradient may be taken: False inside `builtin_ops`."""
    return not _BUILTIN_OPS.get()


# The multiply-adds of one step above which two loops are faster than one, measured on two cores.
MIN_WORK_TO_SPLIT = 1_000_000


def split_batch(structure, work: int) -> list:
    """The two halves of a batch, or the whole batch where splitting it gains nothing.

    On a CPU, TensorFlow runs the product of one step, `[B, U]` by `[U, G]`, on one core, and it
    runs independent loops in parallel. The batch is not split on an accelerator, in eager mode, in
    a LiteRT model, and where a step has little work.

    Args:
        structure: the tensors of the batch, `[B, ...]` each; None is allowed.
        work: the multiply-adds of one step of one sequence. An unknown batch size counts as 32.
    """
    first = next(x for x in tf.nest.flatten(structure) if x is not None)
    size = first.shape[0]
    never = tf.executing_eagerly() or _BUILTIN_OPS.get() or _has_accelerator()
    if never or (size or 32) * work < MIN_WORK_TO_SPLIT or size == 1:
        return [structure]
    if size is None:
        size = tf.shape(first)[0]
    # tf.split, because the gradient of two slices is two tensors of the size of the whole batch.
    sizes = [size // 2, size - size // 2]
    split = [None if x is None else tf.split(x, sizes) for x in tf.nest.flatten(structure)]
    return [
        tf.nest.pack_sequence_as(structure, [None if x is None else x[k] for x in split])
        for k in (0, 1)
    ]


@functools.cache
def _has_accelerator() -> bool:
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`.

    Args:
        body: the step. `carry`, `xs_t` and `ys_t` are tuples.
        carry: tensors `[B, ...]`, or scalars.
        xs: tensors `[T, B, ...]`; None is allowed, except for the first.
        like: for each of `ys_t`, a tensor of its dtype and shape.
        reverse: whether the loop runs from the last step to the first.
    """
    length = tf.shape(xs[0])[0]
    n = len(carry)
    collector = _TensorCollector if _BUILTIN_OPS.get() else _ListCollector
    collectors = [collector(y, length) for y in like]

    def iteration(i, *values):
        t = length - 1 - i if reverse else i
        x = tuple(None if x is None else x[t] for x in xs)
        new_carry, ys = body(tuple(values[:n]), x)
        written = [c.write(v, t, y) for c, v, y in zip(collectors, values[n:], ys, strict=True)]
        return (i + 1, *new_carry, *written)

    _, *end = tf.while_loop(
        lambda i, *_: i < length,
        iteration,
        (tf.constant(0), *carry, *(c.start for c in collectors)),
        shape_invariants=(
            tf.TensorShape([]),
            *_carry_shapes(carry, xs),
            *(c.invariant for c in collectors),
        ),
    )
    stacked = tuple(c.stack(v) for c, v in zip(collectors, end[n:], strict=True))
    for y in stacked:
        y.set_shape([xs[0].shape[0], *y.shape[1:]])
    return tuple(end[:n]), stacked


def _carry_shapes(carry, xs) -> list[tf.TensorShape]:
    """The shapes of the carry at every step.

    Where some tensors have no static batch size, the others lose theirs after one step.
    """
    batch_sizes = [x.shape[1] for x in xs if x is not None]
    batch_sizes += [c.shape[0] for c in carry if c.shape.rank]
    if None not in batch_sizes:
        return [c.shape for c in carry]
    return [tf.TensorShape([None, *c.shape[1:]]) if c.shape.rank else c.shape for c in carry]


class _ListCollector:
    """Collects the outputs of a loop in a TensorArray."""

    invariant = tf.TensorShape(None)

    def __init__(self, like, length):
        self.start = tf.TensorArray(like.dtype, size=length, element_shape=like.shape)

    @staticmethod
    def write(value, t, y):
        return value.write(t, y)

    @staticmethod
    def stack(value):
        return value.stack()


class _TensorCollector:
    """Collects the outputs of a loop in one tensor, `[T, ...]`."""

    def __init__(self, like, length):
        shape = tf.concat([[length], tf.shape(like)], axis=0)
        self.invariant = tf.TensorShape([None, *like.shape])
        self.start = tf.ensure_shape(tf.zeros(shape, like.dtype), self.invariant)

    @staticmethod
    def write(value, t, y):
        return tf.tensor_scatter_nd_update(value, [[t]], y[None])

    @staticmethod
    def stack(value):
        return value


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`, with a gradient that computes each step again from its carry.

    TensorFlow's own gradient of a loop stores every intermediate result of every step, and does
    not compile under XLA where the number of steps is dynamic.
    """

    def one_step(carry, x, constants, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            new_carry, ys = step(carry, x, constants)
        return tuple(new_carry), tuple(ys)

    def infer(carry, xs, constants, values):
        return scan(lambda c, x: one_step(c, x, constants, values), carry, xs, like, False)

    def forward(carry, xs, constants, values):
        def body(carry, x):
            new_carry, ys = one_step(carry, x, constants, values)
            return new_carry, (*ys, *carry)

        final, stacked = scan(body, carry, xs, (*like, *carry), reverse=False)
        ys, carries = stacked[: len(like)], stacked[len(like) :]
        return (final, ys), (carries, xs, constants, values)

    def backward(residuals, cotangents):
        carries, xs, constants, values = residuals
        d_final, d_ys = cotangents
        fixed = (*constants, *values)  # the same at every step: their gradients are summed
        n, m = len(carries), len(xs)

        def body(gradients, x):
            d_carry, sums = gradients[:n], gradients[n:]
            primals = (x[:n], x[n : n + m], constants, values)
            d_carry, d_x, d_constants, d_values = vjp(one_step, primals, (d_carry, x[n + m :]))
            new = (*d_constants, *d_values)
            return (*d_carry, *(a + b for a, b in zip(sums, new, strict=True))), d_x

        start = (*d_final, *(tf.zeros_like(x) for x in fixed))
        like_x = [x[0] for x in xs]
        end, d_xs = scan(body, start, (*carries, *xs, *d_ys), like_x, reverse=True)
        # With an unknown batch size the loop loses the first axis of the fixed tensors.
        sums = [tf.ensure_shape(d, x.shape) for d, x in zip(end[n:], fixed, strict=True)]
        return end[:n], d_xs, tuple(sums[: len(constants)]), tuple(sums[len(constants) :])

    arguments = (carry, xs, constants, tuple(v.value for v in variables))
    if not uses_custom_gradient():
        return infer(*arguments)
    return custom_vjp(forward, backward)(*arguments)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    with tf.GradientTape() as tape:
        tape.watch(primals)
        outputs = function(*primals)
    return tape.gradient(
        outputs,
        primals,
        output_gradients=cotangents,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )


def custom_vjp(forward, backward):
    """A function that returns the outputs of `forward` and has `backward` as its gradient.

    Args:
        forward: `forward(*arguments) -> (outputs, residuals)`. Arguments and outputs are tensors,
            or tuples of tensors. An argument may hold None.
        backward: `backward(residuals, cotangents) -> gradients`, with one gradient for each
            argument, of the same structure, and None where there is no gradient.
    """

    def function(*arguments):
        leaves = tf.nest.flatten(arguments)
        is_tensor = [x is not None for x in leaves]
        structure = None

        @tf.custom_gradient
        def flat_function(*tensors):
            nonlocal structure
            remaining = iter(tensors)
            packed = [next(remaining) if given else None for given in is_tensor]
            outputs, residuals = forward(*tf.nest.pack_sequence_as(arguments, packed))
            structure = outputs

            def gradient(*cotangents):
                cotangents = tf.nest.pack_sequence_as(outputs, cotangents)
                gradients = tf.nest.flatten(tuple(backward(residuals, cotangents)))
                return [g for g, given in zip(gradients, is_tensor, strict=True) if given]

            return tf.nest.flatten(outputs), gradient

        # tf.custom_gradient rejects variables, so they are converted to tensors.
        found = flat_function(*(tf.convert_to_tensor(x) for x in leaves if x is not None))
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(found))

    return function
