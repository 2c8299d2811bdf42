"""What every recurrent layer must pass beside the checks of all layers."""

from functools import partial
from itertools import product

import keras
import numpy as np

from tests import reference
from tests.layers import running
from tests.layers.case import Recurrent, T, U
from tests.layers.checks import assert_near, masks


def check_returned_values(case: Recurrent):
    """`return_sequences`, `return_state` and `zero_output_for_mask`, in both directions."""
    states = case.initial_state()
    weights = case.build().get_weights()
    for backwards, sequences, state, zero in product((False, True), repeat=4):
        layer = case.build(
            go_backwards=backwards,
            return_sequences=sequences,
            return_state=state,
            zero_output_for_mask=zero,
        )
        for mask in masks(case):
            outputs, *final = case.oracle(weights, case.inputs, states, mask, reverse=backwards)
            last = outputs[:, 0 if backwards else -1]
            if zero and mask is not None:
                outputs = outputs * mask[..., None]
            if backwards:
                outputs = outputs[:, ::-1]
            expected = [outputs if sequences else last, *(final if state else ())]
            found = running.outputs(layer, case.inputs, states, mask)
            assert_near(
                found, expected, running.EXACT, f"{backwards=} {sequences=} {state=} {zero=}"
            )


def check_bidirectional(case: Recurrent):
    layer = keras.layers.Bidirectional(case.make(dtype=running.PRECISE), dtype=running.PRECISE)
    layer.build(case.inputs.shape)
    rng = np.random.default_rng(9)
    layer.set_weights([rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
    states = case.initial_state() + [s[::-1] for s in case.initial_state()]
    for mask in masks(case):
        expected = reference.bidirectional(
            case.oracle, layer.get_weights(), case.inputs, states, mask
        )
        assert_near(running.outputs(layer, case.inputs, states, mask), expected, running.EXACT)


def check_chunks(case: Recurrent):
    """A sequence in pieces gives what it gives as a whole, by hand and with `stateful`."""
    layer = case.build()
    whole = running.outputs(layer, case.inputs, mask=case.mask)
    stateful = case.build(stateful=True)
    pieces = [np.s_[:, a:b] for a, b in ((0, 2), (2, 3), (3, T))]
    states, collected, streamed = case.zero_state(), [], []
    for piece in pieces:
        outputs, *states = running.outputs(layer, case.inputs[piece], states, case.mask[piece])
        collected.append(outputs)
        streamed.append(running.outputs(stateful, case.inputs[piece], mask=case.mask[piece]))
    assert_near([np.concatenate(collected, axis=1), *states], whole, running.EXACT, "by hand")
    outputs = np.concatenate([found[0] for found in streamed], axis=1)
    assert_near([outputs, *streamed[-1][1:]], whole, running.EXACT, "stateful")
    stateful.reset_state()
    assert_near(
        running.outputs(stateful, case.inputs, mask=case.mask),
        whole,
        running.EXACT,
        "after a reset",
    )


def check_cell_in_keras_rnn(case: Recurrent):
    layer, states = case.build(), case.initial_state()
    rnn = keras.layers.RNN(
        layer.cell, return_sequences=True, return_state=True, dtype=layer.dtype_policy
    )
    full = np.ones_like(case.mask)
    # On JAX, Keras puts out the first state in place of a masked output, whatever its size.
    one_size = layer.cell.output_size == layer.cell.state_size[0]
    for mask in (None, full, case.mask) if one_size or running.BACKEND != "jax" else (None,):
        expected = running.outputs(layer, case.inputs, states, mask)
        found = running.outputs(rnn, case.inputs, states, mask)
        # Where no step has been read yet Keras puts out zeros, and not the initial state.
        if mask is not None:
            expected[0], found[0] = expected[0] * mask[..., None], found[0] * mask[..., None]
        assert_near(found, expected, running.EXACT)


def check_one_dropout_mask_for_all_steps(case: Recurrent):
    """Each sequence must come out as with some features at zero and the others doubled.

    For one of all the ways to choose them. To drop units of h is to drop rows of R.
    """
    plain = case.build()
    weights, start = plain.get_weights(), case.zero_state()
    k = [w.name for w in plain.weights].index("recurrent_kernel")

    def without_inputs(choice):
        return case.oracle(weights, case.inputs * choice, start)[0]

    def without_units(choice):
        thinned = [*weights[:k], weights[k] * choice[:, None], *weights[k + 1 :]]
        return case.oracle(thinned, case.inputs, start)[0]

    sizes = {"dropout": case.inputs.shape[-1], "recurrent_dropout": len(weights[k])}
    for option, without in (("dropout", without_inputs), ("recurrent_dropout", without_units)):
        choices = product((0.0, 2.0), repeat=sizes[option])
        candidates = np.stack([without(np.array(choice)) for choice in choices])  # [.., B, T, U]
        layer = case.build(seed=3, **{option: 0.5})
        for mode in (running.MODES[0], running.MODES[-1]):
            found = running.evaluate(layer, case.inputs, training=True, mode=mode).outputs[0]
            far = np.abs(candidates - found).max(axis=(2, 3))  # [choices, B]
            assert (far.min(axis=0) < running.EXACT).all(), f"{option}: not one mask for all steps"
            assert len(set(far.argmin(axis=0))) > 1, f"{option}: one mask for all sequences"


def check_weight_options(case: Recurrent):
    """Initializers, regularizers, constraints, `trainable` and a regularizer of the outputs."""
    options = {}
    for part in ("kernel", "recurrent", "bias"):
        options |= {
            f"{part}_initializer": keras.initializers.Constant(0.25),
            f"{part}_constraint": keras.constraints.MaxNorm(1.5),
        }
    layer = case.make(**options)
    layer.build(case.inputs.shape)
    plain = case.make()
    plain.build(case.inputs.shape)
    shared = [w for w in layer.weights if w.name in ("kernel", "recurrent_kernel", "bias")]
    assert len(shared) >= 2
    for weight in shared:
        part = weight.name.removesuffix("_kernel")
        value = running.numpy(weight.value)
        assert (value == 0.25).sum() > value.size / 2, weight.path  # a gate may start open
        assert isinstance(weight.constraint, keras.constraints.MaxNorm), weight.path
        regularized = case.make(**{f"{part}_regularizer": keras.regularizers.L1(0.5)})
        regularized.build(case.inputs.shape)
        size = next(
            np.abs(running.numpy(w.value)).sum()
            for w in regularized.weights
            if w.name == weight.name
        )
        losses = [running.numpy(loss) for loss in regularized.losses]
        assert_near(losses, [0.5 * size], 1e-5, f"regularizer of {weight.path}")
    assert not plain.losses
    active = case.build(activity_regularizer=keras.regularizers.L1(0.5))
    outputs = running.outputs(active, case.inputs)[0]
    total = sum(running.numpy(loss) for loss in active.losses)
    assert total >= 0.5 * np.abs(outputs).sum() / len(outputs) - 1e-9
    fixed = case.make(trainable=False)
    fixed.build(case.inputs.shape)
    assert not fixed.trainable_weights
    assert fixed.units == fixed.cell.units == U


def check_bad_arguments(case: Recurrent):
    bad = [("units", value) for value in (0, -1, 2.5, "4", None)]
    bad += [(name, v) for name in ("dropout", "recurrent_dropout") for v in (-0.1, 1.1)]
    for name, value in bad:
        for make in (case.make, partial(case.layer_class.cell_class, **{"units": U})):
            assert_refused(partial(make, **{name: value}), f"{name} ", repr(value))
    for shape in ((6, 5), (6, 5, 3, 2)):
        inputs = np.zeros(shape, "float32")
        assert_refused(partial(case.make(), inputs), "ndim=3", f"ndim={len(shape)}")
    layer, states = case.build("float32"), case.initial_state()
    wrong = [
        states[:-1],
        [*states, states[0]],
        [s[:, :-1] for s in states],
        [s[:-1] for s in states],
    ]
    for given in wrong:
        if given:
            assert_refused(partial(running.outputs, layer, case.inputs, given), "initial states")


def assert_refused(action, *words: str):
    """The action must raise a ValueError that holds the words."""
    try:
        action()
    except ValueError as caught:
        error = str(caught)
    else:
        raise AssertionError(f"nothing is refused; expected {words}")
    for word in words:
        assert word in error, f"{word!r} is not in: {error}"
