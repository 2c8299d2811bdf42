"""The functions that the app exports: histories to means and quantiles, and one step."""

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.forecasting import network, tables
from unroll.apps.forecasting.forecaster import forecaster_of
from unroll.pipelines.forecasting import SERIES_UNKNOWN


def request(trained: Trained, inputs: list) -> dict[str, np.ndarray]:
    """The request of `serving_default` for raw inputs: a row for each of their series."""
    served, _ = _requests(trained, inputs)
    return served


def _requests(trained: Trained, inputs: list) -> tuple[dict, dict]:
    """The requests of `serving_default` and of `forecast`."""
    config = trained.config
    uses = network.feature_names(config, trained.assets)
    read = [tables.read(trained, each) for each in inputs]
    windows = [tables.features(trained, table) for table in read]
    window = {name: np.concatenate([w[name] for w in windows]) for name in windows[0]}
    found = {"history": window["history"]}
    for name in ("times", "known"):
        if name in uses:
            found[name] = window[name][:, : config.context]
            found[f"future_{name}"] = window[name][:, config.context :]
    served = dict(found)
    if "series" in uses:
        found["series"] = window["series"]
        names = [series.name for table in read for series in table.series]
        served["series"] = np.array(names, object)
    return served, found


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    `serving_default` takes `history` `[B, T, C]`, NaN where a value is missing, and returns `mean`
    `[B, H, C]` and, with a probabilistic model, `quantiles` `[B, H, C, Q]`. T is any number of
    steps; a longer history than that of training is cut. It also takes what the model uses of

    - `times` `[B, T]` and `future_times` `[B, H]`, seconds since 1970;
    - `known` `[B, T, K]` and `future_known` `[B, H, K]`, the covariates;
    - `series` `[B]`, names.

    A model that samples paths uses the random numbers of `samples` and `sample_seed` of the
    configuration for each row.

    An autoregressive model also has

    - `encode`: a history, with `next_times` `[B]` and `next_known` `[B, K]` of the step after it,
      to `mean` `[B, C]` and `quantiles` `[B, C, Q]` of that step, and a state: `location`,
      `scale`, `recent`, `state_0`, ...;
    - `step`: the `value` `[B, C]` of that step, NaN if it is missing, `next_times` and `next_known`
      of the step after it, and the state, to the same outputs. It has no loop.

    The functions of the LiteRT file take `series` as numbers, from 1 in the order of the asset, 0
    for others. `forecast` is `serving_default`; `forecast_fixed` is `forecast` with fixed shapes,
    of one history with the length of training; `step` is for one history.
    """
    return _Functions(trained).service()


class _Functions:
    def __init__(self, trained: Trained):
        self.trained = trained
        self.config = trained.config
        self.forecaster = forecaster_of(trained)
        assets = trained.assets
        self.columns, self.known = len(assets["columns"]), len(assets["known"])
        self.uses = {name: name in self.forecaster.names for name in ("times", "known", "series")}
        # A constant, since LiteRT has no random numbers that depend on a seed alone.
        self.noise = None
        if self.forecaster.is_sampled:
            noise = self.forecaster.noise(self.config.samples, self.config.sample_seed)
            self.noise = noise.numpy()

    def service(self) -> Service:
        functions = {"serving_default": with_inputs(self.serving_default, self.served_specs())}
        litert = {
            "forecast": with_inputs(self.forecast, self.specs(None, None)),
            "forecast_fixed": with_inputs(self.forecast, self.specs(1, self.config.context)),
        }
        if self.forecaster.is_autoregressive:
            functions["encode"] = with_inputs(self.encode, self.encode_specs())
            functions["step"] = with_inputs(self.step, self.step_specs(None))
            litert["encode"] = functions["encode"]
            litert["step"] = with_inputs(self.step, self.step_specs(1))
        return Service(functions, self.requests, litert, self.trained.model.variables)

    # The inputs

    def specs(self, batch: int | None, length: int | None, horizon: int = 0) -> dict:
        """Of a history, and of the steps after it."""
        horizon = horizon or self.config.horizon
        found = {"history": tf.TensorSpec([batch, length, self.columns])}
        if self.uses["times"]:
            found["times"] = tf.TensorSpec([batch, length], tf.int64)
            found["future_times"] = tf.TensorSpec([batch, horizon], tf.int64)
        if self.uses["known"]:
            found["known"] = tf.TensorSpec([batch, length, self.known])
            found["future_known"] = tf.TensorSpec([batch, horizon, self.known])
        return found | self._series_spec(batch)

    def _series_spec(self, batch: int | None) -> dict:
        return {"series": tf.TensorSpec([batch], tf.int32)} if self.uses["series"] else {}

    def served_specs(self) -> dict:
        found = self.specs(None, None)
        if self.uses["series"]:
            found["series"] = tf.TensorSpec([None], tf.string)
        return found

    def _next_specs(self, batch: int | None) -> dict:
        found = {}
        if self.uses["times"]:
            found["next_times"] = tf.TensorSpec([batch], tf.int64)
        if self.uses["known"]:
            found["next_known"] = tf.TensorSpec([batch, self.known])
        return found

    def encode_specs(self) -> dict:
        past = {
            name: spec
            for name, spec in self.specs(None, None).items()
            if not name.startswith("future_")
        }
        return past | self._next_specs(None)

    def step_specs(self, batch: int | None) -> dict:
        network = self.trained.model.network
        found = {"value": tf.TensorSpec([batch, self.columns])}
        found |= self._next_specs(batch) | self._series_spec(batch)
        for name in ("location", "scale"):
            found[name] = tf.TensorSpec([batch, self.columns])
        found["recent"] = tf.TensorSpec([batch, self.columns, network.longest, 2])
        for k, size in enumerate(network.state_sizes):
            found[f"state_{k}"] = tf.TensorSpec([batch, self.columns, size])
        return found

    # The functions

    def serving_default(self, inputs: dict) -> dict:
        inputs = dict(inputs)
        if self.uses["series"]:
            inputs["series"] = self._numbers(inputs["series"])
        return self.forecast(inputs)

    def _numbers(self, series: tf.Tensor) -> tf.Tensor:
        """The numbers of names, `[B]`."""
        names = tf.constant(self.trained.assets["series"], tf.string)
        numbers = tf.range(1, names.shape[0] + 1)
        return tf.reduce_max(tf.where(series[:, None] == names, numbers, SERIES_UNKNOWN), axis=1)

    def forecast(self, inputs: dict) -> dict:
        noise = None if self.noise is None else tf.constant(self.noise)
        return self.forecaster.forecast(self.forecaster.fit(inputs), noise)

    def encode(self, inputs: dict) -> dict:
        inputs = dict(inputs)
        for name in ("times", "known"):
            if self.uses[name]:
                inputs[f"future_{name}"] = inputs.pop(f"next_{name}")[:, None]
        return self._outputs(self.trained.model.network.after(self.forecaster.fit(inputs)))

    def step(self, inputs: dict) -> dict:
        features = {
            name: inputs[f"next_{name}"][:, None] for name in ("times", "known") if self.uses[name]
        }
        if self.uses["series"]:
            features["series"] = inputs["series"]
        return self._outputs(self.trained.model.network.next(inputs["value"], features, inputs))

    def _outputs(self, state: dict) -> dict:
        found = {name: value for name, value in state.items() if name != "parameters"}
        return found | self.forecaster.described(state)

    # The requests

    def requests(self, examples: list) -> dict[str, dict[str, np.ndarray]]:
        """Requests from raw inputs, of a window before the end of each of their series."""
        served, found = _requests(self.trained, examples)
        requests = {"serving_default": served, "forecast": found, "forecast_fixed": found}
        if self.forecaster.is_autoregressive:
            requests |= self._step_requests(found)
        return requests

    def _step_requests(self, found: dict) -> dict:
        past = {name: x for name, x in found.items() if not name.startswith("future_")}
        encode, step = dict(past), {"value": np.nan_to_num(found["history"][:, -1])}
        for name in ("times", "known"):
            if self.uses[name]:
                encode[f"next_{name}"] = found[f"future_{name}"][:, 0]
                # Of the step after that; of a horizon of one step, the same one again.
                step[f"next_{name}"] = found[f"future_{name}"][:, :2][:, -1]
        state = self.encode({name: tf.constant(value) for name, value in encode.items()})
        if self.uses["series"]:
            step["series"] = found["series"]
        step |= {name: value.numpy() for name, value in state.items()}
        specs = self.step_specs(None)
        return {"encode": encode, "step": {name: step[name] for name in specs}}
