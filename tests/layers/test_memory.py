"""The memory network and question-guided attention: attention weights, identities, errors."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from unroll import layers

RNG = np.random.default_rng(12)
VOCABULARY, WORDS = 11, 4
FACTS = RNG.integers(1, VOCABULARY, (B, T, WORDS)) * (
    np.arange(WORDS) < RNG.integers(1, WORDS + 1, (B, T, 1))
)
QUESTION = RNG.integers(1, VOCABULARY, (B, 3)) * (np.arange(3) < RNG.integers(1, 4, (B, 1)))
VECTOR = RNG.normal(size=(B, D))


def with_weights(layer, *given):
    layer(*given)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


def tensors(*given):
    return [
        ops.convert_to_tensor(x.astype(running.PRECISE) if x.dtype.kind == "f" else x)
        for x in given
    ]


def numbers(found):
    return [running.numpy(x) for x in found]


def network_of_words(**options) -> layers.MemoryNetwork:
    settings = {"units": 7, "vocabulary_size": VOCABULARY, "dtype": running.PRECISE, **options}
    return with_weights(layers.MemoryNetwork(**settings), FACTS, QUESTION)


@pytest.mark.parametrize("tying", ["adjacent", "layer_wise"])
@pytest.mark.parametrize("position_encoding", [True, False])
@pytest.mark.parametrize("return_logits", [True, False])
def test_words_equal_the_reference(tying, position_encoding, return_logits):
    settings = {"tying": tying, "memory_size": 9, "return_logits": return_logits}
    layer = network_of_words(position_encoding=position_encoding, **settings)
    expected = reference.memory_network(
        layer.get_weights(),
        FACTS,
        [QUESTION],
        MASK,
        encode=partial(reference.bag_of_words, position_encoding=position_encoding),
        **settings,
    )
    found = numbers(layer(*tensors(FACTS, QUESTION), facts_mask=ops.convert_to_tensor(MASK)))
    assert_near(found, expected, 10 * running.EXACT)


def test_padding_does_not_change_the_result():
    layer = network_of_words(memory_size=9)
    mask = np.ones((B, T), "bool")
    expected = numbers(layer(*tensors(FACTS, QUESTION), facts_mask=ops.convert_to_tensor(mask)))
    padded = np.pad(FACTS, ((0, 0), (0, 2), (0, 3)))
    question, longer = np.pad(QUESTION, ((0, 0), (0, 4))), np.pad(mask, ((0, 0), (0, 2)))
    found = numbers(layer(*tensors(padded, question), facts_mask=ops.convert_to_tensor(longer)))
    assert_near([found[0], found[1][..., :T]], expected, running.EXACT)
    assert not found[1][..., T:].any()


def test_empty_slots_have_the_rest_of_the_weight():
    layer = with_weights(
        layers.MemoryNetwork(7, memory_size=T + 3, dtype=running.PRECISE), SEQUENCES, VECTOR
    )
    layer.set_weights([np.zeros(w.shape) for w in layer.weights])  # all scores are 0
    _, weights = layer(*tensors(SEQUENCES, VECTOR))
    assert_near(numbers([weights]), [np.full(weights.shape, 1 / (T + 3))], running.EXACT)
    _, weights = layer(*tensors(SEQUENCES, VECTOR), facts_mask=ops.convert_to_tensor(MASK))
    assert_near(numbers([weights[:, 0]]), [MASK / (T + 3)], running.EXACT)
    full = with_weights(
        layers.MemoryNetwork(7, memory_size=T, dtype=running.PRECISE), SEQUENCES, VECTOR
    )
    _, weights = full(*tensors(SEQUENCES, VECTOR))
    assert_near(numbers([ops.sum(weights, -1)]), [np.ones(weights.shape[:2])], running.EXACT)


def test_one_hop_is_attention_and_a_linear_map():
    layer = with_weights(
        layers.MemoryNetwork(7, hops=1, tying="layer_wise", dtype=running.PRECISE),
        SEQUENCES,
        VECTOR,
    )
    a, c, b, h = layer.get_weights()
    memory, query = SEQUENCES, VECTOR @ b
    attention = layers.LuongAttention(score="dot", dtype=running.PRECISE)
    _, weights = attention(*tensors(query, memory @ a))
    found = numbers(layer(*tensors(memory, VECTOR)))
    weights = running.numpy(weights)
    expected = query @ h + np.einsum("bs,bsu->bu", weights, memory @ c)
    assert_near(found, [expected, weights[:, None]], 10 * running.EXACT)


def test_linear_start_ends_when_linear_is_zero():
    options = {"hops": 2, "dtype": running.PRECISE}
    layer = layers.MemoryNetwork(7, linear_start=True, **options)
    plain = with_weights(layers.MemoryNetwork(7, **options), SEQUENCES, VECTOR)
    layer(SEQUENCES, VECTOR)
    layer.set_weights([*plain.get_weights(), np.float32(1)])
    given, mask = tensors(SEQUENCES, VECTOR), ops.convert_to_tensor(MASK)
    expected = reference.memory_network(
        plain.get_weights(), SEQUENCES, [VECTOR], MASK, hops=2, linear=True
    )
    assert_near(numbers(layer(*given, facts_mask=mask)), expected, 10 * running.EXACT)
    layer.linear.assign(0.0)
    softmax = numbers(plain(*given, facts_mask=mask))
    assert_near(numbers(layer(*given, facts_mask=mask)), softmax, running.EXACT)


def test_noise_increases_the_age_of_facts():
    layer = with_weights(
        layers.MemoryNetwork(7, memory_size=40, noise=0.5, seed=1), SEQUENCES, VECTOR
    )
    mask = ops.convert_to_tensor(MASK)
    plain = running.numpy(layer._ages(mask, False))
    noisy = np.array([running.numpy(layer._ages(mask, True)) for _ in range(200)])
    assert (plain == [[row[s + 1 :].sum() for s in range(T)] for row in MASK]).all()
    assert (noisy >= plain).all()
    # An empty fact follows each of the four facts after the first with probability 1/2.
    assert noisy[:, 0, 0].mean() == pytest.approx(4 + 4 / 2, abs=0.3)
    assert (np.diff(noisy[:, 0], axis=1) < 0).all()


def test_positions_of_many_words_in_half_precision():
    """Words beyond the integers that half precision has, whose vectors are the same."""
    facts, question = np.full((1, 2, 3000), 3), np.array([[3, 4]])
    exact = layers.MemoryNetwork(4, hops=1, vocabulary_size=VOCABULARY, dtype="float32")
    expected = numbers(with_weights(exact, facts, question)(facts, question))
    for policy in running.POLICIES:
        half = layers.MemoryNetwork(4, hops=1, vocabulary_size=VOCABULARY, dtype=policy)
        half(facts, question)
        half.set_weights([w / 1000 for w in exact.get_weights()])
        exact.set_weights(half.get_weights())
        expected = numbers(exact(facts, question))
        assert_near(numbers(half(facts, question)), expected, 0.02)


def test_checkpoints_load_with_and_without_a_linear_start(tmp_path):
    def model(**options):
        network = layers.MemoryNetwork(7, hops=2, **options)
        given = keras.Input((None, D)), keras.Input((D,))
        return network, keras.Model(given, network(*given))

    network, linear_model = model(linear_start=True)
    network.linear.assign(0.0)
    plain, plain_model = model()
    for source, source_model in ((network, linear_model), (plain, plain_model)):
        source_model.save_weights(tmp_path / "source.weights.h5")
        for linear_start in (True, False):
            target, target_model = model(linear_start=linear_start)
            target_model.load_weights(tmp_path / "source.weights.h5")
            for a, b in zip(target.kernels, source.kernels, strict=True):
                assert_near(numbers([a]), numbers([b]), 0)
            if linear_start:
                assert float(target.linear) == (0 if source is network else 1)


def test_more_facts_than_slots_are_refused_after_the_first_call():
    network = layers.MemoryNetwork(4, memory_size=4)
    network(zeros(2, 3, 3), zeros(2, 3))
    assert_refused(lambda: network(zeros(2, 5, 3), zeros(2, 3)), "4 facts", "got 5")


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="only TensorFlow has dynamic shapes")
def test_facts_beyond_the_slots_of_a_graph_have_the_age_of_the_oldest():
    import tensorflow as tf

    network = with_weights(layers.MemoryNetwork(4, memory_size=3), zeros(2, 3, D), zeros(2, D))
    specs = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, D])]
    function = tf.function(lambda *given: network(*given), input_signature=specs, autograph=False)
    weights = function(tf.zeros([1, 5, D]), tf.zeros([1, D]))[1].numpy()
    assert_near([weights.sum(-1)], [np.ones((1, 3))], 1e-6)
    assert_near([weights[..., 0], weights[..., 1]], [weights[..., 2]] * 2, 1e-6)


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="LiteRT needs the TensorFlow backend")
def test_words_in_litert_and_xla():
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    layer = network_of_words(memory_size=9, return_logits=True, linear_start=True, dtype="float32")
    layer.linear.assign(0.0)

    def serve(facts, question, mask):
        logits, weights = layer(facts, question, facts_mask=mask)
        return {"logits": logits, "weights": weights}

    signature = {
        "facts": tf.TensorSpec([None, None, None], tf.int32),
        "question": tf.TensorSpec([None, None], tf.int32),
        "mask": tf.TensorSpec([None, None], tf.bool),
    }
    file = convert(serve, signature)
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    for facts, question, mask in (
        (FACTS, QUESTION, MASK),
        (FACTS[:2, :3, :2], QUESTION[:2, :1], MASK[:2, :3]),
    ):
        given = {"facts": facts.astype("int32"), "question": question.astype("int32"), "mask": mask}
        expected = serve(**{k: tf.constant(v) for k, v in given.items()})
        xla = tf.function(serve, jit_compile=True)(**{k: tf.constant(v) for k, v in given.items()})
        for found in (runner(**given), xla):
            for name, x in expected.items():
                assert_near([found[name]], [x], 1e-4)


def guided(normalize=True) -> layers.QuestionGuidedAttention:
    layer = layers.QuestionGuidedAttention(
        7, glimpses=2, normalize=normalize, dtype=running.PRECISE
    )
    return with_weights(layer, VECTOR, SEQUENCES)


@pytest.mark.parametrize("normalize", [True, False])
def test_attention_weights_of_the_glimpses(normalize):
    layer = guided(normalize)
    found = numbers(layer(*tensors(VECTOR, SEQUENCES), regions_mask=ops.convert_to_tensor(MASK)))
    expected = reference.question_guided(
        layer.get_weights(), SEQUENCES, [VECTOR], MASK, normalize=normalize
    )
    assert_near(found, expected, 10 * running.EXACT)


def test_the_order_of_regions_does_not_matter():
    layer, order = guided(), RNG.permutation(T)
    attended, weights = numbers(layer(*tensors(VECTOR, SEQUENCES)))
    again = numbers(layer(*tensors(VECTOR, SEQUENCES[:, order])))
    assert_near(again, [attended, weights[..., order]], running.EXACT)


def test_a_grid_equals_its_cells():
    layer = guided()
    grid, mask = RNG.normal(size=(B, 2, 4, D)), RNG.random((B, 2, 4)) > 0.3
    flat = layer(*tensors(VECTOR, grid.reshape(B, 8, D)), regions_mask=mask.reshape(B, 8))
    attended, weights = numbers(
        layer(*tensors(VECTOR, grid), regions_mask=ops.convert_to_tensor(mask))
    )
    assert weights.shape == (B, 2, 2, 4)
    assert_near([attended, weights.reshape(B, 2, 8)], numbers(flat), running.EXACT)
    assert (weights[np.broadcast_to(~mask[:, None], weights.shape)] == 0).all()


def test_several_questions_equal_single_questions():
    layer, questions = guided(), RNG.normal(size=(B, 3, VECTOR.shape[-1]))
    mask = ops.convert_to_tensor(MASK)
    together = numbers(layer(*tensors(questions, SEQUENCES), regions_mask=mask))
    for k in range(3):
        alone = numbers(layer(*tensors(questions[:, k], SEQUENCES), regions_mask=mask))
        assert_near([x[:, k] for x in together], alone, running.EXACT)


def test_count_features_grow_with_the_number_of_regions():
    layer = layers.QuestionGuidedAttention(7, count_features=True, dtype=running.PRECISE)
    once = numbers(layer(*tensors(VECTOR, SEQUENCES)))[0]
    twice = numbers(layer(*tensors(VECTOR, np.tile(SEQUENCES, (1, 2, 1)))))[0]
    assert_near([twice[:, :D]], [once[:, :D]], 10 * running.EXACT)
    assert_near([twice[:, D:] * np.sqrt(2)], [once[:, D:] * 2], 10 * running.EXACT)


@pytest.mark.parametrize("policy", running.POLICIES)
def test_many_regions_in_half_precision(policy):
    """The number of regions, and the norms of factors that are not bounded."""
    size = 5000
    options = {"count_features": True, "activation": "relu", "kernel_initializer": "ones"}
    question, regions = np.full((1, 4), 10, "float32"), np.full((1, size, 4), 10, "float32")
    exact = layers.QuestionGuidedAttention(7, dtype="float32", **options)
    half = layers.QuestionGuidedAttention(7, dtype=policy, **options)
    expected = numbers(exact(question, regions))
    half(question, regions)
    half.set_weights(exact.get_weights())
    for a, b in zip(numbers(half(question, regions)), expected, strict=True):
        assert_near([a / b.max()], [b / b.max()], 0.03)


def test_scale_initializer_applies_to_the_scale_alone():
    layer = layers.QuestionGuidedAttention(7, scale_initializer="ones")
    layer.build((None, D), (None, None, D))
    assert_near([layer.scale], [np.ones((7, 1))], running.EXACT)
    assert np.std(layer.region_kernel) > 0


def test_a_product_of_zero_has_a_finite_gradient():
    layer = layers.QuestionGuidedAttention(7)
    layer.build((None, D), (None, None, D))
    regions = np.zeros((B, T, D), "float32")

    class Attended(keras.layers.Layer):
        def call(self, regions):
            return layer(ops.ones((B, D)), regions)[0]

    found = running.evaluate(Attended(), regions, cotangents=[np.ones((B, D))])
    assert all(np.isfinite(g).all() for g in found.gradients)


def zeros(*shape):
    return np.zeros(shape, "float32")


INVALID = [
    (lambda: layers.MemoryNetwork(0), ["units", "0"]),
    (lambda: layers.MemoryNetwork(4, hops=0), ["hops", "0"]),
    (lambda: layers.MemoryNetwork(4, vocabulary_size=-1), ["vocabulary_size", "-1"]),
    (lambda: layers.MemoryNetwork(4, memory_size=0), ["memory_size", "0"]),
    (lambda: layers.MemoryNetwork(4, tying="rnn"), ["tying", "layer_wise", "'rnn'"]),
    (lambda: layers.MemoryNetwork(4, noise=1.0, memory_size=5), ["noise", "1.0"]),
    (lambda: layers.MemoryNetwork(4, noise=0.1), ["noise", "memory_size"]),
    (lambda: layers.MemoryNetwork(4, return_logits=True), ["return_logits", "vocabulary_size"]),
    (lambda: layers.MemoryNetwork(4)(zeros(2, 5), zeros(2, 3)), ["rank 3", "(2, 5)"]),
    (lambda: layers.MemoryNetwork(4, memory_size=4)(zeros(2, 5, 3), zeros(2, 3)), ["4 facts", "5"]),
    (lambda: layers.QuestionGuidedAttention(0), ["units", "0"]),
    (lambda: layers.QuestionGuidedAttention(4, glimpses=0), ["glimpses", "0"]),
    (lambda: layers.QuestionGuidedAttention(4)(zeros(2, 3), zeros(2, 3)), ["[B, S, D]", "(2, 3)"]),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)
