"""Drawn scenes: coloured shapes with sizes and places, some before others."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import tensorflow as tf

SIDE = 64  # pixels
COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 40),
    "green": (46, 160, 67),
    "cyan": (64, 205, 220),
    "blue": (38, 84, 214),
    "purple": (138, 43, 180),
    "pink": (250, 150, 190),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = {"small": (6.5, 8.0), "large": (10.5, 12.5)}  # radius, pixels
_GROUND = 150
# A colour and a shape that only one split has together.
UNSEEN = {
    "valid": (
        ("red", "cross"),
        ("blue", "circle"),
        ("white", "triangle"),
        ("purple", "ring"),
        ("orange", "diamond"),
    ),
    "test": (
        ("green", "square"),
        ("yellow", "circle"),
        ("cyan", "triangle"),
        ("black", "ring"),
        ("pink", "cross"),
    ),
}
_HIDDEN = {pair for pairs in UNSEEN.values() for pair in pairs}
SEEN = tuple(pair for pair in product(COLOURS, SHAPES) if pair not in _HIDDEN)


@dataclass(frozen=True)
class Thing:
    """A shape in a scene: its middle and radius are in pixels, from the upper left corner."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float


def draw(
    rng: np.random.Generator, split: str, count: int, pairs: tuple | None = None
) -> list[Thing]:
    """Things at places of their own; the later ones stand before the earlier and may touch them.

    Args:
        rng: random numbers.
        split: in `valid` and `test`, about half of the things, and at least one, have a colour and
            a shape that no other split has together.
        count: how many.
        pairs: their colours and shapes; by default they are drawn.
    """
    if pairs is None:
        pairs = draw_pairs(rng, split, count)
    things: list[Thing] = []
    while len(things) < count:
        colour, shape = pairs[len(things)]
        size = str(rng.choice(list(SIZES)))
        radius = rng.uniform(*SIZES[size])
        x, y = rng.uniform(radius + 1, SIDE - radius - 1, 2)
        # A quarter of the smaller of two may be covered.
        if all(
            np.hypot(x - t.x, y - t.y) > radius + t.radius - 0.5 * min(radius, t.radius)
            for t in things
        ):
            things.append(Thing(colour, shape, size, x, y, radius))
        elif rng.random() < 0.02:  # there is no place left: begin again
            things = []
    return things


def draw_pairs(rng: np.random.Generator, split: str, count: int) -> tuple:
    """Colours and shapes, as in `draw`."""
    unseen = UNSEEN.get(split, ())
    chosen = []
    for k in range(count):
        among = unseen if unseen and (k == 0 or rng.random() < 0.4) else SEEN
        chosen.append(among[rng.integers(len(among))])
    return tuple(chosen[i] for i in rng.permutation(count))


def render(
    things: list[Thing], rng: np.random.Generator, noise: np.random.Generator | None = None
) -> np.ndarray:
    """The picture, `[64, 64, 3]`, uint8, with soft edges and some noise.

    Args:
        things: from the back to the front.
        rng: of the ground, of the shades of the colours, and of the noise.
        noise: of the noise, if it is another.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    picture = np.full((SIDE, SIDE, 3), _GROUND + rng.uniform(-15, 15))
    for thing in things:
        inside = _distance(thing, columns - thing.x, rows - thing.y)
        cover = np.clip(0.5 - inside, 0, 1)[..., None]
        colour = np.array(COLOURS[thing.colour]) + rng.uniform(-20, 20, 3)
        picture = picture * (1 - cover) + colour * cover
    picture += (noise or rng).normal(scale=4, size=picture.shape)
    return np.clip(picture, 0, 255).astype("uint8")


def samples() -> list[bytes]:
    """Three files: a large red circle and a small blue ring, the circle alone, and nothing."""
    rng = np.random.default_rng(0)
    circle = Thing("red", "circle", "large", 18, 20, 10)
    ring = Thing("blue", "ring", "small", 46, 44, 6)
    return [
        tf.io.encode_png(render(things, rng)).numpy() for things in ([circle, ring], [circle], [])
    ]


def _distance(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far a place is outside a shape, in pixels; negative inside."""
    r = thing.radius
    if thing.shape == "circle":
        return np.hypot(x, y) - r
    if thing.shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r
    if thing.shape == "diamond":
        return (np.abs(x) * 1.6 + np.abs(y) - r) / 1.9
    if thing.shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * r
    if thing.shape == "cross":
        wide, thin = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return np.maximum(wide - r, thin - 0.32 * r)
    # A triangle whose base is below.
    return np.maximum(y - 0.7 * r, (np.abs(x) * 2 - (y + r)) / np.sqrt(5))
