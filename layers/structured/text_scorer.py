"""The part of the score of a CTC beam search that depends on the text."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from unroll.layers.structured.ngram_language_model import LOG_10, NGramLanguageModel
from unroll.layers.structured.ngram_table import END
from unroll.layers.structured.word_look_ahead import WordRanges

SPACE = " "


class TextScorer:
    """The part of the score that depends on the text, one label after the other.

    A state consists of the state of the language model and of the word that is not complete yet.
    The look-ahead of a state is what the end of that word may add to the score.
    """

    def __init__(
        self,
        characters: Sequence[str],
        language_model: NGramLanguageModel | None,
        unit: str,
        language_model_weight: float,
        insertion_bonus: float,
        hot_words: Mapping[str, float],
    ):
        self.characters = characters
        self.language_model = language_model
        self.is_word_model = unit == "word"
        self.language_model_weight = language_model_weight
        self.insertion_bonus = insertion_bonus
        self.hot_words = hot_words
        self.keeps_word = self.is_word_model or bool(hot_words)
        # A longer word is neither in the language model nor a hot word: its end does not matter.
        self.longest_word = max(map(len, hot_words), default=0)
        if self.is_word_model and language_model is not None:
            self.longest_word = max(self.longest_word, language_model.longest_token)
        is_merged = self.is_word_model and SPACE in characters
        self.space = characters.index(SPACE) if is_merged else None
        # The bonus of a hot word in proportion to its characters so far. Less than nothing is not
        # expected: most words with the same start are others.
        self._prefix_bonuses: dict[str, float] = {}
        for word, bonus in hot_words.items():
            for n in range(1, len(word) + 1):
                so_far = max(bonus * n / len(word), self._prefix_bonuses.get(word[:n], 0.0))
                self._prefix_bonuses[word[:n]] = so_far
        # The labels by the characters that add to the score at once: in a word model, those up to
        # the last space. The others are the start of a word.
        by_head = defaultdict(list)
        for k, label in enumerate(characters):
            start = label.rpartition(SPACE)[2] if self.is_word_model else ""
            by_head[label.removesuffix(start)].append((k, start))
        self._groups = [(head, *zip(*labels, strict=True)) for head, labels in by_head.items()]
        self._units: dict[tuple[Hashable, str], tuple[float, Hashable]] = {}
        self._gains: dict[Hashable, np.ndarray] = {}
        self._words: dict[tuple[str, tuple[str, ...]], WordRanges] = {}

    def initial_state(self) -> Hashable:
        return (self.language_model and self.language_model.initial_state()), ""

    def advance(self, state: Hashable, text: str) -> tuple[float, Hashable]:
        """What the characters of a label add to the score, and the state after them."""
        history, word = state
        gain = 0.0
        for character in text:
            if not self.is_word_model:
                added, history = self._unit(history, character)
                gain += added
            if character == SPACE:
                added, history = self._complete(history, word)
                gain, word = gain + added, ""
            elif self.keeps_word:
                word = (word + character)[: self.longest_word + 1]
        return gain, (history, word)

    def gains(self, state: Hashable) -> np.ndarray:
        """What each label adds to the score, with the look-ahead after it, `[K]`.

        For a label without characters, it is the look-ahead of the state.
        """
        if state not in self._gains:
            gains = np.zeros(len(self.characters))
            for head, labels, starts in self._groups:
                gain, (history, word) = self.advance(state, head)
                gains[list(labels)] = gain + self._look_ahead(history, word, starts)
            self._gains[state] = gains
        return self._gains[state]

    def final_score(self, state: Hashable) -> float:
        """What the end of the text adds to the score."""
        gain, history = self._complete(*state)
        if self.language_model is not None:
            log_prob, _ = self.language_model.score(history, END)
            gain += self.language_model_weight * log_prob
        return gain

    def normalized(self, text: str) -> str:
        """The text without spaces that make no difference."""
        return SPACE.join(filter(None, text.split(SPACE))) if self.is_word_model else text

    def _complete(self, history: Hashable, word: str) -> tuple[float, Hashable]:
        if not word:
            return 0.0, history
        bonus = self.hot_words.get(word, 0.0)
        if not self.is_word_model:
            return bonus, history
        gain, history = self._unit(history, word)
        return bonus + gain, history

    def _unit(self, history: Hashable, unit: str) -> tuple[float, Hashable]:
        if self.language_model is None:
            return self.insertion_bonus, history
        key = (history, unit)
        if key not in self._units:
            log_prob, after = self.language_model.score(history, unit)
            self._units[key] = self.language_model_weight * log_prob + self.insertion_bonus, after
        return self._units[key]

    def _look_ahead(self, history: Hashable, word: str, starts: tuple[str, ...]) -> np.ndarray:
        """What the end of a word may add to the score, after each of P pieces of it, `[P]`."""
        gains = np.zeros(len(starts))
        if self.is_word_model and (word or any(starts)):
            gains += self._best_word(history, word, starts)
            if not word:
                gains[[not start for start in starts]] = 0.0
        if self._prefix_bonuses:
            gains += [self._prefix_bonuses.get(word + start, 0.0) for start in starts]
        return gains

    def _best_word(self, history: Hashable, word: str, starts: tuple[str, ...]):
        """The highest gain of a word, `[P]`."""
        if self.language_model is None:
            return self.insertion_bonus
        look_ahead = self.language_model.word_look_ahead
        if look_ahead is None:
            return 0.0
        key = word, starts
        if key not in self._words:
            self._words[key] = look_ahead.ranges(word, starts)
        log_prob = LOG_10 * look_ahead.log10(history, self._words[key])
        return self.language_model_weight * log_prob + self.insertion_bonus
