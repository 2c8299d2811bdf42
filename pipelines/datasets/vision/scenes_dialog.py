"""Generated dialogs about rendered scenes."""

import numpy as np
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.base import VisualQuestions
from unroll.pipelines.datasets.vision.scenes import SHAPES, Thing
from unroll.pipelines.datasets.vision.scenes_qa import Question, plural, scene_example

IMAGES = {"train": 9000, "valid": 400, "test": 1000}
ROUNDS = 6  # of a dialog


class ScenesDialog(Generated, VisualQuestions, skip_registration=True):
    """Dialogs of six rounds about 9,000 / 400 / 1,000 rendered scenes.

    "it" is the thing of the previous round, "the other one" the other thing of the same shape. Most
    rounds cannot be answered from the image and the question alone.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 had 5,000 training images
    SIZES = IMAGES

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, number) for split, number in self.sizes.items()
        }

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"dialog {split}")])
            pairs = sample_twins(rng, split)
            things = scenes.sample(rng, split, len(pairs), pairs)
            yield k, scene_example(f"{split}_{k}", things, rng, dialog(things, rng))


def sample_twins(rng: np.random.Generator, split: str) -> tuple:
    """Colors and shapes of three or four things: all different, but two have the same shape."""
    count = int(rng.integers(3, 5))
    while True:
        pairs = scenes.sample_pairs(rng, split, count)
        if len({c for c, _ in pairs}) == count and len({s for _, s in pairs}) == count - 1:
            return pairs


def dialog(things: list[Thing], rng: np.random.Generator) -> list[Question]:
    """Six rounds about a scene in which each color occurs once, and one shape twice."""
    rounds: list[Question] = []
    it = None
    while len(rounds) < ROUNDS:
        makers = (_new_thing, _it, _the_other_one, _count) if it else (_new_thing,)
        make = rng.choice(makers, p=(0.2, 0.4, 0.3, 0.1) if it else None)
        text, answer, it = make(things, it, rng)
        if text and (text, answer) not in rounds[-1:]:
            rounds.append((text, answer))
    return rounds


# The kinds of rounds. Each function returns a question, its answer, and what "it" is afterwards.


def _new_thing(things, it, rng):
    thing = scenes.choice(things, rng)
    if rng.random() < 0.5:
        return f"what shape is the {thing.color} thing ?", thing.shape, thing
    return f"is the {thing.color} thing large ?", _yes(thing.size == "large"), thing


def _it(things, it, rng):
    options = {
        "what shape is it ?": it.shape,
        "what color is it ?": it.color,
        "what size is it ?": it.size,
        "is it in the left half ?": _yes(it.x < scenes.SIDE / 2),
    }
    return *scenes.choice([*options.items()], rng), it


def _the_other_one(things, it, rng):
    others = [t for t in things if t is not it and t.shape == it.shape]
    if not others:
        return "", "", it
    [other] = others
    if rng.random() < 0.7:
        return "what color is the other one ?", other.color, other
    return "what size is the other one ?", other.size, other


def _count(things, it, rng):
    shape = str(rng.choice(SHAPES))
    return f"how many {plural(shape)} are there ?", str(sum(t.shape == shape for t in things)), it


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"
