"""The cases of the attention layers."""

from functools import partial

import keras
import numpy as np
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import Case, D, T, U
from unroll import layers

QUERY = 7
RANDOM = keras.initializers.RandomNormal(0.1, 0.2, seed=5)
POSITION = 2


def _bahdanau(layer, inputs, states, mask, training):
    return layer(states[0], inputs, memory_mask=mask)


def _luong(layer, inputs, states, mask, training):
    position = {"position": POSITION} if layer.window == "local_m" else {}
    return layer(states[0], inputs, memory_mask=mask, **position)


running.CALLS[layers.BahdanauAttention] = _bahdanau
running.CALLS[layers.LuongAttention] = _luong


def _monotonic(layer, inputs, states, mask, training):
    queries = ops.stack([ops.convert_to_tensor(s) for s in states], axis=1)
    return layer(queries, inputs, memory_mask=mask, training=training)


running.CALLS[layers.MonotonicAttention] = _monotonic


def luong(
    name: str, query: int = QUERY, segmented=False, variant=True, idle=None, **settings
) -> Case:
    """A case of Luong's attention."""
    oracle = {k: v for k, v in settings.items() if k not in ("units", "memory_size")}
    return Case(
        name=name,
        make=lambda **options: layers.LuongAttention(**{**settings, **options}),
        oracle=partial(
            reference.by_rows,
            partial(reference.luong_one, position=POSITION, vector="units" in settings, **oracle),
        ),
        covers=("LuongAttention",),
        options={
            "units": 9,
            "score": "location",
            "window": "local_p",
            "half_width": 3,
            "memory_size": 11,
            "kernel_initializer": RANDOM,
        },
        states=(query,),
        segmented=segmented,
        variant=variant,
        idle=idle or {},
    )


def monotonic(name: str, mode: str, general: bool = False, idle=None, variant=True) -> Case:
    """A case of monotonic attention with two queries."""

    def make(**options):
        policy = {"dtype": options.get("dtype")}
        if general:
            attention = layers.LuongAttention(2, **policy)
        else:
            attention = layers.BahdanauAttention(U, **policy)
        return layers.MonotonicAttention(**{"attention": attention, "mode": mode, **options})

    return Case(
        name=name,
        make=make,
        oracle=partial(reference.monotonic, hard=mode == "hard", general=general),
        covers=("MonotonicAttention",),
        options={
            "attention": layers.LuongAttention(5),
            "mode": "hard",
            "sigmoid_noise": 0.5,
            "kernel_initializer": RANDOM,
            "seed": 5,
        },
        states=(QUERY, QUERY),
        random={"sigmoid_noise": 1.0},
        idle=idle or {},
        variant=variant,
        exhaustive=True,
    )


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
    Case(
        name="BahdanauAttention",
        make=lambda **options: layers.BahdanauAttention(**{"units": U, **options}),
        oracle=partial(reference.by_rows, reference.bahdanau_one),
        covers=("BahdanauAttention",),
        options={"units": 9, "kernel_initializer": RANDOM, "normalize": True},
        states=(QUERY,),
    ),
    Case(
        name="BahdanauAttention normalized",
        make=lambda **options: layers.BahdanauAttention(
            **{"units": U, "normalize": True, **options}
        ),
        oracle=partial(reference.by_rows, reference.bahdanau_one),
        covers=("BahdanauAttention",),
        options={"units": 9, "kernel_initializer": RANDOM, "normalize": False},
        states=(QUERY,),
        exhaustive=True,
    ),
    monotonic("MonotonicAttention", "parallel", variant=False),
    monotonic("MonotonicAttention recursive", "recursive", general=True),
    monotonic(
        "MonotonicAttention hard",
        "hard",
        general=True,
        idle={"score_bias": np.s_[...], "kernel": np.s_[...]},
    ),
    luong("LuongAttention", units=2, score="general", variant=False),
    luong("LuongAttention dot", query=D, units=2, score="dot"),
    luong("LuongAttention concat", units=2, score="concat"),
    luong(
        "LuongAttention location",
        segmented=True,
        idle={"kernel": np.s_[:, T:]},
        score="location",
        memory_size=9,
    ),
    luong(
        "LuongAttention local-m", segmented=True, score="general", window="local_m", half_width=1
    ),
    luong(
        "LuongAttention local-p",
        segmented=True,
        variant=False,
        units=2,
        score="concat",
        window="local_p",
        half_width=2,
    ),
)
