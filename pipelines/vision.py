"""Images as arrays and batches: cached pixels and features, region features, augmentation."""

import hashlib
import math
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from unroll.pipelines import image
from unroll.pipelines.batching import prefetched
from unroll.pipelines.errors import DataError


class StoredArray:
    """An array in an `.npy` file, of which a row is read when it is needed.

    The pages of a memory-mapped file would count as memory of the process once they are read.

    Args:
        path: of the file.

    Attributes:
        shape: `[N, ...]`.
        dtype: of the elements.
    """

    def __init__(self, path: Path):
        self.path = path
        array = np.load(path, mmap_mode="r")
        self.shape, self.dtype, self._offset = array.shape, array.dtype, array.offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """The rows with the given indices, `[B]`."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        found = np.empty((len(rows), size), "uint8")
        with self.path.open("rb", buffering=0) as file:
            for row, index in zip(found, rows, strict=True):
                file.seek(self._offset + int(index) * size)
                if file.readinto(row) != size:
                    raise DataError(f"{self.path} is cut short: delete it.")
        return found.view(self.dtype).reshape(len(rows), *self.shape[1:])


def cached_array(
    dataset: tf.data.Dataset,
    path: Path,
    function: Callable[[tf.Tensor], tf.Tensor],
    dtype: str,
    batch_size: int = 32,
) -> StoredArray:
    """Applies a function to all image files of a dataset, or finds the result on disk.

    Args:
        dataset: of `{"image": string}`.
        path: the `.npy` file. It is written if it does not exist.
        function: `[B]` strings to `[B, ...]`.
        dtype: the data type in the file.
        batch_size: B.

    Returns:
        `[N, ...]`.
    """
    if not path.is_file():
        count = int(dataset.cardinality())
        count = count if count >= 0 else sum(1 for _ in dataset)
        batches = dataset.map(lambda row: row["image"]).batch(batch_size)
        # Written under another name first: an interrupted process leaves no incomplete file.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        written = 0
        try:
            with temporary.open("xb") as file:
                for values in batches.map(function, tf.data.AUTOTUNE).as_numpy_iterator():
                    values = values.astype(dtype)
                    if not written:
                        shape = (count, *values.shape[1:])
                        header = np.lib.format.header_data_from_array_1_0(values) | {"shape": shape}
                        np.lib.format.write_array_header_1_0(file, header)
                    file.write(values.tobytes())
                    written += len(values)
            if not written:
                raise DataError(f"There are no images for {path}.")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return StoredArray(path)


def fingerprint(*parts) -> str:
    """A short hash of what a cached file depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def read_regions(path: str | Path) -> dict[str, np.ndarray]:
    """Region features from a file: an array `[S, D]` by the name of an image.

    Args:
        path: an `.npz` file with an array for each image; or TFRecords of `tf.train.Example` with
            `image_id` (bytes), `features` (floats) and `shape` (S and D).

    Raises:
        DataError: if the file does not exist or cannot be read, or if arrays differ in rank or
            width.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of regions.")
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                regions = {name: file[name].astype("float32") for name in file.files}
        else:
            regions = dict(map(_parse_regions, tf.data.TFRecordDataset(str(path))))
    except (ValueError, OSError, tf.errors.OpError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{path} is neither an .npz file nor TFRecords of regions: {why}") from None
    for name, array in regions.items():
        if array.ndim != 2:
            raise DataError(f"{path}: {name} has the shape {array.shape}, not [S, D].")
    widths = {array.shape[-1] for array in regions.values()}
    if len(widths) != 1:
        raise DataError(f"{path}: all regions must have one width, got {sorted(widths)}.")
    return regions


def _parse_regions(record) -> tuple[str, np.ndarray]:
    fields = {
        "image_id": tf.io.FixedLenFeature([], tf.string),
        "features": tf.io.VarLenFeature(tf.float32),
        "shape": tf.io.FixedLenFeature([2], tf.int64),
    }
    row = tf.io.parse_single_example(record, fields)
    values = tf.sparse.to_dense(row["features"]).numpy().reshape(row["shape"].numpy())
    return row["image_id"].numpy().decode(), values


def select_regions(
    regions: dict[str, np.ndarray], image_ids: list[str], path: str | Path
) -> np.ndarray:
    """The regions of some images, `[N, S, D]`, padded with zeros.

    Args:
        regions: made by `read_regions`.
        image_ids: names of images, with or without a folder and a suffix.
        path: the file of the regions, for errors.

    Raises:
        DataError: if images have no regions, or two images have the same ones.
    """
    candidates = [(name, Path(name).name, Path(name).stem) for name in image_ids]
    keys = [next((key for key in each if key in regions), None) for each in candidates]
    if missing := [name for name, key in zip(image_ids, keys, strict=True) if key is None]:
        raise DataError(
            f"{path} has no regions for {len(missing)} of {len(image_ids)} images, such as "
            f"{missing[0]}."
        )
    image_of: dict[str, str] = {}
    for name, key in zip(image_ids, keys, strict=True):
        if (other := image_of.setdefault(key, name)) != name:
            raise DataError(
                f"{path}: {key} may be {other} or {name}: name the regions by the paths of images."
            )
    arrays = [regions[key] for key in keys]
    padded = np.zeros((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), "float32")
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


@dataclass(frozen=True)
class Augmentation:
    """The arguments of `pipelines.image.augment`."""

    translate: int = 0
    zoom: float = 0.0
    color_jitter: float = 0.0
    flip: bool = False


def image_batches(
    images: np.ndarray | StoredArray | None,
    count: int,
    annotate: Callable[[tf.Tensor, tf.Tensor], tuple],
    batch_size: int,
    *,
    augmentation: Augmentation | None = None,
    shuffle: int | None = None,
    max_shapes: tuple | None = None,
) -> tf.data.Dataset:
    """Batches of images with their captions or questions.

    Args:
        images: `[N, S, S, 3]`, or clips `[N, F, S, S, 3]`, uint8; or features, floats; or `None`
            for batches without images. The rows of a batch are read when it is made.
        count: N.
        annotate: turns the indices of images, `[P]`, and a seed, `[2]`, into `(features, labels)`,
            tensors or ragged tensors. The seed is different in each epoch.
        batch_size: P.
        augmentation: of the pixels, for training. It is different in each epoch.
        shuffle: a seed. The order is different in each epoch. `None` keeps the order.
        max_shapes: the largest shapes of the outputs of `annotate`. Then all batches have the same
            shape, and the last batch is dropped if it is smaller.

    Returns:
        Batches of `(features, labels)`, padded with zeros. The features include the pixels as
        `"image"` or other features of the images as `"regions"`.
    """
    kind = None if images is None else "image" if images.dtype == "uint8" else "regions"

    def batch(indices, seed) -> tuple:
        outputs = annotate(indices, seed)
        rows = indices.shape[0]
        features, labels = (
            _pad(x, max_shapes and max_shapes[k], rows) for k, x in enumerate(outputs)
        )
        if kind:
            x = tf.numpy_function(images.__getitem__, [indices], images.dtype)
            x = tf.ensure_shape(x, [rows, *images.shape[1:]])
            x = tf.cast(x, tf.float32)
            if kind == "image" and augmentation:
                x = image.augment(x, seed, **asdict(augmentation))
            features = features | {kind: x}
        return features, labels

    indices = tf.data.Dataset.range(count)
    if shuffle is not None:
        indices = indices.shuffle(count, seed=shuffle, reshuffle_each_iteration=True)
    indices = indices.batch(batch_size, drop_remainder=max_shapes is not None)
    seeds = tf.data.Dataset.random(shuffle or 0, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip(indices, seeds)
    return prefetched(pairs.map(batch, tf.data.AUTOTUNE))


def _pad(x, max_shape, rows: int | None):
    """Pads ragged tensors, to `rows` rows of `max_shape` if it is given."""
    if isinstance(x, dict):
        return {name: _pad(each, max_shape and max_shape[name], rows) for name, each in x.items()}
    if not isinstance(x, tf.RaggedTensor):
        return x
    return x.to_tensor(shape=max_shape and [rows, *max_shape])
