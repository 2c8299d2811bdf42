"""A small residual network that an app trains from scratch to read images."""

import keras
import tensorflow as tf
from keras import ops

from unroll.apps.shared.images import ImageConfig


def residual_encoder(config: ImageConfig, frames: int = 1) -> keras.Model:
    """A residual network (He et al. 2016) from `[B, S, S, 3]` to a grid `[B, H, W, D]`.

    The first stage is a convolution, followed by `first_stage_blocks` blocks. Each later stage
    consists of `blocks` blocks, halves the height and width, and doubles the number of filters. The
    features of a cell of the grid are those of the last stage; the mean of the first convolution's
    features, which separate colors better; and the coordinates of the cell, from -1 to 1.

    With `random_colors` the stages read images with random colors, and the second part of the
    features comes from a convolution of its own, which reads the original colors.

    Args:
        config: the configuration of the encoder.
        frames: the number of consecutive images of the batch that are the frames of one clip.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    low = first = keras.layers.Activation("relu")(_convolution(x, config.filters, 2))
    if config.random_colors:
        x = RandomColors(frames, name="random_colors")(x)
        first = keras.layers.Activation("relu")(_convolution(x, config.filters, 2))
    x = first
    for stage in range(config.stages):
        for block in range(config.blocks if stage else config.first_stage_blocks):
            x = _block(x, config.filters * 2**stage, 2 if stage and not block else 1)
    low = keras.layers.AveragePooling2D(2 ** (config.stages - 1), padding="same")(low)
    x = ops.concatenate([x, low], axis=-1)
    x = keras.layers.SpatialDropout2D(config.image_dropout)(x)
    return keras.Model(image, ops.concatenate([x, _coordinates(x)], axis=-1), name="encoder")


@keras.saving.register_keras_serializable(package="unroll")
class RandomColors(keras.layers.Layer):
    """Rotates the colors of each image around gray at random, in training only.

    The rotation is the product of two Householder reflections in random planes, so that distances
    between colors do not change.

    Args:
        frames: the number of consecutive images that are the frames of one clip and get the same
            rotation.

    Call arguments:
        images: `[B, H, W, 3]`, -1 to 1.
        training: whether colors are changed.
    """

    def __init__(self, frames: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.frames = frames
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        if not training:
            return images
        clips, rotation = ops.shape(images)[0] // self.frames, ops.eye(3)
        for _ in range(2):
            normal = keras.random.normal((clips, 3), seed=self.seed_generator)
            normal = ops.expand_dims(ops.normalize(normal), -1)  # [B, 3, 1]
            rotation = rotation - 2 * ops.matmul(rotation, normal) * ops.transpose(
                normal, (0, 2, 1)
            )
        rotation = ops.repeat(rotation, self.frames, axis=0)  # [B, 3, 3]
        pixels = ops.reshape(images, (-1, images.shape[1] * images.shape[2], 3))
        return ops.reshape(ops.matmul(pixels, rotation), ops.shape(images))

    def get_config(self):
        return {**super().get_config(), "frames": self.frames}


@keras.saving.register_keras_serializable(package="unroll")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization of `[B, H, W, C]` with TensorFlow's fused operation in training.

    Keras computes it with about a dozen operations, each of which reads all pixels. Inference is
    Keras's own.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            ops.cast(inputs, "float32"), self.gamma, self.beta, epsilon=self.epsilon
        )
        pixels = ops.cast(ops.size(inputs[..., 0]), variance.dtype)
        variance *= ops.maximum(pixels - 1, 1) / pixels  # the biased variance, as in Keras
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


def _coordinates(x):
    """`[B, H, W, 2]`: the column and the row of each cell, from -1 to 1."""
    height, width = x.shape[1:3]
    columns, rows = ops.meshgrid(ops.linspace(-1.0, 1.0, width), ops.linspace(-1.0, 1.0, height))
    return ops.zeros_like(x[..., :2]) + ops.stack([columns, rows], axis=-1)
