"""Each layer through the checks of `robustness_checks`, and what they mean for whole models."""

import keras
import pytest

from tests.layers import robustness_checks as checks
from tests.layers.case import Case
from tests.layers.cases import CASES

BACKEND = keras.backend.backend()


def is_layer(case: Case) -> bool:
    return case.name not in checks.FUNCTION_NAMES


def takes_a_mask(case: Case) -> bool:
    return case.mask is not None and case.differentiable


def has_derivatives(case: Case) -> bool:
    return case.differentiable and is_layer(case)


def always(case: Case) -> bool:
    return True


CHECKS = {
    checks.check_half_precision: checks.has_gradients,
    checks.check_empty_batch: always,
    checks.check_one_example: always,
    checks.check_empty_sequence: always,
    checks.check_carried_masks: lambda case: takes_a_mask(case) and is_layer(case),
    checks.check_nan_in_masked_steps: lambda case: takes_a_mask(case),
    checks.check_second_order: has_derivatives,
    checks.check_forward_mode: lambda case: has_derivatives(case) and BACKEND == "jax",
    checks.check_saved_forms: is_layer,
    checks.check_quantize: is_layer,
    checks.check_policies: is_layer,
    checks.check_built_and_declared: is_layer,
    checks.check_sizes: is_layer,
    checks.check_memory: lambda case: takes_a_mask(case) and BACKEND != "torch",
}
ALL_CASES = tuple(case for case in CASES if not case.variant) + checks.FUNCTION_CASES


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__[6:]}-{case}")
        for case in ALL_CASES
        for check in CHECKS
        if CHECKS[check](case)
    ],
)
def test_layer(check, case):
    check(case)
