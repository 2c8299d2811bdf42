"""What a row of the table of layers is, and the numbers that the layers are tried on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from tests.layers import running
from unroll.layers.recurrent import RecurrentLayer

B, T, D, U = 6, 5, 3, 4
SEQUENCES = np.random.default_rng(1).normal(size=(B, T, D))
MASK = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],  # padded on the right
        [0, 0, 1, 1, 1],  # on the left
        [1, 0, 0, 1, 1],  # in the middle
        [0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype="bool",
)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: what the tests are called by.
        make: `make(**options)` is a fresh layer; an option overrides what the case fixes.
        oracle: the layer in NumPy, as `tests.reference` tells.
        covers: the names in `layers.__all__` that the row stands for.
        options: an uncommon value for every argument of the constructor.
        inputs: the batch that the layer is tried on.
        mask: the mask of it; None if the layer takes none.
        states: the sizes of the states that the layer takes, `[B, size]` each; none if it takes no
            initial state. Of a layer in `running.CALLS`, of its other inputs.
        segmented: whether the place of a step matters, so that masked steps count as time.
        random: the options that make the layer random in training.
        idle: for each weight that has entries without a gradient, which ones.
        variant: whether the layer has a row before this one, which then gets no slow checks.
        dynamic: how many axes of the inputs have any size in an export.
    """

    name: str
    make: Callable
    oracle: Callable
    covers: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    inputs: np.ndarray = field(default_factory=lambda: SEQUENCES)
    mask: np.ndarray | None = field(default_factory=lambda: MASK)
    states: tuple[int, ...] = ()
    segmented: bool = False
    random: dict = field(default_factory=dict)
    idle: dict = field(default_factory=dict)
    variant: bool = False
    dynamic: int = 2

    def __str__(self):
        return self.name

    def symbolic(self, dtype: str):
        """The inputs of a functional model: any batch, and any length where there is time."""
        time = (None,) * min(1, self.dynamic - 1)
        return keras.Input((*time, *self.inputs.shape[1 + len(time) :]), dtype=dtype)

    @property
    def differentiable(self) -> bool:
        return self.inputs.dtype.kind == "f"

    def build(self, dtype=running.PRECISE, scale=0.6, **options) -> keras.layers.Layer:
        """A layer with random weights, the same in each call."""
        layer = self.untrained(dtype=dtype, **options)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.normal(size=w.shape, scale=scale) for w in layer.weights])
        return layer

    def untrained(self, **options) -> keras.layers.Layer:
        """A layer with the weights that it starts from."""
        layer = self.make(**options)
        if type(layer) in running.CALLS:
            running.outputs(layer, self.inputs, self.initial_state())
        else:
            layer.build(self.inputs.shape)
        return layer

    @property
    def needs_states(self) -> bool:
        """Whether the layer cannot be called without its states."""
        return type(self.make()) in running.CALLS

    def initial_state(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        return [rng.normal(size=(len(self.inputs), size)) for size in self.states]

    def zero_state(self) -> list[np.ndarray]:
        return [np.zeros_like(s) for s in self.initial_state()]


@dataclass(frozen=True)
class Recurrent(Case):
    """A row that also gets the checks of recurrent layers."""

    layer_class: type[RecurrentLayer] = None
