"""Each layer through the checks of `robustness_checks`, `derivative_checks` and `protocol_checks`.

The cells are also saved and copied in Keras's loop.
"""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

from tests.layers import derivative_checks, protocol_checks, running
from tests.layers import robustness_checks as checks
from tests.layers.case import Case, Recurrent
from tests.layers.cases import CASES
from tests.layers.checks import assert_near
from tests.layers.function_cases import FUNCTION_CASES, FUNCTION_NAMES
from tests.layers.recurrent_checks import assert_refused

BACKEND = keras.backend.backend()
pytestmark = [] if BACKEND == "tensorflow" else [pytest.mark.exhaustive]


def is_layer(case: Case) -> bool:
    return case.name not in FUNCTION_NAMES


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
    derivative_checks.check_second_order: has_derivatives,
    derivative_checks.check_forward_mode: lambda case: has_derivatives(case) and BACKEND == "jax",
    protocol_checks.check_saved_forms: is_layer,
    protocol_checks.check_quantize: is_layer,
    protocol_checks.check_policies: is_layer,
    protocol_checks.check_built_and_declared: is_layer,
    protocol_checks.check_sizes: is_layer,
    checks.check_memory: lambda case: takes_a_mask(case) and BACKEND != "torch",
}
# On the other backends, the checks whose outcome depends on the code of the backend, or on what an
# operation does with no numbers, NaN and half precision. JAX compiles a function for each shape, so
# most of them run on a few layers, which have code of their own for the backend.
OF_EACH_LAYER = {
    "jax": {derivative_checks.check_forward_mode},
    "torch": {
        checks.check_empty_batch,
        checks.check_empty_sequence,
        checks.check_one_example,
        checks.check_carried_masks,
        checks.check_nan_in_masked_steps,
        derivative_checks.check_second_order,
        protocol_checks.check_policies,
        protocol_checks.check_built_and_declared,
    },
}
OF_SOME_LAYERS = {
    "jax": {
        checks.check_half_precision,
        checks.check_empty_batch,
        checks.check_empty_sequence,
        checks.check_nan_in_masked_steps,
        derivative_checks.check_second_order,
        checks.check_memory,
    },
    "torch": {
        checks.check_half_precision,
        protocol_checks.check_saved_forms,
        protocol_checks.check_quantize,
    },
}
SOME = ("LSTM", "BahdanauAttention", "AttentionDecoder before", "CRF", "ctc_loss")
# Checks that take long. `make test` runs them on `FEW` layers, `make test-all` on all.
FEW = ("LSTM", "BahdanauAttention")
EXPENSIVE = {
    checks.check_nan_in_masked_steps,
    checks.check_half_precision,
    derivative_checks.check_second_order,
    checks.check_memory,
    checks.check_empty_batch,
    checks.check_empty_sequence,
    checks.check_one_example,
    protocol_checks.check_saved_forms,
    protocol_checks.check_quantize,
    protocol_checks.check_policies,
}


# What does not hold.
FAULTS = {
    ("tensorflow", derivative_checks.check_second_order, "CRF"): (
        "XLA does not compile the second derivative of a conditional, which log Z has"
    ),
    ("jax", derivative_checks.check_forward_mode, "CRF"): (
        "log Z has a gradient of its own, exact where forward mode would give NaN"
    ),
}


def marks(check, case: Case) -> list:
    """An expected failure, and whether `make test` leaves it out."""
    reason = FAULTS.get((BACKEND, check, case.name))
    found = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
    expensive = case.exhaustive or (check in EXPENSIVE and case.name not in FEW)
    return [*found, pytest.mark.exhaustive] if expensive else found


def runs(check, case: Case) -> bool:
    if not CHECKS[check](case):
        return False
    if BACKEND == "tensorflow" or check in OF_EACH_LAYER[BACKEND]:
        return True
    return check in OF_SOME_LAYERS[BACKEND] and case.name in SOME


ALL_CASES = tuple(case for case in CASES if not case.variant) + FUNCTION_CASES


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{check.__name__[6:]}-{case}", marks=marks(check, case))
        for case in ALL_CASES
        for check in CHECKS
        if runs(check, case)
    ],
)
def test_layer(check, case):
    check(case)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.exhaustive] if case.exhaustive else [])
        for case in ALL_CASES
        if isinstance(case, Recurrent)
    ],
    ids=str,
)
def test_cells_are_saved_and_copied(case):
    """As JSON, by deepcopy and pickle, in `keras.layers.RNN`; sizes may be NumPy's integers."""
    cell = case.make().cell
    config = cell.get_config()
    for copied in (json.loads(json.dumps(config)), copy.deepcopy(config)):
        assert type(cell).from_config(copied).get_config() == config
    units = config["units"]
    made = type(cell).from_config({**config, "units": np.int64(units)})
    assert type(made.get_config()["units"]) is int
    assert_refused(lambda: type(cell)(True), "units")
    inputs = case.inputs.astype("float32")
    model = keras.Sequential([keras.Input(inputs.shape[1:]), keras.layers.RNN(cell)])
    again = pickle.loads(pickle.dumps(model))
    assert_near([running.numpy(again(inputs))], [running.numpy(model(inputs))], 1e-6)
