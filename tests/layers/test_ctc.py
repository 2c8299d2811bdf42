"""CTC against the enumeration of all paths."""

import copy
import itertools
import json
import pickle

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.ctc_reference import log_softmax, padded, probabilities, tensors
from tests.layers.memory import assert_linear_memory
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from unroll import layers

RNG = np.random.default_rng(14)
LOGITS = np.zeros((2, 5, 4), "float32")
NEEDS_TENSORFLOW = pytest.mark.skipif(
    running.BACKEND != "tensorflow", reason="XLA and LiteRT need the TensorFlow backend"
)


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = ops.cast(RNG.normal(size=(2, 5, 4)), dtype)
    exact = ops.cast(logits, "float32")
    labels, lengths = np.array([[1, 1, 3], [2, 0, 0]]), np.array([3, 1])
    found, expected = (running.numpy(layers.ctc_loss(labels, x, lengths)) for x in (logits, exact))
    assert found.dtype == "float32"
    assert_near([found], [expected], 1e-6)


def path_sums(log_probs, labels) -> float:
    """log P(labels) of one example in float64, for labels without equal neighbors."""
    states = [0, *itertools.chain(*((label, 0) for label in labels))]
    alpha = np.full(len(states), -np.inf)
    alpha[0] = 0
    for row in log_probs:
        new = np.logaddexp(alpha, np.append(-np.inf, alpha[:-1]))
        new[3::2] = np.logaddexp(new[3::2], alpha[1:-2:2])
        alpha = new + row[states]
    return np.logaddexp(alpha[-1], alpha[-2])


@pytest.mark.parametrize("scale", [1, 300])
def test_losses_of_many_frames_in_float32(scale):
    """Confident logits, most of which contradict the labels."""
    logits = scale * RNG.normal(size=(2, 1500, 5)).astype("float32")
    labels = np.array([[1, 2, 3, 4] * 50, [4, 3, 2, 1] * 50])
    log_probs = log_softmax(logits.astype("float64"))
    expected = [-path_sums(x, row) for x, row in zip(log_probs, labels, strict=True)]
    loss = running.in_graph(layers.ctc_loss)
    found = running.numpy(loss(*tensors(labels, logits, np.array([200, 200]))))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Loss(keras.layers.Layer):
    """`ctc_loss` as a layer for `running.evaluate`."""

    def __init__(self, labels, lengths, frames):
        super().__init__()
        self.arguments = labels, lengths, frames

    def call(self, logits):
        labels, lengths, frames = self.arguments
        return layers.ctc_loss(labels, logits, lengths, frames)


def test_nan_after_the_last_frame_has_no_effect():
    logits = RNG.normal(size=(3, 6, 4)).astype("float32")
    frames = np.array([6, 3, 4])
    outside = np.arange(6) >= frames[:, None]
    loss = Loss(np.array([[1, 1], [2, 0], [3, 2]]), np.array([2, 1, 2]), frames)
    spoilt = np.where(outside[..., None], np.nan, logits).astype("float32")
    found, expected = (running.evaluate(loss, x, cotangents=[np.ones(3)]) for x in (spoilt, logits))
    assert_near(found.outputs + found.gradients, expected.outputs + expected.gradients, 1e-6)
    for search in (layers.ctc_greedy, layers.ctc_beam_search):
        for one, other in zip(
            search(*tensors(spoilt, frames)), search(*tensors(logits, frames)), strict=True
        ):
            np.testing.assert_allclose(running.numpy(one), running.numpy(other), rtol=1e-6)


OUT_OF_RANGE = [
    ([[3, 1]], [2], [4], "labels must be at least 0, below 3 and not 0, the blank, got 3"),
    ([[7, 1]], [2], [4], "labels must be .*, got 7"),
    ([[1, -1]], [2], [4], "labels must be .*, got -1"),
    ([[1, 0]], [2], [4], "labels must be .*, got 0"),
    ([[1, 2]], [9], [4], "label_lengths must be between 0 and 2, got 9"),
    ([[1, 2]], [-1], [4], "label_lengths must be between 0 and 2, got -1"),
    ([[1, 2]], [2], [9], "frame_lengths must be between 0 and 4, got 9"),
]


def with_a_good_example(labels, lengths, frames) -> list[np.ndarray]:
    return [
        np.concatenate([x, y]).astype("int32")
        for x, y in ((labels, [[1, 2]]), (lengths, [2]), (frames, [4]))
    ]


@pytest.mark.parametrize(("labels", "lengths", "frames", "message"), OUT_OF_RANGE)
def test_labels_and_lengths_out_of_range(labels, lengths, frames, message):
    labels, lengths, frames = with_a_good_example(labels, lengths, frames)
    with pytest.raises(ValueError, match=message):
        layers.ctc_loss(*tensors(labels, LOGITS[:, :4, :3], lengths, frames))


@pytest.mark.skipif(running.BACKEND == "torch", reason="PyTorch has no graphs")
@pytest.mark.parametrize(("labels", "lengths", "frames", "message"), OUT_OF_RANGE)
def test_out_of_range_in_a_graph(labels, lengths, frames, message):
    """The loss of the example is NaN, without a gradient."""
    logits = RNG.normal(size=(2, 4, 3)).astype("float32")
    labels, lengths, frames = with_a_good_example(labels, lengths, frames)
    good = layers.ctc_loss(*tensors(labels[1:], logits[1:], lengths[1:], frames[1:]))
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(autograph=False)
        def run(labels, logits, lengths, frames):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                loss = layers.ctc_loss(labels, logits, lengths, frames)
            return loss, tape.gradient(loss, logits)
    else:
        import jax

        @jax.jit
        def run(labels, logits, lengths, frames):
            loss, pullback = jax.vjp(
                lambda logits: layers.ctc_loss(labels, logits, lengths, frames), logits
            )
            return loss, pullback(jax.numpy.ones(2))[0]

    loss, gradient = (running.numpy(x) for x in run(*tensors(labels, logits, lengths, frames)))
    assert np.isnan(loss[0])
    assert_near([loss[1:]], [running.numpy(good)], 1e-6)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_padding_with_blanks_keeps_infeasible_examples_out():
    """An example without enough frames has the loss 0, as with lengths."""
    logits = RNG.normal(size=(3, 6, 3)).astype("float32")
    labels = np.array([[1, 2, 1], [1, 1, -1], [1, 2, -1]])
    mask = np.arange(6) < np.array([[2], [2], [4]])

    class Padded(keras.layers.Layer):
        def call(self, logits):
            return layers.CTCLoss(reduction=None)(labels, layers.pad_with_blanks(logits, mask))

    found = running.evaluate(Padded(), logits, cotangents=[np.ones(3)])
    assert found.outputs[0][:2].tolist() == [0, 0]
    assert not found.gradients[0][:2].any()
    expected = Loss(np.maximum(labels, 0), np.array([3, 2, 2]), np.array([2, 2, 4]))
    expected = running.evaluate(expected, logits, cotangents=[np.ones(3)])
    assert_near(found.outputs + found.gradients, expected.outputs + expected.gradients, 1e-5)


@pytest.mark.parametrize("shape", first_of([(2, 0, 4), (0, 2, 4), (0, 0, 4)]))
def test_empty_inputs(shape):
    batch, length, frames = shape
    logits = RNG.normal(size=(batch, frames, 3)).astype("float32")
    labels, lengths = np.ones((batch, length), "int32"), np.full(batch, length, "int32")
    sizes = np.full(batch, frames, "int32")
    own = log_softmax(logits)[..., 0].sum(axis=1)  # all blanks
    found = running.evaluate(Loss(labels, lengths, sizes), logits, cotangents=[np.ones(batch)])
    assert_near(found.outputs, [-own], 1e-5)
    infeasible = running.numpy(layers.ctc_infeasible(*tensors(labels, lengths, sizes)))
    assert infeasible.tolist() == [False] * batch
    for search, axes in ((layers.ctc_greedy, ()), (layers.ctc_beam_search, (1,))):
        result = search(*tensors(logits, sizes))
        assert tuple(result.labels.shape) == (batch, *axes, frames)
        assert tuple(result.lengths.shape) == (batch, *axes)
        assert tuple(result.log_probabilities.shape) == (batch, *axes)
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        def run(labels, logits, lengths, sizes):
            beam, best = layers.ctc_beam_search(logits, sizes), layers.ctc_greedy(logits, sizes)
            return layers.ctc_loss(labels, logits, lengths, sizes), beam.labels, best.labels

        dynamic = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None, 3])]
        dynamic += [tf.TensorSpec([None], tf.int32)] * 2
        for options in ({"input_signature": dynamic}, {"jit_compile": True}):
            loss, beam, best = tf.function(run, **options)(*tensors(labels, logits, lengths, sizes))
            assert_near([loss], [-own], 1e-5)
            assert (beam.shape, best.shape) == ((batch, 1, frames), (batch, frames))


def test_a_loss_is_serialized(tmp_path):
    loss = layers.CTCLoss(2, reduction="sum", name="ctc")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert (
        again.get_config() == loss.get_config() == {"name": "ctc", "reduction": "sum", "blank": 2}
    )
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", layers.CTCLoss(blank=2))
    x, y = RNG.normal(size=(4, 5, 4)).astype("float32"), np.array([[0, 1]] * 4)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    expected = model.evaluate(x, y, verbose=0)
    for again in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        again.set_weights(model.get_weights())
        assert again.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-6)


@NEEDS_TENSORFLOW
def test_memory_is_linear_in_the_number_of_frames():
    import tensorflow as tf

    def specs(time):
        return [tf.TensorSpec([2, time, 4]), tf.TensorSpec([2], tf.int32)]

    def train(logits, frames):
        labels, lengths = np.array([[1, 2, 3]] * 2), np.array([3, 2])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = layers.ctc_loss(labels, logits, lengths, frames)
        return tape.gradient(loss, logits)

    for function in (layers.ctc_greedy, layers.ctc_beam_search, train):
        assert_linear_memory(function, specs)


INVALID = [
    (lambda: layers.ctc_beam_search(LOGITS, beam_width=True), ["beam_width", "True"]),
    (lambda: layers.ctc_beam_search(LOGITS, beam_width=2.0), ["beam_width", "2.0"]),
    (
        lambda: layers.ctc_beam_search(LOGITS, num_return_sequences=0),
        ["num_return_sequences", "0"],
    ),
    (lambda: layers.ctc_beam_search(LOGITS, blank=-1), ["blank", "-1"]),
    (lambda: layers.ctc_greedy(LOGITS, blank=True), ["blank", "True"]),
    (lambda: layers.ctc_greedy(LOGITS, np.array([5, 6])), ["frame_lengths", "5, got 6"]),
    (lambda: layers.CTCLoss(-1), ["blank", "-1"]),
    (lambda: layers.pad_with_blanks(LOGITS, np.ones((2, 5), "bool"), 4), ["blank", "4 labels"]),
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


def test_numbers_may_be_numpy_integers():
    found = layers.ctc_beam_search(
        LOGITS, beam_width=np.int64(3), blank=np.int64(0), num_return_sequences=np.int64(2)
    )
    assert tuple(found.labels.shape) == (2, 2, 5)
    assert layers.CTCLoss(np.int64(2)).get_config()["blank"] == 2
