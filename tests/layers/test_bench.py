"""Each layer through each check that applies to it.

TensorFlow runs all checks on all cases. The other backends run those whose outcome depends on the
backend, on one case of each layer. Two backends agree because both agree with the oracle, in values
and gradients, for the same weights.
"""

import keras
import pytest

from tests.layers import checks, export_checks, recurrent_checks
from tests.layers.case import Case, Recurrent
from tests.layers.cases import CASES
from unroll import layers


def always(case: Case) -> bool:
    return True


def is_recurrent(case: Case) -> bool:
    return isinstance(case, Recurrent)


def has_dropout(case: Case) -> bool:
    return is_recurrent(case) and bool(case.random)


def is_first(case: Case) -> bool:
    return not case.variant


def has_gradients(case: Case) -> bool:
    return bool(case.differentiable or case.idle)


# The oracles of these accept a fixed length; a variant of the memory network takes its place.
FIXED_LENGTH = ("MemoryNetwork", "LuongAttention location")


def is_long(case: Case) -> bool:
    replaces = case.name in ("MemoryNetwork without order", "LuongAttention local-m")
    takes_sequences = case.mask is not None and case.differentiable
    return takes_sequences and (is_first(case) or replaces) and case.name not in FIXED_LENGTH


# The cases that each check applies to.
CHECKS = {
    checks.check_reference_values: always,
    checks.check_gradients: has_gradients,
    checks.check_initial_weights_differ: is_first,
    checks.check_every_weight_has_a_gradient: lambda case: has_gradients(case) and case.trained,
    checks.check_padding_has_no_effect: lambda case: case.mask is not None,
    checks.check_masked_steps_have_no_effect: lambda case: (
        case.mask is not None and not case.segmented
    ),
    checks.check_modes_agree: is_first,
    checks.check_long_sequences: is_long,
    checks.check_config: always,
    checks.check_saving: is_first,
    checks.check_shapes: always,
    checks.check_mixed_precision: is_first,
    checks.check_randomness: lambda case: bool(case.random),
    export_checks.check_saved_model: is_first,
    export_checks.check_litert: is_first,
    recurrent_checks.check_returned_values: is_recurrent,
    recurrent_checks.check_bidirectional: is_recurrent,
    recurrent_checks.check_chunks: is_recurrent,
    recurrent_checks.check_cell_in_keras_rnn: is_recurrent,
    recurrent_checks.check_one_dropout_mask_for_all_steps: has_dropout,
    recurrent_checks.check_recurrent_weight_dropout: lambda case: (
        has_dropout(case) and case.trained and case.has_recurrent_kernel
    ),
    recurrent_checks.check_weight_options: lambda case: is_recurrent(case) and case.trained,
    recurrent_checks.check_bad_arguments: is_recurrent,
}

# Not part of `make check`.
SLOW = {
    checks.check_modes_agree,
    checks.check_long_sequences,
    checks.check_mixed_precision,
    checks.check_randomness,
    checks.check_saving,
    export_checks.check_saved_model,
    export_checks.check_litert,
    recurrent_checks.check_returned_values,
    recurrent_checks.check_bidirectional,
    recurrent_checks.check_chunks,
    recurrent_checks.check_cell_in_keras_rnn,
    recurrent_checks.check_one_dropout_mask_for_all_steps,
    recurrent_checks.check_recurrent_weight_dropout,
    recurrent_checks.check_weight_options,
}

# Checks that take long. `make test` runs them on `SOME` layers, which have loops, searches, masks
# and weights of each kind; `make test-all` on all.
EXPENSIVE = {
    checks.check_modes_agree,
    checks.check_long_sequences,
    checks.check_randomness,
    export_checks.check_saved_model,
    export_checks.check_litert,
    recurrent_checks.check_one_dropout_mask_for_all_steps,
    recurrent_checks.check_recurrent_weight_dropout,
}
SOME = ("LSTM", "AttentionDecoder before", "CRF")
# What `make test` runs on the cases that are `exhaustive`, and on the variants of a layer.
OF_EXHAUSTIVE_CASES = {checks.check_reference_values, checks.check_config}

# Known faults of layers at lengths in the hundreds.
FAULTS_AT_LENGTH = {
    "LuongAttention local-p": (
        "the center of the window, a fraction of the length, moves with the rounding of the query; "
        "test_lengths.py compares with a query that is rounded alike"
    )
}

BACKEND = keras.backend.backend()
# On these backends, the checks of one case of each layer, and the checks of LSTM only: the code of
# the latter is that of the base class of all recurrent layers.
OF_EACH_LAYER = {
    "jax": {
        checks.check_reference_values,
        checks.check_gradients,
        checks.check_modes_agree,
        checks.check_shapes,
        checks.check_randomness,
        recurrent_checks.check_one_dropout_mask_for_all_steps,
    },
    "torch": {
        checks.check_reference_values,
        checks.check_gradients,
        checks.check_config,
        checks.check_shapes,
    },
}
OF_LSTM_ONLY = {
    "jax": {
        checks.check_mixed_precision,
        checks.check_padding_has_no_effect,
        checks.check_masked_steps_have_no_effect,
        checks.check_saving,
        recurrent_checks.check_returned_values,
        recurrent_checks.check_bidirectional,
        recurrent_checks.check_chunks,
        recurrent_checks.check_cell_in_keras_rnn,
        recurrent_checks.check_recurrent_weight_dropout,
    },
    "torch": {
        checks.check_padding_has_no_effect,
        checks.check_masked_steps_have_no_effect,
        checks.check_saving,
        checks.check_mixed_precision,
        checks.check_randomness,
        recurrent_checks.check_one_dropout_mask_for_all_steps,
        recurrent_checks.check_recurrent_weight_dropout,
    },
}
# The checks that run on TensorFlow only, and why.
TENSORFLOW_ONLY = {
    checks.check_initial_weights_differ: "initializers take their seeds in Python",
    checks.check_every_weight_has_a_gradient: "on each backend, gradients equal the oracle's",
    checks.check_long_sequences: "the length of a loop is not known to the code of a backend",
    checks.check_config: "a config is made in Python",
    export_checks.check_saved_model: "only TensorFlow writes SavedModels",
    export_checks.check_litert: "only TensorFlow converts to LiteRT",
    recurrent_checks.check_weight_options: "Keras applies the options of weights",
    recurrent_checks.check_bad_arguments: "arguments are checked in Python",
}
# PyTorch in addition.
NOT_ON_TORCH = {
    checks.check_modes_agree: "Keras does not compile on PyTorch by default",
    recurrent_checks.check_returned_values: "selects outputs with operations that JAX tests too",
    recurrent_checks.check_bidirectional: "the stack of both directions has reference values",
    recurrent_checks.check_chunks: "the initial states have reference values",
    recurrent_checks.check_cell_in_keras_rnn: "Keras's loop is not part of this package",
}


def runs(check, case: Case, backend: str = BACKEND) -> bool:
    """Whether a check runs on a case on a backend."""
    if backend == "tensorflow":
        return CHECKS[check](case)
    selected = check in OF_EACH_LAYER[backend] and is_first(case)
    return CHECKS[check](case) and (
        selected or (check in OF_LSTM_ONLY[backend] and case.name == "LSTM")
    )


def marks(check, case: Case) -> list:
    found = [pytest.mark.slow] if check in SLOW else []
    expensive = check in EXPENSIVE and case.name not in SOME
    quick = BACKEND == "tensorflow" and check in OF_EXHAUSTIVE_CASES
    if expensive or ((case.exhaustive or case.variant) and not quick):
        found.append(pytest.mark.exhaustive)
    if check is checks.check_long_sequences and case.name in FAULTS_AT_LENGTH:
        found.append(pytest.mark.xfail(reason=FAULTS_AT_LENGTH[case.name], strict=True))
    return found


# Ordered by case: the checks of a case share its computations in one process.
@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__[6:]}-{case}", marks=marks(check, case))
        for case in CASES
        for check in CHECKS
        if runs(check, case)
    ],
)
def test_layer(check, case):
    check(case)


def test_the_cases_cover_all_layers():
    public = {name: getattr(layers, name) for name in layers.__all__}
    kinds = {name for name, x in public.items() if isinstance(x, type)}
    covered = {name for case in CASES for name in case.covers}
    assert covered == {name for name in kinds if issubclass(public[name], keras.layers.Layer)}
    assert set(SOME) <= {case.name for case in CASES}


@pytest.mark.parametrize(
    ("backend", "left_out"), [("jax", TENSORFLOW_ONLY), ("torch", TENSORFLOW_ONLY | NOT_ON_TORCH)]
)
def test_each_check_runs_on_a_backend_or_has_a_reason_not_to(backend, left_out):
    run = {check for check in CHECKS for case in CASES if runs(check, case, backend)}
    assert run | set(left_out) == set(CHECKS)
    first = {case.name for case in CASES if is_first(case)}
    for check in OF_EACH_LAYER[backend]:
        names = {case.name for case in CASES if runs(check, case, backend)}
        assert names == {case.name for case in CASES if CHECKS[check](case)} & first
