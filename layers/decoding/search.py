"""What greedy search, sampling and beam search share.

A search calls a step function once per token:

    step_function(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)

`states` is any nested structure of tensors `[N, ...]` of any dtype: lists, tuples and dicts, also
empty or None. `weights` are the attention weights of the step, or None if the model has no
attention. `AttentionDecoder.step_function` and `RecurrentDecoder.step_function` return such a
function; you can also write your own. The searches run in the graph for at most `max_length` steps,
so that they can be exported, and compiled with XLA.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from unroll.layers.decoding.logits_processors import (
    MinLength,
    NoRepeatNgrams,
    require_in_vocabulary,
    require_tokens,
)
from unroll.layers.operations import LOG_ZERO, require_size, take_rows

# The least log probability of a forced token: that of the smallest normal float32 probability, so
# that it does not swallow the log probabilities of the other tokens.
LEAST_FORCED = math.log(np.finfo("float32").tiny)


class SearchResult(NamedTuple):
    """The sequences that a search returns.

    A search returns one sequence per example, or n sequences per example along a second axis.

    Attributes:
        tokens: `[B, L]` or `[B, n, L]`, int32, padded after the end of each sequence.
        lengths: the number of tokens before the end token, `[B]` or `[B, n]`.
        log_probabilities: of the tokens and the end token under the model, `[B]` or `[B, n]`. If a
            beam contains fewer than n sequences, the missing ones are empty, with -1e9.
        scores: what the sequences are ranked by, `[B]` or `[B, n]`: the penalized log probabilities
            of a beam search, the expected similarity of `minimum_bayes_risk`, otherwise the log
            probabilities. A beam search ranks finished sequences before unfinished ones, whatever
            their scores.
        alignments: the attention weights of each step, `[B, L, S]` or `[B, n, L, S]`, including the
            step of the end token; None if the step function returns no weights.
    """

    tokens: Any
    lengths: Any
    log_probabilities: Any
    scores: Any
    alignments: Any


@dataclass(frozen=True)
class SearchInputs:
    """The arguments that the searches have in common; `prepare` checks them.

    N is the number of sequences that are generated at once.

    Attributes:
        step_function: as given, but with a list of tensors as its states.
        states: the initial states, a list of tensors `[N, ...]`.
        start: `[N]`, int32.
        end: the end tokens.
        prefix: `[N, L]`, int32, negative where any token is allowed; or None.
        processors: the logits processors.
        max_length: L.
        pad: the value after the end of a sequence.
        batch: B.
        vocabulary_size: V.
        memory_length: S, or 1 without weights.
        has_weights: whether the step function returns weights.
    """

    step_function: Callable
    states: list
    start: Any
    end: tuple[int, ...]
    prefix: Any
    processors: tuple[Callable, ...]
    max_length: int
    pad: int
    batch: Any
    vocabulary_size: int
    memory_length: Any
    has_weights: bool

    def score_tokens(self, logits, tokens, step) -> tuple:
        """The log probabilities of the model, and the scores that the search chooses by.

        A token that may not be chosen has minus infinity.

        Args:
            logits: `[N, V]`.
            tokens: `[N, L]`, the tokens so far.
            step: the number of tokens so far, a scalar tensor.

        Returns:
            A tuple of two `[N, V]`, float32.
        """
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        log_probs = scores = _exclude_impossible(log_probs)  # [N, V]
        if self.processors:
            for processor in self.processors:
                scores = processor(scores, tokens, step)
            scores = _exclude_impossible(ops.cast(scores, "float32"))
        if self.prefix is not None:
            forced = ops.take(self.prefix, step, axis=1)[:, None]  # [N, 1]
            is_forced = ops.arange(self.vocabulary_size, dtype="int32") == forced  # [N, V]
            log_probs = ops.where(is_forced, ops.maximum(log_probs, LEAST_FORCED), log_probs)
            only_forced = ops.where(is_forced, log_probs, -np.inf)
            scores = ops.where(forced < 0, scores, only_forced)
        return log_probs, scores

    def is_end(self, tokens):
        """Whether each token is an end token, of the shape of `tokens`."""
        found = tokens == self.end[0]
        for token in self.end[1:]:
            found = ops.logical_or(found, tokens == token)
        return found


def prepare(
    step_function: Callable,
    states,
    *,
    start,
    end,
    max_length: int,
    min_length: int,
    prefix,
    no_repeat_ngram_size: int,
    logits_processors,
    pad: int,
    copies: int = 1,
) -> SearchInputs:
    """Checks the arguments of a search and repeats them for `copies` sequences per example.

    The other arguments are those of `greedy`.

    Raises:
        ValueError: if an argument is out of its range or has the wrong type or shape.
    """
    end = require_tokens("end", end)
    pad = require_size("pad", pad, minimum=np.iinfo("int32").min)
    max_length = require_size("max_length", max_length)
    min_length = require_size("min_length", min_length, minimum=0)
    if min_length > max_length:
        raise ValueError(
            f"min_length must be at most max_length, got {min_length} and {max_length}."
        )
    processors = _require_functions(logits_processors)
    if min_length:
        processors += (MinLength(min_length, end),)
    no_repeat_ngram_size = require_size("no_repeat_ngram_size", no_repeat_ngram_size, minimum=0)
    if no_repeat_ngram_size:
        processors += (NoRepeatNgrams(no_repeat_ngram_size),)
    step_function, states = _with_flat_states(step_function, states)
    start, given_prefix = _integers("start", start, (0, 1)), prefix
    prefix = _prefix(given_prefix, max_length)
    batch = _batch_size(states, start, prefix)
    start = ops.broadcast_to(start, (batch,))  # [B]
    if copies > 1:
        states = [ops.repeat(s, copies, axis=0) for s in states]
        start = ops.repeat(start, copies, axis=0)  # [N]
        prefix = None if prefix is None else ops.repeat(prefix, copies, axis=0)
    # The first step, to read what the step function returns; a compiled search leaves it out.
    logits, _, weights = step_function(start, states)
    vocabulary_size = logits.shape[-1]
    require_in_vocabulary("end", end, vocabulary_size)
    if isinstance(given_prefix, (list, tuple, np.ndarray)):
        require_in_vocabulary("prefix", np.ravel(given_prefix).tolist(), vocabulary_size)
    return SearchInputs(
        step_function=step_function,
        states=states,
        start=start,
        end=end,
        prefix=prefix,
        processors=processors,
        max_length=max_length,
        pad=pad,
        batch=batch,
        vocabulary_size=vocabulary_size,
        memory_length=1 if weights is None else ops.shape(weights)[-1],
        has_weights=weights is not None,
    )


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


def generate(inputs: SearchInputs, choose: Callable) -> SearchResult:
    """Generates one sequence per row, token by token.

    Args:
        choose: `choose(scores [N, V], step) -> tokens [N]`. It is not used where all scores of a
            row are minus infinity: there the sequence ends.
    """
    positions = ops.arange(inputs.max_length)[None]  # [1, L]
    rows, length = ops.shape(inputs.start)[0], inputs.max_length
    zeros = ops.zeros((rows,), "int32")
    initial = _State(
        step=ops.zeros((), "int32"),
        last_tokens=inputs.start,
        states=inputs.states,
        finished=zeros > 0,
        tokens=ops.full((rows, length), inputs.pad, "int32"),
        lengths=zeros,
        log_probabilities=ops.zeros((rows,), "float32"),
        alignments=ops.zeros((rows, length, inputs.memory_length), "float32"),
    )

    def advance(state: _State) -> _State:
        logits, new_states, weights = inputs.step_function(state.last_tokens, state.states)
        log_probs, scores = inputs.score_tokens(logits, state.tokens, state.step)
        tokens = ops.cast(choose(scores, state.step), "int32")  # [N]
        log_prob, score = (take_rows(x, tokens[:, None])[:, 0] for x in (log_probs, scores))  # [N]
        is_possible = score > -np.inf
        log_prob = ops.where(is_possible, log_prob, -np.inf)
        unfinished = ops.logical_not(state.finished)
        is_written = ops.logical_and(positions == state.step, unfinished[:, None])  # [N, L]
        goes_on = ops.logical_and(is_possible, ops.logical_not(inputs.is_end(tokens)))
        continues = ops.logical_and(unfinished, goes_on)
        alignments = state.alignments
        if inputs.has_weights:
            weights = ops.cast(weights, "float32")[:, None]  # [N, 1, S]
            alignments = ops.where(is_written[..., None], weights, alignments)
        is_written = ops.logical_and(is_written, continues[:, None])
        return _State(
            step=state.step + 1,
            last_tokens=tokens,
            states=new_states,
            finished=ops.logical_not(continues),
            tokens=ops.where(is_written, tokens[:, None], state.tokens),
            lengths=state.lengths + ops.cast(continues, "int32"),
            log_probabilities=state.log_probabilities + ops.where(state.finished, 0.0, log_prob),
            alignments=alignments,
        )

    final = repeat_until(lambda state: ops.all(state.finished), advance, initial, length)
    log_probs = ops.maximum(final.log_probabilities, LOG_ZERO)
    return SearchResult(
        tokens=final.tokens,
        lengths=final.lengths,
        log_probabilities=log_probs,
        scores=log_probs,
        alignments=final.alignments if inputs.has_weights else None,
    )


def repeat_until(is_done: Callable, advance: Callable, state, max_length: int):
    """Runs `state = advance(state)` until `is_done(state)`, at most `max_length` times.

    `state` is a named tuple with a field `step` that `advance` increments.
    """

    def condition(state):
        return ops.logical_and(state.step < max_length, ops.logical_not(is_done(state)))

    (final,) = ops.while_loop(condition, lambda state: (advance(state),), (state,))
    return final


def _exclude_impossible(log_probs):
    """Minus infinity for impossible tokens: at most half of `LOG_ZERO`, or NaN."""
    return ops.where(log_probs > LOG_ZERO / 2, log_probs, -np.inf)


def _require_functions(processors) -> tuple[Callable, ...]:
    if not isinstance(processors, (list, tuple)) or not all(map(callable, processors)):
        raise ValueError(f"logits_processors must be a list of functions, got {processors!r}.")
    return tuple(processors)


def _with_flat_states(step_function: Callable, states) -> tuple[Callable, list]:
    """The step function and the initial states, with a list of tensors as the states."""
    leaves = keras.tree.flatten(states)
    is_tensor = [leaf is not None for leaf in leaves]
    tensors = [ops.convert_to_tensor(leaf) for leaf in leaves if leaf is not None]
    for tensor in tensors:
        if not len(tensor.shape):
            raise ValueError(f"Each state must be a tensor [B, ...], got the scalar {tensor!r}.")

    def flat_step_function(tokens, tensors: list) -> tuple:
        remaining = iter(tensors)
        packed = [next(remaining) if given else None for given in is_tensor]
        packed = keras.tree.pack_sequence_as(states, packed)
        logits, new_states, weights = step_function(tokens, packed)
        new_leaves = keras.tree.flatten(new_states)
        if [leaf is not None for leaf in new_leaves] != is_tensor:
            raise ValueError(
                "The step function must return states of the structure of the initial states, "
                f"{states!r}, got {new_states!r}."
            )
        return logits, [leaf for leaf in new_leaves if leaf is not None], weights

    return flat_step_function, tensors


def _integers(name: str, value, ranks: tuple):
    """The value as an int32 tensor of one of these ranks."""
    tensor = ops.convert_to_tensor(value)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if "int" not in dtype:
        raise ValueError(f"{name} must be integers, got {value!r} of the dtype {dtype}.")
    if len(tensor.shape) not in ranks:
        raise ValueError(
            f"{name} must have {' or '.join(map(str, ranks))} axes, got the shape "
            f"{tuple(tensor.shape)}."
        )
    return ops.cast(tensor, "int32")


def _prefix(prefix, max_length: int):
    """The prefix as `[B, L]`, or None."""
    if prefix is None:
        return None
    tensor = _integers("prefix", prefix, (2,))
    if (tensor.shape[1] or 0) > max_length:
        raise ValueError(
            f"prefix must be [B, P] with P at most max_length, {max_length}, got the shape "
            f"{tuple(tensor.shape)}."
        )
    free = ops.full((ops.shape(tensor)[0], max_length), -1, "int32")
    return ops.concatenate([tensor, free], axis=1)[:, :max_length]


def _batch_size(states: list, start, prefix):
    """B, from the first of the arguments that has this axis."""
    for tensor in (*states, start, prefix):
        if tensor is not None and len(tensor.shape):
            return ops.shape(tensor)[0]
    raise ValueError("start must be [B] if the step function has no states, got an integer.")
