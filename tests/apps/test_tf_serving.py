"""All apps obey the rules of TF Serving; see `server_rules.py`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from hostile_requests import Requests
from soak import TOLERANCE, difference_of, soak

from tests.apps import server_rules
from tests.apps.test_contract_models import app, folder_of, service, trained  # noqa: F401
from unroll.apps.core import export, parity

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def exported(app, trained, service, tmp_path_factory) -> Path:  # noqa: F811
    """An export, as the command writes it."""
    parent = tmp_path_factory.mktemp("saved_models") / folder_of(app).name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check", lambda *arguments: ({}, {}))  # another test's
        return export.write(service, trained.assets, app.examples(), parent, ("saved_model",))


@pytest.fixture(scope="module")
def run(exported) -> Callable[[str], Callable]:
    model = parity.load_in_session(str(exported))
    return lambda name: lambda inputs: model(name, inputs)


def assert_same(found: dict, alone: dict) -> None:
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        assert difference_of(found[name], value) <= TOLERANCE


def test_the_server_finds_one_version_and_its_functions(exported):
    assert server_rules.versions(exported.parent) == {1: "1"}
    server_rules.check_signatures(exported)


def test_warm_up_requests_run_and_are_answered_row_by_row(exported, run):
    for name, inputs in server_rules.warm_up_requests(exported):
        server_rules.check_outputs(run(name)(inputs), len(next(iter(inputs.values()))))


def test_requests_that_the_server_joins_are_answered_as_alone(app, exported, run):  # noqa: F811
    signatures = server_rules.signatures(exported)
    requests = server_rules.warm_up_requests(exported)
    for name in signatures:
        own = [inputs for other, inputs in requests if other == name]
        shapes = [{key: value.shape[1:] for key, value in each.items()} for each in own]
        together = [each for each, shape in zip(own, shapes, strict=True) if shape == shapes[0]]
        rows = sum(len(next(iter(each.values()))) for each in together)
        found = server_rules.batched(run(name), together, rows + 2)
        for each, answer in zip(together, found, strict=True):
            assert_same(answer, run(name)(each))


def test_only_frames_with_lengths_may_be_padded_by_the_server(exported, run):
    """The server repeats the first element, which is no padding of ids, or of a series."""
    signatures = server_rules.signatures(exported)
    for name, inputs in server_rules.warm_up_requests(exported):
        longer = server_rules.padded(inputs, signatures[name], 3)
        if all(longer[key].shape == inputs[key].shape for key in inputs):
            continue  # only rows
        alone = run(name)(inputs)
        try:
            found = run(name)(longer)
        except tf.errors.InvalidArgumentError:  # such as a part of a frame of sound
            assert name != "frames"
            continue
        same = all(difference_of(found[key], alone[key]) <= TOLERANCE for key in alone)
        assert same == (name == "frames")


def test_random_and_hostile_requests_are_answered_as_their_rows(exported):
    """Briefly; `benchmarks/soak.py` sends ten thousand to each app."""
    report = soak(Requests(exported), exported, 150, threads=4)
    assert [line for line in report.faults if line.startswith("request")] == []
    assert len(report.seconds) == 150
