"""The language model: adaptive softmax, learning rate by length, dropout, dynamic evaluation."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.test_language_model import VOCABULARY, make, whole_losses
from unroll.apps.core import cli, training, transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.language_model import app, dynamic, metrics, network
from unroll.apps.shared.token_losses import token_losses
from unroll.pipelines import language_modeling as modeling

IDS = np.random.default_rng(2).integers(1, 9, 60)
ADAPTIVE = {"softmax": "adaptive", "vocabulary_size": len(VOCABULARY)}


def batches(ids, streams: int = 1) -> tf.data.Dataset:
    return modeling.evaluation_batches(ids, streams, length=10)


def with_labels(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.map(lambda features, labels: ({**features, "labels": labels}, labels))


class TestAdaptiveSoftmax:
    @pytest.mark.parametrize("options", [{}, {"tie_weights": True}], ids=["free", "tied"])
    def test_labels_have_the_log_probabilities_of_all_tokens(self, options):
        trained = make(**ADAPTIVE, **options)
        assert trained.model.get_layer("logits").cutoffs == (1, 5)
        expected = whole_losses(trained, IDS)  # from those of all tokens
        found = [nats for _, _, nats in metrics.losses(trained, with_labels(batches(IDS)))]
        np.testing.assert_allclose(np.concatenate(found, axis=1)[0], expected, atol=2e-5)
        steps = network.Steps(trained.model, trained.config.tie_weights)
        states = steps.initial_states(1)
        for token, following, nats in zip(
            [modeling.END, *IDS[:8]], IDS[:9], expected, strict=False
        ):
            log_probabilities, states = steps.step(tf.constant([token]), states)
            assert -float(log_probabilities[0, following]) == pytest.approx(nats, abs=2e-5)

    @pytest.mark.exhaustive
    def test_it_trains_and_continues_prompts(self):
        trained = make(**ADAPTIVE, tie_weights=True, learning_rate=0.02, average=0.0)
        before = app.score(trained, with_labels(batches(IDS)))["nats_per_token"]
        training = with_labels(batches(IDS, streams=3)).repeat(10)
        trained.model.fit(training, shuffle=False, verbose=0)
        assert app.score(trained, with_labels(batches(IDS)))["nats_per_token"] < before - 0.1
        [result] = app.predict(trained, ["bad"])
        assert len(result["continuation"]) == 12

    def test_a_vocabulary_without_tails_is_refused(self):
        config = dataclasses.replace(make().config, softmax="adaptive", vocabulary_size=10_000)
        with pytest.raises(UsageError, match=r"larger vocabulary than 10 tokens.*softmax=full"):
            training._build(app, config, {"vocabulary": VOCABULARY})

    @pytest.mark.parametrize("tied", [False, True])
    def test_weights_of_another_run_are_matched_by_word(self, tied):
        """Within a cluster. A word that is new there keeps its initial vector."""
        source = make(**ADAPTIVE, tie_weights=tied)
        words = ["<unk>", "<eos>", "c", "b", "a", "d", "new", "g", "e", " "]  # "f" is missing
        target = make(words, seed=1, **ADAPTIVE, tie_weights=tied)
        before = target.model.get_layer("logits").get_weights()
        carried = transfer.carry(
            *((each.model, app.axes(each.config), each.assets) for each in (target, source))
        )
        assert carried.entries["vocabulary"] == (9, 10)
        assert not carried.fresh
        given, found = (each.model.get_layer("logits").get_weights() for each in (source, target))
        names = [w.name for w in target.model.get_layer("logits").weights]
        for name, old, a, b in zip(names, before, given, found, strict=True):
            start = {"embeddings_1": 1, "embeddings_2": 5}.get(name)
            if start is None:
                np.testing.assert_array_equal(a, b)
                continue
            for k, row in enumerate(b):
                word = words[start + k]
                expected = old[k] if word == "new" else a[VOCABULARY.index(word) - start]
                np.testing.assert_array_equal(row, expected)

    def test_load_adds_the_labels(self):
        config = app.Config(softmax="adaptive", generated_size=0.001, vocabulary_size=30)
        features, labels = next(iter(app.load(config, ("valid",))["valid"]))
        np.testing.assert_array_equal(features["labels"], labels)


@pytest.mark.parametrize(
    ("random_lengths", "rates"), [(True, [0.005, 0.01, 0.015]), (False, [0.01] * 3)]
)
def test_the_learning_rate_is_proportional_to_the_length(random_lengths, rates):
    """The first step of Adam changes each weight by the learning rate."""
    changes = []
    for length in (4, 8, 12):
        options = {"random_lengths": random_lengths, "depth": 1, "average": 0.0, "clip_norm": 0.0}
        model = make(learning_rate=0.01, **options).model
        model.run_eagerly = True  # there is nothing to trace for each length
        bias = model.get_layer("logits").bias
        before = bias.numpy()
        tokens = np.tile(np.arange(length) % 8 + 1, (3, 1))
        model.train_on_batch({"tokens": tokens, "start": np.ones(3, bool)}, tokens)
        changes.append(np.abs(bias.numpy() - before).max())
    assert changes == pytest.approx(rates, rel=0.01)


def test_the_learning_rate_of_half_precision_depends_on_the_length():
    """There, the optimizer is in one that scales the loss."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make(depth=1, precision="mixed_float16").model
    finally:
        keras.config.set_dtype_policy("float32")
    model.run_eagerly = True
    tokens = np.ones((3, 12), int)
    model.train_on_batch({"tokens": tokens, "start": np.ones(3, bool)}, tokens)
    assert float(model.optimizer.inner_optimizer.rate_scale) == 1.5


def test_dropout_of_recurrent_weights_is_that_of_the_cells():
    stack = make(recurrent_weight_dropout=0.5).model.get_layer("carried").stack
    assert [layer.cell.recurrent_weight_dropout for layer in stack.layers] == [0.5, 0.5]


class TestDynamicEvaluation:
    RATES = {"dynamic_rate": 0.02, "dynamic_decay": 0.05}

    def losses(self, trained: Trained, ids) -> np.ndarray:
        with dynamic.adapted(trained, batches(ids), batches(IDS, streams=2)) as found:
            return np.concatenate([nats[labels >= 0] for _, labels, nats in found])

    def test_the_loss_falls_on_a_text_unlike_the_training(self):
        trained = make(**self.RATES)
        text = np.tile([3, 4, 5, 6], 60)
        weights = [w.numpy() for w in trained.model.trainable_variables]
        static, found = whole_losses(trained, text), self.losses(trained, text)
        np.testing.assert_allclose(found[:10], static[:10], atol=2e-5)  # before the first step
        assert found[-40:].mean() < 0.5 * static[-40:].mean()
        for weight, before in zip(trained.model.trainable_variables, weights, strict=True):
            np.testing.assert_array_equal(weight, before)

    def test_weights_are_restored_after_an_error(self):
        trained = make(**self.RATES)
        weights = [w.numpy() for w in trained.model.trainable_variables]

        def broken():
            with dynamic.adapted(trained, batches(IDS), batches(IDS)) as found:
                next(found)
                assert not np.array_equal(trained.model.trainable_variables[0], weights[0])
                raise KeyError

        with pytest.raises(KeyError):
            broken()
        for weight, before in zip(trained.model.trainable_variables, weights, strict=True):
            np.testing.assert_array_equal(weight, before)

    def test_steps_are_those_of_the_paper(self):
        trained = make(**self.RATES)
        weights = trained.model.trainable_variables
        first = [w.numpy() for w in weights]

        def gradients(features, labels):
            with tf.GradientTape() as tape:
                nats, _ = token_losses(labels, trained.model(features))
                loss = tf.reduce_mean(nats[labels >= 0])
            return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, weights)]

        train, dataset = batches(IDS[:40]), batches(IDS[:20])
        squares = [[g**2 for g in gradients(*batch)] for batch in train]
        roots = [np.sqrt(np.mean(own, axis=0)) for own in zip(*squares, strict=True)]
        mean = np.concatenate([root.ravel() for root in roots]).mean()
        expected = []
        for batch in dataset:
            rows = zip(weights, gradients(*batch), roots, first, strict=True)
            for weight, gradient, root, start in rows:
                decay = np.minimum(0.05 * root / mean, 1) * (start - weight.numpy())
                weight.assign(weight - 0.02 * gradient / (root + 1e-3) + decay)
            expected.append([w.numpy() for w in weights])
        for weight, value in zip(weights, first, strict=True):
            weight.assign(value)
        with dynamic.adapted(trained, dataset, train) as found:
            for values in expected:
                next(found)
                for weight, value in zip(weights, values, strict=True):
                    np.testing.assert_allclose(weight, value, atol=1e-4)

    def test_without_a_rate_it_is_the_static_evaluation(self):
        config = app.Config(
            generated_size=0.001, units=8, dynamic=True, dynamic_rate=0.0, dynamic_length=20
        )
        assets = app.load(config, ()).assets
        trained = Trained(config, assets, app.build(config, assets))
        dataset = app.load(config, ("valid",), assets)["valid"]
        assert dataset.element_spec[1].shape == (1, 20)
        static = Trained(dataclasses.replace(config, dynamic=False), assets, trained.model)
        expected, found = (app.score(each, dataset) for each in (static, trained))
        assert found == pytest.approx(expected)


@pytest.mark.exhaustive
def test_the_command_changes_no_file_but_the_figures(tmp_path, capsys):
    config = app.Config(generated_size=0.001, units=6, embedding_dim=4, epochs=1)
    run = Run(tmp_path)
    training.train(app, config, run)

    def contents() -> dict:
        files = (path for path in run.path.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if "metrics" not in path.name}

    before = contents()
    command = ["language_model", "evaluate", str(run.path), "--split=valid"]
    figures = []
    for options in ([], ["--dynamic", "--dynamic-length=50"]):
        capsys.readouterr()
        assert cli.main([*command, *options]) == 0
        figures.append(json.loads(capsys.readouterr().out)["perplexity"])
        assert contents() == before
    assert figures[0] != figures[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic_length": 0}, "dynamic_length must be at least 1"),
        ({"dynamic_rate": -1.0}, r"dynamic_rate must be in \[0, 1\]"),
        ({"dynamic_decay": 2.0}, r"dynamic_decay must be in \[0, 1\]"),
        ({"recurrent_weight_dropout": 1.0}, "recurrent_weight_dropout must be in"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)
