"""Tables and figures of reports."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from unroll.apps.core.results import markdown_table


def per_class_table(labels: Sequence[str], predicted: Sequence[str], most: int = 40) -> str:
    """Precision, recall, F1 and count of the `most` frequent classes, as Markdown."""
    names = sorted(set(labels) | set(predicted))
    columns = precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0)
    rows = sorted(zip(names, *columns, strict=True), key=lambda row: (-row[4], row[0]))
    body = [[n, f"{p:.3f}", f"{r:.3f}", f"{f:.3f}", str(c)] for n, p, r, f, c in rows[:most]]
    return markdown_table(["class", "precision", "recall", "F1", "examples"], body)


def confusion_figure(labels: Sequence[str], predicted: Sequence[str], most: int = 25):
    """A Matplotlib figure: how often a class (row) is predicted as another (column).

    Args:
        labels: the correct class of each example.
        predicted: the predicted class of each example.
        most: the number of classes shown, those with the most errors.
    """
    names = np.array(sorted(set(labels) | set(predicted)))
    counts = confusion_matrix(labels, predicted, labels=names)
    errors = np.where(np.eye(len(names), dtype=bool), 0, counts)
    shown = np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:most]
    names, errors = names[shown], errors[np.ix_(shown, shown)]
    size = 3 + 0.3 * len(names)
    figure = matplotlib.figure.Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(errors, cmap="Reds")
    for row, column in zip(*np.nonzero(errors), strict=True):
        text = int(errors[row, column])
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    axes.set(xlabel="predicted", ylabel="correct", title="errors by class")
    return figure


def attention_figure(
    weights: np.ndarray, rows: list[str], columns: list[str] | None = None, label: str = ""
):
    """A Matplotlib figure of attention weights `[L, S]` as a heat map.

    Args:
        weights: of each row.
        rows: the names of the rows, such as the words that are written.
        columns: the names of what is attended to, if they have names.
        label: what is attended to.
    """
    height, width = 1.5 + 0.3 * len(rows), max(6.0, 2 + 0.35 * len(columns or ()))
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="inferno", aspect="auto", vmin=0)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    if columns:
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", parse_math=False)
    axes.set_xlabel(label)
    return figure


def examples_table(heads: list[str], rows: list[list], most: int = 20) -> str:
    """The first `most` rows as a Markdown table, with a line if there are more."""
    table = markdown_table(heads, [[str(cell) for cell in row] for row in rows[:most]])
    more = len(rows) - most
    return table + (f"\n\n{more:,} more." if more > 0 else "")
