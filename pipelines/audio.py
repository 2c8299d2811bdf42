"""Audio in the graph: resampling, samples to features, data augmentation.

Spectra and MFCCs agree with librosa (McFee et al. 2015).
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy
import tensorflow as tf

_ZERO_CROSSINGS = 16  # on each side of the windowed sinc that resamples
_BLOCK = 2**18  # products of samples and filter taps that are computed at once


def resample(samples, rate, to_rate) -> tf.Tensor:
    """Resamples by band-limited interpolation with a Hann-windowed sinc.

    Smith 1984, "A flexible sampling-rate conversion method". If the new rate is lower, the sinc has
    the band of the new rate. Besides the result, the memory does not depend on N.

    Args:
        samples: `[N]`.
        rate, to_rate: in Hz, or any two numbers with the same ratio.

    Returns:
        `[ceil(N * to_rate / rate)]`.
    """
    rate, to_rate = (tf.cast(x, tf.float64) for x in (rate, to_rate))

    def converted():
        ratio = to_rate / tf.maximum(rate, 1e-9)
        band = tf.minimum(tf.constant(1.0, tf.float64), ratio)
        count = resampled_length(tf.shape(samples)[0], rate, to_rate)
        reach = _ZERO_CROSSINGS / band  # as in `reach`
        taps = tf.range(tf.cast(tf.math.floor(2 * reach), tf.int32) + 1)
        narrow, wide = tf.cast(band, tf.float32), tf.cast(reach, tf.float32)
        block = tf.clip_by_value(_BLOCK // tf.size(taps), 1, tf.maximum(count, 1))

        def interpolated(begin):
            positions = tf.cast(begin + tf.range(block), tf.float64)
            times = positions / ratio  # [M], in samples of the old rate
            first = tf.cast(tf.math.ceil(times - reach), tf.int32)
            near = first[:, tf.newaxis] + taps  # [M, taps]
            offset = tf.cast(tf.cast(near, tf.float64) - times[:, tf.newaxis], tf.float32)
            angle = math.pi * narrow * offset
            sinc = tf.where(tf.abs(angle) < 1e-6, 1.0, tf.math.divide_no_nan(tf.sin(angle), angle))
            window = 0.5 + 0.5 * tf.cos(math.pi * tf.clip_by_value(offset / wide, -1.0, 1.0))
            inside = (near >= 0) & (near < tf.shape(samples)[0])
            values = tf.gather(samples, tf.clip_by_value(near, 0, tf.shape(samples)[0] - 1))
            return tf.reduce_sum(tf.where(inside, values * narrow * sinc * window, 0.0), axis=1)

        blocks = tf.map_fn(
            interpolated,
            tf.range(0, count, block),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
            parallel_iterations=2,
        )
        return tf.reshape(blocks, [-1])[:count]

    unchanged = (rate == to_rate) | (tf.shape(samples)[0] == 0)
    resampled = tf.cond(unchanged, lambda: tf.convert_to_tensor(samples), converted)
    return tf.ensure_shape(resampled, [None])


def reach(rate: float, to_rate: float) -> float:
    """The samples before and after its time on which a sample of `resample` depends."""
    return _ZERO_CROSSINGS * max(1.0, rate / to_rate)


def resampled_length(count, rate, to_rate) -> tf.Tensor:
    """The number of samples that `resample` makes of `count`, int32."""
    count, rate, to_rate = (tf.cast(x, tf.float64) for x in (count, rate, to_rate))
    return tf.cast(tf.math.ceil(count * (to_rate / tf.maximum(rate, 1e-9))), tf.int32)


@dataclass(frozen=True)
class FrontEnd:
    """Samples to log-mel spectra or MFCCs.

    There is a frame for every `hop` samples. It covers the `window` samples up to the end of its
    hop, so that later samples do not change it; the signal is padded with silence at the start.
    `deltas` depend on later frames.

    Attributes:
        rate: the sampling rate in Hz.
        window, hop: in samples.
        mels: the number of mel bands, from 0 to half the rate.
        cepstra: the number of MFCCs; 0 for log-mel spectra.
        deltas: 1 adds the slopes of the features over nine frames, 2 also the slopes of the slopes.
        emphasis: the coefficient of the pre-emphasis, y[t] = x[t] - emphasis * x[t - 1].
        floor: added to the power before the logarithm.
    """

    rate: int = 8000
    window: int = 200
    hop: int = 80
    mels: int = 40
    cepstra: int = 0
    deltas: int = 0
    emphasis: float = 0.97
    floor: float = 1e-6

    @property
    def size(self) -> int:
        """The number of features of a frame."""
        return (self.cepstra or self.mels) * (1 + self.deltas)

    @property
    def before(self) -> int:
        """The number of samples before the hop of a frame on which the frame depends."""
        return self.window - self.hop + 1

    def __call__(self, samples) -> tf.Tensor:
        """`[..., N]` to `[..., N // hop, size]`."""
        batch_axes = [[0, 0]] * (len(samples.shape) - 1)
        return self.with_deltas(self.frames(tf.pad(samples, [*batch_axes, [self.before, 0]])))

    def frames(self, samples) -> tf.Tensor:
        """As the call, without deltas. The samples start `before` samples before the first hop."""
        samples = samples[..., 1:] - self.emphasis * samples[..., :-1]
        bins = 2 ** math.ceil(math.log2(self.window))
        # Not tf.signal.stft, which fails if there are too few samples for a frame.
        frames = tf.signal.frame(samples, self.window, self.hop)  # [..., T, window]
        frames *= tf.signal.hann_window(self.window)
        frames = tf.pad(frames, [*([[0, 0]] * len(samples.shape)), [0, bins - self.window]])
        power = tf.square(tf.abs(tf.signal.rfft(frames)))  # [..., T, bins / 2 + 1]
        mel = tf.matmul(power, mel_filters(self.rate, bins, self.mels))
        features = tf.math.log(mel + self.floor)
        if self.cepstra:
            # Not tf.signal.dct, which fails for a recording without frames.
            cosines = scipy.fft.dct(np.eye(self.mels), norm="ortho")[:, : self.cepstra]
            features = tf.matmul(features, cosines.astype("float32"))
        return features

    def with_deltas(self, features) -> tf.Tensor:
        """`[..., T, F]` to `[..., T, F * (1 + deltas)]`."""
        parts = [features]
        for _ in range(self.deltas):
            parts.append(delta(parts[-1]))
        return tf.concat(parts, axis=-1)


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """Triangular filters of equal area, evenly spaced on the mel scale, `[bins/2 + 1, mels]`.

    The mel scale of Slaney 1998, "Auditory toolbox": linear to 1,000 Hz, logarithmic above.
    """
    step = math.log(6.4) / 27
    top = rate / 2
    highest = top * 3 / 200 if top < 1000 else 15 + math.log(top / 1000) / step
    mel = np.linspace(0, highest, mels + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))
    frequencies = np.linspace(0, top, bins // 2 + 1)[:, np.newaxis]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rise = (frequencies - low) / (middle - low)
    fall = (high - frequencies) / (high - middle)
    return (np.clip(np.minimum(rise, fall), 0, None) * 2 / (high - low)).astype("float32")


def delta(features, width: int = 9) -> tf.Tensor:
    """The slope over `width` frames, `[..., T, F]`. The first and last frames are repeated.

    The regression of the HTK book (Young et al. 2006), equation 5.16.
    """
    half = width // 2
    frames = tf.shape(features)[-2]
    positions = tf.range(frames)
    total = 0.0
    for k in range(1, half + 1):
        later = tf.gather(features, tf.minimum(positions + k, frames - 1), axis=-2)
        earlier = tf.gather(features, tf.maximum(positions - k, 0), axis=-2)
        total += k * (later - earlier)
    return total / (2 * sum(k * k for k in range(1, half + 1)))


def normalize(features, method: str, sums=None) -> tuple[tf.Tensor, tuple]:
    """Normalizes each feature to mean 0 and variance 1.

    Args:
        features: `[B, T, F]`, or `[T, F]`.
        method: `utterance`: over all frames. `running`: over the frames up to the current one,
            which also works for streams. `batch`: returns the features unchanged, for a model with
            batch normalization.
        sums: for `running`, the sums that the call for the previous frames returned.

    Returns:
        The features, and the sums: the number of frames `[B, 1, 1]`, their sum and their sum of
        squares `[B, 1, F]` (or without B).
    """
    one = tf.ones_like(features[..., :1, :1])
    zeros = (0 * one, tf.zeros_like(features[..., :1, :]), tf.zeros_like(features[..., :1, :]))
    sums = zeros if sums is None else sums
    if method == "batch":
        return features, sums
    count = tf.ones_like(features[..., :1])
    columns = (count, features, tf.square(features))
    if method == "utterance":
        count, total, squares = (tf.reduce_sum(x, axis=-2, keepdims=True) for x in columns)
    else:
        count, total, squares = (
            previous + tf.cumsum(x, axis=-2) for previous, x in zip(sums, columns, strict=True)
        )
        sums = tuple(x[..., -1:, :] for x in (count, total, squares))
    mean = tf.math.divide_no_nan(total, count)
    variance = tf.maximum(tf.math.divide_no_nan(squares, count) - tf.square(mean), 0.0)
    # Silence at the start has a small variance and must not be amplified.
    least = 1e-5 if method == "utterance" else 1.0
    return (features - mean) * tf.math.rsqrt(tf.maximum(variance, least)), sums


def perturb(samples, seed, *, speed: float = 0.0, gain: float = 0.0, noise: float = 0.0):
    """Randomly changes the speed and the loudness, and adds noise.

    Ko et al. 2015, "Audio augmentation for speech recognition".

    Args:
        samples: `[N]`.
        seed: `[2]`, integers.
        speed: the largest relative change of the speed. The pitch changes with it.
        gain: the largest change of the loudness, in dB.
        noise: the largest standard deviation of white noise, relative to the peak.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))

    def uniform(low, high, index):
        return tf.random.stateless_uniform([], seeds[index], low, high)

    if speed:
        samples = resample(samples, uniform(1 - speed, 1 + speed, 0), 1.0)
    if noise:
        peak = tf.reduce_max(tf.abs(samples))
        white = tf.random.stateless_normal(tf.shape(samples), seeds[1])
        samples += uniform(0.0, noise, 2) * peak * white
    if gain:
        samples *= tf.pow(10.0, uniform(-gain, gain, 3) / 20)
    return samples


def spec_augment(features, seed, *, time: int = 0, frequency: int = 0, masks: int = 2):
    """Masks intervals of time and bands of frequency with the mean.

    Park et al. 2019, "SpecAugment", without time warping. A mask covers at most a fifth of the
    frames.

    Args:
        features: `[T, F]`.
        seed: `[2]`, integers.
        time, frequency: the largest number of frames and of features that a mask covers; 0 for no
            masks.
        masks: the number of masks of each kind.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4 * masks))
    mean = tf.reduce_mean(features)
    for axis, most in ((0, time), (1, frequency)):
        if not most:
            continue
        size = tf.shape(features)[axis]
        most = tf.minimum(most, size // 5) if axis == 0 else tf.minimum(most, size)
        for k in range(masks):
            index = 4 * k + 2 * axis
            width = tf.random.stateless_uniform([], seeds[index], 0, most + 1, tf.int32)
            begin = tf.random.stateless_uniform([], seeds[index + 1], 0, size - width + 1, tf.int32)
            positions = tf.range(size)
            mask = (positions >= begin) & (positions < begin + width)
            mask = mask[:, tf.newaxis] if axis == 0 else mask[tf.newaxis]
            features = tf.where(mask, mean, features)
    return features
