"""Recordings with transcripts, in the graph: labels of a transcript, features of a recording."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import audio
from unroll.pipelines.batching import batches
from unroll.pipelines.errors import DataError

BLANK = "[BLANK]"
UNITS = ("characters", "words", "phones")
# Of a recording, in frames.
BOUNDARIES = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)


def split_units(transcript: str, unit: str, lexicon: dict[str, list[str]]) -> list[str]:
    """The labels of a transcript: its characters, its words, or the phones of its words.

    Raises:
        DataError: if the lexicon lacks a word.
    """
    if unit == "characters":
        return list(transcript)
    if unit == "words":
        return transcript.split()
    unknown = [word for word in transcript.split() if word not in lexicon]
    if unknown:
        raise DataError(f"The lexicon has no word {unknown[0]!r}, which {transcript!r} has.")
    return [phone for word in transcript.split() for phone in lexicon[word]]


def join_units(labels: Sequence[str], unit: str) -> str:
    """The transcript of labels; of phones, the phones."""
    return ("" if unit == "characters" else " ").join(labels)


def read_lexicon(path) -> dict[str, list[str]]:
    """Words and their phones from lines `WORD PH OH NE`; of several ways to say one, the first.

    Raises:
        DataError: if a line has no phones.
    """
    found: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise DataError(f"{path}, line {number}: {word!r} has no phones.")
            if word:
                found.setdefault(word, phones)
    return found


@dataclass(frozen=True)
class Augmentation:
    """What disturbs training: see `pipelines.audio.perturb` and `spec_augment`."""

    speed: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    time: int = 0
    frequency: int = 0


def frames_needed(labels: np.ndarray) -> int:
    """One frame for each of the labels `[L]`, and one for the blank between two that are alike."""
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))


def speech_batches(
    dataset: tf.data.Dataset,
    front_end: audio.FrontEnd | None,
    labels: list[str],
    units: Callable[[str], list[str]],
    *,
    normalization: str,
    subsampling: int,
    batch_size: int,
    augmentation: Augmentation | None = None,
    shuffle: int | None = None,
    static: bool = False,
) -> tuple[tf.data.Dataset, list[str]]:
    """Batches of features and labels.

    Args:
        dataset: of `{"audio": wav file, "transcript"}`, or with `"features": [T, F]`.
        front_end: what makes features of samples; `None` where the dataset has features.
        labels: all of them, the blank first.
        units: the labels of a transcript.
        normalization: as in `pipelines.audio.normalize`.
        subsampling: how many frames become one in the model.
        batch_size: B.
        augmentation: for training. It is drawn anew in each epoch.
        shuffle, static: as in `batches`.

    Returns:
        The batches, of `({"features": [B, T, F], "lengths": [B]}, labels [B, L])`; and, where
        the dataset is shuffled, which is for training, the transcripts that are longer than their
        recordings allow: they are left out.

    Raises:
        DataError: if all are left out.
    """
    ids = {label: k for k, label in enumerate(labels)}
    augmentation = augmentation or Augmentation()

    def encode(transcript: bytes) -> np.ndarray:
        return np.array([ids[label] for label in units(transcript.decode())], "int32")

    def prepare(example: dict) -> dict:
        sound = example["features"] if front_end is None else sound_of(example["audio"], front_end)
        targets = tf.numpy_function(encode, [example["transcript"]], tf.int32)
        frames = tf.shape(sound)[0] // (front_end.hop if front_end else 1)
        # So long it may become.
        frames = tf.cast(
            tf.math.ceil(tf.cast(frames, tf.float32) / (1 - augmentation.speed)), "int32"
        )
        return {"sound": sound, "targets": tf.ensure_shape(targets, [None]), "frames": frames}

    def features(example: dict, seed=None) -> dict:
        found = example["sound"]
        if front_end:
            if seed is not None:
                own = {name: getattr(augmentation, name) for name in ("speed", "gain", "noise")}
                found = audio.perturb(found, seed, **own)
            found = front_end(found)
        found, _ = audio.normalize(found, normalization)
        if seed is not None:
            masks = {"time": augmentation.time, "frequency": augmentation.frequency}
            found = audio.spec_augment(found, seed + 1, **masks)
        return {"features": found, "targets": example["targets"], "frames": example["frames"]}

    prepared = dataset.map(prepare, tf.data.AUTOTUNE).cache()
    left_out: list[str] = []
    if shuffle is not None:
        prepared, left_out = _without_too_short(prepared, dataset, subsampling)
    if any(vars(augmentation).values()):
        seeds = tf.data.Dataset.random(shuffle, rerandomize_each_iteration=True).batch(2)
        prepared = tf.data.Dataset.zip(prepared, seeds).map(features, tf.data.AUTOTUNE)
    else:
        prepared = prepared.map(features, tf.data.AUTOTUNE).cache()
    made = batches(
        prepared.map(lambda example: (example, tf.shape(example["features"])[0])),
        lambda example, _: example["frames"],
        batch_size,
        boundaries=BOUNDARIES,
        shuffle=shuffle,
        static=static,
    )
    inputs = made.map(
        lambda example, lengths: (
            {"features": example["features"], "lengths": lengths},
            example["targets"],
        )
    )
    return inputs, left_out


def sound_of(contents, front_end: audio.FrontEnd) -> tf.Tensor:
    """The samples of a wav file, `[N]`, at the front end's rate."""
    samples, rate = audio.decode_wav(contents)
    return audio.resample(samples, rate, front_end.rate)


def _without_too_short(prepared: tf.data.Dataset, dataset: tf.data.Dataset, subsampling: int):
    """The recordings that have frames enough for their labels, and the other transcripts."""
    kept, left_out = [], []
    for example, own in zip(prepared, dataset.as_numpy_iterator(), strict=True):
        frames = int(example["frames"]) // subsampling
        kept.append(frames_needed(example["targets"].numpy()) <= frames)
        if not kept[-1]:
            left_out.append(own["transcript"].decode())
    if not any(kept):
        raise DataError(
            f"All {len(kept)} transcripts are longer than their recordings allow, such as "
            f"{left_out[0]!r}: the model hears one frame of {subsampling}."
        )
    if left_out:
        chosen = tf.constant(kept)
        numbered = prepared.enumerate().filter(lambda k, _: chosen[k])
        prepared = numbered.map(lambda _, example: example)
    return prepared, left_out
