"""A run or an export as a Python function; see `unroll.load`."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import tensorflow as tf
import tensorflow_text  # noqa: F401, registers the ops of exports

from unroll.apps.core import cli
from unroll.apps.core import config as configs
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.files import read_assets
from unroll.apps.core.protocol import Trained, answers, hook
from unroll.apps.core.runs import Run, app_name

_BATCH_SIZE = 32


class Model:
    """A trained model as a function of raw inputs, as `unroll.load` returns it.

    Attributes:
        app: the name of its app.
        config: the configuration of its training.
    """

    def __init__(self, app: ModuleType, config: TrainingConfig, predict: Callable):
        self.app = app_name(app)
        self.config = config
        self._predict = predict

    def __call__(self, inputs: list) -> list[dict]:
        """The results for raw inputs; see `unroll.load`."""
        if isinstance(inputs, str | bytes | dict):
            raise UsageError(f"a model needs a list of inputs, got {type(inputs).__name__}.")
        inputs = list(inputs)
        return self._predict(inputs) if inputs else []

    def __repr__(self) -> str:
        return f"<unroll model: {self.app}, trained on {self.config.data}>"


def load(folder: str | Path) -> Model:
    """The function of a run, or of an export; see `unroll.load`."""
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return _load_run(folder)
    if (folder / "manifest.json").is_file():
        return _load_export(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.")
    versions = sorted((p for p in folder.glob("*/manifest.json")), key=lambda p: p.parent.name)
    hint = f" It contains some: load {versions[-1].parent}." if versions else ""
    raise UsageError(
        f"{folder} is neither a run, which has a config.json, nor an export, which has a "
        f"manifest.json.{hint}"
    )


def _load_run(folder: Path) -> Model:
    app = _app(Run(folder).app(), folder)
    trained = load_trained(app, Run.open(app, folder))
    return Model(app, trained.config, lambda inputs: app.predict(trained, inputs))


def _load_export(folder: Path) -> Model:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if "config" not in manifest:
            raise UsageError(f"{path} has no config: export the model again.")
        app = _app(manifest["app"], folder)
        config = configs.from_json(app.Config, manifest["config"], str(path))
        assets = read_assets(folder, manifest["assets"])
        if missing := sorted(set(manifest["assets"]) - assets.keys()):
            raise UsageError(f"{folder} has no asset {missing[0]}.")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder} cannot be read: {error}") from None
    if not (folder / "saved_model.pb").is_file():
        raise UsageError(f"{folder} has no SavedModel: export it with --formats=saved_model.")
    try:
        module = tf.saved_model.load(str(folder))
        function = module.signatures["serving_default"]
    except (OSError, tf.errors.OpError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{folder} cannot be loaded: {reason}") from None
    trained = Trained(config, assets, model=None)

    def predict(inputs: list) -> list[dict]:
        results = []
        for i in range(0, len(inputs), _BATCH_SIZE):
            request = hook(app, "request")(trained, inputs[i : i + _BATCH_SIZE])
            results += answers(function, request)
        return results

    # The function refers to the variables of the module, and does not keep it.
    predict.module = module
    return Model(app, config, predict)


def _app(name: str, folder: Path) -> ModuleType:
    if name not in cli.describe():
        raise UsageError(f"{folder} is of the app {name!r}, which this version of Unroll lacks.")
    return importlib.import_module(f"unroll.apps.{name}.app")
