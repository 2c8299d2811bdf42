"""The layers of both models, and the direct model.

Shape letters: B windows, L steps of the past (the context), H steps to forecast (the horizon), C
columns, K covariates that are known ahead of time, F time features, P parameters of a distribution,
U units, S sampled paths. Each column is forecast by itself, with the same weights.
"""

import math

import keras
import numpy as np
from keras import ops

from unroll import layers
from unroll.apps.forecasting.distributions import DISTRIBUTIONS, is_missing, levels_of
from unroll.apps.shared.recurrent import recurrent_layers
from unroll.pipelines import calendars
from unroll.pipelines.forecasting import Table


def feature_names(config, assets: dict) -> list[str]:
    """The features of a window that a network uses, in order."""
    names = ["history"]
    if config.time_features and assets["calendar"]["time_features"]:
        names.append("times")
    if assets["known"]:
        names.append("known")
    # The scale of the last value is that of its series.
    if config.series_embedding_dim or (config.scaling == "last" and len(assets["series"]) > 1):
        names.append("series")
    return names


def inputs_of(config, assets: dict) -> dict[str, keras.KerasTensor]:
    """The inputs of a network, by name."""
    length, columns = config.context + config.horizon, len(assets["columns"])
    shapes = {
        "history": (config.context, columns),
        "times": (length,),
        "known": (length, len(assets["known"])),
        "series": (),
        "future": (config.horizon, columns),
    }
    dtypes = {"times": "int64", "series": "int32"}
    names = feature_names(config, assets) + ["future"] * (config.model == "autoregressive")
    return {
        name: keras.Input(shapes[name], dtype=dtypes.get(name, "float32"), name=name)
        for name in names
    }


def parameter_count(config) -> int:
    """P."""
    return DISTRIBUTIONS[config.output].parameter_count(levels_of(config.quantiles))


class WindowScale(keras.layers.Layer):
    """The location and the scale of each window, from the values that it has.

    Reversible instance normalization: Kim et al. 2022, "Reversible instance normalization for
    accurate time-series forecasting against distribution shift". The kinds are:

    | kind | location | scale |
    | --- | --- | --- |
    | `standard` | the mean of the window | the standard deviation of the window |
    | `last` | the last value of the window | the standard deviation of the training split |
    | `mean` | 0 | the mean of the absolute values of the window |

    A window whose scale would be zero has that of the training split; one without values also has
    its mean as the location, unless that is 0.

    Args:
        kind: see above.
        calendar: the asset with the means and standard deviations of the training split.

    Call arguments:
        history: `[B, L, C]`, NaN where a value is missing.
        series: `[B]`, the index in these lists; 0, all series together, by default.

    Returns:
        A tuple of the location and the scale, `[B, C]` float32.
    """

    def __init__(self, kind: str, calendar: dict, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.kind = kind
        self.means = np.array(calendar["mean"], "float32")  # [1 + series, C]
        self.deviations = np.array(calendar["std"], "float32")

    def call(self, history, series=None):
        rows = ops.zeros_like(history[:, 0, 0], "int32") if series is None else series
        rows = ops.where(ops.logical_and(rows >= 0, rows < len(self.means)), rows, 0)
        usual_mean, usual_scale = (
            ops.take(ops.convert_to_tensor(x), rows, axis=0) for x in (self.means, self.deviations)
        )
        missing = is_missing(history)
        known = ops.cast(ops.logical_not(missing), "float32")
        count = ops.sum(known, axis=1)
        some = count > 0
        count = ops.maximum(count, 1.0)
        if self.kind == "mean":
            scale = ops.sum(ops.where(missing, 0.0, ops.abs(history)), axis=1) / count
            location = ops.zeros_like(scale)
            return location, ops.where(scale > 0, scale, usual_scale)
        steps = ops.reshape(ops.arange(1, history.shape[1] + 1, dtype="float32"), (1, -1, 1))
        is_last = steps * known >= ops.max(steps * known, axis=1, keepdims=True)
        is_last = ops.logical_and(is_last, ops.logical_not(missing))
        last = ops.sum(ops.where(is_last, history, 0.0), axis=1)
        if self.kind == "last":
            return ops.where(some, last, usual_mean), usual_scale
        # Relative to the last value, since a sum of large numbers is not precise.
        apart = ops.where(missing, 0.0, history - ops.expand_dims(last, 1))
        mean = ops.sum(apart, axis=1) / count
        apart = ops.where(missing, 0.0, apart - ops.expand_dims(mean, 1))
        scale = ops.sqrt(ops.sum(ops.square(apart), axis=1) / count)
        location = ops.where(some, last + mean, usual_mean)
        return location, ops.where(scale > 1e-6 * ops.abs(location), scale, usual_scale)

    def compute_output_shape(self, history_shape, series_shape=None):
        shape = (history_shape[0], history_shape[2])
        return shape, shape


class Scaled(keras.layers.Layer):
    """Values `[B, T, C]` in units of their windows, `[B, C, T, 2]`: the value, 0 where it is
    missing, and whether it is missing."""

    def __init__(self, **kwargs):
        super().__init__(dtype="float32", **kwargs)

    def call(self, values, location, scale):
        missing = ops.transpose(is_missing(values), (0, 2, 1))  # [B, C, T]
        values = (values - ops.expand_dims(location, 1)) / ops.expand_dims(scale, 1)
        values = ops.transpose(values, (0, 2, 1))
        return ops.stack([ops.where(missing, 0.0, values), ops.cast(missing, "float32")], axis=-1)

    def compute_output_shape(self, values_shape, *scale_shapes):
        batch, steps, columns = values_shape
        return (batch, columns, steps, 2)


def repeated_features(train: Table) -> list[str]:
    """The time features that take each value at least twice in the training split.

    A network cannot learn what others mean: in a training split of some weeks, the day of the year
    tells nothing but the step.
    """
    days = max(int(series.times[-1] - series.times[0]) for series in train.series) / calendars.DAY
    names = calendars.feature_names(train.frequency)
    return [name for name in names if days >= 2 * _DAYS[name]]


# The days after which a time feature has the same value again, at most.
_DAYS = {
    "second": 1, "minute": 1, "hour": 1, "day of week": 7, "day of month": 31, "day of year": 366,
    "month": 366,
}  # fmt: skip


class TimeFeatures(keras.layers.Layer):
    """Times `[B, T]` int64 to `[B, T, 3 F]`: each time feature, its sine and its cosine.

    Args:
        calendar: the asset with the frequency and the names of the time features.
    """

    def __init__(self, calendar: dict, **kwargs):
        super().__init__(**kwargs)
        self.frequency = calendar["frequency"]
        every = calendars.feature_names(self.frequency)
        self.positions = [every.index(name) for name in calendar["time_features"]]
        self.count = len(self.positions)

    def call(self, times):
        x = calendars.time_features(times, self.frequency)
        x = ops.stack([x[..., k] for k in self.positions], axis=-1)
        angle = 2 * math.pi * x
        both = ops.concatenate([x, ops.sin(angle), ops.cos(angle)], axis=-1)
        return ops.cast(both, self.compute_dtype)

    def compute_output_spec(self, times):
        return keras.KerasTensor((*times.shape, 3 * self.count), self.compute_dtype)


class SeriesEmbedding(keras.layers.Layer):
    """A vector for each series, `[B]` to `[B, E]`. That of unknown series, 0, is zero."""

    def __init__(self, count: int, size: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.size = size

    def build(self, series_shape):
        self.embeddings = self.add_weight(
            shape=(self.count, self.size), initializer="uniform", name="embeddings"
        )

    def call(self, series):
        known = ops.logical_and(series > 0, series <= self.count)
        found = ops.take(self.embeddings, ops.where(known, series - 1, 0), axis=0)
        return ops.where(ops.expand_dims(known, -1), found, 0.0)

    def compute_output_spec(self, series):
        return keras.KerasTensor((*series.shape, self.size), self.compute_dtype)


class Appended(keras.layers.Layer):
    """Parameters `[B, T, C, P]`, and after them the location and the scale `[B, C]`."""

    def call(self, parameters, location, scale):
        both = ops.expand_dims(ops.stack([location, scale], axis=-1), 1)  # [B, 1, C, 2]
        both = both + ops.zeros_like(parameters[..., :1])
        return ops.concatenate([parameters, both], axis=-1)

    def compute_output_shape(self, parameters_shape, *scale_shapes):
        return (*parameters_shape[:-1], parameters_shape[-1] + 2)


class SegmentCovariates(keras.layers.Layer):
    """A product of all covariates of a segment: `[B, N, W, K]` to `[B, N, U]`."""

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, covariates_shape):
        *_, size, known = covariates_shape
        # An axis for the covariates, which have names.
        self.kernel = self.add_weight(shape=(known, size, self.units), name="kernel")

    def call(self, covariates):
        _, count, size, known = covariates.shape
        x = ops.reshape(ops.transpose(covariates, (0, 1, 3, 2)), (-1, count, known * size))
        return ops.matmul(x, ops.reshape(self.kernel, (known * size, self.units)))

    def compute_output_shape(self, covariates_shape):
        return (*covariates_shape[:2], self.units)


class CovariateEffects(keras.layers.Layer):
    """The sum of the covariates of each step times their effects, `[B, C, H, P]`.

    The effects on the P parameters are linear in the output of the segment of the step, so that
    each series and window has its own (a varying-coefficient model: Hastie and Tibshirani 1993).
    At first they are zero.

    Args:
        parameter_count: P.
        size: W, the number of steps of a segment.

    Call arguments:
        covariates: `[B, H, K]`.
        outputs: `[B, C, M, U]`, of the M segments that have these H steps.
    """

    def __init__(self, parameter_count: int, size: int, **kwargs):
        super().__init__(**kwargs)
        self.parameter_count = parameter_count
        self.size = size

    def build(self, covariates_shape, outputs_shape):
        shape = (covariates_shape[-1], outputs_shape[-1], self.parameter_count)
        self.effects = self.add_weight(shape=shape, initializer="zeros", name="effects")

    def call(self, covariates, outputs):
        horizon, known = covariates.shape[1:]
        _, columns, count, units = outputs.shape
        x = ops.pad(covariates, ((0, 0), (0, count * self.size - horizon), (0, 0)))
        x = ops.reshape(x, (-1, count, self.size, known))  # [B, M, W, K]
        kernel = ops.reshape(ops.transpose(self.effects, (1, 0, 2)), (units, -1))  # [U, K P]
        effects = ops.matmul(outputs, kernel)  # [B, C, M, K P]
        effects = ops.reshape(effects, (-1, columns, count, known, self.parameter_count))
        effects = ops.transpose(effects, (0, 2, 3, 1, 4))  # [B, M, K, C, P]
        effects = ops.reshape(effects, (-1, count, known, columns * self.parameter_count))
        found = ops.matmul(x, effects)  # [B, M, W, C P]
        found = ops.reshape(found, (-1, count * self.size, columns, self.parameter_count))
        return ops.transpose(found[:, :horizon], (0, 2, 1, 3))

    def compute_output_shape(self, covariates_shape, outputs_shape):
        batch, horizon, _ = covariates_shape
        return (batch, outputs_shape[1], horizon, self.parameter_count)


class SegmentQueries(keras.layers.Layer):
    """A vector for each segment to forecast of each column, `[C, M, U]`.

    A half of it is learned for each position of a segment, the other half for each column (Lin et
    al. 2023, section 3.4).
    """

    def __init__(self, columns: int, count: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.shape = (columns, count, units)

    def build(self, like_shape):
        columns, count, units = self.shape
        self.of_column = self.add_weight(
            shape=(columns, units // 2), initializer="normal", name="columns"
        )
        self.of_position = self.add_weight(
            shape=(count, units - units // 2), initializer="normal", name="positions"
        )

    def call(self, like):
        columns, count, units = self.shape
        parts = (
            ops.broadcast_to(self.of_column[:, None], (columns, count, units // 2)),
            ops.broadcast_to(self.of_position[None], (columns, count, units - units // 2)),
        )
        return ops.concatenate(parts, axis=-1)[None] + 0 * like[:, :1, :1, :1]

    def compute_output_shape(self, like_shape):
        return (like_shape[0], *self.shape)


class Direct:
    """SegRNN: Lin et al. 2023, "SegRNN: segment recurrent neural network for long-term time series
    forecasting".

    Recurrent layers read segments of W steps of the past. Then one step of them, from their last
    states, makes each segment of the forecast (parallel multi-step forecasting). Time features and
    vectors of series, which the paper does not have, are added to the inputs of both, and
    covariates to those of the past. Time features of each step to forecast also enter a hidden
    layer before the output, as in the temporal decoder of Das et al. 2023, "Long-term forecasting
    with TiDE". The covariates of these steps are multiplied with effects: see `CovariateEffects`.

    Args:
        config: of the app.
        assets: of the app.
    """

    def __init__(self, config, assets: dict):
        self.config = config
        self.assets = assets
        self.scale = WindowScale(config.scaling, assets["calendar"], name="scale")

    def __call__(self, features: dict):
        """The parameters, the location and the scale of each value, `[B, H, C, P + 2]`."""
        config, size, units = self.config, self.config.segment, self.config.units
        columns = len(self.assets["columns"])
        past, ahead = -(-config.context // size), -(-config.horizon // size)
        location, scale = self.scale(features["history"], features.get("series"))
        scaled = Scaled(name="scaled")(features["history"], location, scale)  # [B, C, L, 2]
        before = past * size - config.context
        if before:
            gaps = ops.zeros_like(scaled[:, :, :before]) + ops.array([0.0, 1.0])
            scaled = ops.concatenate([gaps, scaled], axis=2)
        segments = ops.reshape(scaled, (-1, columns, past, 2 * size))
        # A segment before the first value does not change the state.
        gaps = ops.reshape(scaled[..., 1], (-1, columns, past, size))
        seen = ops.cumsum(ops.sum(1 - gaps, axis=-1), axis=-1) > 0  # [B, C, N]
        x = keras.layers.Dense(units, name="segments")(segments)
        of_past, of_future = _segment_covariates(config, self.assets, features, past, ahead)
        if of_past is not None:
            x = x + ops.expand_dims(of_past, 1)
        x = ops.relu(x)  # [B, C, N, U]
        stack = layers.Stack(
            recurrent_layers(config.cell, units, config.depth),
            dropout=config.dropout,
            return_state=True,
            name="stack",
        )
        rows, mask = ops.reshape(x, (-1, past, units)), ops.reshape(seen, (-1, past))
        _, *states = stack(rows, mask=mask)
        queries = SegmentQueries(columns, ahead, units, name="queries")(x)  # [B, C, M, U]
        if of_future is not None:
            queries = queries + ops.expand_dims(of_future, 1)
        # A row for each segment, all of which start from the states of its column.
        states = [ops.repeat(state, ahead, axis=0) for state in states]
        outputs, *_ = stack(ops.reshape(queries, (-1, 1, units)), initial_state=states)
        outputs = keras.layers.Dropout(config.dropout, name="dropout")(outputs)
        count = parameter_count(config)
        # With `last`, the first forecasts are the last value, which is hard to beat.
        initializer = "zeros" if config.scaling == "last" else "glorot_uniform"
        options = {"kernel_initializer": initializer, "dtype": "float32"}
        parameters = keras.layers.Dense(size * count, name="head", **options)(outputs)
        parameters = ops.reshape(parameters, (-1, columns, ahead * size, count))
        parameters = parameters[:, :, : config.horizon]
        of_steps = _step_times(config, self.assets, features)  # [B, H, E]
        if of_steps is not None:
            width = of_steps.shape[-1]
            x = keras.layers.Dense(size * width, name="step_states")(outputs)
            x = ops.reshape(x, (-1, columns, ahead * size, width))
            x = ops.relu(x[:, :, : config.horizon] + ops.expand_dims(of_steps, 1))
            x = keras.layers.Dense(count, use_bias=False, name="step_head", **options)(x)
            parameters = parameters + x
        if "known" in features:
            effects = CovariateEffects(count, size, dtype="float32", name="known_effects")
            of_segments = ops.reshape(outputs, (-1, columns, ahead, outputs.shape[-1]))
            parameters = parameters + effects(features["known"][:, config.context :], of_segments)
        parameters = ops.transpose(parameters, (0, 2, 1, 3))
        return Appended(dtype="float32", name="forecast")(parameters, location, scale)


def _segment_covariates(config, assets, features, past: int, ahead: int) -> tuple:
    """What covariates, times and series add to the segments of the past and of the future.

    Returns:
        `[B, N, U]` and `[B, M, U]`, or None and None without any of them.
    """
    size, context = config.segment, config.context
    of_past, of_future = [], []
    if "known" in features:
        x = ops.pad(features["known"][:, :context], ((0, 0), (past * size - context, 0), (0, 0)))
        x = ops.reshape(x, (-1, past, size, len(assets["known"])))
        of_past.append(SegmentCovariates(config.units, name="known_past")(x))
    if "times" in features:
        times = TimeFeatures(assets["calendar"], name="time_features")(features["times"])
        # Of the last step of a segment of the past, and of the first step of the others.
        lasts = [context - 1 - size * k for k in reversed(range(past))]
        firsts = [context + size * k for k in range(ahead)]
        for parts, steps, name in ((of_past, lasts, "past"), (of_future, firsts, "future")):
            x = ops.take(times, ops.array(steps, "int32"), axis=1)
            x = keras.layers.Dense(config.units, "relu", name=f"hidden_times_{name}")(x)
            parts.append(keras.layers.Dense(config.units, name=f"times_{name}")(x))
    if config.series_embedding_dim:
        x = SeriesEmbedding(
            len(assets["series"]), config.series_embedding_dim, name="series_embedding"
        )(features["series"])
        x = ops.expand_dims(keras.layers.Dense(config.units, name="of_series")(x), 1)
        of_past.append(x)
        of_future.append(x)
    return tuple(sum(parts[1:], parts[0]) if parts else None for parts in (of_past, of_future))


def _step_times(config, assets, features):
    """What times add to a hidden layer of each step to forecast, `[B, H, E]`."""
    if "times" not in features:
        return None
    ahead = features["times"][:, config.context :]
    ahead = TimeFeatures(assets["calendar"], name="step_times")(ahead)
    width = max(8, config.units // 4)
    return keras.layers.Dense(width, use_bias=False, name="time_steps")(ahead)
