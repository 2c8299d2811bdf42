"""An n-gram language model, and the search for what was said with its help: on the host.

Plain Python and NumPy. A language model is too large for a graph, and its file is not known when a
model is exported.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from unroll.layers.operations import require_size

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LOG_10 = math.log(10)


class NGramLanguageModel:
    """Probabilities of words after words, with back-off.

    Katz 1987; the file format is that of the ARPA (and SRILM, KenLM). With c the context and c' the
    context without its first word:

        log P(w | c) = the entry of c w, if there is one
                     = back-off(c) + log P(w | c') otherwise

    Args:
        entries: `{words: (log10 probability, log10 back-off)}`, the words as a tuple.
        unknown: the log10 probability of a word that is not in the entries, where <unk> is not
            either.
    """

    def __init__(self, entries: Mapping[tuple, tuple[float, float]], unknown: float = -7.0):
        self.entries = dict(entries)
        self.unknown = unknown
        self.order = max(map(len, self.entries), default=1)

    @classmethod
    def from_arpa(cls, path, unknown: float = -7.0) -> "NGramLanguageModel":
        """Reads an ARPA file.

        Raises:
            ValueError: if the file is not of the format; it names the file and the line.
        """
        with Path(path).open(encoding="utf-8") as file:
            return cls.from_lines(file, unknown, path)

    @classmethod
    def from_lines(
        cls, lines: Iterable[str], unknown: float = -7.0, name="ARPA"
    ) -> "NGramLanguageModel":
        """As `from_arpa`, from the lines of a file; `name` is for messages."""

        def broken(number: int, what: str) -> ValueError:
            return ValueError(f"{name}, line {number}: {what}")

        entries, declared, found, order = {}, {}, defaultdict(int), None
        ended = False
        number = 0
        for number, line in enumerate(lines, start=1):
            line = line.strip()
            if not line or (order is None and not line.startswith(("\\", "ngram "))):
                continue  # what stands before \data\ is a comment
            if line == "\\end\\":
                ended = True
                break
            if line == "\\data\\":
                order = 0
            elif line.startswith("\\") and line.endswith("-grams:"):
                order = _whole(line[1:-7])
                if order not in declared:
                    raise broken(number, f"{line} was not declared under \\data\\")
            elif order == 0:
                size, _, count = line.removeprefix("ngram ").partition("=")
                if _whole(size) is None or _whole(count) is None:
                    raise broken(number, f"expected 'ngram N=COUNT', got {line!r}")
                declared[_whole(size)] = _whole(count)
            elif order is None:
                raise broken(number, f"expected \\data\\, got {line!r}")
            else:
                fields = line.split()
                words, rest = tuple(fields[1 : order + 1]), fields[order + 1 :]
                numbers = [_number(x) for x in (fields[0], *rest)]
                if len(words) < order or len(rest) > 1 or None in numbers:
                    raise broken(
                        number,
                        f"expected a log probability, {order} words and perhaps a back-off, "
                        f"got {line!r}",
                    )
                entries[words] = (numbers[0], numbers[1] if rest else 0.0)
                found[order] += 1
        if not ended:
            raise broken(number, "the file ends without \\end\\")
        for n, count in declared.items():
            if found[n] != count:
                raise broken(number, f"{count} {n}-grams were declared, {found[n]} are there")
        return cls(entries, unknown)

    @classmethod
    def from_texts(cls, texts: Iterable[Sequence[str]], order: int = 3) -> "NGramLanguageModel":
        """Estimates a model from texts, each the sequence of its words.

        Interpolated Witten-Bell smoothing (Chen and Goodman 1999, section 2.4): with N the words
        after a context c and T the different ones among them,

            P(w | c) = (count(c w) + T P(w | c')) / (N + T)

        Below the first words stands the uniform distribution over them and the unknown word.

        Raises:
            ValueError: if `order` is below one, or there are no texts.
        """
        require_size("order", order)
        counts = [defaultdict(Counter) for _ in range(order)]  # by length of the context
        for words in texts:
            words = [START, *words, END]
            for end in range(1, len(words)):
                for length in range(min(order, end + 1)):
                    counts[length][tuple(words[end - length : end])][words[end]] += 1
        if not counts[0]:
            raise ValueError("A language model needs texts, got none.")
        uniform = 1 / (len(counts[0][()]) + 1)
        known: dict[tuple, float] = {}
        rest: dict[tuple, float] = {}
        for after in counts:
            for context, words in after.items():
                total, kinds = sum(words.values()), len(words)
                rest[context] = kinds / (total + kinds)
                for word, count in words.items():
                    below = known[*context[1:], word] if context else uniform
                    known[*context, word] = (count + kinds * below) / (total + kinds)
        known[UNKNOWN,] = rest[()] * uniform
        known.setdefault((START,), 1e-99)  # it is a context, and never comes
        return cls(
            {
                words: (math.log10(value), math.log10(rest.get(words, 1.0)))
                for words, value in known.items()
            }
        )

    def to_arpa(self) -> list[str]:
        """The lines of an ARPA file."""
        by_order = [[] for _ in range(self.order)]
        for words, (value, back_off) in sorted(self.entries.items()):
            line = f"{value:.6f}\t{' '.join(words)}"
            by_order[len(words) - 1].append(line + (f"\t{back_off:.6f}" if back_off else ""))
        lines = ["\\data\\", *(f"ngram {n}={len(e)}" for n, e in enumerate(by_order, start=1))]
        for n, entries in enumerate(by_order, start=1):
            lines += ["", f"\\{n}-grams:", *entries]
        return [*lines, "", "\\end\\"]

    def __contains__(self, word: str) -> bool:
        return (word,) in self.entries

    def log_probability(self, word: str, context: Sequence[str] = ()) -> float:
        """The natural logarithm of P(word | context); of the context the last words count."""
        words = [w if w in self else UNKNOWN for w in (*context, word)]
        words = tuple(words[max(0, len(words) - self.order) :])
        return LOG_10 * self._log10(words)

    def _log10(self, words: tuple) -> float:
        if words in self.entries:
            return self.entries[words][0]
        if len(words) == 1:
            return self.unknown
        return self.entries.get(words[:-1], (0.0, 0.0))[1] + self._log10(words[1:])


def ctc_beam_search_with_language_model(
    logits,
    characters: Sequence[str],
    language_model: NGramLanguageModel | None = None,
    *,
    unit: str = "word",
    language_model_weight: float = 0.5,
    insertion_bonus: float = 0.0,
    hot_words: Mapping[str, float] | None = None,
    beam_width: int = 50,
    blank: int = 0,
    num_return_sequences: int = 1,
) -> list[tuple[str, float]]:
    """The best texts of one recording.

    Hannun et al. 2014, algorithm 1. A text is ranked by

        log P_ctc + weight * log P_language + bonus * its words + its hot words' own bonus

    where a word counts when it is complete: at the space after it, or at the end.

    Args:
        logits: `[T, K]`, not normalised.
        characters: the K characters; that of the blank does not matter.
        language_model: of words, or of characters.
        unit: `"word"`, or `"character"`: then each character is a word of the language model.
        language_model_weight: of the language model.
        insertion_bonus: for each word (or character): a language model alone prefers few.
        hot_words: words that are more likely here than elsewhere, with the bonus of each.
        beam_width: how many prefixes are kept.
        blank: the index of the blank.
        num_return_sequences: how many texts to return.

    Returns:
        `(text, score)`, from the best down.

    Raises:
        ValueError: if the logits do not fit the characters, or `unit` is none of the above.

    >>> path = 9 * np.eye(4)[[1, 0, 1, 2, 3]]
    >>> [(text, _)] = ctc_beam_search_with_language_model(path, ["", "a", "b", " "])
    >>> text
    'aab '
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != len(characters):
        raise ValueError(
            f"logits must be [T, {len(characters)}] for {len(characters)} characters, got "
            f"{list(logits.shape)}."
        )
    if unit not in ("word", "character"):
        raise ValueError(f"unit must be word or character, got {unit!r}.")
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    hot_words = hot_words or {}
    known: dict[tuple, float] = {}

    def of_units(units: list[str], ended: bool) -> float:
        """The score that language model and bonuses give to complete words."""
        score = insertion_bonus * len(units)
        if language_model is not None:
            before = [START, *units, END] if ended else [START, *units]
            score += language_model_weight * sum(
                language_model.log_probability(before[k], before[:k]) for k in range(1, len(before))
            )
        return score

    def extra(prefix: tuple, ended: bool = False) -> float:
        key = (prefix, ended)
        if key not in known:
            text = "".join(characters[k] for k in prefix)
            words = text.split(" ")
            if not ended:
                words.pop()  # the last one is not complete
            words = [word for word in words if word]
            units = list(text) if unit == "character" else words
            known[key] = of_units(units, ended) + sum(hot_words.get(word, 0.0) for word in words)
        return known[key]

    # Of each prefix, the log probabilities of the paths that end in a blank and in its last label.
    beam = {(): (0.0, -math.inf)}
    for frame in log_probs:
        found = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (in_blank, in_label) in beam.items():
            total = np.logaddexp(in_blank, in_label)
            stays = found[prefix]
            stays[0] = np.logaddexp(stays[0], total + frame[blank])
            for k, log_prob in enumerate(frame):
                if k == blank:
                    continue
                repeated = bool(prefix) and prefix[-1] == k
                if repeated:
                    stays[1] = np.logaddexp(stays[1], in_label + log_prob)
                longer = found[(*prefix, k)]
                before = in_blank if repeated else total
                longer[1] = np.logaddexp(longer[1], before + log_prob)
        ranked = sorted(found, key=lambda p: -(np.logaddexp(*found[p]) + extra(p)))
        beam = {prefix: tuple(found[prefix]) for prefix in ranked[:beam_width]}
    scored = {p: float(np.logaddexp(*ends)) + extra(p, ended=True) for p, ends in beam.items()}
    ranked = sorted(scored, key=scored.get, reverse=True)[:num_return_sequences]
    return [("".join(characters[k] for k in prefix), scored[prefix]) for prefix in ranked]


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
