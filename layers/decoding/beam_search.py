"""Beam search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from unroll.layers.decoding.logits_rules import LogitsRules, make_rules
from unroll.layers.decoding.search import (
    SearchResult,
    repeat_until,
    start_tokens,
    weights_of_step,
)
from unroll.layers.operations import LOG_ZERO, require_size, take_rows


def beam_search(
    step_function: Callable,
    states: list,
    *,
    start,
    end: int,
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    pad: int = 0,
    beam_width: int = 5,
    num_return_sequences: int = 1,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    memory_mask=None,
) -> SearchResult:
    """Searches for the most probable sequences with a beam of hypotheses.

    Wu et al. 2016, "Google's neural machine translation system", equation 14. A finished sequence Y
    has the score

        s(Y) = log P(Y) / ((5 + |Y|) / 6)^alpha + beta * sum_s log min(sum_t a_ts, 1)

    where |Y| includes the end symbol and a_ts is the attention weight of position s at step t. Open
    hypotheses are ranked by their log probability alone. The search of an example stops when it has
    `beam_width` finished sequences. A beam of width one is the greedy search.

    Args:
        step_function: `(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)`,
            such as `AttentionDecoder.step_function` returns. N is B times `beam_width`; the rows of
            one example are consecutive.
        states: list of the initial states, `[B, ...]` each.
        start: the symbol that the first step reads, an integer or `[B]`.
        end: the symbol that ends a sequence. It is not part of the result.
        max_length: L, the maximum number of steps. A sequence that has not ended by then is
            returned without an end, after the finished ones.
        min_length: the minimum number of tokens before the end.
        prefix: `[B, P]`, integers, the tokens that the sequences start with; -1 where any token is
            allowed.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
        pad: the value after the end of a sequence.
        beam_width: W, the number of open hypotheses, and of finished sequences.
        num_return_sequences: n, the number of sequences to return, best first.
        length_penalty: alpha. With 0 the search prefers short sequences.
        coverage_penalty: beta. It needs a step function that returns weights.
        memory_mask: `[B, S]`, boolean, the positions that the coverage penalty counts; all by
            default.

    Returns:
        A `SearchResult` with n sequences per example.

    Raises:
        ValueError: if a number is out of its range, `prefix` has the wrong shape, or
            `coverage_penalty` is set and the step function returns no weights.

    >>> import numpy as np
    >>> from unroll import layers
    >>> decoder = layers.RecurrentDecoder(50, 8, cells=[layers.LSTMCell(16)])
    >>> decoder.build((None, None))
    >>> limits = {"start": 1, "end": 2, "max_length": 7}
    >>> states = decoder.initial_states(2)
    >>> result = layers.beam_search(
    ...     decoder.step_function(), states, beam_width=4, num_return_sequences=3, **limits
    ... )
    >>> result.tokens.shape, result.scores.shape
    (TensorShape([2, 3, 7]), TensorShape([2, 3]))

    Differs from the paper: the coverage penalty is clipped at log 1e-6 per position.
    """
    require_size("beam_width", beam_width)
    require_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, {beam_width}, got "
            f"{num_return_sequences}."
        )
    if coverage_penalty < 0:
        raise ValueError(f"coverage_penalty must be at least 0, got {coverage_penalty!r}.")
    rules = make_rules(end, max_length, min_length, prefix, no_repeat_ngram_size)
    batch = ops.shape(states[0])[0]
    tokens = ops.repeat(start_tokens(start, states), beam_width, axis=0)  # [N]
    states = [ops.repeat(s, beam_width, axis=0) for s in states]
    has_weights, memory_length = weights_of_step(step_function, tokens, states)
    if coverage_penalty and not has_weights:
        raise ValueError(
            f"coverage_penalty must be 0 with a step function that returns no attention weights, "
            f"got {coverage_penalty!r}."
        )
    search = _BeamSearch(
        step_function=step_function,
        rules=rules.repeat_rows(beam_width),
        batch=batch,
        beam_width=beam_width,
        max_length=max_length,
        has_weights=has_weights,
        length_penalty=length_penalty,
        coverage_penalty=coverage_penalty,
        memory_mask=memory_mask,
    )
    initial = search.initial_state(tokens, states, pad, memory_length)
    final = repeat_until(
        lambda state: ops.all(_is_done(state.finished)), search.advance, initial, max_length
    )
    result = search.finalize(final, num_return_sequences)
    return result if has_weights else result._replace(alignments=None)


class _Beam(NamedTuple):
    """The open hypotheses: W sequences per example that have not ended."""

    last_tokens: Any  # [N]
    states: list  # [N, ...] each
    log_probabilities: Any  # [B, W]
    tokens: Any  # [B, W, L]
    alignments: Any  # [B, W, L, S]


class _Candidates(NamedTuple):
    """The 2W best extensions of the hypotheses of each example by one token, best first."""

    log_probabilities: Any  # [B, 2W]
    parents: Any  # [B, 2W], the hypotheses that they extend
    tokens: Any  # [B, 2W]
    ends: Any  # [B, 2W], whether the token is the end symbol


class _State(NamedTuple):
    """What the loop over tokens carries."""

    step: Any  # []
    beam: _Beam
    # The W best finished sequences per example. The score of a missing one is 2 * LOG_ZERO.
    finished: SearchResult


@dataclass(frozen=True)
class _BeamSearch:
    """One step of the search, in parts, with the options of `beam_search`."""

    step_function: Callable
    rules: LogitsRules
    batch: Any  # B
    beam_width: int  # W
    max_length: int  # L
    has_weights: bool
    length_penalty: float
    coverage_penalty: float
    memory_mask: Any

    def initial_state(self, tokens, states: list, pad: int, memory_length) -> _State:
        def full(value, *shape, dtype="float32"):
            return ops.full((self.batch, self.beam_width, *shape), value, dtype)

        tokens_so_far = full(pad, self.max_length, dtype="int32")
        alignments = full(0.0, self.max_length, memory_length)
        # The hypotheses are equal at the start: count only the first.
        first = ops.where(ops.arange(self.beam_width) > 0, LOG_ZERO, 0.0)
        return _State(
            step=ops.zeros((), "int32"),
            beam=_Beam(
                last_tokens=tokens,
                states=list(states),
                log_probabilities=full(0.0) + first,
                tokens=tokens_so_far,
                alignments=alignments,
            ),
            finished=SearchResult(
                tokens=tokens_so_far,
                lengths=full(0, dtype="int32"),
                log_probabilities=full(2 * LOG_ZERO),
                scores=full(2 * LOG_ZERO),
                alignments=alignments,
            ),
        )

    def advance(self, state: _State) -> _State:
        """One step of all examples."""
        beam = state.beam
        logits, states, weights = self.step_function(beam.last_tokens, beam.states)
        beam = beam._replace(states=states)
        if self.has_weights:
            weights = self._by_example(ops.cast(weights, "float32"))[:, :, None]  # [B, W, 1, S]
            is_now = (ops.arange(self.max_length) == state.step)[:, None]  # [L, 1]
            beam = beam._replace(alignments=ops.where(is_now, weights, beam.alignments))
        candidates = self._expand(beam, logits, state.step)
        return _State(
            step=state.step + 1,
            beam=self._next_beam(beam, candidates, state.step),
            finished=self._update_finished(state.finished, beam, candidates, state.step),
        )

    def _expand(self, beam: _Beam, logits, step) -> _Candidates:
        """The best extensions of the hypotheses, from the logits `[N, V]`."""
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # [N, V]
        tokens_so_far = ops.reshape(beam.tokens, (-1, self.max_length))  # [N, L]
        log_probs = self._by_example(self.rules.apply(log_probs, step, tokens_so_far))  # [B, W, V]
        # First the best of each hypothesis: several short selections are faster than a long one.
        k = min(2 * self.beam_width, log_probs.shape[-1])
        log_probs, tokens = ops.top_k(log_probs, k)  # [B, W, k]
        shape = (self.batch, self.beam_width * k)
        totals = ops.reshape(beam.log_probabilities[..., None] + log_probs, shape)
        totals, chosen = ops.top_k(totals, min(2 * self.beam_width, self.beam_width * k))  # [B, 2W]
        chosen = ops.cast(chosen, "int32")
        tokens = take_rows(ops.reshape(ops.cast(tokens, "int32"), shape), chosen)
        return _Candidates(totals, chosen // k, tokens, tokens == self.rules.end)

    def _update_finished(
        self, finished: SearchResult, beam: _Beam, candidates: _Candidates, step
    ) -> SearchResult:
        """The W best of the finished sequences and of those that end at this step."""
        w = self.beam_width
        log_probs, parents = candidates.log_probabilities[:, :w], candidates.parents[:, :w]
        alignments = take_rows(beam.alignments, parents)
        valid = ops.logical_and(candidates.ends[:, :w], log_probs > LOG_ZERO / 2)
        valid = ops.logical_and(valid, ops.logical_not(_is_done(finished))[:, None])
        scores = self._score(log_probs, step + 1, alignments)
        ending = SearchResult(
            tokens=take_rows(beam.tokens, parents),
            lengths=ops.broadcast_to(step, ops.shape(log_probs)),
            log_probabilities=log_probs,
            scores=ops.where(valid, scores, 2 * LOG_ZERO),
            alignments=alignments,
        )
        both = _concatenate(finished, ending)
        return _best(both, both.scores, w)

    def _next_beam(self, beam: _Beam, candidates: _Candidates, step) -> _Beam:
        """The W best candidates that have not ended."""
        totals = ops.where(candidates.ends, 2 * LOG_ZERO, candidates.log_probabilities)
        log_probs, chosen = ops.top_k(totals, self.beam_width)  # [B, W]
        chosen = ops.cast(chosen, "int32")
        parents = take_rows(candidates.parents, chosen)
        tokens = take_rows(candidates.tokens, chosen)
        rows = parents + self.beam_width * ops.arange(self.batch, dtype="int32")[:, None]
        rows = ops.reshape(rows, (-1,))  # [N]
        is_now = ops.arange(self.max_length) == step  # [L]
        return _Beam(
            last_tokens=ops.reshape(tokens, (-1,)),
            states=[ops.take(s, rows, axis=0) for s in beam.states],
            log_probabilities=log_probs,
            tokens=ops.where(is_now, tokens[..., None], take_rows(beam.tokens, parents)),
            alignments=take_rows(beam.alignments, parents),
        )

    def finalize(self, state: _State, n: int) -> SearchResult:
        """The n best sequences: the finished ones, then the open hypotheses."""
        beam = state.beam
        hypotheses = SearchResult(
            tokens=beam.tokens,
            lengths=ops.broadcast_to(state.step, ops.shape(beam.log_probabilities)),
            log_probabilities=beam.log_probabilities,
            scores=self._score(beam.log_probabilities, state.step, beam.alignments),
            alignments=beam.alignments,
        )
        order = (state.finished.scores, hypotheses.scores + LOG_ZERO / 10)
        both = _concatenate(state.finished, hypotheses)
        return _best(both, ops.concatenate(order, axis=1), n)

    def _score(self, log_probs, lengths, alignments):
        """s(Y) `[B, n]`, where `lengths` include the end symbol."""
        scores = log_probs / ((5 + ops.cast(lengths, "float32")) / 6) ** self.length_penalty
        if self.coverage_penalty:
            # Without the lower bound, one position without attention would give minus infinity.
            coverage = ops.clip(ops.sum(alignments, axis=2), 1e-6, 1.0)  # [B, n, S]
            penalties = ops.log(coverage)
            if self.memory_mask is not None:
                counts = ops.cast(self.memory_mask, "bool")[:, None]  # [B, 1, S]
                penalties = ops.where(counts, penalties, 0.0)
            scores = scores + self.coverage_penalty * ops.sum(penalties, axis=-1)
        return scores

    def _by_example(self, x):
        """`[N, ...]` to `[B, W, ...]`."""
        return ops.reshape(x, (self.batch, -1, *ops.shape(x)[1:]))


def _is_done(finished: SearchResult):
    """Whether an example has all its finished sequences, `[B]`."""
    return ops.min(finished.scores, axis=1) > LOG_ZERO / 2


def _concatenate(first: SearchResult, second: SearchResult) -> SearchResult:
    """The sequences of both, `[B, n + m, ...]`."""
    return SearchResult(
        *(ops.concatenate(pair, axis=1) for pair in zip(first, second, strict=True))
    )


def _best(result: SearchResult, order, n: int) -> SearchResult:
    """The n sequences per example with the highest `order` `[B, m]`, highest first."""
    rows = ops.cast(ops.top_k(order, n)[1], "int32")
    return SearchResult(*(take_rows(x, rows) for x in result))
