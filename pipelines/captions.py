"""Images with captions, as batches: each image comes once, with its captions."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import text
from unroll.pipelines.errors import DataError
from unroll.pipelines.vision import Augmentation, StoredArray, image_batches

# The first tokens of a vocabulary of captions.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[START]", "[END]")
PADDING, UNKNOWN, START, END = range(4)
# Unknown words get ids after those of the vocabulary, from a hash of this size: two captions with
# different unknown words differ.
_HASH_SIZE = 2**30


@dataclass(frozen=True)
class ImageCaptions:
    """The name of an image and its captions, with single spaces between words."""

    image_id: str
    captions: list[str]


def read(dataset: tf.data.Dataset) -> list[ImageCaptions]:
    """The captions of each image."""

    def joined(example: dict) -> tuple:
        captions = tf.strings.reduce_join(text.words(example["captions"]), axis=-1, separator=" ")
        return example["image_id"], captions

    rows = dataset.map(joined, tf.data.AUTOTUNE).as_numpy_iterator()
    # An image without words has an empty caption: it is scored too.
    return [
        ImageCaptions(name.decode(), [c.decode() for c in own if c] or [""]) for name, own in rows
    ]


def build_vocabulary(images: list[ImageCaptions], min_count: int) -> list[str]:
    """`SPECIAL_TOKENS`, and words in the order of their frequency.

    Args:
        images: the captions of the training split.
        min_count: the least number of occurrences of a word.
    """
    counts = Counter(w for each in images for caption in each.captions for w in caption.split())
    frequent = [word for word, n in counts.items() if n >= min_count]
    return [*SPECIAL_TOKENS, *sorted(frequent, key=lambda word: (-counts[word], word))]


def to_ids(captions: list[str], vocabulary: text.Vocabulary) -> tf.RaggedTensor:
    """Captions as `[B, (T)]`. Ids from the size of the vocabulary are of unknown words."""
    words = tf.strings.split(tf.constant(captions, tf.string))
    known = vocabulary.table.lookup(words.values)
    hashed = tf.strings.to_hash_bucket_fast(words.values, _HASH_SIZE)
    ids = tf.where(known == UNKNOWN, hashed + len(vocabulary), known)
    return words.with_values(tf.cast(ids, tf.int32))


def caption_batches(
    captions: list[ImageCaptions],
    images: np.ndarray | StoredArray,
    vocabulary: text.Vocabulary,
    batch_size: int,
    *,
    max_length: int = 0,
    captions_per_image: int = 0,
    augmentation: Augmentation | None = None,
    frames: np.ndarray | None = None,
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Batches of P images with the C captions of each.

    Args:
        captions: the captions of N images.
        images: `[N, ...]`: pixels of images or clips, uint8; or features, floats.
        vocabulary: it starts with `SPECIAL_TOKENS`.
        batch_size: P.
        max_length: the number of words after which captions are cut; 0 for no limit.
        captions_per_image: the number of captions sampled for each image in each epoch; 0 for all.
        augmentation, shuffle: as in `pipelines.vision.image_batches`.
        frames: the labels of the frames of clips, `[N, F]`.
        static: whether all batches have the same shape, as XLA on a TPU needs. The last batch is
            dropped if it is smaller.

    Returns:
        Batches of `({"image" or "regions": [P, ...], "tokens": [P, C, T]}, labels [P, C, T])`. The
        tokens of a caption are START and its words, the labels its words and END. In the labels,
        unknown words have ids from the size of the vocabulary. With `frames` the labels are
        `{"captions": [P, C, T], "frames": [P, F]}`.
    """
    flat = to_ids([c for each in captions for c in each.captions], vocabulary)
    if max_length:
        flat = flat[:, :max_length]
    rows = tf.RaggedTensor.from_row_lengths(flat, [len(each.captions) for each in captions])
    frame_ids = None if frames is None else tf.constant(frames)

    def annotate(indices, seed) -> tuple:
        words = tf.gather(rows, indices)  # [P, (C), (T)]
        if captions_per_image:
            # Not the seed of the augmentation.
            seed = tf.random.experimental.stateless_fold_in(seed, 1)
            words = _sample(words, captions_per_image, seed)
        ids = words.values
        start, end = (tf.fill([ids.nrows(), 1], token) for token in (START, END))
        known = ids.with_values(tf.where(ids.values >= len(vocabulary), UNKNOWN, ids.values))
        labels = words.with_values(tf.concat([ids, end], axis=1))
        if frames is not None:
            labels = {"captions": labels, "frames": tf.gather(frame_ids, indices)}
        return {"tokens": words.with_values(tf.concat([start, known], axis=1))}, labels

    most = max(len(each.captions) for each in captions)
    shape = [min(most, captions_per_image or most), int(max(flat.row_lengths())) + 1]
    label_shape = shape if frames is None else {"captions": shape, "frames": frames.shape[1:]}
    return image_batches(
        images,
        len(captions),
        annotate,
        batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        max_shapes=({"tokens": shape}, label_shape) if static else None,
    )


def _sample(words: tf.RaggedTensor, number: int, seed) -> tf.RaggedTensor:
    """Samples captions of each image, `[P, (C), (T)]`, without replacement."""
    counts = words.row_lengths()
    mask = tf.sequence_mask(counts)  # [P, C]
    keys = tf.random.stateless_uniform(tf.shape(mask), seed)
    order = tf.argsort(tf.where(mask, keys, 2.0))[:, :number]
    order = tf.RaggedTensor.from_tensor(order, tf.minimum(counts, number))
    return tf.gather(words, order, batch_dims=1)


def frame_label_names(dataset: tf.data.Dataset) -> list[str]:
    """The labels of the frames of clips, in alphabetical order."""
    rows = dataset.map(lambda example: example["frames"], tf.data.AUTOTUNE).as_numpy_iterator()
    return sorted({label.decode() for row in rows for label in row})


def frame_labels(dataset: tf.data.Dataset, names: list[str], frames: int) -> np.ndarray:
    """The labels of the frames that `pipelines.image.decode_clip` returns, `[N, F]`.

    Args:
        dataset: of `{"frames": [F'] strings}`.
        names: the labels in the order of their ids.
        frames: F.

    Raises:
        DataError: if a label is not one of the names.
    """
    ids = {name: k for k, name in enumerate(names)}
    labels = []
    for row in dataset.map(lambda e: e["frames"], tf.data.AUTOTUNE).as_numpy_iterator():
        indices = np.round(np.linspace(0, len(row) - 1, frames)).astype(int)
        chosen = [row[k].decode() for k in indices]
        if unknown := [name for name in chosen if name not in ids]:
            raise DataError(f"A frame has the label {unknown[0]!r}, not one of {', '.join(names)}.")
        labels.append([ids[name] for name in chosen])
    return np.array(labels, "int32")
