"""The cases of the memory network and of question-guided attention, without the attention weights.

The attention weights are `[B, hops or glimpses, S]`, while the checks expect the time axis second.
`test_memory.py` compares them.
"""

import keras

from tests import reference
from tests.layers import running
from tests.layers.case import Case, D, U
from unroll import layers

QUERY = 7


def _memory_network(layer, inputs, states, mask, training):
    return layer(inputs, states[0], facts_mask=mask, training=training)[0]


def _guided(layer, inputs, states, mask, training):
    return layer(states[0], inputs, regions_mask=mask)[0]


running.CALLS[layers.MemoryNetwork] = _memory_network
running.CALLS[layers.QuestionGuidedAttention] = _guided


def without_weights(oracle, **settings):
    return lambda *given: oracle(*given, **settings)[:1]


def memory_network(name: str, linear=False, random=None, **settings) -> Case:
    oracle = {k: v for k, v in settings.items() if k in ("hops", "tying", "memory_size")}
    return Case(
        name=name,
        make=lambda **options: layers.MemoryNetwork(**{"units": U, **settings, **options}),
        oracle=without_weights(reference.memory_network, linear=linear, **oracle),
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
        # No fact is older than the number of facts.
        idle={f"temporal_encoding_{k}": slice(5, None) for k in range(4)},
        variant=" " in name,
    )


def guided(name: str, **settings) -> Case:
    return Case(
        name=name,
        make=lambda **options: layers.QuestionGuidedAttention(
            **{"units": U, "glimpses": 2, **settings, **options}
        ),
        oracle=without_weights(reference.question_guided),
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
    memory_network("MemoryNetwork", memory_size=1000, random={"noise": 0.5}),
    memory_network("MemoryNetwork layer-wise", hops=2, tying="layer_wise", memory_size=1000),
    memory_network("MemoryNetwork without order", hops=1),
    guided("QuestionGuidedAttention"),
    guided("QuestionGuidedAttention with count features", count_features=True),
)
