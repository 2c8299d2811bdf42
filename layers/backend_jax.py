"""Loops over time and custom gradients on the JAX backend; see `layers/backend.py`."""

import jax
import keras


def uses_custom_gradient() -> bool:
    """True: JAX runs the custom gradient only where a gradient is taken."""
    return True


def derives_from_tangent() -> bool:
    """True: `custom_vjp` takes the tangent, which has derivatives of any order."""
    return True


def split_batch(structure, work: int) -> list:
    """The whole batch as one part: JAX does not run two loops in parallel."""
    del work
    return [structure]


def steps_at_once() -> int | None:
    """None: the inputs of all steps are projected at once."""
    return None


def computes_in_loops() -> bool:
    """Whether a loop projects its inputs, and adds up the gradients of its weights, step by step.

    On a CPU, XLA's product of all steps takes as long as those of single steps, and tensors of all
    steps are slow to allocate and to read.
    """
    return jax.default_backend() == "cpu"


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    del like
    return jax.lax.scan(body, carry, xs, reverse=reverse)


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. JAX differentiates the loop."""
    del variables
    full = tuple(c.astype(jax.numpy.promote_types(c.dtype, "float32")) for c in constants)

    def body(carry, x):
        # Cast in each step, so that the gradients of all steps are added in float32.
        return step(
            carry, x, tuple(f.astype(c.dtype) for f, c in zip(full, constants, strict=True))
        )

    return scan(body, carry, xs, like, False)


def recomputed(function):
    """A function whose gradient computes it again, and stores none of its intermediate results."""
    return jax.checkpoint(function, prevent_cse=False)


def product(x, kernel):
    """`x` times `kernel`; see `backend_tensorflow.py`."""
    return keras.ops.matmul(x, kernel)


def true_rows(mask):
    """All indices of a mask `[N]`: a compiled function knows no number of those that are True."""
    return jax.numpy.arange(mask.shape[0], dtype="int32")


def pullback(function, primals):
    """The outputs of `function`, and a function of their cotangents."""
    return jax.vjp(function, *primals)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    return pullback(function, primals)[1](cotangents)


def custom_vjp(forward, backward, infer=None, tangent=None, explicit=False):
    """A function that returns the outputs of `forward` and has a gradient of its own.

    Args:
        forward, backward, infer, explicit: as on the TensorFlow backend.
        tangent: `tangent(residuals, tangents, jvp) -> tangents of the outputs`, linear in
            `tangents`, which has one tangent for each argument, of the same structure. `jvp` is a
            function to use for Jacobian-vector products. If given, JAX derives the gradient from
            `tangent` instead of from `backward`, and has forward-mode derivatives and derivatives
            of any order.
    """
    del explicit

    def outputs(*arguments):
        return infer(*arguments) if infer else forward(*arguments)[0]

    if tangent is None:
        function = jax.custom_vjp(outputs)
        function.defvjp(forward, backward)
        return function
    function = jax.custom_jvp(outputs)

    @function.defjvp
    def jvp(arguments, tangents):
        found, residuals = forward(*arguments)
        return found, tangent(residuals, tangents, _jvp)

    return function


def _jvp(function, primals, tangents):
    """The product of the Jacobian of `function` with `tangents`.

    The gradient computes the Jacobian again from `primals`, instead of storing it for each step of
    a loop.
    """
    product = jax.checkpoint(lambda *pair: jax.jvp(function, *pair)[1], prevent_cse=False)
    return product(primals, tangents)


def linear_recurrence_form(x) -> str:
    """The fastest form of a linear recurrence."""
    del x
    return "sequential" if jax.default_backend() == "cpu" else "associative"


def largest_chunk() -> int:
    """The most steps of a linear recurrence for one iteration of its loop."""
    return 16


def fused_obstacle(kind: str, tensors, variables, required: bool) -> str | None:
    """Why `fused_recurrence` cannot take the place of the loop, or None if it can.

    JAX has no forward mode, second derivative and `vmap` of this operation, so it runs only if it
    is required.

    Args:
        kind: as in `fused_recurrence`.
        tensors: the sequences and the initial states.
        variables: the weights of the cell.
        required: whether the user asks for the fused kernel.
    """
    del variables
    if not required:
        return "on JAX only use_cudnn=True selects it"
    if kind != "lstm":
        return "JAX has a cuDNN kernel for the LSTM only"
    if jax.default_backend() != "gpu":
        return f"JAX has no cuDNN kernel on the platform {jax.default_backend()!r}"
    if any(x.dtype == "float64" for x in tensors):
        return "JAX has no cuDNN kernel for float64"
    return None


def traced_format() -> str | None:
    """None: a LiteRT or ONNX model is made on the TensorFlow backend."""
    return None


def fused_supports_jit() -> bool:
    """True: `jax.jit` compiles it."""
    return True


def fused_takes_lengths() -> bool:
    """Whether `fused_recurrence` takes the lengths of the sequences."""
    return False


def fused_recurrence(kind: str, inputs, states, kernel, recurrent_kernel, bias, reduced: bool):
    """An LSTM in one operation of cuDNN; see `backend_torch.py` for arguments and results."""
    from jax.experimental import rnn  # TensorFlow's users, and CPUs, do not need it

    del kind
    (features, _), (units, columns) = kernel.shape, recurrent_kernel.shape
    if bias is None:
        bias = jax.numpy.zeros((columns,), kernel.dtype)
    parts = (kernel.T, recurrent_kernel.T, bias, jax.numpy.zeros_like(bias))
    h, c = (s[None] for s in states)
    outputs, h, c = rnn.lstm(
        inputs,
        h,
        c,
        jax.numpy.concatenate([part.ravel() for part in parts]),
        jax.numpy.full((inputs.shape[0],), inputs.shape[1], "int32"),
        features,
        units,
        1,  # num_layers
        0.0,  # dropout
        False,  # bidirectional
        # TF32, which has the precision of float16, or the precision of JAX's matrix products.
        jax.lax.Precision.HIGH if reduced else None,
    )
    return outputs, [h[0], c[0]]
