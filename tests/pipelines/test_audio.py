"""Audio in the graph, compared with librosa and known signals."""

import librosa
import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import audio

RATE = 16000


def tone(rate, seconds=0.5, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate) * 0.5


# Traced once for all rates.
resample = tf.function(
    audio.resample,
    input_signature=[
        tf.TensorSpec([None]),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], tf.int32),
    ],
)


@pytest.mark.parametrize("cepstra", [0, 13])
def test_no_samples_give_no_frames(cepstra):
    front_end = audio.FrontEnd(cepstra=cepstra, deltas=1)
    assert front_end(tf.zeros([0])).shape == (0, front_end.size)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("to_rate", [8000, 16000])
def test_resampling_keeps_a_tone(rate, to_rate):
    resampled = resample(tone(rate), rate, to_rate)
    assert abs(resampled.shape[0] - to_rate // 2) <= 1
    expected = tone(to_rate)[: resampled.shape[0]]
    inner = slice(200, len(expected) - 200)
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=2e-3)


def test_the_memory_of_resampling_does_not_depend_on_the_duration(monkeypatch):
    samples = np.random.default_rng(5).normal(size=3000).astype("float32")
    expected = audio.resample(samples, 11025, 8000)
    assert len(expected) == int(audio.resampled_length(3000, 11025, 8000)) == 2177
    sizes = []
    gather = tf.gather
    monkeypatch.setattr(audio, "_BLOCK", 4000)
    monkeypatch.setattr(
        tf, "gather", lambda x, at, **options: sizes.append(at.shape) or gather(x, at, **options)
    )
    # In blocks of 88 new samples, each of 45 old ones.
    np.testing.assert_allclose(audio.resample(samples, 11025, 8000), expected, atol=1e-6)
    assert {rows * columns for rows, columns in sizes} == {88 * 45}
    assert len(sizes) == 25


def test_resampling_has_no_aliases():
    resampled = resample(tone(48000, frequency=7000), 48000, 8000)
    assert float(tf.reduce_max(tf.abs(resampled[200:-200]))) < 0.005


@pytest.mark.exhaustive
def test_resampling_agrees_with_librosa():
    noise = np.random.default_rng(0).normal(size=8000).astype("float32")
    smooth = librosa.resample(noise, orig_sr=4000, target_sr=16000)  # nothing above 2,000 Hz
    expected = librosa.resample(smooth, orig_sr=16000, target_sr=8000)
    resampled = resample(smooth, 16000, 8000)
    np.testing.assert_allclose(resampled[100:-100], expected[100:-100], atol=0.02)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=RATE).astype("float32") * 0.1


@pytest.mark.parametrize(("rate", "mels"), [(8000, 40), (16000, 80), (1600, 8)])
def test_mel_filters_agree_with_librosa(rate, mels):
    expected = librosa.filters.mel(sr=rate, n_fft=512, n_mels=mels).T
    np.testing.assert_allclose(audio.mel_filters(rate, 512, mels), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.exhaustive
def test_log_mel_spectra_agree_with_librosa(noise):
    front_end = audio.FrontEnd(rate=RATE, window=512, hop=160, mels=40)
    emphasized = librosa.effects.preemphasis(noise, coef=0.97, zi=[0.0])
    padded = np.pad(emphasized, (512 - 160, 0))
    expected = librosa.feature.melspectrogram(
        y=padded, sr=RATE, n_fft=512, hop_length=160, n_mels=40, center=False
    )
    features = tf.function(front_end)(noise)
    assert features.shape == (100, 40)
    np.testing.assert_allclose(features, np.log(expected.T + 1e-6), rtol=1e-3, atol=1e-4)


@pytest.mark.exhaustive
def test_mfccs_with_deltas_agree_with_librosa(noise):
    plain = audio.FrontEnd(rate=RATE, window=400, hop=160, mels=40)
    front_end = audio.FrontEnd(rate=RATE, window=400, hop=160, mels=40, cepstra=13, deltas=2)
    cepstra = librosa.feature.mfcc(S=plain(noise).numpy().T, n_mfcc=13)
    features = front_end(noise)
    assert features.shape == (100, 39) == (100, front_end.size)
    np.testing.assert_allclose(features[:, :13], cepstra.T, rtol=1e-3, atol=1e-3)
    # librosa.feature.delta is a Savitzky-Golay filter of the first order, which is this regression.
    slopes = librosa.feature.delta(cepstra, mode="nearest")
    np.testing.assert_allclose(features[:, 13:26], slopes.T, rtol=1e-3, atol=1e-3)
    bends = librosa.feature.delta(slopes, mode="nearest")
    np.testing.assert_allclose(features[:, 26:], bends.T, rtol=1e-3, atol=1e-3)


def test_frames_do_not_depend_on_later_samples(noise):
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
    normalized, _ = audio.normalize(features, "utterance")
    np.testing.assert_allclose(np.mean(normalized, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(normalized, axis=1), 1, atol=1e-4)
    running, _ = audio.normalize(features, "running")
    for t in (1, 20, 49):
        past = features[:, : t + 1]
        spread = np.maximum(past.std(axis=1), 1.0)
        expected = (features[:, t] - past.mean(axis=1)) / spread
        np.testing.assert_allclose(running[:, t], expected, atol=1e-4)
    assert audio.normalize(features, "batch")[0] is features


def test_running_normalization_continues_from_its_sums():
    features = np.random.default_rng(3).normal(3, 2, size=(2, 50, 4)).astype("float32")
    whole, _ = audio.normalize(features, "running")
    parts, sums = [], None
    for begin, end in ((0, 1), (1, 20), (20, 50)):
        part, sums = audio.normalize(features[:, begin:end], "running", sums)
        parts.append(part)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_perturbation_depends_on_the_seed(noise):
    options = {"speed": 0.1, "gain": 6.0, "noise": 0.1}
    perturb = tf.function(lambda seed: audio.perturb(noise, seed, **options))
    one = perturb(tf.constant([1, 2]))
    np.testing.assert_array_equal(one, perturb(tf.constant([1, 2])))
    lengths = {perturb(tf.constant([k, 0])).shape[0] for k in range(20)}
    assert len(lengths) > 5
    assert 0.89 * RATE < min(lengths) < 0.96 * RATE < 1.04 * RATE < max(lengths) < 1.12 * RATE
    np.testing.assert_array_equal(audio.perturb(noise, [1, 2]), noise)


@pytest.mark.parametrize(("option", "least", "most"), [("gain", 0.5, 2.0), ("noise", 0.999, 1.5)])
def test_bounds_of_perturbation(noise, option, least, most):
    strength = {"gain": 6.0, "noise": 0.1}[option]
    perturb = tf.function(lambda seed: audio.perturb(noise, seed, **{option: strength}))
    ratios = [np.std(perturb(tf.constant([k, 3]))) / np.std(noise) for k in range(50)]
    assert least <= min(ratios) < max(ratios) <= most
    assert max(ratios) / min(ratios) > 1.05


def test_masks_of_time_and_frequency():
    features = tf.constant(np.random.default_rng(4).normal(size=(100, 20)), tf.float32)
    augment = tf.function(lambda seed: audio.spec_augment(features, seed, time=10, frequency=4))
    sizes = []
    for k in range(50):
        augmented = augment(tf.constant([k, 0])).numpy()
        mask = augmented != features.numpy()
        assert np.unique(augmented[mask]).size <= 1
        rows, columns = mask.all(axis=1), mask.all(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] | columns)
        assert rows.sum() <= 20
        assert columns.sum() <= 8
        sizes.append((rows.sum(), columns.sum()))
    assert len(set(sizes)) > 20
    np.testing.assert_array_equal(audio.spec_augment(features, [1, 1]), features)
    short = audio.spec_augment(features[:4], [0, 0], time=10)
    np.testing.assert_array_equal(short, features[:4])  # a fifth of four frames is none
