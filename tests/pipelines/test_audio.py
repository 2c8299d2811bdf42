"""Sound in the graph, against soundfile's files, librosa's spectra and signals known in advance."""

import io

import librosa
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from unroll.pipelines import audio

RATE = 16000


def tone(rate, seconds=0.5, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate) * 0.5


def wav(samples, rate, subtype="PCM_16", kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=kind)
    return file.getvalue()


def test_float_samples_that_are_no_numbers_are_silence():
    samples = np.array([0.5, np.nan, np.inf, 1e30, -0.25], "float32")
    found, _ = audio.decode_wav(wav(samples, 8000, "FLOAT"))
    np.testing.assert_array_equal(found, np.array([0.5, 0, 0, 1e3, -0.25], "float32"))


@pytest.mark.parametrize("cepstra", [0, 13])
def test_no_sound_has_no_frames(cepstra):
    front_end = audio.FrontEnd(cepstra=cepstra, deltas=1)
    assert front_end(tf.zeros([0])).shape == (0, front_end.size)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
@pytest.mark.parametrize(
    ("subtype", "near"),
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 1e-7)],
)
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_wav_files_of_every_kind(rate, subtype, near, kind):
    left, right = tone(rate, 0.02), tone(rate, 0.02, 1000)
    contents = wav(np.stack([left, right], 1), rate, subtype, kind)
    samples, found = tf.function(audio.decode_wav)(tf.constant(contents))
    assert int(found) == rate
    expected = soundfile.read(io.BytesIO(contents))[0].mean(axis=1)
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=near)


def test_other_chunks_and_lengths_that_lie_are_passed_over():
    contents = wav(tone(8000, 0.01), 8000)
    expected, _ = audio.decode_wav(contents)
    extra = b"LIST" + (5).to_bytes(4, "little") + b"abcde\0"
    with_chunk = contents[:12] + extra + contents[12:]
    np.testing.assert_array_equal(audio.decode_wav(with_chunk)[0], expected)
    at = contents.index(b"data") + 4
    endless = contents[:at] + b"\xff\xff\xff\xff" + contents[at + 4 :]
    np.testing.assert_array_equal(audio.decode_wav(endless)[0], expected)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"RIFF",
        b"not a wav file at all, but long enough to be one" * 3,
        wav(tone(8000), 8000)[:30],
        wav(tone(8000), 8000)[:44],
        wav(tone(8000), 8000, "ULAW"),
        wav(tone(8000), 8000, kind="FLAC"),
        wav(np.zeros(0), 8000),
    ],
)
def test_what_is_no_wav_has_no_samples(contents):
    samples, rate = tf.function(audio.decode_wav)(tf.constant(contents))
    assert samples.shape == (0,)
    assert int(rate) == 0


def test_a_wav_cut_short_keeps_what_is_there():
    contents = wav(tone(8000), 8000)
    samples, rate = audio.decode_wav(contents[:1045])
    np.testing.assert_array_equal(samples, audio.decode_wav(contents)[0][:500])
    assert int(rate) == 8000


def test_encoded_samples_come_back():
    samples, rate = audio.decode_wav(audio.encode_wav(tone(8000), 8000))
    np.testing.assert_allclose(samples, tone(8000), atol=1e-4)
    assert int(rate) == 8000


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("to_rate", [8000, 16000])
def test_resampling_keeps_a_tone(rate, to_rate):
    found = tf.function(audio.resample)(tf.constant(tone(rate), tf.float32), rate, to_rate)
    assert abs(found.shape[0] - to_rate // 2) <= 1
    expected = tone(to_rate)[: found.shape[0]]
    inner = slice(200, len(expected) - 200)
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-3)


def test_resampling_lets_no_tone_come_back_as_another():
    found = audio.resample(tf.constant(tone(48000, frequency=7000), tf.float32), 48000, 8000)
    assert float(tf.reduce_max(tf.abs(found[200:-200]))) < 0.005


def test_resampling_agrees_with_librosa():
    noise = np.random.default_rng(0).normal(size=8000).astype("float32")
    smooth = librosa.resample(noise, orig_sr=4000, target_sr=16000)  # nothing above 2,000 Hz
    expected = librosa.resample(smooth, orig_sr=16000, target_sr=8000)
    found = audio.resample(smooth, 16000, 8000)
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=0.02)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=RATE).astype("float32") * 0.1


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (16000, 80), (1600, 8)])
def test_mel_filters_are_those_of_librosa(rate, mels):
    expected = librosa.filters.mel(sr=rate, n_fft=512, n_mels=mels).T
    np.testing.assert_allclose(audio.mel_filters(rate, 512, mels), expected, rtol=1e-4, atol=1e-7)


def test_log_mel_spectra_are_those_of_librosa(noise):
    front_end = audio.FrontEnd(rate=RATE, window=512, hop=160, mels=40)
    emphasized = librosa.effects.preemphasis(noise, coef=0.97, zi=[0.0])
    padded = np.pad(emphasized, (512 - 160, 0))
    expected = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=512, hop_length=160, n_mels=40, center=False
    )
    found = tf.function(front_end)(noise)
    assert found.shape == (100, 40)
    np.testing.assert_allclose(found, np.log(expected.T + 1e-6), rtol=1e-3, atol=1e-4)


def test_mfccs_with_deltas_are_those_of_librosa(noise):
    plain = audio.FrontEnd(rate=RATE, window=400, hop=160, mels=40)
    front_end = audio.FrontEnd(rate=RATE, window=400, hop=160, mels=40, cepstra=13, deltas=2)
    cepstra = librosa.feature.mfcc(S=plain(noise).numpy().T, n_mfcc=13)
    found = front_end(noise)
    assert found.shape == (100, 39) == (100, front_end.size)
    np.testing.assert_allclose(found[:, :13], cepstra.T, rtol=1e-3, atol=1e-3)
    # librosa.feature.delta is a Savitzky-Golay filter: of the first order, this regression.
    slopes = librosa.feature.delta(cepstra, mode="nearest")
    np.testing.assert_allclose(found[:, 13:26], slopes.T, rtol=1e-3, atol=1e-3)
    bends = librosa.feature.delta(slopes, mode="nearest")
    np.testing.assert_allclose(found[:, 26:], bends.T, rtol=1e-3, atol=1e-3)


def test_a_frame_depends_on_nothing_later(noise):
    front_end = audio.FrontEnd(rate=RATE, window=400, hop=160)
    whole = front_end(noise)
    changed = front_end(np.where(np.arange(RATE) < 8000, noise, 0.0).astype("float32"))
    np.testing.assert_allclose(whole[:50], changed[:50], atol=1e-4)
    assert float(tf.reduce_max(tf.abs(whole[50] - changed[50]))) > 0.1
    assert front_end(noise[:159]).shape == (0, 40)
    assert front_end(noise[:160]).shape == (1, 40)
    batch = front_end(np.stack([noise, -noise]))
    np.testing.assert_allclose(batch[0], whole, atol=1e-4)
    np.testing.assert_allclose(batch[1], whole, atol=1e-3)


def test_normalization(noise):
    features = np.random.default_rng(2).normal(3, 2, size=(2, 50, 4)).astype("float32")
    found, _ = audio.normalize(features, "utterance")
    np.testing.assert_allclose(np.mean(found, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(found, axis=1), 1, atol=1e-4)
    running, _ = audio.normalize(features, "running")
    for t in (1, 20, 49):
        heard = features[:, : t + 1]
        spread = np.maximum(heard.std(axis=1), 1.0)
        expected = (features[:, t] - heard.mean(axis=1)) / spread
        np.testing.assert_allclose(running[:, t], expected, atol=1e-4)
    assert audio.normalize(features, "batch")[0] is features


def test_running_normalization_goes_on_where_it_was():
    features = np.random.default_rng(3).normal(3, 2, size=(2, 50, 4)).astype("float32")
    whole, _ = audio.normalize(features, "running")
    parts, sums = [], None
    for begin, end in ((0, 1), (1, 20), (20, 50)):
        part, sums = audio.normalize(features[:, begin:end], "running", sums)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_perturbation_follows_its_seed(noise):
    options = {"speed": 0.1, "gain": 6.0, "noise": 0.1}
    one = audio.perturb(noise, [1, 2], **options)
    np.testing.assert_array_equal(one, audio.perturb(noise, [1, 2], **options))
    lengths = {audio.perturb(noise, [k, 0], **options).shape[0] for k in range(20)}
    assert len(lengths) > 5
    assert 0.89 * RATE < min(lengths) < max(lengths) < 1.12 * RATE
    np.testing.assert_array_equal(audio.perturb(noise, [1, 2]), noise)


@pytest.mark.parametrize(("option", "least", "most"), [("gain", 0.5, 2.0), ("noise", 0.999, 1.5)])
def test_perturbation_keeps_its_bounds(noise, option, least, most):
    strength = {"gain": 6.0, "noise": 0.1}[option]
    ratios = [
        np.std(audio.perturb(noise, [k, 3], **{option: strength})) / np.std(noise)
        for k in range(50)
    ]
    assert least <= min(ratios) < max(ratios) <= most
    assert max(ratios) / min(ratios) > 1.05


def test_masks_take_time_and_frequency():
    features = tf.constant(np.random.default_rng(4).normal(size=(100, 20)), tf.float32)
    taken = []
    for k in range(50):
        found = audio.spec_augment(features, [k, 0], time=10, frequency=4).numpy()
        blotted = found != features.numpy()
        assert np.unique(found[blotted]).size <= 1
        rows, columns = blotted.all(axis=1), blotted.all(axis=0)
        np.testing.assert_array_equal(blotted, rows[:, None] | columns)
        assert rows.sum() <= 20
        assert columns.sum() <= 8
        taken.append((rows.sum(), columns.sum()))
    assert len(set(taken)) > 20
    np.testing.assert_array_equal(audio.spec_augment(features, [1, 1]), features)
    short = audio.spec_augment(features[:4], [0, 0], time=10)
    np.testing.assert_array_equal(short, features[:4])  # a fifth of four frames is none
