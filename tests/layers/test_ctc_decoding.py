"""Greedy and beam searches of CTC against the enumeration of all paths."""

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.ctc_reference import collapse, log_softmax, probabilities, tensors
from unroll import layers

RNG = np.random.default_rng(15)


@pytest.mark.parametrize("blank", [0, 2])
def test_greedy_is_the_collapsed_best_path(blank):
    logits = RNG.normal(size=(20, 9, 4)).astype("float32")
    frames = RNG.integers(1, 10, 20)
    found = layers.ctc_greedy(*tensors(logits, frames), blank=blank)
    for k in range(20):
        log_probs = log_softmax(logits[k, : frames[k]])
        expected = collapse(log_probs.argmax(axis=-1), blank)
        assert int(found.lengths[k]) == len(expected)
        assert running.numpy(found.labels)[k].tolist() == [*expected, *[-1] * (9 - len(expected))]
        total = float(found.log_probabilities[k])
        assert total == pytest.approx(log_probs.max(axis=-1).sum(), rel=1e-4)


@pytest.mark.parametrize("blank", [0, 1])
def test_a_wide_beam_equals_the_enumeration(blank):
    logits = RNG.normal(size=(4, 5, 3)).astype("float32")
    frames = np.array([5, 4, 5, 1])
    found = layers.ctc_beam_search(
        *tensors(logits, frames), beam_width=64, blank=blank, num_return_sequences=5
    )
    for k in range(4):
        probs = probabilities(logits[k, : frames[k]], blank)
        ordered = sorted(probs, key=probs.get, reverse=True)[:5]
        for n, labels in enumerate(ordered):
            length = int(found.lengths[k, n])
            assert tuple(running.numpy(found.labels)[k, n, :length]) == labels
            log_prob = float(found.log_probabilities[k, n])
            assert log_prob == pytest.approx(np.log(probs[labels]), abs=1e-4)
        if len(ordered) < 5:
            assert (running.numpy(found.log_probabilities)[k, len(ordered) :] == -np.inf).all()
            assert (running.numpy(found.labels)[k, len(ordered) :] == -1).all()


def test_the_beam_sums_the_paths_of_a_label():
    """Graves 2006, figure 2: the label is more probable than the best path, which is all blanks."""
    logits = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]], "float32"))
    assert int(layers.ctc_greedy(logits).lengths[0]) == 0
    found = layers.ctc_beam_search(logits, beam_width=2)
    assert running.numpy(found.labels).tolist() == [[[1, -1]]]
    assert np.exp(float(found.log_probabilities[0, 0])) == pytest.approx(0.64, abs=1e-4)


def test_a_batch_equals_single_examples():
    logits, frames = RNG.normal(size=(5, 8, 4)).astype("float32"), np.array([8, 3, 5, 1, 7])
    together = layers.ctc_beam_search(
        *tensors(logits, frames), beam_width=4, num_return_sequences=3
    )
    for k in range(5):
        one = ops.convert_to_tensor(logits[k : k + 1, : frames[k]])
        alone = layers.ctc_beam_search(one, beam_width=4, num_return_sequences=3)
        labels = running.numpy(together.labels)[k]
        assert (running.numpy(alone.labels)[0] == labels[:, : frames[k]]).all()
        both = [running.numpy(x.log_probabilities) for x in (alone, together)]
        exists = both[0][0] > -np.inf
        assert_near([both[0][0][exists]], [both[1][k][exists]], 1e-5)


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_xla_saved_model_and_litert(tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    logits, frames = tensors(RNG.normal(size=(3, 7, 4)).astype("float32"), np.array([7, 2, 5]))
    labels, lengths = np.array([[1, 1, 3], [2, 0, 0], [3, 2, 0]]), np.array([3, 1, 2])
    eager = layers.ctc_loss(labels, logits, lengths, frames)
    compiled = tf.function(layers.ctc_loss, jit_compile=True)(labels, logits, lengths, frames)
    assert_near([compiled], [eager], 1e-5)

    class Service(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, 4], name="logits"),
                tf.TensorSpec([None], tf.int32, name="frames"),
            ]
        )
        def serve(self, logits, frames):
            beam = layers.ctc_beam_search(logits, frames, num_return_sequences=3)
            return {"labels": beam.labels, "log_probabilities": beam.log_probabilities}

    service, frames = Service(), tf.cast(frames, tf.int32)
    expected = service.serve(logits, frames)
    tf.saved_model.save(service, str(tmp_path), signatures=service.serve)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    search = tf.function(lambda *x: service.serve.python_function(*x), jit_compile=True)
    eager = layers.ctc_beam_search(logits, frames, num_return_sequences=3)
    assert (expected["labels"].numpy() == eager.labels.numpy()).all()
    for found in (served(logits=logits, frames=frames), search(logits, frames)):
        assert (found["labels"].numpy() == expected["labels"].numpy()).all()
        assert_near([found["log_probabilities"]], [expected["log_probabilities"]], 1e-4)

    def greedy(logits, frames):
        return layers.ctc_greedy(logits, frames)._asdict()

    signature = {
        "logits": tf.TensorSpec([None, None, 4]),
        "frames": tf.TensorSpec([None], tf.int32),
    }
    file = convert(greedy, signature)
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    for batch, time in ((1, 30), (4, 5)):
        logits = RNG.normal(size=(batch, time, 4)).astype("float32")
        frames = RNG.integers(1, time + 1, batch).astype("int32")
        found, wanted = runner(logits=logits, frames=frames), greedy(logits, frames)
        assert (found["labels"] == wanted["labels"].numpy()).all()
        assert (found["lengths"] == wanted["lengths"].numpy()).all()


def test_searches_return_labels_for_logits_that_are_nan():
    logits = RNG.normal(size=(2, 5, 4)).astype("float32")
    logits[0, 2] = np.nan
    for search in (layers.ctc_greedy, layers.ctc_beam_search):
        labels = running.numpy(search(*tensors(logits)).labels)
        assert labels.min() >= -1
        assert labels.max() < 4


def test_searches_without_frames():
    logits = np.zeros((2, 0, 3), "float32")
    result = layers.ctc_greedy(logits)
    assert tuple(result.labels.shape) == (2, 0)
    assert running.numpy(result.lengths).tolist() == [0, 0]
    result = layers.ctc_beam_search(logits, num_return_sequences=2)
    assert tuple(result.labels.shape) == (2, 2, 0)
    assert running.numpy(result.log_probabilities).tolist() == [[0, -np.inf]] * 2


@pytest.mark.parametrize("dtype", [running.PRECISE, "float16", "bfloat16"])
def test_searches_in_other_dtypes(dtype):
    logits = ops.cast(RNG.normal(size=(2, 6, 4)), dtype)
    for search in (layers.ctc_greedy, layers.ctc_beam_search):
        found, expected = (search(x) for x in (logits, ops.cast(logits, "float32")))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(running.numpy(one), running.numpy(other), rtol=1e-5)


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="an eager loop takes minutes")
def test_the_beam_over_many_frames():
    """Log probabilities of thousands, and a decision on a difference of .001 in the first frame."""

    @running.in_graph
    def search(logits):
        return layers.ctc_beam_search(logits, beam_width=4, num_return_sequences=2)

    time = 2000
    logits = np.zeros((1, time, 4), "float32")
    logits[0, 0] = [-50.0, 20.0, 20.001, -50.0]
    logits[0, 1:] = np.log([0.9, 0.04, 0.03, 0.03])
    count = time // 2
    expected = np.cumsum([0, *RNG.integers(1, 3, count - 1)]) % 3  # no equal neighbors
    expected = np.array([3, 1, 2])[expected]
    logits[0, 1::2] = np.log(0.03)
    logits[0, np.arange(1, time, 2), expected] = np.log(0.91)
    found = search(logits)
    labels = running.numpy(found.labels)[0]
    assert (labels[:, 1 : count + 1] == expected).all()
    assert labels[:, 0].tolist() == [2, 1]
    assert (labels[:, count + 1 :] == -1).all()
    scores = running.numpy(found.log_probabilities)[0]
    assert scores[0] - scores[1] == pytest.approx(0.001, abs=1e-4)
    given = labels[:, : count + 1], logits.repeat(2, axis=0), np.array([count + 1] * 2)
    losses = running.in_graph(layers.ctc_loss)(*tensors(*given))
    assert (scores < -running.numpy(losses)).all()  # not all paths are in the beam
    confident = 1000 * logits
    best = layers.ctc_greedy(confident)
    assert (running.numpy(search(confident).labels)[:, 0] == running.numpy(best.labels)).all()
