"""An n-gram language model with back-off, in Python and NumPy.

It runs on the host: a language model is too large for a graph, and its file is not known when a
model is exported.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unroll.layers.operations import require_size

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
LOG_10 = math.log(10)


class NGramLanguageModel:
    """The probabilities of tokens (words or characters) given the tokens before them.

    Katz 1987, "Estimation of probabilities from sparse data", in the format of ARPA files (SRILM,
    KenLM). With the context c, and c' the context without its first token:

        log P(w | c) = the entry of c w, if there is one
                     = back-off(c) + log P(w | c') otherwise

    Args:
        entries: `{n-gram: (log10 probability, log10 back-off)}`, where an n-gram is a tuple of
            tokens.
        unknown: the log10 probability of a token without an entry, if <unk> has no entry either.

    Attributes:
        order: the maximum length of the n-grams.

    >>> model = NGramLanguageModel.from_texts([["a", "b"], ["a", "c"]], order=2)
    >>> model.log_probability("a", ["<s>"]) > model.log_probability("b", ["<s>"])
    True
    """

    def __init__(self, entries: Mapping[tuple, tuple[float, float]], unknown: float = -7.0):
        self.entries = dict(entries)
        self.unknown = unknown
        self.order = max(map(len, self.entries), default=1)

    @classmethod
    def from_arpa(cls, path, unknown: float = -7.0) -> "NGramLanguageModel":
        """Reads an ARPA file.

        Raises:
            ValueError: if the file has another format, with the file and the line.
        """
        with Path(path).open(encoding="utf-8") as file:
            return cls.from_lines(file, unknown, path)

    @classmethod
    def from_lines(
        cls, lines: Iterable[str], unknown: float = -7.0, name="ARPA"
    ) -> "NGramLanguageModel":
        """Reads the lines of an ARPA file; `name` is the name of the file in error messages.

        Raises:
            ValueError: if a line has another format.
        """
        entries = {}
        declared: dict[int, int] = {}
        counts: dict[int, int] = defaultdict(int)
        order = None  # 0 in the section \data\, n in the section \n-grams:
        number = 0

        def error(number: int, message: str) -> ValueError:
            return ValueError(f"{name}, line {number}: {message}.")

        for number, line in enumerate(lines, start=1):
            line = line.strip()
            if not line or (order is None and not line.startswith(("\\", "ngram "))):
                continue  # text before \data\ is a comment
            if line == "\\end\\":
                break
            if line == "\\data\\":
                order = 0
            elif line.startswith("\\") and line.endswith("-grams:"):
                order = _integer(line[1:-7])
                if order not in declared:
                    raise error(number, f"{line} is not declared in \\data\\")
            elif order is None:
                raise error(number, f"expected \\data\\, got {line!r}")
            elif order == 0:
                size, _, count = line.removeprefix("ngram ").partition("=")
                if _integer(size) is None or _integer(count) is None:
                    raise error(number, f"expected 'ngram N=COUNT', got {line!r}")
                declared[_integer(size)] = _integer(count)
            else:
                entry = _parse_entry(line, order)
                if entry is None:
                    expected = f"a log probability, {order} tokens and an optional back-off"
                    raise error(number, f"expected {expected}, got {line!r}")
                entries[entry[0]] = entry[1]
                counts[order] += 1
        else:
            raise error(number, "expected \\end\\, got the end of the file")
        for n, count in declared.items():
            if counts[n] != count:
                raise error(number, f"\\data\\ declares {count} {n}-grams, got {counts[n]}")
        return cls(entries, unknown)

    @classmethod
    def from_texts(cls, texts: Iterable[Sequence[str]], order: int = 3) -> "NGramLanguageModel":
        """Estimates a model from texts, each a sequence of tokens.

        Interpolated Witten-Bell smoothing (Chen and Goodman 1999, "An empirical study of smoothing
        techniques for language modeling", section 2.4). With N tokens after a context c, T of them
        distinct:

            P(w | c) = (count(c w) + T P(w | c')) / (N + T)

        For the empty context P(w | c') is uniform over the tokens and the unknown token.

        Args:
            texts: the texts.
            order: the maximum length of the n-grams.

        Raises:
            ValueError: if `order` is below one, or there are no texts.
        """
        require_size("order", order)
        counts = [defaultdict(Counter) for _ in range(order)]  # by the length of the context
        for text in texts:
            tokens = [START, *text, END]
            for end in range(1, len(tokens)):
                for length in range(min(order, end + 1)):
                    counts[length][tuple(tokens[end - length : end])][tokens[end]] += 1
        if not counts[0]:
            raise ValueError("texts must have at least one text, got none.")
        uniform = 1 / (len(counts[0][()]) + 1)
        probabilities: dict[tuple, float] = {}
        back_off: dict[tuple, float] = {}
        for by_context in counts:
            for context, followers in by_context.items():
                total, distinct = sum(followers.values()), len(followers)
                back_off[context] = distinct / (total + distinct)
                for token, count in followers.items():
                    shorter = probabilities[*context[1:], token] if context else uniform
                    probability = (count + distinct * shorter) / (total + distinct)
                    probabilities[*context, token] = probability
        probabilities[UNKNOWN,] = back_off[()] * uniform
        probabilities.setdefault((START,), 1e-99)  # only a context, never predicted
        return cls(
            {
                ngram: (math.log10(value), math.log10(back_off.get(ngram, 1.0)))
                for ngram, value in probabilities.items()
            }
        )

    def to_arpa(self) -> list[str]:
        """The lines of an ARPA file."""
        by_order = [[] for _ in range(self.order)]
        for ngram, (value, back_off) in sorted(self.entries.items()):
            line = f"{value:.6f}\t{' '.join(ngram)}"
            by_order[len(ngram) - 1].append(line + (f"\t{back_off:.6f}" if back_off else ""))
        lines = ["\\data\\", *(f"ngram {n}={len(e)}" for n, e in enumerate(by_order, start=1))]
        for n, entries in enumerate(by_order, start=1):
            lines += ["", f"\\{n}-grams:", *entries]
        return [*lines, "", "\\end\\"]

    def __contains__(self, token: str) -> bool:
        return (token,) in self.entries

    def log_probability(self, token: str, context: Sequence[str] = ()) -> float:
        """The natural logarithm of P(token | context), from the last tokens of the context."""
        ngram = [each if each in self else UNKNOWN for each in (*context, token)]
        ngram = tuple(ngram[max(0, len(ngram) - self.order) :])
        return LOG_10 * self._log10(ngram)

    def _log10(self, ngram: tuple) -> float:
        if ngram in self.entries:
            return self.entries[ngram][0]
        if len(ngram) == 1:
            return self.unknown
        return self.entries.get(ngram[:-1], (0.0, 0.0))[1] + self._log10(ngram[1:])


def _parse_entry(line: str, order: int) -> tuple[tuple, tuple[float, float]] | None:
    """The n-gram of a line and its two numbers; None if the line has another format."""
    fields = line.split()
    ngram, back_off = tuple(fields[1 : order + 1]), fields[order + 1 :]
    numbers = [_number(x) for x in (fields[0], *back_off)]
    if len(ngram) < order or len(back_off) > 1 or None in numbers:
        return None
    return ngram, (numbers[0], numbers[1] if back_off else 0.0)


def _integer(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
