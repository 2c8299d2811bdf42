"""Recordings with transcripts, in the graph: transcripts to labels, recordings to features."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import audio, sound
from unroll.pipelines.batching import batches
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text, split_lines, split_words

BLANK = "[BLANK]"
UNITS = ("characters", "words", "phones")
BUFFER_BYTES = 2**28  # of the recordings that a shuffle holds
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
        return split_words(transcript)
    if unknown := [word for word in split_words(transcript) if word not in lexicon]:
        raise DataError(f"The lexicon has no word {unknown[0]!r} of the transcript {transcript!r}.")
    return [phone for word in split_words(transcript) for phone in lexicon[word]]


def labels_of(transcripts: Sequence[str], units: Callable[[str], list[str]]) -> list[str]:
    """The labels of some transcripts, sorted.

    Args:
        transcripts: all of the training split, and no others.
        units: turns a transcript into labels.

    Raises:
        DataError: if a label has the name of the blank.
    """
    labels = {label for transcript in transcripts for label in units(transcript)}
    if BLANK in labels:
        raise DataError(f"A transcript has the label {BLANK!r}, which is the name of the blank.")
    return sorted(labels)


def join_units(labels: Sequence[str], unit: str) -> str:
    """The transcript of labels. Phones are not converted to words."""
    return ("" if unit == "characters" else " ").join(labels)


def read_lexicon(path) -> dict[str, list[str]]:
    """Words and their phones, from lines `WORD PH OH NE`. The first pronunciation is used.

    Raises:
        DataError: if the file cannot be read, or a line has no phones.
    """
    lexicon: dict[str, list[str]] = {}
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        word, *phones = split_words(line) or [""]
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


@dataclass(frozen=True)
class Survey:
    """What is known of a split before its recordings are decoded.

    Attributes:
        transcripts: of each recording.
        frames: of each recording, `[N]`: the number of frames of its features.
        mean_bytes: the mean size of an example in memory.
    """

    transcripts: list[str]
    frames: np.ndarray
    mean_bytes: float

    def __len__(self) -> int:
        return len(self.transcripts)


def survey(dataset: tf.data.Dataset, front_end: audio.FrontEnd | None) -> Survey:
    """Reads the transcripts and the lengths of the recordings of a split.

    Args:
        dataset, front_end: as in `speech_batches`.
    """

    def measured(example: dict) -> tuple:
        if "features" in example:
            frames = tf.shape(example["features"])[0]
            return example["transcript"], frames, 4 * tf.size(example["features"])
        if "path" in example:
            count, rate, size = example["samples"], example["rate"], example["path"]
        else:
            (count, rate), size = sound.wav_size(example["audio"]), example["audio"]
        count = audio.resampled_length(count, tf.maximum(rate, 1), front_end.rate)
        return example["transcript"], count // front_end.hop, tf.strings.length(size)

    found = list(dataset.map(measured, tf.data.AUTOTUNE).as_numpy_iterator())
    transcripts, frames, sizes = zip(*found, strict=True) if found else ((), (), ())
    return Survey(
        [transcript.decode() for transcript in transcripts],
        np.array(frames, "int64"),
        float(np.mean(sizes)) if sizes else 0.0,
    )


def speech_batches(
    dataset: tf.data.Dataset,
    surveyed: Survey,
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

    Recordings are shuffled and grouped to batches as paths, or as wav files of at most
    `BUFFER_BYTES`, and decoded afterwards, some batches in parallel: the memory does not depend on
    the number of recordings.

    Args:
        dataset: of `{"transcript"}` and `"audio"`, a wav file, or `"path"`, `"samples"` and
            `"rate"` of a sound file, or `"features"`, `[T, F]`.
        surveyed: the dataset's `survey`.
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
    fold_in = tf.random.experimental.stateless_fold_in
    ids = {label: k for k, label in enumerate(labels)}
    augmentation = augmentation or Augmentation()
    targets = [
        np.array([ids.get(label, len(labels)) for label in units(transcript)], "int32")
        for transcript in surveyed.transcripts
    ]
    # The largest number of frames after a change of speed.
    slowest = 1 - augmentation.speed if front_end else 1
    frames = np.ceil(surveyed.frames / slowest).astype("int32")
    kept = np.ones(len(targets), bool)
    if shuffle is not None:
        kept = np.array(
            [
                frames_needed(row) <= count // subsampling
                for row, count in zip(targets, surveyed.frames, strict=True)
            ]
        )
        _require_some(kept, surveyed, subsampling)
    known = tf.data.Dataset.from_tensor_slices(
        {
            "targets": tf.RaggedTensor.from_row_lengths(
                np.concatenate(targets), [len(row) for row in targets]
            ),
            "frames": frames,
            "kept": kept,
        }
    )

    def recordings_of(batch: dict) -> tf.Tensor:
        if "path" not in batch:
            return batch["features" if front_end is None else "audio"]
        return tf.ensure_shape(tf.numpy_function(_read_all, [batch["path"]], tf.string), [None])

    def features(recording, length, seed=None) -> tf.Tensor:
        if front_end is None:
            x = recording[:length]
        else:
            x = waveform(recording, front_end.rate)
            if seed is not None:
                options = {name: getattr(augmentation, name) for name in ("speed", "gain", "noise")}
                x = audio.perturb(x, seed, **options)
            x = front_end(x)
        x, _ = audio.normalize(x, normalization)
        if seed is not None:
            masks = {"time": augmentation.time, "frequency": augmentation.frequency}
            x = audio.spec_augment(x, seed + 1, **masks)
        return x

    def prepare(batch: dict, seed=None) -> tuple:
        size = batch["features"].shape[-1] if front_end is None else front_end.size
        given = [recordings_of(batch), batch["frames"]]
        if seed is not None:
            indices = tf.range(tf.shape(batch["frames"])[0])
            given.append(tf.map_fn(lambda k: fold_in(seed, k), indices, tf.int32))
        ragged = tf.map_fn(
            lambda each: features(*each),
            tuple(given),
            fn_output_signature=tf.RaggedTensorSpec([None, size], tf.float32, ragged_rank=0),
            parallel_iterations=2,
        )
        x, lengths = ragged.to_tensor(shape=[None, None, size]), ragged.row_lengths()
        if static:  # the labels have been padded to the length of the bucket
            missing = tf.shape(batch["targets"])[1] - tf.shape(x)[1]
            x = tf.pad(x, [[0, 0], [0, missing], [0, 0]])
        return {"features": x, "lengths": tf.cast(lengths, tf.int32)}, batch["targets"]

    examples = tf.data.Dataset.zip(dataset, known).filter(lambda _, own: own["kept"])
    needed = {"path", "audio", "features"}
    examples = examples.map(
        lambda example, own: {
            **{name: value for name, value in example.items() if name in needed},
            "targets": own["targets"],
            "frames": own["frames"],
        }
    )
    made = batches(
        examples,
        lambda example: example["frames"],
        batch_size,
        boundaries=BOUNDARIES,
        shuffle=shuffle,
        static=static,
        lengths=frames[kept],
        buffer=max(1, int(BUFFER_BYTES / max(surveyed.mean_bytes, 1))),
    )
    if any(vars(augmentation).values()):
        seeds = tf.data.Dataset.random(shuffle, rerandomize_each_iteration=True).batch(2)
        made = tf.data.Dataset.zip(made, seeds.map(lambda seed: tf.cast(seed, tf.int32)))
    skipped = [
        text for text, is_kept in zip(surveyed.transcripts, kept, strict=True) if not is_kept
    ]
    return made.map(prepare, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE), skipped


def _read_all(paths: np.ndarray) -> np.ndarray:
    return np.array(
        [sound.to_wav(sound.read_bytes(path), os.fsdecode(path)) for path in paths], object
    )


def _require_some(kept: np.ndarray, surveyed: Survey, subsampling: int) -> None:
    if not kept.any():
        raise DataError(
            f"All {len(kept)} recordings have too few frames for their transcripts, such as "
            f"{surveyed.transcripts[0]!r}: the model has one output frame for {subsampling} input "
            "frames."
        )


def waveform(contents, rate: int) -> tf.Tensor:
    """The samples of a wav file, `[N]`, resampled to `rate` in Hz. None if it cannot be decoded."""
    samples, own_rate, _ = sound.decode_wav(contents)
    return audio.resample(samples, own_rate, rate)
