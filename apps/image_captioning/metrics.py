"""Figures: BLEU and CIDEr-D against all references, what is said alike, what is right in scenes."""

import math
import re
from collections import Counter

import keras
import numpy as np
import tensorflow as tf
from sacrebleu.metrics import BLEU

from unroll.apps.core.protocol import Assets, Data, settings_of
from unroll.apps.image_captioning import serving
from unroll.pipelines.captions import END, PADDING
from unroll.pipelines.datasets.vision import scenes

BEAMS = (1, 3, 5)
# What captions of generated data tell, by which they are right or wrong as a whole.
TOLD = {"scenes_captions": "things", "scenes_clips": "moves"}
_SIDE = 16  # pixels, of the thumbnails by which pictures are compared

# A caption is a tuple of words.
Caption = tuple[str, ...]


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """All figures of a split. The main ones are of the search that the settings name."""
    settings, begin = settings_of(assets), serving.writer(model, assets)
    beams = (0, *BEAMS)  # 0: as the settings say

    @tf.function(reduce_retracing=True)
    def write(given) -> tuple:
        step, states, seen = begin(given)
        found = [serving.search(step, states, settings, beam) for beam in beams]
        frames = tf.argmax(seen["frames"], axis=-1) if "frames" in seen else ()
        return [(each.tokens[:, 0], each.lengths[:, 0]) for each in found], frames

    written = {beam: [] for beam in beams}
    references, right_frames = [], []
    for features, labels in dataset:
        found, frames = write(features[settings["kind"]])
        for beam, (tokens, lengths) in zip(beams, found, strict=True):
            written[beam] += [
                tuple(row[:n].tolist())
                for row, n in zip(tokens.numpy(), lengths.numpy(), strict=True)
            ]
        if isinstance(labels, dict):
            right_frames.append(frames.numpy() == labels["frames"].numpy())
            labels = labels["captions"]
        references += references_of(labels.numpy())
    names = dict(enumerate(assets["vocabulary"]))
    references = [[_words(each, names) for each in of] for of in references]
    written = {beam: [_words(each, names) for each in rows] for beam, rows in written.items()}
    result = {"examples": len(references), **figures(written[0], references)}
    for beam in BEAMS:
        result[f"bleu_4_beam_{beam}"] = bleu(written[beam], references)[3]
    if settings["told"]:
        right = [
            said(caption, settings["told"]) in [said(each, settings["told"]) for each in of]
            for caption, of in zip(written[0], references, strict=True)
        ]
        result[f"{settings['told']}_right"] = float(np.mean(right))
    if right_frames:
        result["frame_accuracy"] = float(np.mean(np.concatenate(right_frames)))
    return result


def references_of(labels: np.ndarray) -> list[list[tuple[int, ...]]]:
    """The captions of each picture, from labels `[P, C, T]`."""
    return [
        [tuple(k for k in row.tolist() if k not in (PADDING, END)) for row in of if row.any()]
        for of in labels
    ]


def _words(caption: tuple[int, ...], names: dict[int, str]) -> Caption:
    # A word that the vocabulary lacks is told apart from others by its number.
    return tuple(names.get(k, f"[{k}]") for k in caption)


def figures(written: list[Caption], references: list[list[Caption]]) -> dict:
    """`bleu_1` to `bleu_4`, `cider`, how many captions are distinct, and how long they are."""
    found = {f"bleu_{n}": value for n, value in enumerate(bleu(written, references), start=1)}
    found["cider"] = cider(written, references)
    found["distinct"] = len(set(written)) / len(written)
    found["words"] = float(np.mean([len(caption) for caption in written]))
    return found


def bleu(written: list[Caption], references: list[list[Caption]]) -> list[float]:
    """BLEU-1 to BLEU-4 in points: sacrebleu's, of words as they are, without smoothing.

    It clips by the reference that has an n-gram most often, and takes the length of the closest, as
    the published evaluation of COCO captions does.
    """
    most = max(map(len, references))
    streams = [[" ".join(of[k]) if k < len(of) else None for of in references] for k in range(most)]
    spoken = [" ".join(caption) for caption in written]
    return [
        BLEU(max_ngram_order=n, tokenize="none", smooth_method="none")
        .corpus_score(spoken, streams)
        .score
        for n in (1, 2, 3, 4)
    ]


def cider(written: list[Caption], references: list[list[Caption]]) -> float:
    """CIDEr-D (Vedantam, Zitnick and Parikh 2015, section 5, with sigma 6), of words as they are.

    How rare an n-gram is is counted in the references of the split, as the published evaluation
    does. It is ten times the mean over n of one to four.
    """
    seen = Counter(
        gram for of in references for gram in {gram for each in of for gram in _grams(each)}
    )

    def vector(caption: Caption) -> list[dict]:
        weighed = [{} for _ in range(4)]
        for gram, count in _grams(caption).items():
            rare = math.log(len(references)) - math.log(max(1, seen[gram]))
            weighed[len(gram) - 1][gram] = count * rare
        return weighed

    total = 0.0
    for caption, of in zip(written, references, strict=True):
        own = vector(caption)
        for each in of:
            penalty = math.exp(-((len(caption) - len(each)) ** 2) / (2 * 6.0**2))
            total += penalty * sum(map(_likeness, own, vector(each))) / len(of)
    return 10 * total / 4 / len(references)


def _grams(words: Caption) -> Counter:
    return Counter(words[k : k + n] for n in (1, 2, 3, 4) for k in range(len(words) - n + 1))


def _likeness(own: dict, other: dict) -> float:
    """The cosine of two vectors, the first of which counts for no more than the second."""
    norms = [math.sqrt(sum(x * x for x in each.values())) for each in (own, other)]
    if not all(norms):
        return 0.0
    return sum(min(x, other.get(g, 0)) * other.get(g, 0) for g, x in own.items()) / math.prod(norms)


_THING = re.compile(rf"({'|'.join(scenes.COLOURS)}) ({'|'.join(scenes.SHAPES)})\b")
_WAY = re.compile(r"\b(left|right|up|down)\b")


def said(caption: Caption, told: str) -> tuple:
    """What a caption says of a generated scene: its things, or what moves and where to, in order.

    >>> said(("a", "red", "ring", "above", "a", "blue", "cross"), "things")
    (('blue', 'cross'), ('red', 'ring'))
    """
    text = " ".join(caption)
    things = tuple(_THING.findall(text))
    return tuple(sorted(things)) if told == "things" else (things, tuple(_WAY.findall(text)))


def baseline(data: Data, split: str) -> dict:
    """What the most frequent caption scores, and the captions of the most similar pictures."""
    counts, thumbnails, firsts = Counter(), [], []
    for features, labels in data.train:
        of_each = references_of(_captions(labels))
        counts.update(caption for of in of_each for caption in of)
        firsts += [of[0] for of in of_each]
        thumbnails.append(_thumbnails(features))
    names = dict(enumerate(data.assets["vocabulary"]))
    known = np.concatenate(thumbnails)
    most = max(counts, key=lambda caption: (counts[caption], caption))
    nearest, references = [], []
    for features, labels in getattr(data, split):
        for each in _thumbnails(features):
            nearest.append(_words(firsts[int(((known - each) ** 2).sum(-1).argmin())], names))
        references += references_of(_captions(labels))
    references = [[_words(each, names) for each in of] for of in references]
    of_most = bleu([_words(most, names)] * len(references), references)
    of_nearest = bleu(nearest, references)
    return {
        "what": "the most frequent caption; nearest: that of the most similar training picture",
        "bleu_1": of_most[0],
        "bleu_4": of_most[3],
        "nearest_bleu_1": of_nearest[0],
        "nearest_bleu_4": of_nearest[3],
    }


def _captions(labels) -> np.ndarray:
    return (labels["captions"] if isinstance(labels, dict) else labels).numpy()


def _thumbnails(features: dict) -> np.ndarray:
    """Small pictures as vectors; of clips the mean of the frames, of regions their mean."""
    if "regions" in features:
        regions = features["regions"]
        return tf.reduce_mean(tf.reshape(regions, [len(regions), -1, regions.shape[-1]]), 1).numpy()
    pixels = features["image"]
    pixels = tf.reduce_mean(pixels, axis=1) if pixels.shape.rank == 5 else pixels
    small = tf.image.resize(pixels, [_SIDE, _SIDE], antialias=True)
    return tf.reshape(small, [len(small), -1]).numpy()
