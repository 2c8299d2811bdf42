"""A classifier that starts with the words and the recurrent layers of a language model."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.resuming import histories
from unroll.apps.core import cli, transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import save_weights
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.language_model import app as language_model
from unroll.apps.language_model import network
from unroll.apps.sentiment import app, fine_tuning

WORDS = ["<unk>", "<eos>", "the", "soup", "was", "bland", "."]
ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "bland", "was", "new", "the"],
    "labels": ["negative", "positive"],
}
SIZES = {"embedding_dim": 3, "units": 4, "depth": 2}


def randomized(model: keras.Model, seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))
    return model


def source(**options) -> Trained:
    config = language_model.Config(
        **{**SIZES, "batch_size": 2, "units_of_text": "tokens"} | options
    )
    assets = {"vocabulary": WORDS}
    return Trained(config, assets, randomized(language_model.build(config, assets)))


def target(**options) -> Trained:
    config = app.Config(**{**SIZES, "pool": "max", "bidirectional": False} | options)
    return Trained(config, ASSETS, randomized(app.build(config, ASSETS), seed=1))


def carry(given: Trained, into: Trained) -> transfer.Carried:
    return transfer.carry_shared((app, into), (language_model, given))


def values(trained: Trained) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in transfer.by_name(trained.model).items()}


@pytest.fixture(scope="module")
def given() -> Trained:
    return source()


ADAPTIVE = {"softmax": "adaptive", "tie_weights": True, "vocabulary_size": 20}


@pytest.mark.parametrize(
    ("of_run", "options"),
    [({}, {}), ({}, {"segment_length": 8}), (ADAPTIVE, {})],
    ids=["whole", "segments", "adaptive softmax"],
)
def test_the_recurrent_layers_compute_the_same(of_run, options):
    given, into = source(**of_run), target(**options)
    carried = carry(given, into)
    ids = tf.constant([[3, 1, 0, 1], [1, 0, 1, 0]])  # <unk> is 0
    steps = network.Steps(given.model, given.config.tie_weights)
    embedded = steps.embed(tf.gather([0, 2, 4, 5], ids))  # <unk>, the, was, bland
    expected = steps.stack(embedded)[0]
    layer = next(each for each in into.model.layers if each.name.startswith(("stack", "segmented")))
    states = keras.Model(into.model.input, layer.output)
    found = states({"tokens": tf.gather([1, 5, 3, 2], ids)})  # [UNK], the, was, bland
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert carried.entries == {"vocabulary": (4, 6)}
    assert list(carried.fresh) == ["probabilities"]
    stack = "segmented/stack" if options else "stack"
    assert carried.unchanged == [f"{stack}/layer_0/cell", f"{stack}/layer_1/cell"]


def test_the_report_says_what_became_of_the_layers(given):
    into = target()
    before = values(into)
    assert str(carry(given, into)).splitlines() == [
        "  carried over: stack (2)",
        "  carried over by entry (vocabulary: 4 of 6): embedding",
        "  initialized, since the run does not have them: probabilities",
        "  not used of the run: logits",
    ]
    after = values(into)
    np.testing.assert_array_equal(
        after["embedding/embeddings"][[0, 4]], before["embedding/embeddings"][[0, 4]]
    )
    np.testing.assert_array_equal(after["probabilities/kernel"], before["probabilities/kernel"])


def test_a_bidirectional_layer_gets_the_forward_half():
    given, into = source(depth=1), target(depth=1, bidirectional=True)
    before = values(into)
    carried = carry(given, into)
    after = values(into)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    forward = {name for name in after if "forward" in name}
    assert changed == forward | {"embedding/embeddings"}
    assert len(forward) == 3
    assert "backward" in " ".join(carried.fresh)


@pytest.mark.parametrize(
    ("of_run", "of_model", "message"),
    [
        ({"units_of_text": "characters"}, {}, "reads characters, and this model words"),
        ({}, {"units": 5}, r"stack/layer_0/cell .*sizes differ; use --units=4\.$"),
        ({}, {"embedding_dim": 7}, r"embedding .*sizes differ; use --embedding-dim=3\.$"),
        ({}, {"depth": 1}, r"lacks 3 of the run's 7 weights.*; use --depth=2\.$"),
        ({}, {"depth": 3}, r"the run lacks 3 of the 10 .* as stack/layer_2.*; use --depth=2\.$"),
        ({}, {"cell": "GRU"}, r"; use --cell=LSTM\.$"),
        ({}, {"bidirectional": True}, r"layer_1/.*; use --bidirectional=False\.$"),
        ({}, {"encoding": "one_hot"}, "none of the weights of this model"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_with_the_options(of_run, of_model, message):
    with pytest.raises(UsageError, match=message):
        carry(source(**of_run), target(**of_model))


@pytest.fixture(scope="module")
def folder(given, tmp_path_factory) -> str:
    """The folder of a run of the language model."""
    run = Run(tmp_path_factory.mktemp("runs") / "language model")
    run.path.mkdir()
    run.write_config(language_model, given.config)
    run.write_assets(given.assets)
    save_weights(given.model, run)
    return str(run.path)


def test_the_command_line_uses_the_options_of_the_run(folder, tmp_path, monkeypatch, capsys):
    class Stopped(Exception):
        pass

    def fit(*_, **__):
        raise Stopped

    monkeypatch.setattr(keras.Model, "fit", fit)
    run = tmp_path / "new"
    arguments = ["--generated-size=0.02", f"--run={run}", f"--start={folder}"]
    configs = []
    monkeypatch.setattr(
        app, "callbacks", lambda config, history: configs.append(config) or [], raising=True
    )
    with pytest.raises(Stopped):
        cli.main(["sentiment", "train", *arguments])
    [config] = configs
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert not config.bidirectional
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Weights of {folder}:"
    assert lines[1] == "  carried over: stack (2)"
    assert lines[2].startswith("  carried over by entry (vocabulary: ")
    # Options that are given are not replaced.
    assert cli.main(["sentiment", "train", *arguments, "--bidirectional"]) == 2
    error = capsys.readouterr().err
    assert "cannot be carried over" in error
    assert error.rstrip().endswith("; use --bidirectional=False.")


def test_other_runs_are_refused(folder, tmp_path, capsys):
    def start(content: dict | None) -> str:
        if content:
            (tmp_path / "config.json").write_text(json.dumps(content))
        assert cli.main(["sentiment", "train", f"--start={tmp_path}"]) == 2
        return capsys.readouterr().err

    assert "is not a run folder" in start(None)
    assert "is a run of vqa, whose weights sentiment cannot use" in start({"app": "vqa"})
    assert "is a run of none such, which is not an app" in start({"app": "none such"})
    assert "is a run of format 1" in start({"app": "language_model"})
    assert cli.main(["slot_filling", "train", f"--start={folder}"]) == 2
    assert "a run of language_model, whose weights slot_filling" in capsys.readouterr().err


LABELS = np.array([0, 1])
TOKENS = {"tokens": np.array([[2, 3, 5], [4, 1, 2]])}


def test_the_learning_rates_decrease_from_the_top():
    """The first step of Adam is the learning rate, whatever the gradient."""
    into = target(layer_decay=0.5, learning_rate=1e-2, clip_norm=0.0, dropout=0.0)
    before = values(into)
    into.model.train_on_batch(TOKENS, LABELS)
    after = values(into)
    factors = {"embedding": 1 / 8, "stack/layer_0": 1 / 4, "stack/layer_1": 1 / 2, "prob": 1}
    for name, value in after.items():
        [factor] = [f for start, f in factors.items() if name.startswith(start)]
        change = np.abs(value - before[name])
        assert change.max() == pytest.approx(factor * 1e-2, rel=1e-2), name


def test_layers_are_unfrozen_from_the_top():
    into = target()
    callback = fine_tuning.GradualUnfreezing(into.config.depth)
    callback.set_model(into.model)
    callback.on_train_begin()
    trained = []
    for epoch in (0, 1, 2, 3, 4, 2):
        callback.on_epoch_begin(epoch)
        own = {variable.path for variable in into.model.trainable_variables}
        trained.append({name for name, v in transfer.by_name(into.model).items() if v.path in own})
    names = set(values(into))
    top = {"probabilities/kernel", "probabilities/bias"}
    layers = [{name for name in names if f"layer_{k}/" in name} for k in (1, 0)]
    assert trained[:4] == [top, top | layers[0], top | layers[0] | layers[1], names]
    assert trained[4:] == [names, trained[2]]


@pytest.mark.exhaustive
def test_gradual_unfreezing_resumes_exactly(tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.PRESETS["reviews"], **SIZES, generated_size=0.02, epochs=3, pool="max",
        bidirectional=False, gradual_unfreezing=True, layer_decay=0.5, dropout=0.2,
    )  # fmt: skip
    changes, previous = [], {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            previous.update(values(Trained(config, {}, self.model)))

        def on_epoch_end(self, epoch, logs=None):
            now = values(Trained(config, {}, self.model))
            changed = [name for name, value in now.items() if (value != previous[name]).any()]
            changes.append({name.split("/cell")[0].split("/")[-1] for name in changed})

    unfreezing = fine_tuning.GradualUnfreezing
    monkeypatch.setattr(app, "callbacks", lambda *_: [unfreezing(config.depth), Watch()])
    whole, resumed = histories(app, config, tmp_path, monkeypatch)
    top = {"kernel", "bias"}
    epochs = [top, top | {"layer_1"}, top | {"layer_1", "layer_0"}]
    assert changes == [*epochs, *epochs[1:]]
    assert resumed == whole
