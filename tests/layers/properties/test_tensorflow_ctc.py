"""The CTC functions against the kernels of TensorFlow.

`tf.nn.ctc_loss` with sparse labels runs a kernel in C++ that is not the code behind
`keras.ops.ctc_loss`.
"""

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.properties.common import FIFTY, SEEDS, given, lengths, st
from unroll import layers

tf = pytest.importorskip("tensorflow", reason="TensorFlow is the oracle")

# The kernels compute in float32.
TOLERANCE = 2e-5


@st.composite
def cases(draw, most_frames=8, most_labels=5):
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, most_frames))
    size = draw(st.integers(2, most_labels))
    return {
        "time": time,
        "frame_lengths": draw(lengths(batch, time)),
        "size": size,
        "blank": draw(st.integers(0, size - 1)),
        "seed": draw(SEEDS),
    }


def logits_of(case, scale=2.0) -> np.ndarray:
    rng = np.random.default_rng(case["seed"])
    shape = (len(case["frame_lengths"]), case["time"], case["size"])
    return scale * rng.normal(size=shape).astype("float32")


def blank_last(logits, blank: int) -> np.ndarray:
    """The logits with the column of the blank at the end, as some kernels expect it."""
    return np.concatenate([np.delete(logits, blank, axis=-1), logits[..., blank : blank + 1]], -1)


class Loss(keras.layers.Layer):
    """`ctc_loss` as a layer, so that each backend can give its gradient."""

    def call(self, logits, mask=None):
        return layers.ctc_loss(**self.arguments, logits=logits)


@FIFTY
@given(case=cases(), data=st.data())
def test_losses_and_gradients(case, data):
    """With labels that are too many for the frames, too: their loss and gradient are zero."""
    logits, frames, blank = logits_of(case), case["frame_lengths"], case["blank"]
    count = data.draw(lengths(len(frames), max(1, case["time"] - 1)), label="label_lengths")
    rng = np.random.default_rng(case["seed"])
    symbols = np.delete(np.arange(case["size"]), blank)
    labels = rng.choice(symbols, size=(len(frames), count.max()))
    infeasible = running.numpy(layers.ctc_infeasible(labels, count, frames))
    repeats = [sum(row[1:n] == row[: n - 1]) for row, n in zip(labels, count, strict=True)]
    assert (infeasible == (frames < count + repeats)).all()
    factors = rng.normal(size=len(frames)).astype("float32")
    layer = Loss()
    layer.arguments = {
        "labels": labels,
        "label_lengths": count,
        "frame_lengths": frames,
        "blank": blank,
    }
    found = running.evaluate(layer, logits, cotangents=[factors])
    feasible = np.flatnonzero(~infeasible)
    losses, gradients = np.zeros(len(frames)), np.zeros(logits.shape)
    if len(feasible):
        rows = [labels[k, : count[k]] for k in feasible]
        sparse = tf.RaggedTensor.from_row_lengths(
            tf.constant(np.concatenate(rows), "int32"), count[feasible]
        ).to_sparse()
        with tf.GradientTape() as tape:
            x = tf.constant(logits[feasible])
            tape.watch(x)
            expected = tf.nn.ctc_loss(
                sparse, x, None, frames[feasible], logits_time_major=False, blank_index=blank
            )
            total = tf.reduce_sum(expected * factors[feasible])
        losses[feasible], gradients[feasible] = expected, tape.gradient(total, x)
    assert_near(found.outputs, [losses], TOLERANCE)
    assert_near(found.gradients, [gradients], TOLERANCE, "gradient")


@FIFTY
@given(case=cases(most_frames=12))
def test_best_paths(case):
    logits, frames = logits_of(case), case["frame_lengths"]
    found = layers.ctc_greedy(logits, frames, blank=case["blank"])
    (sparse,), total = tf.nn.ctc_greedy_decoder(
        tf.nn.log_softmax(logits).numpy().transpose(1, 0, 2),
        frames.astype("int32"),
        blank_index=case["blank"],
    )
    expected = padded(sparse, case["time"])
    assert_near([running.numpy(found.labels)], [expected], 0.0, "labels")
    assert_near([running.numpy(found.lengths)], [(expected >= 0).sum(axis=1)], 0.0, "lengths")
    log_probabilities = running.numpy(found.log_probabilities)
    assert_near([log_probabilities], [-total.numpy()[:, 0]], TOLERANCE, "log probabilities")


@FIFTY
@given(case=cases(most_frames=4, most_labels=3))
def test_searches_with_a_beam_for_all_labels(case):
    """At most 31 sequences of two labels have at most four labels: none leaves a beam of 32."""
    logits, frames, blank = logits_of(case), case["frame_lengths"], case["blank"]
    found = layers.ctc_beam_search(
        logits, frames, beam_width=32, blank=blank, num_return_sequences=2
    )
    decoded, scores = tf.nn.ctc_beam_search_decoder(
        blank_last(logits, blank).transpose(1, 0, 2),
        frames.astype("int32"),
        beam_width=32,
        top_paths=2,
    )
    symbols = np.append(np.delete(np.arange(case["size"]), blank), -1)
    expected = np.stack([symbols[padded(sparse, case["time"])] for sparse in decoded], axis=1)
    assert_near([running.numpy(found.labels)], [expected], 0.0, "labels")
    log_probabilities = running.numpy(found.log_probabilities)
    assert_near([log_probabilities], [scores.numpy()], TOLERANCE, "log probabilities")


def padded(sparse, time: int) -> np.ndarray:
    """Decoded labels, `[B, T]`, -1 after the end."""
    dense = tf.sparse.to_dense(sparse, default_value=-1).numpy()
    return np.pad(dense, ((0, 0), (0, time - dense.shape[1])), constant_values=-1)
