"""The checks of every layer. Each takes a case and raises AssertionError."""

import inspect
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from tests.layers import running
from tests.layers.case import Case, Recurrent, T

LONG = 300


def assert_near(found, expected, tolerance: float, what: str = "outputs"):
    assert len(found) == len(expected), f"{what}: {len(found)} instead of {len(expected)}"
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
        message = f"{what}, number {k}"
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=message)


def calls(case: Case) -> tuple[bool, ...]:
    """The values of `masked` to try in `case.arguments`."""
    return (True,) if case.mask is None else (False, True)


def cotangents(outputs) -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    return [rng.normal(size=y.shape) for y in outputs]


def time_axis(output) -> int | None:
    """The time axis of an output, if it has one: no other dimension equals T."""
    return next((k for k in range(1, output.ndim) if output.shape[k] == T), None)


def check_reference_values(case: Case):
    """The outputs equal those of the oracle, with each kind of mask and without one."""
    for masked in calls(case):
        assert_near(case.result(masked).outputs, case.expected(masked), running.EXACT)
    assert_near(case.result(dtype="float32").outputs, case.expected(True, "float32"), 2e-5)


def check_gradients(case: Case):
    """The gradients equal central differences of the oracle.

    Each output and each final state gets a random cotangent.
    """
    for masked in calls(case)[-1:] if case.variant else calls(case):
        loss, arguments, names = loss_of(case, masked, running.PRECISE)
        gradients = case.result(masked).gradients
        trained = len(case.layer().trainable_weights)
        assert len(gradients) == len(arguments) - len(case.layer().weights) + trained
        for k, gradient in enumerate(gradients):
            if gradient is not None:
                assert gradient.shape == arguments[k].shape
                slopes = [slope(loss, arguments, {k: gradient}, seed) for seed in range(3)]
                assert_near(*zip(*slopes, strict=True), running.SLOPE, f"d {names[k]}")


def loss_of(case: Case, masked: bool, dtype: str) -> tuple:
    """The sum of the oracle's outputs times the cotangents, its arguments and their names."""
    layer, (inputs, states, mask) = case.layer(dtype), case.arguments(masked)
    start, factors = states or case.zero_state(), case.cotangents(masked, dtype)
    n = 1 + len(states)

    def loss(given):
        outputs = case.oracle(given[n:], given[0], given[1:n] or start, mask)
        return sum((c * y).sum() for c, y in zip(factors, outputs, strict=True))

    names = ["inputs", *(f"state {k}" for k in range(len(states)))]
    names += [w.path for w in layer.trainable_variables]
    return loss, [inputs, *states, *layer.get_weights()], names


def slope(loss, arguments, gradients: dict, seed: int) -> tuple[float, float]:
    """The slope of `loss` in a random direction, by gradients and by central differences.

    The direction is in the space of the arguments that have a gradient in `gradients`.
    """
    rng, step = np.random.default_rng(seed), 3e-6
    directions = {k: rng.normal(size=g.shape) for k, g in gradients.items()}

    def moved(size):
        return loss(
            [x + size * directions[k] if k in directions else x for k, x in enumerate(arguments)]
        )

    by_gradient = sum((g * directions[k]).sum() for k, g in gradients.items())
    return by_gradient, (moved(step) - moved(-step)) / (2 * step)


def check_initial_weights_differ(case: Case):
    """No two random weights start with the same numbers, scaled or not."""
    starts = [w.ravel() for w in case.untrained().get_weights()]
    random = [x for x in starts if len(np.unique(x)) > 3]  # no zeros, ones, identities
    for one, other in itertools.combinations(random, 2):
        size = min(len(one), len(other))
        correlation = np.corrcoef(one[:size], other[:size])[0, 1]
        assert abs(correlation) < 0.9999, "two weights start with the same numbers"


def check_every_weight_has_a_gradient(case: Case):
    """Each entry of each weight, apart from those that the case lists as idle."""
    layer, states = case.layer(), case.initial_state()
    found = running.evaluate(layer, case.inputs, states, cotangents=case.cotangents(True))
    weights, gradients = layer.trainable_variables, found.gradients[1 + len(states) :]
    assert len(gradients) == len(weights) > 0
    for weight, gradient in zip(weights, gradients, strict=True):
        idle = np.zeros(gradient.shape, "bool")
        if weight.name in case.idle:
            idle[case.idle[weight.name]] = True
        assert not gradient[idle].any(), f"{weight.path}: an idle entry has a gradient"
        assert (gradient[~idle] != 0).all(), f"{weight.path}: an entry without a gradient"


def check_padding_has_no_effect(case: Case):
    layer, states = case.layer(), case.initial_state()
    shape = (len(case.inputs), 3, *case.inputs.shape[2:])
    noise = np.random.default_rng(8).normal(size=shape, scale=100)
    padded = np.concatenate([case.inputs, noise.astype(case.inputs.dtype)], axis=1)
    mask = np.pad(case.mask, ((0, 0), (0, 3)))
    expected = case.result().outputs
    found = running.outputs(layer, padded, states, mask)
    found = [y[tuple(map(slice, x.shape))] for x, y in zip(expected, found, strict=True)]
    assert_near(found, expected, running.EXACT)


def check_masked_steps_have_no_effect(case: Case):
    """Each sequence gives the same outputs with masked steps and with those steps removed."""
    layer, states = case.layer(), case.initial_state()
    batch = case.result().outputs
    for row, keep in enumerate(case.mask):
        if not keep.any():
            if isinstance(case, Recurrent):  # the final states are the initial ones
                assert_near([y[row] for y in batch[1:]], [s[row] for s in states], running.EXACT)
            continue
        one = np.s_[row : row + 1]
        alone = running.outputs(layer, case.inputs[one, keep], [s[one] for s in states])
        for whole, short in zip(batch, alone, strict=True):
            axis, expected = time_axis(whole), whole[row]
            if axis is not None:
                expected = np.compress(keep, expected, axis - 1)
            assert_near([short[0]], [expected], running.EXACT, f"row {row}")


def check_modes_agree(case: Case):
    """Eager, graph and XLA give the same outputs, and the same gradients where they give them."""
    first = case.result(dtype="float32")
    for mode in running.OTHER_MODES:
        other = case.result(dtype="float32", mode=mode)
        assert_near(other.outputs, first.outputs, 1e-5, f"outputs, {mode}")
        if mode in running.GRADIENT_MODES:
            assert len(other.gradients) == len(first.gradients)
        for k, (a, b) in enumerate(zip(other.gradients, first.gradients, strict=False)):
            assert (a is None) == (b is None)
            if a is not None:
                assert_near([a], [b], 1e-4, f"gradient {k}, {mode}")


def lengthened(case: Case) -> Case:
    """The case with long sequences: full, padded on the right, on the left, with gaps."""
    rng = np.random.default_rng(30)
    mask = np.ones((4, LONG), "bool")
    mask[1, -50:] = mask[2, :70] = False
    mask[3] = rng.random(LONG) > 0.3
    inputs = rng.normal(size=(*mask.shape, *case.inputs.shape[2:]))
    long = replace(case, inputs=inputs, mask=mask, oracle=case.long_oracle or case.oracle)
    # The same layer, so that TensorFlow traces it once for all lengths.
    long.shared(("layer", "float32"), lambda: case.layer("float32"))
    return long


def check_long_sequences(case: Case):
    """Outputs and gradients of sequences in the hundreds, in float32 and in bfloat16."""
    # A rounding error can turn a rectified unit on or off.
    assert_precise(lengthened(case), tolerance=0.15 if case.name == "IRNN" else 0.04)


def assert_precise(case: Case, tolerance: float):
    """`tolerance` limits the relative error of each gradient in bfloat16."""
    found = case.result(dtype="float32", mode="graph")
    expected = case.expected(True, "float32")
    assert_near(found.outputs, expected, 1e-4, "float32")
    loss, arguments, _ = loss_of(case, True, "float32")
    by_gradient, by_differences = slope(loss, arguments, dict(enumerate(found.gradients)), seed=0)
    assert_near([by_gradient], [by_differences], 1e-3, "float32, slope")
    half = case.result(dtype="mixed_bfloat16", mode="graph")
    assert_near(half.outputs, expected, 0.06, "bfloat16")
    for k, (a, b) in enumerate(zip(half.gradients, found.gradients, strict=True)):
        error, size = np.linalg.norm(a - b), np.linalg.norm(b)
        assert error <= tolerance * size, f"bfloat16: gradient {k} is off by {error} of {size}"


def constructor_arguments(layer) -> set[str]:
    """The arguments of the constructors of a layer and its cell, without those of Keras."""
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
    """Each argument of the constructor is in the config, and the config gives the same layer."""
    layer = case.make(**case.options)
    untested = constructor_arguments(layer) - set(case.options)
    assert not untested, f"the case has no option for {untested}"
    config = layer.get_config()
    lost = constructor_arguments(layer) - set(config)
    assert not lost, f"the config loses {lost}"
    for name, value in case.options.items():
        if not isinstance(value, (list, keras.layers.Layer)):
            assert config[name] == keras.saving.serialize_keras_object(value), name
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == config


def config_of(layer) -> dict:
    """The config, without the id that a CRF makes up when its loss is read for the first time."""
    return {name: value for name, value in layer.get_config().items() if name != "loss_id"}


def check_saving(case: Case):
    """A model with the layer gives the layer's outputs, also saved and loaded as `.keras`."""
    layer, states = case.layer("float32"), case.initial_state()
    inputs = case.symbolic(case.input_dtype)
    given = [keras.Input((size,)) for size in case.states]
    mask = None if case.mask is None else keras.Input((None,), dtype="bool")
    outputs = running.call(layer, inputs, given, mask)
    model = keras.Model([x for x in (inputs, *given, mask) if x is not None], outputs)
    arrays = running.tensors([x for x in (case.inputs, *states, case.mask) if x is not None])[0]
    before = [running.numpy(y) for y in keras.tree.flatten(model(arrays))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        again = keras.saving.load_model(path)
    assert config_of(again.get_layer(layer.name)) == config_of(layer)
    found = [running.numpy(y) for y in keras.tree.flatten(again(arrays))]
    assert_near(found, before, 1e-6, "reloaded")
    assert_near(found, case.result(dtype="float32").outputs, 1e-6, "layer")


def check_shapes(case: Case):
    """`compute_output_shape`, symbolic (dynamic batch and time) and real shapes agree."""
    layer, real = case.layer("float32"), [y.shape for y in case.result(dtype="float32").outputs]
    given = []
    if case.needs_states:
        given = [keras.Input((size,)) for size in case.states]
    else:
        declared = _flat_shapes(layer.compute_output_shape(case.inputs.shape))
        assert declared == real
    inputs = case.symbolic(case.input_dtype)
    symbolic = [tuple(y.shape) for y in running.call(layer, inputs, given)]
    assert len(symbolic) == len(real)
    for a, b in zip(symbolic, real, strict=True):
        assert a == (None, *(None if n == T else n for n in b[1:]))


def _flat_shapes(shapes) -> list[tuple]:
    if all(n is None or isinstance(n, int) for n in shapes):
        return [tuple(shapes)]
    return [shape for part in shapes for shape in _flat_shapes(part)]


def check_mixed_precision(case: Case):
    expected = case.expected(True, "float32")
    for policy, tolerance in running.POLICIES.items():
        assert {w.dtype for w in case.layer(policy).weights} <= {"float32"}
        found = case.result(dtype=policy)
        assert_near(found.outputs, expected, tolerance, policy)
        for gradient in found.gradients:
            assert gradient is None or np.isfinite(gradient).all()
        if found.gradients:
            assert set(found.dtypes) == {policy.removeprefix("mixed_")}


def check_randomness(case: Case):
    """The layer is random in training, in a new way for each batch, and not at inference."""
    (inputs, states, mask), scale = case.arguments(True), case.scale("float32")
    layer = case.build("float32", scale, **case.random)
    plain = case.build("float32", scale, **dict.fromkeys(case.random, 0.0))
    expected = case.result(dtype="float32").outputs
    found = running.evaluate(plain, inputs, states, mask, training=True).outputs
    assert_near(found, expected, 1e-6, "training with a rate of zero")
    for _ in range(2):
        found = running.evaluate(layer, inputs, states, mask).outputs
        assert_near(found, expected, 1e-6, "inference")
    once, twice = (
        running.evaluate(layer, inputs, states, mask, training=True).outputs[0] for _ in range(2)
    )
    assert (once != expected[0]).any(), "nothing is random in training"
    assert (once != twice).any(), "two batches get the same random numbers"
    assert random_ops(layer, case, training=True), "no random op is found in training"
    assert not random_ops(layer, case, training=False), "a random op at inference"


def random_ops(layer, case: Case, training: bool) -> set[str]:
    """The random operations in the graph of a call."""
    inputs, states, mask = running.tensors(case.inputs, case.initial_state(), case.mask)
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        def run():
            return running.call(layer, inputs, states, mask, training)

        graph = tf.function(run, autograph=False).get_concrete_function().graph.as_graph_def()
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
