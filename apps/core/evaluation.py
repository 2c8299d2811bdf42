"""A trained run: its model, and its figures on a split."""

import warnings
from types import ModuleType

import keras

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets
from unroll.apps.core.runs import Run, write_json


def weights_of(model: keras.Model) -> keras.Model:
    """The model without its optimizer, whose state would triple a file of weights."""
    return keras.Model(model.inputs, model.outputs)


def load_model(app: ModuleType, run: Run) -> tuple[keras.Model, TrainingConfig, Assets]:
    """The model with the best weights of a run, its configuration and its assets.

    Raises:
        UsageError: if the weights do not fit or cannot be read.
    """
    config, assets = run.config(app), run.assets()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = app.build(config, assets)
    finally:
        keras.config.set_dtype_policy(policy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the error below tells
            weights_of(model).load_weights(run.best)
    except (OSError, ValueError, KeyError) as error:
        # Keras goes on with an example, in many lines.
        why = str(error).splitlines()[0].partition(" Example error")[0]
        raise UsageError(f"{run.best} cannot be loaded: {why}") from None
    return model, config, assets


def evaluate(app: ModuleType, run: Run, split: str = "test") -> dict:
    """The task's figures on a whole split, each example once, sums divided once.

    They are also written to the run's `metrics.json`, under the split's name, and with them what
    was set anew for the search.

    Returns:
        `data`, `split`, `examples` and the app's metrics.

    Raises:
        UsageError: if the data have no such split.
    """
    model, config, assets = load_model(app, run)
    data = app.load(config, assets)
    figures = {
        "data": config.data,
        "split": split,
        **app.score(model, assets, split_of(data, split, config.data)),
    }
    kept = figures | ({"search": run.search} if run.search else {})
    write_json(run.metrics, {**run.read_metrics(), split: kept})
    return figures


def split_of(data, split: str, name: str):
    """A split's dataset.

    Raises:
        UsageError: if there is none.
    """
    splits = [s for s in ("train", "valid", "test") if getattr(data, s) is not None]
    if split not in splits:
        raise UsageError(f"--split={split}: {name} has {', '.join(splits)}.")
    return getattr(data, split)
