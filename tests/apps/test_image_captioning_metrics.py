"""The caption app: losses, BLEU, CIDEr-D, content of captions, baselines, tables of the report."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.core.protocol import Data
from unroll.apps.image_captioning import metrics, network, report
from unroll.apps.shared.decoders import DoublyStochastic
from unroll.pipelines.captions import END, PADDING, SPECIAL_TOKENS, UNKNOWN
from unroll.pipelines.datasets.vision import scenes, scenes_captions, scenes_clips

VOCABULARY = [*SPECIAL_TOKENS, "a", "red", "ring", "blue", "above"]


def test_loss_by_hand():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(1, 2, 3, 6)), tf.float32)
    labels = np.array([[[4, 99, END], [5, END, PADDING]]])  # 99 is not in the vocabulary
    log_probs = tf.nn.log_softmax(logits).numpy()[0]
    words = [(0, 0, 4), (0, 1, UNKNOWN), (0, 2, END), (1, 0, 5), (1, 1, END)]
    correct = np.mean([-log_probs[index] for index in words])
    uniform = np.mean([-log_probs[index[:2]].mean() for index in words])
    assert float(network.CaptionLoss()(labels, logits)) == pytest.approx(correct, rel=1e-5)
    smooth = network.CaptionLoss(smoothing=0.1)(labels, logits)
    assert float(smooth) == pytest.approx(0.9 * correct + 0.1 * uniform, rel=1e-5)
    metric = network.WordLoss()
    metric.update_state(labels, logits)
    metric.update_state(labels[:, 1:], logits[:, 1:])
    mean = np.mean([-log_probs[index] for index in [*words, *words[3:]]])
    assert float(metric.result()) == pytest.approx(mean, rel=1e-5)


def test_doubly_stochastic_regularization_by_hand():
    weights = tf.constant(
        [[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], [[1.0, 0, 0]] * 3]
    )
    tokens = np.array([[2, 4, 0], [0, 0, 0]])  # the third word and the second caption are padding
    layer = DoublyStochastic(0.5)
    logits = tf.ones((2, 3, 4))
    np.testing.assert_array_equal(layer(logits, weights, tokens), logits)
    assert float(layer.losses[0]) == pytest.approx(0.5 * (0 + 0.25**2 + 0.75**2) / 2)
    layer(logits, weights, tokens, np.array([[True, True, False]] * 2))
    assert float(layer.losses[-1]) == pytest.approx(0.5 * 0.25**2 / 2)


class TestMetrics:
    CAPTIONS = ("a b c d", "a b")
    REFERENCES = (("a b c d e", "x y"), ("a b", "b a c"))

    def captions(self):
        captions = [tuple(each.split()) for each in self.CAPTIONS]
        return captions, [[tuple(each.split()) for each in of] for of in self.REFERENCES]

    def test_bleu_by_hand(self):
        one, two, *_ = metrics.bleu(*self.captions())
        # All unigrams and bigrams are correct. The closest references have 5 and 2 words, the
        # captions 4 and 2.
        brevity_penalty = np.exp(1 - 7 / 6)
        assert one == pytest.approx(100 * brevity_penalty)
        assert two == pytest.approx(100 * brevity_penalty)

    def test_bleu_clips_by_the_reference_with_the_highest_count(self):
        captions, references = [("a", "a", "a")], [[("a", "b", "b"), ("a", "a", "c")]]
        assert metrics.bleu(captions, references)[0] == pytest.approx(100 * 2 / 3)

    def test_cider_equals_the_published_evaluation(self):
        """The figures are those of pycocoevalcap 1.2 (Cider, df="corpus") for the same words."""
        captions = ["a man rides a horse", "two dogs run on grass", "a cat"]
        references = [
            ["a man rides a brown horse", "a person on a horse", "man riding a horse on a beach"],
            ["two dogs run", "dogs are running on the grass", "two brown dogs play on grass"],
            ["a cat sleeps on a chair", "a sleeping cat", "a cat"],
        ]
        captions = [tuple(each.split()) for each in captions]
        references = [[tuple(each.split()) for each in of] for of in references]
        assert metrics.cider(captions, references) == pytest.approx(3.125100503796356)
        of_each = metrics.cider_of_each(captions, references)
        assert np.mean(of_each) == pytest.approx(3.125100503796356)
        assert metrics.cider([of[0] for of in references], references) > 3.2

    def test_content_of_captions(self):
        caption = tuple("the red ring moves left , then the blue cross moves up".split())
        things = (("red", "ring"), ("blue", "cross"))
        assert metrics.content(caption, "moves") == (things, ("left", "up"))
        assert metrics.content(caption, "things") == tuple(sorted(things))

    def test_all_wordings_have_the_same_content(self):
        for k in range(20):
            rng = np.random.default_rng(k)
            things = scenes.sample(rng, "train", 3)
            moves = scenes_clips.sample_moves(things, rng)
            captions = {
                "things": scenes_captions.captions(things, rng),
                "moves": scenes_clips.captions(things, moves, rng),
            }
            for kind, each in captions.items():
                assert len({metrics.content(tuple(c.split()), kind) for c in each}) == 1

    def test_a_caption_is_correct_if_one_reference_has_its_content(self):
        ring, cross = ("a", "red", "ring"), ("one", "thing", ":", "blue", "cross")
        captions, references = [ring, ring, ()], [[cross, ring], [cross], [cross]]
        assert metrics.correct_captions(captions, references, "things") == [True, False, False]

    def test_baselines_by_hand(self):
        pixels = np.zeros((2, 8, 8, 3), "float32")
        pixels[1] = 200
        labels = np.array([[[4, 5, END], [6, END, 0]], [[4, 5, END], [7, 8, END]]])
        train = tf.data.Dataset.from_tensors(({"image": pixels}, labels))
        near = tf.data.Dataset.from_tensors(({"image": pixels[1:] - 9}, labels[1:, :1]))
        data = Data({"train": train, "valid": near}, {"vocabulary": VOCABULARY})
        found = metrics.baseline(data, "valid")
        assert found["bleu_1"] == pytest.approx(100)  # "a red" occurs twice
        assert found["nearest_bleu_1"] == pytest.approx(100)


def test_report_lists_words_that_are_never_written():
    captions, references = [("a", "ring")], [[("a", "red", "red", "ring"), ("[77]", "a")]]
    text = report._never_written(metrics.Predictions(captions, references))
    assert "2 of 4 words of the references are written; 1 are not in the vocabulary." in text
    assert "| red | 2 |" in text
    assert "ring |" not in text


def test_report_counts_correct_captions_by_the_number_of_things():
    one, two = ("a", "red", "ring"), ("a", "red", "ring", "and", "a", "blue", "cross")
    found = metrics.Predictions([one, one, two], [[one], [two], [two]])
    text = report._by_number_of_things(found, [True, False, True])
    assert "| 1 | 1 | 1.000 |" in text
    assert "| 2 | 2 | 0.500 |" in text


def test_report_shows_each_caption_once():
    captions = [("a",), ("b",), ("a",), ("c",)]
    assert report._distinct([2, 3, 0, 1], captions) == [2, 3, 1]


def test_report_groups_captions_by_length():
    captions = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")]
    found = metrics.Predictions(captions, [[each] for each in captions])
    lines = report._by_length(found, [1.0, 2.0, 3.0, 4.0]).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| 1", "1"],
        ["| 2", "1"],
        ["| 3 to 5", "2"],
    ]


def test_report_has_no_row_without_captions():
    captions = [("a",)] * 3 + [("a",) * 9] * 3
    found = metrics.Predictions(captions, [[each] for each in captions])
    lines = report._by_length(found, [1.0] * 6).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| 1 to 8", "3"], ["| 9", "3"]]
