"""The cases of the layers for structured outputs.

That of the conditional random field is log Z, which has the gradients. `test_crf.py` tests the
tags, the marginals and the allowed transitions, `test_adaptive_softmax.py` targets and embeddings.
"""

from functools import partial

import keras
import numpy as np

from tests import reference
from tests.layers.case import Case, D
from unroll import layers


@keras.saving.register_keras_serializable(package="unroll_tests")
class Partition(layers.CRF):
    """A layer that returns log Z."""

    def call(self, potentials, mask=None):
        return keras.ops.cast(self.log_partition(potentials, mask), self.compute_dtype)

    def compute_output_shape(self, potentials_shape):
        return tuple(potentials_shape[:1])

    def compute_output_spec(self, potentials, mask=None):
        return keras.KerasTensor(potentials.shape[:1], self.compute_dtype)


CUTOFFS = (2, 9)

CASES: tuple[Case, ...] = (
    Case(
        name="AdaptiveSoftmax",
        make=lambda **options: layers.AdaptiveSoftmax(
            **{"vocabulary_size": 13, "cutoffs": CUTOFFS, "div_value": 1.5, **options}
        ),
        oracle=partial(reference.adaptive_softmax, CUTOFFS),
        covers=("AdaptiveSoftmax",),
        options={
            "vocabulary_size": 12,
            "cutoffs": [3, 7],
            "div_value": 2.0,
            "use_bias": False,
            "input_size": 7,
            "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "bias_initializer": keras.initializers.Constant(0.5),
            "kernel_regularizer": keras.regularizers.L2(0.1),
        },
    ),
    Case(
        name="CRF",
        make=lambda **options: Partition(**{"num_tags": D, **options}),
        oracle=reference.crf,
        long_oracle=reference.crf_by_recursion,
        covers=("CRF",),
        options={
            "num_tags": 2,
            "allowed_transitions": np.array([[1, 0, 1], [1, 1, 1], [0, 1, 1]], "bool").tolist(),
            "transition_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "transition_regularizer": keras.regularizers.L2(0.1),
        },
    ),
)
