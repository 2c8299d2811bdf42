"""What the model gets wrong, and a result as an image."""

from pathlib import Path

import matplotlib.figure
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.shared.reports import confusion_figure, examples_table, per_class_table
from unroll.apps.shared.spans import bracketed, span_table
from unroll.apps.slot_filling import metrics

_POINTS = 11  # the font size of `plot`


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """F1 by slot, accuracy by intent, wrong sentences, and slots that are confused."""
    found = metrics.predictions(trained.model, trained.assets, dataset)
    parts = [f"## Slots\n\n{span_table('slot', found.tags, found.predicted_tags)}"]
    if found.intents:
        parts.append(f"## Intents\n\n{per_class_table(found.intents, found.predicted_intents)}")
    heads = ["sentence with correct slots", "predicted slots", "intent", "predicted intent"]
    parts.append(f"## Wrong sentences\n\n{examples_table(heads, _wrong_sentences(found))}")
    correct, predicted = (
        [tag[2:] or "O" for row in rows for tag in row]
        for rows in (found.tags, found.predicted_tags)
    )
    return Report("\n\n".join(parts), {"confusion": confusion_figure(correct, predicted)})


def _wrong_sentences(found: metrics.Predictions) -> list[list[str]]:
    none = [""] * len(found.tags)
    rows = zip(
        found.tokens,
        found.tags,
        found.predicted_tags,
        found.intents or none,
        found.predicted_intents or none,
        strict=True,
    )
    return [
        [bracketed(tokens, tags), bracketed(tokens, predicted), intent, predicted_intent]
        for tokens, tags, predicted, intent, predicted_intent in rows
        if tags != predicted or intent != predicted_intent
    ]


def plot(result: dict, path: Path) -> None:
    """The tokens with each slot highlighted in its own color, and the names of the slots."""
    names = sorted({tag[2:] for tag in result["slots"] if tag[2:]})
    width = max(24, len(" ".join(result["tokens"])))
    # A character of this font is 0.6 of its size wide.
    figure = matplotlib.figure.Figure(figsize=(0.6 * _POINTS / 72 * (width + 2), 1.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, width + 1), ylim=(0, 3))
    axes.axis("off")
    font = {"family": "monospace", "fontsize": _POINTS}
    if "intent" in result:
        axes.text(0, 2.4, f"{result['intent']} ({result['intent_score']:.0%})", **font)
    begin = 0
    for k, (token, tag) in enumerate(zip(result["tokens"], result["slots"], strict=True)):
        if tag[2:]:
            color = matplotlib.colormaps["tab10"](names.index(tag[2:]) % 10)
            more = result["slots"][k + 1 : k + 2] == [f"I-{tag[2:]}"]
            end = begin + len(token) + (1 if more else 0)
            axes.axvspan(begin, end, 0.36, 0.62, color=color, alpha=0.35, linewidth=0)
            if tag[:2] == "B-":
                axes.text(begin, 0.6, tag[2:], fontsize=8, color=color)
        axes.text(begin, 1.3, token, **font)
        begin += len(token) + 1
    figure.savefig(path, dpi=150)
