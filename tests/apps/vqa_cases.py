"""Untrained models of the question app, and a folder of questions that can be learned."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Trained
from unroll.apps.shared import images
from unroll.apps.vqa import app
from unroll.pipelines.datasets.vision import scenes

VOCABULARY = ["[PAD]", "[UNK]", "what", "is", "it", "red", "?", "yes", "no"]
SMALL = {
    **{"image_size": 16, "filters": 4, "stages": 2},
    **{"units": 6, "embedding_dim": 5, "fusion_units": 8},
}


def photos() -> tuple[bytes, bytes]:
    """Two different images."""
    first, _, second, _ = (contents for contents, _ in app.examples())
    return first, second


def assets_of(regions="", image="attention", **_) -> dict:
    spec = {"kind": "image", "shape": [16, 16, 3]}
    if image == "none":
        spec = images.NO_IMAGES
    elif regions:
        spec = {"kind": "regions", "shape": [None, 6]}
    return {
        "vocabulary": VOCABULARY,
        "answers": ["yes", "no", "red"],
        "question_types": ["is it", "what is"],
        "images": spec,
    }


def make(**options) -> Trained:
    """A model with random weights."""
    keras.utils.set_random_seed(1)
    config, assets = app.Config(**SMALL, **options), assets_of(**options)
    model = app.build(config, assets)
    # Away from the initial values, where a bias of zero hides a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(config, assets, model)


def write_questions(folder: Path, sizes: dict[str, int], side: int = 64) -> Path:
    """Scenes with one circle, whose color and presence of red are the questions."""
    for split, number in sizes.items():
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            color = ("red", "blue", "white")[k % 3]
            [thing] = scenes.sample(rng, "train", 1, ((color, "circle"),))
            pixels = scenes.render([thing], rng)
            if side < scenes.SIDE:
                pixels = np.asarray(tf.image.resize(pixels, [side, side])).astype("uint8")
            (folder / f"{split}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            lines += [
                f"{split}{k}.png\twhat color is the circle ?\t{color}\n",
                f"{split}{k}.png\tis there a red thing ?\t{'yes' if k % 3 == 0 else 'no'}\n",
            ]
        (folder / f"{split}.tsv").write_text("".join(lines))
    return folder
