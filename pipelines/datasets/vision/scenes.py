"""Rendered scenes: colored shapes of two sizes that may overlap."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import tensorflow as tf

SIDE = 64  # pixels
COLORS = {
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
_BACKGROUND = 150
# Combinations of color and shape that only one split has.
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
SEEN = tuple(pair for pair in product(COLORS, SHAPES) if pair not in _HIDDEN)


@dataclass(frozen=True)
class Thing:
    """A shape in a scene. The center and the radius are in pixels, from the upper left corner."""

    color: str
    shape: str
    size: str
    x: float
    y: float
    radius: float


def choice(options, rng: np.random.Generator):
    """One of a sequence of options."""
    return options[int(rng.integers(len(options)))]


def sample(
    rng: np.random.Generator, split: str, count: int, pairs: tuple | None = None
) -> list[Thing]:
    """Things at random positions. A later one is in front of the earlier ones, and may touch them.

    Args:
        rng: a random generator.
        split: in `valid` and `test`, about half of the things, and at least one, have a combination
            of color and shape that no other split has.
        count: the number of things.
        pairs: their colors and shapes. They are sampled by default.
    """
    if pairs is None:
        pairs = sample_pairs(rng, split, count)
    things: list[Thing] = []
    while len(things) < count:
        color, shape = pairs[len(things)]
        size = str(rng.choice(list(SIZES)))
        radius = rng.uniform(*SIZES[size])
        x, y = rng.uniform(radius + 1, SIDE - radius - 1, 2)
        # At most a quarter of the smaller of two things is covered.
        if all(
            np.hypot(x - t.x, y - t.y) > radius + t.radius - 0.5 * min(radius, t.radius)
            for t in things
        ):
            things.append(Thing(color, shape, size, x, y, radius))
        elif rng.random() < 0.02:  # there may be no position left: start again
            things = []
    return things


def sample_pairs(rng: np.random.Generator, split: str, count: int) -> tuple:
    """Colors and shapes, as in `sample`."""
    unseen = UNSEEN.get(split, ())
    chosen = []
    for k in range(count):
        options = unseen if unseen and (k == 0 or rng.random() < 0.4) else SEEN
        chosen.append(options[rng.integers(len(options))])
    return tuple(chosen[i] for i in rng.permutation(count))


def render(
    things: list[Thing], rng: np.random.Generator, noise: np.random.Generator | None = None
) -> np.ndarray:
    """The image, `[64, 64, 3]`, uint8, with antialiased edges and some noise.

    Args:
        things: from the back to the front.
        rng: the random generator of the background, the shades of the colors, and the noise.
        noise: another random generator for the noise.
    """
    image = np.full((SIDE, SIDE, 3), _BACKGROUND + rng.uniform(-15, 15))
    pixels = np.arange(SIDE) + 0.5
    for thing in things:
        reach = thing.radius + 2
        rows, columns = (
            slice(max(0, int(center - reach)), int(center + reach) + 1)
            for center in (thing.y, thing.x)
        )
        x, y = pixels[columns] - thing.x, pixels[rows, None] - thing.y
        cover = np.clip(0.5 - _distance(thing, x, y), 0, 1)[..., None]
        color = np.array(COLORS[thing.color]) + rng.uniform(-20, 20, 3)
        image[rows, columns] = image[rows, columns] * (1 - cover) + color * cover
    image += (noise or rng).normal(scale=4, size=image.shape)
    return np.clip(image, 0, 255).astype("uint8")


def examples() -> list[bytes]:
    """Three PNG files: a large red circle and a small blue ring, the circle alone, no shape."""
    rng = np.random.default_rng(0)
    circle = Thing("red", "circle", "large", 18, 20, 10)
    ring = Thing("blue", "ring", "small", 46, 44, 6)
    return [
        tf.io.encode_png(render(things, rng)).numpy() for things in ([circle, ring], [circle], [])
    ]


def _distance(thing: Thing, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The signed distance of points to the edge of a shape, in pixels; negative inside."""
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
    # A triangle with its base at the bottom.
    return np.maximum(y - 0.7 * r, (np.abs(x) * 2 - (y + r)) / np.sqrt(5))
