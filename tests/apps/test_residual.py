"""The residual image encoder: the shape of its grid, coordinates, receptive fields, colors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.shared.images import ImageConfig
from unroll.apps.shared.residual import FusedBatchNormalization, RandomColors, residual_encoder


def encoder(**options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return residual_encoder(ImageConfig(data="", **{"filters": 4, **options}))


@pytest.mark.parametrize(
    ("size", "stages", "side"), [(64, 3, 8), (64, 1, 32), (50, 3, 7), (45, 4, 3)]
)
def test_shape_of_the_grid_for_any_image_size(size, stages, side):
    grid = encoder(image_size=size, stages=stages, blocks=2)(np.zeros((2, size, size, 3)))
    # The last stage, the first convolution, and the coordinates.
    assert grid.shape == (2, side, side, 4 * 2 ** (stages - 1) + 4 + 2)


def test_blocks_of_the_first_stage_do_not_change_the_grid():
    without, with_two = encoder(image_size=32), encoder(image_size=32, first_stage_blocks=2)
    assert without.output_shape == with_two.output_shape
    assert with_two.count_params() - without.count_params() == 4 * (4 * 4 * 9 + 4 * 4)


def test_each_cell_has_its_coordinates():
    grid = np.array(encoder(image_size=32, stages=2)(np.zeros((1, 32, 32, 3))))
    columns, rows = grid[0, ..., -2], grid[0, ..., -1]
    steps = np.linspace(-1, 1, 8)
    np.testing.assert_allclose(columns, np.tile(steps, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(rows, columns.T, atol=1e-6)


def test_the_features_of_the_first_convolution_are_local():
    model = encoder(image_size=32, stages=2)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    changed = image.copy()
    changed[0, :4, :4] = 0
    low = np.abs(np.array(model(image)) - np.array(model(changed)))[0, ..., 8:12].max(-1)
    assert low[0, 0] > 0
    assert low[2:].max() == low[:, 2:].max() == 0


def test_the_frames_of_a_clip_get_the_same_colors():
    images = np.random.default_rng(0).uniform(-1, 1, (6, 4, 5, 3)).astype("float32")
    images[1:] = images[0]
    keras.utils.set_random_seed(0)
    rotated = np.array(RandomColors(frames=3)(images, training=True))
    np.testing.assert_array_equal(rotated[:3], rotated[[0, 0, 0]])
    np.testing.assert_array_equal(rotated[3:], rotated[[3, 3, 3]])
    assert np.abs(rotated[0] - rotated[3]).max() > 0.1


def test_random_colors_preserve_distances_between_pixels():
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 4, 5, 3)).astype("float32")
    images[1] = images[0]
    keras.utils.set_random_seed(0)
    layer = RandomColors()
    np.testing.assert_array_equal(layer(images), images)
    rotated = np.array(layer(images, training=True))
    assert np.abs(rotated - images).max() > 0.1
    assert np.abs(rotated[0] - rotated[1]).max() > 0.1
    for image, other in zip(images.reshape(2, 20, 3), rotated.reshape(2, 20, 3), strict=True):
        distances = np.linalg.norm(image[:, None] - image, axis=-1)
        np.testing.assert_allclose(
            np.linalg.norm(other[:, None] - other, axis=-1), distances, atol=1e-5
        )


def test_random_colors_change_only_the_features_of_the_last_stage():
    model = encoder(image_size=16, stages=2, random_colors=True)
    image = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # the same in training as in inference
    in_inference, in_training = (np.array(model(image, training=t)) for t in (False, True))
    assert np.abs(in_inference - in_training)[..., :8].max() > 0
    np.testing.assert_allclose(in_inference[..., 8:], in_training[..., 8:], atol=1e-6)
    without = encoder(image_size=16, stages=2)
    assert not any(isinstance(layer, RandomColors) for layer in without.layers)


def test_dropout_does_not_drop_coordinates():
    model = encoder(image_size=16, stages=2, image_dropout=0.5)
    grid = np.array(model(np.full((8, 16, 16, 3), 200.0), training=True))
    assert (grid[..., :-2] == 0).all(axis=(1, 2)).any()
    np.testing.assert_array_equal(grid[:, 0, 0, -2:], -1)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fused_batch_normalization_equals_that_of_keras(dtype):
    rng = np.random.default_rng(0)
    image = (3 + 2 * rng.normal(size=(4, 5, 6, 3))).astype("float32")
    slopes = rng.normal(size=image.shape).astype("float32")
    layers = FusedBatchNormalization, keras.layers.BatchNormalization
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 2e-2, "atol": 2e-2}
    results = []
    for layer in (cls(momentum=0.7, dtype=dtype) for cls in layers):
        layer.build(image.shape)
        layer.set_weights(np.array([[1, 2, 3], [0, 1, -1], [0, 0, 0], [1, 1, 1]], "float32"))
        inputs = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * slopes)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        in_inference = layer(inputs)
        results.append([outputs, in_inference, *gradients, *layer.get_weights()])
        assert outputs.dtype == in_inference.dtype == layer.compute_dtype
    for one, other in zip(*results, strict=True):
        one, other = (np.array(x, "float32") for x in (one, other))
        np.testing.assert_allclose(one, other, **tolerance)
    # The moving mean is 0.3 of the mean of the data, which is about 3.
    assert np.abs(np.array(results[0][-2]) - 3 * 0.3).max() < 0.3


def test_a_frozen_fused_batch_normalization_does_not_change():
    layer = FusedBatchNormalization()
    layer.build((None, 4, 4, 2))
    layer.trainable = False
    image = np.full((1, 4, 4, 2), 5.0, "float32")
    np.testing.assert_allclose(layer(image, training=True), layer(image), atol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])
