"""Images with questions, as batches."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import text, vision, visual_questions
from unroll.pipelines.visual_questions import (
    FIRST_ANSWER,
    NO_QUESTION,
    UNKNOWN_ANSWER,
    ImageQuestions,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("The dog.", "dog"),
        ("two  DOGS", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("3.5", "3.5"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("yes!", "yes"),
        ("", ""),
    ],
)
def test_answers_are_normalized_as_in_the_evaluation_of_vqa(given, expected):
    assert visual_questions.normalize_answer(given) == expected


QUESTIONS = [
    ImageQuestions("a", ["is it red ?", "what is it ?"], [["yes"], ["cat"]]),
    ImageQuestions("b", ["is it ?"], [["no"]]),
    ImageQuestions("c", ["what is that thing ?"], [["zebra"]]),
]
TOKENS = ["[PAD]", "[UNK]", "is", "it", "?", "what", "red"]


def batches(**options):
    images = np.arange(3 * 4 * 4 * 3, dtype="uint8").reshape(3, 4, 4, 3)
    encoder = text.Encoder(TOKENS)
    options = {"batch_size": 2, **options}
    answers = ["yes", "no", "cat"]
    return visual_questions.question_batches(QUESTIONS, images, encoder, answers, **options)


class TestBatches:
    def test_images_with_all_their_questions(self):
        (features, labels), (last, unknown) = batches()
        assert features["tokens"].numpy().tolist() == [
            [[2, 3, 6, 4], [5, 2, 3, 4]],
            [[2, 3, 4, 0], [0, 0, 0, 0]],
        ]
        assert labels.numpy().tolist() == [
            [[FIRST_ANSWER], [FIRST_ANSWER + 2]],
            [[FIRST_ANSWER + 1], [NO_QUESTION]],
        ]
        assert features["image"].shape == (2, 4, 4, 3)
        np.testing.assert_array_equal(last["image"][0], np.arange(96, 144).reshape(4, 4, 3))
        assert unknown.numpy().tolist() == [[[UNKNOWN_ANSWER]]]

    def test_rounds_are_questions_with_their_answers(self):
        features, _ = next(iter(batches(rounds=True)))
        assert features["rounds"].numpy().tolist()[0] == [[2, 3, 6, 4, 1], [5, 2, 3, 4, 1]]

    def test_order_and_augmentation_differ_between_epochs(self):
        def epochs(seed):
            augmentation = vision.Augmentation(translate=1, zoom=0.2, color_jitter=0.3)
            made = batches(shuffle=seed, batch_size=3, augmentation=augmentation)
            return [next(iter(made))[0]["image"].numpy() for _ in range(3)]

        one, same, other = epochs(1), epochs(1), epochs(2)
        for a, b in zip(one, same, strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(one[0], one[1])
        assert not np.array_equal(one[0], other[0])

    def test_static_shapes(self):
        shapes = {
            tuple(x.shape)
            for features, labels in batches(static=True, batch_size=1, rounds=True)
            for x in (*features.values(), labels)
        }
        assert shapes == {(1, 2, 5), (1, 2, 6), (1, 4, 4, 3), (1, 2, 1)}

    def test_without_images(self):
        made = visual_questions.question_batches(QUESTIONS, None, text.Encoder(TOKENS), ["yes"], 3)
        features, _ = next(iter(made))
        assert set(features) == {"tokens"}


def test_vocabularies_are_ordered_by_frequency():
    images = [*QUESTIONS, ImageQuestions("d", ["is it ?", "is it ok ?"], [["no"], ["maybe"]])]
    assert visual_questions.answer_vocabulary(images, 3) == ["no", "cat", "maybe"]
    assert visual_questions.question_types(images, 2) == ["is it", "what is"]


def test_most_frequent_answer_comes_first():
    features = {
        "image_id": ["a"],
        "questions": {
            "question": tf.constant([["what ?", "how many ?"]]),
            "answers": tf.ragged.constant([[["A  Cat"], ["3", "two", "2"]]]),
        },
    }
    [row] = visual_questions.read(tf.data.Dataset.from_tensor_slices(features))
    assert row == ImageQuestions("a", ["what ?", "how many ?"], [["a cat"], ["2", "2", "3"]])
    assert row.rounds() == ["what ? a cat", "how many ? 2"]
