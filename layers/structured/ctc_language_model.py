"""CTC beam search with a language model and hot words, in Python and NumPy."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unroll.layers.operations import require_size
from unroll.layers.structured.ngram_language_model import NGramLanguageModel
from unroll.layers.structured.text_scorer import SPACE, TextScorer


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
    token_min_logp: float = -math.inf,
    blank: int = 0,
    num_return_sequences: int = 1,
) -> list[tuple[str, float]]:
    """Searches for the best texts of one recording.

    Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", algorithm 1, a form of the beam search of Graves and Jaitly
    2014, "Towards end-to-end speech recognition with recurrent neural networks". The score of a
    text of the units u_1 ... u_n is

        score = log P_ctc + language_model_weight * log P_language + insertion_bonus * n
                + the bonuses of its hot words
        P_ctc = the sum of the probabilities of all paths `[T]` whose labels make the text
        P_language = P(u_1 | <s>) P(u_2 | <s> u_1) ... P(</s> | <s> u_1 ... u_n)

    If the units are words, a text is a sequence of words: spaces at its ends, and more than one
    space between two words, make no difference. If they are characters, a space is a character like
    any other, and texts that differ in a space alone are separate results.

    A word is scored when it is complete: at the space after it, or at the end. So that a beam does
    not fill with prefixes that no word of the language model begins with, the prefixes are ranked
    by their scores so far plus a look-ahead for the word that is not complete (Ortmanns, Ney and
    Eiden 1996, "Language-model look-ahead for large vocabulary speech recognition"):

        the highest log P_language of all words that begin with it, and of an unknown word, in its
        context, times language_model_weight, plus insertion_bonus
        + the highest bonus of the hot words that begin with it, in proportion to the characters

    The look-ahead is not part of the scores of the results. The time is linear in T.

    Args:
        logits: `[T, K]`. Minus infinity excludes a label.
        characters: the K characters. A label may have several characters, also spaces. The
            character of the blank is ignored.
        language_model: a model of words or of characters.
        unit: `"word"` or `"character"`, the tokens of the language model.
        language_model_weight: the weight of the language model, 0 or more. With 0, it is not used.
        insertion_bonus: a bonus for each unit. A language model alone prefers short texts.
        hot_words: words that are more probable than in the language model, with the bonus of each.
        beam_width: W, the number of prefixes.
        token_min_logp: labels with a smaller log probability in a frame are left out there, except
            the most probable one. This saves time if the probabilities have clear maxima.
            pyctcdecode's default is -5.
        blank: the index of the blank.
        num_return_sequences: the number of texts to return, best first. There may be fewer.

    Returns:
        A list of `(text, score)`.

    Raises:
        ValueError: if a number is out of its range, the logits have NaN or do not fit the
            characters, or `unit` has another value.

    >>> path = 9 * np.eye(4)[[1, 0, 1, 2, 3]]
    >>> [(text, _)] = ctc_beam_search_with_language_model(path, ["", "a", "b", " "])
    >>> text
    'aab'

    Differs from the paper: the bonus is `insertion_bonus * n`, as in Hannun et al. 2014, "Deep
    Speech", section 2.2, where the paper has beta * log n. The prefixes are ranked with a
    look-ahead. Spaces that make no difference to the words are ignored.
    """
    beam_width = require_size("beam_width", beam_width)
    num_return_sequences = require_size("num_return_sequences", num_return_sequences)
    if num_return_sequences > beam_width:
        raise ValueError(
            f"num_return_sequences must be at most beam_width, {beam_width}, got "
            f"{num_return_sequences}."
        )
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != len(characters) or not len(characters):
        raise ValueError(
            f"logits must be [T, {len(characters)}] for {len(characters)} characters, got "
            f"{list(logits.shape)}."
        )
    blank = require_size("blank", blank, 0)
    if blank >= len(characters):
        raise ValueError(f"blank must be below {len(characters)}, got {blank}.")
    if unit not in ("word", "character"):
        raise ValueError(f"unit must be 'word' or 'character', got {unit!r}.")
    _require_number("language_model_weight", language_model_weight)
    if language_model_weight < 0:
        raise ValueError(f"language_model_weight must be at least 0, got {language_model_weight}.")
    _require_number("insertion_bonus", insertion_bonus)
    if token_min_logp != -math.inf:
        _require_number("token_min_logp", token_min_logp)
    if token_min_logp > 0:
        raise ValueError(f"token_min_logp must be at most 0, got {token_min_logp}.")
    for word, bonus in (hot_words or {}).items():
        if not word or SPACE in word:
            raise ValueError(f"hot_words must be single words, got {word!r}.")
        _require_number(f"The bonus of the hot word {word!r}", bonus)
    is_possible = np.isfinite(logits.max(axis=1)) & ~np.isnan(logits).any(axis=1)
    if not is_possible.all():
        frame = int(np.argmin(is_possible))
        raise ValueError(
            "Each frame of logits must have a finite maximum and no NaN, got "
            f"{logits[frame].tolist()} in frame {frame}."
        )
    scorer = TextScorer(
        [character if k != blank else "" for k, character in enumerate(characters)],
        language_model if language_model_weight else None,
        unit,
        language_model_weight,
        insertion_bonus,
        hot_words or {},
    )
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    is_left_out = log_probs < np.minimum(token_min_logp, log_probs.max(axis=1, keepdims=True))
    log_probs = np.where(is_left_out, -math.inf, log_probs)
    beam, tree = _search(log_probs, scorer, beam_width, blank)
    texts: dict[str, tuple[float, float]] = {}
    for node, log_prob in zip(beam.nodes, np.logaddexp(beam.in_blank, beam.in_label), strict=True):
        text = scorer.normalized(tree.text(node))
        sum_of_paths, _ = texts.get(text, (-math.inf, 0.0))
        own = tree.scores[node] + scorer.final_score(tree.states[node])
        texts[text] = np.logaddexp(sum_of_paths, log_prob), own
    results = [(text, float(sum(parts))) for text, parts in texts.items()]
    return sorted(results, key=lambda result: -result[1])[:num_return_sequences]


def _require_number(name: str, value) -> None:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")


class _Beam(NamedTuple):
    """The W prefixes of a beam, with the log probabilities of the two kinds of paths.

    A path counts as ending in its last label, or in a blank.
    """

    nodes: list[int]  # [W], of the tree
    in_blank: np.ndarray  # [W]
    in_label: np.ndarray  # [W]


def _search(log_probs, scorer: TextScorer, beam_width: int, blank: int) -> tuple:
    """The beam after all frames `[T, K]`, and the tree with its prefixes."""
    size = log_probs.shape[1]
    tree = _Tree(scorer, blank)
    beam = _Beam([0], np.zeros(1), np.full(1, -math.inf))
    for frame in log_probs:
        nodes, rows = beam.nodes, np.arange(len(beam.nodes))
        last = np.array([tree.labels[node] for node in nodes])  # [W]
        total = np.logaddexp(beam.in_blank, beam.in_label)  # [W]
        longer = total[:, None] + frame  # [W, K], the prefixes with one more label
        longer[rows, last] = beam.in_blank + frame[last]  # a blank precedes a repeated label
        longer[:, blank] = -math.inf
        stay_in_blank = total + frame[blank]
        stay_in_label = beam.in_label + frame[last]

        # Prefixes with one more label that are in the beam already: the same words with one more
        # space, and the child of a prefix.
        row_of = {node: row for row, node in enumerate(nodes)}
        same = [(row, row, k) for row, k in enumerate(last.tolist()) if k == scorer.space]
        for row, node in enumerate(nodes):
            parent_row = row_of.get(tree.parents[node])
            if parent_row is not None:
                same.append((row, parent_row, tree.labels[node]))
        if same:
            to, of, label = np.array(same).T
            np.logaddexp.at(stay_in_label, to, longer[of, label])
            longer[of, label] = -math.inf

        own = np.array([tree.scores[node] for node in nodes])[:, None]  # [W, 1], of the texts
        own = own + np.array([tree.gains[node] for node in nodes])  # [W, K]
        scores = np.logaddexp(stay_in_blank, stay_in_label) + own[:, blank]  # with the look-ahead
        scores = np.concatenate([scores, (longer + own).ravel()])
        chosen = np.arange(len(scores))
        if len(scores) > beam_width:
            chosen = np.argpartition(-scores, beam_width - 1)[:beam_width]
        chosen = chosen[scores[chosen] > -math.inf]

        stay, extend = chosen[chosen < len(rows)], chosen[chosen >= len(rows)] - len(rows)
        extended = [tree.child(nodes[i // size], i % size) for i in extend.tolist()]
        beam = _Beam(
            [*(nodes[row] for row in stay.tolist()), *extended],
            np.concatenate([stay_in_blank[stay], np.full(len(extend), -math.inf)]),
            np.concatenate([stay_in_label[stay], longer.ravel()[extend]]),
        )
    return beam, tree


class _Tree:
    """The prefixes that were in the beam, as a tree with a label on each edge. Node 0 is empty."""

    def __init__(self, scorer: TextScorer, blank: int):
        self.scorer = scorer
        self.children: dict[tuple[int, int], int] = {}
        self.parents = [-1]
        # Spaces at the start make no difference: the empty prefix is like one after a space.
        self.labels = [blank if scorer.space is None else scorer.space]
        self.states = [scorer.initial_state()]
        self.scores = [0.0]  # of the texts
        self.gains = [scorer.gains(self.states[0])]  # of each label, with the look-ahead

    def child(self, node: int, label: int) -> int:
        """The node of a prefix with one more label."""
        key = (node, label)
        if key not in self.children:
            self.children[key] = len(self.parents)
            characters = self.scorer.characters[label]
            gain, state = self.scorer.advance(self.states[node], characters)
            self.parents.append(node)
            self.labels.append(label)
            self.states.append(state)
            self.scores.append(self.scores[node] + gain)
            self.gains.append(self.scorer.gains(state))
        return self.children[key]

    def text(self, node: int) -> str:
        pieces = []
        while node:
            pieces.append(self.scorer.characters[self.labels[node]])
            node = self.parents[node]
        return "".join(reversed(pieces))
