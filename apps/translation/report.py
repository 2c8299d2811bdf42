"""What the translations get wrong, and a result as an image."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import tensorflow as tf
from sacrebleu.metrics import CHRF

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.shared import images
from unroll.apps.shared.reports import attention_figure, examples_table
from unroll.apps.translation import metrics, scoring
from unroll.apps.translation.metrics import Texts
from unroll.apps.translation.scoring import Predictions
from unroll.pipelines.translation import JOINER

_SHOWN = 15  # sentences in a table
_FIGURES = 4  # sentences whose attention is drawn
# The total attention that a piece of the source gets, below and above which it is listed.
_LEAST, _MOST = 0.2, 2.0


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The figures by length and unknown words, the worst sentences, pieces by their attention."""
    found = scoring.predictions(trained, dataset, details=True)
    chrf = _chrf_of_each(found)
    order = np.argsort(chrf, kind="stable")
    lengths = np.array([len(pieces) for pieces in found.sources])
    coverage = [weights.sum(axis=0) for weights in found.alignments]
    text = [
        f"Mean chrF of {chrf.mean():.1f} for {len(chrf):,} sources.",
        f"## Figures by the length of the source\n\n{_by_bin(found, lengths, 'tokens')}",
        "## Figures by the number of unknown tokens of the source\n\n"
        f"{_by_value(found, found.unknown, 'unknown tokens')}",
        f"## The worst translations\n\n{_examples(found, chrf, order)}",
        "## Lengths\n\nThe number of tokens of a translation, divided by that of the source, is "
        f"{_ratio(found):.2f} on average.",
        f"## Tokens that get little attention\n\nTokens of sources whose total attention weight "
        f"is below {_LEAST}: they may be missing in the translation.\n\n"
        f"{_by_coverage(found, coverage, -1)}",
        f"## Tokens that get much attention\n\nTokens of sources whose total attention weight is "
        f"above {_MOST}: they may be translated twice.\n\n{_by_coverage(found, coverage, 1)}",
    ]
    return Report("\n\n".join(text), {"attention": _attention(found, order)})


def _chrf_of_each(found: Predictions) -> np.ndarray:
    """chrF of each translation with the references of its source, `[N]`."""
    references, metric = found.texts.references(), CHRF()
    scores = [
        metric.sentence_score(output, references[context]).score
        for output, context in zip(found.outputs, found.texts.contexts(), strict=True)
    ]
    return np.array(scores)


def _of(found: Predictions, rows: np.ndarray) -> list[str]:
    """The figures of some examples as the cells of `_HEADS`."""
    texts = Texts(
        *([own[k] for k in rows] for own in (found.texts.sources, found.texts.targets)),
        [found.texts.histories[k] for k in rows],
    )
    figures = metrics.translation_figures(texts, [found.outputs[k] for k in rows])
    perplexity = np.exp(found.nats[rows].sum() / found.tokens[rows].sum())
    cells = [figures[name] for name in ("bleu", "chrf", "exact_match")]
    return [f"{len(rows):,}", *(f"{x:.1f}" for x in cells), f"{perplexity:.2f}"]


_HEADS = ["sources", "BLEU", "chrF", "exact match", "perplexity"]


def _by_bin(found: Predictions, values: np.ndarray, what: str) -> str:
    # Values that occur, so that no row is empty.
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75], method="inverted_cdf"))
    rows = []
    for low, following in zip(edges, [*edges[1:], values.max() + 1], strict=True):
        name = f"{low}" if low == following - 1 else f"{low} to {following - 1}"
        own = np.flatnonzero((values >= low) & (values < following))
        rows.append([name, *_of(found, own)])
    return markdown_table([what, *_HEADS], rows)


def _by_value(found: Predictions, values: np.ndarray, what: str) -> str:
    rows = [
        [str(value), *_of(found, np.flatnonzero(values == value))] for value in np.unique(values)
    ]
    return markdown_table([what, *_HEADS], rows[:_SHOWN])


def _examples(found: Predictions, chrf: np.ndarray, order: np.ndarray) -> str:
    rows = [
        [
            f"{chrf[k]:.0f}",
            "<br>".join([*found.texts.histories[k], found.texts.sources[k]]),
            found.outputs[k],
            found.texts.targets[k],
        ]
        for k in order[:_SHOWN]
    ]
    return markdown_table(["chrF", "source", "translation", "reference"], rows)


def _ratio(found: Predictions) -> float:
    written, read = (sum(map(len, each)) for each in (found.pieces, found.sources))
    # Without the end, which a source has, too.
    return written / max(read - len(found.sources), 1)


def _by_coverage(found: Predictions, coverage: list[np.ndarray], sign: int) -> str:
    """The tokens of sources with the least (-1) or most (1) attention, the most extreme first."""
    rows = []
    for k, (pieces, totals) in enumerate(zip(found.sources, coverage, strict=True)):
        for piece, total in zip(pieces[:-1], totals, strict=False):
            if total < _LEAST if sign < 0 else total > _MOST:
                rows.append([total, piece, k])
    rows.sort(key=lambda row: -sign * row[0])
    count = sum(len(pieces) - 1 for pieces in found.sources)
    table = examples_table(
        ["attention", "token", "source", "translation"],
        [
            [f"{total:.2f}", f"`{piece}`", found.texts.sources[k], found.outputs[k]]
            for total, piece, k in rows
        ],
        _SHOWN,
    )
    return f"{len(rows):,} of {count:,} tokens.\n\n{table}"


def _attention(found: Predictions, order: np.ndarray):
    """A figure of the attention of the worst translations that have pieces, one below the other."""
    shown = [k for k in order if found.pieces[k]][:_FIGURES]
    heights = [1.5 + 0.25 * len(found.pieces[k]) for k in shown] or [1.0]
    figure = matplotlib.figure.Figure(figsize=(8, sum(heights)), layout="constrained")
    if not shown:
        return figure
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, k in zip(panels, shown, strict=True):
        pieces, source = _shown(found.pieces[k]), _shown(found.sources[k])
        axes.imshow(found.alignments[k], cmap="inferno", aspect="auto", vmin=0)
        axes.set_yticks(range(len(pieces)), pieces, parse_math=False, fontsize=7)
        axes.set_xticks(
            range(len(source)), source, rotation=45, ha="right", parse_math=False, fontsize=7
        )
    return figure


def _shown(pieces: list[str]) -> list[str]:
    """Pieces without joiners, which few fonts have."""
    return [piece.replace(JOINER, "") for piece in pieces]


def plot(result: dict, path: Path) -> None:
    """The alignment of the best translation: the attention of each of its tokens, a row each."""
    source, pieces = _shown(result["source_pieces"]), _shown(result["pieces"][0])
    weights = np.array(result["alignment"][0]).reshape(len(pieces), len(source))
    if not pieces:  # an image needs a row
        pieces, weights = [""], np.zeros([1, len(source)])
    figure = attention_figure(weights, pieces, source, "source")
    images.save(figure, path)
