"""The distributions of the forecasting app, compared with those of SciPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from unroll.apps.forecasting.distributions import (
    DISTRIBUTIONS,
    DistributionLoss,
    levels_of,
    unpack,
)

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.9, 0.995)
LOCATION, SCALE = 3.0, 2.0


def inverse_softplus(x):
    return x + np.log(-np.expm1(-x))


def make(kind: str, *parameters, location=LOCATION, scale=SCALE, levels=LEVELS):
    """A distribution of the same values, `[...]`, from one array of each parameter."""
    stacked = tf.stack([tf.cast(p, tf.float32) for p in parameters], axis=-1)
    zero = tf.zeros_like(stacked[..., 0])
    return DISTRIBUTIONS[kind](stacked, location + zero, scale + zero, levels)


def student_t(degrees, mean, deviation, **options):
    raw = (mean, inverse_softplus(deviation - 1e-3), inverse_softplus(degrees - 2))
    return make("student_t", *np.broadcast_arrays(*raw), **options)


def negative_binomial(mean, shape, **options):
    """Of a mean and an r, with a scale of 1."""
    raw = np.broadcast_arrays(inverse_softplus(mean), inverse_softplus(1 / shape))
    return make("negative_binomial", *raw, location=0.0, scale=1.0, **options)


def test_the_likelihood_of_a_normal_distribution():
    y = np.linspace(-20, 30, 31)
    found = make("normal", np.full(31, 0.5), np.full(31, inverse_softplus(0.799))).loss(y)
    # The density of the scaled value.
    expected = -stats.norm.logpdf(y, LOCATION + SCALE * 0.5, SCALE * 0.8) - np.log(SCALE)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("degrees", [2.01, 3.0, 10.0, 1e3, 1e6])
def test_the_likelihood_and_the_quantiles_of_a_student_t_distribution(degrees):
    y = np.linspace(-50, 60, 31)
    found = student_t(np.full(31, degrees), 0.5, 0.8)
    expected = stats.t(degrees, LOCATION + SCALE * 0.5, SCALE * 0.8)
    losses = -expected.logpdf(y) - np.log(SCALE)
    np.testing.assert_allclose(found.loss(y), losses, rtol=2e-5)
    np.testing.assert_allclose(found.quantiles()[0], expected.ppf(LEVELS), rtol=2e-4)
    np.testing.assert_allclose(found.mean()[0], expected.mean(), rtol=1e-6)


def test_the_probabilities_of_a_negative_binomial_distribution():
    for mean, shape in itertools.product((0.1, 2.0, 30.0, 1000.0), (0.05, 0.5, 1.0, 10.0, 1e4)):
        k = np.unique(np.r_[np.arange(20), np.linspace(0, 6 * mean + 40, 60).round()])
        found = negative_binomial(np.full(len(k), mean), shape)
        mean, shape = float(found.mean()[0]), float(found.shape[0])  # with their rounding errors
        expected, counts = stats.nbinom(shape, shape / (shape + mean)), tf.cast(k, tf.float32)
        likely = expected.logpmf(k)
        np.testing.assert_allclose(found.log_probability(counts), likely, rtol=1e-4)
        np.testing.assert_allclose(found.loss(counts), -likely, rtol=1e-4)
        np.testing.assert_allclose(found.cumulative(counts), expected.cdf(k), atol=1e-3)


def test_the_quantiles_of_a_negative_binomial_distribution():
    means, shapes = np.meshgrid((0.1, 2.0, 30.0, 1000.0), (0.05, 0.5, 1.0, 10.0, 1e4))
    found = negative_binomial(means.ravel(), shapes.ravel())
    mean, shape = found.mean().numpy().astype("float64"), found.shape.numpy().astype("float64")
    expected = stats.nbinom(shape, shape / (shape + mean))
    counts = tf.function(found.quantiles)().numpy()
    assert (counts == counts.round()).all()
    for level, own in zip(LEVELS, counts.T, strict=True):
        # The level may be wrong by the error of the cumulative probability.
        assert (expected.ppf(level - 1e-3) <= own).all()
        assert (own <= expected.ppf(level + 1e-3)).all()


def test_a_negative_binomial_distribution_follows_the_scale():
    """Salinas et al. 2020, section 3: the mean is multiplied by it, a divided by its root."""
    small, large = (make("negative_binomial", [0.3], [0.2], scale=s) for s in (1.0, 16.0))
    np.testing.assert_allclose(large.mean(), 16 * small.mean(), rtol=1e-6)
    np.testing.assert_allclose(large.shape, 4 * small.shape, rtol=1e-6)


def uniform(count: int) -> list:
    return [
        tf.constant(x, tf.float32)
        for x in np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, (2, count))
    ]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda n: make("normal", np.zeros(n), np.zeros(n)), stats.norm(3, 2 * (np.log(2) + 1e-3))),
        (lambda n: student_t(np.full(n, 3.0), 0.0, 1.0), stats.t(3, 3, 2)),
    ],
)
def test_samples_have_the_distribution(found, expected):
    samples = found(4000).sample(*uniform(4000)).numpy()
    assert stats.kstest(samples, expected.cdf).pvalue > 0.01


def test_samples_of_counts_have_the_distribution():
    found = negative_binomial(np.full(4000, 4.0), 1.5)
    samples = tf.function(found.sample)(*uniform(4000)).numpy()
    expected = stats.nbinom(1.5, 1.5 / 5.5)
    for k in range(8):
        assert np.mean(samples <= k) == pytest.approx(expected.cdf(k), abs=0.03)


def test_quantiles_are_in_order_and_their_mean_is_swansons():
    found = make("quantiles", [2.0], [-1.0], [0.5], levels=(0.1, 0.5, 0.9))
    np.testing.assert_allclose(found.quantiles()[0], [1.0, 4.0, 7.0])
    expected = LOCATION + SCALE * (0.3 * 2.0 + 0.4 * -1.0 + 0.3 * 0.5)
    np.testing.assert_allclose(found.mean()[0], expected, rtol=1e-6)


def test_the_pinball_loss_is_twice_its_mean():
    found = make("quantiles", [0.0], [1.0], location=0.0, scale=1.0, levels=(0.2, 0.5))
    # Errors of 2 and 1, both above the quantile.
    np.testing.assert_allclose(found.loss([2.0])[0], 0.2 * 2 + 0.5 * 1, rtol=1e-6)
    median = make("quantiles", [1.5], location=0.0, scale=1.0, levels=(0.5,))
    point = make("point", [1.5], location=0.0, scale=1.0)
    np.testing.assert_allclose(median.loss([4.0]), point.loss([4.0]))


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_loss_and_its_gradient_are_finite(kind):
    count = DISTRIBUTIONS[kind].parameter_count((0.1, 0.5))
    values = np.array([0.0, 1e-3, 1.0, 1e6, np.nan], "float32")
    for extreme in (-40.0, 0.0, 40.0):
        parameters = tf.Variable(tf.fill([1, len(values), 1, count], extreme))
        for scale in (1e-3, 1.0, 1e5):
            with tf.GradientTape() as tape:
                ends = tf.constant([0.0, scale]) + tf.zeros([1, len(values), 1, 2])
                outputs = tf.concat([parameters, ends], axis=-1)
                loss = DistributionLoss(kind, (0.1, 0.5))(values[None, :, None], outputs)
            assert np.isfinite(loss)
            assert np.isfinite(tape.gradient(loss, parameters)).all()


def test_missing_values_have_no_loss():
    values = np.array([1.0, np.nan, 2.0, np.inf], "float32")[None, :, None]
    outputs = tf.constant([[0.0, 0.0, 1.0]])[None, :, None, :] + tf.zeros([1, 4, 1, 3])
    loss = DistributionLoss("point", (0.5,))
    np.testing.assert_allclose(loss(values, outputs), 1.5)
    np.testing.assert_allclose(loss(np.full_like(values, np.nan), outputs), 0.0)
    config = DistributionLoss.from_config(loss.get_config())
    assert (config.kind, config.levels) == ("point", (0.5,))


def test_the_last_two_outputs_are_the_location_and_the_scale():
    found = unpack("point", (), tf.constant([[0.5, 3.0, 2.0]]))
    np.testing.assert_allclose(found.mean(), [4.0])


@pytest.mark.parametrize("text", ["", "a", "0.5,0.1", "0.5,0.5", "0,0.5", "0.5,1", "0.1;0.9"])
def test_bad_levels_are_named(text):
    with pytest.raises(ValueError, match=f"^quantiles must .*{text!r}"):
        levels_of(text)
