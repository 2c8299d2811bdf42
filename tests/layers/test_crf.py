"""The conditional random field against the enumeration of all paths."""

import tempfile

import keras
import numpy as np
import pytest
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.layers.structured_cases import CASES
from unroll import layers

RNG = np.random.default_rng(8)
ALLOWED = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]], "bool")


def crf(dtype=running.PRECISE, **options) -> layers.CRF:
    layer = layers.CRF(D, dtype=dtype, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(9)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


def parameters(layer) -> list[np.ndarray]:
    """The layer's weights, minus infinity where a transition is not allowed."""
    weights = layer.get_weights()
    if layer.allowed_transitions is None:
        return weights
    allowed = np.array(layer.allowed_transitions)
    parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
    return [np.where(part, w, -np.inf) for part, w in zip(parts, weights, strict=True)]


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]


@pytest.mark.parametrize("allowed", [None, ALLOWED])
def test_tags_marginals_and_likelihood_by_enumeration(allowed):
    layer = crf(allowed_transitions=allowed)
    potentials, mask = tensors(SEQUENCES.astype(running.PRECISE), MASK)
    gold = RNG.integers(0, D, (B, T))
    tags, scores = (running.numpy(x) for x in layer.decode(potentials, mask))
    marginals = running.numpy(layer.marginals(potentials, mask))
    likelihood = running.numpy(layer.log_likelihood(potentials, *tensors(gold), mask))
    for b, keep in enumerate(MASK):
        found = reference.paths(SEQUENCES[b, keep], *parameters(layer))
        log_z = reference.log_sum(found.values())
        best = max(found, key=found.get)
        assert tuple(tags[b, keep]) == best
        assert (tags[b, ~keep] == 0).all()
        assert scores[b] == pytest.approx(found[best], abs=1e-4)
        expected = np.zeros((T, D))
        for path, score in found.items():
            expected[np.flatnonzero(keep), list(path)] += np.exp(score - log_z)
        assert_near([marginals[b]], [expected], 10 * running.EXACT)
        score = found[tuple(gold[b, keep])]
        if np.isfinite(score):
            assert likelihood[b] == pytest.approx(score - log_z, abs=1e-4)
        else:
            assert likelihood[b] < -1e6


def test_probabilities_of_all_sequences_sum_to_one():
    layer = crf()
    potentials = SEQUENCES[:1, :4].repeat(D**4, axis=0).astype(running.PRECISE)
    every = np.stack(np.meshgrid(*[range(D)] * 4), axis=-1).reshape(-1, 4)
    found = running.numpy(layer.log_likelihood(*tensors(potentials, every)))
    assert np.exp(found.astype("float64")).sum() == pytest.approx(1, abs=1e-4)


def test_the_gradient_of_log_z_is_the_marginals():
    potentials = SEQUENCES.astype(running.PRECISE)
    (case,) = CASES
    layer = case.build()
    found = running.evaluate(layer, potentials, (), MASK, [np.ones(B)])
    marginals = running.numpy(layer.marginals(*tensors(potentials, MASK)))
    assert_near([found.gradients[0]], [marginals], 100 * running.EXACT)


def test_transitions_are_obeyed_for_any_potentials():
    labels = ["O", "B-city", "I-city", "B-day", "I-day"]
    layer = layers.CRF(5, allowed_transitions=layers.bio_transitions(labels))
    potentials = 50 * RNG.normal(size=(40, 9, 5)).astype("float32")
    found = running.numpy(layer(*tensors(potentials)))
    free = running.numpy(layers.CRF(5)(*tensors(potentials)))
    assert not any(_breaks_bio([labels[k] for k in row]) for row in found)
    assert sum(_breaks_bio([labels[k] for k in row]) for row in free) > 20
    marginals = running.numpy(layer.marginals(*tensors(potentials)))
    assert marginals[:, 0, [2, 4]].max() == 0


def _breaks_bio(row) -> bool:
    previous_labels = ["O", *row[:-1]]
    return any(
        label.startswith("I-") and previous not in ("B-" + label[2:], label)
        for previous, label in zip(previous_labels, row, strict=True)
    )


def test_without_transitions_it_is_a_softmax_at_each_step():
    layer = layers.CRF(D)
    potentials = ops.convert_to_tensor(SEQUENCES.astype("float32"))
    assert (running.numpy(layer(potentials)) == SEQUENCES.argmax(axis=-1)).all()
    expected = running.numpy(ops.softmax(potentials))
    assert_near([running.numpy(layer.marginals(potentials))], [expected], 1e-5)


def test_long_sequences_of_large_potentials_stay_exact():
    """Compared with a plain recursion in float64."""
    layer = crf("float32")
    potentials = 20 * RNG.normal(size=(2, 300, D)).astype("float32")
    transitions, start, end = (w.astype("float64") for w in layer.get_weights())
    alpha = start + potentials[:, 0]
    for t in range(1, 300):
        options = alpha[:, :, None] + transitions
        top = options.max(axis=1)
        alpha = top + np.log(np.exp(options - top[:, None]).sum(axis=1)) + potentials[:, t]
    expected = [reference.log_sum(row) for row in alpha + end]
    found = running.numpy(layer.log_partition(ops.convert_to_tensor(potentials)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_tagger_trains_with_the_loss_and_is_saved():
    """The tags depend on the previous tag, so that a model of single steps cannot predict them."""
    rng = np.random.default_rng(10)
    words = rng.integers(1, 4, (400, 6))
    # A tag is the parity of the word, but 0 after the tag 1.
    tags = np.zeros((400, 6), "int32")
    for t in range(6):
        previous = tags[:, t - 1] if t else 0
        tags[:, t] = np.where(previous == 1, 0, words[:, t] % 2)
    words[:, 5:][::2] = 0
    gold = np.where(words > 0, tags, -1)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None,), dtype="int32")
    # The potentials have a Keras mask, which must not reach the loss.
    potentials = keras.layers.Embedding(4, 2, mask_zero=True)(inputs)
    crf = layers.CRF(2, name="crf")
    found = crf(potentials, mask=ops.not_equal(inputs, 0))
    model = keras.Model(inputs, {"potentials": potentials, "tags": found})
    model.compile(keras.optimizers.Adam(0.1), loss={"potentials": crf.loss})
    model.fit(words, {"potentials": gold}, epochs=20, batch_size=50, verbose=0)
    predicted = model.predict(words, verbose=0)["tags"]
    accuracy = (predicted == tags)[words > 0].mean()
    independent = model.predict(words, verbose=0)["potentials"].argmax(axis=-1)
    assert accuracy > 0.95
    assert (independent == tags)[words > 0].mean() < accuracy
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/tagger.keras")
        again = keras.saving.load_model(f"{folder}/tagger.keras", compile=False)
    assert (again.predict(words, verbose=0)["tags"] == predicted).all()


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_tags_in_litert_and_xla():
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    layer = crf("float32", allowed_transitions=ALLOWED)

    def serve(potentials, mask):
        tags, score = layer.decode(potentials, mask)
        return {"tags": tags, "score": score, "marginals": layer.marginals(potentials, mask)}

    signature = {
        "potentials": tf.TensorSpec([None, None, D], tf.float32),
        "mask": tf.TensorSpec([None, None], tf.bool),
    }
    interpreter = Interpreter(model_content=convert(serve, signature), num_threads=1)
    for batch, length in ((1, 7), (3, 40), (2, 1)):
        potentials = RNG.normal(size=(batch, length, D)).astype("float32")
        mask = RNG.random((batch, length)) > 0.3
        expected = serve(tf.constant(potentials), tf.constant(mask))
        for found in (
            interpreter.get_signature_runner()(potentials=potentials, mask=mask),
            tf.function(serve, jit_compile=True)(tf.constant(potentials), tf.constant(mask)),
        ):
            assert (np.asarray(found["tags"]) == expected["tags"].numpy()).all()
            for name in ("score", "marginals"):
                assert_near([found[name]], [expected[name]], 1e-5)


INVALID = [
    (lambda: layers.CRF(0), ["num_tags", "0"]),
    (lambda: layers.CRF(3, allowed_transitions=np.ones((3, 3))), ["[4, 4]", "[3, 3]"]),
    (lambda: layers.CRF(3)(np.zeros((2, 5, 4), "float32")), ["[B, T, 3]", "(2, 5, 4)"]),
    (lambda: layers.bio_transitions(["O", "S-city"]), ["B-<name>", "'S-city'"]),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)
