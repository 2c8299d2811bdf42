"""Models with a CRF: training, copies, exports, replicas, memory."""

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import D
from tests.layers.checks import assert_near
from tests.layers.crf_cases import ALLOWED, crf
from tests.layers.memory import assert_linear_memory
from tests.parameters import first_of
from unroll import layers

RNG = np.random.default_rng(8)


def test_a_tagger_trains_with_the_loss_and_is_saved(tmp_path):
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
    path = tmp_path / "tagger.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    assert (again.predict(words, verbose=0)["tags"] == predicted).all()


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="LiteRT needs the TensorFlow backend")
@pytest.mark.exhaustive
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
    compiled = tf.function(serve, input_signature=[*signature.values()], jit_compile=True)
    for batch, length in ((1, 7), (3, 40), (2, 1), (0, 4), (2, 0)):
        potentials = RNG.normal(size=(batch, length, D)).astype("float32")
        mask = RNG.random((batch, length)) > 0.3
        expected = serve(tf.constant(potentials), tf.constant(mask))
        found = [interpreter.get_signature_runner()(potentials=potentials, mask=mask)]
        if potentials.size:  # `test_empty_inputs` has the others
            found.append(compiled(tf.constant(potentials), tf.constant(mask)))
        for each in found:
            assert (np.asarray(each["tags"]) == expected["tags"].numpy()).all()
            for name in ("score", "marginals"):
                assert_near([each[name]], [expected[name]], 1e-5)


def tagger() -> keras.Model:
    inputs = keras.Input((None, 4))
    potentials = keras.layers.Dense(3, name="potentials")(inputs)
    allowed = layers.bio_transitions(["O", "B-x", "I-x"])
    layer = layers.CRF(3, allowed_transitions=allowed, name="crf")
    model = keras.Model(inputs, {"potentials": potentials, "tags": layer(potentials)})
    model.compile(keras.optimizers.SGD(0.1), loss={"potentials": layer.loss})
    return model


def saved(suffix: str):
    def copied(model, folder):
        model.save(folder / f"model.{suffix}")
        return keras.saving.load_model(folder / f"model.{suffix}")

    return copied


def cloned(model, folder):
    model = keras.models.clone_model(model)
    return keras.models.clone_model(model)


COPIES = {
    "keras": saved("keras"),
    "clone": cloned,
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "from_config": lambda model, folder: keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    ),
}


X = np.random.default_rng(15).normal(size=(8, 5, 4)).astype("float32")
GOLD = {"potentials": np.array([[0, 1, 2, 1, 0]] * 8)}


@pytest.fixture(scope="module")
def trained_tagger() -> tuple[keras.Model, list, list]:
    """A tagger after two epochs, and its weights after the first and the second."""
    model, weights = tagger(), []
    for _ in range(2):
        model.fit(X, GOLD, verbose=0)
        weights.append([w.copy() for w in model.get_weights()])
    return model, *weights


@pytest.mark.parametrize("name", first_of(COPIES))
@pytest.mark.exhaustive
def test_a_copy_of_a_compiled_model_trains_its_own_transitions(name, trained_tagger, tmp_path):
    model, before, after = trained_tagger
    again = COPIES[name](model, tmp_path)
    assert again.compiled
    again.set_weights(before)
    again.fit(X, GOLD, verbose=0)
    assert_near(again.get_weights(), after, 1e-6)
    assert_near(model.get_weights(), after, 0)


def test_a_loss_without_its_layer():
    config = layers.CRF(3).loss.get_config()
    with pytest.raises(ValueError, match="needs the CRF layer"):
        type(layers.CRF(3).loss).from_config(config)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="it needs tf.distribute")
def test_a_replica_without_examples_trains():
    command = [sys.executable, "-m", "tests.layers.empty_replica"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="it traces graphs of TensorFlow")
def test_memory_is_linear_in_the_length():
    import tensorflow as tf

    layer = crf("float32", allowed_transitions=ALLOWED)

    def train(x, tags, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = -tf.reduce_mean(layer.log_likelihood(x, tags, mask))
        return tape.gradient(loss, [x, *layer.trainable_variables])

    def infer(x, tags, mask):
        return layer.decode(x, mask), layer.marginals(x, mask)

    for function in (train, infer):
        assert_linear_memory(
            function,
            lambda length: [
                tf.TensorSpec([2, length, D]),
                tf.TensorSpec([2, length], tf.int32),
                tf.TensorSpec([2, length], tf.bool),
            ],
        )
