"""The autoregressive model: each value from those before it, and sampled paths of the future."""

import keras
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.forecasting import network
from unroll.apps.forecasting.distributions import DISTRIBUTIONS, Distribution, levels_of
from unroll.apps.shared.recurrent import recurrent_layers
from unroll.layers import backend


def lags_of(text: str) -> tuple[int, ...]:
    """The lags of an option, in order.

    Raises:
        ValueError: if they do not begin with 1, or do not increase.

    >>> lags_of("1,24")
    (1, 24)
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"lags must be positive integers with commas between, got {text!r}.")
    lags = tuple(map(int, parts))
    if lags[0] != 1 or sorted({*lags}) != [*lags]:
        raise ValueError(f"lags must begin with 1 and increase, got {text!r}.")
    return lags


class Autoregressive:
    """DeepAR: Salinas et al. 2020, "DeepAR: probabilistic forecasting with autoregressive recurrent
    networks".

    Recurrent layers read the values at the lags before a step, the covariates and time features of
    the step, and vectors of the series and the column. They return the parameters of the
    distribution of the value at the step. In training they read the values of the future; in a
    forecast, samples of their own.

    Args:
        config: of the app.
        assets: of the app.
    """

    def __init__(self, config, assets: dict):
        units = config.units
        self.config = config
        self.levels = levels_of(config.quantiles)
        self.lags = lags_of(config.lags)
        self.longest = self.lags[-1]
        self.columns = len(assets["columns"])
        self.scale = network.WindowScale(config.scaling, assets["calendar"], name="scale")
        self.scaled = network.Scaled(name="scaled")
        self.of_lags = keras.layers.Dense(units, name="lags")
        self.of_column = ColumnVectors(self.columns, units, name="columns")
        self.covariates = StepCovariates(config, assets)
        self.stack = layers.Stack(
            recurrent_layers(config.cell, units, config.depth),
            dropout=config.dropout,
            return_state=True,
            name="stack",
        )
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.head = keras.layers.Dense(
            network.parameter_count(config), dtype="float32", name="head"
        )
        self.appended = network.Appended(dtype="float32", name="forecast")

    def __call__(self, features: dict):
        """The parameters, the location and the scale of each value, `[B, L + H, C, P + 2]`.

        The features have the `future`, `[B, H, C]`.
        """
        location, scale = self.scale(features["history"], features.get("series"))
        values = ops.concatenate([features["history"], features["future"]], axis=1)
        scaled = self.scaled(values, location, scale)
        outputs, _ = self._read(scaled, self._inputs(scaled, features, scaled.shape[2]))
        outputs = self.dropout(outputs)
        parameters = ops.transpose(self.head(outputs), (0, 2, 1, 3))
        return self.appended(parameters, location, scale)

    def _inputs(self, scaled, features: dict, steps: int):
        """What is added to the lagged values of a number of steps, `[B, C, steps, U]`."""
        x = self.of_column(scaled) + 0 * scaled[:, :, :1, :1]  # [B, C, 1, U]
        covariates = self.covariates(features)
        if covariates is None:
            return ops.repeat(x, steps, axis=2)
        if covariates.shape[1] == 1:  # of series alone
            covariates = ops.repeat(covariates, steps, axis=1)
        return x + ops.expand_dims(covariates[:, :steps], 1)

    def _read(self, scaled, inputs) -> tuple:
        """The outputs of the recurrent layers `[B, C, T, U]`, and their last states `[B C, ...]`.

        Args:
            scaled: values and gaps, `[B, C, T, 2]`.
            inputs: what is added, `[B, C, T or more, U]`.
        """
        length, units = scaled.shape[2], self.config.units
        lagged = ops.concatenate([_earlier(scaled, lag) for lag in self.lags], axis=-1)
        x = self.of_lags(lagged) + inputs[:, :, :length]
        # The steps before the first value do not change the state.
        seen = ops.cumsum(1 - lagged[..., 1], axis=-1) > 0
        outputs, *states = self.stack(
            ops.reshape(x, (-1, length, units)), mask=ops.reshape(seen, (-1, length))
        )
        return ops.reshape(outputs, (-1, self.columns, length, outputs.shape[-1])), states

    @property
    def state_sizes(self) -> list[int]:
        """The sizes of the states of the recurrent layers, from the bottom up."""
        return [size for layer in self.stack.layers for size in layer.state_size]

    def step(self, recent, inputs, states: list) -> tuple:
        """The parameters of the value after `recent`, `[N, P]`, and the new states.

        Args:
            recent: the last values and gaps, `[N, longest lag, 2]`.
            inputs: `[N, U]`.
            states: `[N, size]` each.
        """
        lagged = ops.concatenate([recent[:, self.longest - lag] for lag in self.lags], axis=-1)
        x, new, states = self.of_lags(lagged) + inputs, [], list(states)
        for layer in self.stack.layers:
            own, states = states[: len(layer.state_size)], states[len(layer.state_size) :]
            x, own = layer.cell(x, own)
            new += own
        return self.head(x), new

    def distribution(self, parameters, location, scale) -> Distribution:
        """The distribution of values, from parameters `[..., P]`."""
        kind = DISTRIBUTIONS[self.config.output]
        return kind(parameters, location, scale, self.levels)

    def after(self, features: dict) -> dict:
        """The distribution of the first value after the history, and the state for `next`.

        Args:
            features: `times` and `known`, if the model uses them, have L + 1 or more steps.

        Returns:
            `parameters` `[B, C, P]`; `location` and `scale` `[B, C]`; `recent`
            `[B, C, longest lag, 2]`; `state_0`, ... `[B, C, size]`.
        """
        location, scale = self.scale(features["history"], features.get("series"))
        scaled = self.scaled(features["history"], location, scale)
        length = scaled.shape[2]
        inputs = self._inputs(scaled, features, length + 1)
        _, states = self._read(scaled, inputs)
        recent = scaled[:, :, -self.longest :]
        parameters, states = self.step(_rows(recent), _rows(inputs[:, :, length]), states)
        return self._state(parameters, states, recent, location, scale)

    def next(self, value, features: dict, state: dict) -> dict:
        """As `after`, after one more value `[B, C]`; NaN if it is missing.

        Args:
            value: of the step that the state is before.
            features: `times` and `known` of the step after it, with one step; `series`.
            state: what `after` or `next` returned.
        """
        location, scale = state["location"], state["scale"]
        scaled = self.scaled(ops.expand_dims(value, 1), location, scale)
        recent = ops.concatenate([state["recent"], scaled], axis=2)[:, :, 1:]
        inputs = self._inputs(scaled, features, 1)
        states = [_rows(state[f"state_{k}"]) for k in range(len(self.state_sizes))]
        parameters, states = self.step(_rows(recent), _rows(inputs[:, :, 0]), states)
        return self._state(parameters, states, recent, location, scale)

    def _state(self, parameters, states, recent, location, scale) -> dict:
        def columns(x):
            return ops.reshape(x, (-1, self.columns, x.shape[-1]))

        found = {f"state_{k}": columns(each) for k, each in enumerate(states)}
        own = {"location": location, "scale": scale, "recent": recent}
        return {"parameters": columns(parameters), **own, **found}

    def sample(self, features: dict, noise) -> tf.Tensor:
        """Sampled paths of the future, `[B, H, C, S]`.

        Args:
            features: without the future.
            noise: `[2, H, S]`, uniform in (0, 1). All windows and columns use the same numbers, so
                that a forecast does not depend on its batch.
        """
        horizon, count = noise.shape[1], tf.shape(noise)[2]
        location, scale = self.scale(features["history"], features.get("series"))
        scaled = self.scaled(features["history"], location, scale)
        length = scaled.shape[2]
        inputs = self._inputs(scaled, features, length + horizon)
        _, states = self._read(scaled, inputs)
        ahead = _rows(inputs[:, :, length:])  # [B C, H, U]
        recent = _rows(scaled[:, :, -self.longest :])
        location, scale = (tf.repeat(ops.reshape(x, (-1,)), count) for x in (location, scale))
        recent, *states = (tf.repeat(x, count, axis=0) for x in (recent, *states))  # [B C S, ...]
        copies = tf.shape(ahead)[0]

        def one(carry, xs):
            recent, *states = carry
            inputs, first, second = xs
            parameters, states = self.step(recent, tf.repeat(inputs, count, axis=0), states)
            found = self.distribution(parameters, location, scale)
            value = found.sample(tf.tile(first, [copies]), tf.tile(second, [copies]))
            scaled = (value - location) / scale
            both = ops.stack([scaled, ops.zeros_like(scaled)], axis=-1)
            recent = ops.concatenate([recent[:, 1:], ops.expand_dims(both, 1)], axis=1)
            return (recent, *states), (value,)

        xs = (ops.transpose(ahead, (1, 0, 2)), noise[0], noise[1])
        _, (paths,) = backend.scan(one, (recent, *states), xs, (location,), False)
        paths = ops.reshape(paths, (horizon, -1, self.columns, count))
        return ops.transpose(paths, (1, 0, 2, 3))


class StepCovariates:
    """What covariates, times and series add to each step.

    Args:
        config, assets: of the app.
    """

    def __init__(self, config, assets: dict):
        names, units = network.feature_names(config, assets), config.units
        self.known = self.times = self.series = None
        if "known" in names:
            self.known = keras.layers.Dense(units, use_bias=False, name="known_inputs")
        if "times" in names:
            self.times = [
                network.TimeFeatures(assets["calendar"], name="time_features"),
                keras.layers.Dense(units, use_bias=False, name="time_inputs"),
            ]
        if config.series_embedding_dim:
            self.series = [
                network.SeriesEmbedding(
                    len(assets["series"]), config.series_embedding_dim, name="series_embedding"
                ),
                keras.layers.Dense(units, use_bias=False, name="of_series"),
            ]

    def __call__(self, features: dict):
        """`[B, T, U]`; T is 1 if there are series alone. None without any of them."""
        parts = []
        if self.known:
            parts.append(self.known(features["known"]))
        if self.times:
            embed, project = self.times
            parts.append(project(embed(features["times"])))
        if self.series:
            embed, project = self.series
            parts.append(ops.expand_dims(project(embed(features["series"])), 1))
        return sum(parts[1:], parts[0]) if parts else None


class ColumnVectors(keras.layers.Layer):
    """A vector for each column, `[C, 1, U]`."""

    def __init__(self, columns: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.columns = columns
        self.units = units

    def build(self, like_shape):
        self.vectors = self.add_weight(
            shape=(self.columns, self.units), initializer="zeros", name="vectors"
        )

    def call(self, like):
        return ops.expand_dims(self.vectors, 1)

    def compute_output_spec(self, like):
        return keras.KerasTensor((self.columns, 1, self.units), self.compute_dtype)


def _earlier(scaled, lag: int):
    """Values and gaps `[B, C, T, 2]` as they were `lag` steps before; missing before the first."""
    before = ops.zeros_like(scaled[:, :, :lag]) + ops.array([0.0, 1.0])
    return ops.concatenate([before, scaled[:, :, :-lag]], axis=2)


def _rows(x):
    """`[B, C, ...]` to `[B C, ...]`."""
    return ops.reshape(x, (-1, *x.shape[2:]))
