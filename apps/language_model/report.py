"""What single units follow in a text, and where the model is surprised."""

import math
from collections import Counter
from collections.abc import Callable

import keras
import matplotlib.figure
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.language_model.display import spaced
from unroll.apps.shared.reports import examples_table
from unroll.apps.shared.token_losses import token_losses
from unroll.pipelines.language_modeling import END, SPECIAL

MOST = 50_000  # tokens that are read
_CONTEXT = 12  # tokens before a surprise
_LINES, _WIDTH = 12, 80  # of a figure, in characters
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The units that correlate most with properties of the text, and the tokens' surprise."""
    vocabulary = trained.assets["vocabulary"]
    streams = _read(trained, dataset)
    names = [[vocabulary[k] for k in ids] for ids, _, _ in streams]
    states = np.concatenate([own for _, _, own in streams])
    bits = np.concatenate([own for _, own, _ in streams]) / math.log(2)
    # The states after a token: the properties are those of the text with that token.
    found = {}
    for name, feature in FEATURES.items():
        values = np.concatenate([feature(row) for row in names])
        if values.std() > 0:
            correlation = _correlation(states, values)
            unit = int(np.abs(correlation).argmax())
            found[name] = (unit, float(correlation[unit]))
    text = (
        f"{len(bits):,} tokens, {bits.mean():.3f} bits per token.\n\n"
        "## Units of the last recurrent layer\n\nFor each property of the text, the unit whose "
        "output after each token correlates most with it.\n\n"
        f"{_table_of_units(found)}\n\n## Surprise by token\n\n{_table_of_tokens(names, bits)}\n\n"
        f"## The most surprising tokens\n\n{_table_of_surprises(names, bits)}"
    )
    first, first_bits, first_states = spaced(names[0]), streams[0][1], streams[0][2]
    figures = {"surprise": _text_figure({"surprise in bits": first_bits / math.log(2)}, first)}
    if found:
        best = sorted(found.items(), key=lambda item: -abs(item[1][1]))[:4]
        rows = {
            f"{name}: unit {unit}, r = {r:.2f}": first_states[:, unit] for name, (unit, r) in best
        }
        figures["units"] = _text_figure(rows, first)
    return Report(text, figures)


def _read(trained: Trained, dataset: tf.data.Dataset) -> list[tuple]:
    """The ids, -log P of each, and the outputs after each, of each stream."""
    model = trained.model
    network = keras.Model(model.input, [model.get_layer("carried").output, model.output])

    @tf.function(reduce_retracing=True)
    def of_batch(features, labels):
        outputs, logits = network(features, training=False)
        return outputs, token_losses(labels, logits)[0]

    batches, read = [], 0
    for features, labels in dataset:
        outputs, losses = of_batch(features, labels)
        batches.append((labels.numpy(), losses.numpy(), outputs.numpy()))
        read += int((batches[-1][0] >= 0).sum())
        if read >= MOST:
            break
    labels, losses, outputs = (np.concatenate(part, axis=1) for part in zip(*batches, strict=True))
    streams = []
    for row in range(len(labels)):
        # The output at a position predicts its label. The next one has read it.
        own = np.flatnonzero(labels[row, :-1] >= 0)
        if len(own):
            streams.append((labels[row, own], losses[row, own], outputs[row, own + 1]))
    return streams


def _correlation(states: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each unit `[N, U]` with values `[N]`; 0 for a constant unit."""
    centered, values = states - states.mean(axis=0), values - values.mean()
    scale = np.sqrt((centered**2).sum(axis=0) * (values**2).sum())
    return np.divide(values @ centered, scale, np.zeros_like(scale), where=scale > 1e-9)


def _in_lines(step: Callable[[float, str], float]) -> Callable[[list[str]], np.ndarray]:
    """A property of the text so far, from 0 at the start of each line, changed by each token."""

    def feature(tokens: list[str]) -> np.ndarray:
        values, value = [], 0.0
        for token in tokens:
            value = 0.0 if token == SPECIAL[END] else step(value, token)
            values.append(value)
        return np.array(values)

    return feature


# Properties of a text after each of its tokens.
FEATURES = {
    "position in the line": _in_lines(lambda value, token: value + len(token)),
    "inside quotes": _in_lines(lambda value, token: abs(value - token.count('"') % 2)),
    "depth of brackets": _in_lines(
        lambda value, token: max(0, value + sum(_BRACKETS.get(each, 0) for each in token))
    ),
    "position in the word": _in_lines(
        lambda value, token: 0 if not token[-1].isalnum() else value + len(token)
    ),
    "capital letter": _in_lines(lambda value, token: float(token[-1].isupper())),
}


def _table_of_units(found: dict[str, tuple[int, float]]) -> str:
    return markdown_table(
        ["property", "unit", "correlation"],
        [[name, str(unit), f"{r:.3f}"] for name, (unit, r) in found.items()],
    )


def _table_of_tokens(names: list[list[str]], bits: np.ndarray, most: int = 20) -> str:
    """The tokens with the largest share of all bits."""
    flat = [name for row in names for name in row]
    counts, sums = Counter(flat), Counter()
    for name, own in zip(flat, bits.tolist(), strict=True):
        sums[name] += own
    body = [
        [_quoted(name), f"{counts[name]:,}", f"{own / counts[name]:.2f}", f"{own / bits.sum():.1%}"]
        for name, own in sums.most_common(most)
    ]
    return markdown_table(["token", "count", "bits", "share of all bits"], body)


def _table_of_surprises(names: list[list[str]], bits: np.ndarray) -> str:
    flat = [name for row in names for name in row]
    rows = []
    for k in np.argsort(-bits, kind="stable")[:20]:
        before = "".join(spaced(flat[max(0, k - 4 * _CONTEXT) : k]))[-3 * _CONTEXT :]
        rows.append([_quoted(flat[k]), f"{bits[k]:.1f}", f"`{before}`".replace("\n", " ")])
    return examples_table(["token", "bits", "after"], rows)


def _quoted(name: str) -> str:
    return f"`{name}`"


def _text_figure(rows: dict[str, np.ndarray], tokens: list[str]):
    """The first lines of a text once for each row of values, colored by them."""
    lines: list[list[tuple[str, int]]] = [[]]
    for k, token in enumerate(tokens):
        for character in token:
            if character != "\n":
                lines[-1].append((character, k))
            if character == "\n" or len(lines[-1]) == _WIDTH:
                lines.append([])
        if len(lines) > _LINES:
            break
    lines = [line for line in lines[:_LINES] if line]
    figure = matplotlib.figure.Figure(
        figsize=(10, (0.7 + 0.22 * len(lines)) * len(rows)), layout="constrained"
    )
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (title, values) in zip(panels, rows.items(), strict=True):
        grid = np.full((len(lines), _WIDTH), np.nan)
        for y, line in enumerate(lines):
            for x, (character, k) in enumerate(line):
                grid[y, x] = values[k]
                # A dollar sign would start a formula.
                shown = character.replace("$", r"\$")
                axes.text(x, y, shown, ha="center", va="center", family="monospace", fontsize=7)
        axes.imshow(grid, cmap="coolwarm" if values.min() < 0 else "Reds", aspect="auto", alpha=0.7)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure
