"""Fine-tuning: a model begins with the weights of another run."""

import re
from collections import Counter
from types import ModuleType

import keras
import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_model
from unroll.apps.core.protocol import Assets
from unroll.apps.core.runs import Run


def copy(app: ModuleType, model: keras.Model, assets: Assets, path: str) -> int:
    """Copies the weights of a run of the same app into a model, as far as they fit.

    A weight fits one of the same layer and shape. A table with a row for each entry of a
    vocabulary goes over entry by entry, whatever the order; entries that the run did not know
    keep their first values. What fits nothing (the classes of another task, a layer that the run
    did not have) keeps its own.

    Returns:
        How many weights were copied.

    Raises:
        UsageError: if the run has a layer that the model lacks.
    """
    source, _, source_assets = load_model(app, Run.open(app, path))
    targets, sources = _by_name(model), _by_name(source)
    if lacking := sources.keys() - targets.keys():
        name, _ = min(lacking)
        raise UsageError(
            f"--start={path}: this model lacks {len(lacking)} of the run's {len(sources)} weights, "
            f"such as {name}; use the options of the run for the network."
        )
    copied = 0
    for place, given in sources.items():
        target, value = targets[place], keras.ops.convert_to_numpy(given)
        names = [
            name
            for name, entries in assets.items()
            if target.shape[:1] == (len(entries),)
            and value.shape[:1] == (len(source_assets[name]),)
            and target.shape[1:] == value.shape[1:]
        ]
        # A vector of the classes' sizes is no table.
        if names and value.ndim > 1:
            rows = {entry: i for i, entry in enumerate(source_assets[names[0]])}
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
    """The weights by their path without numbers, and how many of that path are before them.

    Keras numbers layers without a name by what the program made before.
    """
    found, seen = {}, Counter()
    for weight in model.weights:
        path = re.sub(r"_\d+(?=/)", "", weight.path)
        found[path, seen[path]] = weight
        seen[path] += 1
    return found
