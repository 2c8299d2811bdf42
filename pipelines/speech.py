"""Recordings with transcripts, in the graph: transcripts to labels, recordings to features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import audio
from unroll.pipelines.batching import batches
from unroll.pipelines.errors import DataError

BLANK = "[BLANK]"
UNITS = ("characters", "words", "phones")
# The lengths in frames at which a new bucket of recordings begins.
BOUNDARIES = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)


def split_units(transcript: str, unit: str, lexicon: dict[str, list[str]]) -> list[str]:
    """The labels of a transcript: its characters, its words, or the phones of its words.

    Raises:
        DataError: if a word is not in the lexicon.
    """
    if unit == "characters":
        return list(transcript)
    if unit == "words":
        return transcript.split()
    if unknown := [word for word in transcript.split() if word not in lexicon]:
        raise DataError(f"The lexicon has no word {unknown[0]!r} of the transcript {transcript!r}.")
    return [phone for word in transcript.split() for phone in lexicon[word]]


def join_units(labels: Sequence[str], unit: str) -> str:
    """The transcript of labels. Phones are not converted to words."""
    return ("" if unit == "characters" else " ").join(labels)


def read_lexicon(path) -> dict[str, list[str]]:
    """Words and their phones, from lines `WORD PH OH NE`. The first pronunciation is used.

    Raises:
        DataError: if a line has no phones.
    """
    lexicon: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise DataError(f"{path}, line {number}: {word!r} has no phones.")
            if word:
                lexicon.setdefault(word, phones)
    return lexicon


@dataclass(frozen=True)
class Augmentation:
    """Arguments of `pipelines.audio.perturb` and `pipelines.audio.spec_augment`."""

    speed: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    time: int = 0
    frequency: int = 0


def frames_needed(labels: np.ndarray) -> int:
    """The frames that CTC needs for labels `[L]`: L, and one between each two equal labels."""
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
        front_end: turns samples into features; `None` if the dataset has features.
        labels: all K labels, the blank first.
        units: turns a transcript into labels.
        normalization: as in `pipelines.audio.normalize`.
        subsampling: the number of input frames of one output frame of the model.
        batch_size: B.
        augmentation: for training. It is different in each epoch.
        shuffle, static: as in `batches`.

    Returns:
        Batches of `({"features": [B, T, F], "lengths": [B]}, labels [B, L])`, padded with zeros; a
        label that is not in `labels` has the id K. And the transcripts of skipped recordings: if
        `shuffle` is given, that is in training, recordings with too few frames for their labels are
        skipped.

    Raises:
        DataError: if all recordings are skipped.
    """
    ids = {label: k for k, label in enumerate(labels)}
    augmentation = augmentation or Augmentation()

    def encode(transcript: bytes) -> np.ndarray:
        return np.array([ids.get(x, len(labels)) for x in units(transcript.decode())], "int32")

    def prepare(example: dict) -> dict:
        if front_end is None:
            signal, frames = example["features"], tf.shape(example["features"])[0]
        else:
            signal = waveform(example["audio"], front_end.rate)
            frames = tf.shape(signal)[0] // front_end.hop
        targets = tf.numpy_function(encode, [example["transcript"]], tf.int32)
        # The largest number of frames after a change of speed.
        most = tf.math.ceil(tf.cast(frames, tf.float32) / (1 - augmentation.speed))
        return {
            "signal": signal,
            "targets": tf.ensure_shape(targets, [None]),
            "frames": tf.cast(most, tf.int32),
        }

    def features(example: dict, seed=None) -> dict:
        x = example["signal"]
        if front_end:
            if seed is not None:
                options = {name: getattr(augmentation, name) for name in ("speed", "gain", "noise")}
                x = audio.perturb(x, seed, **options)
            x = front_end(x)
        x, _ = audio.normalize(x, normalization)
        if seed is not None:
            masks = {"time": augmentation.time, "frequency": augmentation.frequency}
            x = audio.spec_augment(x, seed + 1, **masks)
        return {"features": x, "targets": example["targets"], "frames": example["frames"]}

    prepared = dataset.map(prepare, tf.data.AUTOTUNE).cache()
    skipped: list[str] = []
    if shuffle is not None:
        prepared, skipped = _skip_too_short(prepared, dataset, subsampling)
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
    return inputs, skipped


def waveform(contents, rate: int) -> tf.Tensor:
    """The samples of a wav file, `[N]`, resampled to `rate` in Hz."""
    samples, own_rate = audio.decode_wav(contents)
    return audio.resample(samples, own_rate, rate)


def _skip_too_short(prepared: tf.data.Dataset, dataset: tf.data.Dataset, subsampling: int):
    """The recordings with enough frames for their labels, and the transcripts of the others."""
    keep, skipped = [], []
    for example, raw in zip(prepared, dataset.as_numpy_iterator(), strict=True):
        frames = int(example["frames"]) // subsampling
        keep.append(frames_needed(example["targets"].numpy()) <= frames)
        if not keep[-1]:
            skipped.append(raw["transcript"].decode())
    if not any(keep):
        raise DataError(
            f"All {len(keep)} recordings have too few frames for their transcripts, such as "
            f"{skipped[0]!r}: the model has one output frame for {subsampling} input frames."
        )
    if skipped:
        mask = tf.constant(keep)
        indexed = prepared.enumerate().filter(lambda k, _: mask[k])
        prepared = indexed.map(lambda _, example: example)
    return prepared, skipped
