"""The loop over time on the TensorFlow backend."""

import contextlib
import contextvars
import functools

import keras
import tensorflow as tf

_BUILTIN_OPS = contextvars.ContextVar("builtin_ops", default=False)


@contextlib.contextmanager
def builtin_ops():
    """While it is open, recurrent layers are traced in the form that LiteRT runs without Flex.

    LiteRT has no list of tensors of dynamic shape, so the outputs are written into one tensor
    instead. TensorFlow copies that tensor at each step of a training loop, which is why this is
    not the form for everything.
    """
    token = _BUILTIN_OPS.set(True)
    try:
        yield
    finally:
        _BUILTIN_OPS.reset(token)


def only_inference() -> bool:
    """Whether no gradient will be taken, so that nothing has to be kept for one."""
    return _BUILTIN_OPS.get()


# Below so many multiply-adds a step two loops cost more than they gain, measured on two cores.
WORTH_SPLITTING = 1_000_000


def halves(structure, work: int) -> list:
    """The two halves of a batch, given as a structure of tensors `[B, ...]` and None.

    TensorFlow runs the product of one step, `[B, U]` by `[U, G]`, on one core of a CPU, and loops
    that do not depend on one another at the same time. The batch stays whole where that gains
    nothing: on an accelerator, in eager mode, in a LiteRT model, and where a step is little work.

    Args:
        structure: what belongs to the batch.
        work: the multiply-adds of one step of one sequence. An unknown batch counts as 32.
    """
    first = next(x for x in tf.nest.flatten(structure) if x is not None)
    size = first.shape[0]
    whole = tf.executing_eagerly() or _BUILTIN_OPS.get() or _accelerated()
    if whole or (size or 32) * work < WORTH_SPLITTING or size == 1:
        return [structure]
    if size is None:
        size = tf.shape(first)[0]
    # tf.split and no slices, the gradient of which would be two tensors of the whole size.
    sizes = [size // 2, size - size // 2]
    split = [None if x is None else tf.split(x, sizes) for x in tf.nest.flatten(structure)]
    return [
        tf.nest.pack_sequence_as(structure, [None if x is None else x[k] for x in split])
        for k in (0, 1)
    ]


@functools.cache
def _accelerated() -> bool:
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs`; stacks the `ys_t`.

    `like` holds one tensor for each of `ys_t`, of its dtype and shape.
    """
    length = tf.shape(xs[0])[0]
    n = len(carry)
    collector = _Scattered if _BUILTIN_OPS.get() else _Listed
    collectors = [collector(y, length) for y in like]

    def iteration(i, *values):
        t = length - 1 - i if reverse else i
        new_carry, ys = body(tuple(values[:n]), tuple(x[t] for x in xs))
        written = [c.write(v, t, y) for c, v, y in zip(collectors, values[n:], ys, strict=True)]
        return (i + 1, *new_carry, *written)

    start = (tf.constant(0), *carry, *(c.start for c in collectors))
    # A batch size that only some of the tensors tell is unknown to the others after one step.
    batched = [c for c in carry if c.shape.rank]
    known = all(x.shape[1] is not None for x in xs) and all(c.shape[0] is not None for c in batched)
    carried = [
        c.shape if known or not c.shape.rank else tf.TensorShape([None, *c.shape[1:]])
        for c in carry
    ]
    invariants = (tf.TensorShape([]), *carried, *(c.invariant for c in collectors))
    _, *end = tf.while_loop(
        lambda i, *_: i < length,
        iteration,
        start,
        shape_invariants=invariants,
    )
    stacked = tuple(c.stack(v) for c, v in zip(collectors, end[n:], strict=True))
    for y in stacked:
        y.set_shape([xs[0].shape[0], *y.shape[1:]])
    return tuple(end[:n]), stacked


class _Listed:
    """Collects in a TensorArray."""

    invariant = tf.TensorShape(None)

    def __init__(self, like, length):
        self.start = tf.TensorArray(like.dtype, size=length, element_shape=like.shape)

    @staticmethod
    def write(value, t, y):
        return value.write(t, y)

    @staticmethod
    def stack(value):
        return value.stack()


class _Scattered:
    """Collects in one tensor, `[T, ...]`."""

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
    """As `recurrence.scan`, with a gradient that repeats each step from the carry before it.

    TensorFlow's own gradient of a loop keeps every intermediate result of every step, and does not
    compile under XLA where the number of steps is dynamic.
    """
    sizes = [len(carry), len(xs), len(constants), len(variables)]

    def unflatten(flat):
        return [tuple(part) for part in _parts(list(flat), sizes)]

    def one(carry, x, constants, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            new, ys = step(carry, x, constants)
        return tuple(new), tuple(ys)

    def run(flat, keep):
        carry, xs, constants, values = unflatten(flat)

        def body(carry, x):
            new, ys = one(carry, x, constants, values)
            return new, (*ys, *carry) if keep else ys

        return scan(body, carry, xs, (*like, *carry) if keep else like, reverse=False)

    def forward(*flat):
        final, kept = run(flat, keep=True)
        return (*kept[: len(like)], *final), (flat, kept[len(like) :])

    def backward(residuals, cotangents):
        flat, before = residuals
        _, xs, constants, values = unflatten(flat)
        d_ys, d_final = cotangents[: len(like)], cotangents[len(like) :]

        def body(gradients, given):
            d_carry, _, *sums = _parts(list(gradients), [sizes[0], 0, *sizes[2:]])
            carry, x, d_y = _parts(list(given), [sizes[0], sizes[1], len(like)])
            d_carry, d_x, *more = vjp(
                one, (tuple(carry), tuple(x), constants, values), (tuple(d_carry), tuple(d_y))
            )
            sums = [a + b for a, b in zip([*sums[0], *sums[1]], [*more[0], *more[1]], strict=True)]
            return (*d_carry, *sums), d_x

        start = [*d_final, *(tf.zeros_like(x) for x in (*constants, *values))]
        end, d_xs = scan(body, start, (*before, *xs, *d_ys), [x[0] for x in xs], reverse=True)
        d_carry, d_rest = end[: sizes[0]], end[sizes[0] :]
        # A loop over batches of unknown size forgets the first axis of the weights.
        d_rest = [
            tf.ensure_shape(d, x.shape) for d, x in zip(d_rest, (*constants, *values), strict=True)
        ]
        return (*d_carry, *d_xs, *d_rest)

    flat = (*carry, *xs, *constants, *(v.value for v in variables))
    if only_inference():
        return run(flat, keep=False)
    found = custom_vjp(forward, backward)(*flat)
    return tuple(found[len(like) :]), tuple(found[: len(like)])


def _parts(flat: list, sizes: list[int]) -> list[list]:
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [flat[end - size : end] for size, end in zip(sizes, ends, strict=True)]


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
    """`forward(*xs) -> (ys, residuals)` with `backward(residuals, cotangents)` as its gradient."""

    @tf.custom_gradient
    def function(*xs):
        ys, residuals = forward(*xs)
        return ys, lambda *cotangents: backward(residuals, cotangents)

    # A variable among the arguments would count as one that the function uses unasked.
    return lambda *xs: function(*(tf.convert_to_tensor(x) for x in xs))
