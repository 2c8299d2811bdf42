"""Gradients, products and fused operations on the TensorFlow backend; see `layers/backend.py`.

The loop itself is in `scan_tensorflow.py`.
"""

import contextlib
import contextvars
import os

import keras
import tensorflow as tf

from unroll.layers import fused_cudnn_tensorflow, fused_litert_tensorflow, fused_onnx_tensorflow
from unroll.layers.scan_tensorflow import scan, traced_format


def uses_custom_gradient() -> bool:
    """Whether a gradient may be taken: False inside `builtin_ops` and `onnx_ops`."""
    return traced_format() is None


def derives_from_tangent() -> bool:
    """False: `custom_vjp` takes the gradient."""
    return False


def sigmoid_gradient(y, d_y):
    """The gradient of x from that of y = sigmoid(x), in one operation."""
    return tf.raw_ops.SigmoidGrad(y=y, dy=d_y)


def tanh_gradient(y, d_y):
    """The gradient of x from that of y = tanh(x), in one operation."""
    return tf.raw_ops.TanhGrad(y=y, dy=d_y)


def computes_in_loops() -> bool:
    """False: one product of all steps runs on all cores."""
    return False


# The multiply-adds of one step above which two loops are faster than one, measured on two cores.
MIN_WORK_TO_SPLIT = 1_000_000


def split_batch(structure, work: int) -> list:
    """The two halves of a batch, or the whole batch where splitting it gains nothing.

    On a CPU, TensorFlow runs the product of one step, `[B, U]` by `[U, G]`, on one core, and it
    runs independent loops in parallel. The batch is not split on one core, on an accelerator, in
    eager mode, in an exported LiteRT or ONNX model, and where a step has little work.

    Args:
        structure: the tensors of the batch, `[B, ...]` each; None is allowed.
        work: the multiply-adds of one step of one sequence. An unknown batch size counts as 32.
    """
    first = next(x for x in tf.nest.flatten(structure) if x is not None)
    size = first.shape[0]
    never = (
        tf.executing_eagerly() or traced_format() or _parallel_loops() < 2 or _is_accelerated(first)
    )
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


def _parallel_loops() -> int:
    """The number of operations that TensorFlow runs at once on the CPU."""
    allowed = tf.config.threading.get_inter_op_parallelism_threads()
    if hasattr(os, "sched_getaffinity"):
        return allowed or len(os.sched_getaffinity(0))
    return allowed or os.cpu_count() or 1


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


def custom_vjp(forward, backward, infer=None, tangent=None, explicit=False):
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
        explicit: whether `backward` has no `vjp` of the backend in a loop; see `backend_torch.py`.
    """
    del tangent, explicit
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
    return "blocks" if _is_accelerated(x) and not traced_format() else "sequential"


def largest_chunk() -> int:
    """The most steps of a linear recurrence for one iteration of its loop.

    Many, because an iteration takes time of its own, but few enough for the cache.
    """
    return 16


def fused_obstacle(kind: str, tensors, variables, required: bool) -> str | None:
    """Why `fused_recurrence` cannot take the place of the loop; see `backend_torch.py`."""
    del variables
    if traced_format() == "litert":
        if kind != "lstm":
            return "LiteRT has a fused operation for the LSTM only"
        return fused_litert_tensorflow.obstacle(tensors[0], tensors[1:])
    if traced_format() == "onnx":
        return fused_onnx_tensorflow.obstacle(tensors[0])
    return fused_cudnn_tensorflow.obstacle(required)


def fused_supports_jit() -> bool:
    """False: XLA has no operations of cuDNN."""
    return False


def fused_takes_lengths() -> bool:
    """Whether `fused_recurrence` takes the lengths of the sequences."""
    return traced_format() == "onnx"


def fused_recurrence(
    kind: str, inputs, states, kernel, recurrent_kernel, bias, reduced: bool, lengths=None
):
    """cuDNN's operation, or what becomes one of an exported model; see `backend_torch.py`.

    Args:
        lengths: `[B]`, int32, or None; for ONNX only.
    """
    del reduced
    weights = (kernel, recurrent_kernel, bias)
    if traced_format() == "litert":
        return fused_litert_tensorflow.stand_in(inputs, states, *weights)
    if traced_format() == "onnx":
        return fused_onnx_tensorflow.stand_in(kind, inputs, states, *weights, lengths)
    return fused_cudnn_tensorflow.recurrence(kind, inputs, states, *weights)
