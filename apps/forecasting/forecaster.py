"""A trained model as a function from a history to the mean and the quantiles of what follows."""

import numpy as np
import tensorflow as tf
from keras import ops

from unroll.apps.core.protocol import Trained, once
from unroll.apps.forecasting import network
from unroll.apps.forecasting.distributions import levels_of, unpack
from unroll.pipelines import calendars


@once
def forecaster_of(trained: Trained) -> "Forecaster":
    """The forecaster of a trained model, made once."""
    return Forecaster(trained)


class Forecaster:
    """Forecasts with a trained model.

    Args:
        trained: the trained model.
    """

    def __init__(self, trained: Trained):
        config, assets = trained.config, trained.assets
        self.config = config
        self.assets = assets
        self.model = trained.model
        self.levels = levels_of(config.quantiles)
        self.is_autoregressive = config.model == "autoregressive"
        self.names = network.feature_names(config, assets)
        # Whether there are quantiles.
        self.is_probabilistic = config.output != "point"
        # Whether forecasts are made of sampled paths.
        self.is_sampled = self.is_autoregressive and self.is_probabilistic
        self.run = tf.function(self._run, reduce_retracing=True)

    def __call__(self, features: dict) -> dict:
        """The forecasts of a batch of `pipelines.forecasting.windows`, as NumPy arrays.

        Returns:
            `mean`, `[B, H, C]`, and with a probabilistic model `quantiles`, `[B, H, C, Q]`.
        """
        found = self.run({name: features[name] for name in self.names})
        return {name: value.numpy() for name, value in found.items()}

    def _run(self, features: dict) -> dict:
        noise = None
        if self.is_sampled:
            noise = self.noise(self.config.samples, self.config.sample_seed)
        return self.forecast(features, noise)

    def noise(self, count, seed) -> tf.Tensor:
        """Uniform numbers for `forecast`, `[2, H, S]`.

        Args:
            count: S.
            seed: an integer.
        """
        shape = [2, self.config.horizon, count]
        numbers, order = (tf.random.stateless_uniform(shape, [seed, part]) for part in (0, 1))
        # One number in each of S equal intervals, in random order, for a smaller error of the mean
        # (McKay et al. 1979, "A comparison of three methods for selecting values of input
        # variables": Latin hypercube sampling).
        ranks = tf.cast(tf.argsort(order, axis=-1), tf.float32)
        return tf.clip_by_value((ranks + numbers) / count, 1e-6, 1 - 1e-6)

    def forecast(self, features: dict, noise=None) -> dict:
        """The mean `[B, H, C]` and the quantiles `[B, H, C, Q]`.

        Args:
            features: the features of windows that the model uses, L steps of the past and H of the
                future.
            noise: what `noise` returns, if the model samples.
        """
        if not self.is_autoregressive:
            outputs = self.model(features, training=False)
            found = unpack(self.config.output, self.levels, outputs)
            return self._described(found)
        if noise is None:
            noise = tf.zeros([2, self.config.horizon, 1])  # the model has no use for it
        paths = self.model.network.sample(features, noise)  # [B, H, C, S]
        mean = tf.reduce_mean(paths, axis=-1)
        if not self.is_probabilistic:
            return {"mean": mean}
        return {"mean": mean, "quantiles": _quantiles(paths, self.levels)}

    def _described(self, distribution) -> dict:
        found = {"mean": distribution.mean()}
        if self.is_probabilistic:
            found["quantiles"] = distribution.quantiles()
        return found

    def described(self, state: dict) -> dict:
        """The mean `[B, C]` and the quantiles `[B, C, Q]` of the value after a state."""
        location, scale = state["location"], state["scale"]
        return self._described(
            self.model.network.distribution(state["parameters"], location, scale)
        )

    def fit(self, inputs: dict) -> dict:
        """The features of the model, from histories of any length.

        A longer history is cut to its last L steps, a shorter one padded with missing values.

        Args:
            inputs: `history` `[B, T, C]`; `times` `[B, T]` and `future_times` `[B, N]`; `known`
                `[B, T, K]` and `future_known` `[B, N, K]`; `series` `[B]`.

        Returns:
            The features, of L and L + N steps.
        """
        found = {"history": self._fit(inputs["history"], np.nan)}
        for name in ("times", "known"):
            if name in self.names:
                past = self._fit(inputs[name], 0)
                found[name] = ops.concatenate([past, inputs[f"future_{name}"]], axis=1)
        if "series" in self.names:
            found["series"] = inputs["series"]
        return found

    def _fit(self, x, value):
        length = self.config.context
        shape = tf.concat([tf.shape(x)[:1], [length], tf.shape(x)[2:]], axis=0)
        x = tf.concat([tf.fill(shape, tf.cast(value, x.dtype)), x], axis=1)[:, -length:]
        return tf.reshape(x, [-1, length, *x.shape[2:]])

    def future_times(self, last: int, steps: int | None = None) -> np.ndarray:
        """The times of the steps after a time, `[H]` int64."""
        ahead = np.arange(1, (steps or self.config.horizon) + 1)
        return calendars.shift(last, ahead, self.assets["calendar"]["frequency"])


def _quantiles(samples, levels: tuple[float, ...]) -> tf.Tensor:
    """The quantiles of samples `[..., S]`, `[..., Q]`, interpolated between two samples."""
    ordered = tf.sort(samples, axis=-1)
    last = tf.shape(samples)[-1] - 1
    positions = tf.constant(levels) * tf.cast(last, tf.float32)
    lower = tf.cast(tf.floor(positions), tf.int32)
    weight = positions - tf.cast(lower, tf.float32)
    low = tf.gather(ordered, lower, axis=-1)
    high = tf.gather(ordered, tf.minimum(lower + 1, last), axis=-1)
    return low + weight * (high - low)
