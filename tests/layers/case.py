"""A case of the layer tests: a layer, its oracle and its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

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
    """A layer to test.

    The checks of one case share its layers, outputs and gradients, so that each is computed once.

    Args:
        name: the name of the case in the test ids.
        make: `make(**options)` returns a new layer; an option overrides a setting of the case.
        oracle: the layer in NumPy, from `tests.reference`.
        covers: the names in `layers.__all__` that the case tests.
        options: for each argument of the constructor, a value other than the default.
        inputs: the batch of inputs.
        mask: its mask, or None if the layer takes no mask.
        states: the sizes of the initial states, `[B, size]` each; empty if the layer takes none.
            For a layer in `running.CALLS`, the sizes of its other inputs.
        segmented: whether the position of a step matters, so that masked steps count as time.
        random: the options that make the layer random in training.
        idle: for each weight with entries that have no gradient, the index of those entries.
        long_oracle: the oracle of long sequences, if `oracle` is too slow for them.
        positive: the indices of the states that have no negative values.
        variant: whether another case tests the same layer; the slow checks then skip this one.
        trained: whether the layer has weights that are trained.
        exhaustive: whether `make test` runs few checks of the case, and `make test-all` all.
        dynamic: the number of axes of the inputs that are dynamic in an export.
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
    long_oracle: Callable | None = None
    positive: tuple[int, ...] = ()
    variant: bool = False
    trained: bool = True
    exhaustive: bool = False
    dynamic: int = 2

    def __str__(self):
        return self.name

    def symbolic(self, dtype: str):
        """The inputs of a functional model, with dynamic batch and time axes."""
        time = (None,) * min(1, self.dynamic - 1)
        return keras.Input((*time, *self.inputs.shape[1 + len(time) :]), dtype=dtype)

    @property
    def differentiable(self) -> bool:
        return self.inputs.dtype.kind == "f"

    @property
    def input_dtype(self) -> str:
        return "float32" if self.differentiable else self.inputs.dtype.name

    def build(self, dtype=running.PRECISE, scale=0.6, **options) -> keras.layers.Layer:
        """A new layer with random weights, the same in each call."""
        layer = self.untrained(dtype=dtype, **options)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.normal(size=w.shape, scale=scale) for w in layer.weights])
        return layer

    def untrained(self, **options) -> keras.layers.Layer:
        """A new layer with its initial weights."""
        layer = self.make(**options)
        if type(layer) not in running.CALLS:
            layer.build(self.inputs.shape)
        elif running.BACKEND == "jax":  # an eager call would compile each operation
            states = [keras.Input((size,)) for size in self.states]
            running.call(layer, self.symbolic(self.input_dtype), states)
        else:
            running.outputs(layer, self.inputs, self.initial_state())
        return layer

    @property
    def needs_states(self) -> bool:
        """Whether the layer cannot be called without its states."""
        return type(self.make()) in running.CALLS

    def initial_state(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        states = [rng.normal(size=(len(self.inputs), size)) for size in self.states]
        return [abs(s) if k in self.positive else s for k, s in enumerate(states)]

    def zero_state(self) -> list[np.ndarray]:
        return [np.zeros_like(s) for s in self.initial_state()]

    # What the checks of a case share. No check changes a shared layer.

    @cached_property
    def _shared(self) -> dict:
        return {}

    def shared(self, key, compute: Callable):
        """`compute()`, which is called for the first request of a key only."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def layer(self, dtype=running.PRECISE) -> keras.layers.Layer:
        """A layer with random weights."""
        return self.shared(("layer", dtype), lambda: self.build(dtype, self.scale(dtype)))

    @staticmethod
    def scale(dtype: str) -> float:
        """The scale of the weights. Large ones amplify rounding errors over many steps."""
        return 0.3 if running.BACKEND == "tensorflow" and dtype != "float64" else 0.6

    def arguments(self, masked: bool) -> tuple:
        """Inputs, states and mask of a call: with mask and states, or as few as possible."""
        states = self.initial_state() if masked or self.needs_states else []
        return self.inputs, states, self.mask if masked else None

    def expected(self, masked: bool, dtype=running.PRECISE) -> list[np.ndarray]:
        """The outputs of the oracle for `arguments(masked)` and the weights of `layer(dtype)`."""

        def compute():
            inputs, states, mask = self.arguments(masked)
            weights = self.layer(dtype).get_weights()
            return self.oracle(weights, inputs, states or self.zero_state(), mask)

        return self.shared(("expected", masked, dtype == "float64"), compute)

    def cotangents(self, masked: bool, dtype=running.PRECISE) -> list[np.ndarray] | None:
        """Random cotangents for each output, final states included; None without gradients."""
        if not (self.differentiable or self.layer(dtype).trainable_weights):
            return None
        rng = np.random.default_rng(6)
        return [rng.normal(size=y.shape) for y in self.expected(masked, dtype)]

    def result(self, masked: bool = True, dtype=running.PRECISE, mode=running.QUICK):
        """Outputs and gradients of `layer(dtype)` for `arguments(masked)`, a `running.Result`."""

        def compute():
            inputs, states, mask = self.arguments(masked)
            if dtype != "float64":
                inputs = inputs.astype(self.input_dtype)
                states = [s.astype("float32") for s in states]
            factors = self.cotangents(masked, dtype) if mode in running.GRADIENT_MODES else None
            return running.evaluate(self.layer(dtype), inputs, states, mask, factors, mode=mode)

        return self.shared(("result", masked, dtype, mode), compute)


@dataclass(frozen=True)
class Recurrent(Case):
    """A case that also gets the checks of recurrent layers."""

    layer_class: type[RecurrentLayer] = None

    @property
    def has_recurrent_kernel(self) -> bool:
        """Whether the state is multiplied with weights."""
        return "recurrent_dropout" in self.options
