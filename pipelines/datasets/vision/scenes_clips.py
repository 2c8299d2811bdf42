"""Generated captions of clips: drawn scenes in which one thing after another moves."""

import io
from dataclasses import replace

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.flickr8k import Captions, example
from unroll.pipelines.datasets.vision.scenes import Thing

CLIPS = {"train": 3000, "valid": 300, "test": 600}
FRAMES = 10
STILL = "still"
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_FAR = 22  # pixels that a thing moves
_MILLISECONDS = 120  # a frame is shown

Move = tuple[int, str]  # which thing, and which way


class ScenesClips(Captions, skip_registration=True):
    """Five captions each to 3,000 / 300 / 600 clips of ten frames, and what happens in each frame.

    One thing moves left, right, up or down, and then another one, or the same one again; one or two
    more stand by. A caption tells what moves, where to, and in which order; a frame is labelled
    with the way that something goes in it, or `still`. In the validation and the test split things
    have colours and shapes that no other split has together. No single frame tells the order.
    """

    FEATURES = Captions.FEATURES | {"frames": tfds.features.Sequence(tf.string)}

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, number) for split, number in CLIPS.items()}

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"clips {split}")])
            things = scenes.draw(rng, split, int(rng.integers(2, 4)))
            moves = draw_moves(things, rng)
            pictures, labels = film(things, moves, rng)
            told = example(f"{split}_{k}", encode_gif(pictures), captions(things, moves, rng))
            yield k, told | {"frames": labels}


def draw_moves(things: list[Thing], rng: np.random.Generator) -> list[Move]:
    """Two moves that stay in the picture, not of one thing there and back."""
    while True:
        found, now = [], list(things)
        for _ in range(2):
            k, way = int(rng.integers(len(things))), str(rng.choice(list(_WAYS)))
            now[k] = _moved(now[k], way, 1.0)
            found.append((k, way))
        places = [(place, thing.radius) for thing in now for place in (thing.x, thing.y)]
        inside = all(radius < place < scenes.SIDE - radius for place, radius in places)
        if inside and now != things:
            return found


def _moved(thing: Thing, way: str, share: float) -> Thing:
    dx, dy = _WAYS[way]
    return replace(thing, x=thing.x + share * _FAR * dx, y=thing.y + share * _FAR * dy)


def film(
    things: list[Thing], moves: list[Move], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str]]:
    """The frames, `[64, 64, 3]` each, and what happens in each of them."""
    seed, now = int(rng.integers(2**31)), list(things)
    # When each move begins: the clip begins, and may end and pause, with frames that stand still.
    first = int(rng.integers(1, 3))
    starts = (first, first + 3 + int(rng.integers(0, 2)))
    pictures, labels = [], []
    for frame in range(FRAMES):
        label = STILL
        for (k, way), start in zip(moves, starts, strict=True):
            if start <= frame < start + 3:
                now[k], label = _moved(now[k], way, 1 / 3), way
        labels.append(label)
        # The same ground and colours in each, and noise of its own: Pillow leaves out a frame that
        # is like the one before it.
        pictures.append(scenes.render(now, np.random.default_rng(seed), noise=rng))
    return pictures, labels


def encode_gif(pictures: list[np.ndarray]) -> bytes:
    """An animated GIF of frames `[H, W, 3]`, uint8."""
    # One palette for all: to choose one for each takes several times as long.
    palette = Image.fromarray(np.concatenate(pictures)).quantize(256)
    no_dither = {"palette": palette, "dither": Image.Dither.NONE}
    first, *others = (Image.fromarray(picture).quantize(**no_dither) for picture in pictures)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
    return file.getvalue()


def captions(things: list[Thing], moves: list[Move], rng: np.random.Generator) -> list[str]:
    """Five captions of a clip, each worded in another way."""
    (a, x), (b, y) = ((f"{things[k].colour} {things[k].shape}", way) for k, way in moves)
    worded = [
        f"the {a} moves {x} , then the {b} moves {y}",
        f"first the {a} goes {x} and then the {b} goes {y}",
        f"a {a} that moves {x} before a {b} moves {y}",
        f"after the {a} has gone {x} the {b} goes {y}",
        f"{x} moves the {a} and {y} moves the {b}",
    ]
    return [worded[k] for k in rng.permutation(len(worded))]
