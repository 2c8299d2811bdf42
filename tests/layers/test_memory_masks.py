"""The layers with a memory: masks that Keras carries, NaN behind a mask, empty inputs, shapes."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from unroll import layers

B, T, S, D, V = 2, 3, 5, 4, 7
RNG = np.random.default_rng(0)
MEMORY_TOKENS = np.array([[3, 5, 0, 0, 0], [1, 2, 3, 4, 5]], "int32")
MASK = MEMORY_TOKENS > 0
MEMORY = RNG.normal(size=(B, S, D)).astype("float32")
QUERY = RNG.normal(size=(B, D)).astype("float32")
QUERIES = RNG.normal(size=(B, T, D)).astype("float32")
TOKENS = np.array([[1, 3, 2], [2, 1, 4]], "int32")


def decoder(**options):
    attention = layers.BahdanauAttention(6)
    return layers.AttentionDecoder(V, 3, [layers.GRUCell(8)], attention, **options)


def decoder_after(**options):
    attention = layers.LuongAttention(3, window="local_p", half_width=3)
    options = {"attend": "after", "tie_weights": True, **options}
    return layers.AttentionDecoder(V, 3, [layers.GRUCell(8)], attention, **options)


def other_first(layer, other, memory, **mask):
    return layer(other, memory, **mask)


def memory_first(layer, other, memory, **mask):
    return layer(memory, other, **mask)


# The layer, its input besides the memory, how to call it, and the name of the mask of the memory.
LAYERS = {
    "BahdanauAttention": (lambda: layers.BahdanauAttention(6), QUERIES, other_first, "memory_mask"),
    "LuongAttention": (lambda: layers.LuongAttention(6), QUERIES, other_first, "memory_mask"),
    "LuongAttention local-m": (
        lambda: layers.LuongAttention(6, score="concat", window="local_m", half_width=3),
        QUERIES,
        other_first,
        "memory_mask",
    ),
    "LuongAttention local-p": (
        lambda: layers.LuongAttention(score="dot", window="local_p", half_width=3),
        QUERIES,
        other_first,
        "memory_mask",
    ),
    "LuongAttention location": (
        lambda: layers.LuongAttention(score="location", memory_size=6),
        QUERIES,
        other_first,
        "memory_mask",
    ),
    "BahdanauAttention of one query": (
        lambda: layers.BahdanauAttention(6),
        QUERY,
        other_first,
        "memory_mask",
    ),
    "AttentionDecoder before": (decoder, TOKENS, other_first, "memory_mask"),
    "AttentionDecoder after": (decoder_after, TOKENS, other_first, "memory_mask"),
    "MemoryNetwork": (
        lambda: layers.MemoryNetwork(6, memory_size=8),
        QUERY,
        memory_first,
        "facts_mask",
    ),
    "MemoryNetwork without order": (
        lambda: layers.MemoryNetwork(6, hops=2, tying="layer_wise"),
        QUERY,
        memory_first,
        "facts_mask",
    ),
    "QuestionGuidedAttention": (
        lambda: layers.QuestionGuidedAttention(6, glimpses=2, count_features=True),
        QUERIES,
        other_first,
        "regions_mask",
    ),
}


def built(name):
    """The layer with random weights, its other input, and `call(other, memory, mask=None)`."""
    make, other, call, mask_name = LAYERS[name]
    layer = make()

    def function(other, memory, mask=None):
        return call(layer, other, memory, **({} if mask is None else {mask_name: mask}))

    function(ops.convert_to_tensor(other), ops.convert_to_tensor(MEMORY))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, other, function


def tensor(x):
    return ops.convert_to_tensor(x)


def arrays(found) -> list[np.ndarray]:
    return [running.numpy(x) for x in keras.tree.flatten(found)]


def carrying(x, mask):
    """A tensor that carries a mask, as the output of an `Embedding` with `mask_zero` does."""
    mask = tensor(mask)

    class Masked(keras.layers.Layer):
        def call(self, x):
            return x

        def compute_mask(self, x, previous_mask=None):
            return mask

    return Masked()(tensor(x))


@pytest.mark.parametrize("name", LAYERS)
def test_the_mask_that_the_memory_carries_is_used(name):
    _, other, call = built(name)
    other = tensor(other)
    explicit = arrays(call(other, tensor(MEMORY), tensor(MASK)))
    assert_near(arrays(call(other, carrying(MEMORY, MASK))), explicit, 1e-6)
    unmasked = arrays(call(other, tensor(MEMORY)))
    assert abs(explicit[0][0] - unmasked[0][0]).max() > 1e-3
    # An explicit mask wins.
    everything = tensor(np.ones_like(MASK))
    assert_near(arrays(call(other, carrying(MEMORY, MASK), everything)), unmasked, 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mask_of_the_other_input_is_not_that_of_the_memory(name):
    _, other, call = built(name)
    if other.ndim == 3:
        mask = np.array([[True, False, True], [True, True, False]])
        vectors, weights = arrays(call(carrying(other, mask), tensor(MEMORY)))
        expected, expected_weights = arrays(call(tensor(other), tensor(MEMORY)))
        assert_near([vectors, weights], [expected * mask[..., None], expected_weights], 1e-6)
    else:
        mask = np.zeros(other.shape[:2], "bool") if other.dtype.kind == "i" else None
        found = call(other if mask is None else carrying(other, mask), tensor(MEMORY))
        assert_near(arrays(found), arrays(call(tensor(other), tensor(MEMORY))), 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_nan_in_masked_positions_has_no_effect(name):
    layer, other, call = built(name)

    class WithMemory(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def call(self, memory):
            return call(tensor(other), memory, tensor(MASK))

    outer = WithMemory()
    results = []
    for value in (0.0, np.nan, np.inf):
        memory = np.where(MASK[..., None], MEMORY, np.float32(value))
        shapes = [x.shape for x in arrays(outer(tensor(memory)))]
        rng = np.random.default_rng(3)
        factors = [rng.normal(size=s).astype("float32") for s in shapes]
        found = running.evaluate(outer, memory, cotangents=factors)
        results.append([*found.outputs, *found.gradients])
    assert len(results[0]) > 2
    for found in results[1:]:
        assert_near(found, results[0], 1e-6)


def test_weights_equal_those_of_keras_behind_an_embedding():
    """The example of `keras.layers.AdditiveAttention`: two tokens and three of padding."""
    embedding = keras.layers.Embedding(9, D, embeddings_initializer="zeros", mask_zero=True)
    tokens = keras.Input((S,), dtype="int32")
    query = keras.Input((1, D))
    memory = embedding(tokens)
    _, expected = keras.layers.AdditiveAttention()([query, memory], return_attention_scores=True)
    _, found = layers.BahdanauAttention(6)(query, memory)
    model = keras.Model([tokens, query], [expected, found])
    expected, found = arrays(model([tensor(MEMORY_TOKENS[:1]), tensor(QUERIES[:1, :1])]))
    assert_near([found], [[[[0.5, 0.5, 0, 0, 0]]]], 1e-6)
    assert_near([found], [expected], 1e-6)


@pytest.mark.parametrize("explicit", [True, False])
def test_models_with_masks_are_saved(explicit, tmp_path):
    """A model of all the layers with a mask that Keras carries, or that is an argument."""
    memory_tokens = keras.Input((None,), dtype="int32", name="memory_tokens")
    query, queries = keras.Input((D,), name="query"), keras.Input((None, D), name="queries")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    inputs = {"i": tokens, "1": query, "3": queries}
    embedding = keras.layers.Embedding(9, D, mask_zero=not explicit, name="memory")
    memory, outputs = embedding(memory_tokens), []
    for make, other, call, mask_name in LAYERS.values():
        key = "i" if other.dtype.kind == "i" else "1" if other.ndim == 2 else "3"
        mask = {mask_name: ops.not_equal(memory_tokens, 0)} if explicit else {}
        outputs += call(make(), inputs[key], memory, **mask)
    model = keras.Model([memory_tokens, query, queries, tokens], outputs)
    given = [tensor(x) for x in (MEMORY_TOKENS, QUERY, QUERIES, TOKENS)]
    expected = arrays(model(given))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_near(arrays(again(given)), expected, 1e-6)
    # The masked positions have no weight in the reloaded model either.
    weights = [x for x in arrays(again(given)) if x.shape[-1] == S]
    assert len(weights) == len(LAYERS)
    assert all(not x[0][..., 2:].any() for x in weights)


def test_outputs_carry_the_mask_of_the_queries():
    class CarriedMask(keras.layers.Layer):
        def call(self, x, mask=None):
            return ops.zeros((1,)) if mask is None else ops.cast(mask, "float32")

        def compute_mask(self, x, mask=None):
            return None

    carried = CarriedMask()
    mask = np.array([[True, False, True], [True, True, False]])
    memory = carrying(MEMORY, MASK)
    for name in ("BahdanauAttention", "LuongAttention", "QuestionGuidedAttention"):
        vectors, weights = built(name)[2](carrying(QUERIES, mask), memory)
        assert_near(arrays([carried(vectors), carried(weights)]), [mask, [0]], 0)
    logits, weights = built("AttentionDecoder before")[2](carrying(TOKENS, mask), memory)
    assert_near(arrays([carried(logits), carried(weights)]), [mask, [0]], 0)
    for name in ("BahdanauAttention of one query", "MemoryNetwork"):
        found = built(name)[2](tensor(QUERY), memory)
        assert_near(arrays([carried(x) for x in found]), [[0], [0]], 0)


def test_the_step_function_uses_the_mask_that_the_memory_carries():
    layer, _, _ = built("AttentionDecoder before")
    states = layer.initial_states(tensor(MEMORY))
    one = tensor(TOKENS[:, 0])
    expected = layer.step(one, states, tensor(MEMORY), memory_mask=tensor(MASK))
    memory = carrying(MEMORY, MASK)
    for found in (layer.step(one, states, memory), layer.step_function(memory)(one, states)):
        assert_near(arrays(found), arrays(expected), 1e-6)


EMPTY = {"no examples": (0, S), "no positions": (B, 0)}


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("masked", [True, False])
def test_empty_inputs_give_empty_outputs(name, empty, masked):
    _, other, call = built(name)
    batch, size = EMPTY[empty]
    full = arrays(call(tensor(other), tensor(MEMORY)))
    mask = tensor(MASK[:batch, :size]) if masked else None
    given = tensor(other[:batch]), tensor(MEMORY[:batch, :size])
    if name == "LuongAttention local-m" and running.BACKEND == "torch" and not batch:
        pytest.skip("Keras's `arange` of PyTorch")
    found = arrays(call(*given, mask))
    for x, y in zip(full, found, strict=True):
        assert y.shape == tuple(
            batch if k == 0 else size if n == S else n for k, n in enumerate(x.shape)
        )
        assert np.isfinite(y).all()
    if size == 0 and not name.startswith(("AttentionDecoder", "MemoryNetwork", "Luong")):
        assert not found[0].any()  # the weighted sum of nothing


@pytest.mark.parametrize("name", ["AttentionDecoder before", "AttentionDecoder after"])
@pytest.mark.parametrize("training", [True, False])
def test_decoders_of_no_tokens(name, training):
    make = LAYERS[name][0]
    layer = make(scheduled_sampling=0.5)
    logits, weights = layer(tensor(TOKENS[:, :0]), tensor(MEMORY), training=training)
    assert (tuple(logits.shape), tuple(weights.shape)) == ((B, 0, V), (B, 0, S))
    plain = layers.RecurrentDecoder(V, 3, [layers.GRUCell(8)])
    assert tuple(plain(tensor(TOKENS[:, :0])).shape) == (B, 0, V)
    assert tuple(plain(tensor(TOKENS[:0])).shape) == (0, T, V)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_declared_shapes_and_dtypes_are_the_real_ones(name, policy):
    make, other, call, _ = LAYERS[name]
    config = make().get_config()
    layer = type(make()).from_config({**config, "dtype": policy})
    symbolic = [keras.KerasTensor(x.shape, x.dtype.name) for x in (other, MEMORY)]
    declared = call(layer, *symbolic)
    real = call(layer, tensor(other), tensor(MEMORY))
    by_shape = (
        layer.compute_output_shape(MEMORY.shape, other.shape)
        if call is memory_first
        else layer.compute_output_shape(other.shape, MEMORY.shape)
    )
    for shape, a, b in zip(by_shape, declared, real, strict=True):
        assert tuple(shape) == tuple(a.shape) == tuple(b.shape)
        dtype = keras.backend.standardize_dtype(b.dtype)
        assert keras.backend.standardize_dtype(a.dtype) == dtype == policy.removeprefix("mixed_")
