"""Every layer through every check that applies to it, on the backend that Keras runs on.

That two backends agree follows from here: both give the oracle's values, and as gradients the
oracle's differences, for the same weights.
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


def is_first(case: Case) -> bool:
    return not case.variant


# Which cases a check applies to.
CHECKS = {
    checks.check_reference_values: always,
    checks.check_gradients: lambda case: bool(case.differentiable or case.idle),
    checks.check_weights_start_apart: is_first,
    checks.check_every_weight_has_a_gradient: lambda case: bool(case.differentiable or case.idle),
    checks.check_padding_changes_nothing: lambda case: case.mask is not None,
    checks.check_masked_steps_are_as_good_as_removed: lambda case: (
        case.mask is not None and not case.segmented
    ),
    checks.check_eager_is_compiled: is_first,
    checks.check_config: always,
    checks.check_saving: is_first,
    checks.check_shapes: always,
    checks.check_mixed_precision: is_first,
    checks.check_random_in_training_alone: lambda case: bool(case.random),
    export_checks.check_saved_model: is_first,
    export_checks.check_litert: is_first,
    recurrent_checks.check_returned_values: is_recurrent,
    recurrent_checks.check_bidirectional: is_recurrent,
    recurrent_checks.check_chunks: is_recurrent,
    recurrent_checks.check_cell_in_keras_rnn: is_recurrent,
    recurrent_checks.check_one_dropout_mask_for_all_steps: is_recurrent,
    recurrent_checks.check_weight_options: is_recurrent,
    recurrent_checks.check_bad_arguments: is_recurrent,
}
# What a backend does not have, and why.
MISSING = {
    "jax": dict.fromkeys(
        (export_checks.check_saved_model, export_checks.check_litert),
        "SavedModel and LiteRT are exported from the TensorFlow backend",
    )
}
MISSING["torch"] = MISSING["jax"] | {
    checks.check_eager_is_compiled: "Keras compiles nothing on the PyTorch backend by default"
}


def mark(check) -> list:
    reason = MISSING.get(keras.backend.backend(), {}).get(check)
    return [pytest.mark.skip(reason=reason)] if reason else []


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__[6:]}-{case}", marks=mark(check))
        for check, applies in CHECKS.items()
        for case in CASES
        if applies(case)
    ],
)
def test_layer(check, case):
    check(case)


def test_the_table_lists_all_layers():
    public = {name: getattr(layers, name) for name in layers.__all__}
    kinds = {name for name, x in public.items() if isinstance(x, type)}
    covered = {name for case in CASES for name in case.covers}
    assert covered == {name for name in kinds if issubclass(public[name], keras.layers.Layer)}
