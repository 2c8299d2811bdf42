"""Decoders with and without attention, one word of one example at a time."""

import numpy as np

from tests.reference.attention import bahdanau_one, luong_one
from tests.reference.recurrent import context_lstm, gru, lstm, peephole_lstm


def one_step(oracle, weights, x, states) -> tuple:
    """The output and the new states of a recurrent oracle for one vector."""
    output, *new = oracle(weights, x[None, None], [s[None] for s in states])
    return output[0, 0], [s[0] for s in new]


def recurrent_decoder(weights, first_input, states, mask=None, *, words) -> list:
    """An LSTM and a GRU on it, which read a vector before the words."""
    output_kernel, output_bias, lower, upper = *weights[:2], weights[2:5], weights[5:8]
    embedding = weights[8]

    def step(word, states, first, _):
        h, c, top = states
        x = first if word is None else embedding[word]
        middle, (h, c) = one_step(lstm, lower, x, (h, c))
        top = one_step(gru, upper, middle, (top,))[0]
        return top @ output_kernel + output_bias, [h, c, top]

    rows = [[None, *row] for row in words(states)]
    return [over_examples(step, first_input, states, None, rows)[:, 1:]]


def bahdanau_decoder(weights, memory, states, mask=None, *, words, gated=False) -> list:
    """Attention before the cells, a ContextLSTM and a GRU on it."""
    output_kernel, output_bias = weights[:2]
    lower, upper, embedding = weights[2:6], weights[6:9], weights[9]
    attention, (readout_kernel, readout_bias), gate = weights[10:13], weights[13:15], weights[15:]

    def step(word, states, memory, allowed):
        h, c, top = states
        x = embedding[word]
        context, _ = bahdanau_one(attention, top, memory, allowed)
        if gated:
            context = context / (1 + np.exp(-(top @ gate[0] + gate[1])))
        middle, (h, c) = one_step(context_lstm, lower, np.concatenate([x, context]), (h, c))
        top = one_step(gru, upper, middle, (top,))[0]
        read = np.concatenate([top, context, x]) @ readout_kernel + readout_bias
        return np.tanh(read) @ output_kernel + output_bias, [h, c, top]

    return [over_examples(step, memory, states, mask, words(states))]


def luong_decoder(weights, memory, states, mask=None, *, words, **attention_options) -> list:
    """Attention after the cell, a peephole LSTM, with input feeding and a tied output."""
    output_bias, cell, embedding, attention = weights[0], weights[1:5], weights[5], weights[6:]

    def step(word, states, memory, allowed):
        h, c, fed, count = states
        x = np.concatenate([embedding[word], fed])
        h, (_, c) = one_step(peephole_lstm, cell, x, (h, c))
        fed, _ = luong_one(attention, h, memory, allowed, position=count, **attention_options)
        return embedding @ fed + output_bias, [h, c, fed, count + 1]

    size = embedding.shape[1]
    batch = len(memory)
    states = [*states, np.zeros((batch, size)), np.zeros(batch)]
    return [over_examples(step, memory, states, mask, words(states))]


def over_examples(step, memory, states, mask, words) -> np.ndarray:
    """The logits `[B, T, V]` for the words `[B, T]` that are read."""
    if mask is None:
        mask = np.ones(memory.shape[:-1], "bool")
    logits = []
    for b, row in enumerate(words):
        own = [s[b] for s in states]
        logits.append([])
        for word in row:
            found, own = step(word, own, memory[b], mask[b])
            logits[-1].append(found)
    return np.array(logits)
