"""What word vectors answer wrong, maps of words, and files for TensorBoard's projector."""

import matplotlib.figure
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.shared.reports import examples_table
from unroll.apps.word_vectors import files, metrics
from unroll.pipelines import text as texts
from unroll.pipelines.word_questions import Section

_PANELS = 6  # sections in the figure of analogies
_PAIRS = 12  # of a section
_OF_MAP = 200  # words
_SKIPPED = 0.1  # of the vocabulary: the most frequent words, at most _MOST_SKIPPED
_MOST_SKIPPED = 150


def report(trained: Trained, sections: list[Section], dataset: tf.data.Dataset) -> Report:
    """Tables by section, the wrong answers, and maps of the vectors in two dimensions."""
    matrix = np.asarray(trained.model.matrix())
    vocabulary = trained.assets["vocabulary"]
    found = metrics.answers(matrix, sections, dataset)
    analogies = [each for each in found if each.is_analogies]
    rated = [each for each in found if not each.is_analogies]
    parts = [f"{len(vocabulary) - texts.UNKNOWN - 1:,} words, {matrix.shape[1]} values each."]
    figures = {"map": _map(matrix, vocabulary)}
    if analogies:
        parts.append(_analogies(analogies, vocabulary))
        if panels := [each for each in analogies if each.known.any()]:
            figures["analogies"] = _pairs(panels[:_PANELS], matrix, vocabulary)
    if rated:
        parts.append(_similarities(rated, vocabulary))
    projector = files.projector(trained)
    return Report(
        "\n\n".join(parts), figures, {f"projector/{name}": c for name, c in projector.items()}
    )


def _analogies(found: list[metrics.Answers], vocabulary: list[str]) -> str:
    body, rows = [], []
    for each in found:
        share = f"{each.is_right.mean():.1%}" if len(each.is_right) else ""
        counts = [f"{len(each.words):,}", f"{(~each.known).sum():,}"]
        body.append([each.section, *counts, share])
        for words, answer in zip(each.words[each.known], each.found, strict=True):
            if answer != words[3]:
                a, b, c, d = (vocabulary[k] for k in words)
                rows.append([each.section, f"{a} : {b} = {c} : ?", vocabulary[answer], d])
    # Some of each section.
    rng = np.random.default_rng(0)
    rows = [rows[k] for k in rng.permutation(len(rows))]
    table = markdown_table(["section", "questions", "with unknown words", "right"], body)
    wrong = examples_table(["section", "analogy", "answer", "right"], rows)
    return f"## Analogies\n\n{table}\n\n### Wrong answers\n\n{wrong}"


def _similarities(found: list[metrics.Answers], vocabulary: list[str]) -> str:
    body, rows = [], []
    for each in found:
        figures = metrics.figures([each])
        correlation = [f"{v:.3f}" for k, v in figures.items() if isinstance(v, float)]
        counts = [f"{len(each.words):,}", f"{(~each.known).sum():,}"]
        body.append([each.section, *counts, *(correlation or [""])])
        if len(each.found) < 2:
            continue
        # Ranks from 0, the least similar, to 1.
        ranks, rated = (
            np.argsort(np.argsort(values)) / (len(values) - 1)
            for values in (each.found, each.ratings)
        )
        for words, own, other in zip(each.words[each.known], ranks, rated, strict=True):
            names = " ".join(vocabulary[k] for k in words)
            rows.append([abs(own - other), each.section, names, f"{other:.2f}", f"{own:.2f}"])
    rows = [row[1:] for row in sorted(rows, key=lambda row: -row[0])]
    table = markdown_table(["section", "pairs", "with unknown words", "Spearman"], body)
    heads = ["section", "pair", "rank of the rating", "rank of the cosine"]
    return (
        f"## Similarities\n\n{table}\n\n### Largest differences\n\nA rank of 1 is the most similar "
        f"pair of a section.\n\n{examples_table(heads, rows)}"
    )


def _pairs(found: list[metrics.Answers], matrix: np.ndarray, vocabulary: list[str]):
    """The pairs of sections in the plane of their two first principal components."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure = matplotlib.figure.Figure(figsize=(5 * columns, 4.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, each in zip(panels, found, strict=False):
        words = each.words[each.known]
        pairs = np.unique(np.concatenate([words[:, :2], words[:, 2:]]), axis=0)
        pairs = pairs[np.linspace(0, len(pairs) - 1, min(_PAIRS, len(pairs))).astype(int)]
        points = PCA(2).fit_transform(_unit(matrix[pairs.ravel()])).reshape(-1, 2, 2)
        for (first, second), ends in zip(pairs, points, strict=True):
            axes.plot(*ends.T, color="tab:gray", linewidth=0.7)
            for word, (x, y), color in zip(
                (first, second), ends, ("tab:blue", "tab:red"), strict=True
            ):
                axes.annotate(vocabulary[word], (x, y), color=color, fontsize=8, parse_math=False)
        axes.set_title(each.section, fontsize=10, parse_math=False)
    return figure


def _map(matrix: np.ndarray, vocabulary: list[str]):
    """Frequent words, without the most frequent ones, in two dimensions (t-SNE)."""
    skipped = min(int(_SKIPPED * len(vocabulary)), _MOST_SKIPPED)
    first = texts.UNKNOWN + 1 + skipped
    words = vocabulary[first : first + _OF_MAP]
    vectors = _unit(matrix[first : first + _OF_MAP])
    figure = matplotlib.figure.Figure(figsize=(14, 10), layout="constrained")
    axes = figure.subplots()
    perplexity = max(1.0, min(15.0, (len(words) - 1) / 3))
    projection = TSNE(perplexity=perplexity, max_iter=500, init="pca", random_state=0)
    points = projection.fit_transform(vectors)
    axes.scatter(*points.T, s=3, color="tab:gray")
    for word, point in zip(words, points, strict=True):
        axes.annotate(word, point, fontsize=7, parse_math=False)
    axes.set_axis_off()
    axes.set_title("frequent words, t-SNE", fontsize=10)
    return figure


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
