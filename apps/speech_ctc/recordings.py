"""Recordings: their bytes and features, and what is said about those that training leaves out."""

import struct
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Assets, Trained
from unroll.pipelines import audio, sound, speech
from unroll.pipelines.datasets.speech import spoken_digits

# Of the recordings of a batch, each padded to the longest: what a request to a server can take.
MAX_BATCH_SECONDS = 3600
_MFCC_HOP = 0.01  # seconds between the frames of a dataset of MFCCs
_MAX_MFCC = 1e4
_MAX_NAMED = 5  # labels or transcripts that a message names


def front_end(assets: Assets) -> audio.FrontEnd | None:
    """Turns samples into features. `None` if the dataset has features instead of samples."""
    options = assets["interface"]["front_end"]
    return audio.FrontEnd(**options) if options else None


def seconds_per_frame(trained: Trained) -> float:
    """Time between two frames of the model's output."""
    made = front_end(trained.assets)
    hop = made.hop / made.rate if made else _MFCC_HOP
    return hop * trained.config.subsampling


def report_left_out(texts: list[str]) -> None:
    """Names the transcripts that are too long for CTC, on the standard error."""
    if texts:
        named = "; ".join(map(repr, texts[:3])) + ("; ..." if len(texts) > 3 else "")
        print(
            f"unroll: {len(texts)} training transcripts are too long for their recordings and are "
            f"left out: {named}",
            file=sys.stderr,
        )


def report_unknown(
    transcripts: list[str], units: Callable[[str], list[str]], assets: Assets, split: str
) -> None:
    """Counts the labels of a split that training did not have, on the standard error."""
    known = set(assets["labels"])
    counts = Counter(label for text in transcripts for label in units(text) if label not in known)
    if counts:
        named = ", ".join(f"{label!r} ({n})" for label, n in counts.most_common(_MAX_NAMED))
        more = ", ..." if len(counts) > _MAX_NAMED else ""
        print(
            f"unroll: {len(counts)} labels of {split} are not in the training transcripts, and "
            f"each of their {counts.total()} occurrences counts as an error: {named}{more}",
            file=sys.stderr,
        )


def read(recording: str | bytes, trained: Trained) -> bytes:
    """A recording, given by its bytes or its path, as the exported functions read it.

    That is a wav file, or a file of MFCCs if the model was trained on such.

    Raises:
        DataError: one line, if the recording cannot be read.
    """
    is_path = isinstance(recording, str)
    name = recording if is_path else "The recording"
    contents = sound.read_bytes(recording) if is_path else recording
    if front_end(trained.assets):
        return sound.to_wav(contents, name)
    size = trained.assets["interface"]["features"]
    _, error = _read_mfccs(tf.constant(contents), size, sound.MAX_SECONDS)
    return mfcc_file(sound.to_wav(contents, name)) if error.numpy() else contents


def feature_batch(contents, trained: Trained) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The features of recordings `[B]` as a batch, in the graph.

    Returns:
        Features `[B, T, F]`, at least as long as one frame of the model's output; their lengths
        `[B]`; and strings `[B]`: why a recording has no features, or empty.
    """
    size = trained.assets["interface"]["features"]
    count = tf.cast(tf.maximum(tf.size(contents), 1), tf.float64)
    most = tf.minimum(tf.constant(sound.MAX_SECONDS, tf.float64), MAX_BATCH_SECONDS / count)
    ragged, errors = tf.map_fn(
        lambda each: _features(each, trained, most),
        contents,
        fn_output_signature=(
            tf.RaggedTensorSpec([None, size], tf.float32, ragged_rank=0),
            tf.TensorSpec([], tf.string),
        ),
        parallel_iterations=2,
    )
    lengths = tf.cast(ragged.row_lengths(), tf.int32)
    padded = ragged.to_tensor(shape=[None, None, size])
    return at_least_one_frame(padded, trained.config), lengths, errors


def at_least_one_frame(features: tf.Tensor, config) -> tf.Tensor:
    """Features `[B, T, F]`, padded with zeros if they are shorter than a frame of the output."""
    missing = tf.maximum(0, config.subsampling - tf.shape(features)[1])
    return tf.pad(features, [[0, 0], [0, missing], [0, 0]])


def _features(contents, trained: Trained, max_seconds) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of one recording, `[T, F]`, and why it has none."""
    made, config = front_end(trained.assets), trained.config
    if made:
        samples, rate, error = sound.decode_wav(contents, max_seconds)
        found = made(audio.resample(samples, rate, made.rate))
    else:
        size = trained.assets["interface"]["features"]
        found, error = _read_mfccs(contents, size, max_seconds)
    is_short = (error == b"") & (tf.shape(found)[0] < config.subsampling)
    error = tf.where(is_short, f"shorter than {seconds_per_frame(trained):g} seconds", error)
    found = found[: tf.where(error == b"", tf.shape(found)[0], 0)]
    return audio.normalize(found, config.normalization)[0], error


def _read_mfccs(contents, size: int, max_seconds) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of a file of Sphinx, `[T, size]`, and why there are none.

    The file holds the number of values, big-endian, followed by the values.
    """
    words = tf.strings.length(contents) // 4
    whole = tf.strings.substr(contents, 0, 4 * words)
    count = tf.io.decode_raw(tf.strings.substr(whole, 0, 4), tf.int32, little_endian=False)
    count = tf.cond(words > 0, lambda: count[0], lambda: 0)
    is_whole = (count > 0) & (count == words - 1) & (count % size == 0)
    is_whole &= 4 * words == tf.strings.length(contents)
    values = tf.io.decode_raw(whole, tf.float32, little_endian=False)[1:]
    is_valid = is_whole & tf.reduce_all(tf.abs(values) <= _MAX_MFCC)  # false for NaN
    seconds = tf.cast(count // size, tf.float64) * _MFCC_HOP
    is_long = seconds > tf.cast(max_seconds, tf.float64)
    error = tf.where(is_long, "too long", "")
    error = tf.where(is_valid, error, f"not a file of {size} MFCCs per frame")
    used = tf.where(error == b"", count, 0)
    return tf.reshape(values[:used], [-1, size]), error


def mfcc_file(contents: bytes) -> bytes:
    """A wav file as a file of 13 MFCCs in the format of Sphinx. Other files are not changed.

    The front end differs from that of the published MFCCs, so that a model trained on those
    recognizes wav files less well.
    """
    if contents[:4] != b"RIFF":
        return contents
    made = audio.FrontEnd(rate=16000, window=410, hop=160, cepstra=13)
    found = made(speech.waveform(contents, made.rate)).numpy()
    return struct.pack(">i", found.size) + np.asarray(found, ">f4").tobytes()


def examples() -> list[bytes]:
    """Some generated wav files."""
    found = spoken_digits.recordings("test", 3)
    return [sound.encode_wav(samples, spoken_digits.RATE).numpy() for *_, samples in found]
