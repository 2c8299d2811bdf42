"""What greedy search, sampling and beam search share.

A search calls a step function once per token:

    step_function(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)

`states` is a list of tensors `[N, ...]`. `weights` are the attention weights of the step, or None
if the model has no attention. `AttentionDecoder.step_function` and `RecurrentDecoder.step_function`
return such a function; you can also write your own. The searches run in the graph for at most
`max_length` steps, so that they can be exported, and compiled with XLA.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from unroll.layers.decoding.logits_rules import LogitsRules


class SearchResult(NamedTuple):
    """The sequences that a search returns.

    A search returns one sequence per example, or n sequences per example along a second axis.

    Attributes:
        tokens: `[B, L]` or `[B, n, L]`, int32, padded after the end of each sequence.
        lengths: the number of tokens before the end symbol, `[B]` or `[B, n]`.
        log_probabilities: of the tokens and the end symbol, `[B]` or `[B, n]`. If a beam contains
            fewer than n sequences, the missing ones have -1e9 or less.
        scores: what the sequences are ranked by, `[B]` or `[B, n]`: the penalized log probabilities
            of a beam search, the expected similarity of `minimum_bayes_risk`, otherwise the log
            probabilities.
        alignments: the attention weights of each step, `[B, L, S]` or `[B, n, L, S]`, including the
            step of the end symbol; None if the step function returns no weights.
    """

    tokens: Any
    lengths: Any
    log_probabilities: Any
    scores: Any
    alignments: Any


class _State(NamedTuple):
    """What the loop over tokens carries: one sequence per row."""

    step: Any  # []
    last_tokens: Any  # [N]
    states: list  # [N, ...] each
    finished: Any  # [N]
    tokens: Any  # [N, L]
    lengths: Any  # [N]
    log_probabilities: Any  # [N]
    alignments: Any  # [N, L, S]


def generate(
    step_function: Callable,
    states: list,
    start,
    rules: LogitsRules,
    max_length: int,
    pad: int,
    choose: Callable,
) -> SearchResult:
    """Generates one sequence per row, token by token.

    Args:
        choose: `choose(log_probabilities [N, V], step) -> tokens [N]`.

    The other arguments are those of `greedy`.
    """
    positions = ops.arange(max_length)[None]  # [1, L]
    tokens = start_tokens(start, states)  # [N]
    has_weights, memory_length = weights_of_step(step_function, tokens, states)
    rows = ops.shape(tokens)[0]
    zeros = ops.zeros((rows,), "int32")
    initial = _State(
        step=ops.zeros((), "int32"),
        last_tokens=tokens,
        states=list(states),
        finished=zeros > 0,
        tokens=ops.full((rows, max_length), pad, "int32"),
        lengths=zeros,
        log_probabilities=ops.zeros((rows,), "float32"),
        alignments=ops.zeros((rows, max_length, memory_length), "float32"),
    )

    def advance(state: _State) -> _State:
        logits, new_states, weights = step_function(state.last_tokens, state.states)
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # [N, V]
        log_probs = rules.apply(log_probs, state.step, state.tokens)
        tokens = ops.cast(choose(log_probs, state.step), "int32")  # [N]
        is_token = ops.arange(log_probs.shape[-1])[None] == tokens[:, None]  # [N, V]
        log_prob = ops.sum(ops.where(is_token, log_probs, 0.0), axis=-1)  # [N]
        unfinished = ops.logical_not(state.finished)
        is_written = ops.logical_and(positions == state.step, unfinished[:, None])  # [N, L]
        continues = ops.logical_and(unfinished, tokens != rules.end)
        alignments = state.alignments
        if has_weights:
            weights = ops.cast(weights, "float32")[:, None]  # [N, 1, S]
            alignments = ops.where(is_written[..., None], weights, alignments)
        is_written = ops.logical_and(is_written, continues[:, None])
        return _State(
            step=state.step + 1,
            last_tokens=tokens,
            states=list(new_states),
            finished=ops.logical_not(continues),
            tokens=ops.where(is_written, tokens[:, None], state.tokens),
            lengths=state.lengths + ops.cast(continues, "int32"),
            log_probabilities=state.log_probabilities + ops.where(state.finished, 0.0, log_prob),
            alignments=alignments,
        )

    final = repeat_until(lambda state: ops.all(state.finished), advance, initial, max_length)
    return SearchResult(
        tokens=final.tokens,
        lengths=final.lengths,
        log_probabilities=final.log_probabilities,
        scores=final.log_probabilities,
        alignments=final.alignments if has_weights else None,
    )


def start_tokens(start, states: list):
    """The tokens `[B]` that the first step reads, from an integer or `[B]`."""
    batch = ops.shape(states[0])[0]
    return ops.broadcast_to(ops.cast(ops.convert_to_tensor(start), "int32"), (batch,))


def weights_of_step(step_function: Callable, tokens, states: list) -> tuple:
    """Whether the step function returns attention weights, and their length S, or 1."""
    weights = step_function(tokens, list(states))[2]
    return (False, 1) if weights is None else (True, ops.shape(weights)[-1])


def repeat_until(is_done: Callable, advance: Callable, state, max_length: int):
    """Runs `state = advance(state)` until `is_done(state)`, at most `max_length` times.

    `state` is a named tuple with a field `step` that `advance` increments.
    """

    def condition(state):
        return ops.logical_and(state.step < max_length, ops.logical_not(is_done(state)))

    (final,) = ops.while_loop(condition, lambda state: (advance(state),), (state,))
    return final
