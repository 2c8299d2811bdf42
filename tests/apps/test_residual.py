"""The encoder of pictures: sizes of its grid, where its cells lie, what is near them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.shared.images import PictureConfig
from unroll.apps.shared.residual import FusedBatchNormalization, RandomColours, residual_encoder


def encoder(**options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return residual_encoder(PictureConfig(data="", **{"filters": 4, **options}))


@pytest.mark.parametrize(
    ("size", "stages", "side"), [(64, 3, 8), (64, 1, 32), (50, 3, 7), (45, 4, 3)]
)
def test_the_grid_of_any_size(size, stages, side):
    grid = encoder(image_size=size, stages=stages, blocks=2)(np.zeros((2, size, size, 3)))
    # The last stage, the colours, and the place.
    assert grid.shape == (2, side, side, 4 * 2 ** (stages - 1) + 4 + 2)


def test_blocks_of_the_first_stage_add_no_cells():
    without, with_two = encoder(image_size=32), encoder(image_size=32, first_blocks=2)
    assert without.output_shape == with_two.output_shape
    assert with_two.count_params() - without.count_params() == 4 * (4 * 4 * 9 + 4 * 4)


def test_each_cell_knows_its_place():
    grid = np.array(encoder(image_size=32, stages=2)(np.zeros((1, 32, 32, 3))))
    across, down = grid[0, ..., -2], grid[0, ..., -1]
    steps = np.linspace(-1, 1, 8)
    np.testing.assert_allclose(across, np.tile(steps, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(down, across.T, atol=1e-6)


def test_the_first_features_of_a_cell_are_of_what_lies_there():
    model = encoder(image_size=32, stages=2)
    picture = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    changed = picture.copy()
    changed[0, :4, :4] = 0
    low = np.abs(np.array(model(picture)) - np.array(model(changed)))[0, ..., 8:12].max(-1)
    assert low[0, 0] > 0
    assert low[2:].max() == low[:, 2:].max() == 0


def test_frames_of_a_clip_are_turned_alike():
    pictures = np.random.default_rng(0).uniform(-1, 1, (6, 4, 5, 3)).astype("float32")
    pictures[1:] = pictures[0]
    keras.utils.set_random_seed(0)
    turned = np.array(RandomColours(frames=3)(pictures, training=True))
    np.testing.assert_array_equal(turned[:3], turned[[0, 0, 0]])
    np.testing.assert_array_equal(turned[3:], turned[[3, 3, 3]])
    assert np.abs(turned[0] - turned[3]).max() > 0.1


def test_random_colours_keep_what_differs_and_how_much():
    rng = np.random.default_rng(0)
    pictures = rng.uniform(-1, 1, (2, 4, 5, 3)).astype("float32")
    pictures[1] = pictures[0]
    keras.utils.set_random_seed(0)
    layer = RandomColours()
    np.testing.assert_array_equal(layer(pictures), pictures)
    turned = np.array(layer(pictures, training=True))
    assert np.abs(turned - pictures).max() > 0.1
    assert np.abs(turned[0] - turned[1]).max() > 0.1
    for picture, other in zip(pictures.reshape(2, 20, 3), turned.reshape(2, 20, 3), strict=True):
        apart = np.linalg.norm(picture[:, None] - picture, axis=-1)
        np.testing.assert_allclose(
            np.linalg.norm(other[:, None] - other, axis=-1), apart, atol=1e-5
        )


def test_random_colours_reach_the_shapes_alone():
    model = encoder(image_size=16, stages=2, random_colours=True)
    picture = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3))
    normalize = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in normalize:
        layer.trainable = False  # it is then as it is when asked
    as_asked, in_training = (np.array(model(picture, training=t)) for t in (False, True))
    assert np.abs(as_asked - in_training)[..., :8].max() > 0
    np.testing.assert_allclose(as_asked[..., 8:], in_training[..., 8:], atol=1e-6)
    without = encoder(image_size=16, stages=2)
    assert not any(isinstance(layer, RandomColours) for layer in without.layers)


def test_dropout_leaves_places_alone():
    model = encoder(image_size=16, stages=2, image_dropout=0.5)
    grid = np.array(model(np.full((8, 16, 16, 3), 200.0), training=True))
    assert (grid[..., :-2] == 0).all(axis=(1, 2)).any()
    np.testing.assert_array_equal(grid[:, 0, 0, -2:], -1)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fused_batch_normalization_is_that_of_keras(dtype):
    rng = np.random.default_rng(0)
    picture = (3 + 2 * rng.normal(size=(4, 5, 6, 3))).astype("float32")
    slopes = rng.normal(size=picture.shape).astype("float32")
    layers = FusedBatchNormalization, keras.layers.BatchNormalization
    ours, keras_own = (layer(momentum=0.7, dtype=dtype) for layer in layers)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 2e-2, "atol": 2e-2}
    results = []
    for layer in (ours, keras_own):
        layer.build(picture.shape)
        layer.set_weights(np.array([[1, 2, 3], [0, 1, -1], [0, 0, 0], [1, 1, 1]], "float32"))
        given = tf.constant(picture)
        with tf.GradientTape() as tape:
            tape.watch(given)
            outputs = layer(given, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") * slopes)
        gradients = tape.gradient(loss, [given, *layer.trainable_variables])
        later = layer(given)
        results.append([outputs, later, *gradients, *layer.get_weights()])
        assert outputs.dtype == later.dtype == layer.compute_dtype
    for one, other in zip(*results, strict=True):
        one, other = (np.array(x, "float32") for x in (one, other))
        np.testing.assert_allclose(one, other, **tolerance)
    assert np.abs(np.array(results[0][-2]) - 3 * 0.3).max() < 0.3  # a step of .3 to a mean of 3


def test_a_frozen_fused_batch_normalization_stays_as_it_is():
    layer = FusedBatchNormalization()
    layer.build((None, 4, 4, 2))
    layer.trainable = False
    picture = np.full((1, 4, 4, 2), 5.0, "float32")
    np.testing.assert_allclose(layer(picture, training=True), layer(picture), atol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])
