"""The checks of recurrent layers, in addition to those of all layers."""

from functools import partial
from itertools import product

import keras
import numpy as np

from tests import reference
from tests.layers import running
from tests.layers.case import Recurrent, T, U
from tests.layers.checks import assert_near

RATES = ("dropout", "recurrent_dropout", "recurrent_weight_dropout")


def check_returned_values(case: Recurrent):
    """`go_backwards`, `return_sequences`, `return_state` and `zero_output_for_mask`.

    Eight of the sixteen combinations, with each combination of any three of the arguments.
    """
    states, weights = case.initial_state(), case.layer().get_weights()
    for backwards, sequences, state in product((False, True), repeat=3):
        zero = backwards ^ sequences ^ state
        layer = case.build(
            go_backwards=backwards,
            return_sequences=sequences,
            return_state=state,
            zero_output_for_mask=zero,
        )
        for mask in (None, case.mask):
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
    for mask in (None, case.mask):
        expected = reference.bidirectional(
            case.oracle, layer.get_weights(), case.inputs, states, mask
        )
        assert_near(running.outputs(layer, case.inputs, states, mask), expected, running.EXACT)


def check_chunks(case: Recurrent):
    """A sequence in pieces gives the same outputs, with passed states and with `stateful`."""
    layer = case.layer()
    whole = running.outputs(layer, case.inputs, mask=case.mask)
    stateful = case.build(stateful=True)
    pieces = [np.s_[:, a:b] for a, b in ((0, 2), (2, 3), (3, T))]
    states, collected, streamed = case.zero_state(), [], []
    for piece in pieces:
        outputs, *states = running.outputs(layer, case.inputs[piece], states, case.mask[piece])
        collected.append(outputs)
        streamed.append(running.outputs(stateful, case.inputs[piece], mask=case.mask[piece]))
    found = [np.concatenate(collected, axis=1), *states]
    assert_near(found, whole, running.EXACT, "passed states")
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
    """The cell gives the same outputs in `keras.layers.RNN` as in its own layer."""
    layer, states = case.build(), case.initial_state()
    rnn = keras.layers.RNN(
        layer.cell, return_sequences=True, return_state=True, dtype=layer.dtype_policy
    )
    full = np.ones_like(case.mask)
    # For a masked step, Keras on JAX returns the first state, even if its size is not that of the
    # output.
    one_size = layer.cell.output_size == layer.cell.state_size[0]
    for mask in (None, full, case.mask) if one_size or running.BACKEND != "jax" else (None,):
        expected = running.outputs(layer, case.inputs, states, mask)
        found = running.outputs(rnn, case.inputs, states, mask)
        # Before the first step that is not masked, Keras returns zeros, not the initial state.
        if mask is not None:
            expected[0], found[0] = expected[0] * mask[..., None], found[0] * mask[..., None]
        assert_near(found, expected, running.EXACT)


def check_one_dropout_mask_for_all_steps(case: Recurrent):
    """The outputs of each sequence equal those of one dropout mask, the same at each step."""
    sizes, masks, candidates = outputs_of_all_masks(case)
    layer = case.build(seed=3, **dict.fromkeys(sizes, 0.5))
    for mode in (running.QUICK, *running.OTHER_MODES[-1:]):
        found = running.evaluate(layer, case.inputs, training=True, mode=mode).outputs[0]
        difference = np.abs(candidates - found).max(axis=(2, 3))  # [candidates, B]
        assert (difference.min(axis=0) < running.EXACT).all(), "not one mask for all steps"
        chosen = np.unravel_index(difference.argmin(axis=0), [len(m) for m in masks])
        for option, rows in zip(sizes, chosen, strict=True):
            assert len(set(rows)) > 1, f"{option}: one mask for all sequences"


def outputs_of_all_masks(case: Recurrent) -> tuple[dict, list, np.ndarray]:
    """The outputs `[masks of inputs * masks of h, B, T, U]` for all masks of each kind of dropout.

    A dropped unit of h is a dropped row of R, or of a block of R. A single row is the diagonal of
    R. Before them, the number of units by option, and their masks.
    """
    plain = case.layer()
    weights, start = plain.get_weights(), case.zero_state()
    sizes = {"dropout": case.inputs.shape[-1]}
    k, diagonal = 0, False
    if case.has_recurrent_kernel:
        k = [w.name for w in plain.weights].index("recurrent_kernel")
        *rows, columns = weights[k].shape
        diagonal = rows == [1]
        sizes["recurrent_dropout"] = columns if diagonal else np.prod(rows)
    masks = [list(product((0.0, 2.0), repeat=size)) for size in sizes.values()]

    def dropped(kernel, mask):
        mask = np.array(mask)
        if diagonal:
            return kernel * mask
        return (kernel.reshape(len(mask), -1) * mask[:, None]).reshape(kernel.shape)

    candidates = [
        case.oracle(
            [*weights[:k], *(dropped(weights[k], m) for m in of_h), *weights[k + len(of_h) :]],
            case.inputs * of_inputs,
            start,
        )[0]
        for of_inputs, *of_h in product(*masks)
    ]
    return sizes, masks, np.stack(candidates)


def check_recurrent_weight_dropout(case: Recurrent):
    """A batch has one mask of R: the outputs are those of the masked R, scaled to the same mean.

    In a training step, the entries of R without a gradient are those that are dropped. The other
    gradients are those of the layer with the masked R. The same holds in `keras.layers.RNN`.
    """
    plain, options = case.build(), {"recurrent_weight_dropout": 0.5, "seed": 3}
    weights, factors = plain.get_weights(), case.cotangents(True)
    k = [w.name for w in plain.weights].index("recurrent_kernel")
    if case.name == "IRNN":  # a rectified unit that is off has no gradient
        weights = [w + 9 * (w.ndim == 1) for w in weights]
    used = np.ones_like(weights[k], "bool")
    if "recurrent_kernel" in case.idle:
        used[case.idle["recurrent_kernel"]] = False
    arguments = case.arguments(True)
    states, mask = arguments[1:]
    layer, other = case.build(**options), case.build(**options)
    keras_rnn = keras.layers.RNN(
        other.cell, return_sequences=True, return_state=True, dtype=running.PRECISE
    )
    layer.set_weights(weights)
    other.set_weights(weights)
    kept = []
    # The equations do not depend on how they are compiled: one layer is enough.
    last = running.GRADIENT_MODES[-1] if case.name == "LSTM" else running.QUICK
    for each, mode in ((layer, running.QUICK), (layer, last), (keras_rnn, running.QUICK)):
        given = arguments if each is layer else (case.inputs, states, None)
        found = running.evaluate(each, *given, factors, training=True, mode=mode)
        gradient = found.gradients[1 + len(states) + k]
        kept.append(gradient != 0)
        assert 0 < kept[-1][used].mean() < 1, "no entry of R is dropped, or all are"
        own = [*weights[:k], weights[k] * 2 * kept[-1], *weights[k + 1 :]]
        expected = case.oracle(own, case.inputs, states, given[2])
        assert_near(found.outputs, expected, running.EXACT, "not one mask for all steps")
        plain.set_weights(own)
        expected = running.evaluate(plain, *given, factors).gradients
        expected[1 + len(states) + k] = expected[1 + len(states) + k] * 2 * kept[-1]
        assert_near(found.gradients, expected, 100 * running.EXACT, "gradients")
    assert (kept[0] != kept[1])[used].any(), "two batches have the same mask"
    found = running.evaluate(layer, *arguments).outputs
    assert_near(found, case.oracle(weights, case.inputs, states, mask), running.EXACT, "inference")


def check_weight_options(case: Recurrent):
    """Initializers, regularizers and constraints of weights, `trainable`, activity regularizers."""
    options = {}
    for part in (
        ("kernel", "recurrent", "bias") if case.has_recurrent_kernel else ("kernel", "bias")
    ):
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
        # A cell may set a part of a bias: that of its forget gate to 1.
        assert (value == 0.25).sum() >= value.size / 2, weight.path
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
    assert fixed.units == fixed.cell.units == case.layer().units


def check_bad_arguments(case: Recurrent):
    bad = [("units", value) for value in (0, -1, 2.5, "4", None)]
    rates = RATES if case.has_recurrent_kernel else ("dropout",)
    bad += [(name, v) for name in rates for v in (-0.1, 1.1)]
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
    """The action must raise a ValueError with the given words in its message."""
    try:
        action()
    except ValueError as caught:
        error = str(caught)
    else:
        raise AssertionError(f"no ValueError; expected one with {words}")
    for word in words:
        assert word in error, f"{word!r} is not in the message: {error}"
