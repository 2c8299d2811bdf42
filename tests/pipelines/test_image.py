"""Images in the graph: decoding and data augmentation."""

import numpy as np
import pytest
import tensorflow as tf

from tests.pipelines.datasets.helpers import jpeg, png
from unroll.pipelines import image
from unroll.pipelines.errors import DataError


class TestDecode:
    def test_formats_and_sizes(self):
        pixels = image.decode_batch(tf.constant([png(9, 77), jpeg(20, 77)]), 6)
        assert pixels.shape == (2, 6, 6, 3)
        np.testing.assert_allclose(pixels, 77, atol=2)

    def test_downscaling_is_antialiased(self):
        stripes = np.zeros((8, 8, 3), "uint8")
        stripes[::2] = 200
        pixels = image.decode(tf.io.encode_png(stripes), 2)
        np.testing.assert_allclose(pixels, 100, atol=15)

    def test_pixels_are_integers(self):
        noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), "uint8")
        pixels = image.decode(tf.io.encode_png(noise), 5)
        np.testing.assert_array_equal(pixels, pixels.numpy().astype("uint8"))

    def test_image_as_a_clip(self):
        pixels = image.decode_clip_batch(tf.constant([jpeg(), jpeg(20)]), 4, 3)
        assert pixels.shape == (2, 3, 4, 4, 3)
        np.testing.assert_allclose(pixels, 120, atol=3)

    def test_files_that_are_not_images(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.png \(No such file or directory\)"):
            image.read_image(tmp_path / "none.png")
        (tmp_path / "text.png").write_text("text")
        with pytest.raises(DataError, match=r"text\.png \(cannot be decoded as an image\)"):
            image.read_image(tmp_path / "text.png")


class TestAugment:
    def test_bounds(self):
        pixels = tf.cast(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)), tf.float32)
        translated = image.augment(pixels, [1, 2], translate=2)
        assert set(translated.numpy().ravel()) <= set(pixels.numpy().ravel())
        jittered = image.augment(pixels, [1, 2], color_jitter=0.5).numpy()
        assert jittered.min() >= 0
        assert jittered.max() <= 255
        assert np.abs(jittered - pixels).mean() > 1
        np.testing.assert_array_equal(image.augment(pixels, [1, 2]), pixels)

    def test_translation_and_flip(self):
        columns = tf.broadcast_to(tf.range(8.0)[None, :, None], [8, 8, 3])
        images = tf.repeat(columns[None], 50, axis=0)
        shifts = set()
        for x in image.augment(images, [1, 2], translate=2):
            shift = int(x[0, 4, 0]) - 4
            np.testing.assert_array_equal(x[:, :, 0], [np.clip(np.arange(8) + shift, 0, 7)] * 8)
            shifts.add(shift)
        assert shifts == {-2, -1, 0, 1, 2}
        flipped = [float(x[0, 0, 0]) for x in image.augment(images, [1, 2], flip=True)]
        assert set(flipped) == {0, 7}
        assert 10 < flipped.count(7) < 40

    def test_frames_of_a_clip_get_the_same_changes(self):
        frame = tf.random.stateless_uniform([1, 1, 8, 8, 3], [1, 2], maxval=200)
        options = {"translate": 2, "zoom": 0.5, "color_jitter": 0.2, "flip": True}
        clips = tf.tile(frame, [2, 3, 1, 1, 1])
        changed = image.augment(clips, [3, 4], **options)
        np.testing.assert_allclose(changed, tf.repeat(changed[:, :1], 3, axis=1))
        assert np.abs(changed[0] - changed[1]).mean() > 1  # different in each clip
        np.testing.assert_allclose(
            changed[:, 0], image.augment(clips[:, 0], [3, 4], **options), atol=1e-4
        )

    def test_zoom_crops_at_most_the_given_fraction(self):
        rows = tf.broadcast_to(tf.range(32.0)[:, None, None], [32, 32, 3])
        sides = []
        for x in image.augment(tf.repeat(rows[None], 50, axis=0), [1, 0], zoom=0.5):
            np.testing.assert_allclose(x, tf.broadcast_to(x[:, :1, :1], rows.shape), atol=1e-3)
            steps = np.diff(x[:, 0, 0])
            np.testing.assert_allclose(steps, steps[0], atol=1e-3)
            sides.append(steps[0])
        assert min(sides) >= 0.5 - 1e-3
        assert max(sides) <= 1
        assert max(sides) - min(sides) > 0.4
