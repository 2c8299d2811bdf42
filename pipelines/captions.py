"""Pictures with captions, as batches: a picture stands once, with all its captions."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import text
from unroll.pipelines.errors import DataError
from unroll.pipelines.visual import Augmentation, picture_batches

# The first entries of a vocabulary of captions.
ENTRIES = ("[PAD]", "[UNK]", "[START]", "[END]")
PADDING, UNKNOWN, START, END = range(4)
# A word that the vocabulary lacks has a number of its own behind it, so that captions of such words
# can be compared: one of so many.
_OTHERS = 2**30


@dataclass(frozen=True)
class Captioned:
    """A picture's name and its captions, with single spaces between their words."""

    image_id: str
    captions: list[str]


def read(dataset: tf.data.Dataset) -> list[Captioned]:
    """All captions, picture by picture."""

    def joined(example: dict) -> tuple:
        captions = tf.strings.reduce_join(text.words(example["captions"]), axis=-1, separator=" ")
        return example["image_id"], captions

    rows = dataset.map(joined, tf.data.AUTOTUNE).as_numpy_iterator()
    return [Captioned(name.decode(), [c.decode() for c in found if c]) for name, found in rows]


def build_vocabulary(captioned: list[Captioned], min_count: int) -> list[str]:
    """The words that occur so often, from the most frequent on, after `ENTRIES`."""
    counts = Counter(w for each in captioned for caption in each.captions for w in caption.split())
    frequent = [word for word, n in counts.items() if n >= min_count]
    return [*ENTRIES, *sorted(frequent, key=lambda word: (-counts[word], word))]


def ids(captions: list[str], vocabulary: text.Vocabulary) -> tf.RaggedTensor:
    """Captions as `[B, (T)]`; numbers from the vocabulary's size on are words that it lacks."""
    found = tf.strings.split(tf.constant(captions, tf.string))
    known = tf.ragged.map_flat_values(vocabulary.table.lookup, found)
    own = tf.ragged.map_flat_values(tf.strings.to_hash_bucket_fast, found, _OTHERS)
    return tf.cast(tf.where(known == UNKNOWN, own + len(vocabulary), known), tf.int32)


def caption_batches(
    captioned: list[Captioned],
    pictures: np.ndarray,
    vocabulary: text.Vocabulary,
    batch_size: int,
    *,
    max_length: int = 0,
    drawn: int = 0,
    augmentation: Augmentation | None = None,
    frames: np.ndarray | None = None,
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Batches of P pictures with the C captions of each.

    Args:
        captioned: the captions of N pictures.
        pictures: `[N, ...]`: pixels, uint8, of pictures or clips; or features, floats.
        vocabulary: its first entries are `ENTRIES`.
        batch_size: P.
        max_length: captions are cut after so many words; 0 for never.
        drawn: so many captions of a picture are taken, drawn anew in each epoch; 0 for all.
        augmentation: of pictures, for training. It is drawn anew in each epoch.
        frames: the labels of the frames of clips, `[N, F]`.
        shuffle: a seed; each epoch has an order of its own. `None` keeps the order.
        static: whether all batches have one shape, as XLA on a TPU wants; the remainder of the
            pictures is left out.

    Returns:
        Batches of `({"image" or "regions": [P, ...], "tokens": [P, C, T]}, labels [P, C, T])`. The
        tokens of a caption are START and its words, its labels its words and END; there words that
        the vocabulary lacks have numbers from its size on. With `frames` the labels are
        `{"captions": [P, C, T], "frames": [P, F]}`.
    """
    flat = ids([c for each in captioned for c in each.captions], vocabulary)
    if max_length:
        flat = flat[:, :max_length]
    rows = tf.RaggedTensor.from_row_lengths(flat, [len(each.captions) for each in captioned])
    of_frames = None if frames is None else tf.constant(frames)

    def said(which, seed) -> tuple:
        words = tf.gather(rows, which)  # [P, (C), (T)]
        if drawn:
            # Another seed than that of pixels.
            seed = tf.random.experimental.stateless_fold_in(seed, 1)
            words = _draw(words, drawn, seed)
        of_all = words.values
        start, end = (tf.fill([of_all.nrows(), 1], mark) for mark in (START, END))
        known = tf.where(of_all >= len(vocabulary), UNKNOWN, of_all)
        labels = words.with_values(tf.concat([of_all, end], axis=1))
        if frames is not None:
            labels = {"captions": labels, "frames": tf.gather(of_frames, which)}
        return {"tokens": words.with_values(tf.concat([start, known], axis=1))}, labels

    most = max(len(each.captions) for each in captioned)
    most = [min(most, drawn or most), int(max(flat.row_lengths())) + 1]
    longest = most if frames is None else {"captions": most, "frames": frames.shape[1:]}
    return picture_batches(
        pictures,
        len(captioned),
        said,
        batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        longest=({"tokens": most}, longest) if static else None,
    )


def _draw(words: tf.RaggedTensor, most: int, seed) -> tf.RaggedTensor:
    """Of each picture's captions, `[P, (C), (T)]`, so many at random, or all if it has fewer."""
    counts = words.row_lengths()
    there = tf.sequence_mask(counts)  # [P, C]
    coins = tf.random.stateless_uniform(tf.shape(there), seed)
    order = tf.argsort(tf.where(there, coins, 2.0))[:, :most]
    order = tf.RaggedTensor.from_tensor(order, tf.minimum(counts, most))
    return tf.gather(words, order, batch_dims=1)


def labels_of_frames(dataset: tf.data.Dataset) -> list[str]:
    """All labels that frames of clips have, in the order of the alphabet."""
    rows = dataset.map(lambda example: example["frames"], tf.data.AUTOTUNE).as_numpy_iterator()
    return sorted({label.decode() for row in rows for label in row})


def frame_labels(dataset: tf.data.Dataset, labels: list[str], frames: int) -> np.ndarray:
    """The labels of the frames that `pipelines.image.decode_clip` takes, `[N, F]`.

    Raises:
        DataError: if a label is none of those given.
    """
    numbers = {label: k for k, label in enumerate(labels)}
    found = []
    for row in dataset.map(lambda e: e["frames"], tf.data.AUTOTUNE).as_numpy_iterator():
        chosen = np.round(np.linspace(0, len(row) - 1, frames)).astype(int)
        names = [row[k].decode() for k in chosen]
        if unknown := [name for name in names if name not in numbers]:
            raise DataError(f"A frame is labelled {unknown[0]!r}; known are {', '.join(labels)}.")
        found.append([numbers[name] for name in names])
    return np.array(found, "int32")
