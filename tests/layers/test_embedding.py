"""The layers that encode words: sums in half precision, declared dtypes, empty inputs."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from unroll import layers

WORDS = np.array([[[3, 4, 0], [5, 0, 0]], [[0, 0, 0], [1, 2, 6]]], "int32")
TOKENS = np.array([[3, 4, 5], [6, 7, 0]], "int32")
LAYERS = {
    "WordHashing": (lambda **o: layers.WordHashing(4, trigrams=9, **o), WORDS),
    "CharacterEmbedding": (lambda **o: layers.CharacterEmbedding(9, 4, **o), WORDS),
    "CharacterEmbedding recurrent": (
        lambda **o: layers.CharacterEmbedding(9, 4, reader="recurrent", **o),
        WORDS,
    ),
    "WordDropout": (lambda **o: layers.WordDropout(0.5, unknown=1, **o), TOKENS),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_declared_shapes_and_dtypes_are_the_real_ones(name, policy):
    make, inputs = LAYERS[name]
    layer = make(dtype=policy)
    declared = layer(keras.KerasTensor(inputs.shape, "int32"))
    real = layer(ops.convert_to_tensor(inputs))
    shapes = [layer.compute_output_shape(inputs.shape), declared.shape, real.shape]
    assert len({tuple(shape) for shape in shapes}) == 1
    dtype = "int32" if name == "WordDropout" else policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(x.dtype) for x in (declared, real)} == {dtype}


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "WordDropout"])
def test_empty_inputs_give_empty_outputs(name, shape):
    layer = LAYERS[name][0]()
    found = running.numpy(layer(ops.convert_to_tensor(np.zeros(shape, "int32"))))
    assert found.shape == (*shape[:2], 4)
    assert not found.any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_many_trigrams_in_half_precision(dtype):
    layer = layers.WordHashing(2, trigrams=5000, embeddings_initializer="ones", dtype=dtype)
    found = layer(ops.convert_to_tensor(np.arange(1, 5001)[None, None]))
    assert_near([running.numpy(found)], [np.full((1, 1, 2), 5000)], 0.01)


def test_word_dropout_is_built_and_replaces_no_padding():
    layer = layers.WordDropout(0.9, unknown=1, seed=3)
    assert layer.built
    tokens = ops.convert_to_tensor(np.tile(TOKENS, (50, 1)))
    found = running.numpy(layer(tokens, mask=tokens != 0, training=True))
    assert (found == 1).any()
    assert ((found == 0) == (running.numpy(tokens) == 0)).all()
