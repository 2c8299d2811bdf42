"""The exports of the forecasting app: any histories, states, LiteRT, example scripts."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.apps import forecasting_cases as cases
from tests.apps.forecasting_cases import CONTEXT, HORIZON, VARIANTS, make
from tests.apps.variants import fixtures
from unroll.apps.core import export
from unroll.apps.forecasting import app
from unroll.apps.forecasting.forecaster import Forecaster

served, model, plain = fixtures(app, make, VARIANTS, "autoregressive")


def request_of(function, features: dict, **options) -> dict:
    """The arguments of an exported function, from the features of windows."""
    length = features["history"].shape[1]
    split = {
        **features,
        **options,
        "times": features["times"][:, :length],
        "future_times": features["times"][:, length:],
        "known": features["known"][:, :length],
        "future_known": features["known"][:, length:],
        "series": np.array(
            [cases.SERIES[k - 1] if k else "new" for k in features["series"]], object
        ),
    }
    names = [spec.name for spec in function.input_signature]
    return {name: tf.constant(split[name]) for name in names}


def answer(service, features: dict) -> dict:
    function = service.functions["serving_default"]
    found = function(**request_of(function, features))
    return {name: value.numpy() for name, value in found.items()}


def assert_same(found: dict, expected: dict, **tolerance) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **({"rtol": 1e-5} | tolerance))


def test_the_served_function_forecasts_like_the_model(model):
    features, _ = cases.windows()
    assert_same(answer(app.serve(model), features), Forecaster(model)(features))


def test_a_history_of_any_length_is_cut_or_padded(model):
    service = app.serve(model)
    features, _ = cases.windows(context=CONTEXT)
    expected = answer(service, features)
    longer, _ = cases.windows(context=CONTEXT)
    for name, value in (("history", 50.0), ("times", 1), ("known", 3.0)):
        shape = (3, 30, *features[name].shape[2:])
        before = np.full(shape, value, features[name].dtype)
        longer[name] = np.concatenate([before, features[name]], axis=1)
    assert_same(answer(service, longer), expected, rtol=0)
    for length in (1, 7):
        short = {k: v if k == "series" else v[:, CONTEXT - length :] for k, v in features.items()}
        padded = {**features, "history": features["history"].copy()}
        padded["history"][:, :-length] = np.nan
        if model.config.model == "direct":  # a segment that begins in the middle
            padded["known"] = features["known"].copy()
            padded["known"][:, : CONTEXT - length] = 0
        assert_same(answer(service, short), answer(service, padded))


def test_an_empty_batch_gets_an_empty_answer(model):
    features, _ = cases.windows()
    found = answer(app.serve(model), {name: value[:0] for name, value in features.items()})
    assert found["mean"].shape == (0, HORIZON, 3)


def test_hostile_histories_do_not_disturb_the_other_rows(model):
    service = app.serve(model)
    features, _ = cases.windows()
    expected = answer(service, features)
    features["history"][0] = np.float32(3e38)
    features["times"][0] = 2**62
    found = answer(service, features)
    assert_same({k: v[1:] for k, v in found.items()}, {k: v[1:] for k, v in expected.items()})


def test_series_that_are_not_in_the_training_split_are_unknown(plain):
    service = app.serve(plain)
    features, _ = cases.windows(2)
    for k in (0, 1):
        features["series"][:] = k
        expected = Forecaster(plain)(features)
        assert_same(answer(service, features), expected)


@pytest.mark.exhaustive
def test_samples_depend_on_the_seed_alone(served):
    trained, _ = served("autoregressive")
    features, _ = cases.windows()

    def with_options(**options) -> dict:
        config = dataclasses.replace(trained.config, **options)
        return answer(app.serve(dataclasses.replace(trained, config=config)), features)

    first = with_options(sample_seed=0)
    assert_same(with_options(sample_seed=0), first, rtol=0)
    assert not np.allclose(with_options(sample_seed=1)["mean"], first["mean"])
    # Many paths are close to the distribution, whatever the seed.
    many = [with_options(samples=1000, sample_seed=seed) for seed in (0, 1)]
    spread = np.ptp(many[0]["quantiles"], axis=-1)
    assert np.abs(many[0]["mean"] - many[1]["mean"]).max() < 0.1 * spread.max()


def test_steps_continue_a_history(served):
    trained, service = served("autoregressive")
    features, future = cases.windows()
    request = request_of(service.functions["serving_default"], features)
    past = {name: request[name] for name in ("history", "times", "known")}
    numbers = {"series": tf.constant(features["series"])}
    found = service.functions["encode"](
        **past,
        **numbers,
        next_times=request["future_times"][:, 0],
        next_known=request["future_known"][:, 0],
    )
    model = trained.model.network
    expected = Forecaster(trained).described(model.after(features))
    np.testing.assert_allclose(found["quantiles"], expected["quantiles"], rtol=1e-5)
    for step in (1, 2):
        state = {name: found[name] for name in found if name not in ("mean", "quantiles")}
        found = service.functions["step"](
            value=tf.constant(future[:, step - 1]),
            **numbers,
            next_times=request["future_times"][:, step],
            next_known=request["future_known"][:, step],
            **state,
        )
        inputs = cases.of_network(trained, features, future)
        outputs = trained.model(inputs)[:, CONTEXT + step]
        whole = model.distribution(outputs[..., :-2], outputs[..., -2], outputs[..., -1])
        np.testing.assert_allclose(found["mean"], whole.mean(), rtol=1e-4)
        np.testing.assert_allclose(found["quantiles"], whole.quantiles(), rtol=1e-4)


def test_a_model_takes_only_what_it_uses(served):
    names = {
        variant: [s.name for s in served(variant)[1].functions["serving_default"].input_signature]
        for variant in ("direct", "autoregressive, point")
    }
    assert names["direct"] == [
        *("history", "times", "future_times", "known", "future_known", "series")
    ]
    assert names["autoregressive, point"] == ["history", "known", "future_known"]


@pytest.fixture(scope="module")
def write_export(served, tmp_path_factory, parity_process):
    """Exports a variant, which compares the SavedModel and the LiteRT file with the model."""

    def write(variant: str):
        trained, service = served(variant)
        return export.write(service, trained.assets, app.examples(), tmp_path_factory.mktemp("to"))

    return write


EXPORTED = [
    pytest.param(name, marks=[] if name == "direct" else pytest.mark.exhaustive)
    for name in VARIANTS
]


@pytest.mark.parametrize("variant", EXPORTED)
def test_the_exports_agree_with_the_model(variant, write_export, served, run_example, tmp_path):
    folder = write_export(variant)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert {"forecast", "forecast_fixed"} <= set(manifest["litert"])
    assert (folder / "columns.txt").read_text("utf-8").split() == cases.COLUMNS
    trained, service = served(variant)
    request = service.requests(app.examples()[:1])["forecast"]
    body = {"inputs": {name: value.tolist() for name, value in request.items()}}
    (tmp_path / "request.json").write_text(json.dumps(body))
    lines = run_example("forecasting", "litert", folder, tmp_path / "request.json")
    found = np.array([line.split("\t") for line in lines], float)
    [expected] = app.predict(trained, app.examples()[:1])
    assert found.shape == (HORIZON * 3, 4 + len(expected["levels"]))
    means = np.array([forecast["mean"] for forecast in expected["forecasts"]]).T  # [H, C]
    np.testing.assert_allclose(found[:, 3], means.ravel(), rtol=1e-3)
    (tmp_path / "history.csv").write_text(history_csv())
    lines = run_example("forecasting", "serving", folder, tmp_path / "history.csv")
    [expected] = app.predict(trained, [str(tmp_path / "history.csv")])
    means = np.array([forecast["mean"] for forecast in expected["forecasts"]]).T
    served_means = [float(line.split("\t")[2]) for line in lines]
    np.testing.assert_allclose(served_means, means.ravel(), rtol=1e-3)
    assert [line.split("\t")[1] for line in lines] == cases.COLUMNS * HORIZON


def history_csv() -> str:
    """Thirty hours, and the covariates of the hours to forecast."""
    rows = ["date,wind,load,price,oil,holiday"]
    for k in range(30 + HORIZON):
        values = [f"{k % 5}", f"{10 + k % 7}", f"{k * k % 11}"] if k < 30 else ["", "", ""]
        if k == 12:
            values[1] = ""
        time = np.datetime64("2026-06-01T00:00:00") + np.timedelta64(k, "h")
        stamp = str(time).replace("T", " ")
        rows.append(f"{stamp},{values[0]},{values[1]},{k % 3},{values[2]},{k % 2}")
    return "\n".join(rows) + "\n"
