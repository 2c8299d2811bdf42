"""The cases of the decoders: the logits of teacher forcing."""

from functools import partial

import keras
import numpy as np
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import SEQUENCES, Case, D, U
from unroll import layers

# The first state of an example selects its row, so that a batch of any size has tokens.
TOKENS = np.array([[1, 3, 0], [2, 1, 2]])
VOCABULARY, EMBEDDING, UPPER, UNITS = 4, 2, 7, 6


def tokens_of(states) -> np.ndarray:
    return TOKENS[(states[0][:, 0] > 0).astype(int)]


def _logits(layer, inputs, states, mask, training):
    first, second = (ops.convert_to_tensor(row) for row in TOKENS)
    tokens = ops.where(states[0][:, :1] > 0, second, first)
    return layer(tokens, inputs, initial_state=list(states), memory_mask=mask, training=training)[0]


running.CALLS[layers.AttentionDecoder] = _logits


def _logits_after_an_input(layer, inputs, states, mask, training):
    first, second = (ops.convert_to_tensor(row) for row in TOKENS)
    tokens = ops.where(states[0][:, :1] > 0, second, first)
    return layer(tokens, initial_state=list(states), first_input=inputs, training=training)


running.CALLS[layers.RecurrentDecoder] = _logits_after_an_input


def recurrent(**options) -> layers.RecurrentDecoder:
    policy = {"dtype": options.get("dtype")}
    return layers.RecurrentDecoder(
        **{
            "vocabulary_size": VOCABULARY,
            "embedding_dim": D,
            "cells": [layers.LSTMCell(U, **policy), layers.GRUCell(UPPER, **policy)],
            **options,
        }
    )


def bahdanau(**options) -> layers.AttentionDecoder:
    policy = {"dtype": options.get("dtype")}
    return layers.AttentionDecoder(
        **{
            "vocabulary_size": VOCABULARY,
            "embedding_dim": EMBEDDING,
            "cells": [
                layers.ContextLSTMCell(U, context_size=D, **policy),
                layers.GRUCell(UPPER, **policy),
            ],
            "attention": layers.BahdanauAttention(UNITS, **policy),
            **options,
        }
    )


def luong(attention, /, **options) -> layers.AttentionDecoder:
    policy = {"dtype": options.get("dtype")}
    return layers.AttentionDecoder(
        **{
            "vocabulary_size": VOCABULARY,
            "embedding_dim": EMBEDDING,
            "cells": [layers.PeepholeLSTMCell(U, **policy)],
            "attention": layers.LuongAttention(EMBEDDING, **attention, **policy),
            "attend": "after",
            "tie_weights": True,
            **options,
        }
    )


def monotonic(**options) -> layers.AttentionDecoder:
    attention = layers.MonotonicAttention(layers.LuongAttention(EMBEDDING))
    return luong({}, **{"attention": attention, **options})


def luong_case(name: str, **attention) -> Case:
    return Case(
        name=name,
        make=partial(luong, attention),
        oracle=partial(reference.luong_decoder, tokens=tokens_of, **attention),
        covers=("AttentionDecoder",),
        options=OPTIONS,
        states=(U, U),
        segmented="window" in attention,
        random={"dropout": 0.5},
        variant="window" in attention,
    )


RECURRENT = {
    "vocabulary_size": 9,
    "embedding_dim": 5,
    "cells": [layers.LSTMCell(5)],
    "tie_weights": True,
    "dropout": 0.25,
    "scheduled_sampling": 0.125,
    "seed": 7,
    "output_dropout": 0.375,
    "embeddings_initializer": keras.initializers.Constant(0.5),
    "cell_dropout": 0.5,
}
OPTIONS = {**RECURRENT, "attention": layers.LuongAttention(5), "attend": "after", "gated": False}

ATTENTION: tuple[Case, ...] = (
    Case(
        name="AttentionDecoder before",
        make=bahdanau,
        oracle=partial(reference.bahdanau_decoder, tokens=tokens_of),
        covers=("AttentionDecoder",),
        options=OPTIONS,
        states=(U, U, UPPER),
        random={"dropout": 0.5},
    ),
    Case(
        name="AttentionDecoder gated",
        make=partial(bahdanau, gated=True),
        oracle=partial(reference.bahdanau_decoder, tokens=tokens_of, gated=True),
        covers=("AttentionDecoder",),
        options={**OPTIONS, "attention": layers.BahdanauAttention(5), "attend": "before"}
        | {"gated": True},
        states=(U, U, UPPER),
        random={"dropout": 0.5},
        variant=True,
    ),
    luong_case("AttentionDecoder after", score="general"),
    luong_case("AttentionDecoder after local", window="local_m", half_width=1),
    Case(
        name="AttentionDecoder monotonic",
        make=monotonic,
        oracle=partial(reference.monotonic_decoder, tokens=tokens_of),
        covers=("AttentionDecoder",),
        options=OPTIONS,
        states=(U, U),
        random={"dropout": 0.5},
        exhaustive=True,
    ),
)
CASES = (
    Case(
        name="RecurrentDecoder",
        make=recurrent,
        oracle=partial(reference.recurrent_decoder, tokens=tokens_of),
        covers=("RecurrentDecoder",),
        options=RECURRENT,
        inputs=SEQUENCES[:, 0],
        mask=None,
        states=(U, U, UPPER),
        random={"dropout": 0.5},
        dynamic=1,
    ),
    *ATTENTION,
)


def make_decoder(attend="before", tie_weights=False, **options) -> layers.AttentionDecoder:
    """A decoder whose parts have no dtype of their own."""
    attention = layers.BahdanauAttention(6)
    if attend == "after":
        attention = layers.LuongAttention(8, score="concat", window="local_m", half_width=2)
    return layers.AttentionDecoder(
        20, 8, [layers.LSTMCell(12)], attention, attend, tie_weights=tie_weights, **options
    )


def random_weights(layer, scale=0.5):
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=scale) for w in layer.weights])
    return layer
