"""An n-gram language model with back-off, in Python and NumPy.

It runs on the host: a language model is too large for a graph, and its file is not known when a
model is exported.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from unroll.layers.operations import require_size
from unroll.layers.structured import arpa, kneser_ney, witten_bell
from unroll.layers.structured.model_kenlm import load
from unroll.layers.structured.ngram_table import START, UNKNOWN, InvalidNGramError, NGramTable
from unroll.layers.structured.word_look_ahead import UnigramLookAhead, WordLookAhead

LOG_10 = math.log(10)


class NGramLanguageModel:
    """The probabilities of tokens (words or characters) given the tokens before them.

    Katz 1987, "Estimation of probabilities from sparse data", in the format of ARPA files (SRILM,
    KenLM). With the context c, and c' the context without its first token:

        log P(w | c) = the entry of c w, if there is one
                     = back-off(c) + log P(w | c') otherwise

    A token without an entry is read as `<unk>`.

    Args:
        entries: `{n-gram: (log10 probability, log10 back-off)}`, where an n-gram is a tuple of
            tokens. Each token, and the context of each n-gram, has an entry too.
        unknown: the log10 probability of `<unk>`, if it has no entry.

    Attributes:
        entries: those of the model, with `<unk>`.
        order: the maximum length of the n-grams.
        longest_token: the number of characters of the longest token.
        table: the entries, as arrays.
        word_look_ahead: the probabilities of words of which only the first characters are known.

    Raises:
        ValueError: if an entry is missing, a number is not finite, or a log probability is
            positive.

    >>> model = NGramLanguageModel.from_texts([["a", "b"], ["a", "c"]], order=2)
    >>> model.log_probability("a", ["<s>"]) > model.log_probability("b", ["<s>"])
    True
    """

    def __init__(self, entries: Mapping[tuple, tuple[float, float]], unknown: float = -7.0):
        by_length = defaultdict(list)
        for ngram in entries:
            by_length[len(ngram)].append(ngram)
        self.table = NGramTable([])
        for n in range(1, max(by_length, default=1) + 1):
            ngrams = by_length[n]
            log10, back_off = np.array([entries[x] for x in ngrams], "float64").reshape(-1, 2).T
            try:
                if n == 1:
                    tokens = [token for (token,) in ngrams]
                    self.table = NGramTable.of_unigrams(tokens, log10, back_off, unknown)
                else:
                    self.table.append(self._numbers(ngrams, n), log10, back_off)
            except InvalidNGramError as error:
                raise ValueError(f"entries, {' '.join(ngrams[error.row])!r}: {error}.") from None

    @classmethod
    def from_arpa(cls, path, unknown: float = -7.0) -> "NGramLanguageModel":
        """Reads an ARPA file.

        Raises:
            ValueError: if the file has another format, with the file and the line.
        """
        try:
            with Path(path).open(encoding="utf-8-sig", newline="\n") as file:
                return cls.from_lines(file, unknown, path)
        except UnicodeDecodeError:
            raise ValueError(
                f"{path} is not a text file in UTF-8. NGramLanguageModel.from_kenlm reads the "
                "binary files of KenLM."
            ) from None

    @classmethod
    def from_lines(
        cls, lines: Iterable[str], unknown: float = -7.0, name="ARPA"
    ) -> "NGramLanguageModel":
        """Reads the lines of an ARPA file; `name` is the name of the file in error messages.

        Raises:
            ValueError: if a line has another format.
        """
        return cls._of(arpa.read(lines, unknown, name))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[Sequence[str]],
        order: int = 3,
        min_count: int = 1,
        smoothing: str = "witten_bell",
    ) -> "NGramLanguageModel":
        """Estimates a model from texts, each a sequence of tokens.

        Interpolated Witten-Bell smoothing (Chen and Goodman 1999, "An empirical study of smoothing
        techniques for language modeling", section 2.4), by default. With N tokens after a context
        c, T of them distinct, and c' the context without its first token:

            P(w | c) = (count(c w) + T P(w | c')) / (N + T)

        For the empty context, P(w | c') is uniform over the tokens and `<unk>`. If the texts have
        `<unk>`, it is counted like any other token.

        Interpolated modified Kneser-Ney smoothing (section 3 there, and Heafield et al. 2013,
        "Scalable modified Kneser-Ney language model estimation") is better for large texts. With
        a(c w) the count of an n-gram of the largest length, or of one that begins with `<s>`, and
        otherwise the number of different tokens that occur before it:

            P(w | c) = (a(c w) - D(a(c w)) + sum_v D(a(c v)) P(w | c')) / sum_v a(c v)

        The discounts D(1), D(2) and D(3), which is that of larger counts too, depend on the length;
        they are 0.5, 1 and 1.5 where the texts are too small to estimate them.

        Args:
            texts: the texts.
            order: the maximum length of the n-grams.
            min_count: the model has no entries for n-grams of two or more tokens that occur less
                often. With R of the N tokens in such n-grams, the probability is
                `(count(c w) + (T + R) P(w | c')) / (N + T)`, where their counts are 0. Only for
                Witten-Bell smoothing.
            smoothing: `"witten_bell"` or `"kneser_ney"`.

        Raises:
            ValueError: if a number is below one, `min_count` is above one with Kneser-Ney
                smoothing, `smoothing` has another value, there are no texts, or a text has the
                token `<s>` or `</s>`.
        """
        order, min_count = require_size("order", order), require_size("min_count", min_count)
        if smoothing == "witten_bell":
            return cls._of(witten_bell.estimate(texts, order, min_count))
        if smoothing != "kneser_ney":
            raise ValueError(f"smoothing must be 'witten_bell' or 'kneser_ney', got {smoothing!r}.")
        if min_count > 1:
            raise ValueError(f"min_count must be 1 with Kneser-Ney smoothing, got {min_count}.")
        return cls._of(kneser_ney.estimate(texts, order))

    @classmethod
    def from_kenlm(cls, path, words: Iterable[str] = ()) -> "NGramLanguageModel":
        """Reads a file of KenLM, binary or ARPA, with the package `kenlm`.

        The package looks up the probabilities. The model has no `entries` and no `to_arpa`.

        Args:
            path: the file.
            words: the words of the model. The file has only their hashes. Without them, a beam
                search does not know which prefixes begin a word, and finds worse texts. Words that
                the model does not have are ignored.

        Raises:
            ImportError: if the package is not installed, with the command that installs it.
            OSError: if the file cannot be read.
        """
        return _KenLM(path, words)

    @classmethod
    def _of(cls, table: NGramTable) -> "NGramLanguageModel":
        model = cls.__new__(cls)
        model.table = table
        return model

    @property
    def entries(self) -> dict[tuple[str, ...], tuple[float, float]]:
        return {
            ngram: values
            for level, ngrams in zip(self.table.levels, self.table.ngrams(), strict=True)
            for ngram, values in zip(
                ngrams, zip(level.log10.tolist(), level.back_off.tolist(), strict=True), strict=True
            )
        }

    @property
    def order(self) -> int:
        return len(self.table.levels)

    @cached_property
    def longest_token(self) -> int:
        return max(map(len, self.table.tokens))

    @cached_property
    def word_look_ahead(self) -> WordLookAhead | None:
        return WordLookAhead(self.table)

    def to_arpa(self) -> list[str]:
        """The lines of an ARPA file.

        Raises:
            ValueError: if a token is empty or has a space.
        """
        return arpa.write(self.table)

    def __contains__(self, token: str) -> bool:
        return token in self.table.ids

    def log_probability(self, token: str, context: Sequence[str] = ()) -> float:
        """The natural logarithm of P(token | context), from the last tokens of the context."""
        state = self._empty_state()
        for each in context[max(0, len(context) - self.order + 1) :]:
            _, state = self.score(state, each)
        return self.score(state, token)[0]

    def initial_state(self) -> Hashable:
        """The state at the start of a text, for `score`."""
        _, state = self.score(self._empty_state(), START)
        return state

    def score(self, state: Hashable, token: str) -> tuple[float, Hashable]:
        """The natural logarithm of P(token | state), and the state after the token.

        A state is what the model knows of the tokens before: two contexts with the same state have
        the same continuations.

        >>> model = NGramLanguageModel.from_texts([["a", "b"], ["a", "c"]], order=2)
        >>> _, state = model.score(model.initial_state(), "a")
        >>> model.score(state, "b")[0] == model.log_probability("b", ["<s>", "a"])
        True
        """
        # Item n of the state is the position of the last n + 1 tokens in the table, -1 if that
        # n-gram has no entry.
        table = self.table
        found = [table.ids.get(token, table.ids[UNKNOWN])]
        log10 = table.levels[0].log10[found[0]]
        for n, context in enumerate(state, start=1):
            position = -1 if context < 0 else table.position(n + 1, context, found[0])
            if position >= 0:
                log10 = table.levels[n].log10[position]
            elif context >= 0:
                log10 += table.levels[n - 1].back_off[context]
            found.append(position)
        return LOG_10 * float(log10), tuple(found[: self.order - 1])

    def _empty_state(self) -> Hashable:
        return (-1,) * (self.order - 1)

    def _numbers(self, ngrams: list[tuple[str, ...]], n: int) -> np.ndarray:
        """The numbers of the tokens of n-grams, `[N, n]`."""
        ids = self.table.ids
        for row, ngram in enumerate(ngrams):
            for token in ngram:
                if token not in ids:
                    raise InvalidNGramError(row, f"{token!r} is not among the 1-grams")
        return np.array([[ids[token] for token in x] for x in ngrams], "int64").reshape(-1, n)


class _KenLM(NGramLanguageModel):
    """A model whose probabilities the package `kenlm` looks up."""

    def __init__(self, path, words: Iterable[str]):
        self._model, self._new_state = load(path)
        self._words = sorted({word for word in words if word in self._model})

    @property
    def entries(self):
        raise AttributeError(
            "A model of from_kenlm has no entries: its file has only their hashes."
        )

    @property
    def order(self) -> int:
        return self._model.order

    @property
    def longest_token(self) -> int:
        # The file has only hashes of its tokens. No word is longer than that.
        return 1000

    @cached_property
    def word_look_ahead(self) -> WordLookAhead | None:
        if not self._words:
            return None
        log10 = [self.log_probability(word) / LOG_10 for word in [*self._words, UNKNOWN]]
        return UnigramLookAhead(self._words, log10[:-1], log10[-1])

    def to_arpa(self):
        raise AttributeError("A model of from_kenlm has no to_arpa: its file has only hashes.")

    def __contains__(self, token: str) -> bool:
        return token in self._model

    def initial_state(self) -> Hashable:
        state = self._new_state()
        self._model.BeginSentenceWrite(state)
        return state

    def score(self, state: Hashable, token: str) -> tuple[float, Hashable]:
        after = self._new_state()
        log10 = self._model.BaseScore(state, token, after)
        return LOG_10 * log10, after

    def _empty_state(self) -> Hashable:
        state = self._new_state()
        self._model.NullContextWrite(state)
        return state
