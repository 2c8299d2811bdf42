"""Forecasting: the next values of series, their quantiles, with recurrent networks."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf

from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained
from unroll.apps.forecasting import baselines, metrics, network, serving, tables
from unroll.apps.forecasting import report as reports
from unroll.apps.forecasting.autoregressive import Autoregressive, lags_of
from unroll.apps.forecasting.distributions import DistributionLoss, levels_of
from unroll.apps.forecasting.forecaster import Forecaster
from unroll.apps.shared.recurrent import require_cell
from unroll.pipelines import forecasting
from unroll.pipelines.errors import DataError

_MOST_SAMPLES = 1000
# Relative changes of a stock's price in a day that count as down and as up (Xu and Cohen 2018).
_MOVEMENTS = {"stocknet": (-0.005, 0.0055)}


@dataclass(frozen=True)
class Search:
    # your own file: column of the times; by default the first one that has times
    time: str = ""
    # your own file: column with the name of the series, if the file has several
    series: str = ""
    # autoregressive model: number of paths to sample
    samples: int = 100
    # random seed of the paths
    sample_seed: int = 0


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a dataset, a CSV or Parquet file, or a folder of them
    data: str = "seasons"
    # figure that selects the best epoch
    monitor: str = "val_loss"
    # your own file: columns to forecast, with commas between; by default all columns of numbers
    target: str = ""
    # your own file: columns that are known ahead of time, with commas between
    known: str = ""
    # number of steps of the past that a forecast is made from
    context: int = 168
    # number of steps to forecast
    horizon: int = 24
    # number of steps between two windows of training
    stride: int = 1
    # maximum number of windows of an epoch, chosen at random; 0 for all
    epoch_windows: int = 0
    # the whole horizon at once from segments of the past; or one value after the other
    model: Literal["direct", "autoregressive"] = "direct"
    # what is predicted for each step: a value, quantiles, or a distribution
    output: Literal["point", "quantiles", "normal", "student_t", "negative_binomial"] = "quantiles"
    # quantile levels, with commas between
    quantiles: str = "0.1,0.5,0.9"
    # units of a window: its mean and standard deviation; its last value and the standard deviation
    # of the training split; or the mean of its absolute values
    scaling: Literal["standard", "last", "mean"] = "standard"
    # use the time of the day, the day of the week and others
    time_features: bool = True
    # size of a learned vector for each series; 0 for none
    series_embedding_dim: int = 0
    # direct model: number of steps of a segment
    segment: int = 24
    # autoregressive model: which values before a step are read, with commas between
    lags: str = "1"
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "GRU"
    # size of the recurrent state of each layer
    units: int = 128
    # number of recurrent layers
    depth: int = 1
    # dropout rate between recurrent layers and before the output
    dropout: float = 0.1
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        levels_of(self.quantiles)
        self.require_positive(
            "context", "horizon", "stride", "segment", "units", "depth", "samples"
        )
        if self.samples > _MOST_SAMPLES:
            raise ValueError(f"samples must be at most {_MOST_SAMPLES}, got {self.samples}.")
        if lags_of(self.lags)[-1] > self.context:
            raise ValueError(f"lags must be at most context, {self.context}, got {self.lags!r}.")
        if self.model == "autoregressive" and self.output == "quantiles":
            raise ValueError(
                "output must be point, normal, student_t or negative_binomial with "
                "model=autoregressive, which samples paths, got 'quantiles'."
            )
        if self.output == "negative_binomial" and self.scaling != "mean":
            raise ValueError(
                "scaling must be mean with output=negative_binomial, which has no location, got "
                f"{self.scaling!r}."
            )


_ETT = Config(
    data="etth1", context=720, horizon=96, segment=48, units=256, epochs=20, patience=5,
    epoch_windows=2000, batch_size=32, learning_rate=1e-3, schedule="cosine", dropout=0.5,
    scaling="last", time_features=False,
)  # fmt: skip
PRESETS = {
    "seasons": Config(
        context=336, epochs=20, patience=20, epoch_windows=8000, learning_rate=3e-3,
        schedule="cosine", output="normal", units=64, dropout=0.5, weight_decay=0.3,
        series_embedding_dim=8,
    ),
    "etth1": _ETT,
    "etth2": replace(_ETT, data="etth2"),
    # All but the biases nearly zero: the two years of validation tell no pattern from chance.
    "exchange_rate": replace(
        _ETT, data="exchange_rate", context=48, segment=24, units=64, weight_decay=1000.0,
    ),
    "m4_hourly": Config(
        data="m4_hourly", context=336, horizon=48, epochs=15, patience=15, epoch_windows=8000,
        schedule="cosine", learning_rate=2e-3, time_features=False, stride=4,
    ),
    "air_passengers": Config(
        data="air_passengers", context=36, horizon=12, segment=12, units=32, epochs=60,
        patience=20, batch_size=16, learning_rate=5e-3, schedule="cosine", scaling="mean",
    ),
    "sunspots": Config(
        data="sunspots", context=264, horizon=12, segment=12, units=64, epochs=20,
        schedule="cosine", time_features=False,
    ),
    "stocknet": Config(
        data="stocknet", context=60, horizon=5, segment=5, units=64, epochs=10,
        epoch_windows=8000, schedule="cosine", scaling="last",
    ),
}  # fmt: skip
# For your own files.
OWN_FILES = Config(
    data="", epochs=20, epoch_windows=8000, learning_rate=2e-3, schedule="cosine", dropout=0.2,
    weight_decay=0.01,
)  # fmt: skip
ACCEPTS_A_FILE = True

_SEGRNN = "SegRNN, Lin et al. 2023"
TASK = "time-series-forecasting"
PUBLISHED = {
    "seasons": {"mse": 0.1457, "mae": 0.2984, "source": "the best possible: the noise alone"},
    "etth1": {"mse": 0.368, "mae": 0.395, "source": _SEGRNN},
    "etth2": {"mse": 0.278, "mae": 0.335, "source": _SEGRNN},
}

METRICS = {"mse": "min", "mae": "min", "smape": "min", "mase": "min"}
MONITORS: dict[str, str] = {}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Windows of a past and a future. What is known about the series is that of the training split.

    Without `training`, the labels have what metrics need. With it, there are only the features that
    the model has; those of an autoregressive model have the future, and its labels the past.
    """
    options = {name: getattr(config, name) for name in ("time", "target", "series", "known")}
    raw = RawSplits(config, "series", **options)
    if assets is None:
        train = forecasting.read_table(raw["train"])
        assets = forecasting.build_assets(train)
        assets["calendar"]["time_features"] = network.repeated_features(train)

    def batches(split: str) -> tf.data.Dataset:
        is_training = training and split == "train"
        try:
            found = forecasting.windows(
                forecasting.read_table(raw[split]),
                assets["series"],
                context=config.context,
                horizon=config.horizon,
                batch_size=config.batch_size,
                stride=config.stride if is_training else 1,
                shuffle=config.seed if is_training else None,
                most=config.epoch_windows if is_training else 0,
                references=not training,
            )
        except DataError as error:
            raise DataError(f"{config.data}, split {split!r}: {error}") from None
        return found.map(of_network) if training else found

    def of_network(features: dict, labels):
        inputs = {name: features[name] for name in network.feature_names(config, assets)}
        if config.model == "direct":
            return inputs, labels
        return {**inputs, "future": labels}, tf.concat([features["history"], labels], axis=1)

    return Data({split: batches(split) for split in splits}, assets)


def axes(config: Config) -> Axes:
    """The weights of columns, covariates and series."""
    found: Axes = {}
    if config.series_embedding_dim:
        found["series_embedding/embeddings"] = ("series", None)
    if config.model == "direct":
        names = ("known_past/kernel", "known_effects/effects")
        known = dict.fromkeys(names, ("known", None, None))
        return {**found, "queries/columns": ("columns", None), **known}
    return {**found, "columns/vectors": ("columns", None), "known_inputs/kernel": ("known", None)}


def build(config: Config, assets: Assets) -> keras.Model:
    """Units of each window, recurrent layers, the parameters of a distribution of each value."""
    made = (network.Direct if config.model == "direct" else Autoregressive)(config, assets)
    inputs = network.inputs_of(config, assets)
    model = keras.Model(inputs, made(inputs))
    model.network = made
    model.compile(
        # What is of one series or covariate has few examples, so that it would hardly be learned.
        optimizer(config, config.weight_decay, without_decay=("bias", "embeddings", "effects")),
        DistributionLoss(config.output, levels_of(config.quantiles)),
        jit_compile=config.jit,
    )
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Errors, scaled errors, the loss of the quantiles, and tests against naive forecasts."""
    config, forecaster = trained.config, Forecaster(trained)
    batches = ((forecaster(features), features, labels) for features, labels in dataset)
    levels = levels_of(config.quantiles)
    return metrics.scores(batches, trained.assets, levels, _MOVEMENTS.get(config.data))


def baseline(config: Config, data: Data, split: str) -> dict:
    """The last value and the seasonal naive: the better one on the validation split first."""
    levels = levels_of(config.quantiles)
    return baselines.baseline(data, split, levels, _MOVEMENTS.get(config.data))


def serve(trained: Trained) -> Service:
    """`serving_default`: histories to means and quantiles; for LiteRT, also with fixed shapes."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str | dict]) -> list[dict]:
    """The forecasts of what follows each history.

    Args:
        trained: the model.
        inputs: paths of files like those of training, or dicts as `examples` returns them.
    """
    return tables.predict(trained, inputs)


def show(result: dict) -> str:
    """The forecasts as CSV."""
    return tables.to_csv(result)


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Errors by step, series and time, residuals, calibration, the worst windows."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """A file of histories, and the forecasts as a table and as a fan chart."""
    outputs = {"forecast": ("table", tables.to_rows)}
    return Page(
        {"history": "table"}, outputs, example=lambda each: (tables.example_file(trained, each),)
    )


def examples() -> list[dict]:
    """Histories from the first time of a step: of one column, which any model accepts."""
    return tables.examples()
