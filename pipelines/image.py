"""Pictures in the graph: bytes to pixels, what disturbs them, features of a frozen encoder."""

from pathlib import Path

import tensorflow as tf

from unroll.pipelines.errors import DataError


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
    pictures,
    seed,
    *,
    shift: int = 0,
    zoom: float = 0.0,
    light: float = 0.0,
    flip: bool = False,
) -> tf.Tensor:
    """Pictures as other cameras might have seen them, each as another.

    Args:
        pictures: `[B, S, S, 3]`, 0 to 255; or clips, `[B, F, S, S, 3]`, of each of which all frames
            change alike.
        seed: `[2]`, whole numbers.
        shift: by at most so many pixels they are moved; what comes in is as the edge is.
        zoom: of their sides at most this share is cut off, anywhere, and what stays is enlarged.
        light: brightness, contrast and saturation change by at most this share.
        flip: whether left and right change places in one of two cases.
    """
    count, (height, width) = tf.shape(pictures)[0], pictures.shape[-3:-1]
    frames = pictures.shape[1] if len(pictures.shape) == 5 else 1
    x = tf.reshape(pictures, [-1, height, width, 3])  # [B F, S, S, 3]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))

    def draw(*size, seed, **bounds):
        """Numbers of each picture, `[B F, ...]`."""
        drawn = tf.random.stateless_uniform([count, *size], seed, **bounds)
        return tf.repeat(drawn, frames, axis=0)

    if flip:
        coins = draw(1, 1, 1, seed=tf.random.experimental.stateless_fold_in(seed, 1))
        x = tf.where(coins < 0.5, tf.reverse(x, axis=[-2]), x)
    if shift:
        places = draw(2, 1, seed=seeds[0], minval=-shift, maxval=shift + 1, dtype=tf.int32)
        for axis, size in ((1, height), (2, width)):
            rows = tf.clip_by_value(tf.range(size) + places[:, axis - 1], 0, size - 1)
            x = tf.gather(x, rows, axis=axis, batch_dims=1)
    if zoom:
        coins = draw(3, seed=tf.random.experimental.stateless_fold_in(seed, 2))
        side = 1 - zoom * coins[:, :1]
        corner = (1 - side) * coins[:, 1:]
        boxes = tf.concat([corner, corner + side], axis=1)
        x = tf.image.crop_and_resize(x, boxes, tf.range(len(boxes)), [height, width])
    if light:
        brighter, contrast, colour = (
            draw(1, 1, 1, seed=each, minval=1 - light, maxval=1 + light) for each in seeds[1:]
        )
        mean = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        x = (x - mean) * contrast + mean
        grey = tf.reduce_mean(x, axis=-1, keepdims=True)
        x = (grey + (x - grey) * colour) * brighter
    return tf.reshape(tf.clip_by_value(x, 0.0, 255.0), tf.shape(pictures))
