"""CTC beam search with a language model and hot words, in Python and NumPy."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from unroll.layers.operations import require_size
from unroll.layers.structured.ngram_language_model import END, START, NGramLanguageModel


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
    """Searches for the best texts of one recording.

    Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1. The score of a text is

        log P_ctc + language_model_weight * log P_language + insertion_bonus * number of units
            + the bonuses of its hot words

    A word counts when it is complete: at the space after it, or at the end.

    Args:
        logits: `[T, K]`.
        characters: the K characters. The character of the blank is ignored.
        language_model: a model of words or of characters.
        unit: `"word"` or `"character"`, the tokens of the language model.
        language_model_weight: the weight of the language model.
        insertion_bonus: a bonus for each unit. A language model alone prefers short texts.
        hot_words: words that are more probable than in the language model, with the bonus of each.
        beam_width: the number of prefixes.
        blank: the index of the blank.
        num_return_sequences: the number of texts to return, best first.

    Returns:
        A list of `(text, score)`.

    Raises:
        ValueError: if a number is out of its range, the logits do not fit the characters, or `unit`
            has another value.

    >>> path = 9 * np.eye(4)[[1, 0, 1, 2, 3]]
    >>> [(text, _)] = ctc_beam_search_with_language_model(path, ["", "a", "b", " "])
    >>> text
    'aab '

    Differs from the paper: nothing.
    """
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != len(characters):
        raise ValueError(
            f"logits must be [T, {len(characters)}] for {len(characters)} characters, got "
            f"{list(logits.shape)}."
        )
    if unit not in ("word", "character"):
        raise ValueError(f"unit must be 'word' or 'character', got {unit!r}.")
    require_size("beam_width", beam_width)
    require_size("num_return_sequences", num_return_sequences)
    scorer = _TextScorer(
        characters, language_model, unit, language_model_weight, insertion_bonus, hot_words or {}
    )
    # For each prefix, the log probabilities of the paths that end in a blank and in its last label.
    beam = {(): (0.0, -math.inf)}
    for frame in logits - np.logaddexp.reduce(logits, axis=1, keepdims=True):
        extended = _extend(beam, frame, blank)
        scores = {p: np.logaddexp(*ends) + scorer.score(p) for p, ends in extended.items()}
        ranked = sorted(scores, key=lambda prefix: -scores[prefix])
        beam = {prefix: tuple(extended[prefix]) for prefix in ranked[:beam_width]}
    scores = {p: float(np.logaddexp(*ends)) + scorer.score(p, True) for p, ends in beam.items()}
    ranked = sorted(scores, key=scores.get, reverse=True)[:num_return_sequences]
    return [(scorer.text(prefix), scores[prefix]) for prefix in ranked]


def _extend(beam: dict, frame, blank: int) -> dict:
    """The prefixes of the beam after one more frame `[K]`."""
    extended = defaultdict(lambda: [-math.inf, -math.inf])
    for prefix, (in_blank, in_label) in beam.items():
        total = np.logaddexp(in_blank, in_label)
        same = extended[prefix]
        same[0] = np.logaddexp(same[0], total + frame[blank])
        for k, log_prob in enumerate(frame):
            if k == blank:
                continue
            is_repeated = bool(prefix) and prefix[-1] == k
            if is_repeated:
                same[1] = np.logaddexp(same[1], in_label + log_prob)
            longer = extended[(*prefix, k)]
            previous = in_blank if is_repeated else total
            longer[1] = np.logaddexp(longer[1], previous + log_prob)
    return extended


@dataclass
class _TextScorer:
    """The part of the score that depends on the text."""

    characters: Sequence[str]
    language_model: NGramLanguageModel | None
    unit: str
    language_model_weight: float
    insertion_bonus: float
    hot_words: Mapping[str, float]
    cache: dict[tuple, float] = field(default_factory=dict)

    def text(self, prefix: tuple) -> str:
        return "".join(self.characters[k] for k in prefix)

    def score(self, prefix: tuple, is_complete: bool = False) -> float:
        """The score of the complete words of a prefix; of all its words if the text is complete."""
        key = (prefix, is_complete)
        if key not in self.cache:
            text = self.text(prefix)
            words = text.split(" ")
            if not is_complete:
                words.pop()
            words = [word for word in words if word]
            units = list(text) if self.unit == "character" else words
            bonus = sum(self.hot_words.get(word, 0.0) for word in words)
            self.cache[key] = self._score_units(units, is_complete) + bonus
        return self.cache[key]

    def _score_units(self, units: list[str], is_complete: bool) -> float:
        score = self.insertion_bonus * len(units)
        if self.language_model is not None:
            tokens = [START, *units, END] if is_complete else [START, *units]
            score += self.language_model_weight * sum(
                self.language_model.log_probability(tokens[k], tokens[:k])
                for k in range(1, len(tokens))
            )
        return score
