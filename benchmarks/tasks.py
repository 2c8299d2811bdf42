"""Synthetic tasks from the papers that compare recurrent layers.

Each function generates a `Batch` from a NumPy random generator. The weights select the steps whose
outputs are evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    inputs: np.ndarray  # [B, T, D]
    targets: np.ndarray  # [B, T, K]
    weights: np.ndarray  # [B, T]


def adding(rng: np.random.Generator, examples: int, length: int) -> Batch:
    """Add the two marked numbers of a sequence.

    Hochreiter and Schmidhuber 1997, "Long short-term memory", section 5.4, with numbers from
    [0, 1] and marks of 0 and 1 as in Le, Jaitly and Hinton 2015, section 4.1. Each half of the
    sequence has one mark. The target, at the last step, is the sum of the two marked numbers. Its
    mean is 1 and its variance 1/6.
    """
    numbers = rng.uniform(size=(examples, length))
    marks = np.zeros((examples, length))
    rows = np.arange(examples)
    marks[rows, rng.integers(0, length // 2, examples)] = 1
    marks[rows, rng.integers(length // 2, length, examples)] = 1
    targets = np.zeros((examples, length, 1))
    targets[:, -1, 0] = (numbers * marks).sum(axis=1)
    return _batch(np.stack([numbers, marks], axis=-1), targets, _last(examples, length))


def parity(rng: np.random.Generator, examples: int, length: int, every: bool) -> Batch:
    """The parity of the ones in a string of bits.

    Hochreiter and Schmidhuber 1997 discuss it in section 5 as a common benchmark of recurrent
    networks. With `every`, the output after each bit is evaluated, otherwise only the last.
    """
    bits = rng.integers(0, 2, (examples, length))
    targets = np.eye(2)[bits.cumsum(axis=1) % 2]
    weights = np.ones((examples, length)) if every else _last(examples, length)
    return _batch(bits[..., None], targets, weights)


def parity_of_lengths(rng: np.random.Generator, examples: int, lengths: tuple[int, int]) -> Batch:
    """The parity of the ones in strings of different lengths.

    Beck et al. 2024, "xLSTM: extended long short-term memory", section 4.1, after Delétang et al.
    2023: networks are trained on lengths of 3 to 40 bits, and tested on 40 to 256. Each bit is one
    of two symbols, and zeros follow the last one. The output after each bit is evaluated.
    """
    shortest, longest = lengths
    ends = rng.integers(shortest, longest + 1, examples)
    bits = rng.integers(0, 2, (examples, longest))
    there = np.arange(longest) < ends[:, None]
    inputs = np.eye(2)[bits] * there[..., None]
    return _batch(inputs, np.eye(2)[bits.cumsum(axis=1) % 2], there)


def selective_copying(rng: np.random.Generator, examples: int, symbols: int, length: int) -> Batch:
    """Repeat symbols that are at random positions among blanks.

    Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces", section
    4.1.1, with 16 symbols in 4,096 steps. The input has `symbols` of eight symbols among blanks in
    `length` steps, and then marks. The target, at the marks, are the symbols in their order.
    """
    string = rng.integers(0, 8, (examples, symbols))
    places = np.sort(rng.permuted(np.tile(np.arange(length), (examples, 1)), axis=1)[:, :symbols])
    shown = np.full((examples, length + symbols), 8)
    np.put_along_axis(shown, places, string, axis=1)
    shown[:, length:] = 9
    targets = np.zeros((examples, length + symbols, 8))
    targets[:, length:] = np.eye(8)[string]
    return _batch(np.eye(10)[shown], targets, targets.sum(axis=-1))


def temporal_order(rng: np.random.Generator, examples: int, scale: float = 1.0) -> Batch:
    """The order of two symbols that are far apart among distractors.

    Hochreiter and Schmidhuber 1997, section 5.6, task 6a. A sequence of 100 to 110 symbols starts
    with E, ends with the trigger B, and contains the distractors a, b, c, d except at two
    positions, one from 10 to 20 and one from 50 to 60, which are X or Y. The target at B is the
    class: XX, XY, YX or YY. Shorter sequences are padded with zeros after B. All lengths and
    positions are multiplied by `scale`.
    """
    at = [round(position * scale) for position in (100, 110, 10, 20, 50, 60)]
    longest = at[1]
    symbols = rng.integers(0, 4, (examples, longest))  # a, b, c, d; then E, B, X, Y
    ends = rng.integers(at[0], at[1] + 1, examples) - 1
    chosen = rng.integers(0, 2, (examples, 2))
    rows = np.arange(examples)
    symbols[:, 0] = 4
    symbols[rows, ends] = 5
    symbols[rows, rng.integers(at[2], at[3] + 1, examples)] = 6 + chosen[:, 0]
    symbols[rows, rng.integers(at[4], at[5] + 1, examples)] = 6 + chosen[:, 1]
    inputs = np.eye(8)[symbols] * (np.arange(longest) <= ends[:, None])[..., None]
    targets = np.zeros((examples, longest, 4))
    targets[rows, ends] = np.eye(4)[2 * chosen[:, 0] + chosen[:, 1]]
    return _batch(inputs, targets, targets.sum(axis=-1))


def copying(rng: np.random.Generator, examples: int, symbols: int, delay: int) -> Batch:
    """Repeat a string of symbols after a delay.

    Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks", section 4.1,
    after Hochreiter and Schmidhuber 1997. The input is the string, of eight symbols;
    `delay` blanks; and a mark. From the step of the mark on, the target is the string. The outputs
    before the mark, all blank in the paper, are not evaluated here.
    """
    string = rng.integers(0, 8, (examples, symbols))
    length = symbols + delay + symbols
    shown = np.full((examples, length), 8)
    shown[:, :symbols] = string
    shown[:, -symbols] = 9
    targets = np.zeros((examples, length, 8))
    targets[:, -symbols:] = np.eye(8)[string]
    return _batch(np.eye(10)[shown], targets, targets.sum(axis=-1))


def waves(rng: np.random.Generator, examples: int, length: int, sines: int = 4) -> Batch:
    """Generate curves from the number of the curve.

    Koutnik, Greff, Gomez and Schmidhuber 2014, "A clockwork RNN", section 4.1, where a network is
    trained on one piece of music of 320 samples and has no input. Here the curves are mixtures of
    sines of 1 to 16 periods with random amplitudes and phases. A network learns all examples at
    once; the input is a one-hot vector for the curve, the same at every step. A curve has mean zero
    and variance one, so that the mean squared error is the normalized error of the paper.
    """
    frequencies = rng.uniform(1, 16, (examples, sines, 1))
    phases = rng.uniform(0, 2 * np.pi, (examples, sines, 1))
    amplitudes = rng.uniform(0.2, 1, (examples, sines, 1))
    time = 2 * np.pi * np.arange(length) / length
    curves = (amplitudes * np.sin(frequencies * time + phases)).sum(axis=1)
    curves -= curves.mean(axis=1, keepdims=True)
    curves /= curves.std(axis=1, keepdims=True)
    which = np.repeat(np.eye(examples)[:, None], length, axis=1)
    return _batch(which, curves[..., None], np.ones((examples, length)))


def _last(examples: int, length: int) -> np.ndarray:
    weights = np.zeros((examples, length))
    weights[:, -1] = 1
    return weights


def _batch(*arrays) -> Batch:
    return Batch(*(np.asarray(a, "float32") for a in arrays))


@dataclass(frozen=True)
class Task:
    """A task with its training and test settings.

    Attributes:
        generate: the training examples.
        tests: generators of the test examples, by name.
        classes: whether the target is a class. The measure is the accuracy, otherwise the mean
            squared error.
        trivial: the measure of a trivial output, and what that output is.
        solved: the training loss, averaged over a report, at which training ends.
        steps: maximum number of training steps.
        batch: examples per step.
        fixed: whether all steps and the test use the same examples.
    """

    generate: Callable[[np.random.Generator, int], Batch]
    tests: dict[str, Callable[[np.random.Generator, int], Batch]]
    classes: bool
    trivial: tuple[float, str]
    solved: float
    steps: int
    batch: int = 32
    fixed: bool = False

    def better(self, a: float, b: float) -> bool:
        """Whether the measure `a` is better than `b`."""
        return a > b if self.classes else a < b


def _adding(length: int, steps: int) -> Task:
    generate = partial(adding, length=length)
    trivial = (1 / 6, "always 1")
    return Task(generate, {f"adding {length}": generate}, False, trivial, 0.005, steps)


_SELECTIVE = partial(selective_copying, symbols=8, length=100)
_COPYING = partial(copying, symbols=5, delay=30)
_WAVES = partial(waves, length=320)

TASKS = {
    "parity": Task(
        generate=partial(parity, length=20, every=True),
        tests={
            "parity 20": partial(parity, length=20, every=False),
            "parity 40": partial(parity, length=40, every=False),
        },
        classes=True,
        trivial=(1 / 2, "chance"),
        solved=0.01,
        steps=4000,
    ),
    "parity_of_lengths": Task(
        generate=partial(parity_of_lengths, lengths=(3, 40)),
        tests={
            "parity of 3 to 40": partial(parity_of_lengths, lengths=(3, 40)),
            "parity of 40 to 256": partial(parity_of_lengths, lengths=(40, 256)),
        },
        classes=True,
        trivial=(1 / 2, "chance"),
        solved=0.005,
        steps=4000,
    ),
    "selective_copying": Task(
        generate=_SELECTIVE,
        tests={"selective copying": _SELECTIVE},
        classes=True,
        trivial=(1 / 8, "chance"),
        solved=0.02,
        steps=4000,
    ),
    "copying": Task(
        generate=_COPYING,
        tests={"copying": _COPYING},
        classes=True,
        trivial=(1 / 8, "chance"),
        solved=0.02,
        steps=3000,
    ),
    "waves": Task(
        generate=_WAVES,
        tests={"waves": _WAVES},
        classes=False,
        trivial=(1.0, "the mean"),
        solved=0.01,
        steps=1500,
        batch=5,
        fixed=True,
    ),
    "temporal_order": Task(
        generate=temporal_order,
        tests={"temporal order": temporal_order},
        classes=True,
        trivial=(1 / 4, "chance"),
        solved=0.02,
        steps=1500,
    ),
    "adding_100": _adding(100, 2000),
    "adding_200": _adding(200, 2000),
    "adding_400": _adding(400, 1000),
}
