"""A trained run's model and its figures."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from tests.apps import toy
from unroll.apps.core import training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_model, split_of, weights_of
from unroll.apps.core.protocol import Data, settings_of
from unroll.apps.core.runs import Run

CONFIG = dataclasses.replace(toy.PRESETS["digits"], epochs=1, units=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("run"))
    training.train(toy, CONFIG, run)
    return run


@pytest.fixture
def run(trained, tmp_path) -> Run:
    """A copy to break."""
    return Run(shutil.copytree(trained.path, tmp_path / "run"))


def test_the_whole_split_each_example_once(run):
    model, _, _ = load_model(toy, run)
    found, expected = {}, {}
    for split in ("test", "train", "valid"):
        found[split] = evaluate(toy, run, split)
        digits, labels = toy.generate("digits", split)
        # One padded batch of all, without the pipeline.
        right = np.argmax(model.predict_on_batch({"digits": digits}), -1) == labels
        expected[split] = {
            "data": "digits",
            "split": split,
            "examples": toy.SIZES[split],
            "accuracy": pytest.approx(np.mean(right), abs=1e-9),
        }
    assert found == expected
    assert json.loads(run.metrics.read_text()) == found


@pytest.mark.parametrize("label", [0, 1])
def test_it_scores_the_weights_of_the_file(run, label):
    model, _, _ = load_model(toy, run)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    model.weights[-1].assign(np.eye(2)[label])  # one answer to everything
    weights_of(model).save_weights(run.best)
    expected = np.mean(toy.generate("digits", "test")[1] == label)
    assert evaluate(toy, run)["accuracy"] == pytest.approx(expected, abs=1e-9)


def test_a_model_comes_back_as_it_was_configured(run):
    model, config, assets = load_model(toy, run)
    assert config == CONFIG
    assert assets["digits"] == ["<pad>", *"123456789"]
    assert assets["labels"] == ["falling", "rising"]
    assert settings_of(assets) == {"least": 0.0}
    assert model.get_layer(index=-1).units == 2


def test_precision_is_the_run_s_and_does_not_leak(run):
    run.write_config(toy, dataclasses.replace(CONFIG, precision="mixed_bfloat16"))
    model, _, _ = load_model(toy, run)
    assert {layer.compute_dtype for layer in model.layers} >= {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


def test_an_unknown_split_is_named(run):
    message = r"^--split=dev: digits has train, valid, test\.$"
    with pytest.raises(UsageError, match=message):
        evaluate(toy, run, "dev")
    assert not run.metrics.exists()


def test_a_split_that_the_data_lack_is_named():
    data = toy.load(CONFIG)
    two = Data(data.train, data.valid, None, data.assets)
    with pytest.raises(UsageError, match=r"^--split=test: mine has train, valid\.$"):
        split_of(two, "test", "mine")
    assert split_of(two, "valid", "mine") is data.valid


def test_weights_of_another_model_or_none_are_one_line(run):
    run.write_config(toy, dataclasses.replace(CONFIG, units=5))
    with pytest.raises(UsageError, match=r"^.*best\.weights\.h5 cannot be loaded: [^\n]+$"):
        load_model(toy, run)
    run.write_config(toy, CONFIG)
    run.best.write_bytes(run.best.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"^.*best\.weights\.h5 cannot be loaded: [^\n]+$"):
        load_model(toy, run)


def test_a_defect_of_an_app_is_no_wrong_use(run, monkeypatch):
    def build(config, assets):
        raise ValueError("a defect")

    monkeypatch.setattr(toy, "build", build)
    with pytest.raises(ValueError, match="a defect") as error:
        load_model(toy, run)
    assert not isinstance(error.value, UsageError)
