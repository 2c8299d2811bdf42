"""Recordings with transcripts, in the graph: transcripts to labels, recordings to features."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import audio, sound
from unroll.pipelines.batching import batches, prefetched
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import read_text, split_lines, split_words

BLANK = "[BLANK]"
# What a recording is given as: the path of a file, the bytes of a wav file, or features.
_RECORDINGS = ("path", "audio", "features")
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
    augmentation = augmentation or Augmentation()
    ids = {label: k for k, label in enumerate(labels)}
    targets = [
        np.array([ids.get(label, len(labels)) for label in units(transcript)], "int32")
        for transcript in surveyed.transcripts
    ]
    kept = np.ones(len(targets), bool)
    if shuffle is not None:
        frames = surveyed.frames // subsampling
        kept = np.array([frames_needed(row) <= n for row, n in zip(targets, frames, strict=True)])
        if not kept.any():
            raise DataError(
                f"All {len(kept)} recordings have too few frames for their transcripts, such as "
                f"{surveyed.transcripts[0]!r}: the model has one output frame for {subsampling} "
                "input frames."
            )
    # The largest number of frames after a change of speed.
    slowest = 1 - augmentation.speed if front_end else 1
    frames = np.ceil(surveyed.frames / slowest).astype("int32")
    made = batches(
        _recordings(dataset, targets, frames, kept),
        lambda recording: recording["frames"],
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
    made = made.map(_Decoder(front_end, normalization, augmentation, static), tf.data.AUTOTUNE)
    skipped = [text for text, kept in zip(surveyed.transcripts, kept, strict=True) if not kept]
    return prefetched(made), skipped


def _recordings(dataset, targets: list, frames: np.ndarray, kept: np.ndarray) -> tf.data.Dataset:
    """The recordings that are kept, not decoded, each with its labels and number of frames."""
    lengths = [len(row) for row in targets]
    known = tf.data.Dataset.from_tensor_slices(
        {
            "targets": tf.RaggedTensor.from_row_lengths(np.concatenate(targets), lengths),
            "frames": frames,
            "kept": kept,
        }
    )

    def merge(example: dict, own: dict) -> dict:
        recording = {name: example[name] for name in _RECORDINGS if name in example}
        return recording | {"targets": own["targets"], "frames": own["frames"]}

    return tf.data.Dataset.zip(dataset, known).filter(lambda _, own: own["kept"]).map(merge)


@dataclass(frozen=True)
class _Decoder:
    """Turns a batch of recordings that are not decoded into features and labels.

    The call arguments are the batch and, for an augmentation, a seed `[2]`.
    """

    front_end: audio.FrontEnd | None
    normalization: str
    augmentation: Augmentation
    static: bool

    def __call__(self, batch: dict, seed=None) -> tuple[dict, tf.Tensor]:
        [recordings] = (batch[name] for name in _RECORDINGS if name in batch)
        if "path" in batch:
            recordings = tf.numpy_function(_read_all, [recordings], tf.string)
            recordings = tf.ensure_shape(recordings, [None])
        given = [recordings, batch["frames"]]
        if seed is not None:
            fold_in = tf.random.experimental.stateless_fold_in
            indices = tf.range(tf.shape(batch["frames"])[0])
            seeds = tf.map_fn(
                lambda k: fold_in(seed, k),
                indices,
                fn_output_signature=tf.TensorSpec([2], tf.int32),
            )
            given.append(seeds)
        size = self.front_end.size if self.front_end else recordings.shape[-1]
        ragged = tf.map_fn(
            lambda each: self._features(*each),
            tuple(given),
            fn_output_signature=tf.RaggedTensorSpec([None, size], tf.float32, ragged_rank=0),
            parallel_iterations=2,
        )
        x, lengths = ragged.to_tensor(shape=[None, None, size]), ragged.row_lengths()
        if self.static:  # the labels have been padded to the length of the bucket
            missing = tf.shape(batch["targets"])[1] - tf.shape(x)[1]
            x = tf.pad(x, [[0, 0], [0, missing], [0, 0]])
        return {"features": x, "lengths": tf.cast(lengths, tf.int32)}, batch["targets"]

    def _features(self, recording, frames, seed=None) -> tf.Tensor:
        augment = self.augmentation
        if self.front_end:
            x = waveform(recording, self.front_end.rate)
            if seed is not None:
                x = audio.perturb(
                    x, seed, speed=augment.speed, gain=augment.gain, noise=augment.noise
                )
            x = self.front_end(x)
        else:
            x = recording[:frames]
        x, _ = audio.normalize(x, self.normalization)
        if seed is not None:
            x = audio.spec_augment(x, seed + 1, time=augment.time, frequency=augment.frequency)
        return x


def _read_all(paths: np.ndarray) -> np.ndarray:
    wavs = [sound.to_wav(sound.read_bytes(path), os.fsdecode(path)) for path in paths]
    return np.array(wavs, object)


def waveform(contents, rate: int) -> tf.Tensor:
    """The samples of a wav file, `[N]`, resampled to `rate` in Hz. N is 0 if it is not decoded."""
    samples, own_rate, _ = sound.decode_wav(contents)
    return audio.resample(samples, own_rate, rate)
