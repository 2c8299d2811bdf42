"""A CRF with random weights, for its tests."""

import numpy as np
from keras import ops

from tests.layers import running
from tests.layers.case import D
from unroll import layers

ALLOWED = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]], "bool")


def crf(dtype=running.PRECISE, **options) -> layers.CRF:
    layer = layers.CRF(D, dtype=dtype, **options)
    layer.build((None, None, D))
    rng = np.random.default_rng(9)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


def tensors(*given):
    return [ops.convert_to_tensor(x) for x in given]
