"""Word vectors: losses and updates, neighbors, figures, the baseline."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.word_vectors import app, expressions, metrics, network, serving
from unroll.pipelines import word_vectors as pairs
from unroll.pipelines.word_questions import Section
from unroll.pipelines.word_vectors import BLOCK

VOCABULARY = ["[PAD]", "[UNK]", *"abcdefghij", "new_york"]
SMALL = {
    "embedding_dim": 4, "window": 2, "shared_negatives": 3, "min_count": 1, "add_contexts": False,
}  # fmt: skip


def make(seed: int = 0, **options) -> Trained:
    config = app.Config(**SMALL | options)
    assets = {"vocabulary": VOCABULARY, "counts": np.ones(len(VOCABULARY), "int64")}
    model = app.build(config, assets)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.8, size=weight.shape))
    return Trained(config, assets, model)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return make()


def blocks(seed: int = 0, count: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words with ends of lines between them, negative samples, sizes of windows."""
    rng = np.random.default_rng(seed)
    words = rng.choice([0, *range(2, len(VOCABULARY))], (count, BLOCK + 4)).astype("int32")
    negatives = rng.integers(2, len(VOCABULARY), (count, 3)).astype("int32")
    return words, negatives, rng.integers(1, 3, (count, BLOCK)).astype("int32")


def windows_of(words: np.ndarray, windows: np.ndarray):
    """The row, the center and the words in its window, in plain loops."""
    for row, (line, sizes) in enumerate(zip(words, windows, strict=True)):
        for k, size in enumerate(sizes, start=2):
            if line[k] == 0:
                continue
            inside = []
            for step in (-1, 1):
                for j in itertools.takewhile(
                    lambda j, line=line: line[j] != 0, range(k + step, k + step * (size + 1), step)
                ):
                    inside.append(line[j])
            yield row, line[k], inside


def softplus(x):
    return tf.math.softplus(x)


def reference_loss(trained: Trained, words, negatives, windows, vectors, contexts):
    """The sum of the losses of all pairs, one after another, and their number."""
    weight = trained.config.negatives / negatives.shape[1]
    total, number = 0.0, 0
    for row, center, inside in windows_of(words, windows):
        if trained.config.objective == "skip_gram":
            examples = [(vectors[center], other) for other in inside]
        else:
            mean = sum(vectors[other] for other in inside) / max(len(inside), 1)
            examples = [(mean, center)] if inside else []
        for x, target in examples:
            number += 1
            total += softplus(-tf.tensordot(x, contexts[target], 1))
            for sample in negatives[row]:
                total += weight * softplus(tf.tensordot(x, contexts[sample], 1))
    return total, number


@pytest.mark.parametrize("objective", ["skip_gram", "cbow"])
def test_loss_and_update_are_those_of_all_pairs(objective):
    trained = make(objective=objective, negatives=5, clip_norm=0.0)
    model, batch = trained.model, blocks()
    vectors, contexts = (
        tf.constant(layer.embeddings.numpy()) for layer in (model.vectors, model.contexts)
    )
    with tf.GradientTape() as tape:
        tape.watch([vectors, contexts])
        expected, number = reference_loss(trained, *batch, vectors, contexts)
    loss, count = model.losses(*map(tf.constant, batch))
    assert float(count) == number
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    of_vectors, of_contexts = map(
        tf.convert_to_tensor, tape.gradient(expected, [vectors, contexts])
    )
    mean = float(model._update(*map(tf.constant, batch), 0.01, tf.constant(True)))
    assert mean == pytest.approx(float(expected) / number, rel=1e-5)
    np.testing.assert_allclose(model.contexts.embeddings, contexts - 0.01 * of_contexts, atol=1e-5)
    if objective == "skip_gram":
        np.testing.assert_allclose(model.vectors.embeddings, vectors - 0.01 * of_vectors, atol=1e-5)
    else:  # the gradient of a mean is not divided by the number of words, as in word2vec
        changed = (vectors - model.vectors.embeddings).numpy()
        assert (np.sign(changed) == np.sign(of_vectors.numpy())).mean() > 0.8
        assert np.abs(changed).sum() > 1.5 * 0.01 * np.abs(of_vectors.numpy()).sum()


def test_words_that_do_not_occur_are_not_changed(trained):
    trained = make()
    words, negatives, windows = blocks(count=1)
    words = np.where(words > 5, 5, words)
    before = trained.model.vectors.embeddings.numpy()
    trained.model._update(*map(tf.constant, (words, negatives, windows)), 0.1, tf.constant(False))
    changed = np.flatnonzero((trained.model.vectors.embeddings.numpy() != before).any(axis=1))
    assert set(changed) <= set(np.unique(words)) - {0}
    assert len(changed) > 1


def test_the_learning_rate_decreases_from_the_first_to_the_last_word():
    trained = make(epochs=4, learning_rate=0.8)
    trained.model.blocks = 2
    rates = []

    def record(words, negatives, windows, rate, with_loss):
        rates.append(float(rate))
        return tf.constant(0.0)

    trained.model._update = record
    words, negatives, windows = blocks(count=6)
    progress = np.arange(6, dtype="float32") / 6
    features = {"words": words, "negatives": negatives, "progress": progress}
    for epoch in range(4):
        trained.model.optimizer.learning_rate = trained.config.learning_rate_at(epoch, [])
        trained.model.train_step(
            tf.nest.map_structure(tf.constant, (features, {"windows": windows}))
        )
    np.testing.assert_allclose(rates, 0.8 * (1 - np.arange(12) / 12), atol=1e-6)
    constant = make(schedule="constant", learning_rate=0.8)
    assert constant.model.decay == 0
    assert constant.config.learning_rate_at(3, []) == 0.8


class TestNgrams:
    OPTIONS = {"ngram_buckets": 50, "min_ngram": 2, "max_ngram": 3}

    def test_a_vector_is_the_mean_of_the_word_and_its_ngrams(self):
        trained = make(**self.OPTIONS)
        model = trained.model
        rows = pairs.letter_ngrams(tf.constant(["b", "zebra"]), 2, 3, 50).to_list()
        ngrams = model.ngrams.embeddings.numpy()
        expected = np.mean([model.vectors.embeddings.numpy()[3], *ngrams[rows[0]]], axis=0)
        np.testing.assert_allclose(model.matrix()[3], expected, atol=1e-6)
        ids = {"words": tf.constant([3]), "ngrams": tf.constant([[*rows[0], 0, 0]])}
        np.testing.assert_allclose(model(ids)["vectors"][0], expected, atol=1e-6)
        # A word without a vector of its own.
        lookup = serving.Lookup(trained)
        _, vectors, known = lookup(tf.constant(["zebra", "B", "!"]))
        assert known.numpy().tolist() == [True, True, False]
        np.testing.assert_allclose(vectors[0], ngrams[rows[1]].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(vectors[1], expected, atol=1e-6)

    def test_an_unknown_word_of_any_length_has_a_vector(self):
        lookup = serving.Lookup(make(**self.OPTIONS))
        _, vectors, known = lookup(tf.constant(["\u4e00" * 2**18 + "a", "\u4e00" * 200]))
        np.testing.assert_array_equal(vectors[0], vectors[1])
        assert known.numpy().all()

    def test_an_update_changes_the_ngrams_of_the_words(self):
        trained = make(**self.OPTIONS)
        words, negatives, windows = (tf.constant(part) for part in blocks())
        ngrams, before = trained.model.ngrams.embeddings, None
        before, first = ngrams.numpy(), float(trained.model.losses(words, negatives, windows)[0])
        for _ in range(5):
            trained.model._update(words, negatives, windows, 0.02, tf.constant(False))
        assert float(trained.model.losses(words, negatives, windows)[0]) < first
        used = np.unique(trained.model.table.numpy())
        changed = np.flatnonzero((ngrams.numpy() != before).any(axis=1))
        assert set(changed) <= set(used) - {0}
        assert len(changed) > 10


def test_context_vectors_are_added():
    alone, both = make().model, make(add_contexts=True).model
    expected = alone.vectors.embeddings.numpy() + alone.contexts.embeddings.numpy()
    np.testing.assert_array_equal(alone.matrix(), alone.vectors.embeddings)
    np.testing.assert_allclose(both.matrix(), expected, atol=1e-6)


class TestNeighbors:
    def test_they_have_the_largest_cosines(self, trained):
        matrix = trained.model.matrix().numpy()
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        query = np.array([[1.0, -2.0, 0.5, 3.0]], "float32")
        scores, ids = network.nearest(
            tf.constant(matrix), tf.constant(query), tf.constant([[4]]), 3
        )
        cosines = unit @ query[0] / np.linalg.norm(query)
        order = [k for k in np.argsort(-cosines) if k not in (0, 1, 4)][:3]
        assert ids[0].numpy().tolist() == order
        np.testing.assert_allclose(scores[0], cosines[order], atol=1e-6)

    def test_analogies(self):
        matrix = np.zeros((8, 4), "float32")
        matrix[2:7] = [[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]
        found = network.answer(tf.constant(matrix), tf.constant([[2, 3, 4], [3, 2, 5]]))
        assert found.numpy().tolist() == [5, 4]

    def test_expressions(self, trained):
        results = app.predict(trained, ["a - b + New York", "C", "zz - a", "- a"])
        unit = network.normalized(trained.model.matrix()).numpy()
        query = unit[2] - unit[3] + unit[12]
        cosines = unit @ query / np.linalg.norm(query)
        order = [k for k in np.argsort(-cosines) if k not in (0, 1, 2, 3, 12)]
        assert [each["word"] for each in results[0]["neighbors"]] == [VOCABULARY[k] for k in order]
        assert results[0]["neighbors"][0]["score"] == pytest.approx(cosines[order[0]], abs=1e-5)
        assert "c" not in {each["word"] for each in results[1]["neighbors"]}
        assert results[2] == {"input": "zz - a", "unknown": ["zz"], "neighbors": []}
        assert app.show(results[2]) == "zz - a: no vector for zz"
        assert results[3]["neighbors"][0]["score"] == pytest.approx(-min(unit[3:] @ unit[2]))
        one = dataclasses.replace(trained, config=dataclasses.replace(trained.config, neighbors=1))
        [short] = app.predict(one, ["c"])
        best = results[1]["neighbors"][0]
        assert app.show(short) == f"c: {best['word']} {best['score']:.3f}"

    @pytest.mark.parametrize("text", ["", "  ", "a + ", "a - + b", "-"])
    def test_an_expression_without_a_word_is_refused(self, text):
        with pytest.raises(UsageError, match="neither a word nor an expression"):
            expressions.parse(text)

    def test_a_hyphen_is_no_sign(self):
        assert expressions.parse("x-ray - y") == [(1, "x-ray"), (-1, "y")]


class TestFigures:
    SECTIONS = [
        Section("capitals", [("a", "b", "c", "d"), ("a", "b", "c", "Z")]),
        Section("gram1-plural", [("e", "f", "g", "h"), ("a", "e", "b", "h")]),
        Section("own", [("a", "b"), ("c", "d"), ("e", "f"), ("g", "zz"), ("a", "e")],
                [1.0, 2.0, 3.0, 9.0, 4.0]),
    ]  # fmt: skip

    def answers(self):
        """a is to b as c is to d, but the plurals are wrong once."""
        matrix = np.zeros((len(VOCABULARY), 6), "float32")
        matrix[2:10] = [
            [1, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0],
            [0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0], [0.6, 0, 0, 0, 0, 1], [0.6, 0, 0, 0, 1, 1],
        ]  # fmt: skip
        questions = [app._encoded(section, VOCABULARY) for section in self.SECTIONS]
        counts = np.ones(len(VOCABULARY), "int64")
        dataset = pairs.evaluation_batches(
            np.zeros(0, "int32"), counts, questions, window=2, negatives=3
        )
        return metrics.answers(matrix, self.SECTIONS, dataset)

    def test_by_section(self):
        found = self.answers()
        assert [each.is_right.tolist() for each in found[:2]] == [[True], [True, False]]
        figures = metrics.figures(found)
        assert figures["examples"] == 9
        assert figures["analogies"] == pytest.approx(2 / 3)
        assert figures["analogies_semantic"] == figures["analogies_capitals"] == 1
        assert figures["analogies_syntactic"] == figures["analogies_gram1_plural"] == 0.5
        assert figures["analogies_unknown"] == 1
        assert figures["own_unknown"] == 1
        # The cosines are .707, .707, .707 and 0; the ratings 1, 2, 3 and 4.
        assert figures["own"] == pytest.approx(-np.sqrt(0.6), abs=1e-6)

    def test_published_pairs_have_short_names(self):
        found = dataclasses.replace(self.answers()[2], section="WordSim-353")
        assert "wordsim_353" in metrics.figures([found])
        few = dataclasses.replace(found, found=found.found[:2], ratings=found.ratings[:2])
        assert metrics.figures([few]) == {"examples": 5, "wordsim_353_unknown": 1}


def test_vectors_of_counts_are_those_of_the_definition():
    """PPMI in plain loops; the product of the vectors of words and contexts is its best rank."""
    rng = np.random.default_rng(1)
    ids = np.append(rng.integers(0, 8, 300), 0).astype("int32")
    counts = np.zeros((8, 8))
    for k, word in enumerate(ids):
        for step in (1, 2):
            inside = ids[k + 1 : k + step + 1]
            if word and len(inside) == step and inside.all():
                counts[word, inside[-1]] += (3 - step) / 2
                counts[inside[-1], word] += (3 - step) / 2
    contexts = counts.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts * contexts.sum() / np.outer(counts.sum(axis=1), contexts))
    expected = np.maximum(np.nan_to_num(information, neginf=0), 0)
    values = np.linalg.svd(expected, compute_uv=False)
    found = metrics.ppmi_vectors(ids, 8, window=2, dim=7)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0) ** 2, values[:7], atol=1e-4)
    left, values, _ = np.linalg.svd(expected)
    np.testing.assert_allclose(
        np.abs(found[:, 0]), np.abs(left[:, 0]) * values[0] ** 0.5, atol=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1"),
        ({"window": 65}, "window must be at most 64"),
        ({"sample": 1.0}, r"sample must be in \[0, 1\)"),
        ({"min_ngram": 4, "max_ngram": 3}, "min_ngram must be at least 1 and at most max_ngram, 3"),
        ({"clip_norm": -1.0}, "clip_norm must be 0 or more"),
        ({"precision": "mixed_bfloat16"}, "precision must be float32 for word vectors"),
        ({"neighbors": 0}, "neighbors must be at least 1"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_the_gradients_of_words_are_limited():
    model = make(clip_norm=0.5, negatives=5).model
    before = model.vectors.embeddings.numpy()
    words, negatives, windows = blocks(count=1)
    words = np.where(words == 2, 3, words)
    words[0, 9] = 2  # one occurrence
    model._update(*map(tf.constant, (words, negatives, windows)), 0.01, tf.constant(False))
    step = np.linalg.norm(before - model.vectors.embeddings.numpy(), axis=1)
    assert step[2] == pytest.approx(0.01 * 0.5, rel=1e-3)
    assert 0 < step[3] <= 0.01 * 0.5 * np.sum(words[0] == 3) + 1e-6


def test_vectors_that_are_not_finite_are_found():
    trained = make()
    words, negatives, windows = blocks(count=1)
    features = {"words": words, "negatives": negatives, "progress": np.zeros(1, "float32")}
    batch = tf.nest.map_structure(tf.constant, (features, {"windows": windows}))
    assert np.isfinite(trained.model.train_step(batch)["loss"])
    values = trained.model.vectors.embeddings.numpy()
    values[1] = np.inf  # the unknown word, which no loss reads
    trained.model.vectors.embeddings.assign(values)
    assert not np.isfinite(trained.model.train_step(batch)["loss"])


def test_xla_is_refused():
    with pytest.raises(ValueError, match="leave out --jit"):
        make(jit=True)


def test_a_model_is_saved_with_its_context_vectors(trained):
    saved = keras.Model(trained.model.inputs, trained.model.outputs)
    assert {weight.path.split("/")[0] for weight in saved.weights} == {"vectors", "contexts"}
