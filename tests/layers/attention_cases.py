"""The rows of the attention layers."""

import keras

import layers
from tests import reference
from tests.layers.case import Case, U

CASES: tuple[Case, ...] = (
    Case(
        name="AttentionPool",
        make=lambda **options: layers.AttentionPool(**{"units": U, **options}),
        oracle=reference.attention_pool,
        covers=("AttentionPool",),
        options={
            "units": 7,
            "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "bias_initializer": keras.initializers.Constant(0.5),
            "context_initializer": keras.initializers.GlorotNormal(seed=6),
            "kernel_regularizer": keras.regularizers.L2(0.1),
        },
    ),
)
