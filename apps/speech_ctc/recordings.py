"""Recordings as the verbs take them: their bytes, their transcripts, what is known of them."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.pipelines import audio
from unroll.pipelines.datasets.speech import spoken_digits

# What serving and scoring need to know of a configuration.
SETTINGS = (
    "unit",
    "normalization",
    "convolutions",
    "beam_width",
    "lm_weight",
    "word_bonus",
    "hot_words",
)


def front_end_of(settings: dict) -> audio.FrontEnd | None:
    """What makes features of samples; `None` where the dataset has features."""
    return audio.FrontEnd(**settings["front_end"]) if settings["front_end"] else None


def transcripts(dataset: tf.data.Dataset) -> list[str]:
    """Those of a split."""
    texts = dataset.map(lambda example: example["transcript"])
    return [text.decode() for text in texts.as_numpy_iterator()]


def report_left_out(texts: list[str]) -> None:
    """Tells, on the standard error, of transcripts that CTC cannot write over their recordings."""
    if texts:
        named = "; ".join(map(repr, texts[:3])) + (" ..." if len(texts) > 3 else "")
        print(
            f"unroll: {len(texts)} transcripts are longer than their recordings allow and are left "
            f"out of training: {named}",
            file=sys.stderr,
        )


def read(given: str | bytes) -> bytes:
    """The bytes of a wav file, of a flac file as a wav file, or of a file of MFCCs.

    Raises:
        UsageError: if it cannot be read.
    """
    if isinstance(given, bytes):
        return given
    try:
        contents = Path(given).read_bytes()
        if contents[:4] == b"fLaC":
            samples, rate = soundfile.read(io.BytesIO(contents), dtype="float32", always_2d=True)
            contents = audio.encode_wav(samples.mean(axis=1), rate).numpy()
    except OSError as error:
        raise UsageError(f"{given}: {error.strerror}.") from None
    except soundfile.SoundFileError as error:
        raise UsageError(f"{given}: {str(error).rstrip('.')}.") from None
    return contents


def examples() -> list[bytes]:
    """Some generated wav files."""
    found = spoken_digits.recordings("test", 3)
    return [audio.encode_wav(samples, spoken_digits.RATE).numpy() for *_, samples in found]


def mfcc_bytes(contents: bytes) -> bytes:
    """A file of 13 MFCCs of a wav file, in Sphinx's form; those of another front end than CMU's."""
    if contents[:4] != b"RIFF":
        return contents
    front_end = audio.FrontEnd(rate=16000, window=410, hop=160, cepstra=13)
    samples, rate = audio.decode_wav(contents)
    features = front_end(audio.resample(samples, rate, front_end.rate)).numpy()
    return struct.pack(">i", features.size) + np.asarray(features, ">f4").tobytes()
