"""The loop over time on the TensorFlow backend, in the form of the format that is traced."""

import contextlib
import contextvars
import functools
import operator

import keras
import tensorflow as tf
from tensorflow.python.saved_model.save_context import save_context

# The format that is traced for: None, "litert" or "onnx".
_FORMAT = contextvars.ContextVar("format", default=None)
_POLICIES = tf.saved_model.experimental.VariablePolicy


def builtin_ops():
    """Traces recurrent layers in the form that LiteRT runs without Flex.

    LiteRT has no list of tensors of dynamic shape, so a loop writes its outputs into one tensor.
    TensorFlow copies that tensor at each step of a training loop, so this form is for export only.
    """
    return _tracing_for("litert", _POLICIES.SAVE_VARIABLE_DEVICES)


def onnx_ops():
    """Traces recurrent layers in the form that `onnx_tensorflow.convert` converts.

    All loops run forward, and `fused_recurrence` has operations that only the converter knows. The
    functions that are traced here cannot be called.
    """
    return _tracing_for("onnx", _POLICIES.EXPAND_DISTRIBUTED_VARIABLES)


def traced_format() -> str | None:
    """The format of the model that is traced, "litert" or "onnx", or None."""
    return _FORMAT.get()


@contextlib.contextmanager
def _tracing_for(name: str, policy):
    # A `tf.function` keeps what it traces here apart from its other traces: the options of the save
    # context are a part of the key of its cache. The policies differ for replicated variables only.
    options = tf.saved_model.SaveOptions(experimental_variable_policy=policy)
    token = _FORMAT.set(name)
    try:
        with save_context(options):
            yield
    finally:
        _FORMAT.reset(token)


# The steps of the innermost of the loops of a LiteRT model, at most.
BLOCK = 64


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`.

    Args:
        body: the step. `carry`, `xs_t` and `ys_t` are tuples.
        carry: tensors `[B, ...]`, or scalars.
        xs: tensors `[T, B, ...]`; None is allowed, except for the first.
        like: for each of `ys_t`, a tensor of its dtype and shape.
        reverse: whether the loop runs from the last step to the first.
    """
    if xs[0].shape[0] == 0:  # XLA compiles the body of a loop without steps, too
        return tuple(carry), tuple(tf.zeros([0, *tf.unstack(tf.shape(y))], y.dtype) for y in like)
    if traced_format() and xs[0].shape[0] == 1:  # a model of single steps has no loop
        end, ys = body(tuple(carry), tuple(None if x is None else x[0] for x in xs))
        return tuple(end), tuple(y[None] for y in ys)
    length = tf.shape(xs[0])[0]
    carry_shapes = _carry_shapes(carry, xs)
    if traced_format() == "onnx":
        end, stacked = _scan_forward(body, carry, carry_shapes, xs, like, reverse, length)
    elif traced_format() is None:
        end, stacked = _scan(body, carry, carry_shapes, xs, like, reverse, length, _ListCollector)
    elif xs[0].shape[0] is not None and xs[0].shape[0] <= BLOCK:
        end, stacked = _scan(body, carry, carry_shapes, xs, like, reverse, length, _TensorCollector)
    else:
        end, stacked = _scan_in_blocks(body, carry, carry_shapes, xs, like, reverse, length)
    for y in stacked:
        y.set_shape([xs[0].shape[0], *y.shape[1:]])
    return end, stacked


def _scan(body, carry, carry_shapes, xs, like, reverse, steps, collector):
    """`scan` over the first `steps` of `xs` by one loop. The other outputs are not defined."""
    n = len(carry)
    collectors = [collector(y, tf.shape(xs[0])[0]) for y in like]

    def iteration(i, *values):
        t = steps - 1 - i if reverse else i
        x = tuple(None if x is None else x[t] for x in xs)
        new_carry, ys = body(tuple(values[:n]), x)
        written = [c.write(v, t, y) for c, v, y in zip(collectors, values[n:], ys, strict=True)]
        return (i + 1, *new_carry, *written)

    _, *end = tf.while_loop(
        lambda i, *_: i < steps,
        iteration,
        (tf.constant(0), *carry, *(c.start for c in collectors)),
        shape_invariants=(tf.TensorShape([]), *carry_shapes, *(c.invariant for c in collectors)),
        # XLA needs it for second derivatives. LiteRT would count the iterations.
        maximum_iterations=None if traced_format() else steps,
    )
    return tuple(end[:n]), tuple(c.stack(v) for c, v in zip(collectors, end[n:], strict=True))


def _scan_forward(body, carry, carry_shapes, xs, like, reverse, length):
    """As `_scan`, by a loop from the first step to the last of sequences that may be reversed.

    A loop of ONNX appends to its outputs. tf2onnx does not check where a TensorArray is written to.
    """
    if reverse:
        xs = [None if x is None else tf.reverse(x, [0]) for x in xs]
    end, stacked = _scan(body, carry, carry_shapes, xs, like, False, length, _ListCollector)
    # After no steps, ONNX Runtime does not know the sizes of what they would have returned.
    shapes = [tf.concat([[length], tf.shape(one)], axis=0) for one in like]
    stacked = [tf.reshape(y, shape) for y, shape in zip(stacked, shapes, strict=True)]
    stacked = [tf.ensure_shape(y, [None, *one.shape]) for y, one in zip(stacked, like, strict=True)]
    return end, tuple(tf.reverse(y, [0]) if reverse else y for y in stacked)


def _scan_in_blocks(body, carry, carry_shapes, xs, like, reverse, length):
    """As `_scan`, by three loops: over the steps of a block, its blocks, and groups of blocks.

    At each iteration of a loop, LiteRT copies all outputs of that loop: by one loop, the time is
    quadratic in the number of steps T. Here all steps are copied once for each of about
    `sqrt(T / BLOCK)` groups.
    """
    size = tf.clip_by_value(length, 1, BLOCK)  # a short sequence is one block, without padding
    blocks = (length + size - 1) // size
    root = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(blocks, tf.float32))), tf.int32)
    group = tf.maximum(root, 1)  # blocks in a group
    groups = (blocks + group - 1) // group
    sizes = [groups, group, size]
    padded_length = groups * group * size

    def fold(x):
        """`[T, ...]` to `[groups, group, size, ...]`."""
        padding = tf.concat([[padded_length - length], tf.shape(x)[1:]], axis=0)
        padded = tf.concat([x, tf.zeros(padding, x.dtype)], axis=0)
        folded = tf.reshape(padded, tf.concat([sizes, tf.shape(x)[1:]], axis=0))
        folded.set_shape([None, None, None, *x.shape[1:]])
        return folded

    def unfold(y, one):
        """`[groups, group, size, ...]` to `[T, ...]`."""
        flat = tf.reshape(y, tf.concat([[padded_length], tf.shape(one)], axis=0))[:length]
        flat.set_shape([None, *one.shape])
        return flat

    def nested(carry, xs, steps, sizes):
        """The first `steps` of `xs`, which has `len(sizes)` axes in place of that of time."""
        if len(sizes) == 1:
            return _scan(body, carry, carry_shapes, xs, like, reverse, steps, _TensorCollector)
        inner = sizes[1:]
        steps_of_one = functools.reduce(operator.mul, inner)

        def scan_one(carry, index_and_xs):
            index, *xs = index_and_xs
            remaining = tf.minimum(steps_of_one, steps - index * steps_of_one)
            return nested(carry, xs, remaining, inner)

        return _scan(
            scan_one,
            carry,
            carry_shapes,
            [tf.range(sizes[0]), *xs],
            [_zeros(inner, y) for y in like],
            reverse,
            (steps + steps_of_one - 1) // steps_of_one,
            _TensorCollector,
        )

    end, stacked = nested(carry, [None if x is None else fold(x) for x in xs], length, sizes)
    return end, tuple(unfold(y, one) for y, one in zip(stacked, like, strict=True))


def _zeros(sizes, like):
    """Zeros `[*sizes, *like.shape]`, where the sizes are not static."""
    zeros = tf.zeros(tf.concat([sizes, tf.shape(like)], axis=0), like.dtype)
    return tf.ensure_shape(zeros, [*[None] * len(sizes), *like.shape])


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
        self.like = like
        self.start = tf.TensorArray(like.dtype, size=length, element_shape=like.shape)

    @staticmethod
    def write(value, t, y):
        return value.write(t, y)

    def stack(self, value):
        if tf.executing_eagerly() or self.like.shape.is_fully_defined():
            return value.stack()
        # An empty TensorArray has no shape of its own.
        stacked = tf.raw_ops.TensorListStack(
            input_handle=value.flow,
            element_shape=tf.shape(self.like),
            element_dtype=self.like.dtype,
            num_elements=-1,
        )
        return tf.ensure_shape(stacked, [None, *self.like.shape])


class _TensorCollector:
    """Collects the outputs of a loop in one tensor, `[T, ...]`."""

    def __init__(self, like, length):
        self.invariant = tf.TensorShape([None, *like.shape])
        self.start = _zeros([length], like)

    @staticmethod
    def write(value, t, y):
        # LiteRT runs `tf.tensor_scatter_nd_update` as six operations on all of `value`.
        return keras.ops.slice_update(value, [t, *[0] * len(y.shape)], tf.expand_dims(y, 0))

    @staticmethod
    def stack(value):
        return value
