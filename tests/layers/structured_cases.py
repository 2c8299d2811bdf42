"""The case of the conditional random field: log Z, which has the gradients.

`test_crf.py` tests the tags, the marginals and the allowed transitions.
"""

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


CASES: tuple[Case, ...] = (
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
