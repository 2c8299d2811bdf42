"""Figures and baselines of translations and replies."""

import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core.protocol import Data
from unroll.apps.translation import baselines, metrics
from unroll.apps.translation.metrics import Texts
from unroll.pipelines import translation

GERMAN = [f"Der {a} Hund sieht {k} Katzen." for k, a in enumerate(("alte", "kleine", "junge") * 3)]
ENGLISH = [f"The {a} dog sees {k} cats." for k, a in enumerate(("old", "small", "young") * 3)]


def texts(sources, targets, histories=None) -> Texts:
    return Texts(list(sources), list(targets), histories or [[] for _ in sources])


def split(own: Texts) -> tf.data.Dataset:
    rows = zip(own.sources, own.targets, own.histories, strict=True)
    rows = [dict(zip(("source", "target", "history"), row, strict=True)) for row in rows]
    signature = {name: tf.TensorSpec([], tf.string) for name in ("source", "target")}
    signature["history"] = tf.TensorSpec([None], tf.string)
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)


def data(train: Texts, test: Texts) -> Data:
    """Splits as `evaluate` loads them."""
    assets = translation.build_assets(split(train), "words", 100)
    own = translation.tokenizers(assets, "words")
    batches = {
        name: translation.batches(split(each), *own, 4, with_text=True)
        for name, each in (("train", train), ("test", test))
    }
    return Data(batches, assets)


class TestTranslations:
    def test_perfect_and_wrong_outputs(self):
        own = texts(GERMAN, ENGLISH)
        figures = metrics.translation_figures(own, ENGLISH)
        expected = {"bleu": 100, "bleu_lowercase": 100, "chrf": 100, "exact_match": 100}
        assert figures == pytest.approx({"examples": 9, **expected})
        lower = metrics.translation_figures(own, [text.lower() for text in ENGLISH])
        assert lower["bleu_lowercase"] == pytest.approx(100)
        assert lower["bleu"] < 90
        assert lower["exact_match"] == 0
        assert metrics.bleu(own, GERMAN) < 10

    def test_bleu_is_that_of_sacrebleu(self):
        """By hand: precisions of 5/6, 3/5, 1/4 and 1/6 (smoothed), no brevity penalty."""
        own = texts(["a"], ["the cat sat on the mat"])
        found = metrics.bleu(own, ["the cat sat at the mat"])
        assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)

    def test_each_source_counts_once_with_all_its_targets(self):
        own = texts(["a", "b", "a", "a"], ["one two three four", "x y z w", "five six", "five six"])
        assert own.references() == {("a",): ["one two three four", "five six"], ("b",): ["x y z w"]}
        figures = metrics.translation_figures(own, ["five six", "x y z v", "-", "-"])
        assert figures["examples"] == 4
        assert figures["exact_match"] == 50
        # The same source after other turns is another one.
        turns = [["q"], [], ["q"], []]
        assert len(texts(own.sources, own.targets, turns).references()) == 3

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("I am a student.", "13a"),
            ("我是一个学生。", "zh"),
            ("Tom 喜歡學生。", "zh"),
            ("私は学生です。", "char"),
            ("The word 学生 means student.", "13a"),
        ],
    )
    def test_the_tokenization_is_that_of_the_language(self, text, expected):
        assert metrics.tokenization([text]) == expected

    def test_chinese_is_compared_by_characters(self):
        own = texts(["a"], ["我是一个学生。"])
        assert 30 < metrics.bleu(own, ["我是一名学生。"]) < 99


def test_perplexities_count_tokens_and_words():
    found = metrics.perplexities(14 * math.log(3), 14, ["Not now.", "我是"])
    # Not, now, the period, an end; two characters and an end.
    assert found == {"perplexity": pytest.approx(3), "word_perplexity": pytest.approx(9)}


class TestReplies:
    def test_distinct(self):
        rows = [["a", "b", "a", "b"], ["a", "b"]]
        assert metrics.distinct(rows, 1) == 2 / 6
        assert metrics.distinct(rows, 2) == 2 / 4
        assert metrics.distinct([[], ["a"]], 2) == 0

    def test_figures(self):
        own = texts(["q1", "q2"], ["Yes, now.", "No."])
        figures = metrics.reply_figures(own, ["No.", "no."])
        # "no", a period; and "yes", a comma, "now", a period.
        assert figures["distinct_1"] == 2 / 4
        assert figures["distinct_2"] == 1 / 2
        assert figures["people_distinct_1"] == 5 / 6
        assert figures["people_distinct_2"] == 4 / 4
        assert figures["examples"] == 2

    def test_candidates_are_different(self):
        targets = [f"reply {k % 12}" for k in range(40)]
        found = metrics.candidates(targets)
        assert [row[0] for row in found] == targets
        assert all(len(set(row)) == len(row) == 10 for row in found)
        assert metrics.candidates(targets) == found != metrics.candidates(targets, seed=1)
        counts = Counter(reply for row in found for reply in row[1:])
        assert min(counts.values()) > 15
        assert [len(row) for row in metrics.candidates(["a", "b", "a"])] == [2, 2, 2]

    def test_selection(self):
        own = texts([f"q{k}" for k in range(40)], [f"reply {k}" for k in range(40)])

        def best(sources, histories, replies):
            assert [len(row) for row in replies] == [10] * 40
            assert histories == own.histories
            return np.array(
                [
                    [float(f"reply {s[1:]}" == r) for r in row]
                    for s, row in zip(sources, replies, strict=True)
                ]
            )

        assert metrics.selection(own, best) == {"selection": 100}
        assert metrics.selection(own, lambda *args: -best(*args)) == {"selection": 0}
        # Equal scores are chance.
        found = metrics.selection(own, lambda *args: 0 * best(*args))
        assert found == {"selection": pytest.approx(10)}


def test_texts_of_batches():
    own = texts(GERMAN, ENGLISH, [["ein", "zwei"][: k % 3] for k in range(9)])
    assert metrics.texts_of(data(own, own)["test"]) == own


class TestBaselines:
    def test_translations(self):
        train = texts([*GERMAN, "Ja."], [*ENGLISH, ENGLISH[0]])
        test = texts([GERMAN[4].lower(), "Ein Hund sieht 7 Katzen."], [ENGLISH[4], ENGLISH[7]])
        found = baselines.baseline(data(train, test), "test", chat=False)
        assert [found["bleu"], found["exact_match"]] == pytest.approx([100, 100])
        assert found["copy_bleu"] < found["constant_bleu"] < 100
        assert "examples" not in found
        assert "what" in found

    def test_replies(self):
        """The 5-gram knows the replies, and the turns before tell which of them is next."""
        topics = (
            "dogs",
            "cats",
            "birds",
            "cars",
            "trees",
            "songs",
            "ships",
            "kings",
            "games",
            "books",
            "films",
            "trains",
        )
        turns = [[f"Do you like {topic}?"] for topic in topics]
        own = texts(["Why?"] * 12, [f"I like {topic}!" for topic in topics], turns)
        found = baselines.baseline(data(own, own), "test", chat=True)
        assert found["selection"] == pytest.approx(100)
        assert found["bleu"] == pytest.approx(100)
        assert found["perplexity"] == found["word_perplexity"] < 3
        assert found["distinct_1"] == found["people_distinct_1"]

    def test_the_ngrams_have_the_tokens_of_the_model(self):
        own = texts(["a", "b"], ["x y", "x z"])
        splits = data(own, own)
        found = baselines.ngram_perplexities(splits["train"], splits["test"], own.targets)
        assert found["perplexity"] == found["word_perplexity"]
        # y and z, each after x: a half; all else is nearly certain.
        assert 2 ** (1 / 3) < found["perplexity"] < 3
