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
    assert_near([ops.sum(weights, axis=-1)], [np.ones((B, 7))], 1e-5)


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
