"""Generated questions about drawn scenes: single ones, and dialogs."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.datasets.vision.scenes import COLOURS, SHAPES, Thing
from unroll.pipelines.datasets.vision.visual_questions import VisualQuestions

PICTURES = {"train": 9000, "valid": 400, "test": 1000}
_VERSION = tfds.core.Version("1.1.0")  # 1.0.0 had 5,000 training pictures
QUESTIONS = 10  # to a scene
ROUNDS = 6  # of a dialog
_KINDS = {"colour": 2, "shape": 2, "existence": 2, "count": 1, "relation": 1, "comparison": 1}
_MARGIN = 6  # pixels by which a thing must be left of another for it to be said

Question = tuple[str, str]  # and its answer


class ScenesQa(VisualQuestions, skip_registration=True):
    """Ten questions each to 9,000 / 400 / 1,000 drawn scenes of two to four things.

    On colour, shape, number, relation, existence and comparison. Every scene of the validation and
    of the test split has things whose colour and shape no other split has together, nor asks for.
    Who reads the questions alone is right in about a third; a perfect reader always.
    """

    VERSION = _VERSION

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, number) for split, number in PICTURES.items()}

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"qa {split}")])
            things = scenes.draw(rng, split, int(rng.integers(2, 5)))
            yield k, _row(f"{split}_{k}", things, rng, questions(things, rng, split))


class ScenesDialog(VisualQuestions, skip_registration=True):
    """Dialogs of six rounds about 9,000 / 400 / 1,000 drawn scenes.

    "it" is the thing that was last spoken of, "the other one" the one of the same shape. Most
    rounds cannot be answered from the picture and their own words.
    """

    VERSION = _VERSION

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, number) for split, number in PICTURES.items()}

    def _generate_examples(self, split: str, number: int):
        for k in range(number):
            rng = np.random.default_rng([k, *map(ord, f"dialog {split}")])
            pairs = _with_twins(rng, split)
            things = scenes.draw(rng, split, len(pairs), pairs)
            yield k, _row(f"{split}_{k}", things, rng, dialog(things, rng))


def _row(name: str, things: list[Thing], rng: np.random.Generator, asked: list[Question]) -> dict:
    return {
        "image": tf.io.encode_png(scenes.render(things, rng)).numpy(),
        "image_id": name,
        "questions": [{"question": q, "answers": [a]} for q, a in asked],
    }


def questions(things: list[Thing], rng: np.random.Generator, split: str) -> list[Question]:
    """Ten different questions to a scene, with their answers."""
    chances = np.array([*_KINDS.values()]) / sum(_KINDS.values())
    found: dict[str, str] = {}
    while len(found) < QUESTIONS:
        kind = str(rng.choice(list(_KINDS), p=chances))
        asked = _ASK[kind](things, rng, split)
        if asked:
            found.setdefault(*asked)
    return list(found.items())


def _named(thing: Thing, things: list[Thing]) -> str | None:
    """A thing by its colour and shape, if no other has both."""
    same = [t for t in things if (t.colour, t.shape) == (thing.colour, thing.shape)]
    return f"{thing.colour} {thing.shape}" if len(same) == 1 else None


def _pick(among, rng: np.random.Generator):
    return among[int(rng.integers(len(among)))]


def _colour(things, rng, split) -> Question | None:
    return _feature(things, rng, "what color is the {} ?", "colour", "shape")


def _shape(things, rng, split) -> Question | None:
    return _feature(things, rng, "what shape is the {} thing ?", "shape", "colour")


def _feature(things, rng, question: str, asked: str, given: str) -> Question | None:
    """One feature of a thing that is told by the other, and by its size if that is needed."""
    thing = _pick(things, rng)
    alike = [t for t in things if getattr(t, given) == getattr(thing, given)]
    if sum(t.size == thing.size for t in alike) > 1:
        return None
    size = f"{thing.size} " if len(alike) > 1 else ""
    return question.format(f"{size}{getattr(thing, given)}"), getattr(thing, asked)


def _existence(things, rng, split) -> Question | None:
    there = {(t.colour, t.shape) for t in things}
    if rng.random() < 0.5:
        return "is there a {} {} ?".format(*_pick(sorted(there), rng)), "yes"
    # Its colour or its shape is there, or both are, but not together.
    allowed = {*scenes.SEEN, *scenes.UNSEEN.get(split, ())} - there
    colours, shapes = {t.colour for t in things}, {t.shape for t in things}
    both = sorted(pair for pair in allowed if pair[0] in colours and pair[1] in shapes)
    near = sorted(pair for pair in allowed if (pair[0] in colours) != (pair[1] in shapes))
    among = both if both and rng.random() < 0.7 else near
    return "is there a {} {} ?".format(*_pick(among, rng)), "no"


def _count(things, rng, split) -> Question | None:
    if rng.random() < 0.5:
        shape = str(_pick(things, rng).shape if rng.random() < 0.8 else rng.choice(SHAPES))
        asked, number = _plural(shape), sum(t.shape == shape for t in things)
    else:
        colour = str(_pick(things, rng).colour if rng.random() < 0.8 else rng.choice([*COLOURS]))
        asked, number = f"{colour} things", sum(t.colour == colour for t in things)
    if number == 1 and rng.random() < 0.6:  # else most answers were "1"
        return None
    return f"how many {asked} are there ?", str(number)


def _relation(things, rng, split) -> Question | None:
    first, second = (_pick(things, rng) for _ in range(2))
    names = _named(first, things), _named(second, things)
    if first is second or None in names:
        return None
    word = str(rng.choice(["left of", "right of", "above", "below"]))
    apart = second.x - first.x if word in ("left of", "right of") else second.y - first.y
    apart *= -1 if word in ("right of", "below") else 1
    if abs(apart) < _MARGIN:
        return None
    return f"is the {names[0]} {word} the {names[1]} ?", "yes" if apart > 0 else "no"


def _comparison(things, rng, split) -> Question | None:
    shapes = sorted({t.shape for t in things})
    more, less = (str(rng.choice(shapes if rng.random() < 0.8 else SHAPES)) for _ in range(2))
    if more == less:
        return None
    counts = [sum(t.shape == shape for t in things) for shape in (more, less)]
    answer = "yes" if counts[0] > counts[1] else "no"
    # Both answers as often: of two that are as many, most are not asked.
    if counts[0] == counts[1] and rng.random() < 0.8:
        return None
    return f"are there more {_plural(more)} than {_plural(less)} ?", answer


_ASK = {
    "colour": _colour,
    "shape": _shape,
    "existence": _existence,
    "count": _count,
    "relation": _relation,
    "comparison": _comparison,
}


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _with_twins(rng: np.random.Generator, split: str) -> tuple:
    """Colours and shapes of three or four things, two of one shape, else all different."""
    count = int(rng.integers(3, 5))
    while True:
        pairs = scenes.draw_pairs(rng, split, count)
        if len({c for c, _ in pairs}) == count and len({s for _, s in pairs}) == count - 1:
            return pairs


def dialog(things: list[Thing], rng: np.random.Generator) -> list[Question]:
    """Six rounds about a scene in which each colour is there once and one shape twice."""
    rounds: list[Question] = []
    it = None
    while len(rounds) < ROUNDS:
        turns = (_of_another, _of_it, _of_the_other, _of_a_number) if it else (_of_another,)
        turn = rng.choice(turns, p=(0.2, 0.4, 0.3, 0.1) if it else None)
        text, answer, it = turn(things, it, rng)
        if text and (text, answer) not in rounds[-1:]:
            rounds.append((text, answer))
    return rounds


# The turns of a dialog: a question, its answer, and what "it" is from then on.


def _of_another(things, it, rng):
    thing = _pick(things, rng)
    if rng.random() < 0.5:
        return f"what shape is the {thing.colour} thing ?", thing.shape, thing
    return f"is the {thing.colour} thing large ?", _yes(thing.size == "large"), thing


def _of_it(things, it, rng):
    asked = {
        "what shape is it ?": it.shape,
        "what color is it ?": it.colour,
        "what size is it ?": it.size,
        "is it in the left half ?": _yes(it.x < scenes.SIDE / 2),
    }
    return *_pick([*asked.items()], rng), it


def _of_the_other(things, it, rng):
    others = [t for t in things if t is not it and t.shape == it.shape]
    if not others:
        return "", "", it
    [other] = others
    if rng.random() < 0.7:
        return "what color is the other one ?", other.colour, other
    return "what size is the other one ?", other.size, other


def _of_a_number(things, it, rng):
    shape = str(rng.choice(SHAPES))
    return f"how many {_plural(shape)} are there ?", str(sum(t.shape == shape for t in things)), it


def _yes(so: bool) -> str:
    return "yes" if so else "no"
