"""Sound files: wav files in the graph beside soundfile, all formats on the host, hostile files."""

import io
import resource

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tests.pipelines.sound_mutations import mutations
from unroll.pipelines import sound
from unroll.pipelines.errors import DataError

# Traced once for all files.
decode_wav = tf.function(sound.decode_wav, input_signature=[tf.TensorSpec([], tf.string)])
wav_size = tf.function(sound.wav_size, input_signature=[tf.TensorSpec([], tf.string)])

SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def tone(rate=8000, seconds=0.02, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate) * 0.5


def encode(samples, rate=8000, subtype="PCM_16", kind="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=kind)
    return file.getvalue()


def patch(contents: bytes, offset: int, value: int, width: int) -> bytes:
    return contents[:offset] + value.to_bytes(width, "little") + contents[offset + width :]


PLAIN = encode(tone())  # the size of its data is at 40
SAMPLES = soundfile.read(io.BytesIO(PLAIN), dtype="float32")[0]


def header(kind=1, channels=1, rate=8000, bits=16, data=b"\0\0" * 100, frame=None) -> bytes:
    """A wav file with any numbers in its header."""
    frame = channels * bits // 8 if frame is None else frame
    fields = zip((kind, channels, rate, rate * frame, frame, bits), (2, 2, 4, 4, 2, 2), strict=True)
    form = b"".join((value % 256**width).to_bytes(width, "little") for value, width in fields)
    chunks = b"fmt " + (16).to_bytes(4, "little") + form
    chunks += b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64"])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_a_wav_file_is_decoded_as_by_soundfile(kind, subtype):
    for rate, channels in ((8000, 1), (44100, 2), (48000, 3)):
        samples = np.stack([tone(rate, 0.011, 300 + 90 * c) for c in range(channels)], 1)
        contents = encode(samples, rate, subtype, kind)
        found, found_rate, error = decode_wav(tf.constant(contents))
        assert (int(found_rate), error.numpy()) == (rate, b"")
        expected = soundfile.read(io.BytesIO(contents), always_2d=True)[0].mean(axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(found, samples.mean(axis=1), atol=0.02)
        assert [int(x) for x in wav_size(tf.constant(contents))] == [len(samples), rate]
        # The host gives the graph the same samples.
        again = decode_wav(tf.constant(sound.to_wav(contents)))
        np.testing.assert_allclose(again.samples, found, atol=1e-6)


def test_all_codes_of_g711():
    for subtype in ("ULAW", "ALAW"):
        contents = encode(np.zeros(256), subtype=subtype)
        contents = contents[:-256] + bytes(range(256))
        expected = soundfile.read(io.BytesIO(contents))[0]
        assert len(set(expected)) > 250
        np.testing.assert_array_equal(decode_wav(tf.constant(contents)).samples, expected)


def test_other_chunks_and_wrong_sizes():
    extra = b"LIST" + (5).to_bytes(4, "little") + b"abcde\0"
    variants = [PLAIN[:12] + extra + PLAIN[12:], PLAIN + extra]
    variants += [patch(PLAIN, 40, size, 4) for size in (2**32 - 1, 2**31 - 1, 2**31, 10**6)]
    variants += [patch(PLAIN, 4, size, 4) for size in (0, 2**32 - 1)]
    rf64 = encode(tone(), kind="RF64")
    variants += [rf64 + extra]
    for contents in variants:
        np.testing.assert_array_equal(decode_wav(tf.constant(contents)).samples, SAMPLES)
        again = decode_wav(tf.constant(sound.to_wav(contents)))
        np.testing.assert_array_equal(again.samples, SAMPLES)


def test_a_cut_file_has_the_samples_that_are_there():
    samples, rate, error = decode_wav(tf.constant(PLAIN[:145]))
    np.testing.assert_array_equal(samples, SAMPLES[:50])
    assert (int(rate), error.numpy()) == (8000, b"")
    again = decode_wav(tf.constant(sound.to_wav(PLAIN[:145]))).samples
    np.testing.assert_array_equal(again, SAMPLES[:50])


def test_float_samples_are_clipped():
    for subtype in ("FLOAT", "DOUBLE"):
        contents = encode(np.array([0.5, 1.5, -30, -0.25]), subtype=subtype)
        for each in (contents, sound.to_wav(contents)):
            samples = decode_wav(tf.constant(each)).samples
            np.testing.assert_array_equal(samples, np.array([0.5, 1, -1, -0.25], "float32"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 32768.0, -1e300])
def test_floats_that_are_no_samples(value):
    contents = encode(np.array([0.5, value]), subtype="DOUBLE")
    samples, rate, error = decode_wav(tf.constant(contents))
    assert (len(samples), int(rate)) == (0, 0)
    assert error.numpy() == b"the float samples are not numbers in [-1, 1]"
    with pytest.raises(DataError, match=r"^x\.wav has float samples that are not numbers in"):
        sound.to_wav(contents, "x.wav")


# What is no wav file for the graph: with the reason that it gives, and that of the host.
UNREADABLE = {
    "no bytes": (b"", "empty", "is empty"),
    "a page": (b"<html>404 not found</html>", "not a wav file", "Format not recognised"),
    "the start": (b"RIFF", "not a wav file", "cannot be read as sound"),
    "a cut header": (PLAIN[:30], "no format: the header is cut off", "No 'data' chunk"),
    "no data": (PLAIN[:36], "no samples: the header is cut off", "No 'data' chunk"),
    "no samples": (encode(np.zeros(0)), "no samples", "has no samples"),
    "many chunks": (PLAIN[:36] + b"LIST\0\0\0\0" * 200, "no samples: the", "cannot be read"),
    "rate 0": (header(rate=0), "sample rate 0 Hz, must be 1000 to 768000", "no possible sample"),
    "rate 1": (header(rate=1), "sample rate 1 Hz", "sample rate 1 Hz, must be 1000 to 768000"),
    "rate 2**32": (header(rate=-1), "sample rate 4294967295 Hz, must", "cannot be read"),
    "no channels": (header(channels=0, frame=0), "0 channels, must be 1 to 64", "cannot be read"),
    "channels": (header(channels=65), "65 channels, must be 1 to 64", "65 channels, must be 1"),
    "bits": (header(bits=0, frame=2), "encoding 1 with 0 bits", "cannot be read"),
    "code": (header(kind=2), "encoding 2 with 16 bits and 2 bytes for 1 channels", "be read"),
    "long": (
        header(rate=1000, bits=8, data=b"\0" * 600_001), "600 seconds, at most 600",
        "is longer than 600 seconds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_recording_has_a_reason_and_no_samples(name):
    contents, reason, on_host = UNREADABLE[name]
    samples, rate, error = decode_wav(tf.constant(contents))
    assert (samples.shape, int(rate)) == ((0,), 0)
    assert reason in error.numpy().decode()
    assert [int(x) for x in wav_size(tf.constant(contents))] == [0, 0]
    with pytest.raises(DataError, match=on_host) as raised:
        sound.to_wav(contents, "x.wav")
    assert str(raised.value).startswith("x.wav")
    assert "\n" not in str(raised.value)


# Formats that the graph does not decode.
OTHERS = {
    "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"), "aiff": ("AIFF", "PCM_16"), "adpcm": ("WAV", "IMA_ADPCM"),
    "ms_adpcm": ("WAV", "MS_ADPCM"), "gsm": ("WAV", "GSM610"), "au": ("AU", "ULAW"),
    "caf": ("CAF", "PCM_24"), "nist": ("NIST", "PCM_16"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_formats_of_the_host(name):
    kind, subtype = OTHERS[name]
    contents = encode(tone(8000, 0.5), 8000, subtype, kind)
    *_, error = decode_wav(tf.constant(contents))
    assert b"not a wav file" in error.numpy() or b"is not PCM, float, mu-law" in error.numpy()
    samples, rate, error = decode_wav(tf.constant(sound.to_wav(contents)))
    assert (int(rate), error.numpy()) == (8000, b"")
    assert abs(len(samples) - 4000) < 1200  # a lossy codec works in blocks
    spectrum = np.abs(np.fft.rfft(samples[400:3600], 8000))
    assert 430 <= spectrum.argmax() <= 450


def test_files(tmp_path):
    path = tmp_path / "a b\N{LATIN SMALL LETTER U WITH DIAERESIS}.raw"
    path.write_bytes(PLAIN)  # the name of a format without a header
    assert sound.read_bytes(path) == sound.read_bytes(bytes(path)) == PLAIN
    for bad, reason in ((tmp_path / "none.wav", "does not exist"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError, match=reason):
            sound.read_bytes(bad)
    with pytest.raises(DataError, match="is not the name of a file"):
        sound.read_bytes(b"a\0b")


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "MAX_BYTES", 100)
    path = tmp_path / "a.wav"
    path.write_bytes(PLAIN)
    with pytest.raises(DataError, match=r"a\.wav is larger than 100 bytes"):
        sound.read_bytes(path)


def test_compressed_silence_is_not_unpacked_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(sound, "MAX_SECONDS", 20)
    contents = encode(np.zeros(8000 * 60), kind="FLAC")
    assert len(contents) < 20_000
    reads = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda *x, **y: reads.append(1) or read(*x, **y)
    )
    with pytest.raises(DataError, match="is longer than 20 seconds"):
        sound.to_wav(contents)
    assert len(reads) <= 3


SEEDS = [
    encode(tone(), subtype=s, kind=k) for k in ("WAV", "WAVEX", "RF64", "W64") for s in SUBTYPES
]


def test_mutated_files_in_the_graph():
    files = mutations(SEEDS, 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for contents in files:
        samples, rate, error = decode_wav(tf.constant(contents))
        values = samples.numpy()
        assert (error.numpy() == b"") == (len(values) > 0) == (int(rate) > 0)
        assert len(values) <= len(contents)
        assert (np.abs(values) <= 1).all()
        sizes = [int(x) for x in wav_size(tf.constant(contents))]
        if error.numpy() == b"":
            assert sizes == [len(values), int(rate)]
            read += 1
    assert 100 < read < 900
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in KiB


def test_mutated_files_on_the_host():
    others = [encode(tone(8000, 0.1), subtype=s, kind=k) for k, s in OTHERS.values()]
    errors = []
    for contents in mutations(SEEDS + others, 1000):
        try:
            assert sound.to_wav(contents, "x").startswith(b"RIFF")
        except DataError as error:
            errors.append(str(error))
    assert 100 < len(errors) < 900
    assert all(error.startswith("x") and "\n" not in error for error in errors)
