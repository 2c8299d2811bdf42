"""Untrained models of the caption app, and folders of scenes with captions."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Trained
from unroll.apps.image_captioning import app
from unroll.pipelines.captions import SPECIAL_TOKENS
from unroll.pipelines.datasets.vision import scenes, scenes_captions

VOCABULARY = [*SPECIAL_TOKENS, "a", "red", "ring", "blue", "above"]
SMALL = {
    **{"image_size": 16, "filters": 4, "stages": 2, "units": 6, "embedding_dim": 5},
    **{"max_length": 6, "num_return_sequences": 2, "length_penalty": 0.6},
}


def make(**options) -> Trained:
    """A model with random weights."""
    keras.utils.set_random_seed(1)
    chosen = app.Config(**{**SMALL, **options})
    frames = [chosen.frames] if chosen.frames else []
    spec = {"kind": "image", "shape": [*frames, 16, 16, 3]}
    assets = {
        "vocabulary": VOCABULARY,
        "images": {"kind": "regions", "shape": [None, 6]} if chosen.regions else spec,
    }
    if chosen.frames:
        assets["frame_labels"] = ["left", "still"]
    model = app.build(chosen, assets)
    # Random biases too: biases of zero would hide errors.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(chosen, assets, model)


def write_folder(folder: Path, sizes: dict[str, int], make_things) -> Path:
    """A folder of rendered scenes, with captions in `<name>.tsv`."""
    for name, number in sizes.items():
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            things, captions = make_things(k, rng)
            pixels = scenes.render(things, rng)
            (folder / f"{name}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            captions = captions or scenes_captions.captions(things, rng)
            lines += [f"{name}{k}.png\t{caption}\n" for caption in captions]
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder
