"""The table of layers: one row, and a layer gets every check.

No two dimensions are equal, the rows of the mask are all the kinds that there are, and all numbers
are random and asymmetric.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import keras
import numpy as np

import layers
from layers.recurrent.base import RecurrentLayer
from tests import reference
from tests.layers import running
from tests.layers.cells import Peephole, Plain

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
        states: the sizes of the states that the layer takes; none if it takes no initial state.
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

    @property
    def differentiable(self) -> bool:
        return self.inputs.dtype.kind == "f"

    def build(self, dtype=running.PRECISE, scale=0.6, **options) -> keras.layers.Layer:
        """A layer with random weights, the same in each call."""
        layer = self.make(dtype=dtype, **options)
        layer.build(self.inputs.shape)
        rng = np.random.default_rng(2)
        layer.set_weights([rng.normal(size=w.shape, scale=scale) for w in layer.weights])
        return layer

    def initial_state(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        return [rng.normal(size=(len(self.inputs), size)) for size in self.states]

    def zero_state(self) -> list[np.ndarray]:
        return [np.zeros_like(s) for s in self.initial_state()]


@dataclass(frozen=True)
class Recurrent(Case):
    """A row that also gets the checks of recurrent layers."""

    layer_class: type[RecurrentLayer] = None


RECURRENT_OPTIONS = {
    "units": 7,
    "activation": "softsign",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
    "recurrent_initializer": keras.initializers.GlorotNormal(seed=6),
    "bias_initializer": keras.initializers.Constant(0.5),
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "recurrent_regularizer": keras.regularizers.L1(0.2),
    "bias_regularizer": keras.regularizers.L2(0.3),
    "activity_regularizer": keras.regularizers.L1(0.4),
    "kernel_constraint": keras.constraints.MaxNorm(1.5),
    "recurrent_constraint": keras.constraints.NonNeg(),
    "bias_constraint": keras.constraints.MaxNorm(2.5),
    "dropout": 0.25,
    "recurrent_dropout": 0.125,
    "seed": 11,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "zero_output_for_mask": True,
    "name": "another",
    "dtype": keras.DTypePolicy("float64"),
    "trainable": False,
}


def recurrent(
    layer_class: type[RecurrentLayer], oracle: Callable, name: str = "", options=None, **settings
) -> Recurrent:
    """The row of a recurrent layer.

    Args:
        layer_class: the layer.
        oracle: its equations in `tests.reference`.
        name: of the row, where a layer has several: it is then a variant of the first.
        options: an uncommon value for each argument that this layer alone has.
        **settings: the arguments that the row is about; the oracle must follow them.
    """
    settings = {"units": U, **settings}
    return Recurrent(
        name=name or layer_class.__name__,
        make=lambda **options: layer_class(
            **{"return_sequences": True, "return_state": True, **settings, **options}
        ),
        oracle=oracle,
        covers=(layer_class.__name__, layer_class.cell_class.__name__),
        options=RECURRENT_OPTIONS | settings | {"units": 7} | (options or {}),
        states=tuple(layer_class(**settings).state_size),
        random={"dropout": 0.5, "recurrent_dropout": 0.5},
        variant=bool(name),
        layer_class=layer_class,
    )


def stack(
    name: str, units: tuple[int, int], both: bool, skip: str | None, variant: bool = True
) -> Case:
    """A stack of an LSTM and an Elman net."""
    plan = [(reference.lstm, 3, 2), (reference.elman, 3, 1)]
    return Case(
        name=name,
        make=lambda **options: layers.Stack(
            **{
                "layers": [
                    layers.LSTM(units[0], dtype=options.get("dtype")),
                    Plain(units[1], dtype=options.get("dtype")),
                ],
                "bidirectional": both,
                "skip": skip,
                "return_state": True,
                **options,
            }
        ),
        oracle=partial(reference.stack, plan, both=both, skip=skip),
        covers=("Stack",),
        options={
            "layers": [layers.LSTM(2)],
            "bidirectional": True,
            "skip": "dense",
            "dropout": 0.25,
            "seed": 7,
            "return_state": True,
        },
        states=(units[0],) * (4 if both else 2) + (units[1],) * (2 if both else 1),
        random={"dropout": 0.5},
        variant=variant,
    )


def lstm_segments(weights, sequences, states=(), mask=None):
    def oracle(weights, part, mask):
        return reference.lstm(weights, part, reference.zeros(part, U, U), mask)

    return reference.segments(oracle, 2, weights, sequences, mask=mask)


# The uneven numbers of trigrams, one twice in a word, and a word of padding alone.
TRIGRAMS = np.random.default_rng(4).integers(1, 12, size=(B, T, D)).astype("int32")
TRIGRAMS[:, 1, 2] = TRIGRAMS[:, 1, 0]
TRIGRAMS[:, 2, 1:] = 0
TRIGRAMS[3, 3] = 0

CASES: tuple[Case, ...] = (
    recurrent(layers.LSTM, reference.lstm, options={"unit_forget_bias": False}),
    recurrent(
        layers.LSTM,
        reference.lstm,
        "LSTM without bias",
        use_bias=False,
        options={"unit_forget_bias": False},
    ),
    recurrent(Peephole, reference.peephole_lstm),
    recurrent(Plain, reference.elman),
    stack("Stack", (4, 7), both=True, skip="dense", variant=False),
    stack("Stack plain", (4, 7), both=False, skip=None),
    stack("Stack residual", (7, 7), both=False, skip="residual"),
    stack("Stack both residual", (4, 4), both=True, skip="residual"),
    Case(
        name="Segmented",
        make=lambda **options: layers.Segmented(
            **{
                "layer": layers.LSTM(U, return_sequences=True, dtype=options.get("dtype")),
                "length": 2,
                **options,
            }
        ),
        oracle=lstm_segments,
        covers=("Segmented",),
        options={"layer": layers.LSTM(2, return_sequences=True), "length": 7},
        segmented=True,
    ),
    Case(
        name="AttentionPool",
        make=lambda **options: layers.AttentionPool(**{"units": U, **options}),
        oracle=reference.attention_pool,
        covers=("AttentionPool",),
        options={
            "units": 7,
            "kernel_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "bias_initializer": keras.initializers.Constant(0.5),
            "context_initializer": keras.initializers.GlorotNormal(seed=6),
            "kernel_regularizer": keras.regularizers.L2(0.1),
        },
    ),
    Case(
        name="WordHashing",
        make=lambda **options: layers.WordHashing(**{"units": U, "trigrams": 11, **options}),
        oracle=reference.word_hashing,
        covers=("WordHashing",),
        options={
            "units": 7,
            "trigrams": 13,
            "embeddings_initializer": keras.initializers.RandomNormal(0.1, 0.2, seed=5),
            "embeddings_regularizer": keras.regularizers.L2(0.1),
        },
        inputs=TRIGRAMS,
        mask=None,
        idle={"embeddings": 0},  # the row of padding
        dynamic=3,
    ),
    Case(
        name="WordDropout",
        make=lambda **options: layers.WordDropout(**{"rate": 0.5, "unknown": 1, **options}),
        oracle=reference.unchanged,
        covers=("WordDropout",),
        options={"rate": 0.25, "unknown": 7, "seed": 11},
        inputs=np.random.default_rng(5).integers(2, 99, size=(B, T)).astype("int32"),
        random={"rate": 0.5},
    ),
)
