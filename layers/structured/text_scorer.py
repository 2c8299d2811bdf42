"""The part of the score of a CTC beam search that depends on the text."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from unroll.layers.structured.ngram_language_model import NGramLanguageModel
from unroll.layers.structured.ngram_table import END

SPACE = " "


class TextScorer:
    """The part of the score that depends on the text, one label after the other.

    A state consists of the state of the language model and of the word that is not complete yet.
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
        # The labels that complete a unit.
        self.scoring = np.array(
            [k for k, c in enumerate(characters) if SPACE in c or (c and not self.is_word_model)],
            "int64",
        )
        self._units: dict[tuple[Hashable, str], tuple[float, Hashable]] = {}
        self._gains: dict[Hashable, np.ndarray] = {}

    def initial_state(self) -> Hashable:
        return (self.language_model and self.language_model.initial_state()), ""

    def advance(self, state: Hashable, label: int) -> tuple[float, Hashable]:
        """What a label adds to the score, and the state after it."""
        history, word = state
        gain = 0.0
        for character in self.characters[label]:
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
        """What each of the scoring labels adds to the score."""
        if state not in self._gains:
            self._gains[state] = np.array([self.advance(state, k)[0] for k in self.scoring])
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
