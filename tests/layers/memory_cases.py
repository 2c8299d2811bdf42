"""The rows of the memory network and of question-guided attention: the outputs, not the weights.

The weights, `[B, hops or glimpses, S]`, have their places elsewhere than the bench looks for a
sequence; `test_memory.py` compares them.
"""

import keras

from tests import reference
from tests.layers import running
from tests.layers.case import Case, D, U
from unroll import layers

QUERY = 7


def _hops(layer, inputs, states, mask, training):
    return layer(inputs, states[0], mask=mask, training=training)[0]


def _guided(layer, inputs, states, mask, training):
    return layer(states[0], inputs, mask=mask)[0]


running.CALLS[layers.MemoryNetwork] = _hops
running.CALLS[layers.QuestionGuidedAttention] = _guided


def first(oracle, **settings):
    return lambda *given: oracle(*given, **settings)[:1]


def hops(name: str, linear=False, random=None, **settings) -> Case:
    oracle = {k: v for k, v in settings.items() if k in ("hops", "tying", "memory_size")}
    return Case(
        name=name,
        make=lambda **options: layers.MemoryNetwork(**{"units": U, **settings, **options}),
        oracle=first(reference.memory_network, linear=linear, **oracle),
        covers=("MemoryNetwork",),
        options={
            "units": 9,
            "hops": 2,
            "vocabulary_size": 11,
            "tying": "layer_wise",
            "position_encoding": False,
            "memory_size": 13,
            "noise": 0.125,
            "linear_start": True,
            "return_logits": True,
            "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "seed": 7,
        },
        states=(D,),
        random=random or {},
        # The ages above the number of facts are never met.
        idle={f"temporal_encoding_{k}": slice(5, None) for k in range(4)},
        variant=" " in name,
    )


def guided(name: str, **settings) -> Case:
    return Case(
        name=name,
        make=lambda **options: layers.QuestionGuidedAttention(
            **{"units": U, "glimpses": 2, **settings, **options}
        ),
        oracle=first(reference.question_guided),
        covers=("QuestionGuidedAttention",),
        options={
            "units": 9,
            "glimpses": 3,
            "normalize": False,
            "activation": "softsign",
            "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "scale_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=6),
            "count_features": True,
        },
        states=(QUERY,),
        variant=bool(settings),
    )


CASES: tuple[Case, ...] = (
    hops("MemoryNetwork", memory_size=9, random={"noise": 0.5}),
    hops("MemoryNetwork layer-wise", hops=2, tying="layer_wise", memory_size=9),
    hops("MemoryNetwork without order", hops=1),
    guided("QuestionGuidedAttention"),
    guided("QuestionGuidedAttention with tallies", count_features=True),
)
