"""A small residual network that an app trains from scratch to read pictures."""

import keras
import tensorflow as tf
from keras import ops

from unroll.apps.shared.images import PictureConfig


def residual_encoder(config: PictureConfig, frames: int = 1) -> keras.Model:
    """A residual network (He et al. 2016) from `[B, S, S, 3]` to a grid `[B, H, W, D]`.

    Each stage halves the sides and has twice the filters of the one before. The first is a single
    convolution, with blocks of two behind it if `first_blocks` says so; the others are such blocks.
    To the last features of a cell of the grid are added the means of the first ones, in which
    colours are told apart from shapes, and its place, from -1 to 1. With `random_colours` these are
    of a convolution of their own, which alone sees the colours as they are. Of clips it takes the
    frames one behind another.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    low = first = keras.layers.Activation("relu")(_convolution(x, config.filters, 2))
    if config.random_colours:
        x = RandomColours(frames, name="random_colours")(x)
        first = keras.layers.Activation("relu")(_convolution(x, config.filters, 2))
    x = first
    for stage in range(config.stages):
        for block in range(config.blocks if stage else config.first_blocks):
            x = _block(x, config.filters * 2**stage, 2 if stage and not block else 1)
    low = keras.layers.AveragePooling2D(2 ** (config.stages - 1), padding="same")(low)
    x = ops.concatenate([x, low], axis=-1)
    x = keras.layers.SpatialDropout2D(config.image_dropout)(x)
    return keras.Model(image, ops.concatenate([x, _places(x)], axis=-1), name="encoder")


@keras.saving.register_keras_serializable(package="unroll")
class RandomColours(keras.layers.Layer):
    """In training, turns the colours of each picture about the middle grey, at random.

    Pictures are `[B, H, W, 3]`, -1 to 1; so many frames of a clip stand one behind another, and are
    turned alike. Reds, greens and blues are mirrored twice, each time in a plane drawn at random
    (Householder reflections): what differs in a picture differs as much as before, in other
    colours.
    """

    def __init__(self, frames: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.frames = frames
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, picture, training=False):
        if not training:
            return picture
        clips, turn = ops.shape(picture)[0] // self.frames, ops.eye(3)
        for _ in range(2):
            across = keras.random.normal((clips, 3), seed=self.seed_generator)
            across = ops.expand_dims(ops.normalize(across), -1)  # [B, 3, 1]
            turn = turn - 2 * ops.matmul(turn, across) * ops.transpose(across, (0, 2, 1))
        turn = ops.repeat(turn, self.frames, axis=0)
        pixels = ops.reshape(picture, (-1, picture.shape[1] * picture.shape[2], 3))
        return ops.reshape(ops.matmul(pixels, turn), ops.shape(picture))

    def get_config(self):
        return {**super().get_config(), "frames": self.frames}


@keras.saving.register_keras_serializable(package="unroll")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's, of `[B, H, W, C]`, in one pass a step instead of one for each of its sums.

    In training it is a single operation of TensorFlow, with a gradient that is one too; Keras puts
    it together of a dozen, each of which reads all pixels. In inference it is Keras's own.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            ops.cast(inputs, "float32"), self.gamma, self.beta, epsilon=self.epsilon
        )
        pixels = ops.cast(ops.size(inputs[..., 0]), variance.dtype)
        variance *= ops.maximum(pixels - 1, 1) / pixels  # Keras's is that of these, not of all
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


def _block(x, filters: int, strides: int):
    y = keras.layers.Activation("relu")(_convolution(x, filters, strides))
    y = _convolution(y, filters, 1)
    if strides > 1:
        x = _convolution(x, filters, strides, kernel=1)
    return keras.layers.Activation("relu")(x + y)


def _convolution(x, filters: int, strides: int, kernel: int = 3):
    x = keras.layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(x)
    return FusedBatchNormalization(momentum=0.9)(x)


def _places(x):
    """`[B, H, W, 2]`: how far right and how far down each cell lies."""
    height, width = x.shape[1:3]
    across, down = ops.meshgrid(ops.linspace(-1.0, 1.0, width), ops.linspace(-1.0, 1.0, height))
    return ops.zeros_like(x[..., :2]) + ops.stack([across, down], axis=-1)
