"""Pictures in the graph: bytes to pixels, what disturbs them, features of a frozen encoder."""

from pathlib import Path

import tensorflow as tf

from pipelines.errors import DataError


def decode(contents, size: int) -> tf.Tensor:
    """A picture file as pixels.

    Args:
        contents: a scalar string: JPEG, PNG, GIF (its first picture) or BMP.
        size: S; the picture is stretched to it.

    Returns:
        `[S, S, 3]`, float32, whole numbers from 0 to 255: training keeps them as bytes.
    """
    pixels = tf.io.decode_image(contents, channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    return _resized(pixels, size)


def _resized(pixels, size: int) -> tf.Tensor:
    # Antialiased: where it is made smaller, nothing is skipped.
    pixels = tf.image.resize(pixels, [size, size], antialias=True)
    return tf.round(tf.clip_by_value(pixels, 0.0, 255.0))


def decode_all(contents, size: int) -> tf.Tensor:
    """`[B]` picture files to `[B, S, S, 3]`."""
    spec = tf.TensorSpec([size, size, 3], tf.float32)
    return tf.map_fn(lambda each: decode(each, size), contents, fn_output_signature=spec)


def decode_clip(contents, size: int, frames: int) -> tf.Tensor:
    """An animated GIF as pixels.

    Args:
        contents: a scalar string; another picture file counts as a clip that stands still.
        size: S.
        frames: F; so many are taken, at equal distances, the first and the last among them.

    Returns:
        `[F, S, S, 3]`, as in `decode`.
    """
    pixels = tf.io.decode_image(contents, channels=3, expand_animations=True)
    pixels = tf.reshape(pixels, tf.concat([[-1], tf.shape(pixels)[-3:]], axis=0))
    pixels.set_shape([None, None, None, 3])
    last = tf.cast(tf.shape(pixels)[0] - 1, tf.float32)
    chosen = tf.cast(tf.round(tf.linspace(0.0, last, frames)), tf.int32)
    return tf.ensure_shape(_resized(tf.gather(pixels, chosen), size), [frames, size, size, 3])


def decode_clips(contents, size: int, frames: int) -> tf.Tensor:
    """`[B]` clips to `[B, F, S, S, 3]`."""
    spec = tf.TensorSpec([frames, size, size, 3], tf.float32)
    return tf.map_fn(lambda x: decode_clip(x, size, frames), contents, fn_output_signature=spec)


def is_picture(contents: bytes) -> bool:
    """Whether `decode` can read it.

    >>> is_picture(b"no picture")
    False
    """
    try:
        return min(tf.io.decode_image(contents, channels=3, expand_animations=False).shape) > 0
    except tf.errors.InvalidArgumentError:
        return False


def readable_picture(path: Path) -> bytes:
    """The contents of a picture file.

    Raises:
        DataError: if it cannot be read, or `decode` cannot read it.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} ({error.strerror})") from None
    if not is_picture(contents):
        raise DataError(f"{path} (no picture that can be decoded)")
    return contents


def disturb(
    picture,
    seed,
    *,
    shift: int = 0,
    zoom: float = 0.0,
    light: float = 0.0,
    flip: bool = False,
) -> tf.Tensor:
    """A picture as another camera might have seen it.

    Args:
        picture: `[S, S, 3]`, 0 to 255; or a clip, `[F, S, S, 3]`, all frames of which change alike.
        seed: `[2]`, whole numbers.
        shift: by at most so many pixels it is moved; what comes in is as the edge is.
        zoom: of its sides at most this share is cut off, anywhere, and what stays is enlarged.
        light: brightness, contrast and saturation change by at most this share.
        flip: whether left and right change places in one of two cases.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    if flip:
        coin = tf.random.experimental.stateless_fold_in(seed, 1)
        turned = tf.random.stateless_uniform([], coin) < 0.5
        picture = tf.where(turned, tf.reverse(picture, axis=[-2]), picture)
    if shift:
        places = tf.random.stateless_uniform([2], seeds[0], -shift, shift + 1, tf.int32)
        for k, axis in enumerate((-3, -2)):
            size = picture.shape[axis]
            rows = tf.clip_by_value(tf.range(size) + places[k], 0, size - 1)
            picture = tf.gather(picture, rows, axis=axis)
    if zoom:
        coins = tf.random.stateless_uniform([3], tf.random.experimental.stateless_fold_in(seed, 2))
        side = 1 - zoom * coins[0]
        corner = (1 - side) * coins[1:]
        frames = tf.reshape(picture, [-1, *picture.shape[-3:]])
        boxes = tf.repeat(tf.concat([corner, corner + side], 0)[None], len(frames), axis=0)
        cut = tf.image.crop_and_resize(frames, boxes, tf.range(len(frames)), picture.shape[-3:-1])
        picture = tf.reshape(cut, picture.shape)
    if light:
        brighter, contrast, colour = (
            tf.random.stateless_uniform([], each, 1 - light, 1 + light) for each in seeds[1:]
        )
        mean = tf.reduce_mean(picture, axis=[-3, -2], keepdims=True)
        picture = (picture - mean) * contrast + mean
        grey = tf.reduce_mean(picture, axis=-1, keepdims=True)
        picture = (grey + (picture - grey) * colour) * brighter
    return tf.clip_by_value(picture, 0.0, 255.0)
