"""Translation models with random weights."""

import keras
import numpy as np

from unroll.apps.core.protocol import Trained
from unroll.apps.translation import app
from unroll.pipelines.translation import SPECIAL

SOURCE = [*SPECIAL, "a", "small", "dog", "sees", "\uffed.", "cat"]
TARGET = [*SPECIAL, "ein", "kleiner", "Hund", "sieht", "\uffed.", "\uffed,", "Katze", "eine"]
_SHARED = [*SPECIAL, *"abcdehlorw", "\u2581"]


def make(seed: int = 1, scale: float = 0.5, dialogs: bool = False, **options) -> Trained:
    """A small model with random weights."""
    small = {"units": 6, "embedding_dim": 5, "beam_width": 3, "max_length": 7}
    config = app.Config(**(small | options))
    assets = {"source_vocabulary": SOURCE, "target_vocabulary": TARGET}
    if config.shared_vocabulary:
        assets = {"vocabulary": _SHARED}
    assets["task"] = {"dialogs": dialogs}
    keras.utils.set_random_seed(1)
    model = app.build(config, assets)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=scale, size=weight.shape))
    return Trained(config, assets, model)
