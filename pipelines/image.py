"""Images in the graph: files to pixels of a size, data augmentation."""

from pathlib import Path

import tensorflow as tf

from unroll.pipelines.errors import DataError
from unroll.pipelines.image_decoding import all_frames, first_frame, problem, reasons

# Images of a batch that are decoded at the same time: memory for the largest ones.
_PARALLEL = 4


def decode(contents, size: int) -> tf.Tensor:
    """The pixels of an image file.

    Args:
        contents: a scalar string: JPEG, PNG, GIF (the first frame), BMP or WebP.
        size: S. The image is resized to this height and width.

    Returns:
        `[S, S, 3]`, float32, integers from 0 to 255.
    """
    return _resize(first_frame(contents), size)


def _resize(pixels, size: int) -> tf.Tensor:
    pixels = tf.image.resize(pixels, [size, size], antialias=True)
    # Training stores the pixels as bytes: an exported model must see the same values.
    return tf.round(tf.clip_by_value(pixels, 0.0, 255.0))


def decode_batch(contents, size: int) -> tf.Tensor:
    """`[B]` image files to `[B, S, S, 3]`."""
    spec = tf.TensorSpec([size, size, 3], tf.float32)
    return tf.map_fn(
        lambda each: decode(each, size),
        contents,
        fn_output_signature=spec,
        parallel_iterations=_PARALLEL,
    )


def decode_clip(contents, size: int, frames: int) -> tf.Tensor:
    """The pixels of an animated GIF.

    Args:
        contents: a scalar string. The frames of another image file are all the same.
        size: S.
        frames: F, the number of frames, taken at equal distances from the first to the last.

    Returns:
        `[F, S, S, 3]`, as in `decode`.
    """
    pixels = all_frames(contents)
    last = tf.cast(tf.shape(pixels)[0] - 1, tf.float32)
    indices = tf.cast(tf.round(tf.linspace(0.0, last, frames)), tf.int32)
    return tf.ensure_shape(_resize(tf.gather(pixels, indices), size), [frames, size, size, 3])


def decode_clip_batch(contents, size: int, frames: int) -> tf.Tensor:
    """`[B]` clips to `[B, F, S, S, 3]`."""
    spec = tf.TensorSpec([frames, size, size, 3], tf.float32)
    return tf.map_fn(
        lambda each: decode_clip(each, size, frames),
        contents,
        fn_output_signature=spec,
        parallel_iterations=_PARALLEL,
    )


def try_decode_batch(contents, size: int, frames: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """As `decode_batch`, or `decode_clip_batch` with frames, where files may be broken.

    Every error of a decoder is caught, by a `tf.data.Dataset` in the graph, and changes its own
    file only.

    Args:
        contents: `[B]`, image files.
        size: S.
        frames: F, or 0 for images.

    Returns:
        `[B, S, S, 3]` or `[B, F, S, S, 3]`, 0 for a file that cannot be decoded; and strings `[B]`:
        why it cannot be decoded, "" if it can.
    """
    shape = [frames, size, size, 3] if frames else [size, size, 3]
    count = tf.shape(contents, tf.int64)[0]

    def decode_row(row, each):
        return row, decode_clip(each, size, frames) if frames else decode(each, size)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    decoded = files.map(decode_row, num_parallel_calls=_PARALLEL).ignore_errors()
    # A last row, so that there is one if no file can be decoded.
    last = tf.data.Dataset.from_tensors((count, tf.zeros(shape)))
    rows, found = decoded.concatenate(last).batch(count + 1).get_single_element()
    pixels = tf.scatter_nd(rows[:, None], found, [count + 1, *shape])[:-1]
    is_decoded = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count + 1])[:-1] > 0
    return pixels, tf.where(is_decoded, "", reasons(contents))


def read_image(path: Path) -> bytes:
    """The contents of an image file.

    Raises:
        DataError: if the file cannot be read or decoded.
    """
    try:
        contents = path.read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise DataError(f"{path} ({getattr(error, 'strerror', error)})") from None
    if why := problem(contents):
        raise DataError(f"{path} ({why})")
    return contents


def augment(
    images,
    seed,
    *,
    translate: int = 0,
    zoom: float = 0.0,
    color_jitter: float = 0.0,
    flip: bool = False,
) -> tf.Tensor:
    """Random changes of images, independent for each image.

    Args:
        images: `[B, S, S, 3]`, 0 to 255; or clips, `[B, F, S, S, 3]`. All frames of a clip get the
            same changes.
        seed: `[2]`, integers.
        translate: the largest translation in pixels. The edge is repeated.
        zoom: the largest fraction of the sides that is cropped. The rest is resized to S.
        color_jitter: the largest relative change of brightness, contrast and saturation.
        flip: whether half of the images are flipped horizontally.
    """
    count, (height, width) = tf.shape(images)[0], images.shape[-3:-1]
    frames = images.shape[1] if len(images.shape) == 5 else 1
    x = tf.reshape(images, [-1, height, width, 3])  # [B F, S, S, 3]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))

    def uniform(*size, seed, **bounds):
        """A random number or more for each image, `[B F, ...]`."""
        values = tf.random.stateless_uniform([count, *size], seed, **bounds)
        return tf.repeat(values, frames, axis=0)

    if flip:
        chance = uniform(1, 1, 1, seed=tf.random.experimental.stateless_fold_in(seed, 1))
        x = tf.where(chance < 0.5, tf.reverse(x, axis=[-2]), x)
    if translate:
        offsets = uniform(
            2, 1, seed=seeds[0], minval=-translate, maxval=translate + 1, dtype=tf.int32
        )
        for axis, size in ((1, height), (2, width)):
            rows = tf.clip_by_value(tf.range(size) + offsets[:, axis - 1], 0, size - 1)
            x = tf.gather(x, rows, axis=axis, batch_dims=1)
    if zoom:
        chance = uniform(3, seed=tf.random.experimental.stateless_fold_in(seed, 2))
        side = 1 - zoom * chance[:, :1]
        corner = (1 - side) * chance[:, 1:]
        boxes = tf.concat([corner, corner + side], axis=1)
        x = tf.image.crop_and_resize(x, boxes, tf.range(len(boxes)), [height, width])
    if color_jitter:
        brightness, contrast, saturation = (
            uniform(1, 1, 1, seed=each, minval=1 - color_jitter, maxval=1 + color_jitter)
            for each in seeds[1:]
        )
        mean = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        x = (x - mean) * contrast + mean
        gray = tf.reduce_mean(x, axis=-1, keepdims=True)
        x = (gray + (x - gray) * saturation) * brightness
    return tf.reshape(tf.clip_by_value(x, 0.0, 255.0), tf.shape(images))
