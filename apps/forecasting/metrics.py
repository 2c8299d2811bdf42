"""The figures of forecasts, as long-horizon papers, M4 and GluonTS count them."""

import math
from collections.abc import Iterable

import numpy as np
from scipy import stats

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets

_INTERVAL = (0.1, 0.9)  # the levels at the ends of the 80 % interval
_FEWEST = 8  # stretches of time without a common target, or series, of a test


def scores(
    batches: Iterable[tuple[dict, dict, dict]],
    assets: Assets,
    levels: tuple[float, ...] = (),
    movement: tuple[float, float] | None = None,
) -> dict:
    """The figures of a split, of which one batch at a time is in memory.

    - `mse`, `mae`: of values that are standardized by the mean and the standard deviation of the
      training split, of each column and series: the mean over all values of all windows, as in the
      papers on long horizons.
    - `smape`, `mase`, `owa`: as in M4 (Makridakis et al. 2018), with the season of the dataset.
      `smape` is in percent, from 0 to 200. A series whose values repeat exactly has no MASE.
    - `weighted_quantile_loss`: twice the quantile loss, divided by the sum of the absolute values:
      the mean over the levels, as in GluonTS. Without quantiles, the mean is taken for all.
    - `coverage_80`: the share of the values in the interval from 10 to 90 %, if it is forecast.
    - `direction_accuracy`, `direction_mcc`: of the next step, up or down, where it counts; Matthews
      correlation.
    - `p_last_value`, `p_seasonal_naive`: the probability of such a difference in `mse` to the
      naive forecast, if the two are equally good: see `paired_test`. It is two-sided: which of the
      two is better, `mse` says. Absent if there is too little data.

    Missing values count nowhere.

    Args:
        batches: of `(forecast, features, labels)`, NumPy arrays or tensors. `forecast` has `mean`,
            `[B, H, C]`, in the units of the series, and optionally `quantiles`, `[B, H, C, Q]`;
            features and labels are those of `forecasting.windows` with `references`.
        assets: of `forecasting.build_assets`.
        levels: the Q levels of the quantiles, such as `(0.1, 0.5, 0.9)`.
        movement: a relative change below or above which the direction of the next step counts, such
            as `(-0.005, 0.0055)`.

    Returns:
        `examples`, the number of windows, and the figures by name.
    """
    found = Scores(assets, levels, movement)
    for batch in batches:
        found.add(*batch)
    return found.figures()


class Scores:
    """Sums over windows, from which `figures` are computed.

    Args:
        assets, levels, movement: as in `scores`.
    """

    def __init__(
        self,
        assets: Assets,
        levels: tuple[float, ...] = (),
        movement: tuple[float, float] | None = None,
    ):
        calendar = assets["calendar"]
        self._mean, self._std = (np.array(calendar[name]) for name in ("mean", "std"))
        self._levels, self._movement = np.array(levels), movement
        self._sums: dict[str, float] = {}
        self._directions = np.zeros((2, 2))  # by the true and the forecast direction
        self._windows: dict[str, list[np.ndarray]] = {}

    def add(self, forecast: dict, features: dict, labels: dict) -> None:
        """Adds the windows of a batch, as in `scores`.

        Raises:
            UsageError: if a forecast is not a number.
        """
        if any(np.isnan(value).any() for value in forecast.values()):
            raise UsageError("The model forecasts values that are not numbers: train it again.")
        labels = {name: np.asarray(value, "float64") for name, value in labels.items()}
        mean = np.asarray(forecast["mean"], "float64")  # [B, H, C]
        values = labels["values"]
        series = np.asarray(features["series"])
        std = self._std[series][:, None]  # [B, 1, C]
        context = np.shape(features["history"])[1]
        times = np.asarray(features["times"])[:, context:]
        naive = {"last_value": labels["last"][:, None], "seasonal_naive": labels["seasonal"]}
        own = (mean - values) / std
        self._sum("windows", np.zeros(len(values)))
        self._sum("mse", own**2)
        self._sum("mae", np.abs(own))
        for name, other in naive.items():
            self._window(name, _row_means(own**2 - ((other - values) / std) ** 2))
        for name, value in (("series", series), ("begin", times[:, 0]), ("end", times[:, -1])):
            self._window(name, value)
        for name, other in (("", mean), ("naive2_", labels["naive2"])):
            error, size = np.abs(other - values), np.abs(other) + np.abs(values)
            self._sum(f"{name}smape", 200 * error / np.where(size == 0, 1, size))
            self._sum(f"{name}mase", error / labels["scale"][:, None])
        if len(self._levels):
            self._add_quantiles(forecast, mean, values)
        if self._movement:
            self._add_directions(mean[:, 0], labels["last"], values[:, 0])

    def _add_quantiles(self, forecast: dict, mean: np.ndarray, values: np.ndarray) -> None:
        quantiles = forecast.get("quantiles")
        given = quantiles is not None
        quantiles = np.asarray(quantiles, "float64") if given else mean[..., None]
        error = values[..., None] - quantiles  # [B, H, C, Q]
        loss = np.maximum(self._levels * error, (self._levels - 1) * error)
        self._sum("quantile_loss", 2 * loss.mean(axis=-1))
        self._sum("size", np.abs(values))
        ends = [np.flatnonzero(np.isclose(self._levels, level)) for level in _INTERVAL]
        if given and all(map(len, ends)):
            low, high = (quantiles[..., end[0]] for end in ends)
            inside = (low <= values) & (values <= high)
            self._sum("coverage", np.where(np.isnan(values), np.nan, inside))

    def _add_directions(self, mean: np.ndarray, last: np.ndarray, values: np.ndarray) -> None:
        low, high = self._movement
        change = (values - last) / np.abs(last)
        counts = (change <= low) | (change > high)  # no missing value
        pairs = (change > 0)[counts].astype(int), (mean > last)[counts].astype(int)
        np.add.at(self._directions, pairs, 1)

    def _sum(self, name: str, values: np.ndarray) -> None:
        count = f"count of {name}"
        self._sums[name] = self._sums.get(name, 0.0) + float(np.nansum(values))
        self._sums[count] = self._sums.get(count, 0) + int(np.sum(~np.isnan(values)))

    def _window(self, name: str, values: np.ndarray) -> None:
        self._windows.setdefault(name, []).append(values)

    def _average(self, name: str) -> float:
        count = self._sums.get(f"count of {name}", 0)
        return self._sums[name] / count if count else math.nan

    def figures(self) -> dict:
        """The figures of what was added; those that cannot be computed are absent."""
        found = {"mse": self._average("mse"), "mae": self._average("mae")}
        found["smape"], found["mase"] = self._average("smape"), self._average("mase")
        naive2 = self._average("naive2_smape"), self._average("naive2_mase")
        if all(naive2):
            found["owa"] = (found["smape"] / naive2[0] + found["mase"] / naive2[1]) / 2
        if self._sums.get("size"):
            loss = self._sums["quantile_loss"] / self._sums["size"]
            found["weighted_quantile_loss"] = loss
        found["coverage_80"] = self._average("coverage")
        if total := self._directions.sum():
            found["direction_accuracy"] = float(np.trace(self._directions) / total)
            found["direction_mcc"] = matthews(self._directions)
        windows = {name: np.concatenate(parts) for name, parts in self._windows.items()}
        for name in ("last_value", "seasonal_naive"):
            found[f"p_{name}"] = paired_test(
                windows[name], windows["series"], windows["begin"], windows["end"]
            )
        found = {name: float(value) for name, value in found.items() if not math.isnan(value)}
        return {"examples": int(self._sums["count of windows"]), **found}


def _row_means(values: np.ndarray) -> np.ndarray:
    """The mean over all axes but the first of what is not missing; NaN if all is."""
    rows = values.reshape(len(values), -1)
    count = np.sum(~np.isnan(rows), axis=1)
    return np.where(count, np.nansum(rows, axis=1) / np.maximum(count, 1), np.nan)


def matthews(confusion: np.ndarray) -> float:
    """Matthews correlation of a `[2, 2]` confusion matrix; 0 if a row or a column is empty.

    >>> matthews(np.array([[6, 2], [1, 3]])).__round__(3)
    0.478
    """
    (a, b), (c, d) = np.asarray(confusion, "float64")
    product = (a + b) * (c + d) * (a + c) * (b + d)
    return float((a * d - b * c) / np.sqrt(product)) if product else 0.0


def paired_test(
    differences: np.ndarray, series: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> float:
    """The p-value of a two-sided test that two forecasts have the same loss.

    The test of Diebold and Mariano 1995, "Comparing predictive accuracy", as Harvey, Leybourne and
    Newbold 1997 correct it. The differences of windows that begin at the same time are averaged.
    Those of windows with common targets are correlated: with h - 1 windows that begin before
    the first one ends, the variance of the mean has the autocovariances up to the lag h - 1 (with
    Bartlett's weights if it is not positive otherwise). If there are fewer times than series, it is
    Student's t-test of the means of the series, which are assumed to be independent.

    Args:
        differences: of the losses of a window, `[N]`; NaN for a window without a target.
        series: of each window, `[N]`.
        begin, end: the times of the first and the last target, `[N]`.

    Returns:
        The p-value; NaN with fewer than 8 h times, or 8 series, or if the loss is always the same.
    """
    has_target = ~np.isnan(differences)
    differences, series, begin, end = (
        each[has_target] for each in (differences, series, begin, end)
    )
    times, first = np.unique(begin, return_index=True)
    if len(times) < len(np.unique(series)):
        means, lag = _means(differences, series), 0
    else:
        means = _means(differences, begin)
        # The number of times from the first one up to the last target of its window.
        overlap = np.searchsorted(times, end[first], side="right") - np.arange(len(times))
        lag = int(overlap.max(initial=1)) - 1
    count, span = len(means), lag + 1
    if count < _FEWEST * span:
        return math.nan
    centered = means - means.mean()
    covariances = [centered[k:] @ centered[: count - k] / count for k in range(span)]
    variance = covariances[0] + 2 * sum(covariances[1:])
    if variance <= 0:
        weighted = ((1 - k / span) * covariances[k] for k in range(1, span))
        variance = covariances[0] + 2 * sum(weighted)
    if variance <= 1e-18 * means.mean() ** 2 or not variance:
        return math.nan
    correction = (count + 1 - 2 * span + span * lag / count) / count
    statistic = means.mean() / math.sqrt(variance / count) * math.sqrt(correction)
    return float(2 * stats.t.sf(abs(statistic), count - 1))


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean of each group, in the order of the groups."""
    _, group = np.unique(groups, return_inverse=True)
    return np.bincount(group, values) / np.bincount(group)
