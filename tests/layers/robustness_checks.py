"""The checks of every layer outside of ordinary sizes, numbers and uses.

Half precision, empty batches and sequences, masks that Keras carries, NaN in masked steps, and
memory. Each check takes a case and raises AssertionError.

On TensorFlow the checks share one graph of each layer and dtype, with dynamic batch and time axes.
"""

import contextlib
import inspect
from dataclasses import replace

import keras
import ml_dtypes
import numpy as np

from tests.layers import decoding_cases, running
from tests.layers.case import B, Case, T
from tests.layers.checks import assert_near
from tests.layers.function_cases import SEARCHES

BACKEND = running.BACKEND
# One graph for all sizes, or the fastest mode of the backend.
SHARED_MODE = {"tensorflow": "graph"}.get(BACKEND, running.QUICK)
# The distance of 1 from the next number.
SPACING = {"mixed_bfloat16": 2.0**-7, "mixed_float16": 2.0**-10}
# An output is off by at most ten roundings, each by half that distance. A gradient is a sum over
# time whose terms cancel in part, so that its relative error is larger. The tolerances are the same
# for each length, because no error adds up over time.
OUTPUT_SPACINGS, GRADIENT_SPACINGS = 5, 8
# Where a gradient jumps, a rounding error moves it: a rectified unit goes on or off, a denominator
# reaches its limit, and another character has the maximum.
JUMPS = {
    "IRNN": 50,
    "NAS": 30,
    "MLSTM": 30,
    "MinGRU": 50,
    "MinLSTM": 50,
    "CharacterEmbedding": np.inf,
}
LENGTHS = (1, 100, 1000)


# Calls


class _Recorder:
    """Takes the place of a layer in `running.CALLS`, and keeps the arguments of the call."""

    def __init__(self, layer):
        self.layer = layer

    def __getattr__(self, name):
        return getattr(self.layer, name)

    def __call__(self, *args, **kwargs):
        self.arguments = inspect.signature(self.layer.call).bind(*args, **kwargs).arguments
        return [None]


def call_arguments(case: Case, layer, inputs, states, mask=None) -> dict:
    """The tensors of a call by the names of the arguments, the first one first."""
    if type(layer) not in running.CALLS:
        first = next(iter(inspect.signature(layer.call).parameters))
        given = {first: inputs, "initial_state": list(states) or None, "mask": mask}
    else:
        recorder = _Recorder(layer)
        running.CALLS[type(layer)](recorder, inputs, states, mask, False)
        given = recorder.arguments
    return {name: x for name, x in given.items() if _is_tensor(x)}


def _is_tensor(x) -> bool:
    return all(hasattr(part, "shape") for part in keras.tree.flatten(x)) and bool(
        keras.tree.flatten(x)
    )


def given_states(case: Case) -> list[np.ndarray]:
    return case.initial_state() if case.needs_states else []


def with_dtype(case: Case, dtype: str, tokens: int | None = None) -> keras.layers.Layer:
    """The layer of a case with a dtype policy of its own, which its inner layers do not name.

    The weights are random numbers that half precision has. There is a layer for each number of
    tokens that a decoder reads, because these are constants of its graph.
    """

    def compute():
        layer = untrained(case, dtype)
        rng = np.random.default_rng(2)
        weights = [rng.normal(size=w.shape, scale=case.scale(dtype)) for w in layer.weights]
        layer.set_weights([rounded(w) for w in weights])
        return layer

    return case.shared(("with dtype", dtype, tokens), compute)


def untrained(case: Case, dtype: str) -> keras.layers.Layer:
    """A new layer with a dtype policy of its own, built."""
    config = case.make(name=f"layer_{dtype}").get_config()
    layer = type(case.make()).from_config({**config, "dtype": dtype})
    inputs, states = case.symbolic(case.input_dtype), symbolic_states(case)
    running.call(layer, inputs, states if case.needs_states else ())
    return layer


def symbolic_states(case: Case) -> list:
    return [keras.Input((size,)) for size in case.states]


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of bfloat16. Float16 has them too if they are not huge or tiny."""
    return x.astype(ml_dtypes.bfloat16).astype("float32") if x.dtype.kind == "f" else x


def evaluate(case: Case, layer, inputs, states=(), mask=None, gradients=True, mode=SHARED_MODE):
    """Outputs and gradients of random cotangents, of which each row depends on nothing else."""
    factors = None
    # PyTorch records no gradient for what has no elements.
    if gradients and has_gradients(case) and not (BACKEND == "torch" and 0 in inputs.shape):
        shapes = output_shapes(case, layer, len(inputs), inputs.shape[1], bool(len(states)))
        rng = np.random.default_rng(6)
        factors = [rng.normal(size=s).astype("float32") for s in shapes]
    states = [s.astype("float32") for s in states]
    return running.evaluate(layer, inputs, states, mask, factors, mode=mode)


def has_gradients(case: Case) -> bool:
    return (case.differentiable or bool(case.idle)) and case.name not in SEARCHES


def output_shapes(case: Case, layer, batch: int, time: int, with_states: bool) -> list[tuple]:
    """The shapes of the outputs, from a symbolic call with dynamic batch and time."""
    states = symbolic_states(case) if with_states else ()
    found = running.call(layer, case.symbolic(case.input_dtype), states)
    return [
        tuple(batch if k == 0 else time if n is None else n for k, n in enumerate(y.shape))
        for y in found
    ]


# Precision and sizes


def of_length(case: Case, length: int) -> Case:
    """Sequences of this length: full, padded on the right and on the left, with gaps."""
    rng = np.random.default_rng(30)
    mask = np.ones((4, length), "bool")
    if length > 1:
        mask[1, -length // 3 :] = mask[2, : length // 3] = False
        mask[3] = rng.random(length) > 0.3
    features = case.inputs.shape[2:]
    inputs = rng.normal(size=(4, length, *features)) if case.differentiable else None
    if case.dynamic == 1:
        inputs, mask = case.inputs[:4], None
    elif inputs is None:
        inputs = rng.choice(case.inputs.ravel(), size=(4, length, *features))
    return replace(case, inputs=rounded(inputs), mask=None if case.mask is None else mask)


def is_decoder(case: Case) -> bool:
    return case.name in {decoder.name for decoder in decoding_cases.CASES}


@contextlib.contextmanager
def tokens_of_length(length: int | None):
    """The number of tokens that decoders read; None leaves them at those of the case."""
    before = decoding_cases.TOKENS
    if length is not None:
        rng = np.random.default_rng(40)
        decoding_cases.TOKENS = rng.integers(decoding_cases.VOCABULARY, size=(2, length))
    try:
        yield
    finally:
        decoding_cases.TOKENS = before


def check_half_precision(case: Case):
    """bfloat16 and float16 equal float32 but for their rounding, at any length."""
    lengths = LENGTHS
    if BACKEND == "jax":  # which compiles a function for each length
        lengths = LENGTHS[1:2]
    elif is_decoder(case):
        lengths = LENGTHS[-1:]
    for length in lengths:
        long = of_length(case, length)
        states = [rounded(s) for s in given_states(long)]
        tokens = length if is_decoder(case) else None
        with tokens_of_length(tokens):
            exact, *half = (
                evaluate(case, with_dtype(case, dtype, tokens), long.inputs, states, long.mask)
                for dtype in ("float32", *running.POLICIES)
            )
        layer = with_dtype(case, "float32", tokens)
        names = ["inputs", *("a state" for _ in states), *(w.path for w in layer.trainable_weights)]
        for policy, found in zip(running.POLICIES, half, strict=True):
            what = f"{policy}, length {length}"
            assert_close(case, found, exact, SPACING[policy], names, what)


def assert_close(case: Case, half, exact, spacing: float, names: list[str], what: str):
    for k, (a, b) in enumerate(zip(half.outputs, exact.outputs, strict=True)):
        a, b = a.astype("float64"), b.astype("float64")
        scale = max(1.0, np.abs(b).max(initial=0.0))
        error = np.abs(a - b).max(initial=0.0)
        limit = OUTPUT_SPACINGS * spacing * scale
        assert error <= limit, f"{what}: output {k} is off by {error:.2g}, limit {limit:.2g}"
    spacings = JUMPS.get(case.name, GRADIENT_SPACINGS)
    for k, (a, b) in enumerate(zip(half.gradients, exact.gradients, strict=True)):
        if b is not None:
            a, b = a.astype("float64"), b.astype("float64")
            error, limit = np.linalg.norm(a - b), spacings * spacing * np.linalg.norm(b)
            assert error <= limit + 1e-6, (
                f"{what}: the gradient of {names[k]} is off by {error:.2g}, limit {limit:.2g}"
            )


def check_empty_batch(case: Case):
    """No examples: no outputs, and gradients of zero for the weights; eager and compiled."""
    layer, nothing = with_dtype(case, "float32"), np.s_[:0]
    states = [s[nothing] for s in given_states(case)]
    mask = None if case.mask is None else case.mask[nothing]
    inputs = case.inputs.astype(case.input_dtype)[nothing]
    shapes = output_shapes(case, layer, 0, T, bool(states))
    found = evaluate(case, layer, inputs, states, mask)
    assert [y.shape for y in found.outputs] == shapes
    for gradient in found.gradients:
        assert gradient is None or not gradient.any()
    if BACKEND != "jax":  # its eager mode compiles each operation
        eager = running.outputs(layer, inputs, states, mask)
        assert [y.shape for y in eager] == shapes


def check_one_example(case: Case):
    """An example gives the same alone as in its batch."""
    layer, states = with_dtype(case, "float32"), given_states(case)
    inputs = case.inputs.astype(case.input_dtype)
    batch = evaluate(case, layer, inputs, states, case.mask, gradients=False).outputs
    row = np.s_[1:2]
    alone = evaluate(
        case,
        layer,
        inputs[row],
        [s[row] for s in states],
        None if case.mask is None else case.mask[row],
        gradients=False,
    ).outputs
    assert_near(alone, [y[row] for y in batch], 1e-6)


def check_empty_sequence(case: Case):
    """No steps: the same as a sequence of masked steps, without their outputs."""
    layer, states = with_dtype(case, "float32"), given_states(case)
    empty = case.inputs.astype(case.input_dtype)
    if case.dynamic > 1:
        empty = empty[:, :0]
    mask = None if case.mask is None else case.mask[:, :0]
    shapes = output_shapes(case, layer, len(empty), 0, bool(states))
    found = evaluate(case, layer, empty, states, mask)
    assert [y.shape for y in found.outputs] == shapes
    for array in [*found.outputs, *found.gradients]:
        assert array is None or np.isfinite(array).all()
    if mask is not None:
        masked = np.zeros((len(empty), T), "bool")
        inputs = case.inputs.astype(case.input_dtype)
        expected = evaluate(case, layer, inputs, states, masked, gradients=False).outputs
        for a, b in zip(found.outputs, expected, strict=True):
            if a.shape == b.shape:
                assert_near([a], [b], 1e-6)
    if is_decoder(case):
        with tokens_of_length(0):
            inputs = case.inputs.astype(case.input_dtype)
            (logits,) = running.outputs(layer, inputs, states, case.mask)
            assert logits.shape == (B, 0, decoding_cases.VOCABULARY)
    if BACKEND != "jax":
        eager = running.outputs(layer, empty, states, mask)
        assert [y.shape for y in eager] == shapes


# Masks


def check_carried_masks(case: Case):
    """A mask that Keras carries on a tensor does what the same mask does as an argument.

    From `Masking` on arrays, and from `Embedding` in a functional model.
    """
    layer, states = with_dtype(case, "float32"), given_states(case)
    if case.differentiable:
        inputs = np.where(case.mask[..., None], case.inputs, 0).astype("float32")
        carried = keras.layers.Masking()(keras.ops.convert_to_tensor(inputs))
        tensors = [keras.ops.convert_to_tensor(s.astype("float32")) for s in states]
        found = [running.numpy(y) for y in running.call(layer, carried, tensors)]
        assert_near(found, running.outputs(layer, inputs, states, case.mask), 1e-6, "Masking")
    models = [embedded(case, layer, explicit) for explicit in (False, True)]
    models[0].set_weights(models[1].get_weights())
    tokens = np.where(case.mask, 1 + np.arange(B * T).reshape(B, T) % 7, 0)
    arrays = running.tensors([tokens, *(s.astype("float32") for s in states)])[0]
    found, expected = (
        [running.numpy(y) for y in keras.tree.flatten(model(arrays))] for model in models
    )
    assert_near(found, expected, 1e-6, "Embedding")
    unmasked = embedded(case, layer, None)
    unmasked.set_weights(models[1].get_weights())
    other = [running.numpy(y) for y in keras.tree.flatten(unmasked(arrays))]
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(found, other, strict=True))


def embedded(case: Case, layer, explicit: bool | None) -> keras.Model:
    """A model of the embeddings of tokens, with the mask as an argument, carried, or without."""
    tokens, states = keras.Input((None,), dtype="int32"), symbolic_states(case)
    states = states if case.needs_states else []
    size = case.inputs.shape[2]
    x = keras.layers.Embedding(8, size, mask_zero=explicit is False, name="embedding")(tokens)
    mask = keras.ops.not_equal(tokens, 0) if explicit else None
    return keras.Model([tokens, *states], running.call(layer, x, states, mask))


def check_nan_in_masked_steps(case: Case):
    """NaN and infinities in masked steps change no output and no gradient."""
    layer, states = with_dtype(case, "float32"), given_states(case)
    inputs = np.where(case.mask[..., None], case.inputs, 0).astype("float32")
    expected = evaluate(case, layer, inputs, states, case.mask)
    for value in (np.nan, np.inf):
        spoiled = np.where(case.mask[..., None], inputs, value).astype("float32")
        found = evaluate(case, layer, spoiled, states, case.mask)
        assert_near(found.outputs, expected.outputs, 1e-6, f"outputs, {value}")
        assert_near(found.gradients, expected.gradients, 1e-6, f"gradients, {value}")


def check_memory(case: Case):
    """No tensor grows with the square of the time, for outputs and gradients.

    The limit is a hundred numbers for each step, which is more than all features of a layer here.
    """
    long = of_length(case, LENGTHS[-1])
    largest = {"tensorflow": _largest_in_graph, "jax": _largest_in_jaxpr}[BACKEND](
        with_dtype(case, "float32"),
        long.inputs,
        given_states(long),
        long.mask,
        has_gradients(case),
    )
    limit = 100 * long.inputs.shape[0] * long.inputs.shape[1]
    assert largest <= limit, f"a tensor has {largest} numbers, the limit is {limit}"


def _largest_in_graph(layer, inputs, states, mask, gradients) -> int:
    import tensorflow as tf

    def run(inputs, states, mask):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = running.call(layer, inputs, states, mask)
            total = sum(tf.reduce_sum(y * y) for y in found) if gradients else None
        return found, tape.gradient(total, inputs) if gradients else None

    specs = [tf.TensorSpec(inputs.shape, inputs.dtype)]
    specs.append([tf.TensorSpec(s.shape, "float32") for s in states])
    specs.append(None if mask is None else tf.TensorSpec(mask.shape, "bool"))
    graph = tf.function(run, autograph=False).get_concrete_function(*specs).graph
    graphs, largest = [graph], 0
    while graphs:
        graph = graphs.pop()
        for operation in graph.get_operations():
            for y in operation.outputs:
                if y.shape.is_fully_defined() and y.dtype != tf.variant:
                    largest = max(largest, y.shape.num_elements())
            for name in ("body", "f", "then_branch", "else_branch"):
                with contextlib.suppress(ValueError, AttributeError):
                    inner = graph._get_function(operation.get_attr(name).name)
                    graphs.append(inner.graph)
    return largest


def _largest_in_jaxpr(layer, inputs, states, mask, gradients) -> int:
    import jax

    def run(inputs, states):
        def total(x):
            return sum((y * y).sum() for y in running.call(layer, x, states, mask))

        if gradients:
            return jax.grad(total)(inputs)
        return running.call(layer, inputs, states, mask)

    states = [s.astype("float32") for s in states]
    return _largest_variable(jax.make_jaxpr(run)(inputs, states).jaxpr)


def _largest_variable(jaxpr) -> int:
    import jax

    largest = 0
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            largest = max(largest, int(np.prod(variable.aval.shape)))
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                largest = max(largest, _largest_variable(inner))
    return largest
