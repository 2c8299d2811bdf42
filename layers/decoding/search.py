"""From a decoder's step to sequences: greedy, sampled, and by beam search.

All three run a step `(tokens [N], states) -> (logits [N, V], states, weights [N, S] or None)`,
where the states are a list of tensors `[N, ...]`, inside the graph and for at most `max_length`
steps, so that they compile, under XLA too. `AttentionDecoder.step_function` gives such a step; any
function will do.

What all take:

    step, states: as above, with N equal to B.
    start: the symbol that the first step reads, an integer or `[B]`.
    end: the symbol that ends a sequence. It is not part of the result.
    max_length: L, the most steps; a sequence that has not ended then is returned as it is.
    min_length: before so many words no sequence ends.
    prefix: `[B, P]`, integers: words that the sequences begin with; -1 where any word may stand.
    no_repeat_ngram_size: n, with which no n words stand twice in a sequence in the same order; 0 allows it.
    pad: what the result holds after a sequence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops, random

from unroll.layers.operations import LOG_ZERO, argmax, require_size, take_rows


class SearchResult(NamedTuple):
    """Sequences, one per example; of a beam, or of several num_samples, n of each, the second axis.

    Attributes:
        tokens: `[B, L]` or `[B, n, L]`.
        lengths: words before the end, `[B]` or `[B, n]`.
        log_probabilities: of the words and the end, `[B]` or `[B, n]`. Where a beam holds less than
            n sequences those that do not exist have -1e9 or less.
        scores: what a beam or the least risk ranks by, `[B, n]`; else the log probabilities.
        alignments: the weights at each step, `[B, L, S]` or `[B, n, L, S]`, the end's included;
            None where the step gives none.
    """

    tokens: Any
    lengths: Any
    log_probabilities: Any
    scores: Any
    alignments: Any


class _Rules(NamedTuple):
    end: int
    min_length: int
    prefix: Any
    no_repeat_ngram_size: int

    def apply(self, log_probs, t, history):
        """`log_probs [N, V]` with `LOG_ZERO` where a word may not stand at step t."""
        words = ops.arange(log_probs.shape[-1])[None]  # [1, V]
        banned = ops.logical_and(words == self.end, t < self.min_length)  # [1, V]
        if self.no_repeat_ngram_size:
            banned = ops.logical_or(banned, self._repeats(t, history, log_probs.shape[-1]))
        if self.prefix is not None:
            places = ops.arange(self.prefix.shape[1])
            forced = ops.sum(ops.where(places == t, self.prefix, 0), axis=1)  # [N]
            free = ops.logical_or(forced < 0, t >= self.prefix.shape[1])[:, None]
            banned = ops.where(free, banned, words != forced[:, None])
        return ops.where(banned, LOG_ZERO, log_probs)

    def _repeats(self, t, history, vocabulary_size: int):
        """The words `[N, V]` that would complete n words which stand in the history `[N, L]`."""
        n, length = self.no_repeat_ngram_size, history.shape[1]
        places = ops.arange(length)
        match = ops.broadcast_to((places <= t - n)[None], ops.shape(history))  # [N, L]
        padded = ops.pad(history, ((0, 0), (0, n)), constant_values=-1)
        for i in range(n - 1):
            last = ops.sum(ops.where(places == t - n + 1 + i, history, 0), axis=1, keepdims=True)
            match = ops.logical_and(match, padded[:, i : i + length] == last)
        following = ops.where(match, padded[:, n - 1 : n - 1 + length], 0)
        rows = ops.broadcast_to(ops.arange(ops.shape(history)[0])[:, None], ops.shape(history))
        indices = ops.stack([ops.reshape(x, (-1,)) for x in (rows, following)], axis=1)
        shape = (ops.shape(history)[0], vocabulary_size)
        return ops.scatter(indices, ops.reshape(ops.cast(match, "int32"), (-1,)), shape) > 0


def greedy(
    step: Callable,
    states: list,
    *,
    start,
    end: int,
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    pad: int = 0,
) -> SearchResult:
    """The likeliest word at each step. The arguments are those of the module."""
    rules = _rules(end, max_length, min_length, prefix, no_repeat_ngram_size)

    def choose(log_probs, t):
        return argmax(log_probs)

    return _one_by_one(step, states, start, rules, max_length, pad, choose)


def sample(
    step: Callable,
    states: list,
    *,
    start,
    end: int,
    max_length: int = 50,
    min_length: int = 0,
    prefix=None,
    no_repeat_ngram_size: int = 0,
    pad: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed=None,
    num_samples: int | None = None,
) -> SearchResult:
    """A word at random at each step, with the probability that the step gives it.

    Args:
        temperature: the logits are divided by it: below one likely words become likelier.
        top_k: draws from the k likeliest words alone; 0 draws from all.
        top_p: draws from the fewest words that together have this probability (Holtzman et al.
            2020, "The curious case of neural text degeneration").
        seed: an integer gives the same words in each call; a `keras.random.SeedGenerator` others.
        num_samples: n, how many sequences of each example; the results then have them as their second
            axis. All examples are drawn with the same random numbers, so that what one gets does
            not hang on the others. `step` is called with N equal to B times n, the rows of one
            example together.

    The other arguments are those of the module. The log probabilities are those of the step, before
    temperature and choice.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}.")
    if not isinstance(top_k, int) or top_k < 0:
        raise ValueError(f"top_k must be an integer of at least 0, got {top_k!r}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p!r}.")
    rules = _rules(end, max_length, min_length, prefix, no_repeat_ngram_size)
    batch = ops.shape(states[0])[0]
    # Drawn before the loop, in which an integer seed would draw the same number at each step.
    numbers = random.uniform(
        (max_length, batch if num_samples is None else num_samples), seed=seed
    )  # [L, N]
    if num_samples is not None:
        require_size("num_samples", num_samples)
        numbers = ops.tile(numbers, (1, batch))
        start = ops.repeat(_first_tokens(start, states), num_samples, axis=0)
        states = [ops.repeat(s, num_samples, axis=0) for s in states]
        if prefix is not None:
            rules = rules._replace(prefix=ops.repeat(rules.prefix, num_samples, axis=0))

    def choose(log_probs, t):
        probs = ops.softmax(log_probs / temperature, axis=-1)  # [B, V]
        k = min(top_k, probs.shape[-1])
        if k:
            least = ops.top_k(probs, k)[0][:, -1:]
            probs = ops.where(probs >= least, probs, 0.0)
        if top_p < 1:
            probs = probs / ops.sum(probs, axis=-1, keepdims=True)
            ordered = ops.flip(ops.sort(probs, axis=-1), axis=-1)
            before = ops.cumsum(ordered, axis=-1) - ordered
            least = ops.min(ops.where(before < top_p, ordered, 1.0), axis=-1, keepdims=True)
            probs = ops.where(probs >= least, probs, 0.0)
        places = ops.arange(max_length)[:, None]
        draw = ops.sum(ops.where(places == t, numbers, 0.0), axis=0)[:, None]  # [N, 1]
        below = ops.cumsum(probs, axis=-1)
        passed = below <= draw * below[:, -1:]
        # A draw of nearly one may pass the last word that can be drawn.
        words = ops.arange(probs.shape[-1], dtype="int32")
        last = ops.max(ops.where(probs > 0, words, 0), axis=-1)
        return ops.minimum(ops.sum(ops.cast(passed, "int32"), axis=-1), last)

    found = _one_by_one(step, states, start, rules, max_length, pad, choose)
    if num_samples is None:
        return found
    shaped = [
        x if x is None else ops.reshape(x, (batch, num_samples, *ops.shape(x)[1:])) for x in found
    ]
    return SearchResult(*shaped)


def _one_by_one(
    step, states, start, rules: _Rules, max_length: int, pad: int, choose
) -> SearchResult:
    """One word after another, of each sequence one."""
    places = ops.arange(max_length)[None]  # [1, L]
    tokens = _first_tokens(start, states)
    has_weights, width = _weights(step, tokens, states)
    batch = ops.shape(tokens)[0]
    zeros = ops.zeros((batch,), "int32")
    carry = {
        "t": ops.zeros((), "int32"),
        "last": tokens,
        "states": list(states),
        "done": zeros > 0,
        "tokens": ops.full((batch, max_length), pad, "int32"),
        "lengths": zeros,
        "log_probs": ops.zeros((batch,), "float32"),
        "alignments": ops.zeros((batch, max_length, width), "float32"),
    }

    def body(c):
        logits, states, weights = step(c["last"], c["states"])
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # [B, V]
        log_probs = rules.apply(log_probs, c["t"], c["tokens"])
        word = ops.cast(choose(log_probs, c["t"]), "int32")  # [B]
        of_word = ops.arange(log_probs.shape[-1])[None] == word[:, None]
        gain = ops.sum(ops.where(of_word, log_probs, 0.0), axis=-1)
        writes = ops.logical_and(places == c["t"], ops.logical_not(c["done"])[:, None])  # [B, L]
        goes_on = ops.logical_and(ops.logical_not(c["done"]), word != rules.end)
        alignments = c["alignments"]
        if has_weights:
            weights = ops.cast(weights, "float32")[:, None]
            alignments = ops.where(writes[..., None], weights, alignments)
        writes = ops.logical_and(writes, goes_on[:, None])
        return {
            "t": c["t"] + 1,
            "last": word,
            "states": list(states),
            "done": ops.logical_not(goes_on),
            "tokens": ops.where(writes, word[:, None], c["tokens"]),
            "lengths": c["lengths"] + ops.cast(goes_on, "int32"),
            "log_probs": c["log_probs"] + ops.where(c["done"], 0.0, gain),
            "alignments": alignments,
        }

    end = _while(lambda c: ops.logical_not(ops.all(c["done"])), body, carry, max_length)
    alignments = end["alignments"] if has_weights else None
    return SearchResult(
        end["tokens"], end["lengths"], end["log_probs"], end["log_probs"], alignments
    )


def beam_search(
    step: Callable,
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
    """The best sequences that a beam of prefixes finds.

    Wu et al. 2016, "Google's neural machine translation system", equation 14. Finished sequences Y
    are ranked by

        s(Y) = log P(Y) / ((5 + |Y|) / 6)^alpha + beta * sum over places of log min(attention, 1)

    where |Y| counts the end, and the attention of a place is what it got in all steps. A prefix is
    kept by its log probability alone. The search of an example ends when it has `beam_width`
    finished sequences; a beam of width one is the greedy search.

    Args:
        beam_width: W, how many prefixes, and finished sequences, are kept.
        num_return_sequences: n, how many sequences to return, from the best down.
        length_penalty: alpha. With 0 short sequences have the advantage.
        coverage_penalty: beta; for steps that give weights.
        memory_mask: `[B, S]`, the places that are to be covered; all by default.

    The other arguments are those of the module; `step` is called with N equal to B times W, the
    rows of one example together.

    Raises:
        ValueError: if a number is out of its range, `num_return_sequences` above `beam_width`, or coverage is asked
            of a step without weights.
    """
    require_size("beam_width", beam_width)
    require_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, got {num_return_sequences} of {beam_width}."
        )
    if coverage_penalty < 0:
        raise ValueError(f"coverage_penalty must be at least 0, got {coverage_penalty!r}.")
    rules = _rules(end, max_length, min_length, prefix, no_repeat_ngram_size)
    if prefix is not None:
        rules = rules._replace(prefix=ops.repeat(rules.prefix, beam_width, axis=0))
    w, places = beam_width, ops.arange(max_length)
    batch = ops.shape(states[0])[0]
    tokens = ops.repeat(_first_tokens(start, states), w, axis=0)  # [N]
    states = [ops.repeat(s, w, axis=0) for s in states]
    has_weights, width = _weights(step, tokens, states)
    if coverage_penalty and not has_weights:
        raise ValueError(
            "coverage_penalty needs a step that returns weights, and this one has none."
        )

    def by_example(x):
        return ops.reshape(x, (batch, -1, *ops.shape(x)[1:]))

    def score(log_probs, length, alignments):
        """Of sequences `[B, n]` with so many words, the end among them."""
        scores = log_probs / ((5 + ops.cast(length, "float32")) / 6) ** length_penalty
        if coverage_penalty:
            # A place without any attention would cost everything.
            covered = ops.clip(ops.sum(alignments, axis=2), 1e-6, 1.0)  # [B, n, S]
            costs = ops.log(covered)
            if memory_mask is not None:
                costs = ops.where(ops.cast(memory_mask, "bool")[:, None], costs, 0.0)
            scores = scores + coverage_penalty * ops.sum(costs, axis=-1)
        return scores

    def empty(value, *shape, dtype="float32"):
        return ops.full((batch, w, *shape), value, dtype)

    hypotheses = {
        "tokens": empty(pad, max_length, dtype="int32"),
        "alignments": empty(0.0, max_length, width),
    }
    carry = {
        "t": ops.zeros((), "int32"),
        "last": tokens,
        "states": list(states),
        # Of the equal prefixes at the start one alone counts.
        "log_probs": empty(0.0) + ops.where(ops.arange(w) > 0, LOG_ZERO, 0.0),
        **hypotheses,
        "finished": {
            "scores": empty(2 * LOG_ZERO),
            "log_probs": empty(2 * LOG_ZERO),
            "lengths": empty(0, dtype="int32"),
            **hypotheses,
        },
    }

    def is_done(c):
        return ops.min(c["finished"]["scores"], axis=1) > LOG_ZERO / 2  # [B]

    def body(c):
        t = c["t"]
        logits, new_states, weights = step(c["last"], c["states"])
        log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)  # [N, V]
        history = ops.reshape(c["tokens"], (-1, max_length))
        log_probs = by_example(rules.apply(log_probs, t, history))  # [B, W, V]
        alignments = c["alignments"]
        if has_weights:
            now = by_example(ops.cast(weights, "float32"))[:, :, None]  # [B, W, 1, S]
            alignments = ops.where((places == t)[:, None], now, alignments)

        # The best of each prefix first: many short selections are faster than one long one.
        vocabulary = log_probs.shape[-1]
        k = min(2 * w, vocabulary)
        found, words = ops.top_k(log_probs, k)  # [B, W, k]
        totals = ops.reshape(c["log_probs"][..., None] + found, (batch, w * k))
        totals, chosen = ops.top_k(totals, min(2 * w, w * k))  # [B, 2W]
        chosen = ops.cast(chosen, "int32")
        parents = chosen // k
        words = take_rows(ops.reshape(ops.cast(words, "int32"), (batch, w * k)), chosen)
        ends = words == rules.end

        done = is_done(c)[:, None]
        kept = c["finished"]
        ended = {
            "log_probs": totals[:, :w],
            "tokens": take_rows(c["tokens"], parents[:, :w]),
            "alignments": take_rows(alignments, parents[:, :w]),
        }
        ended["lengths"] = ops.broadcast_to(t, ops.shape(ended["log_probs"]))
        valid = ops.logical_and(ends[:, :w], totals[:, :w] > LOG_ZERO / 2)
        valid = ops.logical_and(valid, ops.logical_not(done))
        scores = score(ended["log_probs"], t + 1, ended["alignments"])
        ended["scores"] = ops.where(valid, scores, 2 * LOG_ZERO)
        both = {key: ops.concatenate([kept[key], ended[key]], axis=1) for key in kept}
        rows = ops.cast(ops.top_k(both["scores"], w)[1], "int32")
        kept = {key: take_rows(x, rows) for key, x in both.items()}

        alive, rows = ops.top_k(ops.where(ends, 2 * LOG_ZERO, totals), w)  # [B, W]
        rows = ops.cast(rows, "int32")
        parents, words = take_rows(parents, rows), take_rows(words, rows)
        flat = parents + w * ops.arange(batch, dtype="int32")[:, None]
        flat = ops.reshape(flat, (-1,))  # [N]
        return {
            "t": t + 1,
            "last": ops.reshape(words, (-1,)),
            "states": [ops.take(s, flat, axis=0) for s in new_states],
            "log_probs": alive,
            "tokens": ops.where(places == t, words[..., None], take_rows(c["tokens"], parents)),
            "alignments": take_rows(alignments, parents),
            "finished": kept,
        }

    c = _while(lambda c: ops.logical_not(ops.all(is_done(c))), body, carry, max_length)
    # What has not ended fills up what has.
    kept = c["finished"]
    lengths = ops.broadcast_to(c["t"], ops.shape(c["log_probs"]))
    open_ones = {
        "scores": score(c["log_probs"], c["t"], c["alignments"]),
        "log_probs": c["log_probs"],
        "lengths": lengths,
        "tokens": c["tokens"],
        "alignments": c["alignments"],
    }
    both = {key: ops.concatenate([kept[key], open_ones[key]], axis=1) for key in kept}
    order = ops.concatenate([kept["scores"], open_ones["scores"] + LOG_ZERO / 10], axis=1)
    rows = ops.cast(ops.top_k(order, num_return_sequences)[1], "int32")
    chosen = {key: take_rows(x, rows) for key, x in both.items()}
    return SearchResult(
        chosen["tokens"],
        chosen["lengths"],
        chosen["log_probs"],
        chosen["scores"],
        chosen["alignments"] if has_weights else None,
    )


def _rules(end, max_length, min_length, prefix, no_repeat_ngram_size) -> _Rules:
    require_size("max_length", max_length)
    for name, value in (("min_length", min_length), ("no_repeat_ngram_size", no_repeat_ngram_size)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, got {value!r}.")
    if min_length > max_length:
        raise ValueError(
            f"min_length must be at most max_length, got {min_length} and {max_length}."
        )
    if prefix is not None:
        prefix = ops.cast(ops.convert_to_tensor(prefix), "int32")
        if len(prefix.shape) != 2 or (prefix.shape[1] or 0) > max_length:
            raise ValueError(
                f"prefix must be [B, P] with P at most max_length, {max_length}, got the shape "
                f"{tuple(prefix.shape)}."
            )
    return _Rules(end, min_length, prefix, no_repeat_ngram_size)


def _first_tokens(start, states):
    batch = ops.shape(states[0])[0]
    return ops.broadcast_to(ops.cast(ops.convert_to_tensor(start), "int32"), (batch,))


def _weights(step, tokens, states) -> tuple:
    """Whether the step gives weights, and to how many places."""
    weights = step(tokens, list(states))[2]
    return (False, 1) if weights is None else (True, ops.shape(weights)[-1])


def _while(condition, body, carry: dict, max_length: int) -> dict:
    """Runs the body as long as the condition holds, and for `max_length` steps at most."""
    return ops.while_loop(lambda c: ops.logical_and(c["t"] < max_length, condition(c)), body, carry)
