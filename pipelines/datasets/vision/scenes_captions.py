"""Generated captions of rendered scenes."""

import numpy as np
import tensorflow as tf

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.base import Captions, caption_example
from unroll.pipelines.datasets.vision.scenes import Thing

IMAGES = {"train": 5000, "valid": 400, "test": 1000}
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things"}


class ScenesCaptions(Generated, Captions, skip_registration=True):
    """Five captions each of 5,000 / 400 / 1,000 rendered scenes of one to three shapes.

    Each caption names every thing by color and shape. The captions differ in wording and order:
    from left to right, from top to bottom, by size, with or without positions. Every scene of the
    validation and test splits has combinations of color and shape that no other split has. A
    constant caption names the things of almost no image; a perfect model names those of all images.
    """

    SIZES = IMAGES

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, number) for split, number in self.sizes.items()
        }

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"captions {split}")])
            things = scenes.sample(rng, split, int(rng.integers(1, 4)))
            contents = tf.io.encode_png(scenes.render(things, rng)).numpy()
            yield k, caption_example(f"{split}_{k}", contents, captions(things, rng))


def captions(things: list[Thing], rng: np.random.Generator) -> list[str]:
    """Five captions of a scene, with different wordings."""
    across = sorted(things, key=lambda thing: thing.x)
    down = sorted(things, key=lambda thing: thing.y)
    by_size = sorted(things, key=lambda thing: -thing.radius)
    sized = [f"{thing.size} {_name(thing)}" for thing in across]
    located = [f"{_name(thing)} {_side(thing)}" for thing in across]
    wordings = [
        _listed([_a(_name(thing)) for thing in across]),
        f"the picture shows {' above '.join(_a(_name(thing)) for thing in down)}",
        f"{_NUMBERS[len(things)]} : " + " , ".join(_name(thing) for thing in by_size),
        f"there is {_listed([_a(one) for one in sized])}",
        f"a picture with {_listed([_a(one) for one in located])}",
    ]
    return [wordings[k] for k in rng.permutation(len(wordings))]


def _name(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _side(thing: Thing) -> str:
    return f"on the {'left' if thing.x < scenes.SIDE / 2 else 'right'}"


def _listed(names: list[str]) -> str:
    """
    >>> _listed(["a red ring", "a blue cross", "a pink square"])
    'a red ring , a blue cross and a pink square'
    """
    *first, last = names
    return f"{' , '.join(first)} and {last}" if first else last
