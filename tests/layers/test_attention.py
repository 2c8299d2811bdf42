"""Score functions, identities between attention layers, and errors."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from unroll import layers
from unroll.layers.attention import Attention, scores

QUERIES = np.random.default_rng(4).normal(size=(B, 4, D))
KERNEL = np.random.default_rng(5).normal(size=(2 * D, 7))
SCALE = np.random.default_rng(6).normal(size=7)


def arrays(*given):
    return [ops.convert_to_tensor(x.astype(running.PRECISE)) for x in given]


def numbers(tensors) -> list[np.ndarray]:
    return [running.numpy(x) for x in tensors]


def built(layer, query=QUERIES):
    layer(*arrays(query, SEQUENCES), **({} if query.ndim == 3 else {"position": 0}))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


def luong(**options):
    return layers.LuongAttention(dtype=running.PRECISE, **options)


@pytest.mark.parametrize("name", ["dot", "scaled_dot", "general", "additive", "concat"])
def test_scores_of_each_pair(name):
    queries, memory, kernel, scale = arrays(QUERIES, SEQUENCES, KERNEL, SCALE)
    square = KERNEL[:D, :D]
    if name == "general":
        keys = scores.general_keys(memory, *arrays(square))
        found = scores.dot(queries, keys)
    elif name == "additive":
        query_kernel, key_kernel = scores.split_concat(kernel, D)
        projected = ops.matmul(queries, query_kernel), ops.matmul(memory, key_kernel)
        found = scores.additive(*projected, scale)
    elif name == "concat":
        found = scores.concat(queries, memory, kernel, scale)
    else:
        found = getattr(scores, name)(queries, memory)
    equations = {
        "dot": lambda q, m: q @ m,
        "scaled_dot": lambda q, m: q @ m / np.sqrt(D),
        "general": lambda q, m: q @ (m @ square),
        "additive": lambda q, m: SCALE @ np.tanh(q @ KERNEL[:D] + m @ KERNEL[D:]),
        "concat": lambda q, m: SCALE @ np.tanh(np.concatenate([q, m]) @ KERNEL),
    }
    expected = [
        [[equations[name](q, m) for m in ms] for q in qs]
        for qs, ms in zip(QUERIES, SEQUENCES, strict=True)
    ]
    assert_near(numbers([found]), [expected], 1e3 * running.EXACT)


def test_masked_softmax_is_the_softmax_of_the_rest():
    values = QUERIES[:, 0] @ KERNEL[:D, :T]
    found = running.numpy(scores.masked_softmax(*arrays(values), ops.convert_to_tensor(MASK)))
    for row, allowed, weights in zip(values, MASK, found, strict=True):
        assert_near([weights], [reference.softmax(row, allowed)], running.EXACT)
        assert (weights[~allowed] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_masked_softmax_of_huge_scores_is_finite(dtype):
    values = ops.convert_to_tensor([[-6e4, 6e4, 3.0], [6e4, 6e4, 6e4]], dtype=dtype)
    mask = ops.convert_to_tensor([[True, True, False], [False, False, False]])
    found = running.numpy(scores.masked_softmax(values, mask))
    assert found.tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("masked", [True, False])
def test_masked_softmax_of_many_scores_in_half_precision(dtype, masked):
    size = 5000
    mask = ops.ones((1, size), "bool") if masked else None
    found = scores.masked_softmax(ops.zeros((1, size), dtype), mask)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert_near([size * running.numpy(found)], [np.ones((1, size))], 0.02)


def test_masked_softmax_of_a_single_score_and_of_any_low_scores():
    found = scores.masked_softmax(*arrays(np.array([[-5.0], [2.0]])), np.array([[True], [False]]))
    assert running.numpy(found).tolist() == [[1], [0]]
    low = ops.convert_to_tensor(np.array([[-2e30, -1e30, 0.0]], "float32"))
    found = scores.masked_softmax(low, np.array([[True, True, False]]))
    assert running.numpy(found).tolist() == [[0, 1, 0]]


def test_general_with_the_identity_is_dot():
    general = built(luong(score="general"))
    general.set_weights([np.eye(D)])
    for a, b in zip(
        general(*arrays(QUERIES, SEQUENCES)),
        built(luong(score="dot"))(*arrays(QUERIES, SEQUENCES)),
        strict=True,
    ):
        assert_near(numbers([a]), numbers([b]), running.EXACT)


def test_concat_is_additive_attention():
    concat = built(luong(score="concat"))
    additive = layers.BahdanauAttention(D, dtype=running.PRECISE)
    additive(*arrays(QUERIES, SEQUENCES))
    additive.set_weights(concat.get_weights())
    mask = ops.convert_to_tensor(MASK)
    found = [layer(*arrays(QUERIES, SEQUENCES), memory_mask=mask) for layer in (concat, additive)]
    assert_near(numbers(found[0]), numbers(found[1]), running.EXACT)


def test_a_window_as_long_as_the_memory_is_global():
    everywhere = built(luong(units=7))
    local = built(luong(units=7, window="local_m", half_width=T))
    found = [layer(*arrays(QUERIES, SEQUENCES)) for layer in (everywhere, local)]
    assert_near(numbers(found[0]), numbers(found[1]), running.EXACT)
    narrow = built(luong(units=7, window="local_m", half_width=1))
    weights = running.numpy(narrow(*arrays(QUERIES, SEQUENCES))[1])
    near = abs(np.arange(T) - np.arange(4)[:, None]) <= 1
    assert (weights[:, ~near] == 0).all()
    assert (weights[:, near] > 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BahdanauAttention(7, dtype=running.PRECISE),
        lambda: luong(units=7, score="concat", window="local_p", half_width=2),
        lambda: luong(units=7, window="local_m", half_width=1),
    ],
)
def test_several_queries_equal_single_queries(make):
    layer = built(make())
    memory, mask = arrays(SEQUENCES)[0], ops.convert_to_tensor(MASK)
    prepared, keys = layer.prepare(memory, mask)
    together = numbers(layer(*arrays(QUERIES), memory, memory_mask=mask))
    for t in range(QUERIES.shape[1]):
        position = {"position": t} if getattr(layer, "window", "") == "local_m" else {}
        alone = layer(*arrays(QUERIES[:, t]), prepared, keys=keys, memory_mask=mask, **position)
        assert_near(numbers(alone), [x[:, t] for x in together], running.EXACT)


def test_luong_local_p_of_several_queries():
    layer = built(luong(units=7, score="dot", window="local_p", half_width=2))
    found = numbers(layer(*arrays(QUERIES, SEQUENCES), memory_mask=ops.convert_to_tensor(MASK)))
    for t in range(QUERIES.shape[1]):
        expected = reference.by_rows(
            reference.luong_one,
            layer.get_weights(),
            SEQUENCES,
            [QUERIES[:, t]],
            MASK,
            score="dot",
            window="local_p",
            half_width=2,
        )
        assert_near([x[:, t] for x in found], expected, 10 * running.EXACT)


def test_precomputed_keys_in_mixed_precision():
    layer = built(layers.BahdanauAttention(7, dtype="mixed_bfloat16"))
    given = [ops.cast(x, "float32") for x in arrays(QUERIES, SEQUENCES)]
    memory, keys = layer.prepare(given[1])
    assert keras.backend.standardize_dtype(keys.dtype) == "bfloat16"
    assert_near(numbers(layer(given[0], memory, keys=keys)), numbers(layer(*given)), 0.01)


@pytest.mark.parametrize("policy", running.POLICIES)
def test_local_m_beyond_the_integers_of_half_precision(policy):
    """bfloat16 has no odd integers above 256, float16 none above 2048."""
    first, size = {"mixed_bfloat16": (255, 300), "mixed_float16": (2047, 2060)}[policy]
    layer = layers.LuongAttention(window="local_m", half_width=1, dtype=policy)
    queries, memory = np.ones((1, 4, 2), "float32"), np.ones((1, size, 2), "float32")
    positions = first + np.arange(4)
    near = abs(np.arange(size) - positions[:, None]) <= 1
    _, weights = layer(queries, memory, position=positions[None])
    assert_near([running.numpy(weights)], [near[None] / 3], 0.01)
    for row, position in zip(near, positions, strict=True):
        for given in (int(position), positions[:1] * 0 + position):
            _, weights = layer(queries[:, 0], memory, position=given)
            assert_near([running.numpy(weights)], [row[None] / 3], 0.01)


@pytest.mark.parametrize("policy", running.POLICIES)
def test_local_p_has_precise_positions_in_half_precision(policy):
    """The same window as in float32, for queries and weights that half precision has."""
    rng = np.random.default_rng(7)
    queries, memory = rng.integers(-3, 4, (1, 9, 4)) / 2, np.ones((1, 2000, 4))
    options = {"score": "dot", "window": "local_p", "half_width": 3}
    exact = layers.LuongAttention(**options, dtype="float32")
    half = layers.LuongAttention(**options, dtype=policy)
    given = [x.astype("float32") for x in (queries, memory)]
    for layer in (exact, half):
        layer.build((1, 9, 4), (1, 2000, 4))
    exact.set_weights([rng.integers(-4, 5, w.shape) / 8 for w in exact.weights])
    half.set_weights(exact.get_weights())
    expected, found = (running.numpy(layer(*given)[1]) for layer in (exact, half))
    assert (expected > 0).sum() == 9 * 6  # two times half the width around a fraction
    assert ((found > 0) == (expected > 0)).all()
    assert_near([found], [expected], 0.01)


@pytest.mark.parametrize("policy", running.POLICIES)
def test_the_length_of_a_memory_with_gaps_is_that_of_its_last_position(policy):
    layer = layers.LuongAttention(score="dot", window="local_p", half_width=2, dtype=policy)
    layer.build((1, 2), (1, 600, 2))
    layer.set_weights([np.zeros(w.shape) for w in layer.weights])  # p = S / 2
    mask = np.ones((1, 600), "bool")
    mask[:, 590:] = mask[:, 100:140] = False
    _, weights = layer(np.ones((1, 2)), np.ones((1, 600, 2)), memory_mask=mask)
    assert np.flatnonzero(running.numpy(weights)[0]).tolist() == [293, 294, 295, 296, 297]


@keras.saving.register_keras_serializable(package="tests")
class ScaledDotAttention(Attention):
    """A user's own attention."""

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)

    def project_keys(self, memory):
        return memory

    def attend(self, queries, memory, keys, mask):
        mask = None if mask is None else mask[:, None]
        weights = scores.masked_softmax(scores.scaled_dot(queries, keys), mask)
        return ops.matmul(weights, memory), weights


def test_a_subclass_runs_alone_and_in_a_decoder():
    own, dot = ScaledDotAttention(dtype=running.PRECISE), built(luong(score="dot"))
    mask = ops.convert_to_tensor(MASK)
    queries, memory = arrays(QUERIES, SEQUENCES)
    expected = dot(queries / np.sqrt(D), memory, memory_mask=mask)
    assert_near(
        numbers(own(queries, memory, memory_mask=mask)), numbers(expected), 10 * running.EXACT
    )
    alone = own(queries[:, 0], memory, memory_mask=mask)
    assert_near(numbers(alone), [x[:, 0] for x in numbers(expected)], 10 * running.EXACT)
    decoder = layers.AttentionDecoder(5, 2, [layers.LSTMCell(D)], ScaledDotAttention())
    logits, weights = decoder(np.ones((B, 7), "int32"), SEQUENCES.astype("float32"))
    assert logits.shape == (B, 7, 5)
    assert_near(numbers([ops.sum(weights, axis=-1)]), [np.ones((B, 7))], 1e-5)


@keras.saving.register_keras_serializable(package="tests")
class NearAttention(Attention):
    """A user's own attention with weights, a size, and positions: the nearer, the more weight."""

    uses_positions = True

    def __init__(self, size, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.size, self.rate = size, rate

    def build(self, query_shape, memory_shape):
        self.check_shapes(query_shape, memory_shape)
        self.kernel = self.add_kernel("kernel", (query_shape[-1] + memory_shape[-1], self.size))

    def output_size(self, memory_size):
        return self.size

    def project_keys(self, memory):
        return memory[..., :1]

    def attend(self, queries, memory, keys, mask, positions):
        index = ops.arange(ops.shape(memory)[1], dtype=positions.dtype)
        distance = ops.abs(index - ops.expand_dims(positions, -1))  # [B, T, S]
        e = ops.cast(-self.rate * distance, keys.dtype) + ops.transpose(keys, (0, 2, 1))
        weights = scores.masked_softmax(e, None if mask is None else mask[:, None])
        both = ops.concatenate([ops.matmul(weights, memory), queries], axis=-1)
        return ops.tanh(ops.matmul(both, self.kernel)), weights

    def get_config(self):
        return {**super().get_config(), "size": self.size, "rate": self.rate}


OWN = {
    "of the memory": lambda: ScaledDotAttention(),
    "with positions": lambda: NearAttention(4, rate=0.25),
    "monotonic": lambda: layers.MonotonicAttention(layers.BahdanauAttention(4)),
}


@pytest.mark.parametrize("attend", ["before", "after"])
@pytest.mark.parametrize("name", first_of(OWN, "with positions"))
def test_a_subclass_in_a_saved_decoder_and_all_searches(name, attend, tmp_path):
    """A subclass of `Attention` needs nothing that its documentation does not name."""
    size = 4
    decoder = layers.AttentionDecoder(
        7, size, [layers.LSTMCell(size)], OWN[name](), attend=attend, tie_weights=True
    )
    tokens, memory = keras.Input((None,), dtype="int32"), keras.Input((None, size))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([tokens, memory, mask], decoder(tokens, memory, memory_mask=mask))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    given = [rng.integers(0, 7, (2, 6)), rng.normal(size=(2, 5, size)).astype("float32")]
    given = [ops.convert_to_tensor(x) for x in (*given, MASK[1:3])]
    logits, weights = (running.numpy(x) for x in model(given))
    assert_near(
        [running.numpy(x) for x in again(*given[:2], memory_mask=given[2])], [logits, weights], 1e-6
    )
    # The step of the searches gives what teacher forcing gives.
    step, states = again.step_function(*given[1:]), again.initial_states(given[1])
    for t in range(6):
        one, states, attention = step(given[0][:, t], states)
        assert_near(
            [running.numpy(x) for x in (one, attention)], [logits[:, t], weights[:, t]], 1e-5
        )
    options = {"start": 1, "end": 2, "max_length": 4}
    states = again.initial_states(given[1])
    best = layers.greedy(step, states, **options)
    wide = layers.beam_search(step, states, beam_width=1, **options)
    assert (running.numpy(best.tokens) == running.numpy(wide.tokens)[:, 0]).all()
    several = layers.beam_search(step, states, beam_width=3, num_return_sequences=2, **options)
    samples = layers.sample(step, states, num_samples=3, seed=1, **options)
    assert tuple(several.tokens.shape) == (2, 2, 4)
    assert tuple(samples.tokens.shape) == (2, 3, 4)
    assert tuple(samples.alignments.shape) == (2, 3, 4, 5)


INVALID = [
    (lambda: layers.BahdanauAttention(0), ["units", "0"]),
    (lambda: layers.BahdanauAttention(7)(QUERIES, SEQUENCES[0]), ["[B, S, D]", "(5, 3)"]),
    (
        lambda: layers.BahdanauAttention(7).prepare(SEQUENCES),
        ["BahdanauAttention", "not built"],
    ),
    (lambda: layers.LuongAttention(score="cosine"), ["score", "'cosine'", "general"]),
    (lambda: layers.LuongAttention(window="local"), ["window", "'local'", "local_p"]),
    (lambda: layers.LuongAttention(half_width=0), ["half_width", "0"]),
    (lambda: layers.LuongAttention(score="location"), ["memory_size", "None"]),
    (lambda: layers.LuongAttention(memory_size=7), ["memory_size", "location", "general"]),
    (lambda: layers.LuongAttention(units=0), ["units", "0"]),
    (
        lambda: layers.LuongAttention(score="dot")(KERNEL[None], SEQUENCES[:1]),
        ["7 and 3", "general"],
    ),
    (
        lambda: layers.LuongAttention(score="location", memory_size=4)(QUERIES, SEQUENCES),
        ["LuongAttention", "at most 4", "got 5"],
    ),
    (
        lambda: layers.LuongAttention(window="local_m")(QUERIES[:, 0], SEQUENCES),
        ["LuongAttention", "position"],
    ),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)
