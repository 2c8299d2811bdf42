"""Monotonic attention: its modes, its state and its noise."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

QUERIES = np.random.default_rng(7).normal(size=(B, 4, D)).astype("float32")
MEMORY = SEQUENCES.astype("float32")


def built(mode="parallel", scale=1.0, **options):
    attention = layers.MonotonicAttention(layers.LuongAttention(), mode=mode, **options)
    attention.build(QUERIES.shape, MEMORY.shape)
    kernel = scale * np.random.default_rng(8).normal(size=(D, D))
    attention.set_weights([np.array(0.5), kernel])
    return attention


def called(attention, queries=QUERIES, **arguments) -> list[np.ndarray]:
    mask = ops.convert_to_tensor(MASK)
    found = attention(queries, MEMORY, memory_mask=mask, **arguments)
    return [running.numpy(x) for x in found]


@pytest.mark.exhaustive
def test_cumulative_products_and_the_recursion_agree():
    assert_near(called(built("parallel")), called(built("recursive")), 1e-5)


def test_hard_weights_are_the_limit_of_soft_ones_and_never_move_back():
    _, hard = called(built("hard", scale=3000))
    _, soft = called(built("recursive", scale=3000))
    assert_near([soft], [hard], 1e-5)
    assert set(np.unique(hard)) == {0, 1}
    chosen = hard.sum(axis=-1)
    assert chosen.max() == 1
    assert not hard[~np.broadcast_to(MASK[:, None], hard.shape)].any()
    for row, any_chosen in zip(hard.argmax(axis=-1), chosen, strict=True):
        assert (np.diff(any_chosen) <= 0).all()  # after the end, nothing is chosen
        assert (np.diff(row[any_chosen > 0]) >= 0).all()
    assert len(np.unique(hard.argmax(axis=-1))) > 2


@pytest.mark.parametrize("mode", ["parallel", "hard"])
def test_the_weights_of_the_query_before_continue_a_sequence(mode):
    attention = built(mode)
    vectors, weights = called(attention)
    previous = None
    for t in range(QUERIES.shape[1]):
        vector, previous = called(attention, QUERIES[:, t], previous=previous)
        assert_near([vector, previous], [vectors[:, t], weights[:, t]], 1e-6)
    # Independent queries, each with the weights before it.
    before = np.concatenate([np.eye(T)[None, :1].repeat(B, axis=0), weights[:, :-1]], axis=1)
    assert_near(called(attention, previous=before.astype("float32")), [vectors, weights], 1e-6)


def test_noise_is_added_to_the_scores_in_training_alone():
    plain, noisy = built(), built(sigmoid_noise=2.0, seed=3)
    assert_near(called(noisy), called(plain), 1e-6)
    once, twice = (called(noisy, training=True) for _ in range(2))
    assert (once[1] != twice[1]).any()
    assert_near(called(built(sigmoid_noise=2.0, seed=3), training=True), once, 1e-6)
    noise = np.full((B, 4, T), 0.25, "float32")
    shifted = built()
    shifted.score_bias.assign(1.0)  # 0.5 + 2 * 0.25
    assert_near(called(noisy, noise=noise), called(shifted), 1e-6)


def decoder(attend="before", **options):
    attention = layers.BahdanauAttention(6, normalize=True)
    if attend == "after":
        attention = layers.LuongAttention(8)
    attention = layers.MonotonicAttention(attention, **options)
    found = layers.AttentionDecoder(9, 8, [layers.GRUCell(12)], attention, attend)
    found.build((None, None), MEMORY.shape)
    return found


@pytest.mark.exhaustive
def test_a_decoder_has_noise_in_training_and_its_gradient():
    """The noise of the steps is the same in the pass that computes the gradient."""
    model = decoder(sigmoid_noise=1.0)
    tokens = np.ones((B, 3), "int32")
    runs = [running.numpy(model(tokens, MEMORY, training=True)[1]) for _ in range(2)]
    assert (runs[0] != runs[1]).any()
    noise = np.random.default_rng(9).normal(size=(3, B, T)).astype("float32")
    model.attention.noise = lambda shape: ops.convert_to_tensor(noise)
    weight, step = model.attention.attention.gain, 1e-2
    start = running.numpy(weight.value)

    def loss():
        return running.numpy(model(tokens, MEMORY, training=True)[1])[:, :, 2].sum()

    losses = []
    for value in (start + step, start - step):
        weight.assign(value)
        losses.append(loss())
    weight.assign(start)
    by_differences = (losses[0] - losses[1]) / (2 * step)
    assert abs(by_differences) > 1e-3
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(tokens, MEMORY, training=True)[1][:, :, 2])
        gradient = tape.gradient(total, weight.value)
        np.testing.assert_allclose(gradient, by_differences, rtol=2e-2)


def test_the_state_of_a_decoder_keeps_full_precision():
    attention = layers.MonotonicAttention(layers.BahdanauAttention(6))
    model = layers.AttentionDecoder(9, 8, [layers.GRUCell(12)], attention, dtype="mixed_bfloat16")
    model.build((None, None), MEMORY.shape)
    states = model.initial_states(ops.convert_to_tensor(MEMORY))
    for _ in range(2):
        assert keras.backend.standardize_dtype(states[-1].dtype) == "float32"
        step = model.step_function(ops.convert_to_tensor(MEMORY))
        _, states, weights = step(ops.ones((B,), "int32"), states)
        assert keras.backend.standardize_dtype(weights.dtype) == "bfloat16"


def test_a_decoder_reads_the_memory_in_order_in_the_hard_mode():
    soft, hard = decoder("after"), decoder("after", mode="hard")
    rng = np.random.default_rng(2)
    hard.set_weights([rng.normal(size=w.shape) for w in soft.get_weights()])
    step, states = hard.step_function(MEMORY), hard.initial_states(ops.convert_to_tensor(MEMORY))
    found = layers.beam_search(step, states, start=1, end=2, max_length=4, beam_width=3)
    alignments = running.numpy(found.alignments)
    assert set(np.unique(alignments)) <= {0, 1}


REFUSED = [
    (lambda: layers.MonotonicAttention("bahdanau"), ["attention", "scores", "'bahdanau'"]),
    (lambda: layers.MonotonicAttention(built()), ["attention", "scores", "MonotonicAttention"]),
    (
        lambda: layers.MonotonicAttention(layers.LuongAttention(window="local_m")),
        ["window", "'global'", "'local_m'"],
    ),
    (lambda: built(mode="soft"), ["mode", "parallel, recursive, hard", "'soft'"]),
    (lambda: built(sigmoid_noise=-1.0), ["sigmoid_noise", "0 or more", "-1.0"]),
]


@pytest.mark.parametrize(("action", "words"), REFUSED)
def test_wrong_arguments_are_refused(action, words):
    assert_refused(action, *words)
