"""The fused kernels of the backends: when they run, and that they equal the loop.

With a GPU, the kernels are those of cuDNN. Without one, PyTorch's are those of its CPU, JAX's is
replaced by the reference that JAX has for it, and TensorFlow's by a reference that is compared with
Keras's use of it.
"""

import collections
from itertools import product

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T, U
from tests.layers.checks import assert_near
from unroll import layers
from unroll.layers import backend
from unroll.layers.recurrent import RECURRENT_LAYERS, fused

BACKEND = running.BACKEND
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
KERNELS = {"LSTM": "lstm", "GRU": "gru", "ElmanRNN": "rnn_tanh", "IRNN": "rnn_relu"}
# Layers with a fused kernel. JAX has one for the LSTM only.
FUSED = [
    ("LSTM", {}),
    ("LSTM", {"use_bias": False}),
    ("GRU", {}),
    ("GRU", {"use_bias": False}),
    ("ElmanRNN", {}),
    ("ElmanRNN", {"use_bias": False, "output_units": 7}),
    ("IRNN", {}),
]
RIGHT = np.arange(T) < np.array([5, 3, 1, 4, 2, 5])[:, None]


# The decision


@pytest.fixture
def any_kernel(monkeypatch):
    """A backend that has all kernels."""
    monkeypatch.setattr(backend, "fused_obstacle", lambda *given: None)


@pytest.mark.parametrize("name", RECURRENT_LAYERS)
def test_layers_with_a_fused_kernel(name):
    assert fused.kernel_name(getattr(layers, name)(U).cell) == KERNELS.get(name)


def test_a_cell_with_another_equation_does_not_inherit_the_kernel():
    class Same(layers.LSTMCell):
        pass

    class OtherProjection(layers.LSTMCell):
        def project(self, inputs):
            return 2 * super().project(inputs)

    class OtherStep(Same):
        def step(self, z, states):
            return super().step(-z, states)

    class Own(OtherStep):
        fused_kernel = "lstm"

    kinds = [fused.kernel_name(cell(U)) for cell in (Same, OtherProjection, OtherStep, Own)]
    assert kinds == ["lstm", None, None, "lstm"]
    assert all(hasattr(layers.LSTMCell, name) for name in fused.REPLACED)


OTHER_EQUATIONS = "no fused kernel with the equations"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (layers.LSTMCell(U), None),
        (layers.LSTMCell(U, use_bias=False, dropout=0.5, recurrent_dropout=0.5), None),
        (layers.LSTMCell(U, activation="relu"), OTHER_EQUATIONS),
        (layers.LSTMCell(U, recurrent_activation="hard_sigmoid"), OTHER_EQUATIONS),
        (layers.GRUCell(U), None),
        (layers.GRUCell(U, reset_after=False), OTHER_EQUATIONS),
        (layers.GRUCell(U, activation=None), OTHER_EQUATIONS),
        (layers.ElmanRNNCell(U, activation="relu", output_units=2), None),
        (layers.ElmanRNNCell(U, activation="sigmoid"), OTHER_EQUATIONS),
        (layers.PeepholeLSTMCell(U), OTHER_EQUATIONS),
    ],
    ids=str,
)
def test_equations_decide(any_kernel, cell, reason):
    found = fused.obstacle(cell, "auto", [np.zeros((B, T, D))])
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("use_cudnn", "shape", "dropout_mask", "reason"),
    [
        ("auto", (B, None, D), None, None),
        (True, (None, T, D), None, None),
        (False, (B, T, D), None, "use_cudnn is False"),
        ("auto", (B, T, D), np.ones((B, U)), "recurrent dropout"),
        ("auto", (0, T, D), None, "at least one sequence and one step"),
        (True, (B, 0, D), None, "at least one sequence and one step"),
    ],
)
def test_options_and_shapes_decide(any_kernel, use_cudnn, shape, dropout_mask, reason):
    sequences = keras.KerasTensor(shape)
    found = fused.obstacle(layers.LSTMCell(U), use_cudnn, [sequences], dropout_mask)
    assert found is None if reason is None else reason in found


def test_the_backend_decides_with_the_wish_of_the_user(monkeypatch):
    calls = []
    monkeypatch.setattr(backend, "fused_obstacle", lambda *given: calls.append(given) or "why")
    tensors = [np.zeros((B, T, D))]
    for use_cudnn in ("auto", True):
        assert fused.obstacle(layers.GRUCell(U), use_cudnn, tensors) == "why"
    assert [(kind, required) for kind, *_, required in calls] == [("gru", False), ("gru", True)]


@pytest.mark.parametrize("use_cudnn", ["yes", None, 2])
def test_a_wrong_value_is_refused(use_cudnn):
    with pytest.raises(ValueError, match=f"LSTM: use_cudnn must be .* got {use_cudnn!r}"):
        layers.LSTM(U, use_cudnn=use_cudnn)


def test_a_required_kernel_that_does_not_exist_is_an_error():
    layer = layers.PeepholeLSTM(U, use_cudnn=True)
    with pytest.raises(ValueError, match="use_cudnn is True, but there is no fused kernel"):
        layer(SEQUENCES.astype("float32"))
    assert layers.PeepholeLSTM(U)(SEQUENCES.astype("float32")).shape == (B, U)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has kernels on each device")
def test_what_the_backend_says_about_kernels(monkeypatch):
    tensors = running.tensors(SEQUENCES.astype("float32"))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        for devices, cuda, required, reason in (
            (["GPU"], True, True, None),
            (["GPU"], True, False, "use_cudnn=True"),
            (["GPU"], False, True, "without CUDA"),
            ([], True, True, "no GPU"),
        ):
            monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind, d=devices: d)
            build = {"is_cuda_build": cuda}
            monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda build=build: build)
            found = backend.fused_obstacle("gru", tensors, [], required)
            assert found is None if reason is None else reason in found
        return
    import jax

    for platform, kind, required, reason in (
        ("gpu", "lstm", True, None),
        ("gpu", "lstm", False, "use_cudnn=True"),
        ("gpu", "gru", True, "LSTM only"),
        ("cpu", "lstm", True, "platform 'cpu'"),
    ):
        monkeypatch.setattr(jax, "default_backend", lambda name=platform: name)
        found = backend.fused_obstacle(kind, tensors, [], required)
        assert found is None if reason is None else reason in found
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "float64" in backend.fused_obstacle("lstm", [np.zeros(3)], [], True)


# The values


@pytest.fixture
def kernels(monkeypatch):
    """Lets JAX and TensorFlow use a reference of their kernels without a GPU."""
    if BACKEND == "tensorflow":
        use_reference_of_cudnn(monkeypatch)
    if BACKEND != "jax":
        return
    import jax
    from jax.experimental import rnn

    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.default_backend() == "gpu":
        return

    def reference(x, h, c, weights, lengths, *sizes_and_options):
        input_size, units, count, dropout, both, precision = sizes_and_options
        assert precision is None or precision == jax.lax.Precision.HIGH
        parts = rnn.unpack_lstm_weights(weights, input_size, units, count, both)
        return rnn.lstm_ref(x, h, c, *parts, lengths, input_size, units, count, dropout, both)

    monkeypatch.setattr(rnn, "lstm", reference)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def use_reference_of_cudnn(monkeypatch):
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    build = {"is_cuda_build": True, "is_rocm_build": False}
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    monkeypatch.setattr(tf.raw_ops, "CudnnRNNV3", reference_of_cudnn)


def reference_of_cudnn(
    *, input_h, input_c, params, sequence_lengths, rnn_mode, is_training, time_major, **given
):
    """The outputs of TensorFlow's operation for full sequences, in other operations."""
    import tensorflow as tf

    assert is_training
    assert not time_major
    inputs = given["input"]
    tf.debugging.assert_equal(sequence_lengths, tf.shape(inputs)[1])
    units, gates = input_h.shape[-1], {"lstm": 4, "gru": 3}.get(rnn_mode, 1)
    sizes = [units * inputs.shape[-1]] * gates + [units * units] * gates + [units] * 2 * gates
    parts = tf.split(params, sizes)
    matrices = [tf.transpose(tf.reshape(p, [units, -1])) for p in parts[: 2 * gates]]
    biases = parts[2 * gates :]
    h, c, outputs = input_h[:, 0], input_c if rnn_mode != "lstm" else input_c[:, 0], []
    for x in tf.unstack(inputs, axis=1):
        given = [x @ w + b for w, b in zip(matrices[:gates], biases[:gates], strict=True)]
        before = [h @ r + b for r, b in zip(matrices[gates:], biases[gates:], strict=True)]
        z = [a + b for a, b in zip(given, before, strict=True)]
        if rnn_mode == "lstm":
            c = tf.sigmoid(z[1]) * c + tf.sigmoid(z[0]) * tf.tanh(z[2])
            h = tf.sigmoid(z[3]) * tf.tanh(c)
        elif rnn_mode == "gru":
            new = tf.tanh(given[2] + tf.sigmoid(z[0]) * before[2])
            update = tf.sigmoid(z[1])
            h = update * h + (1 - update) * new
        else:
            h = tf.tanh(z[0]) if rnn_mode == "rnn_tanh" else tf.nn.relu(z[0])
        outputs.append(h)
    c = c[:, None] if rnn_mode == "lstm" else c
    names = "output output_h output_c reserve_space host_reserved"
    found = (tf.stack(outputs, axis=1), h[:, None], c, None, None)
    return collections.namedtuple("Outputs", names)(*found)


@tensorflow_only
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_the_reference_of_cudnn_is_what_keras_runs(monkeypatch, name):
    """So the weights have the order that Keras gives to the operation."""
    made = getattr(keras.layers, name)(U, return_sequences=True)
    made.build((B, T, D))
    rng = np.random.default_rng(2)
    made.set_weights([rng.normal(size=w.shape, scale=0.6) for w in made.weights])
    inputs = SEQUENCES.astype("float32")
    expected = running.numpy(made(inputs))
    calls, made.use_cudnn = [], True
    use_reference_of_cudnn(monkeypatch)
    import tensorflow as tf

    reference = tf.raw_ops.CudnnRNNV3
    monkeypatch.setattr(
        tf.raw_ops, "CudnnRNNV3", lambda **given: calls.append(given) or reference(**given)
    )
    assert_near([running.numpy(made(inputs))], [expected], 1e-6, name)
    ours = getattr(layers, name)(U, return_sequences=True, use_cudnn=True)
    ours.build((B, T, D))
    ours.set_weights(made.get_weights())
    assert_near([running.numpy(ours(inputs))], [expected], 1e-6, name)
    of_keras, own = calls
    assert of_keras.keys() == own.keys()
    for key, value in own.items():
        if isinstance(value, tf.Tensor):
            assert running.numpy(value).tolist() == running.numpy(of_keras[key]).tolist(), key


@tensorflow_only
@pytest.mark.parametrize("name", KERNELS)
def test_a_graph_has_the_operation_of_cudnn_and_its_gradient(monkeypatch, name):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_cuda_build": True})
    layer = getattr(layers, name)(U, use_cudnn=True, return_state=True)
    layer.build((B, T, D))

    signature = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)]

    @tf.function(input_signature=signature)
    def gradients(x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, mask=mask)
        return tape.gradient(outputs, [x, *layer.trainable_variables])

    found = gradients.get_concrete_function()
    operations = [o.type for o in found.graph.get_operations()]
    assert operations.count("CudnnRNNV3") == operations.count("CudnnRNNBackpropV3") == 1
    shapes = [g.shape.as_list() for g in found.structured_outputs[1:]]
    assert shapes == [list(v.shape) for v in layer.trainable_variables]


@tensorflow_only
def test_a_model_with_a_required_kernel_is_not_compiled_by_xla():
    assert not layers.LSTM(U, use_cudnn=True).supports_jit
    assert layers.LSTM(U).supports_jit


def assert_close(found, expected, what: str, tolerance: float = 5e-5):
    """Equal within the errors of cuDNN's tanh in sums whose terms cancel in part."""
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        error, scale = np.abs(a - b).max(), max(1.0, np.abs(b).max())
        assert error <= tolerance * scale, f"{what}, number {k}: off by {error}, scale {scale}"


def on_both(name: str, inputs, states, mask, **options) -> list[running.Result]:
    """Outputs and gradients of the fused kernel and of the loop, for random cotangents."""
    found = []
    for use_cudnn in (True, False):
        layer = getattr(layers, name)(U, use_cudnn=use_cudnn, **options)
        layer.build(inputs.shape)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
        shapes = keras.tree.flatten(running.call(layer, keras.Input(inputs.shape[1:]), ()))
        rng = np.random.default_rng(6)
        factors = [rng.normal(size=(len(inputs), *y.shape[1:])).astype("float32") for y in shapes]
        found.append(running.evaluate(layer, inputs, states, mask, factors))
    return found


@pytest.mark.parametrize(
    ("name", "options"),
    [x for x in FUSED if BACKEND != "jax" or x[0] == "LSTM"],
    ids=lambda x: x if isinstance(x, str) else ",".join(x) or "default",
)
@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, marks=pytest.mark.exhaustive, id="full"),
        pytest.param(RIGHT, marks=pytest.mark.exhaustive, id="right"),
        pytest.param(MASK, id="any"),
    ],
)
def test_a_fused_kernel_equals_the_loop(kernels, name, options, mask):
    """Values and gradients, of inputs, states and weights, with each flag."""
    inputs = SEQUENCES.astype("float32")
    sizes = getattr(layers, name)(U).state_size
    states = [np.random.default_rng(3).normal(size=(B, n)).astype("float32") for n in sizes]
    for backwards, sequences in product((False, True), repeat=2):
        flags = {"go_backwards": backwards, "return_sequences": sequences, "return_state": True}
        flags["zero_output_for_mask"] = backwards != sequences
        one, other = on_both(name, inputs, states, mask, **flags, **options)
        assert_near(one.outputs, other.outputs, 1e-5, f"outputs, {flags}")
        assert_close(one.gradients, other.gradients, f"gradients, {flags}")


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_states_of_a_fused_kernel_are_float32_in_half_precision(kernels, dtype):
    """With open gates, c grows by one in each step. In bfloat16, 256 + 1 is 256."""
    layer = layers.LSTM(1, return_state=True, dtype=dtype, use_cudnn=True)
    layer.build((2, 400, 1))
    layer.set_weights([np.zeros((1, 4)), np.zeros((1, 4)), np.full(4, 20.0)])
    mask = np.arange(400) < np.array([[400], [300]])
    for given, expected in ((None, [400, 400]), (mask, [400, 300])):
        *_, c = running.outputs(layer, np.zeros((2, 400, 1), "float32"), mask=given)
        assert c.ravel().tolist() == expected


@torch_only
@pytest.mark.parametrize("name", KERNELS)
def test_padding_does_not_overflow(name):
    """A network of rectified units would double its state at each step of the padding."""
    inputs, mask = np.zeros((1, 300, D), "float32"), np.arange(300)[None] < 3
    for use_cudnn in (True, False):
        layer = getattr(layers, name)(U, use_cudnn=use_cudnn, return_state=True)
        layer.build(inputs.shape)
        layer.set_weights([np.full(w.shape, 2.0) for w in layer.weights])
        factors = [np.ones((1, U))] * (1 + len(layer.state_size))
        found = running.evaluate(layer, inputs, mask=mask, cotangents=factors)
        for array in (*found.outputs, *found.gradients):
            assert np.isfinite(array).all()


# The derivatives on PyTorch


@pytest.fixture(params=["as it is", "as with cuDNN"])
def device(request, monkeypatch):
    """On a CPU, also the gradient that cuDNN needs."""
    if BACKEND == "torch" and request.param != "as it is":
        from unroll.layers import backend_torch

        monkeypatch.setattr(backend_torch, "_is_on_gpu", lambda x: True)


def built(name: str, use_cudnn, **options):
    layer = getattr(layers, name)(U, use_cudnn=use_cudnn, **options)
    layer.build((B, T, D))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
    return layer


@torch_only
@pytest.mark.parametrize("name", KERNELS)
def test_first_and_second_derivatives(device, name):
    import torch

    found = []
    for use_cudnn in (True, False):
        layer = built(name, use_cudnn, return_state=True)
        x = running.tensors(SEQUENCES.astype("float32"))[0].requires_grad_()
        wanted = [x, *(w.value for w in layer.trainable_variables)]
        energy = sum((y * y).sum() for y in running.call(layer, x, mask=RIGHT))
        first = torch.autograd.grad(energy, wanted, create_graph=True)
        again = torch.autograd.grad(energy, wanted, retain_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), wanted)
        found.append([running.numpy(y.detach()) for y in (*first, *again, *second)])
    assert_close(*found, "derivatives", 2e-4)


@torch_only
def test_only_wanted_gradients_are_computed(device):
    layer = built("LSTM", True)
    layer.cell.kernel.trainable = False
    x = running.tensors(SEQUENCES.astype("float32"))[0]
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.cell.kernel.value.grad is None
    assert layer.cell.bias.value.grad.shape == (4 * U,)
    layer.trainable = False
    assert not layer(x).requires_grad


# PyTorch itself uses `torch.jit` in forward mode.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@torch_only
@pytest.mark.parametrize("name", KERNELS)
def test_transforms_use_the_loop(name):
    import torch
    from torch.autograd import forward_ad

    fast, loop = built(name, "auto"), built(name, False)
    x = running.tensors(SEQUENCES.astype("float32"))[0]
    direction = torch.ones_like(x)
    transforms = {
        "grad": lambda layer: torch.func.grad(lambda x: layer(x).square().sum())(x),
        "jvp": lambda layer: torch.func.jvp(lambda x: layer(x), (x,), (direction,))[1],
        "vmap": lambda layer: torch.func.vmap(lambda x: layer(x[None])[0])(x),
        "jacobian": lambda layer: torch.func.jacrev(lambda x: layer(x))(x[:2]),
    }
    for transform, apply in transforms.items():
        found, expected = (running.numpy(apply(layer).detach()) for layer in (fast, loop))
        assert_near([found], [expected], 1e-6, transform)
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(layer(forward_ad.make_dual(x, direction))).tangent
            for layer in (fast, loop)
        ]
    assert_near(*[[running.numpy(t.detach())] for t in tangents], 1e-6, "forward mode")


@torch_only
def test_an_export_has_no_fused_kernel():
    import torch

    layer = built("LSTM", "auto")
    x = running.tensors(SEQUENCES.astype("float32"))[0]
    program = torch.export.export(layer, (x,), strict=False)
    operations = {str(x.target) for x in program.graph.nodes if x.op == "call_function"}
    assert any("tanh" in name for name in operations)
    assert not any("lstm" in name or "rnn" in name for name in operations)
    found = program.module()(x)
    assert_near([running.numpy(found.detach())], running.outputs(layer, x), 1e-5)
