"""Word vectors' pipeline: words, phrases, n-grams, blocks, windows, negative samples."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import word_vectors as pairs
from unroll.pipelines.errors import DataError
from unroll.pipelines.word_vectors import BLOCK, END

VOCABULARY = ["[PAD]", "[UNK]", *"abcdefgh"]
WINDOW, NEGATIVES = 3, 6


def text(*parts: str) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(list(parts))


def ids_of(words: str) -> np.ndarray:
    """The ids of words of `VOCABULARY`; a slash ends a line."""
    return np.array([END if w == "/" else VOCABULARY.index(w) for w in words.split()], "int32")


class TestWords:
    def test_each_line_ends_and_punctuation_is_left_out(self):
        words = pairs.Words(["[PAD]", "[UNK]", "the", "dog", "0000"])
        found = words(tf.constant(["The dog, 1987!\r\n\nTHE cat", ""])).to_list()
        assert found == [[2, 3, 4, END, END, 2, 1, END], [END]]

    def test_vocabulary_is_in_the_order_of_counts(self):
        found = pairs.build_vocabulary(text("b a. a, c!", "a b\nd"), 100, 1)
        assert found == ["[PAD]", "[UNK]", "a", "b", "c", "d"]
        assert pairs.build_vocabulary(text("b a a c", "a b\nd"), 4, 1)[2:] == ["a", "b"]
        assert pairs.build_vocabulary(text("b a a c", "a b\nd"), 100, 2)[2:] == ["a", "b"]

    def test_a_text_without_frequent_words_is_refused(self):
        with pytest.raises(DataError, match=r"has 1 words that occur at least 2 times"):
            pairs.build_vocabulary(text("a a b"), 100, 2)

    def test_a_labeled_text_loses_the_tags_of_web_pages(self):
        examples = tf.data.Dataset.from_tensors({"text": "a<br />b", "label": 1})
        assert next(pairs.pieces_of(examples).as_numpy_iterator()) == b"a\nb\n"


class TestPhrases:
    IDS = ids_of("a b c d / " * 20 + "a e / b f / c g / a d / " * 4)

    def test_scores_are_those_of_the_paper(self):
        """(count(ab) - minimum) / (count(a) count(b)) * N, with N = 112."""
        count = {"a": 28, "b": 24, "c": 24, "d": 24}
        score = {
            pair: (20 - 2) / (count[pair[0]] * count[pair[2]]) * 112 for pair in ("b c", "c d")
        }
        between = (min(score.values()) + 18 / (28 * 24) * 112) / 2
        options = {"min_count": 2, "passes": 1}
        _, found = pairs.find_phrases(self.IDS, VOCABULARY, threshold=between, **options)
        assert sorted(found) == ["b c", "c d"]
        names, found = pairs.find_phrases(self.IDS, VOCABULARY, threshold=100.0, **options)
        assert (names, found) == (VOCABULARY, [])

    def test_phrases_of_phrases(self):
        names, found = pairs.find_phrases(
            self.IDS, VOCABULARY, threshold=2.0, min_count=2, passes=3
        )
        assert names[: len(VOCABULARY)] == VOCABULARY
        assert names[len(VOCABULARY) :] == [phrase.replace(" ", "_") for phrase in found]
        joined = pairs.join_phrases(self.IDS, names, found)
        assert [names[k] for k in joined[:3]] == ["a_b_c_d", "[PAD]", "a_b_c_d"]

    def test_overlapping_pairs_are_joined_from_the_left(self):
        names = [*VOCABULARY, "a_a", "a_b"]
        found = pairs.join_phrases(ids_of("a a a b / a a a a b a"), names, ["a a", "a b"])
        assert [names[k] for k in found] == ["a_a", "a_b", "[PAD]", "a_a", "a_a", "b", "a"]
        short = ids_of("a")
        assert pairs.join_phrases(short, names, ["a a"]).tolist() == short.tolist()


def test_letter_ngrams():
    found = pairs.letter_ngrams(tf.constant(["abc", "日", ""]), 2, 3, 1000)
    # <a ab bc c> <ab abc bc>; <日 日> <日>; <>
    assert found.row_lengths().numpy().tolist() == [7, 3, 1]
    assert found.numpy()[0].min() >= 1
    alone = pairs.letter_ngrams(tf.constant(["ab"]), 3, 3, 1000)  # <ab ab>
    assert alone.to_list()[0][0] == found.to_list()[0][4]
    assert int(tf.reduce_max(pairs.letter_ngrams(tf.constant(["abcdefghij"]), 1, 6, 3))) <= 3


def training(ids, **options):
    defaults = {"window": WINDOW, "sample": 0.0, "negatives": NEGATIVES, "seed": 1}
    counts = pairs.counts_of(ids, len(VOCABULARY))
    return pairs.training_batches(ids, counts, **defaults | options)


def words_of(batches) -> list[list[int]]:
    """The words of the blocks of each batch."""
    return [f["words"][:, WINDOW : WINDOW + BLOCK].tolist() for f, _ in batches.as_numpy_iterator()]


class TestTraining:
    IDS = np.random.default_rng(0).integers(0, len(VOCABULARY), 5000).astype("int32")

    def test_each_known_word_is_once_in_a_block(self, monkeypatch):
        monkeypatch.setattr(pairs, "SEGMENT", 700)
        batches = training(self.IDS)
        assert int(batches.cardinality()) == 8
        found = np.concatenate([np.ravel(blocks) for blocks in words_of(batches)])
        for word in range(2, len(VOCABULARY)):
            assert (found == word).sum() == (word == self.IDS).sum()
        assert not (found == 1).any()

    def test_blocks_have_the_words_around_them(self):
        ids = np.array([2, 3, 4, 5, 6, 7, 8, 9] * 20, "int32")  # each word follows the one before
        [(features, labels)] = training(ids).as_numpy_iterator()
        words = features["words"]
        assert words.shape == (5, WINDOW + BLOCK + WINDOW)
        both = (words[:, :-1] > 0) & (words[:, 1:] > 0)
        steps = np.where(both, (words[:, 1:] - words[:, :-1]) % 8, 1)
        assert ((steps == 1).sum(axis=1) >= words.shape[1] - 2).all()  # the text is a circle
        assert set(np.unique(labels["windows"])) == {1, 2, 3}
        assert features["negatives"].shape == (5, NEGATIVES)

    def test_epochs_differ_and_depend_on_the_seed(self, monkeypatch):
        monkeypatch.setattr(pairs, "SEGMENT", 2000)
        first, same, other = training(self.IDS), training(self.IDS), training(self.IDS, seed=2)
        epochs = [words_of(first), words_of(first)]
        assert epochs[0] != epochs[1]
        assert [words_of(same), words_of(same)] == epochs
        assert words_of(other) != epochs[0]
        progress = [f["progress"].tolist() for f, _ in first.as_numpy_iterator()]
        flat = np.concatenate(progress)
        assert flat[0] == 0
        assert (np.diff(flat) > 0).all()
        assert 0.9 < flat[-1] < 1

    def test_frequent_words_are_left_out(self):
        ids = np.where(np.arange(100_000) % 10 > 0, 2, 3 + np.arange(100_000) // 10 % 7)
        [blocks] = words_of(training(ids.astype("int32"), sample=1e-2))
        share = np.sqrt(1e-2 / 0.9) + 1e-2 / 0.9
        assert (np.array(blocks) == 2).sum() == pytest.approx(90_000 * share, rel=0.05)
        rare = np.sqrt(1e-2 * 70) + 1e-2 * 70  # above 1: all are kept
        assert rare > 1
        assert (np.array(blocks) == 3).sum() == (ids == 3).sum()

    def test_negative_samples_have_the_power_of_the_counts(self):
        counts = np.array([0, 0, 1, 16, 81, 256], "int64")
        table = pairs._table(counts)
        found = np.bincount(table, minlength=6) / len(table)
        np.testing.assert_allclose(found, np.array([0, 0, 1, 8, 27, 64]) / 100, atol=1e-3)
        assert len(table) <= pairs._TABLE


class TestEvaluation:
    IDS = ids_of("a b c / / d a b h / " + "[UNK] e " * 40 + "/")

    def batches(self, ids=IDS, questions=()):
        counts = pairs.counts_of(self.IDS, len(VOCABULARY))
        return pairs.evaluation_batches(
            ids, counts, list(questions), window=WINDOW, negatives=NEGATIVES
        )

    def test_the_text_is_as_it_is(self):
        known = self.IDS[self.IDS != 1]
        expected = np.delete(known, 4)  # one of two line ends
        assert pairs.text_of(self.batches(), WINDOW).tolist() == expected.tolist()
        first, second = ([*self.batches().as_numpy_iterator()] for _ in range(2))
        tf.nest.map_structure(np.testing.assert_array_equal, first, second)

    def test_questions_have_their_section(self):
        analogies = (np.array([[2, 3, 4, 5], [3, 4, 5, 1]], "int32"), np.zeros(2, "float32"))
        rated = (np.array([[2, 3]] * 300, "int32"), np.arange(300, dtype="float32"))
        found = [*self.batches(questions=[analogies, rated]).as_numpy_iterator()]
        sections = [labels["section"] for _, labels in found]
        assert [(s[0], len(s)) for s in sections] == [(1, 2), (2, 256), (2, 44), (0, 2)]
        features, labels = found[0]
        assert features["words"][:, :5].tolist() == [[2, 3, 4, 5, 0], [3, 4, 5, 1, 0]]
        assert not labels["windows"].any()
        ratings = np.concatenate([labels["rating"] for _, labels in found[1:3]])
        assert ratings.tolist() == list(range(300))

    def test_an_empty_text_has_no_blocks(self):
        assert pairs.text_of(self.batches(np.zeros(0, "int32")), WINDOW).tolist() == []
