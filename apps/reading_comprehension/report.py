"""What the model gets wrong, and a result as text and as an image."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf
from rich.text import Text

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.reading_comprehension import metrics
from unroll.apps.shared.reports import confusion_figure, examples_table
from unroll.pipelines.text import PADDING


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The error by task, wrong answers with their facts, and answers that are confused."""
    found = metrics.predictions(trained, dataset)
    names = trained.assets["tasks"]
    vocabulary = np.array(trained.assets["vocabulary"])
    body = []
    for k, name in enumerate(names):
        of_task = found.task == k
        if of_task.any():
            wrong = found.wrong[of_task]
            body.append([name, f"{wrong.mean():.3f}", f"{wrong.sum():,}", f"{len(wrong):,}"])
    tasks = markdown_table(["task", "error", "wrong", "questions"], body)
    heads = ["task", "question", "correct", "predicted", "facts"]
    rows = _wrong_answers(found, dataset, names, vocabulary)
    text = f"## Tasks\n\n{tasks}\n\n## Wrong answers\n\n{examples_table(heads, rows)}"
    figure = confusion_figure(vocabulary[found.correct], vocabulary[found.predicted])
    return Report(text, {"confusion": figure})


def _wrong_answers(found, dataset, names: list[str], vocabulary: np.ndarray) -> list[list[str]]:
    def words(ids) -> str:
        return " ".join(vocabulary[ids[ids != PADDING]])

    rows, i = [], 0
    for features, _ in dataset:
        for facts, question in zip(
            features["facts"].numpy(), features["question"].numpy(), strict=True
        ):
            if found.wrong[i]:
                answers = vocabulary[[found.correct[i], found.predicted[i]]]
                story = ". ".join(words(fact) for fact in facts if fact.any())
                rows.append([names[found.task[i]], words(question), *answers, story[-400:]])
            i += 1
    return rows


def _facts_and_weights(result: dict) -> list[tuple[str, np.ndarray]]:
    """Each fact with its weight in each hop; last, the weight of the empty memory positions."""
    weights = np.array(result["attention"])  # [K, S]
    empty = np.maximum(1 - weights.sum(axis=1), 0)
    return [*zip(result["facts"], weights.T, strict=True), ("(no fact)", empty)]


def show(result: dict) -> Text:
    """The answer, and each fact after its weight in each hop."""
    line = Text(f"{result['answer']} {result['score']:.1%}", style="bold")
    for fact, weights in _facts_and_weights(result):
        columns = "  ".join(f"{weight:4.0%}" for weight in weights)
        line += Text(f"\n       {columns}  {fact}", style="" if max(weights) >= 0.1 else "dim")
    return line


def plot(result: dict, path: Path) -> None:
    """The weight of each fact, a row, in each hop, a column."""
    names, weights = zip(*_facts_and_weights(result), strict=True)
    weights = np.array(weights)  # [S + 1, K]
    figure = matplotlib.figure.Figure(figsize=(7, 1.2 + 0.3 * len(weights)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    # A dollar sign is no formula.
    axes.set_yticks(range(len(weights)), [*map(_label, names)], fontsize=8, parse_math=False)
    axes.set_xticks(range(weights.shape[1]), [f"hop {k + 1}" for k in range(weights.shape[1])])
    for (row, column), weight in np.ndenumerate(weights):
        color = "white" if weight > 0.5 else "black"
        axes.text(column, row, f"{weight:.2f}", ha="center", va="center", fontsize=7, color=color)
    title = f"{_label(result['question'])} {result['answer']} ({result['score']:.0%})"
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.savefig(path, dpi=100)


def _label(text: str, most: int = 70) -> str:
    """A fact or a question as one line, cut to `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
