"""Loops over time and custom gradients on the TensorFlow backend; see `layers/backend.py`."""

import contextlib
import contextvars
import functools
import operator

import keras
import tensorflow as tf
from tensorflow.python.saved_model.save_context import save_context

from unroll.layers import fused_litert_tensorflow, fused_onnx_tensorflow

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


def uses_custom_gradient() -> bool:
    """Whether a gradient may be taken: False inside `builtin_ops` and `onnx_ops`."""
    return _FORMAT.get() is None


# The multiply-adds of one step above which two loops are faster than one, measured on two cores.
MIN_WORK_TO_SPLIT = 1_000_000


def split_batch(structure, work: int) -> list:
    """The two halves of a batch, or the whole batch where splitting it gains nothing.

    On a CPU, TensorFlow runs the product of one step, `[B, U]` by `[U, G]`, on one core, and it
    runs independent loops in parallel. The batch is not split on an accelerator, in eager mode, in
    an exported LiteRT or ONNX model, and where a step has little work.

    Args:
        structure: the tensors of the batch, `[B, ...]` each; None is allowed.
        work: the multiply-adds of one step of one sequence. An unknown batch size counts as 32.
    """
    first = next(x for x in tf.nest.flatten(structure) if x is not None)
    size = first.shape[0]
    never = tf.executing_eagerly() or _FORMAT.get() or _is_accelerated(first)
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


# The projected inputs of an LSTM are four times as large as its outputs. The product of 128 steps
# is large enough to be efficient.
EAGER_STEPS = 128


def steps_at_once() -> int | None:
    """The number of steps whose inputs are projected at once, or None for all.

    In eager mode it is limited, because each result of an operation takes memory of its own.
    """
    return EAGER_STEPS if tf.executing_eagerly() else None


def _is_accelerated(x) -> bool:
    """Whether a tensor of a graph is, or may be, on another device than a CPU."""
    if x.device:
        return tf.DeviceSpec.from_string(x.device).device_type != "CPU"
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


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
    if _FORMAT.get() and xs[0].shape[0] == 1:  # a model of single steps has no loop
        end, ys = body(tuple(carry), tuple(None if x is None else x[0] for x in xs))
        return tuple(end), tuple(y[None] for y in ys)
    length = tf.shape(xs[0])[0]
    carry_shapes = _carry_shapes(carry, xs)
    if _FORMAT.get() == "onnx":
        end, stacked = _scan_forward(body, carry, carry_shapes, xs, like, reverse, length)
    elif _FORMAT.get() is None:
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
        maximum_iterations=None if _FORMAT.get() else steps,
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
        fixed = (*constants, *values)  # the same at every step
        positions = {id(x): k for k, x in enumerate((*constants, *variables))}
        n, m = len(carries), len(xs)
        like_x = [tf.ensure_shape(tf.zeros(tf.shape(x)[1:], x.dtype), x.shape[1:]) for x in xs]
        # A step of zeros tells which of `fixed` are used in products alone. Their gradients are
        # one product over all steps, after the loop. Those of the others are summed in the loop.
        with tf.GradientTape() as tape, _recorded(positions, tape, detached=True) as found:
            tape.watch(fixed)
            outputs = one_step(tuple(map(tf.zeros_like, d_final)), like_x, constants, values)
        others = tape.gradient(outputs, fixed, output_gradients=(d_final, tuple(like)))
        after = {k for k, _, _ in found if others[k] is None}
        summed = [k for k in range(len(fixed)) if k not in after]
        positions = {key: k for key, k in positions.items() if k in after}
        like_products = [x for k, *pair in found if k in after for x in pair]

        def body(gradients, x):
            carry, inputs, d_step = x[:n], x[n : n + m], x[n + m :]
            with tf.GradientTape() as tape, _recorded(positions, tape) as products:
                watched = (carry, inputs, tuple(fixed[k] for k in summed))
                tape.watch(watched)
                outputs = one_step(carry, inputs, constants, values)
            (d_carry, d_x, new), d_products = tape.gradient(
                outputs,
                (watched, [z for _, _, z in products]),
                output_gradients=(gradients[:n], d_step),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            sums = [a + tf.cast(b, a.dtype) for a, b in zip(gradients[n:], new, strict=True)]
            pairs = [y for (_, a, _), d in zip(products, d_products, strict=True) for y in (a, d)]
            return (*d_carry, *sums), (*d_x, *pairs)

        zeros = [tf.zeros_like(fixed[k], dtype=_sum_dtype(fixed[k].dtype)) for k in summed]
        end, stacked = scan(
            body,
            (*d_final, *zeros),
            (*carries, *xs, *d_ys),
            (*like_x, *like_products),
            reverse=True,
        )
        d_xs, pairs = stacked[:m], stacked[m:]
        sums = dict(zip(summed, end[n:], strict=True))
        used = [k for k, _, _ in found if k in after]
        for k, a, d in zip(used, pairs[::2], pairs[1::2], strict=True):
            sums[k] = _kernel_gradient(a, d, fixed[k]) + sums.get(k, 0)
        # With an unknown batch size the loop loses the first axis of the fixed tensors.
        sums = [tf.ensure_shape(tf.cast(sums[k], x.dtype), x.shape) for k, x in enumerate(fixed)]
        return end[:n], d_xs, tuple(sums[: len(constants)]), tuple(sums[len(constants) :])

    arguments = (carry, xs, constants, tuple(v.value for v in variables))
    return custom_vjp(forward, backward, infer)(*arguments)


def recomputed(function):
    """The function itself: the gradient of a `differentiable_scan` computes each step again."""
    return function


# What `product` calls in the gradient of a `differentiable_scan`.
_RECORD = contextvars.ContextVar("record", default=None)


def product(x, kernel):
    """`x` times `kernel`.

    In the gradient of a `differentiable_scan`, that of a kernel which is a variable or a constant
    is one product over all steps.
    """
    record = _RECORD.get()
    return keras.ops.matmul(x, kernel) if record is None else record(x, kernel)


@contextlib.contextmanager
def _recorded(positions: dict[int, int], tape, detached: bool = False):
    """Lists the products with some kernels: the position of the kernel, the factor, the product.

    Args:
        positions: the position of a kernel by its `id`.
        tape: watches the products.
        detached: whether the kernels have no gradient there.
    """
    found = []

    def record(x, kernel):
        k = positions.get(id(kernel))
        if k is None:
            return keras.ops.matmul(x, kernel)
        if detached:
            kernel = tf.stop_gradient(keras.ops.convert_to_tensor(kernel))
        z = keras.ops.matmul(x, kernel)
        tape.watch(z)
        found.append((k, x, z))
        return z

    token = _RECORD.set(record)
    try:
        yield found
    finally:
        _RECORD.reset(token)


def _kernel_gradient(x, d_product, kernel):
    """The gradient of `kernel`, `[n, m]` or `[B, n, m]`, in its products with `x` at all steps.

    Args:
        x: `[T, ..., n]`, or `[T, B, ..., n]`.
        d_product: the gradients of the products, `[T, ..., m]` or `[T, B, ..., m]`.
    """
    dtype = _sum_dtype(kernel.dtype)
    x, d_product = tf.cast(x, dtype), tf.cast(d_product, dtype)
    if len(kernel.shape) == 2:
        n, m = kernel.shape
        return tf.matmul(tf.reshape(x, [-1, n]), tf.reshape(d_product, [-1, m]), transpose_a=True)
    return tf.einsum("tbwn,tbwm->bnm", x, d_product)


def _sum_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype of a sum over many steps: float32 in half precision."""
    return tf.float32 if dtype.size < tf.float32.size else dtype


def true_rows(mask):
    """The indices of a mask `[N]` where it is True, in order, int32."""
    return tf.cast(tf.where(mask)[:, 0], tf.int32)


def pullback(function, primals):
    """The outputs of `function`, and a function of their cotangents, to be called once.

    That function returns the product of the cotangents with the Jacobian at `primals`.
    """
    with tf.GradientTape() as tape:
        tape.watch(primals)
        outputs = function(*primals)

    def pull(cotangents):
        return tape.gradient(
            outputs,
            primals,
            output_gradients=cotangents,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )

    return outputs, pull


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    return pullback(function, primals)[1](cotangents)


def custom_vjp(forward, backward, infer=None, tangent=None):
    """A function that returns the outputs of `forward` and has `backward` as its gradient.

    In a graph the function runs `forward` and stores the residuals. In eager mode, which does not
    tell whether a gradient is going to be taken, it runs `infer`, and the gradient runs `forward`.

    Args:
        forward: `forward(*arguments) -> (outputs, residuals)`. Arguments and outputs are tensors,
            or tuples of tensors. An argument may hold None.
        backward: `backward(residuals, cotangents) -> gradients`, with one gradient for each
            argument, of the same structure, and None where there is no gradient.
        infer: `infer(*arguments) -> outputs`, without residuals.
        tangent: not used; see `backend_jax.py`.
    """
    del tangent
    if infer is None:

        def infer(*arguments):
            return forward(*arguments)[0]

    if not uses_custom_gradient():
        return infer

    def function(*arguments):
        leaves = tf.nest.flatten(arguments)
        is_tensor = [x is not None for x in leaves]
        structure = None

        @tf.custom_gradient
        def flat_function(*tensors):
            nonlocal structure
            remaining = iter(tensors)
            packed = [next(remaining) if given else None for given in is_tensor]
            packed = tf.nest.pack_sequence_as(arguments, packed)
            residuals = None
            if tf.executing_eagerly():
                outputs = infer(*packed)
            else:
                outputs, residuals = forward(*packed)
            structure = outputs

            def gradient(*cotangents):
                cotangents = tf.nest.pack_sequence_as(outputs, cotangents)
                saved = forward(*packed)[1] if residuals is None else residuals
                gradients = tf.nest.flatten(tuple(backward(saved, cotangents)))
                return [g for g, given in zip(gradients, is_tensor, strict=True) if given]

            return tf.nest.flatten(outputs), gradient

        # tf.custom_gradient rejects variables, so they are converted to tensors.
        found = flat_function(*(tf.convert_to_tensor(x) for x in leaves if x is not None))
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(found))

    return function


def linear_recurrence_form(x) -> str:
    """The fastest form of a linear recurrence with the inputs `x`, `[T, B, ...]`."""
    return "blocks" if _is_accelerated(x) and not _FORMAT.get() else "sequential"


def steps_of_a_chunk(length: int | None) -> int:
    """How many steps of a linear recurrence one iteration of its loop computes.

    Many, because an iteration takes time of its own, but few enough for the cache. A divisor of the
    length needs no padding.
    """
    sizes = (size for size in range(16, 3, -1) if length is not None and length % size == 0)
    return next(sizes, 8)


def fused_obstacle(kind: str, tensors, variables, required: bool) -> str | None:
    """Why `fused_recurrence` cannot take the place of the loop; see `backend_torch.py`."""
    del variables, required
    if _FORMAT.get() == "litert" and kind == "lstm":
        return fused_litert_tensorflow.obstacle(tensors[0], tensors[1:])
    if _FORMAT.get() == "onnx":
        return fused_onnx_tensorflow.obstacle(tensors[0])
    return "there is no fused kernel on the TensorFlow backend"


def fused_takes_lengths() -> bool:
    """Whether `fused_recurrence` takes the lengths of the sequences."""
    return _FORMAT.get() == "onnx"


def fused_recurrence(
    kind: str, inputs, states, kernel, recurrent_kernel, bias, reduced: bool, lengths=None
):
    """What becomes one operation of an exported model; see `backend_torch.py`.

    Args:
        lengths: `[B]`, int32, or None; for ONNX only.
    """
    weights = (kernel, recurrent_kernel, bias)
    if _FORMAT.get() == "litert":
        return fused_litert_tensorflow.stand_in(inputs, states, *weights)
    if _FORMAT.get() == "onnx":
        return fused_onnx_tensorflow.stand_in(kind, inputs, states, *weights, lengths)
    raise NotImplementedError(fused_obstacle(kind, (inputs, *states), (), reduced))
