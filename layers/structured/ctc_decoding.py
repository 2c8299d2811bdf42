"""Greedy decoding and beam search of connectionist temporal classification (CTC)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from unroll.layers import backend
from unroll.layers.operations import best, require_size, take_rows, time_major
from unroll.layers.structured.ctc_loss import prepare
from unroll.layers.structured.left_align import left_align
from unroll.layers.structured.log_space import IMPOSSIBLE, log_sum_exp, maximum


class CTCResult(NamedTuple):
    """Decoded labels: one sequence per example, or n per example, best first.

    Attributes:
        labels: `[B, T]` or `[B, n, T]`, int32, -1 after the end.
        lengths: `[B]` or `[B, n]`, int32.
        log_probabilities: `[B]` or `[B, n]`, of the best path (`ctc_greedy`) or of the labels (the
            sum of the paths in the beam of `ctc_beam_search`). Where there are fewer than n
            sequences, the rest have no labels and minus infinity.
    """

    labels: Any
    lengths: Any
    log_probabilities: Any


def ctc_greedy(logits, frame_lengths=None, blank: int = 0) -> CTCResult:
    """Collapses the most probable path.

    Args:
        logits: `[B, T, K]`.
        frame_lengths: `[B]`; by default T.
        blank: the index of the blank.

    Returns:
        A `CTCResult` with one sequence per example.

    Raises:
        ValueError: if the logits have another rank, or `blank` is not an index of the K labels; in
            eager mode, also if a frame length is not between 0 and T.

    >>> import numpy as np
    >>> path = np.eye(3, dtype="float32")[[[1, 1, 0, 1, 2, 2]]]
    >>> np.array(ctc_greedy(path).labels).tolist()
    [[1, 1, 2, -1, -1, -1]]
    """
    logits, _, frames = prepare(logits, frame_lengths, blank)
    log_probs, path = best(ops.log_softmax(logits, axis=-1))  # [B, T]
    previous = ops.concatenate([ops.zeros_like(path[:, :1]) - 1, path[:, :-1]], axis=1)
    is_new = ops.logical_and(path != blank, path != previous)
    is_label = ops.logical_and(is_new, frames)
    return CTCResult(
        left_align(path, is_label, -1),
        ops.sum(ops.cast(is_label, "int32"), axis=1),
        ops.sum(ops.where(frames, log_probs, 0.0), axis=-1),
    )


def ctc_beam_search(
    logits,
    frame_lengths=None,
    beam_width: int = 10,
    blank: int = 0,
    num_return_sequences: int = 1,
) -> CTCResult:
    """Searches for the most probable labels with a beam of prefixes.

    Graves 2012, "Supervised sequence labelling with recurrent neural networks", section 7.5.3, in
    the form of Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1, without a language model. The score of a prefix is
    the sum of all its paths: those that end in a blank, and those that end in its last label.

    Args:
        logits: `[B, T, K]`.
        frame_lengths: `[B]`; by default T.
        beam_width: W, the number of prefixes.
        blank: the index of the blank.
        num_return_sequences: n, the number of sequences to return, best first.

    Returns:
        A `CTCResult` with n sequences per example.

    Raises:
        ValueError: if `beam_width` or `num_return_sequences` is below one, `num_return_sequences`
            is above `beam_width`, the logits have another rank, or `blank` is not an index of the K
            labels; in eager mode, also if a frame length is not between 0 and T.

    >>> import numpy as np
    >>> path = 9 * np.eye(3, dtype="float32")[[[1, 1, 0, 1, 2, 2]]]
    >>> np.array(ctc_beam_search(path, num_return_sequences=2).labels)[:, 0].tolist()
    [[1, 1, 2, -1, -1, -1]]

    Differs from the papers: nothing.
    """
    beam_width = require_size("beam_width", beam_width)
    num_return_sequences = require_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, {beam_width}, got "
            f"{num_return_sequences}."
        )
    logits, _, frames = prepare(logits, frame_lengths, blank)
    if 0 in logits.shape:  # only the empty sequence, with the probability 1
        shape = (*logits.shape[:1], num_return_sequences)
        scores = ops.where(ops.arange(num_return_sequences) > 0, IMPOSSIBLE, 0.0)
        return CTCResult(
            ops.full((*shape, logits.shape[1]), -1, "int32"),
            ops.zeros(shape, "int32"),
            ops.zeros(shape, logits.dtype) + ops.cast(scores, logits.dtype),
        )
    log_probs = ops.transpose(ops.log_softmax(logits, axis=-1), (1, 0, 2))  # [T, B, K]
    time, batch, size = (*ops.shape(log_probs)[:2], log_probs.shape[-1])
    search = _BeamSearch(int(blank), beam_width, size, batch, time)
    initial = search.initial_beam(log_probs.dtype)
    xs = (log_probs, ops.expand_dims(time_major(frames), -1))
    like = (initial.in_blank[:, :1],)
    final, (tops,) = backend.scan(search.advance, tuple(initial), xs, like, False)
    final = _Beam(*final)
    scores, rows = ops.top_k(final.totals(), num_return_sequences)
    rows = ops.cast(rows, "int32")
    exists = scores != IMPOSSIBLE
    return CTCResult(
        ops.where(ops.expand_dims(exists, -1), take_rows(final.prefixes, rows), -1),
        ops.where(exists, take_rows(final.lengths, rows), 0),
        scores + ops.sum(tops, axis=0),
    )


class _Beam(NamedTuple):
    """W prefixes per example, with the log probabilities of the two kinds of paths.

    The log probabilities are relative to that of the best prefix, so that they stay precise over
    many frames. They are minus infinity for rows of the beam without a prefix.
    """

    prefixes: Any  # [B, W, T], -1 after the end
    lengths: Any  # [B, W]
    last: Any  # [B, W], the last label, -1 of the empty prefix
    in_blank: Any  # [B, W], of the paths that end in a blank
    in_label: Any  # [B, W], of the paths that end in the last label

    def totals(self):
        return ops.logaddexp(self.in_blank, self.in_label)


@dataclass(frozen=True)
class _BeamSearch:
    """One frame of the search, in parts."""

    blank: int
    beam_width: int  # W
    size: int  # K
    batch: Any  # B
    time: Any  # T

    def initial_beam(self, dtype) -> _Beam:
        shape = (self.batch, self.beam_width)
        # One empty prefix.
        first = ops.where(ops.arange(self.beam_width) > 0, IMPOSSIBLE, 0.0)
        impossible = ops.cast(ops.full(shape, IMPOSSIBLE), dtype)
        return _Beam(
            prefixes=ops.full((*shape, self.time), -1, "int32"),
            lengths=ops.full(shape, 0, "int32"),
            last=ops.full(shape, -1, "int32"),
            in_blank=ops.zeros_like(impossible) + ops.cast(first, dtype),
            in_label=impossible,
        )

    def advance(self, carry: tuple, xs: tuple) -> tuple:
        """One frame: log probabilities `[B, K]`, and whether each example has it, `[B, 1]`."""
        beam, (frame, is_frame) = _Beam(*carry), xs
        frame = frame[:, None]  # [B, 1, K]
        is_last = ops.arange(self.size, dtype="int32") == beam.last[..., None]  # [B, W, K]
        extended, merged = self._extend(beam, frame, is_last)
        stay_in_blank = beam.totals() + frame[..., self.blank]  # [B, W]
        last_log_prob = ops.sum(ops.where(is_last, frame, 0.0), axis=-1)
        stay_in_label = ops.logaddexp(beam.in_label + last_log_prob, merged)
        stay_in_label = ops.where(beam.lengths > 0, stay_in_label, IMPOSSIBLE)
        new = self._select(beam, stay_in_blank, stay_in_label, extended)
        top = maximum(new.totals())
        new = new._replace(in_blank=new.in_blank - top, in_label=new.in_label - top)
        final = (
            ops.where(is_frame[..., None] if len(a.shape) == 3 else is_frame, a, b)
            for a, b in zip(new, beam, strict=True)
        )
        return tuple(final), (ops.where(is_frame, top, 0.0),)

    def _extend(self, beam: _Beam, frame, is_last) -> tuple:
        """The prefixes with one more label.

        Returns:
            A tuple of the log probabilities of each prefix with each label, `[B, W, K]`, and of
            the extensions that equal a prefix of the beam, `[B, W]`. These are minus infinity in
            the first, so that they do not count twice.
        """
        totals = beam.totals()
        # A blank must precede a label that is repeated.
        extended = ops.where(is_last, beam.in_blank[..., None], totals[..., None]) + frame
        is_blank = ops.arange(self.size, dtype="int32") == self.blank
        extended = ops.where(is_blank, IMPOSSIBLE, extended)  # [B, W, K]
        # Whether prefix j is prefix i and one label, `[B, i, j]`.
        positions = ops.arange(self.time, dtype="int32")
        is_end = positions == beam.lengths[..., None] - 1
        parents = ops.where(is_end, -1, beam.prefixes)
        is_parent = ops.all(beam.prefixes[:, :, None] == parents[:, None], axis=-1)
        # An impossible row of the beam may be a copy of another prefix.
        exists = ops.logical_and(beam.lengths > 0, totals > IMPOSSIBLE)
        is_parent = ops.logical_and(is_parent, exists[:, None])
        merged = ops.sum(ops.where(is_last[:, None], extended[:, :, None], 0.0), axis=-1)
        merged = log_sum_exp(ops.where(is_parent, merged, IMPOSSIBLE), axis=1)  # [B, W]
        is_merged = ops.any(ops.logical_and(is_parent[..., None], is_last[:, None]), axis=2)
        return ops.where(is_merged, IMPOSSIBLE, extended), merged

    def _select(self, beam: _Beam, stay_in_blank, stay_in_label, extended) -> _Beam:
        """The W best of the prefixes `[B, W]` and of the extended prefixes `[B, W, K]`."""
        w = self.beam_width
        stay = ops.logaddexp(stay_in_blank, stay_in_label)
        extended = ops.reshape(extended, (self.batch, w * self.size))
        scores, chosen = ops.top_k(ops.concatenate([stay, extended], axis=1), w)
        chosen = ops.cast(chosen, "int32")
        is_extended = chosen >= w
        parents = ops.where(is_extended, (chosen - w) // self.size, chosen)
        labels = (chosen - w) % self.size
        last = ops.where(is_extended, labels, take_rows(beam.last, parents))
        lengths, prefixes = take_rows(beam.lengths, parents), take_rows(beam.prefixes, parents)
        positions = ops.arange(self.time, dtype="int32")
        is_written = ops.logical_and(is_extended[..., None], positions == lengths[..., None])
        in_blank, in_label = (take_rows(x, parents) for x in (stay_in_blank, stay_in_label))
        return _Beam(
            prefixes=ops.where(is_written, last[..., None], prefixes),
            lengths=lengths + ops.cast(is_extended, "int32"),
            last=last,
            in_blank=ops.where(is_extended, IMPOSSIBLE, in_blank),
            in_label=ops.where(is_extended, scores, in_label),
        )
