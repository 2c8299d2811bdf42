"""Sound in the graph: wav bytes to samples, samples to features, and what disturbs both.

The numbers of the spectra are those of librosa (McFee et al. 2015), which a test compares.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy
import tensorflow as tf

# Of the windowed sinc that resamples: zero crossings on each side.
_ZERO_CROSSINGS = 16
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


def decode_wav(contents) -> tuple[tf.Tensor, tf.Tensor]:
    """The samples of a wav file, its channels averaged.

    Args:
        contents: a scalar string: RIFF with PCM of 8, 16, 24 or 32 bits, or float of 32.

    Returns:
        `[N]` float32 in [-1, 1), and the rate in Hz, int32. What is no such file has no samples,
        and a rate of 0.

    >>> samples, rate = decode_wav(b"no sound")
    >>> samples.shape, int(rate)
    (TensorShape([0]), 0)
    """
    size = tf.strings.length(contents)
    is_wav = (tf.strings.substr(contents, 0, 4) == b"RIFF") & (size >= 12)
    is_wav &= tf.strings.substr(contents, tf.minimum(8, size), 4) == b"WAVE"

    def number(place, width):
        found = tf.io.decode_raw(tf.strings.substr(contents, place, width), tf.uint8)
        found = tf.pad(tf.cast(found, tf.int32), [[0, width - tf.shape(found)[0]]])
        return tf.reduce_sum(tf.bitwise.left_shift(found, 8 * tf.range(width)))

    def is_chunk(place, name):
        return tf.equal(tf.strings.substr(contents, place, 4), name)

    def next_chunk(place, form, begin, length):
        own = number(place + 4, 4)
        own = tf.where(own < 0, size, tf.minimum(own, size))  # a stream has no length
        form = tf.where(is_chunk(place, b"fmt "), place + 8, form)
        is_data = is_chunk(place, b"data")
        begin = tf.where(is_data, place + 8, begin)
        length = tf.where(is_data, tf.minimum(own, size - place - 8), length)
        return place + 8 + own + own % 2, form, begin, length

    _, form, begin, length = tf.while_loop(
        lambda place, form, begin, length: (place + 8 <= size) & is_wav & (begin == 0),
        next_chunk,
        [tf.constant(12), tf.constant(0), tf.constant(0), tf.constant(0)],
    )
    no_samples = tf.zeros([0], tf.float32)
    is_wav = is_wav & (form > 0) & (begin > 0) & (form + 16 <= size)

    def samples():
        kind, channels, bits = number(form, 2), number(form + 2, 2), number(form + 14, 2)
        # Of an extensible format the first bytes of a longer code tell which.
        kind = tf.cond(kind == _EXTENSIBLE, lambda: number(form + 24, 2), lambda: kind)
        width = tf.maximum(1, bits // 8)
        frame = width * tf.maximum(1, channels)
        data = tf.strings.substr(contents, begin, length // frame * frame)
        values = tf.case(
            [
                ((kind == _PCM) & (bits == 8), lambda: _whole(data, 1) / 128.0 - 1.0),
                ((kind == _PCM) & (bits == 16), lambda: _whole(data, 2) / 2.0**15),
                ((kind == _PCM) & (bits == 24), lambda: _whole(data, 3) / 2.0**23),
                ((kind == _PCM) & (bits == 32), lambda: _whole(data, 4) / 2.0**31),
                ((kind == _FLOAT) & (bits == 32), lambda: _finite(data)),
            ],
            default=lambda: no_samples,
        )
        return tf.reduce_mean(tf.reshape(values, [-1, tf.maximum(1, channels)]), axis=1)

    found = tf.cond(is_wav, samples, lambda: no_samples)
    rate = tf.cond(is_wav, lambda: number(form + 4, 4), lambda: tf.constant(0))
    rate = tf.where(tf.shape(found)[0] > 0, rate, 0)
    return tf.ensure_shape(found, [None]), rate


def _finite(data) -> tf.Tensor:
    """Float samples; what is no number is silence, and nothing is a thousand times too loud."""
    values = tf.io.decode_raw(data, tf.float32)
    return tf.clip_by_value(tf.where(tf.math.is_finite(values), values, 0.0), -1e3, 1e3)


def _whole(data, width: int) -> tf.Tensor:
    """Little-endian whole numbers of 1 (unsigned), 2, 3 or 4 bytes, as float32."""
    if width == 1:
        return tf.cast(tf.io.decode_raw(data, tf.uint8), tf.float32)
    if width == 2:
        return tf.cast(tf.io.decode_raw(data, tf.int16), tf.float32)
    if width == 4:
        return tf.cast(tf.io.decode_raw(data, tf.int32), tf.float32)
    low, middle, high = tf.unstack(tf.reshape(tf.io.decode_raw(data, tf.uint8), [-1, 3]), axis=1)
    low, middle = (tf.cast(x, tf.float32) for x in (low, middle))
    return tf.cast(tf.bitcast(high, tf.int8), tf.float32) * 2.0**16 + middle * 2.0**8 + low


def encode_wav(samples, rate: int) -> tf.Tensor:
    """Samples `[N]` in [-1, 1] as a wav file of 16 bits."""
    return tf.audio.encode_wav(tf.cast(samples, tf.float32)[:, tf.newaxis], rate)


def resample(samples, rate, to_rate) -> tf.Tensor:
    """Samples at another rate: band-limited interpolation with a Hann-windowed sinc.

    Smith 1984, "A flexible sampling-rate conversion method". Where the new rate is lower, the
    sinc's band is that of the new rate.

    Args:
        samples: `[N]`.
        rate, to_rate: in Hz, or any two numbers of that ratio.

    Returns:
        `[ceil(N * to_rate / rate)]`.
    """
    rate, to_rate = (tf.cast(x, tf.float64) for x in (rate, to_rate))

    def converted():
        ratio = to_rate / tf.maximum(rate, 1.0)
        band = tf.minimum(tf.constant(1.0, tf.float64), ratio)
        count = tf.cast(tf.math.ceil(tf.cast(tf.shape(samples)[0], tf.float64) * ratio), tf.int32)
        times = tf.cast(tf.range(count), tf.float64) / ratio  # [M], in the old samples
        reach = _ZERO_CROSSINGS / band
        first = tf.cast(tf.math.ceil(times - reach), tf.int32)
        taps = tf.range(tf.cast(tf.math.floor(2 * reach), tf.int32) + 1)
        near = first[:, tf.newaxis] + taps  # [M, taps]
        offset = tf.cast(tf.cast(near, tf.float64) - times[:, tf.newaxis], tf.float32)
        narrow, wide = tf.cast(band, tf.float32), tf.cast(reach, tf.float32)
        angle = math.pi * narrow * offset
        sinc = tf.where(tf.abs(angle) < 1e-6, 1.0, tf.math.divide_no_nan(tf.sin(angle), angle))
        window = 0.5 + 0.5 * tf.cos(math.pi * tf.clip_by_value(offset / wide, -1.0, 1.0))
        there = (near >= 0) & (near < tf.shape(samples)[0])
        values = tf.gather(samples, tf.clip_by_value(near, 0, tf.shape(samples)[0] - 1))
        return tf.reduce_sum(tf.where(there, values * narrow * sinc * window, 0.0), axis=1)

    empty = tf.shape(samples)[0] == 0
    found = tf.cond((rate == to_rate) | empty, lambda: tf.convert_to_tensor(samples), converted)
    return tf.ensure_shape(found, [None])


@dataclass(frozen=True)
class FrontEnd:
    """Samples to features: log-mel spectra, or MFCCs.

    A frame begins every `hop` samples and holds the `window` samples that end with its hop, so that
    what is heard later changes no frame: before the beginning there is silence. With `deltas`,
    which look ahead, this does not hold.

    Attributes:
        rate: of the samples, Hz.
        window, hop: in samples.
        mels: how many mel bands, from 0 to half the rate.
        cepstra: how many MFCCs; 0 for the log-mel spectra themselves.
        deltas: how often the features' slopes over nine frames are added: 0, 1 or 2.
        emphasis: of the high frequencies: y[t] = x[t] - emphasis * x[t - 1].
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
        """How many features a frame has."""
        return (self.cepstra or self.mels) * (1 + self.deltas)

    @property
    def before(self) -> int:
        """How many samples before a frame's hop a frame depends on."""
        return self.window - self.hop + 1

    def __call__(self, samples) -> tf.Tensor:
        """`[..., N]` to `[..., N // hop, size]`."""
        ahead = [[0, 0]] * (len(samples.shape) - 1)
        return self.with_deltas(self.frames(tf.pad(samples, [*ahead, [self.before, 0]])))

    def frames(self, samples) -> tf.Tensor:
        """As the call, of samples that begin with the `before` samples ahead of the first hop."""
        samples = samples[..., 1:] - self.emphasis * samples[..., :-1]
        bins = 2 ** math.ceil(math.log2(self.window))
        # tf.signal.stft has no answer where the samples are too few for a frame.
        frames = tf.signal.frame(samples, self.window, self.hop)  # [..., T, window]
        frames *= tf.signal.hann_window(self.window)
        frames = tf.pad(frames, [*([[0, 0]] * len(samples.shape)), [0, bins - self.window]])
        power = tf.square(tf.abs(tf.signal.rfft(frames)))  # [..., T, bins / 2 + 1]
        mel = tf.matmul(power, mel_filters(self.rate, bins, self.mels))
        features = tf.math.log(mel + self.floor)
        if self.cepstra:
            # As a product: tf.signal.dct does not take a recording without frames.
            cosines = scipy.fft.dct(np.eye(self.mels), norm="ortho")[:, : self.cepstra]
            features = tf.matmul(features, cosines.astype("float32"))
        return features

    def with_deltas(self, features) -> tf.Tensor:
        """`[..., T, F]` to `[..., T, F * (1 + deltas)]`."""
        found = [features]
        for _ in range(self.deltas):
            found.append(delta(found[-1]))
        return tf.concat(found, axis=-1)


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """Triangles of equal area whose corners lie evenly on Slaney's mel scale, `[bins/2 + 1, mels]`.

    Slaney 1998, "Auditory toolbox": linear to 1,000 Hz, logarithmic above.
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
    """The slope over `width` frames, `[..., T, F]`; the first and last frame stand beyond the ends.

    The regression of the HTK book (Young et al. 2006), equation 5.16.
    """
    half = width // 2
    frames = tf.shape(features)[-2]
    places = tf.range(frames)
    total = 0.0
    for k in range(1, half + 1):
        later = tf.gather(features, tf.minimum(places + k, frames - 1), axis=-2)
        earlier = tf.gather(features, tf.maximum(places - k, 0), axis=-2)
        total += k * (later - earlier)
    return total / (2 * sum(k * k for k in range(1, half + 1)))


def normalize(features, how: str, sums=None) -> tuple[tf.Tensor, tuple]:
    """Mean 0 and variance 1 of each feature: over the whole, or over what was heard so far.

    Args:
        features: `[B, T, F]`, or `[T, F]`.
        how: `utterance`, `running`, or `batch`, which leaves it to the model. What `running` gives
            for a frame depends on no later one, so that it serves streams.
        sums: for `running`, what an earlier call gave for the frames before.

    Returns:
        The features, and the sums: the number of frames `[B, 1, 1]`, their sum and their sum of
        squares `[B, 1, F]` (or without B).
    """
    one = tf.ones_like(features[..., :1, :1])
    zeros = (0 * one, tf.zeros_like(features[..., :1, :]), tf.zeros_like(features[..., :1, :]))
    sums = zeros if sums is None else sums
    if how == "batch":
        return features, sums
    count = tf.ones_like(features[..., :1])
    columns = (count, features, tf.square(features))
    if how == "utterance":
        count, total, squares = (tf.reduce_sum(x, axis=-2, keepdims=True) for x in columns)
    else:
        count, total, squares = (
            before + tf.cumsum(x, axis=-2) for before, x in zip(sums, columns, strict=True)
        )
        sums = tuple(x[..., -1:, :] for x in (count, total, squares))
    mean = tf.math.divide_no_nan(total, count)
    variance = tf.maximum(tf.math.divide_no_nan(squares, count) - tf.square(mean), 0.0)
    # Silence at the start, which hardly varies, is not blown up.
    least = 1e-5 if how == "utterance" else 1.0
    return (features - mean) * tf.math.rsqrt(tf.maximum(variance, least)), sums


def perturb(samples, seed, *, speed: float = 0.0, gain: float = 0.0, noise: float = 0.0):
    """Samples as another day might have brought them.

    Ko et al. 2015, "Audio augmentation for speech recognition".

    Args:
        samples: `[N]`.
        seed: `[2]`, whole numbers.
        speed: the most by which it is faster or slower, as a share; pitch goes with it.
        gain: the most by which it is louder or softer, in dB.
        noise: white noise up to this share of the loudest sample.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))

    def between(low, high, which):
        return tf.random.stateless_uniform([], seeds[which], low, high)

    if speed:
        samples = resample(samples, between(1 - speed, 1 + speed, 0), 1.0)
    if noise:
        loudest = tf.reduce_max(tf.abs(samples))
        hiss = tf.random.stateless_normal(tf.shape(samples), seeds[1])
        samples += between(0.0, noise, 2) * loudest * hiss
    if gain:
        samples *= tf.pow(10.0, between(-gain, gain, 3) / 20)
    return samples


def spec_augment(features, seed, *, time: int = 0, frequency: int = 0, masks: int = 2):
    """Features with stretches of time and bands of frequency blotted out by the mean.

    Park et al. 2019, "SpecAugment", without the time warping. A stretch of time takes at most a
    fifth of the frames.

    Args:
        features: `[T, F]`.
        seed: `[2]`, whole numbers.
        time, frequency: the most frames and features that one mask takes; 0 for none.
        masks: how many of each.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4 * masks))
    mean = tf.reduce_mean(features)
    for axis, most in ((0, time), (1, frequency)):
        if not most:
            continue
        size = tf.shape(features)[axis]
        most = tf.minimum(most, size // 5) if axis == 0 else tf.minimum(most, size)
        for k in range(masks):
            at = 4 * k + 2 * axis
            width = tf.random.stateless_uniform([], seeds[at], 0, most + 1, tf.int32)
            begin = tf.random.stateless_uniform([], seeds[at + 1], 0, size - width + 1, tf.int32)
            places = tf.range(size)
            blotted = (places >= begin) & (places < begin + width)
            blotted = blotted[:, tf.newaxis] if axis == 0 else blotted[tf.newaxis]
            features = tf.where(blotted, mean, features)
    return features
