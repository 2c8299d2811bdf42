"""Fine-tuning: the weights of a run, by declared axes."""

import keras
import numpy as np
import pytest

from tests.apps import toy
from unroll.apps.core import training, transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import save_weights
from unroll.apps.core.runs import Run
from unroll.apps.core.transfer import Carried, carry

SOURCE = {"digits": ["<pad>", *"123"], "labels": ["falling", "rising", "equal"]}
# As many digits and labels as the shapes of other weights.
CONFIG = toy.Config(units=3, normalize=True)
AXES = toy.axes(CONFIG)


def make(assets: dict, seed: int = 0, config=CONFIG) -> keras.Model:
    """A model with random weights."""
    model = toy.build(config, assets)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in transfer.by_name(model).items()}


def start(assets: dict, target_config=CONFIG, **options) -> tuple[Carried, dict, dict, dict]:
    """The report, and the weights of the source, of the target before, and after."""
    source, target = make(SOURCE), make(assets, seed=1, config=target_config)
    before = values(target)
    carried = carry((target, options.get("axes", AXES), assets), (source, AXES, SOURCE))
    return carried, values(source), before, values(target)


def assert_equal(found: dict, expected: dict, names) -> None:
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_equal_assets_copy_all_weights():
    carried, source, _, after = start(SOURCE)
    assert after.keys() == source.keys()
    assert_equal(after, source, source)
    assert carried.unchanged == ["embedding", "lstm/cell", "batch_normalization", "dense"]
    assert not carried.matched
    assert not carried.fresh
    assert str(carried) == "  carried over: embedding, lstm, batch_normalization, dense"


def test_other_weights_are_not_permuted_whatever_their_shapes():
    """Three labels in another order, and a network with many axes of three entries."""
    assets = {"digits": [*"321", "<pad>"], "labels": ["equal", "falling", "rising"]}
    carried, source, _, after = start(assets)
    assert_equal(after, source, [name for name in source if name[:4] in ("lstm", "batc")])
    np.testing.assert_array_equal(
        after["embedding/embeddings"], source["embedding/embeddings"][[3, 2, 1, 0]]
    )
    np.testing.assert_array_equal(after["dense/kernel"], source["dense/kernel"][:, [2, 0, 1]])
    np.testing.assert_array_equal(after["dense/bias"], source["dense/bias"][[2, 0, 1]])
    assert str(carried).splitlines() == [
        "  carried over: lstm, batch_normalization",
        "  carried over by entry (digits: 4 of 4): embedding",
        "  carried over by entry (labels: 3 of 3): dense",
    ]


def test_new_entries_keep_their_initial_weights():
    assets = {"digits": [*"92", "<pad>"], "labels": ["new", "rising", "x", "y", "falling"]}
    carried, source, before, after = start(assets)
    embeddings = [after, before, source]
    new, old, given = (each["embedding/embeddings"] for each in embeddings)
    np.testing.assert_array_equal(new, [old[0], given[2], given[0]])
    new, old, given = (each["dense/bias"] for each in embeddings)
    np.testing.assert_array_equal(new, [old[0], given[1], old[2], old[3], given[0]])
    assert carried.matched == {"embedding": ["digits"], "dense": ["labels"]}
    assert carried.entries == {"digits": (2, 3), "labels": (2, 5)}


def test_other_labels_start_fresh():
    carried, source, before, after = start({**SOURCE, "labels": ["yes", "no", "maybe"]})
    assert_equal(after, before, ["dense/kernel", "dense/bias"])
    assert_equal(after, source, ["embedding/embeddings", "lstm/cell/kernel"])
    assert carried.fresh == {"dense": "the run has none of the labels"}
    assert str(carried).splitlines()[1] == (
        "  initialized, since the run has none of the labels: dense"
    )


def test_a_layer_of_another_size_starts_fresh_as_a_whole():
    carried, source, before, after = start(SOURCE, toy.Config(units=5))
    cell = [name for name in after if name.startswith("lstm")]
    assert_equal(after, before, [*cell, "dense/kernel", "dense/bias"])
    assert_equal(after, source, ["embedding/embeddings"])
    assert carried.fresh["lstm/cell"] == carried.fresh["dense"] == "their sizes differ"


def test_a_layer_that_the_run_lacks_keeps_its_weights():
    source = make(SOURCE, config=toy.Config(units=3, normalize=False))
    target = make(SOURCE, seed=1)
    before = values(target)
    carried = carry((target, AXES, SOURCE), (source, AXES, SOURCE))
    assert carried.fresh == {"batch_normalization": "the run does not have them"}
    assert_equal(values(target), before, ["batch_normalization/gamma"])
    assert_equal(values(target), values(source), ["dense/kernel"])
    with pytest.raises(UsageError, match=r"lacks 4 of the run's 10 weights, such as batch_norm"):
        carry((source, AXES, SOURCE), (target, AXES, SOURCE))


def test_a_wrong_declaration_is_an_error_and_a_different_one_starts_fresh():
    wrong = {**AXES, "dense/kernel": ("digits", "labels")}
    with pytest.raises(ValueError, match=r"dense/kernel has an axis of length 3, but the asset d"):
        carry(*[(make(SOURCE), wrong, SOURCE)] * 2)
    with pytest.raises(ValueError, match="1 axes are declared for dense/kernel"):
        carry(*[(make(SOURCE), {**AXES, "dense/kernel": ("labels",)}, SOURCE)] * 2)
    with pytest.raises(ValueError, match="2 patterns declare the axes of dense/bias"):
        start(SOURCE, axes={**AXES, "dense/b.*": ("labels",)})
    carried, _, before, after = start(SOURCE, axes={**AXES, "lstm/cell/bias": ("labels",)})
    assert carried.fresh == {"lstm/cell": "they have other inputs"}
    assert_equal(after, before, ["lstm/cell/kernel"])


def stack(sizes: list[int], names: str | None = None, inputs: int = 2) -> keras.Model:
    """Dense layers; with names, such as `layer_0`."""
    x = given = keras.Input((inputs,))
    for k, size in enumerate(sizes):
        x = keras.layers.Dense(size, name=names and f"{names}_{k}")(x)
    return keras.Model(given, x)


def test_names_do_not_depend_on_other_models():
    names = [list(transfer.by_name(stack([2, 3, 4]))) for _ in range(2)]
    assert names[0] == names[1]
    assert names[0][::2] == ["dense/kernel", "dense_1/kernel", "dense_2/kernel"]
    named = transfer.by_name(stack([2, 3], "layer"))
    assert list(named)[::2] == ["layer_0/kernel", "layer_1/kernel"]


def test_unnamed_layers_are_copied_only_if_there_are_as_many():
    carried = carry((stack([2, 2, 2]), {}, {}), (stack([2, 2]), {}, {}))
    assert set(carried.fresh.values()) == {"the run has 2 of them, and this model 3"}
    assert str(carried).splitlines() == [
        "  carried over: nothing",
        "  initialized, since the run has 2 of them, and this model 3: dense (3)",
    ]
    carried = carry((stack([2, 2, 2], "layer"), {}, {}), (stack([2, 2], "layer"), {}, {}))
    assert carried.unchanged == ["layer_0", "layer_1"]
    assert list(carried.fresh) == ["layer_2"]


def test_an_axis_of_entries_followed_by_positions():
    axes, words = {"dense/kernel": (("words", ...), None)}, ["a", "b", "c"]
    given, other = stack([2], inputs=5), stack([2], inputs=6)
    carried = carry((other, axes, {"words": ["c", "x", "y", "a"]}), (given, axes, {"words": words}))
    kernel, source = other.weights[0].numpy(), given.weights[0].numpy()
    np.testing.assert_array_equal(kernel[[0, 3, 4, 5]], source[[2, 0, 3, 4]])
    assert carried.entries == {"words": (2, 4)}
    carried = carry((other, axes, {"words": words}), (given, axes, {"words": words}))
    assert carried.fresh == {"dense": "their sizes differ"}  # three positions, not two


def test_a_run_is_the_start_of_another_app():
    """The assets are matched by name, the layers by path."""
    source = make(SOURCE)
    x = given = keras.Input((None,), dtype="int32")
    for layer in (keras.layers.Embedding(2, 8), toy.layers.LSTM(3), keras.layers.Dense(7)):
        x = layer(x)
    target, assets = keras.Model(given, x), {"digits": ["2", "new"]}
    axes = {"embedding/embeddings": ("digits", None)}
    with pytest.raises(UsageError, match="lacks 4 of the run's"):
        carry((target, axes, assets), (source, AXES, SOURCE))
    part = keras.Model(source.inputs, source.layers[-3].output)
    carried = carry((target, axes, assets), (part, AXES, SOURCE))
    assert carried.matched == {"embedding": ["digits"]}
    assert carried.unchanged == ["lstm/cell"]
    np.testing.assert_array_equal(target.weights[0][0], source.weights[0][2])


@pytest.fixture
def run(tmp_path) -> tuple[Run, keras.Model]:
    run = Run(tmp_path / "source")
    run.path.mkdir()
    run.write_config(toy, CONFIG)
    run.write_assets(SOURCE)
    model = make(SOURCE)
    save_weights(model, run)
    return run, model


def test_a_run_is_loaded(run):
    folder, source = run
    config = toy.Config(units=3, start=str(folder.path))
    target = make(SOURCE, seed=1)
    assert not transfer.start(toy, config, target, SOURCE).fresh
    assert_equal(values(target), values(source), values(source))


def test_training_starts_with_the_weights_and_reports_them(run, tmp_path, capsys, monkeypatch):
    class Stopped(Exception):
        pass

    def fit(model, *_, **__):
        raise Stopped(values(model))

    monkeypatch.setattr(keras.Model, "fit", fit)
    config = toy.Config(units=3, generated_size=0.05, start=str(run[0].path))
    with pytest.raises(Stopped) as stopped:
        training.train(toy, config, Run.create(toy, "digits", tmp_path / "new"))
    assert capsys.readouterr().out.splitlines() == [
        f"Weights of {run[0].path}:",
        "  carried over: lstm, batch_normalization",
        "  carried over by entry (digits: 4 of 10): embedding",
        "  carried over by entry (labels: 2 of 2): dense",
    ]
    [found] = stopped.value.args
    assert_equal(found, values(run[1]), ["lstm/cell/kernel"])


def test_a_run_with_more_layers_is_refused(run):
    config = toy.Config(units=3, start=str(run[0].path), normalize=False)
    with pytest.raises(UsageError, match=r"^--start=.*source: this model lacks .* such as batch_n"):
        transfer.start(toy, config, make(SOURCE, config=config), SOURCE)
