"""What every layer must pass. Each check takes a case and raises AssertionError."""

import inspect
import itertools
import tempfile
from pathlib import Path

import keras
import numpy as np

from tests.layers import running
from tests.layers.case import Case, Recurrent, T


def assert_near(found, expected, tolerance: float, what: str = "outputs"):
    assert len(found) == len(expected), f"{what}: {len(found)} instead of {len(expected)}"
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
        message = f"{what}, number {k}"
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=message)


def masks(case: Case) -> list:
    return [None] if case.mask is None else [None, case.mask]


def cotangents(outputs) -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    return [rng.normal(size=y.shape) for y in outputs]


def is_sequence(output) -> bool:
    """Whether an output has a time axis: no other dimension is equal to T."""
    return output.ndim > 1 and output.shape[1] == T


def check_reference_values(case: Case):
    weights = case.build().get_weights()
    for mask in masks(case):
        given = case.initial_state() if mask is not None or case.needs_states else []
        start = given or case.zero_state()
        expected = case.oracle(weights, case.inputs, start, mask)
        for dtype, tolerance in {running.PRECISE: running.EXACT, "float32": 2e-5}.items():
            found = running.outputs(case.build(dtype), case.inputs, given, mask)
            assert_near(found, expected, tolerance)


def check_gradients(case: Case):
    """Of inputs, states and weights, against central differences of the oracle, in training too."""
    layer, n = case.build(), 1 + len(case.states)
    arguments = [case.inputs, *case.initial_state(), *layer.get_weights()]
    names = ["inputs", *(f"state {k}" for k in range(len(case.states)))]
    names += [w.path for w in layer.trainable_variables]
    for mask in masks(case)[-1:] if case.variant else masks(case):
        factors = cotangents(case.oracle(arguments[n:], case.inputs, arguments[1:n], mask))

        def loss(given, mask=mask, factors=factors):
            outputs = case.oracle(given[n:], given[0], given[1:n], mask)
            return sum((c * y).sum() for c, y in zip(factors, outputs, strict=True))

        training = mask is not None  # which changes nothing where nothing is dropped
        found = running.evaluate(layer, case.inputs, arguments[1:n], mask, factors, training)
        assert len(found.gradients) == len(names)
        for k, gradient in enumerate(found.gradients):
            if gradient is not None:
                assert gradient.shape == arguments[k].shape
                assert_near(*slopes(loss, arguments, k, gradient), running.SLOPE, f"d {names[k]}")


def slopes(loss, arguments, k: int, gradient) -> tuple[list, list]:
    """How `loss` changes with argument `k` along random directions: by gradient, by differences."""
    rng, step = np.random.default_rng(7), 1e-5
    by_gradient, by_differences = [], []
    for _ in range(3):
        direction = rng.normal(size=gradient.shape)
        ends = [
            loss([*arguments[:k], arguments[k] + sign * step * direction, *arguments[k + 1 :]])
            for sign in (1, -1)
        ]
        by_gradient.append((gradient * direction).sum())
        by_differences.append((ends[0] - ends[1]) / (2 * step))
    return by_gradient, by_differences


def check_weights_start_apart(case: Case):
    """No two weights are drawn alike, be one larger or differently scaled."""
    starts = [w.ravel() for w in case.untrained().get_weights()]
    drawn = [x for x in starts if len(np.unique(x)) > 3]  # no zeros, ones, identities
    for one, other in itertools.combinations(drawn, 2):
        size = min(len(one), len(other))
        alike = np.corrcoef(one[:size], other[:size])[0, 1]
        assert abs(alike) < 0.9999, "two weights start alike"


def check_every_weight_has_a_gradient(case: Case):
    layer = case.build()
    states = case.initial_state()
    shapes = running.outputs(layer, case.inputs, states)
    gradients = running.evaluate(layer, case.inputs, states, None, cotangents(shapes)).gradients
    of_weights = gradients[1 + len(states) :]
    assert len(of_weights) == len(layer.trainable_variables) > 0
    for weight, gradient in zip(layer.trainable_variables, of_weights, strict=True):
        idle = np.zeros(gradient.shape, "bool")
        if weight.name in case.idle:
            idle[case.idle[weight.name]] = True
        assert not gradient[idle].any(), f"{weight.path}: a gradient where there should be none"
        assert (gradient[~idle] != 0).all(), f"{weight.path}: an entry without a gradient"


def check_padding_changes_nothing(case: Case):
    layer, states = case.build(), case.initial_state()
    shape = (len(case.inputs), 3, *case.inputs.shape[2:])
    noise = np.random.default_rng(8).normal(size=shape, scale=100)
    padded = np.concatenate([case.inputs, noise.astype(case.inputs.dtype)], axis=1)
    nothing = np.zeros(shape[:2], "bool")
    expected = running.outputs(layer, case.inputs, states, case.mask)
    found = running.outputs(layer, padded, states, np.concatenate([case.mask, nothing], axis=1))
    found = [y[:, :T] if is_sequence(x) else y for x, y in zip(expected, found, strict=True)]
    assert_near(found, expected, running.EXACT)


def check_masked_steps_are_as_good_as_removed(case: Case):
    layer, states = case.build(), case.initial_state()
    together = running.outputs(layer, case.inputs, states, case.mask)
    for row, keep in enumerate(case.mask):
        if not keep.any():
            if isinstance(case, Recurrent):  # nothing read, nothing changed
                assert_near([y[row] for y in together[1:]], [s[row] for s in states], running.EXACT)
            continue
        one = np.s_[row : row + 1]
        start = [s[one] for s in states]
        alone = running.evaluate(layer, case.inputs[one, keep], start).outputs
        for whole, short in zip(together, alone, strict=True):
            wanted = whole[row][keep] if is_sequence(whole) else whole[row]
            assert_near([short[0]], [wanted], running.EXACT, f"row {row}")


def check_eager_is_compiled(case: Case):
    layer, states = case.build("float32"), [s.astype("float32") for s in case.initial_state()]
    inputs = case.inputs.astype("float32") if case.differentiable else case.inputs
    shapes = running.outputs(layer, inputs, states, case.mask)
    wanted = cotangents(shapes) if case.differentiable or layer.weights else None
    first, *others = (
        running.evaluate(layer, inputs, states, case.mask, wanted, mode=mode)
        for mode in running.MODES
    )
    for mode, other in zip(running.MODES[1:], others, strict=True):
        assert_near(other.outputs, first.outputs, 1e-5, f"outputs, {mode}")
        for k, (a, b) in enumerate(zip(other.gradients, first.gradients, strict=True)):
            assert (a is None) == (b is None)
            if a is not None:
                assert_near([a], [b], 1e-4, f"gradient {k}, {mode}")


def constructor_arguments(layer) -> set[str]:
    """What a layer of this package can be given, its cell's arguments included."""
    names = set()
    for thing in (layer, getattr(layer, "cell", layer)):
        for base in type(thing).__mro__:
            if base.__module__.startswith("keras") or base is object:
                break
            if "__init__" in vars(base):
                parameters = inspect.signature(base.__init__).parameters.values()
                names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
    return names


def check_config(case: Case):
    layer = case.make(**case.options)
    untried = constructor_arguments(layer) - set(case.options)
    assert not untried, f"the case gives no value to {untried}"
    config = layer.get_config()
    lost = constructor_arguments(layer) - set(config)
    assert not lost, f"the config loses {lost}"
    for name, value in case.options.items():
        if not isinstance(value, (list, keras.layers.Layer)):
            assert config[name] == keras.saving.serialize_keras_object(value), name
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == config


def check_saving(case: Case):
    """A model with the layer comes back from a `.keras` file with the same answers."""
    layer, states = case.build("float32"), case.initial_state()
    inputs = case.symbolic(_input_type(case))
    given = [keras.Input((size,)) for size in case.states]
    mask = None if case.mask is None else keras.Input((None,), dtype="bool")
    outputs = running.call(layer, inputs, given, mask)
    model = keras.Model([x for x in (inputs, *given, mask) if x is not None], outputs)
    arrays = running.tensors([x for x in (case.inputs, *states, case.mask) if x is not None])[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        again = keras.saving.load_model(path)
    assert again.get_layer(layer.name).get_config() == layer.get_config()
    expected = [running.numpy(y) for y in keras.tree.flatten(model(arrays))]
    assert_near([running.numpy(y) for y in keras.tree.flatten(again(arrays))], expected, 1e-6)
    assert_near(expected, running.outputs(layer, case.inputs, states, case.mask), 1e-6)


def _input_type(case: Case) -> str:
    return "float32" if case.differentiable else case.inputs.dtype.name


def check_shapes(case: Case):
    """Declared, symbolic (any batch and length) and real shapes agree."""
    layer = case.build("float32")
    real = [y.shape for y in running.outputs(layer, case.inputs, case.initial_state())]
    given = []
    if case.needs_states:
        given = [keras.Input((size,)) for size in case.states]
    else:
        declared = _flat_shapes(layer.compute_output_shape(case.inputs.shape))
        assert declared == real
    inputs = case.symbolic(_input_type(case))
    symbolic = [tuple(y.shape) for y in running.call(layer, inputs, given)]
    assert len(symbolic) == len(real)
    for a, b in zip(symbolic, real, strict=True):
        assert a == (None, *(None if n == T else n for n in b[1:]))


def _flat_shapes(shapes) -> list[tuple]:
    if all(n is None or isinstance(n, int) for n in shapes):
        return [tuple(shapes)]
    return [shape for part in shapes for shape in _flat_shapes(part)]


def check_mixed_precision(case: Case):
    states, inputs = case.initial_state(), case.inputs
    expected = running.outputs(case.build("float32"), inputs, states, case.mask)
    for policy, tolerance in (("mixed_bfloat16", 0.06), ("mixed_float16", 0.01)):
        layer = case.build(policy)
        assert {w.dtype for w in layer.weights} <= {"float32"}
        gradable = case.differentiable or layer.weights
        found = running.evaluate(
            layer, inputs, states, case.mask, cotangents(expected) if gradable else None
        )
        assert_near(found.outputs, expected, tolerance, policy)
        for gradient in found.gradients:
            assert gradient is None or np.isfinite(gradient).all()
        if gradable:
            assert set(found.dtypes) == {policy.removeprefix("mixed_")}


def check_random_in_training_alone(case: Case):
    layer, states = case.build("float32", **case.random), case.initial_state()
    plain = case.build("float32", **dict.fromkeys(case.random, 0.0))
    expected = running.outputs(plain, case.inputs, states, case.mask)
    for _ in range(2):
        assert_near(running.outputs(layer, case.inputs, states, case.mask), expected, 1e-6)
    once, twice = (
        running.outputs(layer, case.inputs, states, case.mask, training=True)[0] for _ in range(2)
    )
    assert (once != expected[0]).any(), "nothing is random in training"
    assert (once != twice).any(), "two batches are treated alike"
    assert random_ops(layer, case, training=True), "no random op is found in training"
    assert not random_ops(layer, case, training=False), "a random op at inference"


def random_ops(layer, case: Case, training: bool) -> set[str]:
    """The random operations in the graph of a call."""
    inputs, states, mask = running.tensors(case.inputs, case.initial_state(), case.mask)
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        traced = tf.function(lambda: running.call(layer, inputs, states, mask, training))
        graph = traced.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return {node.op for node in nodes if "Random" in node.op or "Multinomial" in node.op}
    if running.BACKEND == "torch":
        import torch

        class Recorder(torch.overrides.TorchFunctionMode):
            names = set()

            def __torch_function__(self, function, types, args=(), kwargs=None):
                self.names.add(function.__name__)
                return function(*args, **(kwargs or {}))

        with Recorder() as recorder:
            running.call(layer, inputs, states, mask, training)
        return recorder.names & {"rand", "randn", "normal", "bernoulli", "dropout"}
    import jax

    def run(seeds):
        mapping = zip(layer.non_trainable_variables, seeds, strict=True)
        with keras.StatelessScope(state_mapping=mapping):
            return running.call(layer, inputs, states, mask, training)

    jaxpr = str(jax.make_jaxpr(run)([v.value for v in layer.non_trainable_variables]))
    return {word for word in ("threefry", "random_bits", "random_wrap") if word in jaxpr}
