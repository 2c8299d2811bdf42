"""Fine-tuning: a model starts with the weights of another run."""

import re
from collections import Counter
from types import ModuleType

import keras
import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.protocol import Assets
from unroll.apps.core.runs import Run


def copy(app: ModuleType, model: keras.Model, assets: Assets, path: str) -> int:
    """Copies the weights of a run of the same app into a model, where they fit.

    A weight fits a weight of the same layer and shape. A table with a row per entry of a vocabulary
    is copied entry by entry, so that the order of the entries does not matter; new entries keep
    their initial values. Other weights (the classes of another task, a new layer) keep theirs.

    Returns:
        The number of copied weights.

    Raises:
        UsageError: if the run has a layer that the model lacks.
    """
    source = load_trained(app, Run.open(app, path))
    targets, sources = _by_name(model), _by_name(source.model)
    if lacking := sources.keys() - targets.keys():
        name, _ = min(lacking)
        raise UsageError(
            f"--start={path}: this model lacks {len(lacking)} of the run's {len(sources)} weights, "
            f"such as {name}; use the options of the run for the network."
        )
    copied = 0
    for path_and_index, weight in sources.items():
        target, value = targets[path_and_index], keras.ops.convert_to_numpy(weight)
        names = [
            name
            for name, entries in assets.items()
            if isinstance(entries, list)
            and target.shape[:1] == (len(entries),)
            and value.shape[:1] == (len(source.assets.get(name, ())),)
            and target.shape[1:] == value.shape[1:]
        ]
        # A vector with an entry per class is not a table.
        if names and value.ndim > 1:
            rows = {entry: i for i, entry in enumerate(source.assets[names[0]])}
            merged = np.array(keras.ops.convert_to_numpy(target))
            for i, entry in enumerate(assets[names[0]]):
                if entry in rows:
                    merged[i] = value[rows[entry]]
            target.assign(merged)
        elif target.shape == value.shape:
            target.assign(value)
        else:
            continue
        copied += 1
    return copied


def _by_name(model: keras.Model) -> dict[tuple[str, int], keras.Variable]:
    """The weights by path without numbers, and index among the weights of that path.

    Keras numbers unnamed layers across all models of a process.
    """
    weights, count = {}, Counter()
    for weight in model.weights:
        path = re.sub(r"_\d+(?=/)", "", weight.path)
        weights[path, count[path]] = weight
        count[path] += 1
    return weights
