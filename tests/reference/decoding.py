"""Decoders with and without attention, one token of one example at a time."""

import numpy as np

from tests.reference.attention import bahdanau_one, luong_one, monotonic
from tests.reference.recurrent import context_lstm, gru, lstm, peephole_lstm


def one_step(oracle, weights, x, states) -> tuple:
    """The output and the new states of a recurrent oracle for one vector."""
    output, *new = oracle(weights, x[None, None], [s[None] for s in states])
    return output[0, 0], [s[0] for s in new]


def recurrent_decoder(weights, first_input, states, mask=None, *, tokens) -> list:
    """An LSTM below a GRU, which read a vector before the tokens."""
    output_kernel, output_bias, lower, upper = *weights[:2], weights[2:5], weights[5:8]
    embedding = weights[8]

    def step(token, states, first, _):
        h, c, top = states
        x = first if token is None else embedding[token]
        middle, (h, c) = one_step(lstm, lower, x, (h, c))
        top = one_step(gru, upper, middle, (top,))[0]
        return top @ output_kernel + output_bias, [h, c, top]

    rows = [[None, *row] for row in tokens(states)]
    return [over_examples(step, first_input, states, None, rows)[:, 1:]]


def bahdanau_decoder(weights, memory, states, mask=None, *, tokens, gated=False) -> list:
    """Attention before the cells, a ContextLSTM below a GRU."""
    output_kernel, output_bias, readout_bias = weights[:3]
    lower, upper, embedding = weights[3:7], weights[7:10], weights[10]
    attention, readout_kernel, gate = weights[11:14], weights[14], weights[15:]

    def step(token, states, memory, allowed):
        h, c, top = states
        x = embedding[token]
        context, _ = bahdanau_one(attention, top, memory, allowed)
        if gated:
            context = context / (1 + np.exp(-(top @ gate[0] + gate[1])))
        middle, (h, c) = one_step(context_lstm, lower, np.concatenate([x, context]), (h, c))
        top = one_step(gru, upper, middle, (top,))[0]
        read = np.concatenate([top, context, x]) @ readout_kernel + readout_bias
        return np.tanh(read) @ output_kernel + output_bias, [h, c, top]

    return [over_examples(step, memory, states, mask, tokens(states))]


def luong_decoder(weights, memory, states, mask=None, *, tokens, **attention_options) -> list:
    """Attention after the cell, a peephole LSTM, with input feeding and tied weights."""
    output_bias, cell, embedding, attention = weights[0], weights[1:5], weights[5], weights[6:]

    def step(token, states, memory, allowed):
        h, c, fed, count = states
        x = np.concatenate([embedding[token], fed])
        h, (_, c) = one_step(peephole_lstm, cell, x, (h, c))
        fed, _ = luong_one(attention, h, memory, allowed, position=count, **attention_options)
        return embedding @ fed + output_bias, [h, c, fed, count + 1]

    size = embedding.shape[1]
    batch = len(memory)
    states = [*states, np.zeros((batch, size)), np.zeros(batch)]
    return [over_examples(step, memory, states, mask, tokens(states))]


def monotonic_decoder(weights, memory, states, mask=None, *, tokens) -> list:
    """As `luong_decoder`, with monotonic attention."""
    output_bias, cell, embedding, attention = weights[0], weights[1:5], weights[5], weights[6:]

    def step(token, states, memory, allowed):
        h, c, fed, *queries = states
        h, (_, c) = one_step(peephole_lstm, cell, np.concatenate([embedding[token], fed]), (h, c))
        queries = [*queries, h]
        vectors, _ = monotonic(
            attention, memory[None], [q[None] for q in queries], allowed[None], general=True
        )
        fed = vectors[0, -1]
        return embedding @ fed + output_bias, [h, c, fed, *queries]

    size = embedding.shape[1]
    states = [*states, np.zeros((len(memory), size))]
    return [over_examples(step, memory, states, mask, tokens(states))]


def over_examples(step, memory, states, mask, tokens) -> np.ndarray:
    """The logits `[B, T, V]` after the tokens `[B, T]`."""
    if mask is None:
        mask = np.ones(memory.shape[:-1], "bool")
    logits = []
    for b, row in enumerate(tokens):
        own = [s[b] for s in states]
        logits.append([])
        for token in row:
            output, own = step(token, own, memory[b], mask[b])
            logits[-1].append(output)
    return np.array(logits)
