"""Pictures of any app: what a model is given of them, and what a person gives of one."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.pipelines import image, visual


@dataclass(frozen=True)
class PictureConfig(TrainingConfig):
    """What the `Config` of an app of pictures has."""

    # pictures are made so many pixels wide and high
    image_size: int = 64
    # what reads a picture: `residual`, trained from scratch, or a frozen network of
    # keras.applications, such as ResNet50
    encoder: str = "residual"
    # how many filters the first stage of the residual encoder has; each next one has twice as many
    filters: int = 24
    # how many stages it has, each of which halves the sides of the picture
    stages: int = 3
    # how many blocks of two convolutions a stage has, but for the first
    blocks: int = 1
    # how many the first has
    first_blocks: int = 0
    # whether its shapes are learned from pictures in other colours, drawn anew in each step
    random_colours: bool = False
    # the share of features dropped from its grid
    image_dropout: float = 0.0
    # of a frozen encoder: `imagenet`, which is downloaded, or a file
    encoder_weights: str = "imagenet"
    # a file of vectors for the regions of each picture, .npz or TFRecords, instead of an encoder
    regions: str = ""


# The settings of a model that sees none; those of others have the same names.
NO_PICTURES = {
    **{"image_size": 0, "encoder": "", "encoder_weights": "", "regions": ""},
    **{"kind": "none", "shape": []},
}


def arrays(
    config: PictureConfig,
    raw: dict[str, tf.data.Dataset],
    told: dict[str, list],
    folder: Path,
    frames: int = 0,
):
    """The pictures of each split as one array, and what serving must know of them.

    Pixels, and the features of a frozen encoder, are computed once and kept beside the dataset.

    Args:
        config: where its encoder is `residual`, the app trains one.
        raw: by split, of `{"image": string}`.
        told: by split, what is said of each picture, with its name, `image_id`.
        folder: of the dataset.
        frames: so many are taken of a clip, which then is an array of them; 0 where the files are
            pictures. Of frozen features each frame has their mean.
    """
    size = config.image_size
    settings = {**NO_PICTURES, "image_size": size}
    if config.regions:
        known = visual.read_regions(config.regions)
        found = {
            split: visual.regions_of(known, [each.image_id for each in rows], config.regions)
            for split, rows in told.items()
        }
        shape = [None, found["train"].shape[-1]]
        return found, settings | {"kind": "regions", "shape": shape, "regions": config.regions}
    if config.encoder == "residual":
        made, kind, dtype = (lambda files: decode(files, size, frames)), "image", "uint8"
        key = visual.fingerprint("rounded pixels", size, *[frames] * bool(frames))
    else:
        encoder = frozen_encoder(config.encoder, config.encoder_weights, size)
        own = {"encoder": config.encoder, "encoder_weights": config.encoder_weights}
        settings |= own
        weights = Path(config.encoder_weights)
        # Another file of the same name gives other features.
        stamp = weights.stat().st_mtime_ns if weights.is_file() else 0
        kind, dtype = "regions", "float16"
        key = visual.fingerprint("features", size, *own.values(), stamp, *[frames] * bool(frames))

        def made(files):
            return frozen_features(encoder, decode(files, size, frames))

    found = {
        split: visual.stored(rows, folder / f"{split}-{key}.npy", made, dtype)
        for split, rows in raw.items()
    }
    return found, settings | {"kind": kind, "shape": list(found["train"].shape[1:])}


def decode(files, size: int, frames: int = 0) -> tf.Tensor:
    """Files `[B]` to pixels `[B, S, S, 3]`, or of clips `[B, F, S, S, 3]`."""
    return image.decode_clips(files, size, frames) if frames else image.decode_all(files, size)


def frozen_features(encoder: keras.Model, pixels) -> tf.Tensor:
    """A grid of features of pictures, `[B, H, W, D]`; of clips `[B, F, D]`."""
    if len(pixels.shape) == 4:
        return encoder(pixels, training=False)
    flat = encoder(tf.reshape(pixels, [-1, *pixels.shape[2:]]), training=False)
    return tf.reshape(tf.reduce_mean(flat, axis=[1, 2]), [-1, pixels.shape[1], flat.shape[-1]])


def frozen_encoder(name: str, weights: str, size: int) -> keras.Model:
    """A network of `keras.applications` without its head, from `[B, S, S, 3]` to `[B, H, W, D]`.

    Args:
        name: such as `ResNet50`.
        weights: `imagenet`, which is downloaded, or a file of weights.
        size: S.

    Raises:
        ValueError: if there is no such network.
    """
    make = getattr(keras.applications, name, None)
    if not callable(make):
        raise ValueError(f"encoder={name}: neither residual nor a network of keras.applications.")
    module = next(
        each
        for each in vars(keras.applications).values()
        if hasattr(each, "preprocess_input") and getattr(each, name, None) is make
    )
    given = keras.Input((size, size, 3), name="image")
    network = make(include_top=False, weights=weights, input_shape=(size, size, 3))
    network.trainable = False
    return keras.Model(given, network(module.preprocess_input(given)), name="encoder")


def read(given: str | bytes) -> bytes:
    """The bytes of a picture file.

    Raises:
        UsageError: if it cannot be read, or is no picture.
    """
    try:
        contents = given if isinstance(given, bytes) else Path(given).read_bytes()
    except OSError as error:
        raise UsageError(f"{given}: {error.strerror}.") from None
    if not image.is_picture(contents):
        name = "The picture" if isinstance(given, bytes) else given
        raise UsageError(f"{name} cannot be decoded: JPEG, PNG, GIF and BMP can.")
    return contents


def regions_of(shown: tuple, settings: dict) -> np.ndarray:
    """The regions of pictures named by a path, from the file with which the model was trained."""
    if all(isinstance(each, bytes) for each in shown):
        # The app's examples have no names: three regions each, of numbers from 0 to 1.
        width = settings["shape"][-1]
        return np.linspace(0, 1, len(shown) * 3 * width, dtype="float32").reshape(-1, 3, width)
    known = visual.read_regions(settings["regions"])
    return visual.regions_of(known, [str(each) for each in shown], settings["regions"])


def overlay(axis, photo: np.ndarray, weights: np.ndarray | None = None) -> None:
    """Draws a photo `[H, W, 3]` on Matplotlib's axes, under weights `[h, w]` if there are any."""
    height, width = photo.shape[:2]
    axis.imshow(photo, extent=(0, width, height, 0))
    axis.axis("off")
    if weights is not None:
        smooth = {"interpolation": "bilinear", "cmap": "inferno", "alpha": 0.6}
        axis.imshow(weights, extent=(0, width, height, 0), **smooth)
