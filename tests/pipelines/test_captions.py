"""Images with captions, as batches."""

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import captions, text
from unroll.pipelines.captions import END, PADDING, START, UNKNOWN, ImageCaptions
from unroll.pipelines.errors import DataError
from unroll.pipelines.vision import Augmentation

TOKENS = [*captions.SPECIAL_TOKENS, "a", "dog", "runs"]


class TestWords:
    def test_vocabulary_has_frequent_words(self):
        images = [ImageCaptions("a", ["a dog runs", "a dog"]), ImageCaptions("b", ["a cat"])]
        assert captions.build_vocabulary(images, 2) == [*captions.SPECIAL_TOKENS, "a", "dog"]

    def test_unknown_words_have_different_ids(self):
        vocabulary = text.Vocabulary(TOKENS)
        cat, cow, empty = captions.to_ids(["a cat", "a cow runs", ""], vocabulary).to_list()
        assert (cat[0], cow[0], cow[2], empty) == (4, 4, 6, [])
        assert cat[1] != cow[1]
        assert min(cat[1], cow[1]) >= len(TOKENS)


CAPTIONS = [
    ImageCaptions("one", ["a dog runs", "a cat"]),
    ImageCaptions("two", ["dog"]),
    ImageCaptions("three", ["runs a dog a dog", "dog"]),
]
PIXELS = np.arange(3 * 4 * 4 * 3, dtype="uint8").reshape(3, 4, 4, 3)


def batches(images=PIXELS, size=2, **options):
    vocabulary = text.Vocabulary(TOKENS)
    return captions.caption_batches(CAPTIONS, images, vocabulary, size, **options)


class TestBatches:
    def test_image_with_all_its_captions(self):
        features, labels = next(iter(batches()))
        np.testing.assert_array_equal(features["image"], PIXELS[:2])
        np.testing.assert_array_equal(
            features["tokens"],
            [[[START, 4, 5, 6], [START, 4, UNKNOWN, 0]], [[START, 5, 0, 0], [PADDING] * 4]],
        )
        unknown = int(labels[0, 1, 1])
        assert unknown >= len(TOKENS)
        np.testing.assert_array_equal(
            labels, [[[4, 5, 6, END], [4, unknown, END, 0]], [[5, END, 0, 0], [0] * 4]]
        )

    def test_long_captions_are_cut(self):
        *_, (features, labels) = batches(max_length=2)
        np.testing.assert_array_equal(labels, [[[6, 4, END], [5, END, 0]]])
        np.testing.assert_array_equal(features["tokens"][0, 0], [START, 6, 4])

    def test_captions_are_sampled_in_each_epoch(self):
        options = {"size": 1, "shuffle": 1, "captions_per_image": 1}
        epochs = list(batches(**options).repeat(8))
        samples = {}
        for features, labels in epochs:
            assert labels.shape[1] == 1
            words = tuple(k for k in labels[0, 0].numpy().tolist() if k < len(TOKENS))
            samples.setdefault(int(features["image"][0, 0, 0, 0]), set()).add(words)
        assert [len(samples[k]) for k in PIXELS[:, 0, 0, 0].tolist()] == [2, 1, 2]
        again = batches(static=True, **options)
        assert again.element_spec[1].shape[1] == 1
        for (_, labels), (_, same) in zip(epochs[:3], again, strict=True):
            np.testing.assert_array_equal(labels, same[..., : labels.shape[-1]])

    def test_static_shapes(self):
        clips = np.zeros((3, 2, 4, 4, 3), "uint8")
        frames = np.array([[0, 1], [1, 1], [2, 0]], "int32")
        made = batches(
            clips, static=True, frames=frames, augmentation=Augmentation(1, 0.5, 0.1, True)
        )
        [(features, labels)] = made
        assert features["tokens"].shape == (2, 2, 6)
        assert features["image"].shape == (2, 2, 4, 4, 3)
        np.testing.assert_array_equal(labels["frames"], frames[:2])
        assert None not in made.element_spec[1]["captions"].shape

    def test_features_are_regions(self):
        features, _ = next(iter(batches(np.ones((3, 5, 7), "float32"))))
        assert features["regions"].shape == (2, 5, 7)

    def test_order_differs_between_epochs(self):
        first, second = (
            [int(x["image"][0, 0, 0, 0]) for x, _ in batches(shuffle=1, size=1).repeat(epochs)]
            for epochs in (4, 1)
        )
        orders = [first[k : k + 3] for k in range(0, 12, 3)]
        assert len({tuple(order) for order in orders}) > 1
        assert {tuple(sorted(order)) for order in orders} == {(0, 48, 96)}
        assert second == orders[0]


class TestFrames:
    ROWS = tf.data.Dataset.from_tensors({"frames": ["still", "left", "left", "up", "still"]})

    def test_labels_of_the_decoded_frames(self):
        assert captions.frame_label_names(self.ROWS) == ["left", "still", "up"]
        labels = captions.frame_labels(self.ROWS, ["left", "still", "up"], 3)
        np.testing.assert_array_equal(labels, [[1, 0, 1]])

    def test_unknown_label(self):
        with pytest.raises(DataError, match="has the label 'up', not one of left, still"):
            captions.frame_labels(self.ROWS, ["left", "still"], 5)
