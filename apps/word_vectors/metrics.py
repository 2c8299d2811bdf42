"""Figures of word vectors: analogies, similarities, the loss of a text; and the baseline."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import tensorflow as tf
from scipy.stats import spearmanr
from sklearn.utils.extmath import randomized_svd

from unroll.apps.core.protocol import Data, Trained
from unroll.apps.word_vectors.network import answer, normalized
from unroll.pipelines import text as texts
from unroll.pipelines import word_vectors as pairs
from unroll.pipelines.word_questions import Section

# The figures of published sections.
FIGURES = {"WordSim-353": "wordsim_353", "SimLex-999": "simlex_999", "MEN": "men"}
# The most frequent words, among which word2vec's own script answers analogies.
FREQUENT = 30_000
_SYNTACTIC = "gram"  # how the names of syntactic sections of word2vec's analogies begin
_FEWEST = 3  # known pairs of a section
_POWER = 0.75  # of the counts of contexts in the baseline


@dataclass(frozen=True)
class Answers:
    """The questions of a section, and what vectors answer.

    Attributes:
        section: its name.
        words: the ids of each question, `[Q, 4]` of analogies or `[Q, 2]` of pairs.
        known: which questions have only words of the vocabulary, `[Q]`.
        found: of the known questions, the ids of the answers or the cosines of the pairs.
        ratings: of the known pairs.
    """

    section: str
    words: np.ndarray
    known: np.ndarray
    found: np.ndarray
    ratings: np.ndarray

    @property
    def is_analogies(self) -> bool:
        """Whether the questions are analogies."""
        return self.words.shape[1] == 4

    @property
    def is_right(self) -> np.ndarray:
        """Which of the known analogies have the right answer."""
        return self.found == self.words[self.known, 3]


def answers(
    matrix, sections: list[Section], dataset: tf.data.Dataset, restricted: bool = False
) -> list[Answers]:
    """What vectors `[V, D]` answer to the questions of a split, by section.

    With `restricted`, only the `FREQUENT` most frequent words are known.
    """
    if restricted:
        matrix = matrix[: FREQUENT + texts.UNKNOWN + 1]
    rows: dict[int, list] = {}
    for features, labels in dataset:
        numbers = labels["section"].numpy()
        for number in np.unique(numbers[numbers > 0]).tolist():
            own = numbers == number
            words = features["words"].numpy()[own, :4]
            rows.setdefault(number, []).append((words, labels["rating"].numpy()[own]))
    matrix, results = tf.convert_to_tensor(matrix, tf.float32), []
    for number, parts in rows.items():
        section = sections[number - 1]
        words, ratings = (np.concatenate(part) for part in zip(*parts, strict=True))
        words = words if section.is_analogies else words[:, :2]
        known = ((words > texts.UNKNOWN) & (words < matrix.shape[0])).all(axis=1)
        found = list(_analogies(matrix, words[known]) if section.is_analogies else ())
        if not section.is_analogies:
            first, second = (tf.gather(matrix, words[known, k]) for k in (0, 1))
            found = tf.reduce_sum(normalized(first) * normalized(second), axis=-1)
        results.append(Answers(section.name, words, known, np.array(found), ratings[known]))
    return results


def _analogies(matrix, words: np.ndarray, batch: int = 256) -> Iterator[int]:
    find = tf.function(answer, reduce_retracing=True)
    for first in range(0, len(words), batch):
        yield from find(matrix, tf.constant(words[first : first + batch, :3])).numpy()


def figures(found: list[Answers]) -> dict:
    """The figures of answers.

    - `examples`: the number of questions.
    - `analogies`: the share of right answers to the known analogies, by section, and of all; of
      word2vec's analogies also of the semantic and the syntactic ones.
    - For each section of rated pairs, Spearman's rank correlation of the cosines with the ratings.
    - `..._unknown`: the number of questions with a word that is not in the vocabulary. They are
      left out.
    """
    result: dict = {"examples": sum(len(each.words) for each in found)}
    analogies = [each for each in found if each.is_analogies]
    result |= _accuracies(analogies, "analogies")
    if len(analogies) > 1:
        for each in analogies:
            result |= _accuracy([each], f"analogies_{_name(each.section)}")
    for each in found:
        if not each.is_analogies:
            name = FIGURES.get(each.section, _name(each.section))
            if len(each.found) >= _FEWEST:
                result[name] = float(spearmanr(each.found, each.ratings).statistic)
            result[f"{name}_unknown"] = int((~each.known).sum())
    return result


def _accuracies(found: list[Answers], name: str) -> dict:
    """The shares of right answers, also of semantic and syntactic ones, and the unknown ones."""
    if not found:
        return {}
    groups: dict[bool, list[Answers]] = {False: [], True: []}
    for each in found:
        groups[each.section.startswith(_SYNTACTIC)].append(each)
    semantic, syntactic = groups[False], groups[True]
    result = _accuracy(found, name)
    if syntactic:
        result |= _accuracy(semantic, f"{name}_semantic")
        result |= _accuracy(syntactic, f"{name}_syntactic")
    return result | {f"{name}_unknown": int(sum((~each.known).sum() for each in found))}


def _accuracy(found: list[Answers], name: str) -> dict:
    right = [each.is_right for each in found]
    return {name: float(np.concatenate(right).mean())} if sum(map(len, right)) else {}


def all_figures(matrix, sections: list[Section], dataset: tf.data.Dataset) -> dict:
    """The figures, also of the analogies among the most frequent words of a large vocabulary."""
    result = figures(answers(matrix, sections, dataset))
    if matrix.shape[0] > FREQUENT + texts.UNKNOWN + 1:
        restricted = answers(matrix, sections, dataset, restricted=True)
        analogies = [each for each in restricted if each.is_analogies]
        result |= _accuracies(analogies, f"analogies_{FREQUENT}")
    return result


def _name(section: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in section.lower())


def score(trained: Trained, sections: list[Section], dataset: tf.data.Dataset) -> dict:
    """The figures of a split: of its questions, and the loss of its text per pair of words."""
    result = all_figures(trained.model.matrix(), sections, dataset)
    losses = tf.function(trained.model.losses, reduce_retracing=True)
    total = count = words = 0.0
    for features, labels in dataset:
        if int(labels["section"][0]) == 0:
            loss, number = losses(features["words"], features["negatives"], labels["windows"])
            total, count = total + float(loss), count + float(number)
            words += int(tf.math.count_nonzero(_centers(features["words"])))
    if count:
        result["loss"] = total / count
    result["examples"] = result["examples"] or int(words)
    return result


def _centers(blocks):
    window = (blocks.shape[1] - pairs.BLOCK) // 2
    return blocks[:, window : window + pairs.BLOCK]


def baseline(config, sections: list[Section], data: Data, split: str) -> dict:
    """Truncated singular value decomposition of positive pointwise mutual information."""
    ids = pairs.text_of(data["train"], config.window)
    size = len(data.assets["vocabulary"])
    matrix = ppmi_vectors(ids, size, config.window, config.embedding_dim, config.seed)
    result = all_figures(matrix, sections, data[split])
    del result["examples"]
    return {"what": "PPMI and SVD", **result}


def ppmi_vectors(
    ids: np.ndarray, vocabulary_size: int, window: int, dim: int, seed: int = 0
) -> np.ndarray:
    """Word vectors from counts, with the settings of Levy et al. 2015.

    The positive pointwise mutual information of words and the words in their windows, weighted by
    their distance as random windows do, with the counts of contexts to the power 3/4. The vectors
    are the left singular vectors times the square roots of the singular values.

    Args:
        ids: of the text, `[N]`, with `END` after each line.
        vocabulary_size: V.
        window: the maximum number of words on each side of a word.
        dim: D.
        seed: of the randomized decomposition.

    Returns:
        `[V, D]`.
    """
    counts = scipy.sparse.csr_array((vocabulary_size, vocabulary_size), dtype="float64")
    line = np.cumsum(ids == pairs.END)
    for distance in range(1, window + 1):
        first, second = ids[:-distance], ids[distance:]
        together = (line[:-distance] == line[distance:]) & (first != pairs.END)
        codes = first[together].astype("int64") * vocabulary_size + second[together]
        codes, numbers = np.unique(codes, return_counts=True)
        weight = (window + 1 - distance) / window
        counts += scipy.sparse.csr_array(
            (numbers * weight, (codes // vocabulary_size, codes % vocabulary_size)), counts.shape
        )
    counts = (counts + counts.T).tocoo()
    of_words = counts.sum(axis=1)
    contexts = of_words**_POWER
    rows, columns = counts.coords
    information = np.log(counts.data / (of_words[rows] * contexts[columns] / contexts.sum()))
    positive = information > 0
    matrix = scipy.sparse.csr_array(
        (information[positive].astype("float32"), (rows[positive], columns[positive])),
        counts.shape,
    )
    rank = min(dim, vocabulary_size - 1)
    left, values, _ = randomized_svd(scipy.sparse.csr_matrix(matrix), rank, random_state=seed)
    return (left * np.sqrt(values)).astype("float32")
