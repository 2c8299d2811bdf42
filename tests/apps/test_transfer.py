"""Fine-tuning."""

import numpy as np
import pytest

from unroll.apps.core import transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import weights_of
from unroll.apps.core.runs import Run
from unroll.apps.sentiment import app

SOURCE = {"vocabulary": ["[PAD]", "[UNK]", "good", "bad", "film"], "labels": ["no", "yes"]}
TARGET = {"vocabulary": ["[PAD]", "[UNK]", "film", "new", "good", "x"], "labels": ["1", "2", "3"]}


@pytest.fixture
def source(tmp_path):
    """A run whose weights are all different from those at the start."""
    config = app.Config(units=4, features=3)
    run = Run(tmp_path / "source")
    run.path.mkdir()
    run.write_config(app, config)
    run.write_assets(SOURCE)
    model = app.build(config, SOURCE)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    weights_of(model).save_weights(run.best)
    return run, model


def test_weights_go_over_by_word_and_by_shape(source):
    run, given = source
    model = app.build(app.Config(units=4, features=3), TARGET)
    before = [weight.numpy() for weight in model.weights]
    copied = transfer.copy(app, model, TARGET, str(run.path))
    words, told = model.weights[0].numpy(), given.weights[0].numpy()
    for entry, at in (("[PAD]", 0), ("[UNK]", 1), ("film", 2), ("good", 4)):
        np.testing.assert_array_equal(words[at], told[SOURCE["vocabulary"].index(entry)])
    np.testing.assert_array_equal(words[[3, 5]], before[0][[3, 5]])
    # The recurrent layer and the pooling go over, the three classes keep their own.
    for after, whole in zip(model.weights[1:-2], given.weights[1:-2], strict=True):
        np.testing.assert_array_equal(after.numpy(), whole.numpy())
    for after, own in zip(model.weights[-2:], before[-2:], strict=True):
        np.testing.assert_array_equal(after.numpy(), own)
    assert copied == len(model.weights) - 2


def test_a_layer_that_the_run_did_not_have_keeps_its_own(source):
    run, given = source
    model = app.build(app.Config(units=4, features=3, depth=2), TARGET)
    deeper = [weight.numpy() for weight in model.weights if "layer_1" in weight.path]
    copied = transfer.copy(app, model, TARGET, str(run.path))
    assert copied == len(given.weights) - 2
    first = [weight for weight in given.weights if "layer_0" in weight.path]
    for after, whole in zip(
        [weight for weight in model.weights if "layer_0" in weight.path], first, strict=True
    ):
        np.testing.assert_array_equal(after.numpy(), whole.numpy())
    for after, own in zip(
        [weight for weight in model.weights if "layer_1" in weight.path], deeper, strict=True
    ):
        np.testing.assert_array_equal(after.numpy(), own)


def test_a_run_with_more_layers_is_refused(source):
    run, _ = source
    model = app.build(app.Config(units=4, features=3, pool="last"), TARGET)
    with pytest.raises(UsageError, match=r"lacks .* of the run's .* weights, such as"):
        transfer.copy(app, model, TARGET, str(run.path))
