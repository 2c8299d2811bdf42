"""Loops over time, gradients and fused kernels on the PyTorch backend; see `layers/backend.py`.

PyTorch differentiates a Python loop, so a loop has no gradient of its own here.
"""

import contextlib

import keras
import torch


def uses_custom_gradient() -> bool:
    """False: PyTorch records the operations of a layer while they run."""
    return False


def derives_from_tangent() -> bool:
    """False: PyTorch records the operations, or takes the gradient."""
    return False


def split_batch(structure, work: int) -> list:
    """The whole batch as one part: a Python loop runs one operation at a time."""
    del work
    return [structure]


def steps_at_once() -> int | None:
    """None: the inputs of all steps are projected at once."""
    return None


def computes_in_loops() -> bool:
    """False: one product of all steps takes less time than one in each step."""
    return False


def scan(body, carry, xs, like, reverse):
    """Runs `carry, ys_t = body(carry, xs_t)` over the first axis of `xs` and stacks the `ys_t`."""
    collected = []
    # The gradient of `x[t]` is a tensor of the size of x for each t, that of `unbind` is one.
    steps = [None if x is None else x.unbind() for x in xs]
    times = range(len(xs[0]))
    for t in reversed(times) if reverse else times:
        carry, ys = body(carry, tuple(None if x is None else x[t] for x in steps))
        collected.append(ys)
    if not collected:
        return carry, tuple(y.new_zeros((0, *y.shape)) for y in like)
    if reverse:
        collected.reverse()
    return carry, tuple(torch.stack(ys) for ys in zip(*collected, strict=True))


def differentiable_scan(step, carry, xs, constants, variables, like):
    """As `scan` in `recurrence.py`. PyTorch differentiates the loop."""
    del variables
    full = tuple(c.to(torch.promote_types(c.dtype, torch.float32)) for c in constants)

    def body(carry, x):
        # Cast in each step, so that the gradients of all steps are added in float32.
        return step(carry, x, tuple(f.to(c.dtype) for f, c in zip(full, constants, strict=True)))

    return scan(body, carry, xs, like, False)


def recomputed(function):
    """The function itself: PyTorch stores its intermediate results."""
    return function


def product(x, kernel):
    """`x` times `kernel`; see `backend_tensorflow.py`."""
    if isinstance(kernel, torch.Tensor) and kernel.dtype == x.dtype:
        return torch.matmul(x, kernel)  # in a loop, Keras's conversions take as long again
    return keras.ops.matmul(x, kernel)


def true_rows(mask):
    """The indices of a mask `[N]` where it is True, in order, int32."""
    return torch.nonzero(mask)[:, 0].to(torch.int32)


def pullback(function, primals):
    """The outputs of `function`, and a function of their cotangents."""
    return torch.func.vjp(function, *primals)


def vjp(function, primals, cotangents):
    """The product of `cotangents` with the Jacobian of `function` at `primals`."""
    return pullback(function, primals)[1](cotangents)


def custom_vjp(forward, backward, infer=None, tangent=None, explicit=False):
    """The outputs of `infer`, or of `forward`, which PyTorch differentiates.

    Where `backward` is explicit, it is the first derivative: it has no operations to record, and
    fewer to run. A function that is compiled, exported or transformed by `torch.func` is recorded.
    """
    del tangent
    recorded = infer or (lambda *arguments: forward(*arguments)[0])

    def run(*arguments):
        leaves = _leaves(arguments)
        if not _is_recorded(leaves) or _is_compiled() or _is_transformed(leaves):
            return recorded(*arguments)
        return _with_gradient(forward, backward, recorded, arguments)

    return run if explicit else recorded


def _with_gradient(forward, backward, exact, arguments):
    """The outputs of `forward`, with `backward` as their gradient, and that of `exact` after it."""
    call = _Call(forward, backward, exact, arguments)
    outputs = _CustomGradient.apply(call, *_leaves(arguments))
    return _packed(call.outputs, outputs)


class _Call:
    """The functions of `_with_gradient`, and the structures of what they take and return."""

    def __init__(self, forward, backward, exact, arguments):
        self.forward, self.backward, self.exact = forward, backward, exact
        self.arguments = _structure(arguments)
        self.outputs = self.residuals = None


class _CustomGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call, *leaves):
        outputs, residuals = call.forward(*_packed(call.arguments, leaves))
        call.outputs, call.residuals = _structure(outputs), _structure(residuals)
        ctx.call, ctx.count = call, len(leaves)
        ctx.save_for_backward(*leaves, *_leaves(residuals))
        return tuple(_leaves(outputs))

    @staticmethod
    def backward(ctx, *cotangents):
        call = ctx.call
        leaves, residuals = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        if not torch.is_grad_enabled():
            cotangents = _packed(call.outputs, cotangents)
            return None, *_leaves(call.backward(_packed(call.residuals, residuals), cotangents))
        # This gradient is going to be differentiated. Views, so that none depends on another.
        views = [None if x is None else x.view_as(x) for x in leaves]
        outputs = _leaves(call.exact(*_packed(call.arguments, views)))
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        found = torch.autograd.grad(
            outputs, [views[k] for k in wanted], cotangents, create_graph=True, allow_unused=True
        )
        gradients = dict(zip(wanted, found, strict=True))
        return None, *(gradients.get(k) for k in range(ctx.count))


class _NotTransformable(torch.autograd.Function):
    """A function without `setup_context`: `torch.func` refuses to transform it."""

    @staticmethod
    def forward(ctx):
        return None


def _is_recorded(leaves) -> bool:
    """Whether PyTorch records a gradient of any of the tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in leaves)


def _is_transformed(leaves) -> bool:
    """Whether a transform of `torch.func` runs, or a tensor has a tangent (forward mode)."""
    try:
        _NotTransformable.apply()
    except RuntimeError:
        return True
    unpack = torch.autograd.forward_ad.unpack_dual
    return any(x is not None and unpack(x).tangent is not None for x in leaves)


def _is_compiled() -> bool:
    """Whether the operations are recorded for a compiled or exported model."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def linear_recurrence_form(x) -> str:
    """The fastest form of a linear recurrence: a GPU launches one operation at a time."""
    return "sequential" if x.device.type in ("cpu", "meta") else "blocks"


def largest_chunk() -> None:
    """None: all steps of a linear recurrence are one chunk."""
    return


def fused_obstacle(kind: str, tensors, variables, required: bool) -> str | None:
    """Why `fused_recurrence` cannot take the place of the loop, or None if it can.

    Args:
        kind: as in `fused_recurrence`.
        tensors: the sequences and the initial states.
        variables: the weights of the cell.
        required: whether the user asks for the fused kernel.
    """
    del kind, required
    device = tensors[0].device.type
    if device not in ("cpu", "cuda", "meta"):
        return f"PyTorch has no fused kernel on the device {device!r}"
    if _is_compiled():
        return "the layer is compiled or exported"
    if _is_transformed([*tensors, *(v.value for v in variables)]):
        return "the layer runs in a transform of torch.func or in forward mode"
    return None


def traced_format() -> str | None:
    """None: a LiteRT or ONNX model is made on the TensorFlow backend."""
    return None


def fused_supports_jit() -> bool:
    """False: `torch.compile` has the loop."""
    return False


def fused_takes_lengths() -> bool:
    """Whether `fused_recurrence` takes the lengths of the sequences."""
    return False


def fused_recurrence(kind: str, inputs, states, kernel, recurrent_kernel, bias, reduced: bool):
    """A recurrent layer in one operation: of cuDNN on a GPU, and of oneDNN or ATen on a CPU.

    Args:
        kind: `"lstm"`, `"gru"`, `"rnn_tanh"` or `"rnn_relu"`.
        inputs: `[B, T, D]`.
        states: the initial states, `[B, U]` each.
        kernel, recurrent_kernel, bias: in the layout of Keras; the bias may be None.
        reduced: whether the products on a GPU may use TF32, which has the precision of float16.

    Returns:
        The outputs `[B, T, U]` and the list of final states.
    """
    arguments = (inputs, tuple(states), kernel, recurrent_kernel, bias)

    def run(inputs, states, *weights):
        states = tuple(s[None].contiguous() for s in states)
        outputs, *final = getattr(torch, kind)(
            inputs,
            states if kind == "lstm" else states[0],
            _torch_weights(kind, *weights),
            weights[-1] is not None,  # has_biases
            1,  # num_layers
            0.0,  # dropout
            torch.is_grad_enabled(),  # train: cuDNN has a gradient only there
            False,  # bidirectional
            True,  # batch_first
        )
        return (outputs, *(s[0] for s in final))

    if not _is_on_gpu(inputs):
        outputs, *final = run(*arguments)
        return outputs, final

    def record(*arguments):
        given = _map(
            lambda x: None if x is None else x.detach().requires_grad_(x.requires_grad), arguments
        )
        with torch.enable_grad(), _cudnn_precision(reduced):
            outputs = run(*given)
        return _map(torch.Tensor.detach, outputs), (given, outputs)

    def backward(recorded, cotangents):
        given, outputs = recorded
        leaves = _leaves(given)
        wanted = [k for k, x in enumerate(leaves) if x is not None and x.requires_grad]
        with _cudnn_precision(reduced):
            found = torch.autograd.grad(
                outputs,
                [leaves[k] for k in wanted],
                cotangents,
                retain_graph=True,  # it is freed with the saved tensors
                allow_unused=True,
            )
        gradients = dict(zip(wanted, found, strict=True))
        return _packed(given, [gradients.get(k) for k in range(len(leaves))])

    def exact(*arguments):
        with _changed(torch.backends.cudnn, "enabled", False):  # it has no second derivative
            return run(*arguments)

    if _is_recorded(_leaves(arguments)):
        outputs, *final = _with_gradient(record, backward, exact, arguments)
    else:
        with _cudnn_precision(reduced):
            outputs, *final = run(*arguments)
    return outputs, final


def _is_on_gpu(x) -> bool:
    return x.device.type == "cuda"


def _torch_weights(kind: str, kernel, recurrent_kernel, bias) -> list:
    """The weights in the order and the layout of PyTorch, in one buffer as cuDNN needs them."""
    parts = [kernel.T, recurrent_kernel.T]
    if bias is not None:
        parts += [bias[0], bias[1]] if bias.ndim == 2 else [bias, torch.zeros_like(bias)]
    if kind == "gru":  # Keras has the gates in the order z, r, g, PyTorch r, z, g
        chunks = [part.chunk(3) for part in parts]
        parts = [torch.cat([r, z, g]) for z, r, g in chunks]
    buffer = torch.cat([part.reshape(-1) for part in parts])
    pieces = buffer.split([part.numel() for part in parts])
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def _cudnn_precision(reduced: bool):
    """Lets cuDNN round to TF32 only if `reduced`, or if the user lets matrix products do so.

    By default PyTorch's own recurrent layers always round.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(cudnn, "rnn"):  # before PyTorch 2.9
        allowed = reduced or torch.get_float32_matmul_precision() != "highest"
        return _changed(cudnn, "allow_tf32", allowed)
    allowed = reduced or matmul.fp32_precision == "tf32"
    return _changed(cudnn.rnn, "fp32_precision", "tf32" if allowed else "ieee")


@contextlib.contextmanager
def _changed(settings, name: str, value):
    """Changes a setting, and back."""
    before = getattr(settings, name)
    setattr(settings, name, value)
    try:
        yield
    finally:
        setattr(settings, name, before)


def _leaves(structure) -> list:
    """The tensors of nested tuples, and None where there is none."""
    if isinstance(structure, (tuple, list)):
        return [leaf for part in structure for leaf in _leaves(part)]
    return [structure]


def _map(function, structure):
    """Applies a function to the leaves of nested tuples."""
    if not isinstance(structure, (tuple, list)):
        return function(structure)
    parts = [_map(function, part) for part in structure]
    return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)


def _packed(structure, leaves):
    """Nested tuples of the given structure, with other leaves."""
    remaining = iter(leaves)
    return _map(lambda _: next(remaining), structure)


def _structure(structure):
    """Nested tuples without their tensors, so that nothing keeps these alive."""
    return _map(lambda _: None, structure)
