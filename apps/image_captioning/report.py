"""What the captions get wrong, and a result as an image."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Report, Trained
from unroll.apps.core.results import markdown_table
from unroll.apps.image_captioning import metrics
from unroll.apps.image_captioning.metrics import Caption, Predictions
from unroll.apps.shared import images
from unroll.apps.shared.reports import (
    attention_figure,
    confusion_figure,
    examples_table,
    per_class_table,
)

_COLUMNS = 6  # images side by side, at most
_SHOWN = 10  # captions in a table


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The figures by length, the best and worst captions, words that are never written.

    The images of the best and worst captions are a figure, if the model reads pixels.
    """
    found = metrics.predictions(trained, dataset)
    scores = metrics.cider_of_each(found.captions, found.references)
    order = sorted(range(len(scores)), key=scores.__getitem__)
    worst, best = _distinct(order, found.captions), _distinct(order[::-1], found.captions)
    text = [
        f"CIDEr-D of {np.mean(scores):.3f} for {len(scores):,} images, "
        f"{len(set(found.captions)):,} distinct captions.",
        f"## Figures by the length of the caption\n\n{_by_length(found, scores)}",
        f"## Captions with the lowest CIDEr-D\n\n{_examples(found, scores, worst)}",
        f"## Captions with the highest CIDEr-D\n\n{_examples(found, scores, best)}",
        f"## Frequent words that are never written\n\n{_never_written(found)}",
        f"## Most frequent captions\n\n{_frequent(found.captions)}",
    ]
    figures = {}
    if kind := metrics.CONTENT.get(trained.config.data):
        correct = metrics.correct_captions(found.captions, found.references, kind)
        text.append(f"## Correct captions\n\n{_by_number_of_things(found, correct)}")
    if found.frames is not None:
        names = np.array(trained.assets["frame_labels"])
        labels, predicted = names[found.frame_labels.ravel()], names[found.frames.ravel()]
        text.append(f"## Labels of frames\n\n{per_class_table(labels, predicted)}")
        figures["frames"] = confusion_figure(labels, predicted)
    if trained.assets["images"]["kind"] == "image":
        shown = worst[: 2 * _COLUMNS] + best[:_COLUMNS]
        pixels = _pixels(dataset, set(shown))
        cells = [(_title(found.captions[i], scores[i]), pixels[i], None) for i in shown]
        figures["images"] = images.sheet(
            [cells[k : k + _COLUMNS] for k in range(0, len(cells), _COLUMNS)]
        )
    return Report("\n\n".join(text), figures)


def _distinct(order: list[int], captions: list[Caption]) -> list[int]:
    """The first image of each caption, in the given order of the images."""
    first: dict[Caption, int] = {}
    for i in order:
        first.setdefault(captions[i], i)
    return list(first.values())


def _by_length(found: Predictions, scores: list[float]) -> str:
    lengths = np.array([len(caption) for caption in found.captions])
    # Lengths that occur, so that no row is empty.
    edges = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75], method="inverted_cdf"))
    rows = []
    for low, following in zip(edges, [*edges[1:], lengths.max() + 1], strict=True):
        of_bin = np.flatnonzero((lengths >= low) & (lengths < following))
        captions = [found.captions[i] for i in of_bin]
        bleu = metrics.bleu(captions, [found.references[i] for i in of_bin])
        score = np.mean([scores[i] for i in of_bin])
        words = f"{low}" if low == following - 1 else f"{low} to {following - 1}"
        rows.append([words, len(of_bin), f"{bleu[0]:.1f}", f"{bleu[3]:.1f}", f"{score:.2f}"])
    return markdown_table(["words", "captions", "BLEU-1", "BLEU-4", "CIDEr-D"], rows)


def _examples(found: Predictions, scores: list[float], order: list[int]) -> str:
    rows = [
        [
            f"{scores[i]:.2f}",
            " ".join(found.captions[i]),
            "<br>".join(" ".join(each) for each in found.references[i]),
        ]
        for i in order[:_SHOWN]
    ]
    return markdown_table(["CIDEr-D", "caption", "references"], rows)


def _never_written(found: Predictions) -> str:
    counts = Counter(word for of_image in found.references for each in of_image for word in each)
    written = {word for caption in found.captions for word in caption}
    missing = [(word, count) for word, count in counts.most_common() if word not in written]
    # In references, words that are not in the vocabulary are ids in brackets.
    known = [[word, f"{count:,}"] for word, count in missing if not word.startswith("[")]
    line = (
        f"{len(written):,} of {len(counts):,} words of the references are written; "
        f"{len(missing) - len(known):,} are not in the vocabulary.\n\n"
    )
    return line + examples_table(["word", "occurrences in references"], known)


def _frequent(captions: list[Caption]) -> str:
    rows = [[f"{n:,}", " ".join(caption)] for caption, n in Counter(captions).most_common(_SHOWN)]
    return markdown_table(["images", "caption"], rows)


def _by_number_of_things(found: Predictions, correct: list[bool]) -> str:
    counts: dict[int, list[bool]] = {}
    for of_image, each in zip(found.references, correct, strict=True):
        content = metrics.content(of_image[0], "things")
        counts.setdefault(len(content), []).append(each)
    rows = [[n, len(rows), f"{np.mean(rows):.3f}"] for n, rows in sorted(counts.items())]
    return markdown_table(["things in the reference", "images", "correct"], rows)


def _title(caption: Caption, score: float) -> str:
    lines, width = [f"{score:.2f}"], 0
    for word in caption:
        if not width or width + len(word) > 26:
            lines.append(word)
            width = len(word)
        else:
            lines[-1] += f" {word}"
            width += 1 + len(word)
    return "\n".join(lines)


def _pixels(dataset: tf.data.Dataset, indices: set[int]) -> dict[int, np.ndarray]:
    """The pixels of some images of a split; of clips, those of the middle frame."""
    found, first = {}, 0
    for features, _ in dataset:
        batch = features["image"].numpy()
        for i in indices & set(range(first, first + len(batch))):
            pixels = batch[i - first]
            found[i] = (pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels).astype("uint8")
        first += len(batch)
    return found


def plot(result: dict, path: Path) -> None:
    """The image, and the image under the attention of each word of the best caption.

    The image is gray if the result does not name its file. The attention over regions or the frames
    of a clip is a heat map, with a row per word. Without attention, the image is shown with the
    captions.
    """
    words = [word for word in result["words"][0] if word]
    weights = np.array(result["attention"][0][: len(words)]) if "attention" in result else None
    if weights is not None and weights.ndim == 2:
        frames = result.get("frames")
        label = "frame" if frames else "region or frame"
        figure = attention_figure(weights, words, frames, label)
    else:
        gray = np.full((64, 64, 3), 127, "uint8")
        pixels = images.pixels_of(result["image"]) if "image" in result else gray
        if weights is None:
            figure = images.sheet([[("\n".join(result["captions"]), pixels, None)]], size=4)
        else:
            cells = [("", pixels, None)]
            cells += [(word, pixels, each) for word, each in zip(words, weights, strict=True)]
            columns = math.ceil(len(cells) / math.ceil(len(cells) / _COLUMNS))  # equal rows
            rows = [cells[k : k + columns] for k in range(0, len(cells), columns)]
            figure = images.sheet(rows)
    images.save(figure, path)
