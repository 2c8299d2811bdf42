"""Recordings: their bytes, transcripts and features."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Trained
from unroll.pipelines import audio, speech
from unroll.pipelines.datasets.speech import spoken_digits

_MFCC_HOP = 0.01  # seconds between the frames of a dataset of MFCCs


def front_end(assets: Assets) -> audio.FrontEnd | None:
    """Turns samples into features. `None` if the dataset has features instead of samples."""
    options = assets["interface"]["front_end"]
    return audio.FrontEnd(**options) if options else None


def seconds_per_frame(trained: Trained) -> float:
    """Time between two frames of the model's output."""
    made = front_end(trained.assets)
    hop = made.hop / made.rate if made else _MFCC_HOP
    return hop * trained.config.subsampling


def transcripts(dataset: tf.data.Dataset) -> list[str]:
    """The transcripts of a split."""
    texts = dataset.map(lambda example: example["transcript"])
    return [text.decode() for text in texts.as_numpy_iterator()]


def report_left_out(texts: list[str]) -> None:
    """Names the transcripts that are too long for CTC, on the standard error."""
    if texts:
        named = "; ".join(map(repr, texts[:3])) + ("; ..." if len(texts) > 3 else "")
        print(
            f"unroll: {len(texts)} training transcripts are too long for their recordings and are "
            f"left out: {named}",
            file=sys.stderr,
        )


def read(recording: str | bytes) -> bytes:
    """The bytes of a recording, given itself or its path. A flac file becomes a wav file.

    Raises:
        UsageError: if the file cannot be read.
    """
    if isinstance(recording, bytes):
        return recording
    try:
        contents = Path(recording).read_bytes()
        if contents[:4] == b"fLaC":
            samples, rate = soundfile.read(io.BytesIO(contents), dtype="float32", always_2d=True)
            contents = audio.encode_wav(samples.mean(axis=1), rate).numpy()
    except OSError as error:
        raise UsageError(f"{recording}: {error.strerror}.") from None
    except soundfile.SoundFileError as error:
        raise UsageError(f"{recording}: {str(error).rstrip('.')}.") from None
    return contents


def features(contents, trained: Trained) -> tf.Tensor:
    """The features of one recording, `[T, F]`: of a wav file, or of a file of MFCCs."""
    made = front_end(trained.assets)
    if made:
        found = made(speech.waveform(contents, made.rate))
    else:
        size = trained.assets["interface"]["features"]
        # The values follow their number, which has four bytes.
        count = tf.maximum(tf.strings.length(contents) // 4 - 1, 0)
        data = tf.strings.substr(contents + "\0\0\0\0", 4, 4 * count)
        values = tf.io.decode_raw(data, tf.float32, little_endian=False)
        # The bytes of another kind of file can be any numbers.
        values = tf.clip_by_value(tf.where(tf.math.is_finite(values), values, 0.0), -1e4, 1e4)
        found = tf.reshape(values[: tf.size(values) // size * size], [-1, size])
    return audio.normalize(found, trained.config.normalization)[0]


def feature_batch(contents, trained: Trained) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of recordings `[B]` as a batch, `[B, T, F]`, and their lengths, `[B]`.

    The batch is at least as long as one frame of the model's output.
    """
    size = trained.assets["interface"]["features"]
    ragged = tf.map_fn(
        lambda each: features(each, trained),
        contents,
        fn_output_signature=tf.RaggedTensorSpec([None, size], tf.float32, ragged_rank=0),
    )
    lengths = tf.cast(ragged.row_lengths(), tf.int32)
    padded = ragged.to_tensor(shape=[None, None, size])
    missing = tf.maximum(0, trained.config.subsampling - tf.shape(padded)[1])
    return tf.pad(padded, [[0, 0], [0, missing], [0, 0]]), lengths


def logits(contents: bytes, trained: Trained) -> np.ndarray:
    """The model's output for one recording, `[T, K]`."""
    if front_end(trained.assets) is None:
        contents = mfcc_file(contents)
    batch, lengths = feature_batch(tf.constant([contents]), trained)
    found = trained.model({"features": batch, "lengths": lengths}, training=False)
    return found[0, : int(lengths[0]) // trained.config.subsampling].numpy()


def mfcc_file(contents: bytes) -> bytes:
    """A wav file as a file of 13 MFCCs in the format of Sphinx. Other files are not changed.

    The front end differs from that of the published MFCCs, so that a model trained on those
    recognizes wav files less well.
    """
    if contents[:4] != b"RIFF":
        return contents
    made = audio.FrontEnd(rate=16000, window=410, hop=160, cepstra=13)
    samples, rate = audio.decode_wav(contents)
    found = made(audio.resample(samples, rate, made.rate)).numpy()
    return struct.pack(">i", found.size) + np.asarray(found, ">f4").tobytes()


def examples() -> list[bytes]:
    """Some generated wav files."""
    found = spoken_digits.recordings("test", 3)
    return [audio.encode_wav(samples, spoken_digits.RATE).numpy() for *_, samples in found]
