"""Images: what a network reads of them, and the files that a user gives."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.pipelines import image, image_decoding, vision

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
# The asset `images` of a model that reads no images.
NO_IMAGES = {"kind": "none", "shape": []}


@dataclass(frozen=True)
class ImageConfig(TrainingConfig):
    """The fields of the `Config` of an app that reads images."""

    # images are resized to this height and width, in pixels
    image_size: int = 64
    # image encoder: `residual`, trained from scratch, or a frozen network of keras.applications,
    # such as ResNet50
    encoder: str = "residual"
    # filters in the first stage of the residual encoder; each later stage has twice as many
    filters: int = 24
    # stages of the residual encoder; each halves the height and width
    stages: int = 3
    # blocks of two convolutions per stage, except in the first one
    blocks: int = 1
    # blocks of two convolutions in the first stage
    first_stage_blocks: int = 0
    # learn shapes from images whose colors are changed at random in each training step
    random_colors: bool = False
    # dropout rate of the channels of the residual encoder's output
    image_dropout: float = 0.0
    # weights of a frozen encoder: `imagenet`, which is downloaded, or a file
    encoder_weights: str = "imagenet"
    # file of region vectors for each image, .npz or TFRecords, in place of an encoder
    regions: str = ""
    # in training: largest translation of an image, in pixels
    translate: int = 0
    # in training: largest relative change of brightness, contrast and saturation
    color_jitter: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.encoder != "residual":
            _constructor(self.encoder)

    @property
    def frozen(self) -> bool:
        """Whether a frozen encoder reads the images."""
        return not self.regions and self.encoder != "residual"


def arrays(
    config: ImageConfig,
    raw: RawSplits,
    image_ids: dict[str, list[str]],
    frames: int = 0,
) -> tuple[dict[str, np.ndarray | vision.StoredArray], dict]:
    """The images of some splits as arrays, and their description.

    Pixels, and the features of a frozen encoder, are computed once and stored in the folder of the
    prepared split.

    Args:
        config: names the encoder or the file of regions.
        raw: datasets of `{"image": string}` by split. Only the splits in `image_ids` are read.
        image_ids: the names of the images, by split.
        frames: the number of frames that are taken from a clip; 0 for images. A frozen encoder
            gives one vector per frame, the mean over its grid.

    Returns:
        By split, `[N, S, S, 3]` (clips `[N, F, S, S, 3]`), uint8, or the features of regions; and
        `{"kind": "image" or "regions", "shape": of one image}`, an asset.
    """
    size = config.image_size
    if config.regions:
        known = vision.read_regions(config.regions)
        found = {
            split: vision.select_regions(known, names, config.regions)
            for split, names in image_ids.items()
        }
        width = next(iter(known.values())).shape[-1]
        return found, {"kind": "regions", "shape": [None, width]}
    extra = [frames] if frames else []
    if encoder := frozen_encoder(config):
        weights = Path(config.encoder_weights)
        # The file may be replaced by another one of the same name.
        stamp = weights.stat().st_mtime_ns if weights.is_file() else 0
        names = config.encoder, config.encoder_weights
        key = vision.fingerprint("features of upright images", size, *names, stamp, *extra)
        grid = list(encoder.output_shape[1:])
        spec = {"kind": "regions", "shape": [frames, grid[-1]] if frames else grid}

        def read(files):
            return frozen_features(encoder, decode(files, size, frames))
    else:
        key = vision.fingerprint("upright pixels", size, *extra)
        spec = {"kind": "image", "shape": [*extra, size, size, 3]}

        def read(files):
            return decode(files, size, frames)

    dtype = "float16" if config.frozen else "uint8"
    found = {
        split: vision.cached_array(
            raw[split], raw.folder(split) / f"{split}-{key}.npy", read, dtype
        )
        for split in image_ids
    }
    return found, spec


def decode(files, size: int, frames: int = 0) -> tf.Tensor:
    """Files `[B]` to pixels `[B, S, S, 3]`, or to those of clips `[B, F, S, S, 3]`."""
    return (
        image.decode_clip_batch(files, size, frames) if frames else image.decode_batch(files, size)
    )


def with_errors(outputs: dict, errors, worst_score: float = 0.0) -> dict:
    """The outputs of an exported model for files of which some cannot be decoded.

    Args:
        outputs: `[B, ...]` by name.
        errors: `[B]`, strings: why a file cannot be decoded, "" if it can.
        worst_score: the `scores` of a file that cannot be decoded. Its other outputs are "" or 0.

    Returns:
        The outputs, and `error` `[B]`.
    """

    def blank(name: str, x):
        value = worst_score if name == "scores" else b"" if x.dtype == tf.string else 0
        is_decoded = tf.reshape(errors == b"", [-1, *[1] * (len(x.shape) - 1)])
        return tf.where(is_decoded, x, tf.constant(value, x.dtype))

    return {name: blank(name, x) for name, x in outputs.items()} | {"error": errors}


def frozen_features(encoder: keras.Model, pixels) -> tf.Tensor:
    """The features of images, `[B, H, W, D]`, or of the frames of clips, `[B, F, D]`."""
    if len(pixels.shape) == 4:
        return encoder(pixels, training=False)
    flat = encoder(tf.reshape(pixels, [-1, *pixels.shape[2:]]), training=False)
    return tf.reshape(tf.reduce_mean(flat, axis=[1, 2]), [-1, pixels.shape[1], flat.shape[-1]])


def frozen_encoder(config: ImageConfig) -> keras.Model | None:
    """A network of `keras.applications` without its head, `[B, S, S, 3]` to `[B, H, W, D]`.

    `None` if the configuration has another encoder, or reads regions.
    """
    if not config.frozen:
        return None
    make, preprocess = _constructor(config.encoder)
    shape = (config.image_size, config.image_size, 3)
    inputs = keras.Input(shape, name="image")
    network = make(include_top=False, weights=config.encoder_weights, input_shape=shape)
    network.trainable = False
    return keras.Model(inputs, network(preprocess(inputs)), name="encoder")


def _constructor(name: str) -> tuple[Callable, Callable]:
    """A constructor of `keras.applications`, and the function that prepares its pixels."""
    make = getattr(keras.applications, name, None)
    if not callable(make):
        raise ValueError(
            f"encoder must be residual or a network of keras.applications, got {name!r}."
        )
    module = next(
        each
        for each in vars(keras.applications).values()
        if hasattr(each, "preprocess_input") and getattr(each, name, None) is make
    )
    return make, module.preprocess_input


def is_image_path(argument: str) -> bool:
    """Whether a command-line argument is the path of an image, and not a text."""
    return argument.lower().endswith(SUFFIXES) or os.path.isfile(argument)


def read(source: str | bytes, animated: bool = False) -> bytes:
    """The contents of an image file.

    Args:
        source: the path of the file, or its contents.
        animated: whether all frames of a clip are needed.

    Raises:
        UsageError: if it cannot be read or decoded.
    """
    name = "The image" if isinstance(source, bytes) else source
    try:
        contents = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise UsageError(f"{name}: {getattr(error, 'strerror', None) or error}.") from None
    if why := image_decoding.problem(contents, animated):
        if why == image_decoding.UNREADABLE:
            why = "cannot be decoded: it must be a JPEG, PNG, GIF, BMP or WebP file"
        raise UsageError(f"{name} {why}.")
    return contents


def regions_of(sources: Sequence[str | bytes], config: ImageConfig, spec: dict) -> np.ndarray:
    """The regions of images, `[N, S, D]`, from the file `config.regions`.

    Args:
        sources: paths of images. An app's examples are bytes, which the file does not contain:
            these get three regions each, with numbers from 0 to 1.
        config: names the file.
        spec: the asset `images`.
    """
    if all(isinstance(source, bytes) for source in sources):
        width = spec["shape"][-1]
        size = len(sources) * 3 * width
        return np.linspace(0, 1, size, dtype="float32").reshape(-1, 3, width)
    known = vision.read_regions(config.regions)
    return vision.select_regions(known, [str(source) for source in sources], config.regions)


def pixels_of(path: str) -> np.ndarray:
    """The pixels of an image file as a viewer shows it, `[H, W, 3]`; of a clip its first frame.

    Raises:
        UsageError: as `read`.
    """
    return image_decoding.first_frame(tf.constant(read(path))).numpy()


def overlay(axes, pixels: np.ndarray, weights: np.ndarray | None = None) -> None:
    """Draws an image `[H, W, 3]` on Matplotlib's axes, and over it weights `[h, w]`, if given."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0))
    axes.axis("off")
    if weights is not None:
        smooth = {"interpolation": "bilinear", "cmap": "inferno", "alpha": 0.6}
        axes.imshow(weights, extent=(0, width, height, 0), **smooth)


def sheet(rows: Sequence[Sequence[tuple]], size: float = 2.3) -> matplotlib.figure.Figure:
    """A Matplotlib figure of rows of images.

    Args:
        rows: each a sequence of `(title, pixels [H, W, 3], weights [h, w] or None)`.
        size: height and width of an image, in inches.
    """
    columns = max(map(len, rows))
    figure = matplotlib.figure.Figure(
        figsize=(size * columns, (size + 0.4) * len(rows)), layout="constrained"
    )
    for of_row, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for axes in of_row:
            axes.axis("off")
        for axes, (title, pixels, weights) in zip(of_row, row, strict=False):
            overlay(axes, pixels, weights)
            axes.set_title(title, fontsize=8, parse_math=False)
    return figure


def save(figure: matplotlib.figure.Figure, path: Path) -> None:
    """Writes a Matplotlib figure. Characters that its font lacks are boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, dpi=100)
