"""All apps: `unroll.load` of a run and of its export, and the model card; and own hooks.

The models are small and not trained.
"""

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard

import unroll
from tests.apps.test_contract_models import NAMES, small_config
from tests.apps.written_runs import write_run
from unroll.apps.core.export import export
from unroll.apps.core.protocol import Trained, hook, query

pytestmark = pytest.mark.exhaustive

# Keys of `predict` whose values are the padded outputs of an export.
PADDED = ("tokens", "slots", "tags", "attention", "facts", "pieces", "source_pieces")


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory, parity_process) -> SimpleNamespace:
    """A model, its run, and its export."""
    app = importlib.import_module(f"unroll.apps.{request.param}.app")
    config = small_config(app)
    assets = app.load(config, ()).assets
    trained = Trained(config, assets, app.build(config, assets))
    folder = tmp_path_factory.mktemp(request.param)
    run = write_run(folder / "run", app, trained)
    exported = export(app, run, folder / "saved_models", ("saved_model",))
    return SimpleNamespace(app=app, trained=trained, run=run.path, exported=exported)


def inputs_of(app: ModuleType) -> list:
    """Raw inputs that an export accepts, too."""
    single_words = app.__name__.endswith("word_vectors.app")
    return [each for each in app.examples() if not (single_words and " " in each)]


def assert_close(found, expected) -> None:
    """Compares nested values: floats with a tolerance, all others exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for each, value in zip(found, expected, strict=True):
            assert_close(each, value)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert found == expected


def test_a_run_predicts(case):
    inputs = case.app.examples()
    assert_close(unroll.load(case.run)(inputs), case.app.predict(case.trained, inputs))


def test_an_export_gives_the_outputs_of_its_signature(case):
    inputs = inputs_of(case.app)
    service = case.app.serve(case.trained)
    request = hook(case.app, "request")(case.trained, inputs)
    checked = service.requests(inputs)["serving_default"]
    assert request.keys() == checked.keys()
    # Without the sizes and seeds of searches, those of an export are shorter.
    for name, value in request.items():
        assert value.dtype == checked[name].dtype
        if value.ndim:
            np.testing.assert_array_equal(value, checked[name])
    model = unroll.load(case.exported)
    found = model(inputs)
    assert model.config == case.trained.config
    if not all(value.ndim for value in request.values()):
        assert len(found) == len(inputs)
        return
    assert_close(found, query(service, inputs))


def test_the_card_has_limits_and_is_valid(case):
    text = Path(case.exported / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.pipeline_tag == case.app.TASK
    limits = text.partition("## Limits\n\n")[2].partition("\n\n## ")[0]
    assert limits.startswith("- ")
    assert "| license | Apache-2.0 |" in text
