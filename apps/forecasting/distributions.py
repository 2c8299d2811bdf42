"""What a network predicts for each step: a value, quantiles, or a distribution.

All of it is computed with elementwise operations that LiteRT has. Shapes: `[..., P]` are the
numbers that a network returns for each value, which are unbounded; `[...]` all other arguments.
"""

import math
from statistics import NormalDist

import keras
import numpy as np
from keras import ops
from scipy import special

_LEAST_SCALE = 1e-3  # of a normal or Student's t distribution, in scaled units
_SHIFT = 6  # the series of the gamma function are used for arguments above this
_DEGREE = 8  # of the polynomials of the quantiles of Student's t: errors below 2e-6


class Distribution:
    """The prediction of values y, from the numbers that a network returns.

    Args:
        parameters: `[..., P]`.
        location, scale: `[...]`, those of the window that the network has read.
        levels: the Q quantile levels of the model.
    """

    size = 1  # P, the number of parameters of each value

    def __init__(self, parameters, location, scale, levels: tuple[float, ...]):
        self.parameters = parameters
        self.location = location
        self.scale = scale
        self.levels = levels

    def __getitem__(self, k: int):
        return self.parameters[..., k]

    @classmethod
    def parameter_count(cls, levels: tuple[float, ...]) -> int:
        """P."""
        return cls.size

    def loss(self, y):
        """The loss of each value `[...]`; of values in units of the scale."""
        raise NotImplementedError

    def mean(self):
        """The mean, `[...]`."""
        raise NotImplementedError

    def quantile(self, level: float):
        """A quantile, `[...]`."""
        raise NotImplementedError

    def quantiles(self):
        """The quantiles of all levels, `[..., Q]`."""
        return ops.stack([self.quantile(level) for level in self.levels], axis=-1)

    def sample(self, first, second):
        """A random value, `[...]`, from two uniform numbers in (0, 1)."""
        raise NotImplementedError


class Point(Distribution):
    """One value. The loss is the absolute error, so it is the median."""

    def loss(self, y):
        return ops.abs((y - self.location) / self.scale - self[0])

    def mean(self):
        return self.location + self.scale * self[0]

    def sample(self, first, second):
        return self.mean()


class Quantiles(Distribution):
    """A value for each level. The loss is the mean pinball loss, doubled.

    Koenker and Bassett 1978, "Regression quantiles". With the level 0.5 alone, the loss is the
    absolute error. The mean is the sum of the quantiles, each weighted by the distance between the
    midpoints to its neighbors: for the levels 0.1, 0.5 and 0.9, Swanson's rule of 0.3, 0.4 and 0.3.
    """

    @classmethod
    def parameter_count(cls, levels):
        return len(levels)

    def loss(self, y):
        levels = ops.convert_to_tensor(self.levels, "float32")
        error = ops.expand_dims((y - self.location) / self.scale, -1) - self.parameters
        return 2 * ops.mean(ops.maximum(levels * error, (levels - 1) * error), axis=-1)

    def mean(self):
        middle = [(a + b) / 2 for a, b in zip(self.levels, self.levels[1:], strict=False)]
        weights = np.diff([0.0, *middle, 1.0]).astype("float32")
        return self.location + self.scale * ops.sum(self.parameters * weights, axis=-1)

    def quantiles(self):
        # In order: the network can return them in another one. Chernozhukov, Fernandez-Val and
        # Galichon 2010, "Quantile and probability curves without crossing".
        ordered = list(ops.unstack(self.parameters, axis=-1))
        for end in range(len(ordered) - 1, 0, -1):
            for k in range(end):
                pair = ordered[k : k + 2]
                ordered[k : k + 2] = ops.minimum(*pair), ops.maximum(*pair)
        return ops.stack([self.location + self.scale * each for each in ordered], axis=-1)


class Normal(Distribution):
    """A normal distribution. The loss is the negative log-likelihood of the scaled value."""

    size = 2

    @property
    def deviation(self):
        """The standard deviation, in units of the scale."""
        return ops.softplus(self[1]) + _LEAST_SCALE

    def loss(self, y):
        z = ((y - self.location) / self.scale - self[0]) / self.deviation
        return 0.5 * ops.square(z) + ops.log(self.deviation) + 0.5 * math.log(2 * math.pi)

    def mean(self):
        return self.location + self.scale * self[0]

    def quantile(self, level):
        z = NormalDist().inv_cdf(level)
        return self.location + self.scale * (self[0] + self.deviation * z)

    def sample(self, first, second):
        # Box and Muller 1958.
        z = ops.sqrt(-2 * ops.log(first)) * ops.cos(2 * math.pi * second)
        return self.location + self.scale * (self[0] + self.deviation * z)


class StudentT(Normal):
    """Student's t distribution with more than two degrees of freedom, for heavy tails."""

    size = 3

    @property
    def degrees(self):
        """The degrees of freedom."""
        return 2 + ops.softplus(self[2])

    def loss(self, y):
        z = ((y - self.location) / self.scale - self[0]) / self.deviation
        degrees = self.degrees
        norm = _log_gamma_half(degrees / 2) - 0.5 * ops.log(math.pi * degrees)
        tail = (degrees + 1) / 2 * ops.log1p(ops.square(z) / degrees)
        return tail + ops.log(self.deviation) - norm

    def quantile(self, level):
        # A polynomial in 1 / degrees, which is in (0, 0.5).
        x, z = 1 / self.degrees, 0.0
        for coefficient in reversed(_student_t_polynomial(level)):
            z = z * x + coefficient
        return self.location + self.scale * (self[0] + self.deviation * z)

    def sample(self, first, second):
        # Bailey 1994, "Polar generation of random variates with the t-distribution".
        degrees = self.degrees
        radius = ops.sqrt(degrees * ops.expm1(-2 / degrees * ops.log(first)))
        z = radius * ops.cos(2 * math.pi * second)
        return self.location + self.scale * (self[0] + self.deviation * z)


class NegativeBinomial(Distribution):
    """A negative binomial distribution of counts, with mean m and variance m + a m^2.

    Salinas et al. 2020, "DeepAR: probabilistic forecasting with autoregressive recurrent networks",
    section 3: m is multiplied by the scale and a divided by its root. There is no location. The
    loss is the negative log-likelihood of a count: values are rounded, and negative ones are zero.
    """

    size = 2

    def mean(self):
        return self.scale * (ops.softplus(self[0]) + 1e-6)

    @property
    def shape(self):
        """r = 1 / a."""
        return ops.sqrt(self.scale) / (ops.softplus(self[1]) + 1e-6)

    def loss(self, y):
        return -self.log_probability(ops.maximum(ops.round(y), 0.0))

    def log_probability(self, k):
        """log P(k) of counts `[...]`."""
        m, r = self.mean(), self.shape
        return _log_choose(r, k) - r * ops.log1p(m / r) - k * ops.log1p(r / m)

    def cumulative(self, k):
        """P(K <= k), `[...]`; for real k >= 0 between those of integers. Errors below 1e-3.

        It is the incomplete beta function I(r, k + 1) at r / (m + r). A recurrence increases r and
        k, and the rest is the approximation of Peizer and Pratt 1968, "A normal approximation for
        binomial, F, beta, and other common, related tail probabilities".
        """
        m, r = self.mean(), self.shape
        q, p = m / (m + r), r / (m + r)
        term, total = ops.exp(self.log_probability(k)), 0.0
        for _ in range(_STEPS):
            # I(r, k + 1) = I(r, k + 2) - P(K = k + 1)
            term = term * q * (k + r) / (k + 1)
            k = k + 1
            total = total - term
        term = term * q * (k + r) / r  # of I(r, k + 1) = I(r + 1, k + 1) + term
        for _ in range(_STEPS):
            total = total + term
            term = term * p * (k + 1 + r) / (r + 1)
            r = r + 1
        n, below, above = k + r, k + 0.5, r - 0.5
        d = below + 1 / 6 - (n + 1 / 3) * q
        d = d + 0.02 * (p / (below + 0.5) - q / (above + 0.5) + (p - 0.5) / (n + 1))
        spread = 1 + p * _peizer_pratt(below / (n * q)) + q * _peizer_pratt(above / (n * p))
        z = d * ops.sqrt(ops.maximum(spread, 0.0) / ((n + 1 / 6) * p * q))
        return total + _normal_cdf(z)

    def quantiles(self):
        # All levels in one loop.
        each = NegativeBinomial(
            ops.expand_dims(self.parameters, -2), None, ops.expand_dims(self.scale, -1), self.levels
        )
        return each._smallest(ops.zeros_like(each.mean()) + ops.array(self.levels, "float32"))

    def sample(self, first, second):
        return self._smallest(first)

    def _smallest(self, probability):
        """The smallest count whose cumulative probability is at least `probability`, `[...]`."""
        m = self.mean()
        deviation = ops.sqrt(m + m * m / self.shape)
        low = ops.zeros_like(probability) - 1  # too small
        high = ops.ceil(m + 12 * deviation) + 12 + 0 * probability

        def halve(_, bounds):
            low, high = bounds
            middle = ops.floor((low + high) / 2)
            enough = self.cumulative(ops.maximum(middle, 0.0)) >= probability
            enough = ops.logical_and(enough, middle >= 0)
            return ops.where(enough, low, middle), ops.where(enough, middle, high)

        return ops.fori_loop(0, _HALVINGS, halve, (low, high))[1]


_STEPS = 3  # of the recurrence of `NegativeBinomial.cumulative`
_HALVINGS = 24

DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "point": Point,
    "quantiles": Quantiles,
    "normal": Normal,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}


def _student_t_polynomial(level: float) -> list[float]:
    """The coefficients of the quantile of Student's t as a polynomial in 1 / degrees."""
    x = np.linspace(0, 0.5, 501)
    y = np.r_[special.ndtri(level), special.stdtrit(1 / x[1:], level)]
    fitted = np.polynomial.Chebyshev.fit(x, y, _DEGREE)
    return fitted.convert(kind=np.polynomial.Polynomial).coef.tolist()


def _log_gamma_half(x):
    """log G(x + 1/2) - log G(x) for x >= 1, without the cancellation for large x."""
    corrections = 0.0
    for k in range(_SHIFT):
        corrections = corrections + ops.log1p(0.5 / (x + k))
    x = x + _SHIFT
    return 0.5 * ops.log(x) - 1 / (8 * x) + 1 / (192 * x * x * x) - corrections


def _log_choose(r, k):
    """log G(r + k) - log G(r) - log G(k + 1) for r > 0 and k >= 0, without the cancellation."""

    def rest(x):  # of the terms that do not cancel
        corrections = 0.0
        for i in range(_SHIFT):
            corrections = corrections + ops.log1p(k / (x + i))
        b, a = x + _SHIFT, x + _SHIFT + k
        stirling = 1 / (12 * a) - 1 / (360 * a * a * a) - 1 / (12 * b) + 1 / (360 * b * b * b)
        return (b - 0.5) * ops.log1p(k / b) + stirling - corrections

    return rest(r) - rest(1.0) + k * ops.log1p((r - 1) / (1 + _SHIFT + k))


def _peizer_pratt(x):
    """g(x) = (1 - x^2 + 2 x log x) / (1 - x)^2, with g(1) = 0."""
    near = ops.abs(1 - x) < 0.02
    apart = ops.where(near, 2.0, x)
    u = 1 - x
    series = u / 3 + u * u / 6 + u * u * u / 10
    exact = (1 - apart * apart + 2 * apart * ops.log(apart)) / ops.square(1 - apart)
    return ops.where(near, series, exact)


def _normal_cdf(z):
    """P(Z <= z), with an error below 1e-7. LiteRT has no error function."""
    # Abramowitz and Stegun 1964, formula 26.2.17.
    t = 1 / (1 + 0.2316419 * ops.abs(z))
    series = 0.0
    for c in (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530):
        series = (series + c) * t
    tail = series * ops.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return ops.where(z < 0, tail, 1 - tail)


def levels_of(text: str) -> tuple[float, ...]:
    """The quantile levels of an option, in order.

    Raises:
        ValueError: if there is none, or one is not a number between 0 and 1, or is given twice.

    >>> levels_of("0.1,0.5,0.9")
    (0.1, 0.5, 0.9)
    """
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"quantiles must be numbers with commas between, got {text!r}.") from None
    if not all(0 < level < 1 for level in levels) or sorted({*levels}) != [*levels]:
        raise ValueError(f"quantiles must increase and be between 0 and 1, got {text!r}.")
    return levels


@keras.saving.register_keras_serializable(package="unroll")
class DistributionLoss(keras.losses.Loss):
    """The mean loss of a distribution over the values that are known.

    Args:
        kind: a key of `DISTRIBUTIONS`.
        levels: the Q quantile levels.

    Call arguments:
        y_true: `[B, T, C]`; a missing value is NaN.
        y_pred: `[B, T, C, P + 2]`: the parameters, the location and the scale.
    """

    def __init__(self, kind: str, levels: tuple[float, ...], name: str = "distribution_loss"):
        super().__init__(name=name)
        self.kind = kind
        self.levels = tuple(levels)

    def call(self, y_true, y_pred):
        y = ops.cast(y_true, "float32")
        known = ops.logical_not(is_missing(y))
        distribution = unpack(self.kind, self.levels, ops.cast(y_pred, "float32"))
        # Not the loss of NaN, whose gradient is NaN even where it is not used.
        losses = distribution.loss(ops.where(known, y, distribution.location))
        share = ops.mean(ops.cast(known, "float32"))
        losses = ops.where(known, losses, 0.0) / ops.maximum(share, 1e-9)
        return ops.mean(losses, axis=(1, 2))

    def get_config(self):
        return {"kind": self.kind, "levels": list(self.levels), "name": self.name}


def is_missing(values):
    """Whether values are NaN or infinite."""
    # Not `not abs(values) <= maximum`, which the converter to LiteRT turns into `>`: false for NaN.
    return ops.logical_or(ops.isnan(values), ops.abs(values) > np.finfo("float32").max)


def unpack(kind: str, levels: tuple[float, ...], outputs) -> Distribution:
    """The distribution of the outputs of a network, `[..., P + 2]`."""
    return DISTRIBUTIONS[kind](outputs[..., :-2], outputs[..., -2], outputs[..., -1], levels)
