"""Fine-tuning: weights of another run that fit."""

import numpy as np
import pytest

from unroll.apps.core import transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import weights_of
from unroll.apps.core.runs import Run
from unroll.apps.sentiment import app

SOURCE = {"vocabulary": ["[PAD]", "[UNK]", "good", "bad", "film"], "labels": ["no", "yes"]}
TARGET = {"vocabulary": ["[PAD]", "[UNK]", "film", "new", "good", "x"], "labels": ["1", "2", "3"]}
# An asset that is not a list must not disturb the search for tables.
OTHERS = {"scaler": {"mean": 0.5}, "subwords": b"abcde", "vectors": np.zeros((5, 3), "float32")}


@pytest.fixture
def source(tmp_path):
    """A run with random weights, and its model."""
    config = app.Config(units=4, embedding_dim=3)
    run = Run(tmp_path / "source")
    run.path.mkdir()
    run.write_config(app, config)
    run.write_assets({**SOURCE, **OTHERS})
    model = app.build(config, SOURCE)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    weights_of(model).save_weights(run.best)
    return run, model


def assert_equal_weights(weights, expected):
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(np.array(weight), np.array(other))


def test_tables_are_copied_by_entry_and_other_weights_by_shape(source):
    run, given = source
    model = app.build(app.Config(units=4, embedding_dim=3), TARGET)
    before = [weight.numpy() for weight in model.weights]
    copied = transfer.copy(app, model, {**TARGET, **OTHERS}, str(run.path))
    table, of_run = model.weights[0].numpy(), given.weights[0].numpy()
    for entry, row in (("[PAD]", 0), ("[UNK]", 1), ("film", 2), ("good", 4)):
        np.testing.assert_array_equal(table[row], of_run[SOURCE["vocabulary"].index(entry)])
    np.testing.assert_array_equal(table[[3, 5]], before[0][[3, 5]])
    # The recurrent layer and the pooling are copied. The layer of three classes is not.
    assert_equal_weights(model.weights[1:-2], given.weights[1:-2])
    assert_equal_weights(model.weights[-2:], before[-2:])
    assert copied == len(model.weights) - 2


def test_a_layer_that_the_run_lacks_keeps_its_weights(source):
    run, given = source
    model = app.build(app.Config(units=4, embedding_dim=3, depth=2), TARGET)

    def layer(weights, name):
        return [weight.numpy() for weight in weights if name in weight.path]

    second = layer(model.weights, "layer_1")
    copied = transfer.copy(app, model, TARGET, str(run.path))
    assert copied == len(given.weights) - 2
    assert len(layer(given.weights, "layer_0")) > 0
    assert_equal_weights(layer(model.weights, "layer_0"), layer(given.weights, "layer_0"))
    assert_equal_weights(layer(model.weights, "layer_1"), second)


def test_a_run_with_more_layers_is_refused(source):
    run, _ = source
    model = app.build(app.Config(units=4, embedding_dim=3, pool="last"), TARGET)
    with pytest.raises(UsageError, match=r"lacks .* of the run's .* weights, such as"):
        transfer.copy(app, model, TARGET, str(run.path))
