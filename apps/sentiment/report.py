"""What the model gets wrong, and a result as an image."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.sentiment import metrics
from unroll.apps.shared.reports import confusion_figure, examples_table, per_class_table


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Precision and recall by class, the errors with the highest probability, confusions."""
    found = metrics.predictions(trained, dataset)
    names = metrics.label_names(trained)
    labels, predicted = names[found.labels], names[found.predicted]
    errors = np.flatnonzero(found.labels != found.predicted)
    certainty = found.probabilities.max(axis=-1)
    worst = sorted(errors, key=lambda i: -certainty[i])
    rows = [[labels[i], predicted[i], f"{certainty[i]:.3f}", found.texts[i][:300]] for i in worst]
    text = (
        f"{len(errors):,} of {len(labels):,} texts are wrong.\n\n## Classes\n\n"
        f"{per_class_table(labels, predicted)}\n\n## Errors with the highest probability\n\n"
        f"{examples_table(['correct', 'predicted', 'probability', 'text'], rows)}"
    )
    return Report(text, {"confusion": confusion_figure(labels, predicted)})


def plot(result: dict, path: Path) -> None:
    """The weight of each token and the probability of each class, as bars."""
    weights = result.get("attention")
    figure = matplotlib.figure.Figure(
        figsize=(max(6, 1.5 + 0.35 * len(result["tokens"])), 4 if weights else 2),
        layout="constrained",
    )
    classes, *words = figure.subplots(2 if weights else 1, 1, squeeze=False)[:, 0]
    classes.barh(list(result["probabilities"]), list(result["probabilities"].values()))
    classes.set_xlim(0, 1)
    classes.set_xlabel("probability")
    for axes in words:
        axes.bar(range(len(weights)), weights)
        axes.set_xticks(range(len(weights)), result["tokens"], rotation=45, ha="right")
        axes.set_ylabel("attention")
    figure.savefig(path, dpi=100)
