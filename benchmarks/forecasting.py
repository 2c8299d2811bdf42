"""The speed of the forecasting app, compared with the recurrent models of Darts.

    python -m venv peers && peers/bin/pip install darts torch pytorch-lightning
    python benchmarks/forecasting.py --peers=peers/bin/python          # about five minutes
    python benchmarks/forecasting.py --peers=peers/bin/python --rounds=1

Training: windows per second of an epoch, in batches of 32. Latency: milliseconds of the forecast of
one history, with 100 sampled paths if the model samples. Hourly series with a daily season,
generated, one column; both libraries have the same sizes:

- autoregressive: an LSTM of 64 units that reads 168 hours and samples 24 (DeepAR; `RNNModel` of
  Darts with a Gaussian likelihood);
- direct: a GRU of 128 units that reads 336 hours and forecasts 24 at once, with three quantiles
  (SegRNN with segments of 24 hours; `BlockRNNModel` of Darts, which reads hour by hour).

Each library has a process of its own, with its own interpreter. The processes take turns, so that
only one of them works at a time. The medians over the rounds are printed, and written to
`benchmarks/results/forecasting.md`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import seconds_in_turns, table

RESULTS = Path(__file__).parent / "results" / "forecasting.md"
MODELS = {
    "autoregressive": {"context": 168, "horizon": 24, "units": 64},
    "direct": {"context": 336, "horizon": 24, "units": 128},
}
BATCH, SAMPLES = 32, 100
FORECASTS = 10  # in a round
SERIES, LENGTH, WINDOWS = 8, 1000, 1600  # windows of an epoch


def series() -> np.ndarray:
    """Random series, `[N, T]`, with a season of 24 steps."""
    rng, hours = np.random.default_rng(0), np.arange(LENGTH)
    season = np.sin(2 * np.pi * hours / 24)
    sizes = rng.uniform(1, 2, (SERIES, 1))
    return (sizes * season + 0.3 * rng.normal(size=(SERIES, LENGTH))).astype("float32")


class Unroll:
    """The app `forecasting`."""

    def __init__(self, kind: str):
        from unroll.apps.core.quiet import import_tensorflow

        import_tensorflow()
        import keras
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        from unroll.apps.core.protocol import Trained
        from unroll.apps.forecasting import app
        from unroll.layers.litert_tensorflow import convert_functions
        from unroll.pipelines import forecasting

        sizes = MODELS[kind]
        config = app.Config(
            model=kind, batch_size=BATCH, samples=SAMPLES, time_features=False, dropout=0.0,
            **sizes, **({"output": "normal", "cell": "LSTM"} if kind == "autoregressive" else {}),
        )  # fmt: skip
        times = 3600 * np.arange(LENGTH)
        rows = [
            forecasting.Series(f"s{k}", times, own[:, None], np.zeros((LENGTH, 0), "float32"))
            for k, own in enumerate(series())
        ]
        table = forecasting.Table(["value"], [], "h", 24, rows, [0] * SERIES)
        assets = forecasting.build_assets(table)
        assets["calendar"]["time_features"] = []
        self.model = app.build(config, assets)
        keras.utils.set_random_seed(0)
        windows = forecasting.windows(
            table, assets["series"], context=sizes["context"], horizon=sizes["horizon"],
            batch_size=BATCH, shuffle=0, most=WINDOWS,
        )  # fmt: skip

        def of_network(features, labels):
            if kind == "direct":
                return {"history": features["history"]}, labels
            both = tf.concat([features["history"], labels], axis=1)
            return {"history": features["history"], "future": labels}, both

        self.batches = windows.map(of_network)
        service = app.serve(Trained(config, assets, self.model))
        history = tf.constant(series()[:1, -sizes["context"] :, None])
        self.request = {"history": history}
        self.function = service.functions["serving_default"]
        content = convert_functions({"forecast_fixed": service.litert["forecast_fixed"]})
        interpreter = Interpreter(model_content=content, num_threads=1)
        self.runner = interpreter.get_signature_runner("forecast_fixed")

    def train(self) -> None:
        self.model.fit(self.batches, verbose=0)

    def forecast(self) -> None:
        for _ in range(FORECASTS):
            for value in self.function(**self.request).values():
                value.numpy()

    def litert(self) -> None:
        history = self.request["history"].numpy()
        for _ in range(FORECASTS):
            self.runner(history=history)


class Darts:
    """The models of Darts with the same sizes."""

    def __init__(self, kind: str):
        import logging
        import warnings

        warnings.simplefilter("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        import pandas as pd
        from darts import TimeSeries
        from darts.models import BlockRNNModel, RNNModel
        from darts.utils.likelihood_models import GaussianLikelihood, QuantileRegression

        sizes = MODELS[kind]
        context, horizon, units = sizes["context"], sizes["horizon"], sizes["units"]
        index = pd.date_range("2024-01-01", periods=LENGTH, freq="h")
        self.series = [TimeSeries.from_times_and_values(index, own) for own in series()]
        self.horizon = horizon
        options = {
            "hidden_dim": units, "n_rnn_layers": 1, "batch_size": BATCH, "n_epochs": 1,
            "random_state": 0, "input_chunk_length": context,
            "pl_trainer_kwargs": {
                "accelerator": "cpu", "enable_progress_bar": False, "logger": False,
                "enable_model_summary": False, "enable_checkpointing": False,
            },
        }  # fmt: skip
        if kind == "autoregressive":
            self.model = RNNModel(
                model="LSTM", training_length=context + horizon, likelihood=GaussianLikelihood(),
                **options,
            )  # fmt: skip
        else:
            self.model = BlockRNNModel(
                model="GRU", output_chunk_length=horizon,
                likelihood=QuantileRegression([0.1, 0.5, 0.9]), **options,
            )  # fmt: skip
        self.options = {"num_samples": SAMPLES} if kind == "autoregressive" else {}
        if kind == "direct":
            self.options["predict_likelihood_parameters"] = True
        self.model.fit(self.series, max_samples_per_ts=4, verbose=False)

    def train(self) -> None:
        self.model.fit(self.series, epochs=1, max_samples_per_ts=WINDOWS // SERIES, verbose=False)

    def forecast(self) -> None:
        for _ in range(FORECASTS):
            self.model.predict(self.horizon, self.series[0], verbose=False, **self.options)


CLASSES = {"Unroll": Unroll, "Darts": Darts}
METHODS = {"Unroll": ("train", "forecast", "litert"), "Darts": ("train", "forecast")}


def main() -> None:
    """Measures, prints and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="", help="Python with darts, torch, pytorch-lightning")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    classes = CLASSES if chosen.peers else {"Unroll": Unroll}
    rows = []
    for kind in MODELS:
        interpreters = {"Darts": chosen.peers}
        found = seconds_in_turns(classes, (kind,), METHODS, chosen.rounds, interpreters)
        for library in classes:
            cells = [f"{WINDOWS / found[library, 'train']:,.0f}"]
            for method in ("forecast", "litert"):
                seconds = found.get((library, method))
                cells.append("" if seconds is None else f"{1000 * seconds / FORECASTS:.1f}")
            rows.append([kind, library, *cells])
    heads = ["model", "library", "windows/s in training", "forecast, ms", "LiteRT, one core, ms"]
    lines = "\n".join(table(heads, rows))
    command = f"python benchmarks/forecasting.py --rounds={chosen.rounds}"
    print(lines)
    text = f"{lines}\n\n`{command}`, {os.cpu_count()} cores, medians.\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
