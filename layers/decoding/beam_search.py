"""Beam search."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from unroll.layers.decoding.logits_processors import STANDARD
from unroll.layers.decoding.ranking import top_k
from unroll.layers.decoding.search import SearchInputs, SearchResult, prepare, repeat_until
from unroll.layers.operations import LOG_ZERO, require_size, take_rows


def beam_search(
    step_function: Callable,
    states,
    *,
    start,
    end: int | list[int],
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    logits_processors: Sequence[Callable] = (),
    pad: int = 0,
    beam_width: int = 5,
    num_return_sequences: int = 1,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    memory_mask=None,
    num_beam_groups: int = 1,
    diversity_penalty: float = 0.0,
) -> SearchResult:
    """Searches for the most probable sequences with a beam of hypotheses.

    Wu et al. 2016, "Google's neural machine translation system", equation 14. A finished sequence Y
    has the score

        s(Y) = log P(Y) / ((5 + |Y|) / 6)^alpha + beta * sum_s log min(sum_t a_ts, 1)

    where |Y| includes the end token and a_ts is the attention weight of position s at step t. Open
    hypotheses are ranked by their log probability alone, and a sequence is finished if its end is
    among the W best extensions of the open hypotheses. The search of an example stops when no open
    hypothesis can reach the score of its n-th finished sequence: the result is that of a search
    that takes all `max_length` steps. A beam of width one without a length penalty is the greedy
    search.

    Several groups are a diverse beam search (Vijayakumar et al. 2018, "Diverse beam search for
    improved description of complex scenes", algorithm 1 with the Hamming diversity). Each of G
    groups has W / G hypotheses. At each step the groups choose one after the other, and the log
    probability of each token is lowered by `diversity_penalty` times the number of hypotheses of
    earlier groups that continue with this token. Different groups may find the same sequence.

    With `logits_processors` and groups, hypotheses are ranked by the sum of what the processors and
    the diversity penalty make of the log probabilities, and s(Y) has this sum in place of log P(Y).

    Args:
        step_function: `(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)`,
            such as `AttentionDecoder.step_function` returns. N is B times `beam_width`; the rows of
            one example are consecutive. A logit of minus infinity, or of -1e9, makes a token
            impossible. If all tokens are impossible, or the logits are NaN, the hypothesis is
            dropped.
        states: the initial states, any nested structure of tensors `[B, ...]`.
        start: the token that the first step reads, an integer or `[B]`.
        end: the token that ends a sequence, or a list of such tokens. It is not part of the result.
        max_length: L, the maximum number of steps. A sequence that has not ended by then is
            returned without an end, after the finished ones.
        min_length: the minimum number of tokens before the end.
        prefix: `[B, P]`, integers, the tokens that the sequences start with; negative where any
            token is allowed. Forced tokens are written and counted as in `greedy`.
        no_repeat_ngram_size: n, if no n-gram may occur twice in a sequence; 0 for no limit.
        logits_processors: list of functions `(logits [N, V], tokens [N, L], step) -> logits` that
            change the log probabilities before the choice, such as `RepetitionPenalty`. With a
            function of your own, which may raise them, a search takes all `max_length` steps.
        pad: the value after the end of a sequence.
        beam_width: W, the number of open hypotheses.
        num_return_sequences: n, the number of sequences to return, best first; at most W.
        length_penalty: alpha. With 0 the search prefers short sequences.
        coverage_penalty: beta. It needs a step function that returns weights.
        memory_mask: `[B, S]`, boolean, the positions that the coverage penalty counts; all by
            default.
        num_beam_groups: G, which divides W.
        diversity_penalty: the penalty of a token for each hypothesis of an earlier group that
            chooses it at the same step. The paper uses 0.2 to 0.8.

    Returns:
        A `SearchResult` with n sequences per example: first the finished ones by their scores, then
        the unfinished ones by theirs, however unlikely the finished ones are. Its log probabilities
        are those of the model, before `logits_processors` and `diversity_penalty`. Of sequences
        with equal scores, the one that was found first comes first, on each backend.

    Raises:
        ValueError: if an argument is out of its range, or has the wrong type or shape, or
            `coverage_penalty` is set and the step function returns no weights, or
            `diversity_penalty` is set and there is one group.

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

    Differs from the papers: the coverage penalty is clipped at log 1e-6 per position. The groups of
    the diverse beam search count the hypotheses that go on, not those that end.
    """
    beam_width = require_size("beam_width", beam_width)
    num_return_sequences = require_size("num_return_sequences", num_return_sequences)
    num_beam_groups = require_size("num_beam_groups", num_beam_groups)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, {beam_width}, got "
            f"{num_return_sequences}."
        )
    if beam_width % num_beam_groups:
        raise ValueError(
            f"num_beam_groups must divide beam_width, {beam_width}, got {num_beam_groups}."
        )
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty must be finite, got {length_penalty!r}.")
    penalties = {"coverage_penalty": coverage_penalty, "diversity_penalty": diversity_penalty}
    for name, penalty in penalties.items():
        if not 0 <= penalty < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {penalty!r}.")
    if diversity_penalty and num_beam_groups == 1:
        raise ValueError(
            f"diversity_penalty must be 0 with one group, got {diversity_penalty!r}. Set "
            "num_beam_groups."
        )
    inputs = prepare(
        step_function,
        states,
        start=start,
        end=end,
        max_length=max_length,
        min_length=min_length,
        prefix=prefix,
        no_repeat_ngram_size=no_repeat_ngram_size,
        logits_processors=logits_processors,
        pad=pad,
        copies=beam_width,
    )
    if coverage_penalty and not inputs.has_weights:
        raise ValueError(
            f"coverage_penalty must be 0 with a step function that returns no attention weights, "
            f"got {coverage_penalty!r}."
        )
    if memory_mask is not None:
        memory_mask = ops.repeat(ops.cast(memory_mask, "bool"), num_beam_groups, axis=0)  # [M, S]
    search = _BeamSearch(
        inputs=inputs,
        groups=num_beam_groups,
        width=beam_width // num_beam_groups,
        num_return_sequences=num_return_sequences,
        length_penalty=length_penalty,
        coverage_penalty=coverage_penalty,
        memory_mask=memory_mask,
        diversity_penalty=diversity_penalty,
    )
    final = repeat_until(
        lambda state: ops.all(search.is_done(state)),
        search.advance,
        search.initial_state(),
        inputs.max_length,
    )
    return search.finalize(final)


# In this file, M is the number of groups of all examples, B G, and W the width of one group. If a
# hypothesis is missing, its total or score is minus infinity, and its other values mean nothing.


class _Beam(NamedTuple):
    """The open hypotheses: W sequences per group that have not ended, best first."""

    last_tokens: Any  # [N]
    states: list  # [N, ...] each
    totals: Any  # [M, W], what they are ranked by
    log_probabilities: Any  # [M, W], under the model
    tokens: Any  # [M, W, L]
    alignments: Any  # [M, W, L, S]


class _Extensions(NamedTuple):
    """Extensions of hypotheses by one token, n per group, best first."""

    totals: Any  # [M, n]
    log_probabilities: Any  # [M, n]
    parents: Any  # [M, n], the hypotheses that they extend
    tokens: Any  # [M, n]


class _State(NamedTuple):
    """What the loop over tokens carries."""

    step: Any  # []
    beam: _Beam
    finished: SearchResult  # the best finished sequences, n per group


@dataclass(frozen=True)
class _BeamSearch:
    """One step of the search, in parts, with the options of `beam_search`."""

    inputs: SearchInputs
    groups: int  # G
    width: int  # W
    num_return_sequences: int  # n
    length_penalty: float
    coverage_penalty: float
    memory_mask: Any  # [M, S] or None
    diversity_penalty: float

    def initial_state(self) -> _State:
        groups = self.inputs.batch * self.groups  # M
        beam, finished = (groups, self.width), (groups, self.num_return_sequences)
        # The hypotheses of a group are equal at the start: all but the first are missing.
        is_missing = ops.broadcast_to(ops.arange(self.width) > 0, beam)
        return _State(
            step=ops.zeros((), "int32"),
            beam=_Beam(
                last_tokens=self.inputs.start,
                states=self.inputs.states,
                totals=ops.where(is_missing, -np.inf, ops.zeros(beam, "float32")),
                log_probabilities=ops.zeros(beam, "float32"),
                tokens=self._padding(*beam),
                alignments=self._no_alignments(*beam),
            ),
            finished=SearchResult(
                tokens=self._padding(*finished),
                lengths=ops.zeros(finished, "int32"),
                log_probabilities=ops.full(finished, -np.inf, "float32"),
                scores=ops.full(finished, -np.inf, "float32"),
                alignments=self._no_alignments(*finished),
            ),
        )

    def _padding(self, *shape):
        return ops.full((*shape, self.inputs.max_length), self.inputs.pad, "int32")

    def _no_alignments(self, *shape):
        return ops.zeros((*shape, self.inputs.max_length, self.inputs.memory_length), "float32")

    def advance(self, state: _State) -> _State:
        """One step of all examples."""
        beam, step, length = state.beam, state.step, self.inputs.max_length
        logits, states, weights = self.inputs.step_function(beam.last_tokens, beam.states)
        beam = beam._replace(states=states)
        if self.inputs.has_weights:
            weights = self._by_hypothesis(ops.cast(weights, "float32"))[:, :, None]  # [M, W, 1, S]
            is_now = (ops.arange(length) == step)[:, None]  # [L, 1]
            beam = beam._replace(alignments=ops.where(is_now, weights, beam.alignments))
        tokens = ops.reshape(beam.tokens, (-1, length))  # [N, L]
        log_probs, scores = self.inputs.score_tokens(logits, tokens, step)
        ending, continuing = self._extend(
            beam, self._by_hypothesis(log_probs), self._by_hypothesis(scores)
        )
        return _State(
            step=step + 1,
            beam=self._next_beam(beam, continuing, step),
            finished=self._update_finished(state, beam, ending),
        )

    def _by_hypothesis(self, x):
        """`[N, size]` to `[M, W, size]`."""
        return ops.reshape(x, (-1, self.width, ops.shape(x)[-1]))

    def _extend(self, beam: _Beam, log_probs, scores) -> tuple[_Extensions, _Extensions]:
        """The extensions that end a sequence, and the next open hypotheses, W per group each.

        Args:
            log_probs, scores: `[M, W, V]`, of `score_tokens`.
        """
        parts = (beam.totals, beam.log_probabilities, log_probs, scores)
        endings, continuations = [], []
        for totals, sums, log_probs, scores in zip(*map(self._split_groups, parts), strict=True):
            if self.diversity_penalty and continuations:
                scores = scores - self.diversity_penalty * self._count_tokens(continuations)
            pool = self._best_of_each(totals, sums, log_probs, scores)
            ending = _best(pool, pool.totals, self.width)
            is_end = self.inputs.is_end(ending.tokens)
            endings.append(ending._replace(totals=ops.where(is_end, ending.totals, -np.inf)))
            open_totals = ops.where(self.inputs.is_end(pool.tokens), -np.inf, pool.totals)
            continuations.append(_best(pool._replace(totals=open_totals), open_totals, self.width))
        return self._join_groups(endings), self._join_groups(continuations)

    def _best_of_each(self, totals, sums, log_probs, scores) -> _Extensions:
        """The best extensions of each hypothesis of one group.

        Among them are the W best of the group, and its W best without an end token.

        Args:
            totals, sums: `[B, W]`, the totals and the log probabilities of the hypotheses.
            log_probs, scores: `[B, W, V]`, of each next token.
        """
        vocabulary_size = self.inputs.vocabulary_size
        count = min(self.width + len(self.inputs.end), vocabulary_size)
        scores, tokens = top_k(scores, count)  # [B, W, k]
        log_probs = take_rows(
            ops.reshape(log_probs, (-1, vocabulary_size)), ops.reshape(tokens, (-1, count))
        )
        extensions = _Extensions(
            totals=totals[..., None] + scores,
            log_probabilities=sums[..., None] + ops.reshape(log_probs, ops.shape(scores)),
            parents=ops.broadcast_to(
                ops.arange(self.width, dtype="int32")[:, None], ops.shape(tokens)
            ),
            tokens=tokens,
        )
        return _Extensions(*(ops.reshape(x, (-1, self.width * count)) for x in extensions))

    def _count_tokens(self, continuations: list[_Extensions]):
        """How many hypotheses of these groups continue with each token, `[B, 1, V]`."""
        counts = 0.0
        for group in continuations:
            chosen = ops.one_hot(group.tokens, self.inputs.vocabulary_size)  # [B, W, V]
            exists = ops.cast(group.totals > -np.inf, chosen.dtype)[..., None]
            counts = counts + ops.sum(chosen * exists, axis=1, keepdims=True)
        return ops.cast(counts, "float32")

    def _split_groups(self, x) -> list:
        """`[M, W, ...]` as G tensors `[B, W, ...]`."""
        if self.groups == 1:
            return [x]
        x = ops.reshape(x, (-1, self.groups, *ops.shape(x)[1:]))
        return [x[:, k] for k in range(self.groups)]

    def _join_groups(self, parts: list[_Extensions]) -> _Extensions:
        """G extensions `[B, W]` as `[M, W]`."""
        if self.groups == 1:
            return parts[0]
        return _Extensions(
            *(ops.reshape(ops.stack(x, axis=1), (-1, self.width)) for x in zip(*parts, strict=True))
        )

    def _next_beam(self, beam: _Beam, continuing: _Extensions, step) -> _Beam:
        parents, tokens = continuing.parents, continuing.tokens  # [M, W]
        groups = ops.shape(parents)[0]
        rows = parents + self.width * ops.arange(groups, dtype="int32")[:, None]
        rows = ops.reshape(rows, (-1,))  # [N]
        is_now = ops.arange(self.inputs.max_length) == step  # [L]
        return _Beam(
            last_tokens=ops.reshape(tokens, (-1,)),
            states=[ops.take(s, rows, axis=0) for s in beam.states],
            totals=continuing.totals,
            log_probabilities=continuing.log_probabilities,
            tokens=ops.where(is_now, tokens[..., None], take_rows(beam.tokens, parents)),
            alignments=take_rows(beam.alignments, parents),
        )

    def _update_finished(self, state: _State, beam: _Beam, ending: _Extensions) -> SearchResult:
        """The n best of the finished sequences and of those that end at this step."""
        alignments = take_rows(beam.alignments, ending.parents)
        scores = self._score(ending.totals, state.step + 1, alignments)
        sequences = SearchResult(
            tokens=take_rows(beam.tokens, ending.parents),
            lengths=ops.broadcast_to(state.step, ops.shape(scores)),
            log_probabilities=ending.log_probabilities,
            # The results of an example do not depend on how long the others take.
            scores=ops.where(self.is_done(state)[:, None], -np.inf, scores),
            alignments=alignments,
        )
        both = _concatenate(state.finished, sequences)
        return _best(both, both.scores, self.num_return_sequences)

    def is_done(self, state: _State):
        """Whether no open hypothesis can change the n finished sequences of a group, `[M]`.

        A sequence that an open hypothesis leads to has at most the total of that hypothesis. If it
        is negative, a positive length penalty favors the longest sequence, and a negative one the
        shortest. The coverage is at most zero.
        """
        best = state.beam.totals[:, 0]
        if all(isinstance(each, STANDARD) for each in self.inputs.processors):
            longest = self.length_penalty > 0
            length = self.inputs.max_length if longest else state.step + 1
            bound = best / self._length_divisor(length)
        else:
            bound = ops.where(best > -np.inf, np.inf, best)
        return state.finished.scores[:, -1] >= bound

    def finalize(self, state: _State) -> SearchResult:
        """The n best sequences of each example: the finished ones, then the open hypotheses."""
        beam, n = state.beam, self.num_return_sequences
        exists = beam.totals > -np.inf  # [M, W]
        hypotheses = SearchResult(
            tokens=ops.where(exists[..., None], beam.tokens, self.inputs.pad),
            lengths=ops.where(exists, state.step, 0),
            log_probabilities=ops.where(exists, beam.log_probabilities, -np.inf),
            scores=self._score(beam.totals, state.step, beam.alignments),
            alignments=ops.where(exists[..., None, None], beam.alignments, 0.0),
        )
        both = _concatenate(state.finished, hypotheses)
        is_finished = ops.arange(n + self.width) < n
        priority = ops.where(is_finished, 2, 1) * ops.cast(both.scores > -np.inf, "int32")
        size = self.groups * (n + self.width)
        of_example = SearchResult(*(ops.reshape(x, (-1, size, *ops.shape(x)[2:])) for x in both))
        # First by the score, and then, in a stable order, by the priority.
        order = top_k(of_example.scores, size)[1]
        priority = take_rows(ops.reshape(priority, (-1, size)), order)
        order = take_rows(order, top_k(priority, n)[1])
        result = SearchResult(*(take_rows(x, order) for x in of_example))
        return result._replace(
            log_probabilities=ops.maximum(result.log_probabilities, LOG_ZERO),
            scores=ops.maximum(result.scores, LOG_ZERO),
            alignments=result.alignments if self.inputs.has_weights else None,
        )

    def _score(self, totals, length, alignments):
        """s(Y) `[M, n]`, where `length` includes the end token."""
        scores = totals / self._length_divisor(length)
        if self.coverage_penalty:
            # Without the lower bound, one position without attention would give minus infinity.
            coverage = ops.clip(ops.sum(alignments, axis=2), 1e-6, 1.0)  # [M, n, S]
            penalties = ops.log(coverage)
            if self.memory_mask is not None:
                penalties = ops.where(self.memory_mask[:, None], penalties, 0.0)
            scores = scores + self.coverage_penalty * ops.sum(penalties, axis=-1)
        return scores

    def _length_divisor(self, length):
        return ((5 + ops.cast(length, "float32")) / 6) ** self.length_penalty


def _concatenate(first: SearchResult, second: SearchResult) -> SearchResult:
    """The sequences of both, `[M, n + m, ...]`."""
    return SearchResult(
        *(ops.concatenate(pair, axis=1) for pair in zip(first, second, strict=True))
    )


def _best(rows: NamedTuple, order, n: int) -> NamedTuple:
    """The n of `rows`, `[M, m, ...]` each, with the highest `order` `[M, m]`, highest first."""
    best = top_k(order, n)[1]
    return type(rows)(*(take_rows(x, best) for x in rows))
