"""The configuration of the trainings in tests, and a `Progress` with a small model."""

import dataclasses

import keras
import numpy as np

from tests.apps import toy
from unroll.apps.core import training
from unroll.apps.core.runs import Run

CONFIG = dataclasses.replace(toy.PRESETS["digits"], units=8, epochs=4, schedule="cosine")


def dense_progress(run: Run) -> training.Progress:
    """The state of a tiny model."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    progress = training.Progress(run, CONFIG, "max")
    progress.set_model(model)
    return progress


def end_epoch(progress: training.Progress) -> None:
    epoch = progress.epochs
    progress.on_epoch_begin(epoch)
    for variable in progress.model.variables:
        variable.assign(np.full(variable.shape, epoch + 1.0))
    progress.step = 9
    progress.on_epoch_end(epoch, {"loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.1 * epoch})
