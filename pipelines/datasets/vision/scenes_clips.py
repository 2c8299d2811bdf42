"""Generated captions of clips: rendered scenes in which one thing moves after another."""

import io
from dataclasses import replace

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.base import Captions, caption_example
from unroll.pipelines.datasets.vision.scenes import Thing

CLIPS = {"train": 3000, "valid": 300, "test": 600}
FRAMES = 10
STILL = "still"
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_DISTANCE = 22  # pixels that a thing moves
_FRAME_DURATION = 120  # ms

Move = tuple[int, str]  # the index of the thing, and the direction


class ScenesClips(Generated, Captions, skip_registration=True):
    """Five captions each of 3,000 / 300 / 600 clips of ten frames, and a label of each frame.

    A scene has two or three things. One moves left, right, up or down, then another one or the same
    one again. A caption names the things that move, their directions and the order. The label of a
    frame is the direction of the movement in it, or `still`. Things of the validation and test
    splits have combinations of color and shape that no other split has. No single frame shows the
    order.
    """

    SIZES = CLIPS
    FEATURES = Captions.FEATURES | {"frames": tfds.features.Sequence(tf.string)}

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, number) for split, number in self.sizes.items()
        }

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"clips {split}")])
            things = scenes.sample(rng, split, int(rng.integers(2, 4)))
            moves = sample_moves(things, rng)
            frames, labels = render(things, moves, rng)
            name, contents = f"{split}_{k}", encode_gif(frames)
            example = caption_example(name, contents, captions(things, moves, rng))
            yield k, example | {"frames": labels}


def sample_moves(things: list[Thing], rng: np.random.Generator) -> list[Move]:
    """Two moves that stay inside the image. The second one does not undo the first."""
    while True:
        moves, current = [], list(things)
        for _ in range(2):
            k, direction = int(rng.integers(len(things))), str(rng.choice(list(_DIRECTIONS)))
            current[k] = _moved(current[k], direction, 1.0)
            moves.append((k, direction))
        centers = [(center, thing.radius) for thing in current for center in (thing.x, thing.y)]
        inside = all(radius < center < scenes.SIDE - radius for center, radius in centers)
        if inside and current != things:
            return moves


def _moved(thing: Thing, direction: str, fraction: float) -> Thing:
    dx, dy = _DIRECTIONS[direction]
    distance = fraction * _DISTANCE
    return replace(thing, x=thing.x + distance * dx, y=thing.y + distance * dy)


def render(
    things: list[Thing], moves: list[Move], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str]]:
    """The frames, `[64, 64, 3]` each, and their labels."""
    seed, current = int(rng.integers(2**31)), list(things)
    # The first frames of the two moves. Before, and sometimes between and after, nothing moves.
    first = int(rng.integers(1, 3))
    starts = (first, first + 3 + int(rng.integers(0, 2)))
    frames, labels = [], []
    for frame in range(FRAMES):
        label = STILL
        for (k, direction), start in zip(moves, starts, strict=True):
            if start <= frame < start + 3:
                current[k], label = _moved(current[k], direction, 1 / 3), direction
        labels.append(label)
        # All frames have the same background and colors, but different noise: Pillow drops a frame
        # that equals the previous one.
        frames.append(scenes.render(current, np.random.default_rng(seed), noise=rng))
    return frames, labels


def encode_gif(frames: list[np.ndarray]) -> bytes:
    """An animated GIF of frames `[H, W, 3]`, uint8."""
    # One palette for all frames: a palette per frame takes several times as long.
    palette = Image.fromarray(np.concatenate(frames)).quantize(256)
    no_dither = {"palette": palette, "dither": Image.Dither.NONE}
    first, *others = (Image.fromarray(frame).quantize(**no_dither) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=_FRAME_DURATION, loop=0)
    return file.getvalue()


def captions(things: list[Thing], moves: list[Move], rng: np.random.Generator) -> list[str]:
    """Five captions of a clip, with different wordings."""
    (a, x), (b, y) = ((f"{things[k].color} {things[k].shape}", d) for k, d in moves)
    wordings = [
        f"the {a} moves {x} , then the {b} moves {y}",
        f"first the {a} goes {x} and then the {b} goes {y}",
        f"a {a} that moves {x} before a {b} moves {y}",
        f"after the {a} has gone {x} the {b} goes {y}",
        f"{x} moves the {a} and {y} moves the {b}",
    ]
    return [wordings[k] for k in rng.permutation(len(wordings))]
