"""Forecasts that need no model: the last value, the seasonal naive, and Naive2 of M4.

They are computed in the graph, for the windows of `forecasting.windows`, from all steps before a
window, and not only from those that a model sees.
"""

import numpy as np
import tensorflow as tf

_CRITICAL = 1.645  # of the test of a season, at 90 %


class NaiveForecasts:
    """The references of windows of series.

    Args:
        values: `[N, C]`, of all series, one after the other. NaN where missing.
        begins, lengths: of the series in `values`.
        starts: for each series, the first step of the split.
        seasonality: M, the number of steps of a season.
        horizon: H.
    """

    def __init__(
        self,
        values: np.ndarray,
        begins: np.ndarray,
        lengths: np.ndarray,
        starts: list[int],
        seasonality: int,
        horizon: int,
    ):
        last, seasonal, plain = (values.copy() for _ in range(3))
        scales, indices = [], []
        for begin, length, start in zip(begins, lengths, starts, strict=True):
            own = slice(begin, begin + length)
            last[own] = fill_forward(values[own])
            seasonal[own] = fill_forward(values[own], seasonality)
            known = values[begin : begin + (start or length)]
            scales.append(mase_scale(known, seasonality))
            found = seasonal_indices(seasonal[own][: len(known)], seasonality)
            indices.append(found)
            of_step = np.resize(found, (length, values.shape[1]))
            plain[own] = fill_forward(values[own] / of_step)
        self._last, self._seasonal, self._plain = map(tf.constant, (last, seasonal, plain))
        self._begins = tf.constant(begins, tf.int32)
        self._scales = tf.constant(np.array(scales, "float32"))  # [S, C]
        self._indices = tf.constant(np.array(indices, "float32"))  # [S, M, C]
        self._seasonality, self._horizon = seasonality, horizon

    def __call__(self, of: tf.Tensor, origins: tf.Tensor) -> dict[str, tf.Tensor]:
        """The references of windows.

        Args:
            of: the series of each window, `[B]` int32.
            origins: the position of its first target in `values`, `[B]` int32.

        Returns:
            `last`, the last value that is not missing, `[B, C]`; `seasonal` and `naive2`,
            forecasts, `[B, H, C]`; `scale`, the denominator of MASE, `[B, C]`.
        """
        ahead = tf.range(self._horizon)
        begin = tf.gather(self._begins, of)[:, None]
        targets = origins[:, None] + ahead  # [B, H]
        seasons = ahead // self._seasonality + 1
        before = targets - seasons * self._seasonality
        last = tf.gather(self._last, origins - 1)  # [B, C]
        seasonal = tf.gather(self._seasonal, tf.maximum(before, begin))  # [B, H, C]
        is_known = (before >= begin)[..., None] & ~tf.math.is_nan(seasonal)
        indices = tf.gather(
            tf.gather(self._indices, of), (targets - begin) % self._seasonality, batch_dims=1
        )
        return {
            "last": last,
            "seasonal": tf.where(is_known, seasonal, last[:, None]),
            "naive2": tf.gather(self._plain, origins - 1)[:, None] * indices,
            "scale": tf.gather(self._scales, of),
        }


def fill_forward(values: np.ndarray, period: int = 1) -> np.ndarray:
    """Each missing value replaced by that of a period before, if there is one.

    Args:
        values: `[T, C]`.
        period: the number of steps of a period.

    >>> fill_forward(np.array([[1.0], [2.0], [np.nan], [np.nan]]), 2).ravel().tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    length, width = values.shape
    rows = -(-length // period)
    padded = np.full((rows * period, width), np.nan, values.dtype)
    padded[:length] = values
    cube = padded.reshape(rows, period, width)
    row = np.where(np.isnan(cube), 0, np.arange(rows)[:, None, None])
    filled = np.take_along_axis(cube, np.maximum.accumulate(row, axis=0), axis=0)
    return filled.reshape(-1, width)[:length]


def mase_scale(values: np.ndarray, seasonality: int) -> np.ndarray:
    """The mean absolute error of the seasonal naive on a series, `[C]`.

    Hyndman and Koehler 2006, "Another look at measures of forecast accuracy". NaN if it is zero or
    not known: then there is no MASE. A series that is no longer than a season has a season of one
    step.
    """
    lag = seasonality if len(values) > seasonality else 1
    errors = np.abs(values[lag:] - values[:-lag])
    count = np.sum(~np.isnan(errors), axis=0)
    mean = np.nansum(errors, axis=0, dtype="float64") / np.maximum(count, 1)
    return np.where(mean > 0, mean, np.nan)


def seasonal_indices(values: np.ndarray, seasonality: int) -> np.ndarray:
    """The factors of the steps of a season, of which the first is that of the first step.

    As M4's Naive2 (Makridakis et al. 2018): those of the classical multiplicative decomposition,
    as R's `decompose` computes it, if the autocorrelation at the lag of a season is significant at
    90 %. A series with zero, negative or missing values, or of fewer than three seasons, has none.

    Args:
        values: `[T, C]`.
        seasonality: M.

    Returns:
        `[M, C]`, of mean 1; ones if there is no season.
    """
    columns = [_indices(column, seasonality) for column in np.asarray(values, "float64").T]
    return np.stack(columns, axis=-1)


def _indices(values: np.ndarray, period: int) -> np.ndarray:
    nothing = np.ones(period)
    is_positive = np.all(values > 0)  # and not missing
    if (
        period == 1
        or len(values) < 3 * period
        or not is_positive
        or not _is_seasonal(values, period)
    ):
        return nothing
    weights = np.ones(period + 1 - period % 2)
    if period % 2 == 0:
        weights[[0, -1]] = 0.5
    trend = np.convolve(values, weights / period, "valid")
    before = len(weights) // 2
    ratios = np.full(-(-len(values) // period) * period, np.nan)
    ratios[before : before + len(trend)] = values[before : before + len(trend)] / trend
    found = np.nanmean(ratios.reshape(-1, period), axis=0)
    return found / found.mean()


def _is_seasonal(values: np.ndarray, period: int) -> bool:
    centered = values - values.mean()
    square = centered @ centered
    if not square:
        return False
    correlations = [centered[k:] @ centered[:-k] / square for k in range(1, period + 1)]
    limit = _CRITICAL * np.sqrt((1 + 2 * np.sum(np.square(correlations[:-1]))) / len(values))
    return abs(correlations[-1]) > limit
