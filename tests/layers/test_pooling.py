"""The maximum and the mean over time: any values, half precision, sequences without steps."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D
from tests.layers.checks import assert_near
from unroll.layers.recurrent import max_over_time, mean_over_time

POOLS = {max_over_time: np.max, mean_over_time: np.mean}


class Pool(keras.layers.Layer):
    def __init__(self, function, mask=None):
        super().__init__(dtype=running.PRECISE)
        self.function, self.mask = function, mask

    def call(self, sequences):
        return self.function(sequences, self.mask)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("offset", [0.0, -1e6, 1e6, -1e30])
def test_values_of_any_size(pool, offset):
    values = (SEQUENCES + offset).astype("float32")
    found = running.numpy(pool(ops.convert_to_tensor(values), ops.convert_to_tensor(MASK)))
    for row, keep, y in zip(values.astype("float64"), MASK, found, strict=True):
        expected = POOLS[pool](row[keep], axis=0) if keep.any() else np.zeros(D)
        assert_near([y], [expected], 1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_gradient_and_nan_in_masked_steps(pool):
    rng = np.random.default_rng(3)
    factors = [rng.normal(size=(B, D))]
    layer = Pool(pool, ops.convert_to_tensor(MASK))
    layer.build(SEQUENCES.shape)
    expected = np.zeros(SEQUENCES.shape)
    for row, keep in enumerate(MASK):
        for d in range(D):
            if not keep.any():
                continue
            if pool is mean_over_time:
                expected[row, keep, d] = factors[0][row, d] / keep.sum()
            else:
                steps = np.flatnonzero(keep)
                best = steps[np.argmax(SEQUENCES[row, keep, d] - 1e5)]
                expected[row, best, d] = factors[0][row, d]
    for value in (0.0, np.nan, np.inf):
        given = np.where(MASK[..., None], SEQUENCES - 1e5, value).astype(running.PRECISE)
        found = running.evaluate(layer, given, cotangents=factors)
        assert np.isfinite(found.outputs[0]).all()
        assert_near([found.gradients[0]], [expected], 1e-6)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("masked", [True, False])
def test_sequences_without_steps(pool, masked):
    for shape in ((B, 0, D), (0, 5, D), (0, 0, D)):
        mask = ops.convert_to_tensor(np.ones(shape[:2], "bool")) if masked else None
        found = running.numpy(pool(ops.convert_to_tensor(np.ones(shape, "float32")), mask))
        assert found.shape == (shape[0], D)
        assert not found.any()


@pytest.mark.skipif(running.BACKEND != "tensorflow", reason="only TensorFlow has dynamic shapes")
@pytest.mark.parametrize("pool", POOLS)
def test_sequences_without_steps_in_a_graph(pool):
    import tensorflow as tf

    spec = [tf.TensorSpec([None, None, D])]
    function = tf.function(pool, input_signature=spec, autograph=False)
    assert not function(tf.ones([2, 0, D])).numpy().any()
    assert (function(tf.ones([2, 3, D])).numpy() == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("masked", [True, False])
def test_mean_of_many_steps_in_half_precision(dtype, masked):
    steps = 5000
    x = ops.ones((1, steps, 2), dtype)
    mask = ops.ones((1, steps), "bool") if masked else None
    found = mean_over_time(x, mask)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    assert_near([running.numpy(found)], [np.ones((1, 2))], 0.01)
