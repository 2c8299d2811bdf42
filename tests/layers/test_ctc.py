"""CTC against the enumeration of all paths."""

import itertools

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

RNG = np.random.default_rng(14)
NEEDS_TENSORFLOW = pytest.mark.skipif(
    running.BACKEND != "tensorflow", reason="XLA and LiteRT need the TensorFlow backend"
)


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def collapse(path, blank: int) -> tuple:
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def probabilities(logits, blank: int) -> dict:
    """The probability of each sequence of labels of one example `[T, K]`."""
    log_probs, found = log_softmax(logits.astype("float64")), {}
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = collapse(path, blank)
        prob = np.exp(sum(row[k] for row, k in zip(log_probs, path, strict=True)))
        found[labels] = found.get(labels, 0.0) + prob
    return found


def padded(rows, size: int) -> np.ndarray:
    return np.array([[*row, *[0] * (size - len(row))] for row in rows])


@pytest.mark.parametrize("blank", [0, 2])
def test_loss_by_enumeration(blank):
    logits = RNG.normal(size=(6, 5, 3)).astype("float32")
    frames = np.array([5, 4, 3, 5, 2, 1])
    letters = [k for k in range(3) if k != blank]
    a, b = letters
    rows = [(a, a), (a, b, a), (), (a, b, b), (b, b), (a, b)]
    lengths = np.array([len(row) for row in rows])
    given = tensors(padded(rows, 4), logits, lengths, frames)
    losses = running.numpy(layers.ctc_loss(*given, blank=blank))
    impossible = running.numpy(layers.ctc_infeasible(given[0], given[2], given[3]))
    assert impossible.tolist() == [False, False, False, False, True, True]
    assert (losses[impossible] == 0).all()
    for k in np.flatnonzero(~impossible):
        expected = probabilities(logits[k, : frames[k]], blank)[rows[k]]
        assert np.exp(-losses[k]) == pytest.approx(expected, rel=1e-4)


def test_as_many_labels_as_frames():
    """Without equal neighbors there is one path."""
    logits = RNG.normal(size=(3, 6, 5)).astype("float32")
    labels = np.array([[1, 2, 1, 2, 3, 4], [4, 3, 4, 3, 4, 3], [1, 2, 3, 4, 1, 2]])
    losses = running.numpy(layers.ctc_loss(*tensors(labels, logits, np.full(3, 6))))
    own = np.take_along_axis(log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, -own.sum(axis=1), rtol=1e-5)


def test_probabilities_of_all_labels_sum_to_one():
    logits = RNG.normal(size=(1, 4, 3)).astype("float32")
    every = [row for n in range(5) for row in itertools.product((1, 2), repeat=n)]
    lengths = np.array([len(row) for row in every])
    given = tensors(padded(every, 4), logits.repeat(len(every), axis=0), lengths)
    frames = np.full(len(every), 4)
    losses = running.numpy(layers.ctc_loss(*given, frames))
    possible = ~running.numpy(layers.ctc_infeasible(given[0], lengths, frames))
    assert np.exp(-losses[possible]).sum() == pytest.approx(1, abs=1e-4)
    assert 0 < possible.sum() < len(every)


def test_padding_does_not_change_the_result():
    logits = RNG.normal(size=(2, 5, 4)).astype("float32")
    labels, lengths, frames = np.array([[1, 1, 3], [2, 0, 0]]), np.array([3, 1]), np.array([5, 3])
    expected = running.numpy(layers.ctc_loss(*tensors(labels, logits, lengths, frames)))
    longer = np.concatenate([logits, 50 * RNG.normal(size=(2, 3, 4))], axis=1).astype("float32")
    labels = np.concatenate([labels, np.array([[1, 2], [3, 3]])], axis=1)
    found = running.numpy(layers.ctc_loss(*tensors(labels, longer, lengths, frames)))
    assert_near([found], [expected], 1e-5)
    for search in (layers.ctc_greedy, layers.ctc_beam_search):
        short, long = (search(*tensors(x, frames)) for x in (logits, longer))
        assert (running.numpy(short.labels) == running.numpy(long.labels)[..., :5]).all()
        assert (running.numpy(long.labels)[..., 5:] == -1).all()
        assert_near(
            [running.numpy(long.log_probabilities)], [running.numpy(short.log_probabilities)], 1e-5
        )


def test_gradient_by_differences_and_zero_if_infeasible():
    import keras

    labels, lengths, frames = np.array([[1, 2], [1, 1]]), np.array([2, 2]), np.array([4, 2])

    class Loss(keras.layers.Layer):
        def call(self, logits):
            return layers.ctc_loss(labels, logits, lengths, frames)

    logits = RNG.normal(size=(2, 4, 3)).astype("float32")
    found = running.evaluate(Loss(), logits, cotangents=[np.ones(2)]).gradients[0]
    assert not found[1].any()
    expected = np.zeros((4, 3))
    for position in np.ndindex(4, 3):
        ends = []
        for step in (1e-5, -1e-5):
            moved = logits[0].astype("float64")
            moved[position] += step
            ends.append(-np.log(probabilities(moved, 0)[1, 2]))
        expected[position] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_a_doubled_letter_needs_a_blank():
    """The example of the lectures: frames of 好 棒 棒, with and without a blank."""
    good, great = 1, 2
    frames = [good, good, good, great, great, great, great, great]
    trimmed = [k for k, _ in itertools.groupby(frames)]
    assert trimmed == [good, great]  # the same for each path of 好棒棒 without a blank

    def greedy(path):
        logits = 9 * np.eye(3, dtype="float32")[np.array([path])]
        found = layers.ctc_greedy(ops.convert_to_tensor(logits))
        return running.numpy(found.labels)[0, : int(found.lengths[0])].tolist()

    assert greedy([good, 0, 0, great, 0, 0, 0, 0]) == [good, great]
    assert greedy([good, 0, 0, great, 0, great, 0, 0]) == [good, great, great]
    spells = [
        path
        for path in itertools.product((1, 2), repeat=4)
        if [k for k, _ in itertools.groupby(path)] == [good, great, great]
    ]
    assert spells == []
    logits = np.zeros((1, 4, 3), "float32")
    loss = layers.ctc_loss(*tensors(np.array([[1, 2, 2]]), logits, np.array([3])))
    assert float(np.exp(-running.numpy(loss))[0] * 3**4) == pytest.approx(1)  # 好 棒 - 棒


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
            assert (running.numpy(found.log_probabilities)[k, len(ordered) :] < -1e8).all()


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
        exists = both[0][0] > -1e8
        assert_near([both[0][0][exists]], [both[1][k][exists]], 1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = ops.cast(RNG.normal(size=(2, 5, 4)), dtype)
    exact = ops.cast(logits, "float32")
    labels, lengths = np.array([[1, 1, 3], [2, 0, 0]]), np.array([3, 1])
    found, expected = (running.numpy(layers.ctc_loss(labels, x, lengths)) for x in (logits, exact))
    assert found.dtype == "float32"
    assert_near([found], [expected], 1e-6)


@NEEDS_TENSORFLOW
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


LOGITS = np.zeros((2, 5, 4), "float32")
INVALID = [
    (lambda: layers.ctc_greedy(LOGITS[0]), ["[B, T, K]", "(5, 4)"]),
    (lambda: layers.ctc_greedy(LOGITS, blank=4), ["blank", "4 labels", "got 4"]),
    (lambda: layers.ctc_loss(np.ones(3), LOGITS, np.ones(2)), ["[B, L]", "(3,)"]),
    (lambda: layers.ctc_beam_search(LOGITS, beam_width=0), ["beam_width", "0"]),
    (
        lambda: layers.ctc_beam_search(LOGITS, num_return_sequences=11),
        ["num_return_sequences", "10, got 11"],
    ),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)


@pytest.mark.parametrize("blank", [0, 2])
def test_padding_with_blanks_replaces_lengths(blank):
    logits = RNG.normal(size=(4, 6, 3)).astype("float32")
    frames, lengths = np.array([6, 4, 3, 5]), np.array([2, 1, 0, 3])
    a, b = (k for k in range(3) if k != blank)
    rows = [(a, b), (a,), (), (b, b, a)]
    labels = np.array([[*row, *[-1] * (3 - len(row))] for row in rows])
    given = tensors(np.maximum(labels, 0), logits, lengths, frames)
    expected = running.numpy(layers.ctc_loss(*given, blank=blank))
    mask = np.arange(6) < frames[:, None]
    padded_logits = layers.pad_with_blanks(*tensors(logits, mask), blank=blank)
    loss = layers.CTCLoss(blank)
    for filled in (labels, np.where(labels < 0, blank, labels)):
        found = running.numpy(loss(*tensors(filled), padded_logits))
        assert float(found) == pytest.approx(expected.mean(), abs=1e-5)
    for search in (layers.ctc_greedy, layers.ctc_beam_search):
        with_lengths = search(given[1], given[3], blank=blank)
        without = search(padded_logits, blank=blank)
        for one, other in zip(with_lengths, without, strict=True):
            np.testing.assert_allclose(running.numpy(other), running.numpy(one), atol=1e-4)
    again = layers.CTCLoss.from_config(loss.get_config())
    assert again.blank == blank
