"""The functions of LiteRT files for one step: no loop, and the answers of the whole sequence."""

import importlib

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.apps.test_contract_models import small_config
from unroll.apps.core.protocol import Service, Trained
from unroll.layers.litert_tensorflow import convert_functions

pytestmark = pytest.mark.exhaustive

# For each app, the name of the function of a step, and options of a model that has one.
STEPS = {
    "forecasting": ("step", {"model": "autoregressive", "output": "normal"}),
    "language_model": ("step", {}),
    "speech_ctc": ("step_frames", {"bidirectional": False, "convolutions": 2}),
}


def model_of(name: str) -> tuple[Trained, Service]:
    app = importlib.import_module(f"unroll.apps.{name}.app")
    keras.utils.set_random_seed(0)
    config = small_config(app, **STEPS[name][1])
    assets = app.load(config, ()).assets
    trained = Trained(config, assets, app.build(config, assets))
    return trained, app.serve(trained)


def interpreter_of(service: Service, name: str) -> Interpreter:
    return Interpreter(model_content=convert_functions({name: service.litert[name]}))


@pytest.mark.parametrize("app", STEPS)
def test_a_step_has_no_loop(app):
    name, _ = STEPS[app]
    _, service = model_of(app)
    interpreter = interpreter_of(service, name)
    interpreter.allocate_tensors()
    names = {each["op_name"] for each in interpreter._get_ops_details()}
    assert not {"WHILE", "IF", "CALL_ONCE"} & names
    outputs = set(service.litert[name].get_concrete_function().structured_outputs)
    states = [s.name for s in service.litert[name].input_signature if s.name.startswith("state_")]
    assert states
    assert set(states) <= outputs


def test_the_steps_of_frames_are_the_logits_of_the_recording():
    trained, service = model_of("speech_ctc")
    runner = interpreter_of(service, "step_frames").get_signature_runner("step_frames")
    size = trained.config.subsampling
    assert size == 4
    specs = service.litert["step_frames"].input_signature
    states = {s.name: np.zeros(s.shape, "float32") for s in specs if s.name != "features"}
    shape = [1, 7 * size, trained.assets["interface"]["features"]]
    features = np.random.default_rng(0).normal(size=shape).astype("float32")
    inputs = {"features": features, "lengths": np.array([shape[1]], "int32")}
    expected = trained.model(inputs, training=False)
    found = []
    for block in np.split(features, 7, axis=1):
        outputs = runner(features=block, **states)
        found.append(outputs["logits"])
        states = {name: outputs[name] for name in states}
    np.testing.assert_allclose(np.stack(found, axis=1), expected, atol=1e-5)
