"""Generated questions about rendered scenes."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.base import VisualQuestions, question_example
from unroll.pipelines.datasets.vision.scenes import COLORS, SHAPES, Thing

IMAGES = {"train": 9000, "valid": 400, "test": 1000}
QUESTIONS = 10  # of a scene
# How often each kind of question occurs.
_KINDS = {"color": 2, "shape": 2, "existence": 2, "count": 1, "relation": 1, "comparison": 1}
_MARGIN = 6  # the least distance in pixels for "left of", "above" ...

Question = tuple[str, str]  # with its answer


class ScenesQa(Generated, VisualQuestions, skip_registration=True):
    """Ten questions each about 9,000 / 400 / 1,000 rendered scenes of two to four shapes.

    The questions are about color, shape, number, relation, existence and comparison. Every scene of
    the validation and test splits has combinations of color and shape that no other split has, in
    scenes or questions. A model of the questions alone is right for about a third; a perfect model
    scores 100 %.
    """

    VERSION = tfds.core.Version("1.1.0")  # 1.0.0 had 5,000 training images
    SIZES = IMAGES

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, number) for split, number in self.sizes.items()
        }

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"qa {split}")])
            things = scenes.sample(rng, split, int(rng.integers(2, 5)))
            pairs = questions(things, rng, split)
            yield k, scene_example(f"{split}_{k}", things, rng, pairs)


def scene_example(
    name: str, things: list[Thing], rng: np.random.Generator, pairs: list[Question]
) -> dict:
    """An example of `VisualQuestions` from a scene."""
    contents = tf.io.encode_png(scenes.render(things, rng)).numpy()
    return question_example(name, contents, [(question, [answer]) for question, answer in pairs])


def questions(things: list[Thing], rng: np.random.Generator, split: str) -> list[Question]:
    """Ten different questions about a scene, with their answers."""
    chances = np.array([*_KINDS.values()]) / sum(_KINDS.values())
    pairs: dict[str, str] = {}
    while len(pairs) < QUESTIONS:
        kind = str(rng.choice(list(_KINDS), p=chances))
        pair = _MAKE[kind](things, rng, split)
        if pair:
            pairs.setdefault(*pair)
    return list(pairs.items())


def _named(thing: Thing, things: list[Thing]) -> str | None:
    """The color and shape of a thing, if no other thing has both."""
    same = [t for t in things if (t.color, t.shape) == (thing.color, thing.shape)]
    return f"{thing.color} {thing.shape}" if len(same) == 1 else None


def _color(things, rng, split) -> Question | None:
    return _feature(things, rng, "what color is the {} ?", "color", "shape")


def _shape(things, rng, split) -> Question | None:
    return _feature(things, rng, "what shape is the {} thing ?", "shape", "color")


def _feature(things, rng, question: str, target: str, given: str) -> Question | None:
    """Color or shape of a thing, given the other, and its size where that is needed."""
    thing = scenes.choice(things, rng)
    same = [t for t in things if getattr(t, given) == getattr(thing, given)]
    if sum(t.size == thing.size for t in same) > 1:
        return None
    size = f"{thing.size} " if len(same) > 1 else ""
    return question.format(f"{size}{getattr(thing, given)}"), getattr(thing, target)


def _existence(things, rng, split) -> Question | None:
    present = {(t.color, t.shape) for t in things}
    if rng.random() < 0.5:
        return "is there a {} {} ?".format(*scenes.choice(sorted(present), rng)), "yes"
    # The scene has the color or the shape, or both on different things.
    allowed = {*scenes.SEEN, *scenes.UNSEEN.get(split, ())} - present
    colors, shapes = {t.color for t in things}, {t.shape for t in things}
    both = sorted(pair for pair in allowed if pair[0] in colors and pair[1] in shapes)
    one = sorted(pair for pair in allowed if (pair[0] in colors) != (pair[1] in shapes))
    options = both if both and rng.random() < 0.7 else one
    return "is there a {} {} ?".format(*scenes.choice(options, rng)), "no"


def _count(things, rng, split) -> Question | None:
    if rng.random() < 0.5:
        shape = str(scenes.choice(things, rng).shape if rng.random() < 0.8 else rng.choice(SHAPES))
        target, number = plural(shape), sum(t.shape == shape for t in things)
    else:
        present = rng.random() < 0.8
        color = str(scenes.choice(things, rng).color if present else rng.choice([*COLORS]))
        target, number = f"{color} things", sum(t.color == color for t in things)
    if number == 1 and rng.random() < 0.6:  # otherwise most answers would be "1"
        return None
    return f"how many {target} are there ?", str(number)


def _relation(things, rng, split) -> Question | None:
    first, second = (scenes.choice(things, rng) for _ in range(2))
    names = _named(first, things), _named(second, things)
    if first is second or None in names:
        return None
    word = str(rng.choice(["left of", "right of", "above", "below"]))
    distance = second.x - first.x if word in ("left of", "right of") else second.y - first.y
    distance *= -1 if word in ("right of", "below") else 1
    if abs(distance) < _MARGIN:
        return None
    return f"is the {names[0]} {word} the {names[1]} ?", "yes" if distance > 0 else "no"


def _comparison(things, rng, split) -> Question | None:
    shapes = sorted({t.shape for t in things})
    more, less = (str(rng.choice(shapes if rng.random() < 0.8 else SHAPES)) for _ in range(2))
    if more == less:
        return None
    counts = [sum(t.shape == shape for t in things) for shape in (more, less)]
    answer = "yes" if counts[0] > counts[1] else "no"
    # Equal counts are mostly left out, so that both answers are equally frequent.
    if counts[0] == counts[1] and rng.random() < 0.8:
        return None
    return f"are there more {plural(more)} than {plural(less)} ?", answer


_MAKE = {
    "color": _color,
    "shape": _shape,
    "existence": _existence,
    "count": _count,
    "relation": _relation,
    "comparison": _comparison,
}


def plural(shape: str) -> str:
    """The plural of a shape.

    >>> plural("cross")
    'crosses'
    """
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"
