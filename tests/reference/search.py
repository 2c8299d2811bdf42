"""Searches for sequences, one example at a time, with lists; and a model to search in.

The beam search takes all steps, and keeps every sequence that ends.
"""

import math
from typing import NamedTuple

import numpy as np


class PrefixModel:
    """Logits and attention weights from a table with a row for each sequence of tokens so far.

    The state is the number of that row, an integer.
    """

    def __init__(self, seed: int, vocabulary: int, rows: int = 499, memory: int = 3, scale=2.0):
        rng = np.random.default_rng(seed)
        self.vocabulary, self.rows = vocabulary, rows
        self.logits = scale * rng.normal(size=(rows, vocabulary)).astype("float32")
        weights = rng.random(size=(rows, memory))
        self.weights = (weights / weights.sum(axis=1, keepdims=True)).astype("float32")

    def next_row(self, row, token):
        return (row * self.vocabulary + token + 1) % self.rows

    def after(self, first_row: int, tokens) -> tuple[np.ndarray, np.ndarray]:
        """The log probabilities and the weights of the step that reads the last of the tokens."""
        row = int(first_row)
        for token in tokens:
            row = self.next_row(row, token)
        logits = self.logits[row].astype("float64")
        return log_softmax(logits), self.weights[row].astype("float64")


def log_softmax(logits):
    """Of one row; minus infinity where there is no finite number, or next to NaN."""
    with np.errstate(all="ignore"):
        shifted = logits - logits.max()
        found = shifted - np.log(np.exp(shifted).sum())
    return np.where(found > -5e8, found, -np.inf)


class Hypothesis(NamedTuple):
    tokens: tuple
    total: float  # what it is ranked by
    log_probability: float
    weights: tuple  # of each step


class Options(NamedTuple):
    """The arguments of a search for one example."""

    start: int
    end: tuple[int, ...]
    max_length: int
    min_length: int = 0
    prefix: tuple = ()
    no_repeat_ngram_size: int = 0
    forbidden: tuple = ()
    repetition_penalty: float = 1.0
    bonus: np.ndarray | float = 0.0
    beam_width: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    counted: tuple | None = None  # the positions of the memory


def token_scores(log_probs, tokens: tuple, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The log probabilities of the next token, and what the search chooses by."""
    scores = log_probs + options.bonus
    for token in set(tokens):
        by = options.repetition_penalty
        scores[token] = scores[token] / by if scores[token] > 0 else scores[token] * by
    for token in options.forbidden:
        scores[token] = -np.inf
    if len(tokens) < options.min_length:
        scores[list(options.end)] = -np.inf
    n = options.no_repeat_ngram_size
    grams = [tokens[k : k + n] for k in range(len(tokens) - n + 1)] if n else []
    for token in range(len(scores)):
        if n and (*tokens, token)[-n:] in grams:
            scores[token] = -np.inf
    forced = options.prefix[len(tokens)] if len(tokens) < len(options.prefix) else -1
    if forced >= 0:
        log_probs = log_probs.copy()
        log_probs[forced] = max(log_probs[forced], math.log(np.finfo("float32").tiny))
        scores = np.where(np.arange(len(scores)) == forced, log_probs, -np.inf)
    return log_probs, scores


def beam_search(model: PrefixModel, first_row: int, options: Options, n: int) -> list[tuple]:
    """The n best sequences, `(tokens, log probability, score, weights)` each."""
    width = options.beam_width // options.num_beam_groups
    beams = [[Hypothesis((), 0.0, 0.0, ())] for _ in range(options.num_beam_groups)]
    finished = [[] for _ in beams]
    for _ in range(options.max_length):
        chosen = []
        for g, beam in enumerate(beams):
            extensions = []
            for k, h in enumerate(beam):
                log_probs, weights = model.after(first_row, (options.start, *h.tokens))
                log_probs, scores = token_scores(log_probs, h.tokens, options)
                scores = scores - options.diversity_penalty * np.bincount(
                    np.array(chosen, int), minlength=len(scores)
                )
                for token, score in enumerate(scores):
                    if score > -np.inf:
                        longer = Hypothesis(
                            (*h.tokens, token),
                            h.total + score,
                            h.log_probability + log_probs[token],
                            (*h.weights, weights),
                        )
                        extensions.append((-longer.total, k, token, longer))
            ranked = [each[-1] for each in sorted(extensions, key=lambda each: each[:3])]
            finished[g] += [h for h in ranked[:width] if h.tokens[-1] in options.end]
            beams[g] = [h for h in ranked if h.tokens[-1] not in options.end][:width]
            chosen += [h.tokens[-1] for h in beams[g]]
    results = []
    for g, beam in enumerate(beams):
        found = [
            (h.tokens[:-1], h.log_probability, penalized(h, options), h.weights)
            for h in finished[g]
        ]
        found.sort(key=lambda each: -each[2])
        results += [(0, -each[2], g, k, each) for k, each in enumerate(found)]
        found = [(h.tokens, h.log_probability, penalized(h, options), h.weights) for h in beam]
        results += [(1, -each[2], g, k, each) for k, each in enumerate(found)]
    return [each[-1] for each in sorted(results, key=lambda each: each[:4])][:n]


def penalized(hypothesis: Hypothesis, options: Options) -> float:
    """Wu et al. 2016, equation 14."""
    length = len(hypothesis.tokens)  # with the end
    found = hypothesis.total / ((5 + length) / 6) ** options.length_penalty
    coverage = np.clip(np.sum(hypothesis.weights, axis=0), 1e-6, 1.0)
    counted = slice(None) if options.counted is None else list(options.counted)
    return found + options.coverage_penalty * np.log(coverage)[counted].sum()


def greedy(model: PrefixModel, first_row: int, options: Options) -> tuple:
    """`(tokens, log probability)`; minus infinity where no token was possible."""
    tokens, total = (), 0.0
    while len(tokens) < options.max_length:
        log_probs, _ = model.after(first_row, (options.start, *tokens))
        log_probs, scores = token_scores(log_probs, tokens, options)
        token = int(np.argmax(scores))
        if scores[token] == -np.inf:
            return tokens, -np.inf
        total += log_probs[token]
        if token in options.end:
            break
        tokens = (*tokens, token)
    return tokens, total
