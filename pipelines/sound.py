"""Sound files to samples: wav files in the graph, all formats of libsndfile on the host.

The sample rate, the number of channels and the duration that a file states are checked before
memory is taken for its samples.
"""

import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import tensorflow as tf

from unroll.pipelines.errors import DataError

RATES = (1_000, 768_000)  # in Hz, the lowest and the highest
MAX_CHANNELS = 64
MAX_SECONDS = 600
MAX_BYTES = 2**30
# Float samples are clipped to [-1, 1]. Beyond this they are not samples in [-1, 1] at all, but
# integers, or bytes of something else.
_MAX_SAMPLE = 100.0
_MAX_CHUNKS = 100  # that are searched for the samples
_BLOCK = 2**16  # frames that are decoded at once on the host

_RANGE = "numbers in [-1, 1]"

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# The identifiers of a W64 file and of its content.
_W64 = [
    bytes.fromhex("726966662e91cf11a5d628db04c10000"),
    bytes.fromhex("77617665f3acd3118cd100c04f8edb8a"),
]


class Sound(NamedTuple):
    """The samples of a sound file.

    Attributes:
        samples: `[N]`, float32 in [-1, 1], averaged over the channels.
        rate: in Hz, int32.
        error: why there are no samples, a string; empty if there are. The rate is then 0.
    """

    samples: tf.Tensor
    rate: tf.Tensor
    error: tf.Tensor


class _Header(NamedTuple):
    """What a wav file says about itself. All are int64 scalars but the error, a string."""

    kind: tf.Tensor  # the code of the encoding
    width: tf.Tensor  # bytes of a sample
    channels: tf.Tensor
    rate: tf.Tensor
    begin: tf.Tensor  # where the samples begin
    frames: tf.Tensor
    error: tf.Tensor


def decode_wav(contents, max_seconds=MAX_SECONDS) -> Sound:
    """The samples of a wav file, in the graph.

    It reads RIFF, RF64 and W64 with PCM of 8, 16, 24 or 32 bits, floats of 32 or 64 bits, mu-law
    and A-law. A file that is shorter than it says has the samples that are there.

    Args:
        contents: the bytes of the file, a scalar string.
        max_seconds: a longer recording is an error.

    >>> samples, rate, error = decode_wav(b"text")
    >>> samples.shape, int(rate), error.numpy().decode()
    (TensorShape([0]), 0, 'not a wav file (RIFF, RF64 or W64)')
    """
    contents = tf.convert_to_tensor(contents)
    header = _read_header(contents, max_seconds)
    samples = tf.cond(header.error == b"", lambda: _decode(contents, header), lambda: tf.zeros([0]))
    valid = tf.reduce_all(tf.abs(samples) <= _MAX_SAMPLE)  # false for NaN
    error = tf.where(valid, header.error, f"the float samples are not {_RANGE}")
    is_read = error == b""
    samples = tf.clip_by_value(tf.boolean_mask(samples, tf.fill(tf.shape(samples), is_read)), -1, 1)
    rate = tf.cast(tf.where(is_read, header.rate, 0), tf.int32)
    return Sound(tf.ensure_shape(samples, [None]), rate, error)


def wav_size(contents) -> tuple[tf.Tensor, tf.Tensor]:
    """The number of samples of each channel of a wav file, int64, and its rate in Hz, int32.

    Both are 0 if `decode_wav` does not read the file.
    """
    header = _read_header(tf.convert_to_tensor(contents), MAX_SECONDS)
    is_read = header.error == b""
    return tf.where(is_read, header.frames, 0), tf.cast(tf.where(is_read, header.rate, 0), tf.int32)


def _read_header(contents, max_seconds) -> _Header:
    size = tf.cast(tf.strings.length(contents), tf.int64)

    def text(offset, length):
        return tf.strings.substr(contents, tf.minimum(tf.cast(offset, tf.int64), size), length)

    def integer(offset, length):
        return _integer(tf.io.decode_raw(text(offset, length), tf.uint8))

    is_rf64 = text(0, 4) == b"RF64"
    is_w64 = (text(0, 16) == _W64[0]) & (text(24, 16) == _W64[1])
    is_wav = is_w64 | (((text(0, 4) == b"RIFF") | is_rf64) & (text(8, 4) == b"WAVE"))
    # The bytes of the name and the size of a chunk, and what a chunk is rounded up to.
    head, multiple = (
        tf.where(is_w64, tf.constant(of_w64, tf.int64), tf.constant(otherwise, tf.int64))
        for of_w64, otherwise in ((24, 8), (8, 2))
    )

    def next_chunk(offset, form, begin, length):
        own = tf.cond(is_w64, lambda: integer(offset + 16, 8) - 24, lambda: integer(offset + 4, 4))
        is_data = text(offset, 4) == b"data"
        # The size in an RF64 file is in its first chunk.
        is_long = is_data & is_rf64 & (own == 2**32 - 1) & (text(12, 4) == b"ds64")
        own = tf.cond(is_long, lambda: integer(28, 8), lambda: own)
        own = tf.where((own < 0) | (own > size), size, own)  # a stream has no size
        form = tf.where(text(offset, 4) == b"fmt ", offset + head, form)
        begin = tf.where(is_data, offset + head, begin)
        length = tf.where(is_data, tf.minimum(own, size - offset - head), length)
        return offset + head + (own + multiple - 1) // multiple * multiple, form, begin, length

    zero = tf.constant(0, tf.int64)
    _, form, begin, length = tf.while_loop(
        lambda offset, form, begin, length: is_wav & (begin == 0) & (offset + head <= size),
        next_chunk,
        (tf.cast(tf.where(is_w64, 40, 12), tf.int64), zero, zero, zero),
        maximum_iterations=_MAX_CHUNKS,
    )
    kind, channels, rate = integer(form, 2), integer(form + 2, 2), integer(form + 4, 4)
    frame, bits = integer(form + 12, 2), integer(form + 14, 2)
    # An extensible format has a longer code, which begins with the code of the encoding.
    kind = tf.where(kind == _EXTENSIBLE, integer(form + 24, 2), kind)
    width = (bits + 7) // 8
    is_known = (kind == _PCM) & (bits >= 1) & (bits <= 32)
    is_known |= (kind == _FLOAT) & ((bits == 32) | (bits == 64))
    is_known |= ((kind == _A_LAW) | (kind == _MU_LAW)) & (bits == 8)
    is_known &= (frame == 0) | (frame == width * channels)
    frames = length // tf.maximum(width * channels, 1)
    seconds = tf.cast(frames, tf.float64) / tf.cast(tf.maximum(rate, 1), tf.float64)
    error = tf.constant("")
    for is_wrong, reason in reversed(
        [
            (size == 0, "empty"),
            (~is_wav, "not a wav file (RIFF, RF64 or W64)"),
            ((form == 0) | (form + 16 > size), "no format: the header is cut off or broken"),
            (
                ~is_known,
                _said(
                    "encoding ", kind, " with ", bits, " bits and ", frame, " bytes for ",
                    channels, " channels is not PCM, float, mu-law or A-law",
                ),
            ),
            (
                (channels < 1) | (channels > MAX_CHANNELS),
                _said(channels, f" channels, must be 1 to {MAX_CHANNELS}"),
            ),
            (
                (rate < RATES[0]) | (rate > RATES[1]),
                _said("sample rate ", rate, f" Hz, must be {RATES[0]} to {RATES[1]}"),
            ),
            (begin == 0, "no samples: the header is cut off or broken"),
            (frames == 0, "no samples"),
            (
                seconds > tf.cast(max_seconds, tf.float64),
                _said(
                    tf.cast(seconds, tf.int64), " seconds, at most ",
                    tf.cast(max_seconds, tf.int64), " are allowed",
                ),
            ),
        ]
    ):  # fmt: skip
        error = tf.where(is_wrong, reason, error)
    return _Header(kind, width, channels, rate, begin, frames, error)


def _integer(data) -> tf.Tensor:
    """A little-endian integer from bytes `[N]`, int64. Bytes that are not there are 0."""
    data = tf.cast(data, tf.int64)
    return tf.reduce_sum(tf.bitwise.left_shift(data, 8 * tf.range(tf.size(data, tf.int64))))


def _said(*parts) -> tf.Tensor:
    """Strings and integers as one string."""
    return tf.strings.join([p if isinstance(p, str) else tf.strings.as_string(p) for p in parts])


def _decode(contents, header: _Header) -> tf.Tensor:
    """The samples of a wav file with a valid header, `[N]`."""
    kind, width, channels = header.kind, header.width, header.channels
    data = tf.strings.substr(contents, header.begin, header.frames * channels * width)

    def floats(dtype):
        values = tf.io.decode_raw(data, dtype)
        return tf.cast(tf.clip_by_value(values, -1e9, 1e9), tf.float32)  # NaN is kept

    def from_table(table):
        return tf.gather(tf.constant(table), tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32))

    values = tf.case(
        [
            (kind == _MU_LAW, lambda: from_table(_mu_law())),
            (kind == _A_LAW, lambda: from_table(_a_law())),
            ((kind == _FLOAT) & (width == 4), lambda: floats(tf.float32)),
            ((kind == _FLOAT) & (width == 8), lambda: floats(tf.float64)),
            (width == 1, lambda: _integers(data, 1) / 128.0 - 1.0),
            (width == 2, lambda: _integers(data, 2) / 2.0**15),
            (width == 3, lambda: _integers(data, 3) / 2.0**23),
        ],
        default=lambda: _integers(data, 4) / 2.0**31,
    )
    shape = tf.stack([header.frames, channels])
    return tf.reduce_mean(tf.reshape(values, shape), axis=1)


def _integers(data, width: int) -> tf.Tensor:
    """Little-endian integers of 1 (unsigned), 2, 3 or 4 bytes, as float32."""
    if width == 1:
        return tf.cast(tf.io.decode_raw(data, tf.uint8), tf.float32)
    if width == 2:
        return tf.cast(tf.io.decode_raw(data, tf.int16), tf.float32)
    if width == 4:
        return tf.cast(tf.io.decode_raw(data, tf.int32), tf.float32)
    low, middle, high = tf.unstack(tf.reshape(tf.io.decode_raw(data, tf.uint8), [-1, 3]), axis=1)
    low, middle = (tf.cast(x, tf.float32) for x in (low, middle))
    return tf.cast(tf.bitcast(high, tf.int8), tf.float32) * 2.0**16 + middle * 2.0**8 + low


def _mu_law() -> np.ndarray:
    """The samples of the 256 codes of ITU-T G.711, mu-law."""
    code = 255 - np.arange(256)
    size = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return (np.where(code & 0x80, -size, size) / 2**15).astype("float32")


def _a_law() -> np.ndarray:
    """The samples of the 256 codes of ITU-T G.711, A-law."""
    code = np.arange(256) ^ 0x55
    segment = (code & 0x70) >> 4
    size = ((code & 0x0F) << 4) + np.where(segment, 0x108, 8) << np.maximum(segment - 1, 0)
    return (np.where(code & 0x80, size, -size) / 2**15).astype("float32")


def encode_wav(samples, rate: int) -> tf.Tensor:
    """A wav file of 16 bits from samples `[N]` in [-1, 1]."""
    return tf.audio.encode_wav(tf.cast(samples, tf.float32)[:, tf.newaxis], rate)


def read_bytes(path: str | bytes | Path) -> bytes:
    """The contents of a file.

    Raises:
        DataError: if it cannot be read or is larger than `MAX_BYTES`.
    """
    name = os.fsdecode(path) or "''"
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise DataError(f"{name} is larger than {MAX_BYTES} bytes.")
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{name} does not exist.") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # a zero byte
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name!r} is not the name of a file.") from None


def to_wav(contents: bytes, name: str = "The recording") -> bytes:
    """A sound file that `decode` reads, as a wav file of one channel and 32-bit floats.

    `decode_wav` gives its samples exactly.
    """
    samples, rate = decode(contents, name)
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", _FLOAT, 1, rate, 4 * rate, 4, 32)
    return b"".join(
        [
            struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE"),
            struct.pack("<4sI", b"fmt ", len(form)),
            form,
            struct.pack("<4sI", b"data", len(data)),
            data,
        ]
    )


def decode(contents: bytes, name: str = "The recording") -> tuple[np.ndarray, int]:
    """The samples of a sound file of any format of libsndfile, on the host.

    Args:
        contents: the bytes of the file.
        name: of the file, for errors.

    Returns:
        `[N]`, float32 in [-1, 1], averaged over the channels, and the rate in Hz.

    Raises:
        DataError: one line, if the file is not a sound file, is damaged or has no samples, or if
            its sample rate, channels or duration are beyond the limits of this module.
    """
    if not contents:
        raise DataError(f"{name} is empty.")
    try:
        with soundfile.SoundFile(_File(contents)) as file:
            rate, samples = file.samplerate, _read_samples(file, name)
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        if "SF_INFO" in reason:  # libsndfile's words for a sample rate of 0, or of 2**31 or more
            reason = "its header has no possible sample rate"
        raise DataError(
            f"{name} cannot be read as sound: {reason}. It must be a wav, flac, mp3, ogg, opus or "
            "aiff file."
        ) from None
    if not np.all(np.abs(samples) <= _MAX_SAMPLE):  # not for NaN either
        raise DataError(f"{name} has float samples that are not {_RANGE}.")
    return np.clip(samples, -1, 1), rate


class _File(io.BytesIO):
    """A file in memory. A position that a damaged header makes negative is the start."""

    def seek(self, offset, whence=os.SEEK_SET):
        return super().seek(offset if whence != os.SEEK_SET else max(offset, 0), whence)


def _read_samples(file: soundfile.SoundFile, name: str) -> np.ndarray:
    """The samples of an open file, averaged over the channels, `[N]`."""
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise DataError(
            f"{name}: sample rate {file.samplerate} Hz, must be {RATES[0]} to {RATES[1]}."
        )
    if file.channels > MAX_CHANNELS:
        raise DataError(f"{name}: {file.channels} channels, must be 1 to {MAX_CHANNELS}.")
    blocks, total = [], 0
    while file.frames > 0 and (not blocks or len(blocks[-1]) == _BLOCK):
        blocks.append(file.read(_BLOCK, dtype="float32", always_2d=True).mean(axis=1))
        total += len(blocks[-1])
        if total > MAX_SECONDS * file.samplerate:
            raise DataError(f"{name} is longer than {MAX_SECONDS} seconds.")
    if not total:
        raise DataError(f"{name} has no samples.")
    return np.concatenate(blocks)
