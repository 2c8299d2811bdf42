"""What the model gets wrong, and a result as an image."""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.dates
import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.forecasting.forecaster import Forecaster
from unroll.apps.forecasting.tables import level_name, to_text
from unroll.apps.shared.reports import examples_table

_WORST = 6  # windows that are drawn
_KEPT = 1000  # windows with the largest errors, of which many overlap
_ROWS = 20  # of tables of windows
_STEPS = 12  # rows of the table of steps, at most
_EDGES = np.linspace(-4, 4, 81)  # of the histogram of residuals
_PANELS = 6  # of `plot`, at most


@dataclass
class _Window:
    """A forecast of one column, for a figure."""

    title: str
    names: tuple[str, ...]  # of its series and column
    steps: tuple[int, int]  # the times of the first and the last
    error: float
    past: np.ndarray  # [L]
    future: np.ndarray  # [H]
    mean: np.ndarray  # [H]
    quantiles: np.ndarray | None  # [H, Q]


@dataclass
class _Sums:
    """Sums over windows. Errors are in units of the standard deviation of the training split."""

    squares: dict[str, list] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0]))
    by_step: dict[str, np.ndarray] = field(default_factory=dict)  # [H] sums of absolute errors
    counts: np.ndarray | float = 0.0  # [H]
    by_time: dict[int, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(3)))
    residuals: dict[int, np.ndarray] = field(default_factory=dict)  # by step, counts
    below: np.ndarray | float = 0.0  # [Q], the number of values below each quantile
    values: int = 0
    windows: int = 0
    worst: list = field(default_factory=list)


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Errors by step, series and time, residuals, calibration, the worst windows."""
    forecaster, sums = Forecaster(trained), _Sums()
    for features, labels in dataset.as_numpy_iterator():
        _add(sums, trained, forecaster(features), features, labels)
    worst = _apart([window for *_, window in sorted(sums.worst, reverse=True)])
    rows = [[window.title, f"{window.error:.3f}"] for window in worst]
    heads = ["series, column and first step of the forecast", "mse"]
    series = [
        [name, f"{total / count:.3f}", f"{count:,}"]
        for name, (total, count) in sorted(
            sums.squares.items(), key=lambda item: -item[1][0] / max(item[1][1], 1)
        )
        if count
    ]
    figures = {
        "steps": _steps_figure(sums),
        "backtest": _backtest_figure(sums, trained),
        "residuals": _residuals_figure(sums),
        "worst": _windows_figure(worst[:_WORST], forecaster.levels),
    }
    text = (
        f"{sums.windows:,} windows: a rolling back-test, in which a forecast begins at each step. "
        "Errors are in units of the standard deviation of the series in the training split.\n\n"
        f"## Mean absolute error by step\n\n{_steps_table(sums)}\n\n"
        f"## Mean squared error by series\n\n"
        f"{examples_table(['series and column', 'mse', 'values'], series)}\n\n"
        f"## Worst windows\n\n{examples_table(heads, rows)}"
    )
    if forecaster.is_probabilistic:
        found = sums.below / max(sums.values, 1)
        table = [
            [level_name(level), f"{level:.3f}", f"{share:.3f}"]
            for level, share in zip(forecaster.levels, found, strict=True)
        ]
        heads = ["quantile", "level", "share of the values below"]
        text += f"\n\n## Calibration\n\n{markdown_table(heads, table)}"
        figures["calibration"] = _calibration_figure(forecaster.levels, found)
    return Report(text, figures)


def _add(sums: _Sums, trained: Trained, forecast: dict, features: dict, labels: dict) -> None:
    """Adds a batch."""
    assets, context = trained.assets, trained.config.context
    std = np.array(assets["calendar"]["std"])[features["series"]][:, None]  # [B, 1, C]
    values, mean = labels["values"], forecast["mean"]
    known = ~np.isnan(values)
    error = np.where(known, (mean - values) / std, 0.0)
    sums.counts = sums.counts + known.sum(axis=(0, 2))
    own = {"model": mean, "seasonal naive": labels["seasonal"], "last value": labels["last"]}
    absolute = {}
    for name, other in own.items():
        other = other if other.ndim == 3 else other[:, None]
        absolute[name] = np.where(known, np.abs(other - values) / std, 0.0)
        total = absolute[name].sum(axis=(0, 2))
        sums.by_step[name] = sums.by_step.get(name, 0.0) + total
    begins = features["times"][:, context]
    for k, begin in enumerate(begins.tolist()):
        sums.by_time[begin] += [
            absolute["model"][k].sum(), absolute["seasonal naive"][k].sum(), known[k].sum()
        ]  # fmt: skip
    for step in {0, values.shape[1] - 1}:
        counted = np.histogram(np.clip(error[:, step][known[:, step]], -4, 4), _EDGES)[0]
        sums.residuals[step] = sums.residuals.get(step, 0) + counted
    if "quantiles" in forecast:
        is_below = (values[..., None] <= forecast["quantiles"]) & known[..., None]
        sums.below = sums.below + is_below.sum(axis=(0, 1, 2))
        sums.values += int(known.sum())
    squares = (error**2).sum(axis=1)  # [B, C]
    counts = known.sum(axis=1)
    dates = to_text(begins, assets["calendar"]["frequency"])
    for k, c in np.argwhere(counts > 0):
        names = _names(assets, features["series"][k], assets["columns"][c])
        total = sums.squares[", ".join(names) or assets["columns"][c]]
        total[0] += squares[k, c]
        total[1] += int(counts[k, c])
        own_error = squares[k, c] / counts[k, c]
        if len(sums.worst) == _KEPT and own_error <= sums.worst[0][0]:
            continue
        quantiles = forecast["quantiles"][k, :, c] if "quantiles" in forecast else None
        window = _Window(
            ", ".join([*names, dates[k]]), tuple(names),
            (int(begins[k]), int(features["times"][k, -1])), own_error,
            features["history"][k, :, c], values[k, :, c], mean[k, :, c], quantiles,
        )  # fmt: skip
        # The number breaks ties: windows have no order.
        entry = (own_error, sums.windows * values.shape[2] + int(k) * values.shape[2] + int(c))
        push = heapq.heappush if len(sums.worst) < _KEPT else heapq.heapreplace
        push(sums.worst, (*entry, window))
    sums.windows += len(values)


def _apart(windows: list[_Window]) -> list[_Window]:
    """The first `_ROWS` windows that have no step in common with one before of the same series."""
    kept: list[_Window] = []
    for window in windows:
        begin, end = window.steps
        others = [each.steps for each in kept if each.names == window.names]
        if len(kept) < _ROWS and all(end < first or begin > last for first, last in others):
            kept.append(window)
    return kept


def _names(assets: dict, series: int, column: str) -> list[str]:
    """What tells a window from those of other series and columns."""
    names = []
    if len(assets["series"]) > 1 or not series:
        names.append(assets["series"][series - 1] if series else "unknown series")
    return [*names, column] if len(assets["columns"]) > 1 else names


def _steps_table(sums: _Sums) -> str:
    steps = np.unique(np.linspace(0, len(sums.counts) - 1, _STEPS).round().astype(int))
    rows = []
    for step in steps:
        own = [total[step] / max(sums.counts[step], 1) for total in sums.by_step.values()]
        rows.append([str(step + 1), *(f"{value:.3f}" for value in own)])
    return markdown_table(["step", *sums.by_step], rows)


def _axes(width: float = 6, height: float = 3.5):
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _steps_figure(sums: _Sums):
    """The mean absolute error of each step of the forecast."""
    figure, axes = _axes()
    steps = np.arange(1, len(sums.counts) + 1)
    for name, total in sums.by_step.items():
        axes.plot(steps, total / np.maximum(sums.counts, 1), label=name)
    axes.set(xlabel="step of the forecast", ylabel="mean absolute error", ylim=(0, None))
    axes.legend()
    return figure


def _backtest_figure(sums: _Sums, trained: Trained):
    """The mean absolute error of the forecasts that begin at each time."""
    figure, axes = _axes(8)
    begins = np.array(sorted(sums.by_time))
    rows = np.array([sums.by_time[begin] for begin in begins.tolist()])
    counts = np.maximum(rows[:, 2], 1)
    has_times = bool(trained.assets["calendar"]["frequency"])
    x = begins.astype("datetime64[s]") if has_times else begins
    for column, name in enumerate(("model", "seasonal naive")):
        axes.plot(x, rows[:, column] / counts, label=name, linewidth=1)
    axes.set(xlabel="first step of the forecast", ylabel="mean absolute error", ylim=(0, None))
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    return figure


def _residuals_figure(sums: _Sums):
    """How often an error of each size occurs, at the first and the last step."""
    figure, axes = _axes()
    for step, counts in sorted(sums.residuals.items()):
        density = counts / max(counts.sum() * (_EDGES[1] - _EDGES[0]), 1e-9)
        axes.stairs(density, _EDGES, label=f"step {step + 1}", fill=True, alpha=0.5)
    axes.set(xlabel="forecast minus value", ylabel="density", xlim=(-4, 4))
    axes.legend()
    return figure


def _calibration_figure(levels: tuple[float, ...], found: np.ndarray):
    """The share of the values below each quantile."""
    figure, axes = _axes(4.5, 4)
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    axes.plot(levels, found, marker="o")
    axes.set(xlabel="level", ylabel="share of the values below", xlim=(0, 1), ylim=(0, 1))
    return figure


def _windows_figure(windows: list[_Window], levels: tuple[float, ...]):
    """Fan charts of windows with what followed."""
    rows = max(1, -(-len(windows) // 2))
    figure = matplotlib.figure.Figure(figsize=(11, 2.8 * rows), layout="constrained")
    for window, axes in zip(windows, figure.subplots(rows, 2, squeeze=False).flat, strict=False):
        shown = min(len(window.past), 3 * len(window.mean))
        ahead = np.arange(1, len(window.mean) + 1)
        axes.plot(np.arange(1 - shown, 1), window.past[-shown:], color="black", linewidth=1)
        axes.plot(ahead, window.future, color="black", linewidth=1, linestyle=":")
        _fan(axes, ahead, window.mean, window.quantiles, levels)
        axes.set_title(window.title, fontsize=9, parse_math=False)
    return figure


def _fan(axes, x, mean, quantiles, levels) -> None:
    """The mean, and bands between pairs of quantiles `[H, Q]`, the darker the closer."""
    if quantiles is not None:
        count = len(levels)
        for k in range(count // 2):
            axes.fill_between(
                x, quantiles[:, k], quantiles[:, count - 1 - k], color="tab:blue", alpha=0.25,
                linewidth=0, label=f"{level_name(levels[k])} to {level_name(levels[-1 - k])}",
            )  # fmt: skip
    axes.plot(x, mean, color="tab:blue", label="mean")


def plot(result: dict, path: Path) -> None:
    """The end of each history and its forecast, as a fan chart; the first six of them."""
    shown = result["forecasts"][:_PANELS]
    rows = max(len(shown), 1)
    figure = matplotlib.figure.Figure(figsize=(9, 0.6 + 2.6 * rows), layout="constrained")
    for each, axes in zip(shown, figure.subplots(rows, squeeze=False).flat, strict=True):
        steps = [*each["past_dates"], *each["dates"]]
        kind = "datetime64[s]" if result["frequency"] else "int64"
        x = np.array(steps, kind)
        count = len(each["past"])
        past = np.array([np.nan if value is None else value for value in each["past"]])
        axes.plot(x[:count], past, color="black", linewidth=1)
        quantiles = np.array(each["quantiles"]).T if each["quantiles"] else None
        _fan(axes, x[count:], np.array(each["mean"]), quantiles, result["levels"])
        title = ", ".join(name for name in (each["series"], each["column"]) if name)
        axes.set_title(title, fontsize=9, parse_math=False)
        if result["frequency"]:
            locator = matplotlib.dates.AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
    if (more := len(result["forecasts"]) - len(shown)) > 0:
        figure.supxlabel(f"{more:,} more forecasts are not drawn", fontsize=9)
    figure.savefig(path, dpi=120)
