"""What the model gets wrong, and a result as an image."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.key_terms import metrics
from unroll.apps.shared.reports import examples_table
from unroll.apps.shared.spans import span_table

_POINTS = 11  # the font size of `plot`
_WIDTH = 90  # characters of a line of `plot`
_BINS = 10  # of the calibration


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """F1 by label and by the number of words, missing and wrong terms, calibration."""
    found = metrics.predictions(trained, dataset)
    tags, predicted = ([getattr(d, name) for d in found] for name in ("tags", "predicted_tags"))
    rows = sorted(map(_errors, found), key=lambda row: -row[0])
    heads = ["errors", "document", "found", "missing", "wrong"]
    text = (
        f"## Labels\n\n{span_table('label', tags, predicted)}\n\n"
        f"## Number of words\n\n{_length_table(found)}\n\n"
        f"## Documents with the most errors\n\n{examples_table(heads, rows)}"
    )
    return Report(text, {"calibration": _calibration(found)})


def _errors(document: metrics.Document) -> list:
    correct, predicted = (
        metrics.terms_of(document.words, tags) for tags in (document.tags, document.predicted_tags)
    )
    groups = (correct & predicted, correct - predicted, predicted - correct)
    cells = ["; ".join(sorted(" ".join(term) for term in group)) for group in groups]
    return [len(correct ^ predicted), " ".join(document.words[:12]), *cells]


def _length_table(documents: list[metrics.Document]) -> str:
    """Precision, recall and F1 of the spans by their number of words."""
    correct, predicted = (
        {(k, *span) for k, d in enumerate(documents) for span in metrics.spans_of(getattr(d, name))}
        for name in ("tags", "predicted_tags")
    )
    body = []
    for length in sorted({end - begin for _, _, begin, end in correct | predicted}):
        one, other = (
            {span for span in spans if span[3] - span[2] == length}
            for spans in (correct, predicted)
        )
        both = len(one & other)
        precision, recall = both / max(len(other), 1), both / max(len(one), 1)
        f1 = 2 * both / (len(one) + len(other))
        body.append([length, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", len(one)])
    return markdown_table(["words", "precision", "recall", "F1", "spans"], body)


def _calibration(documents: list[metrics.Document]):
    """A Matplotlib figure: the fraction of predicted spans that are correct, by their score."""
    scores, correct = [], []
    for document in documents:
        own = set(metrics.spans_of(document.tags))
        for span in metrics.spans_of(document.predicted_tags):
            scores.append(document.scores[span[1]])
            correct.append(span in own)
    scores, correct = np.array(scores), np.array(correct, float)
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    figure = matplotlib.figure.Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    for k in np.unique(bins):
        own = correct[bins == k]
        axes.bar((k + 0.5) / _BINS, own.mean(), width=0.9 / _BINS, color="tab:blue")
        axes.annotate(len(own), ((k + 0.5) / _BINS, own.mean()), ha="center", va="bottom", size=7)
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    axes.set(xlabel="score", ylabel="fraction correct, number of spans", xlim=(0, 1), ylim=(0, 1.1))
    return figure


def plot(result: dict, path: Path) -> None:
    """The text with its terms highlighted, the more the higher their score, and the terms."""
    lines = _lines(result["tokens"])
    terms = [f"{each['score']:.2f}  {each['term']}" for each in result["terms"]]
    height = len(lines) + len(terms) + 2
    # A character of this font is 0.6 of its size wide.
    figure = matplotlib.figure.Figure(figsize=(0.6 * _POINTS / 72 * (_WIDTH + 2), 0.22 * height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, _WIDTH + 1), ylim=(height, 0))
    axes.axis("off")
    font = {"family": "monospace", "fontsize": _POINTS, "va": "center", "parse_math": False}
    labels = sorted({mention["label"] for mention in result["mentions"]})
    scores = iter([mention["score"] for mention in result["mentions"]])
    score = 0.0
    for y, line in enumerate(lines):
        for x, k in line:
            token, tag = result["tokens"][k], result["tags"][k]
            if tag[:2] == "B-":
                score = next(scores)
            if tag != "O":
                color = matplotlib.colormaps["tab10"](labels.index(tag[2:]) % 10)
                # To the next token, if it belongs to the term and is in this line.
                more = result["tags"][k + 1 : k + 2] == [f"I-{tag[2:]}"] and (x, k) != line[-1]
                axes.fill_between(
                    [x, x + len(token) + more], y + 0.6, y + 1.4, color=color, linewidth=0,
                    alpha=0.15 + 0.45 * score,
                )  # fmt: skip
            axes.text(x, y + 1, token, **font)
    for y, term in enumerate(terms, start=len(lines) + 1):
        axes.text(0, y + 0.5, term, **font)
    figure.savefig(path, dpi=120)


def _lines(tokens: list[str]) -> list[list[tuple[int, int]]]:
    """The position in its line and the index of each token, by line."""
    lines: list[list[tuple[int, int]]] = [[]]
    x = 0
    for k, token in enumerate(tokens):
        if lines[-1] and x + len(token) > _WIDTH:
            lines.append([])
            x = 0
        lines[-1].append((x, k))
        x += len(token) + 1
    return lines
