"""Generated captions of drawn scenes."""

import numpy as np
import tensorflow as tf

from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.flickr8k import Captions, example
from unroll.pipelines.datasets.vision.scenes import Thing

PICTURES = {"train": 5000, "valid": 400, "test": 1000}
_NUMBERS = {1: "one thing", 2: "two things", 3: "three things"}


class ScenesCaptions(Captions, skip_registration=True):
    """Five captions each to 5,000 / 400 / 1,000 drawn scenes of one to three things.

    Each caption names every thing by colour and shape, in an order and with words of its own: from
    left to right, from above, by size, the places told or not. Every scene of the validation and of
    the test split has things whose colour and shape no other split has together. Who says the same
    of all pictures names the things of hardly any; a perfect captioner those of all.
    """

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, number) for split, number in PICTURES.items()}

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"captions {split}")])
            things = scenes.draw(rng, split, int(rng.integers(1, 4)))
            picture = tf.io.encode_png(scenes.render(things, rng)).numpy()
            name = f"{split}_{k}"
            yield k, example(name, picture, captions(things, rng))


def captions(things: list[Thing], rng: np.random.Generator) -> list[str]:
    """Five captions of a scene, each worded in another way."""
    across = sorted(things, key=lambda thing: thing.x)
    down = sorted(things, key=lambda thing: thing.y)
    by_size = sorted(things, key=lambda thing: -thing.radius)
    sized = [f"{thing.size} {_name(thing)}" for thing in across]
    placed = [f"{_name(thing)} {_place(thing)}" for thing in across]
    worded = [
        _listed([_a(_name(thing)) for thing in across]),
        f"the picture shows {' above '.join(_a(_name(thing)) for thing in down)}",
        f"{_NUMBERS[len(things)]} : " + " , ".join(_name(thing) for thing in by_size),
        f"there is {_listed([_a(one) for one in sized])}",
        f"a picture with {_listed([_a(one) for one in placed])}",
    ]
    return [worded[k] for k in rng.permutation(len(worded))]


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _place(thing: Thing) -> str:
    return f"on the {'left' if thing.x < scenes.SIDE / 2 else 'right'}"


def _listed(names: list[str]) -> str:
    """
    >>> _listed(["a red ring", "a blue cross", "a pink square"])
    'a red ring , a blue cross and a pink square'
    """
    *first, last = names
    return f"{' , '.join(first)} and {last}" if first else last
