"""Captions of a split and their figures: BLEU, CIDEr-D, and what is correct in generated scenes."""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from sacrebleu.metrics import BLEU

from unroll.apps.core.protocol import Data, Trained
from unroll.apps.image_captioning import serving
from unroll.pipelines.captions import END, PADDING
from unroll.pipelines.datasets.vision import scenes

# `score` also reports the BLEU-4 of beam searches of these widths.
BEAM_WIDTHS = (1, 3, 5)
# What a caption of a generated dataset must name to be correct: the things, or also their moves.
CONTENT = {"scenes_captions": "things", "scenes_clips": "moves"}
_THUMBNAIL = 16  # pixels: the size at which the baseline compares images

# A caption is a tuple of words.
Caption = tuple[str, ...]


@dataclass(frozen=True)
class Predictions:
    """The captions that a model writes for a split, and the references.

    Attributes:
        captions: of the search of the configuration, one for each of N images.
        references: all references of each image.
        by_beam_width: captions of other beam searches, by width.
        frames: ids of the predicted labels of the frames of clips, `[N, F]`, if frames are labeled.
        frame_labels: ids of their correct labels, `[N, F]`.
    """

    captions: list[Caption]
    references: list[list[Caption]]
    by_beam_width: dict[int, list[Caption]] = field(default_factory=dict)
    frames: np.ndarray | None = None
    frame_labels: np.ndarray | None = None


def predictions(
    trained: Trained, dataset: tf.data.Dataset, beam_widths: tuple[int, ...] = ()
) -> Predictions:
    """The captions of a split, in one graph for all searches."""
    start = serving.decoding(trained)

    @tf.function(reduce_retracing=True, autograph=False)
    def write(inputs) -> tuple:
        step_function, states, encoded = start(inputs)
        results = [
            serving.search(step_function, states, trained.config),
            *(serving.beam_search(step_function, states, trained.config, k) for k in beam_widths),
        ]
        frames = tf.argmax(encoded["frames"], axis=-1) if "frames" in encoded else ()
        return [(each.tokens[:, 0], each.lengths[:, 0]) for each in results], frames

    words = dict(enumerate(trained.assets["vocabulary"]))
    captions: list[list[Caption]] = [[] for _ in range(1 + len(beam_widths))]
    references, frames, frame_labels = [], [], []
    for features, labels in dataset:
        results, batch_frames = write(features[trained.assets["images"]["kind"]])
        for rows, (tokens, lengths) in zip(captions, results, strict=True):
            for row, length in zip(tokens.numpy(), lengths.numpy(), strict=True):
                rows.append(_words(row[:length].tolist(), words))
        if isinstance(labels, dict):
            frames.append(batch_frames.numpy())
            frame_labels.append(labels["frames"].numpy())
        for each in references_of(_caption_labels(labels)):
            references.append([_words(reference, words) for reference in each])
    return Predictions(
        captions[0],
        references,
        dict(zip(beam_widths, captions[1:], strict=True)),
        np.concatenate(frames) if frames else None,
        np.concatenate(frame_labels) if frames else None,
    )


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The figures of a split."""
    found = predictions(trained, dataset, BEAM_WIDTHS)
    result = {"examples": len(found.references), **figures(found.captions, found.references)}
    for width, captions in found.by_beam_width.items():
        result[f"bleu_4_beam_{width}"] = bleu(captions, found.references)[3]
    if kind := CONTENT.get(trained.config.data):
        correct = correct_captions(found.captions, found.references, kind)
        result["caption_accuracy"] = float(np.mean(correct))
    if found.frames is not None:
        result["frame_accuracy"] = float(np.mean(found.frames == found.frame_labels))
    return result


def references_of(labels: np.ndarray) -> list[list[tuple[int, ...]]]:
    """The references of each image as ids, from labels `[P, C, T]`."""
    return [
        [
            tuple(i for i in caption.tolist() if i not in (PADDING, END))
            for caption in captions
            if caption.any()
        ]
        for captions in labels
    ]


def _caption_labels(labels) -> np.ndarray:
    return (labels["captions"] if isinstance(labels, dict) else labels).numpy()


def _words(ids: tuple[int, ...] | list[int], words: dict[int, str]) -> Caption:
    # Different words that are not in the vocabulary stay different.
    return tuple(words.get(i, f"[{i}]") for i in ids)


def figures(captions: list[Caption], references: list[list[Caption]]) -> dict:
    """`bleu_1` to `bleu_4`, `cider`, the share of distinct captions, and their mean length."""
    result = {f"bleu_{n}": value for n, value in enumerate(bleu(captions, references), start=1)}
    result["cider"] = cider(captions, references)
    result["distinct"] = len(set(captions)) / len(captions)
    result["mean_length"] = float(np.mean([len(caption) for caption in captions]))
    return result


def bleu(captions: list[Caption], references: list[list[Caption]]) -> list[float]:
    """BLEU-1 to BLEU-4 in percent: sacreBLEU without tokenization and smoothing.

    As in the published evaluation of COCO captions, counts are clipped by the reference that has an
    n-gram most often, and the brevity penalty uses the reference of the closest length.
    """
    most = max(map(len, references))
    streams = [
        [" ".join(each[k]) if k < len(each) else None for each in references] for k in range(most)
    ]
    texts = [" ".join(caption) for caption in captions]
    return [
        BLEU(max_ngram_order=n, tokenize="none", smooth_method="none")
        .corpus_score(texts, streams)
        .score
        for n in (1, 2, 3, 4)
    ]


def cider(captions: list[Caption], references: list[list[Caption]]) -> float:
    """CIDEr-D of a split: the mean of `cider_of_each`."""
    return sum(cider_of_each(captions, references)) / len(references)


def cider_of_each(captions: list[Caption], references: list[list[Caption]]) -> list[float]:
    """CIDEr-D of each caption (Vedantam, Zitnick and Parikh 2015, section 5, with sigma 6).

    Document frequencies are those of the references of the split, as in the published evaluation.
    A score is 10 times the mean over n-grams of 1 to 4 words.
    """
    frequencies = Counter(
        ngram
        for each in references
        for ngram in {ngram for reference in each for ngram in _ngrams(reference)}
    )

    def tf_idf(caption: Caption) -> list[dict]:
        vectors: list[dict] = [{} for _ in range(4)]
        for ngram, count in _ngrams(caption).items():
            idf = math.log(len(references)) - math.log(max(1, frequencies[ngram]))
            vectors[len(ngram) - 1][ngram] = count * idf
        return vectors

    scores = []
    for caption, of_image in zip(captions, references, strict=True):
        vectors, total = tf_idf(caption), 0.0
        for reference in of_image:
            penalty = math.exp(-((len(caption) - len(reference)) ** 2) / (2 * 6.0**2))
            similarity = sum(map(_clipped_cosine, vectors, tf_idf(reference)))
            total += penalty * similarity / len(of_image)
        scores.append(10 * total / 4)
    return scores


def _ngrams(words: Caption) -> Counter:
    return Counter(words[k : k + n] for n in (1, 2, 3, 4) for k in range(len(words) - n + 1))


def _clipped_cosine(caption: dict, reference: dict) -> float:
    """The cosine of two vectors, with the elements of the first clipped by those of the second."""
    norms = [math.sqrt(sum(x * x for x in each.values())) for each in (caption, reference)]
    if not all(norms):
        return 0.0
    clipped = (min(x, y) * y for ngram, x in caption.items() if (y := reference.get(ngram, 0)))
    return sum(clipped) / math.prod(norms)


_THING = re.compile(rf"({'|'.join(scenes.COLORS)}) ({'|'.join(scenes.SHAPES)})\b")
_DIRECTION = re.compile(r"\b(left|right|up|down)\b")


def content(caption: Caption, kind: str) -> tuple:
    """What a caption of a generated scene says, in any wording.

    Args:
        caption: its words.
        kind: `things` (colors and shapes, in any order), or `moves` (the things that move and
            their directions, in order).

    >>> content(("a", "red", "ring", "above", "a", "blue", "cross"), "things")
    (('blue', 'cross'), ('red', 'ring'))
    """
    text = " ".join(caption)
    things = tuple(_THING.findall(text))
    return tuple(sorted(things)) if kind == "things" else (things, tuple(_DIRECTION.findall(text)))


def correct_captions(
    captions: list[Caption], references: list[list[Caption]], kind: str
) -> list[bool]:
    """Whether the content of each caption is that of one of its references."""
    return [
        content(caption, kind) in [content(each, kind) for each in of_image]
        for caption, of_image in zip(captions, references, strict=True)
    ]


def baseline(data: Data, split: str) -> dict:
    """Figures of the most frequent caption, and of the captions of the most similar images."""
    counts, thumbnails, first_captions = Counter(), [], []
    for features, labels in data["train"]:
        references = references_of(_caption_labels(labels))
        counts.update(caption for of_image in references for caption in of_image)
        first_captions += [of_image[0] for of_image in references]
        thumbnails.append(_thumbnails(features))
    words = dict(enumerate(data.assets["vocabulary"]))
    known = np.concatenate(thumbnails)
    most_frequent = max(counts, key=lambda caption: (counts[caption], caption))
    nearest, references = [], []
    for features, labels in data[split]:
        for each in _thumbnails(features):
            index = int(((known - each) ** 2).sum(-1).argmin())
            nearest.append(_words(first_captions[index], words))
        for of_image in references_of(_caption_labels(labels)):
            references.append([_words(each, words) for each in of_image])
    constant = bleu([_words(most_frequent, words)] * len(references), references)
    retrieved = bleu(nearest, references)
    return {
        "what": "most frequent caption; nearest: caption of the most similar training image",
        "bleu_1": constant[0],
        "bleu_4": constant[3],
        "nearest_bleu_1": retrieved[0],
        "nearest_bleu_4": retrieved[3],
    }


def _thumbnails(features: dict) -> np.ndarray:
    """Small images as vectors. Frames of a clip are averaged, and so are regions."""
    if "regions" in features:
        regions = features["regions"]
        return tf.reduce_mean(tf.reshape(regions, [len(regions), -1, regions.shape[-1]]), 1).numpy()
    pixels = features["image"]
    pixels = tf.reduce_mean(pixels, axis=1) if pixels.shape.rank == 5 else pixels
    small = tf.image.resize(pixels, [_THUMBNAIL, _THUMBNAIL], antialias=True)
    return tf.reshape(small, [len(small), -1]).numpy()
