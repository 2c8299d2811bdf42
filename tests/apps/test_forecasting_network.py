"""The networks of the forecasting app: equations, gradients, invariances."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import reference
from tests.apps import forecasting_cases as cases
from tests.apps.forecasting_cases import CONTEXT, HORIZON, SEGMENT, VARIANTS, make, of_network
from tests.parameters import first_of
from unroll.apps.core.protocol import Trained
from unroll.apps.forecasting import app, network
from unroll.apps.forecasting.autoregressive import lags_of
from unroll.apps.forecasting.distributions import DistributionLoss, levels_of, unpack
from unroll.apps.forecasting.forecaster import Forecaster
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.pipelines import forecasting


@pytest.fixture(scope="module", params=first_of(VARIANTS, "autoregressive"))
def trained(request) -> Trained:
    return make(**VARIANTS[request.param])


@pytest.fixture(scope="module")
def forecaster(trained) -> Forecaster:
    return Forecaster(trained)


def outputs_of(trained: Trained, features: dict, future: np.ndarray) -> np.ndarray:
    return trained.model(of_network(trained, features, future)).numpy()


def assert_same(found: dict, expected: dict, **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **({"rtol": 1e-4} | tolerance))


def test_a_forecast_has_a_mean_and_quantiles_in_order(trained, forecaster):
    features, _ = cases.windows()
    found = forecaster(features)
    assert found["mean"].shape == (3, HORIZON, 3)
    assert ("quantiles" in found) == (trained.config.output != "point")
    assert all(np.isfinite(value).all() for value in found.values())
    if "quantiles" in found:
        assert found["quantiles"].shape == (3, HORIZON, 3, 3)
        assert (np.diff(found["quantiles"]) >= 0).all()
    assert_same(forecaster(features), found, rtol=0)


def test_every_weight_has_a_gradient(trained):
    features, future = cases.windows()
    labels = future.copy()
    labels[0, 3, 1] = np.nan
    if trained.config.model == "autoregressive":
        labels = np.concatenate([features["history"], labels], axis=1)
    loss = DistributionLoss(trained.config.output, levels_of(trained.config.quantiles))
    keras.utils.set_random_seed(0)
    with tf.GradientTape() as tape:
        outputs = trained.model(of_network(trained, features, future), training=True)
        total = tf.reduce_mean(loss(labels, outputs))
    variables = trained.model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(total, variables), strict=True):
        values = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), variable.path
        assert np.abs(values).max() > 0, variable.path


def test_a_forecast_does_not_depend_on_its_batch(forecaster):
    features, _ = cases.windows()
    whole = forecaster(features)
    for k in range(3):
        alone = forecaster({name: value[k : k + 1] for name, value in features.items()})
        assert_same(alone, {name: value[k : k + 1] for name, value in whole.items()})


@pytest.mark.parametrize("output", ["point", "quantiles"])
def test_a_new_model_forecasts_the_last_value(output):
    made = make(scaling="last", output=output, model="direct")
    features, _ = cases.windows()
    new = Trained(made.config, made.assets, app.build(made.config, made.assets))
    last = np.broadcast_to(features["history"][:, -1:], (3, HORIZON, 3))
    np.testing.assert_allclose(Forecaster(new)(features)["mean"], last, rtol=1e-5)


def test_covariates_times_their_effects():
    rng = np.random.default_rng(0)
    covariates, outputs = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 3, 2, 6))  # two segments
    layer = network.CovariateEffects(parameter_count=7, size=3)
    layer.build(covariates.shape, outputs.shape)
    kernel = rng.normal(size=(4, 6, 7))
    layer.set_weights([kernel])
    found = layer(covariates.astype("float32"), outputs.astype("float32"))
    assert found.shape == layer.compute_output_shape(covariates.shape, outputs.shape)
    for k in range(5):
        effects = np.einsum("bcu,kup->bckp", outputs[:, :, k // 3], kernel)
        expected = np.einsum("bk,bckp->bcp", covariates[:, k], effects)
        np.testing.assert_allclose(found[:, :, k], expected, rtol=1e-4, atol=1e-5)


def test_columns_do_not_depend_on_each_other(forecaster):
    features, _ = cases.windows()
    expected = forecaster(features)
    features["history"] = features["history"].copy()
    features["history"][..., 0] += 100.0
    found = forecaster(features)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][:, :, 1:], value[:, :, 1:], rtol=1e-5)
        assert not np.allclose(found[name][:, :, 0], value[:, :, 0])


@pytest.mark.parametrize("longer", first_of([13, 3, SEGMENT]))
def test_steps_before_the_first_value_change_nothing(trained, longer):
    """The weights do not depend on the context."""
    features, _ = cases.windows()
    wide = {**features}
    history, known, times = (features[name] for name in ("history", "known", "times"))
    wide["history"] = np.pad(history, ((0, 0), (longer, 0), (0, 0)), constant_values=np.nan)
    wide["known"] = np.pad(known, ((0, 0), (longer, 0), (0, 0)), constant_values=9.0)
    wide["times"] = np.pad(times, ((0, 0), (longer, 0)))
    config = dataclasses.replace(trained.config, context=CONTEXT + longer)
    model = app.build(config, trained.assets)
    model.set_weights(trained.model.get_weights())
    if trained.config.model == "direct":  # a segment that begins in the middle has other steps
        features, wide = ({**x, "known": 0 * x["known"]} for x in (features, wide))
    found = Forecaster(Trained(config, trained.assets, model))(wide)
    assert_same(found, Forecaster(trained)(features))


def test_a_forecast_has_the_units_of_its_history(trained, forecaster):
    features, _ = cases.windows()
    expected = forecaster(features)
    scaling = trained.config.scaling
    factor, offset = (1.0 if scaling == "last" else 16.0), (0.0 if scaling == "mean" else 50.0)
    if trained.config.output == "negative_binomial":
        pytest.skip("the shape of the distribution of counts depends on their scale")
    features["history"] = factor * features["history"] + offset
    found = forecaster(features)
    assert_same(found, {k: factor * v + offset for k, v in expected.items()}, rtol=2e-3)


@pytest.mark.parametrize(
    "values",
    [
        np.full(CONTEXT, np.nan),
        np.r_[np.full(CONTEXT - 1, np.nan), 5.0],
        np.full(CONTEXT, 5.0),
        np.zeros(CONTEXT),
        np.full(CONTEXT, 1e6) + np.arange(CONTEXT) % 2,
        np.r_[np.full(CONTEXT - 2, 1.0), np.inf, -np.inf],
        1e-20 * np.arange(CONTEXT),
    ],
    ids=["missing", "one value", "constant", "zeros", "large", "infinite", "small"],
)
def test_any_history_has_a_finite_forecast(forecaster, values):
    features, _ = cases.windows(1)
    features["history"] = np.repeat(values[None, :, None], 3, axis=-1).astype("float32")
    assert all(np.isfinite(value).all() for value in forecaster(features).values())


def test_infinite_values_are_missing(forecaster):
    features, _ = cases.windows()
    expected = forecaster(features)
    features["history"] = np.where(
        np.isnan(features["history"]), np.float32(np.inf), features["history"]
    )
    assert_same(forecaster(features), expected, rtol=0)


# The direct model


def test_the_direct_model_computes_the_equations_of_segrnn():
    """With one GRU layer, without covariates, against NumPy."""
    assets = {**cases.ASSETS, "known": []}
    trained = make(assets, depth=1, time_features=False, series_embedding_dim=0, output="point")
    features, future = cases.windows()
    weights = {w.path: w.numpy().astype("float64") for w in trained.model.weights}
    history = features["history"].astype("float64")
    known = ~np.isnan(history)
    mean, std = np.nanmean(history, axis=1), np.nanstd(history, axis=1)
    scaled = np.where(known, (history - mean[:, None]) / std[:, None], 0)
    both = np.stack([scaled, ~known], axis=-1).transpose(0, 2, 1, 3)  # [B, C, L, 2]
    count = -(-CONTEXT // SEGMENT)
    start = np.zeros((3, 3, count * SEGMENT - CONTEXT, 2)) + np.array([0.0, 1.0])
    segments = np.concatenate([start, both], axis=2).reshape(9, count, 2 * SEGMENT)
    inputs = np.maximum(segments @ weights["segments/kernel"] + weights["segments/bias"], 0)
    mask = np.cumsum((1 - segments[:, :, 1::2]).sum(axis=-1), axis=-1) > 0
    gru = [weights[f"stack/layer_0/cell/{n}"] for n in ("kernel", "recurrent_kernel", "bias")]
    _, state = reference.gru(gru, inputs, [np.zeros((9, 5))], mask)
    ahead = -(-HORIZON // SEGMENT)
    expected = np.zeros((3, HORIZON, 3))
    for row in range(9):
        window, column = divmod(row, 3)
        made = []
        for m in range(ahead):
            query = [weights["queries/columns"][column], weights["queries/positions"][m]]
            query = np.concatenate(query)[None, None]
            outputs, _ = reference.gru(gru, query, [state[row : row + 1]])
            made.append(outputs[0, 0] @ weights["head/kernel"] + weights["head/bias"])
        values = np.concatenate(made)[:HORIZON]
        expected[window, :, column] = mean[window, column] + std[window, column] * values
    found = unpack("point", (), outputs_of(trained, features, future)).mean()
    np.testing.assert_allclose(found, expected, rtol=2e-4)


# The autoregressive model

AUTOREGRESSIVE = [name for name in VARIANTS if name.startswith("autoregressive")]


@pytest.fixture(scope="module", params=first_of(AUTOREGRESSIVE))
def recurrent(request) -> Trained:
    return make(**VARIANTS[request.param])


def test_a_value_is_predicted_from_those_before_it(recurrent):
    features, future = cases.windows()
    before = outputs_of(recurrent, features, future)
    for step in (0, 3, HORIZON - 1):
        changed = future.copy()
        changed[:, step] += 5.0
        after = outputs_of(recurrent, features, changed)
        end = CONTEXT + step + 1
        np.testing.assert_allclose(after[:, :end], before[:, :end], rtol=1e-5)
        if step < HORIZON - 1:
            assert not np.allclose(after[:, end], before[:, end])


def test_steps_agree_with_the_whole_sequence(recurrent):
    """`after` and `next` give the parameters that the network has, given the same values."""
    features, future = cases.windows()
    future[1, 2, 0] = np.nan
    expected = outputs_of(recurrent, features, future)[..., :-2]
    model = recurrent.model.network
    state = model.after(features)
    for step in range(HORIZON):
        found = state["parameters"]
        np.testing.assert_allclose(found, expected[:, CONTEXT + step], rtol=1e-4, atol=1e-5)
        position = min(CONTEXT + step + 1, CONTEXT + HORIZON - 1)
        own = {name: features[name][:, position : position + 1] for name in ("times", "known")}
        state = model.next(future[:, step], {**own, "series": features["series"]}, state)


def test_paths_without_noise_are_their_own_past():
    trained = make(**VARIANTS["autoregressive, point"])
    features, _ = cases.windows()
    means = Forecaster(trained)(features)["mean"]
    found = unpack("point", (), outputs_of(trained, features, means)).mean()
    np.testing.assert_allclose(found[:, CONTEXT:], means, rtol=1e-4)


@pytest.mark.parametrize("variant", ["autoregressive", "autoregressive, counts"])
def test_the_first_sampled_values_have_the_predicted_distribution(variant):
    trained = make(**VARIANTS[variant], samples=1000)
    features, _ = cases.windows()
    forecaster = Forecaster(trained)
    found = forecaster(features)
    expected = forecaster.described(trained.model.network.after(features))
    spread = np.diff(expected["quantiles"]).max()
    np.testing.assert_allclose(found["mean"][:, 0], expected["mean"], atol=0.1 * spread)
    atol = 0.1 * spread + (variant != "autoregressive")  # a count may be the next one
    np.testing.assert_allclose(found["quantiles"][:, 0], expected["quantiles"], atol=atol)


def test_the_noise_is_reproducible_and_stratified():
    forecaster = Forecaster(make(**VARIANTS["autoregressive"]))
    noise = forecaster.noise(50, 3).numpy()
    assert noise.shape == (2, HORIZON, 50)
    assert (noise == forecaster.noise(50, 3)).numpy().all()
    assert not np.allclose(noise, forecaster.noise(50, 4))
    # One number in each interval.
    assert (np.sort(np.floor(noise * 50), axis=-1) == np.arange(50)).all()


@pytest.mark.parametrize("cell", first_of(sorted(RECURRENT_LAYERS, key="GRU".__ne__)))
def test_any_recurrent_layer_forecasts(cell):
    features, future = cases.windows()
    for options in ({}, VARIANTS["autoregressive"]):
        trained = make(**{**options, "cell": cell, "units": 8})
        found = Forecaster(trained)(features)
        assert np.isfinite(found["quantiles"]).all()
    expected = outputs_of(trained, features, future)[:, CONTEXT, :, :-2]
    found = trained.model.network.after(features)["parameters"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# Scales


def scale_of(kind: str, history, series=None) -> tuple:
    layer = network.WindowScale(kind, cases.ASSETS["calendar"])
    history = np.array(history, "float32")[None, :, None].repeat(3, axis=-1)
    found = layer(history, None if series is None else np.array([series], "int32"))
    return tuple(np.array(x)[0].tolist() for x in found)


def test_the_scale_of_a_window():
    history = [np.nan, 1.0, 3.0, np.nan, 8.0, np.nan]
    location, scale = scale_of("standard", history)
    assert location == pytest.approx([4.0] * 3)
    assert scale == pytest.approx([np.std([1, 3, 8])] * 3)
    assert scale_of("last", history) == ([8.0] * 3, [1.0, 2.0, 3.0])
    assert scale_of("last", history, series=2) == ([8.0] * 3, pytest.approx([0.5, 0.6, 0.7]))
    assert scale_of("last", history, series=7) == ([8.0] * 3, [1.0, 2.0, 3.0])
    assert scale_of("mean", [-1.0, 3.0]) == ([0.0] * 3, [2.0] * 3)


@pytest.mark.parametrize("kind", ["standard", "last", "mean"])
def test_a_window_without_a_scale_has_that_of_the_training_split(kind):
    location, scale = scale_of(kind, [np.nan, np.nan])
    assert scale == [1.0, 2.0, 3.0]
    assert location == ([0.0] * 3 if kind == "mean" else [0.5, 1.0, 1.5])
    assert scale_of("standard", [7.0, 7.0, 7.0]) == ([7.0] * 3, [1.0, 2.0, 3.0])
    assert scale_of("mean", [0.0, 0.0]) == ([0.0] * 3, [1.0, 2.0, 3.0])


def test_large_values_keep_their_precision():
    """Times, meters: 1e8 plus small changes."""
    history = 1e8 + 8.0 * np.arange(64)
    location, scale = scale_of("standard", history)
    assert location == pytest.approx([history.mean()] * 3, rel=1e-7)
    assert scale == pytest.approx([history.std()] * 3, rel=1e-4)


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"samples": 1001}, "samples must be at most 1000"),
        ({"lags": "1,400"}, "lags must be at most context, 168"),
        ({"model": "autoregressive"}, "output must be point, normal"),
        ({"output": "negative_binomial"}, "scaling must be mean"),
        ({"quantiles": "0.9,0.1"}, "quantiles must increase"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


@pytest.mark.parametrize("text", ["", "2", "1,1", "1,a", "1;2", "0,1", "-1", "1,3,2"])
def test_bad_lags_are_named(text):
    with pytest.raises(ValueError, match=f"^lags must .*{re.escape(repr(text))}"):
        lags_of(text)


def test_time_features_that_do_not_repeat_are_left_out():
    def features(frequency: str, days: int) -> list[str]:
        times = np.array([0, days * 86_400])
        rows = [
            forecasting.Series("a", times[:1], *[None] * 2),
            forecasting.Series("b", times, *[None] * 2),
        ]
        return network.repeated_features(forecasting.Table([], [], frequency, 1, rows, [0, 0]))

    assert features("h", 1) == []
    assert features("h", 42) == ["hour", "day of week"]
    assert features("h", 365) == ["hour", "day of week", "day of month"]
    assert features("h", 732)[-1] == "day of year"
    assert features("MS", 700) == []
    assert features("MS", 732) == ["month"]
    assert features("", 10**4) == []
