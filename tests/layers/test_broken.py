"""Each check rejects a layer with the defect that it is for."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from tests import reference
from tests.layers import checks, export_checks, recurrent_checks
from tests.layers.case import U
from tests.layers.recurrent_cases import LSTM, recurrent
from tests.layers.test_bench import CHECKS, marks, runs
from unroll import layers

LSTM_CASE = recurrent(layers.LSTM, reference.lstm, options=LSTM)


def twin(check, reason, cell=None, layer=None, oracle=reference.lstm, of=layers.LSTM):
    """A check, a layer `of` with the methods of `cell` or `layer`, and the expected message."""
    name = (cell or layer).__name__
    cell_class = type(f"{name}Cell", (cell, of.cell_class), {}) if cell else of.cell_class
    layer_class = type(name, (layer, of) if layer else (of,), {"cell_class": cell_class})
    register = keras.saving.register_keras_serializable(package="unroll_tests")
    case = recurrent(register(layer_class), oracle, options=LSTM)
    register(cell_class)
    return pytest.param(
        check,
        replace(case, name=name),
        reason,
        id=f"{name}-{check.__name__[6:]}",
        marks=marks(check, case),
    )


class SwappedGates:
    def step(self, z, states):
        i, f, g, o = ops.split(z, 4, axis=-1)
        return super().step(ops.concatenate([f, i, g, o], axis=-1), states)


class StoppedGradient:
    def step(self, z, states):
        return super().step(z, (states[0], ops.stop_gradient(states[1])))


class StoppedPeepholes:
    def step(self, z, states, *peepholes):
        return super().step(z, states, *map(ops.stop_gradient, peepholes))


class SpareWeight:
    def build(self, input_shape):
        super().build(input_shape)
        self.spare = self.add_weight(shape=(self.units,), name="spare")


class StoppedGradientOfFinalStates:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        last, outputs, states = super().inner_loop(sequences, initial_state, mask, training)
        return last, outputs, [ops.stop_gradient(s) for s in states]


class SameNumbersInTwoWeights:
    def build(self, input_shape):
        super().build(input_shape)
        shape = (2 * self.units, self.units)
        self.spare = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="spare")


class IgnoredMask:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(sequences, initial_state, None, training)


class RightPaddingOnly:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        if mask is not None:
            mask = ops.cumprod(ops.cast(mask, "int32"), axis=1)
        return super().inner_loop(sequences, initial_state, mask, training)


class DifferentInEachTrace:
    traces = 0

    def step(self, z, states):
        DifferentInEachTrace.traces += 1
        return super().step(z * DifferentInEachTrace.traces, states)


class NothingAfterStep256:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        step = ops.cumsum(ops.ones_like(sequences[:1], "int32"), axis=1)
        sequences = ops.where(step > 256, 0.0, sequences)
        return super().inner_loop(sequences, initial_state, mask, training)


class CountsInComputeDtype:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        ones = ops.ones_like(sequences[:1])
        right = ops.cumsum(ops.cast(ones, "float32"), axis=1)
        error = ops.cast(ops.cumsum(ones, axis=1), "float32") - right
        sequences = sequences + ops.cast(error, sequences.dtype)
        return super().inner_loop(sequences, initial_state, mask, training)


class LostArgument:
    def get_config(self):
        return {k: v for k, v in super().get_config().items() if k != "unit_forget_bias"}


class IgnoredArgument:
    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "recurrent_dropout": 0.0})


class UnsavedWeight:
    def build(self, input_shape):
        super().build(input_shape)
        self.scale = float(np.random.default_rng().normal())

    def step(self, z, states):
        return super().step(z * self.scale, states)


class WrongShape:
    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        (batch, time, _), *states = super().compute_output_shape(sequences_shape)
        return ((batch, time, U + 1), *states)


class Overflow:
    def project(self, inputs):
        return super().project(inputs) * 3e4 * 3e4 / 3e4 / 3e4


class FullPrecisionOutput:
    def call(self, *arguments, **options):
        found = super().call(*arguments, **options)
        return tuple(ops.cast(x, "float32") for x in found)


class RandomAtInference:
    def project(self, inputs):
        noise = keras.random.normal((1,), dtype=inputs.dtype, seed=self.seed_generator)
        return super().project(inputs) + 0 * noise


class NoDropout:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(sequences, initial_state, mask, False)


class DropoutEachStep:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        if training and self.cell.dropout:
            sequences = keras.random.dropout(
                sequences, self.cell.dropout, seed=self.cell.seed_generator
            )
        return super().inner_loop(sequences, initial_state, mask, False)


class KeepsRecurrentWeights:
    def get_recurrent_weight_mask(self):
        return None


class KnownLength:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        known = sequences.shape[1] or 1
        return super().inner_loop(sequences * known, initial_state, mask, training)


class NeedsFlex:
    def step(self, z, states):
        return super().step(ops.erfinv(ops.tanh(z)), states)


class NeverFlipped:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        last, outputs, states = super().inner_loop(sequences, initial_state, mask, training)
        return last, ops.flip(outputs, axis=1) if self.go_backwards else outputs, states


class ForgottenState:
    def inner_loop(self, sequences, initial_state, mask, training=False):
        zeros = [ops.zeros_like(s) for s in initial_state]
        return super().inner_loop(sequences, zeros, mask, training)


class DifferentEquationsInTheCell:
    def call(self, inputs, states, training=False):
        return super().call(2 * inputs, states, training)


class IgnoredRegularizer:
    def build(self, input_shape):
        self.recurrent_regularizer = None
        super().build(input_shape)


class AcceptsAnything:
    def __init__(self, units, dropout=0.0, recurrent_dropout=0.0, **kwargs):
        super().__init__(U, **kwargs)


def without_spare(weights, *arguments, **options):
    return reference.lstm(weights[:3], *arguments, **options)


TWINS = [
    twin(checks.check_reference_values, "outputs, number 0", cell=SwappedGates),
    twin(checks.check_reference_values, "outputs, number 0", layer=IgnoredMask),
    twin(checks.check_gradients, "d inputs", cell=StoppedGradient),
    twin(
        checks.check_gradients,
        "d .*/peephole_kernel",
        StoppedPeepholes,
        None,
        reference.peephole_lstm,
        layers.PeepholeLSTM,
    ),
    twin(checks.check_gradients, "d inputs", layer=StoppedGradientOfFinalStates),
    twin(checks.check_initial_weights_differ, "same numbers", cell=SameNumbersInTwoWeights),
    twin(
        checks.check_every_weight_has_a_gradient,
        "spare: an entry without",
        cell=SpareWeight,
        oracle=without_spare,
    ),
    twin(
        checks.check_every_weight_has_a_gradient,
        "peephole_kernel: an entry without",
        StoppedPeepholes,
        None,
        reference.peephole_lstm,
        layers.PeepholeLSTM,
    ),
    twin(checks.check_padding_has_no_effect, "outputs, number 1", layer=IgnoredMask),
    twin(checks.check_masked_steps_have_no_effect, "row 2", layer=RightPaddingOnly),
    twin(checks.check_modes_agree, "outputs, ", cell=DifferentInEachTrace),
    twin(checks.check_long_sequences, "float32, number 0", layer=NothingAfterStep256),
    twin(checks.check_long_sequences, "bfloat16, number 0", layer=CountsInComputeDtype),
    twin(checks.check_config, "loses {'unit_forget_bias'}", cell=LostArgument),
    twin(checks.check_config, "recurrent_dropout", layer=IgnoredArgument),
    twin(checks.check_saving, "reloaded, number 0", cell=UnsavedWeight),
    twin(checks.check_shapes, "At index 0 diff", layer=WrongShape),
    twin(checks.check_mixed_precision, "mixed_float16", cell=Overflow),
    twin(checks.check_mixed_precision, "float32", layer=FullPrecisionOutput),
    twin(checks.check_randomness, "at inference", cell=RandomAtInference),
    twin(checks.check_randomness, "nothing is random", layer=NoDropout),
    twin(export_checks.check_saved_model, "batch 1, length 7", layer=KnownLength),
    twin(export_checks.check_litert, "built-in ops alone.*Erfinv", cell=NeedsFlex),
    twin(recurrent_checks.check_returned_values, "backwards=True", layer=NeverFlipped),
    twin(recurrent_checks.check_bidirectional, "outputs, number 0", layer=NeverFlipped),
    twin(recurrent_checks.check_chunks, "passed states", layer=ForgottenState),
    twin(
        recurrent_checks.check_cell_in_keras_rnn,
        "outputs, number 0",
        cell=DifferentEquationsInTheCell,
    ),
    twin(
        recurrent_checks.check_one_dropout_mask_for_all_steps, "not one mask", layer=DropoutEachStep
    ),
    twin(
        recurrent_checks.check_recurrent_weight_dropout,
        "no entry of R is dropped",
        cell=KeepsRecurrentWeights,
    ),
    twin(
        recurrent_checks.check_weight_options,
        "regularizer of .*recurrent_kernel",
        cell=IgnoredRegularizer,
    ),
    twin(recurrent_checks.check_bad_arguments, "no ValueError", cell=AcceptsAnything),
]


# Overflow warns on the JAX backend.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("check", "case", "reason"),
    [row for row in TWINS if runs(row.values[0], LSTM_CASE)],
)
def test_a_broken_layer_is_rejected(check, case, reason):
    with pytest.raises(AssertionError, match=reason):
        check(case)


def test_each_check_has_a_broken_layer():
    assert {row.values[0] for row in TWINS} == set(CHECKS)
