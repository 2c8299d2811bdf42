"""The cases of the recurrent layers and of their wrappers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from tests import reference
from tests.layers.case import SEQUENCES, Case, D, Recurrent, U
from unroll import layers
from unroll.layers.recurrent import RecurrentCell, RecurrentLayer

RECURRENT_OPTIONS = {
    "units": 7,
    "activation": "softsign",
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
    "recurrent_weight_dropout": 0.375,
    "seed": 11,
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "use_cudnn": False,
    "zero_output_for_mask": True,
    "name": "another",
    "dtype": keras.DTypePolicy("float64"),
    "trainable": False,
}


GATED = {"recurrent_activation": "hard_sigmoid"}
LSTM = {
    **GATED,
    "unit_forget_bias": False,
    "projection": 5,
    "projection_clip": 2.5,
    "cell_clip": 1.5,
    "zoneout_cell": 0.25,
    "zoneout_hidden": 0.125,
}
ZONEOUT = {"zoneout_cell": 0.25, "zoneout_hidden": 0.125}
SLSTM = {"unit_forget_bias": False, "heads": 3, "forget_activation": "exponential"}
MLSTM = {**SLSTM, "key_size": 5, "activation": "softsign"}
# No weight of the layer is trained: regularizers and constraints are refused.
ESN = {
    "connectivity": 0.75,
    "spectral_radius": 0.5,
    "use_norm2": True,
    **{
        f"{part}_{kind}": None
        for part in ("kernel", "recurrent", "bias")
        for kind in ("regularizer", "constraint")
    },
}
LRU = {"state_units": 5, "min_radius": 0.5, "max_radius": 0.75, "max_phase": 1.5}
QRNN = {"window": 4, "pooling": "f"}
OUTPUT_MAP = {"output_units": 3, "output_activation": "softsign"}


def recurrent(
    layer_class: type[RecurrentLayer],
    oracle: Callable,
    name: str = "",
    options=None,
    idle=None,
    variant: bool | None = None,
    random=None,
    positive=(),
    trained=True,
    exhaustive=False,
    **settings,
) -> Recurrent:
    """The case of a recurrent layer.

    Args:
        layer_class: the layer.
        oracle: its equations in `tests.reference`.
        name: the name of the case if the layer has several.
        options: an uncommon value for each argument that only this layer has.
        variant: as in `Case`; by default if there is a name.
        random: as in `Case`; by default dropout.
        positive, trained, exhaustive: as in `Case`.
        **settings: the arguments that the case tests. The oracle must follow them.
    """
    settings = {"units": U, **settings}
    common, rates = RECURRENT_OPTIONS, {"dropout": 0.5, "recurrent_dropout": 0.5}
    if not issubclass(layer_class.cell_class, RecurrentCell):
        common, rates = (
            {k: v for k, v in given.items() if not k.startswith("recurrent_")}
            for given in (common, rates)
        )
    layer = layer_class(**settings)
    layer.build(SEQUENCES.shape)
    return Recurrent(
        name=name or layer_class.__name__,
        make=lambda **options: layer_class(
            **{"return_sequences": True, "return_state": True, **settings, **options}
        ),
        oracle=oracle,
        covers=(layer_class.__name__, layer_class.cell_class.__name__),
        options=common | settings | {"units": 6} | (options or {}),
        states=tuple(layer.state_size),
        random=rates if random is None else random,
        idle=idle or {},
        positive=positive,
        trained=trained,
        variant=bool(name) if variant is None else variant,
        exhaustive=exhaustive,
        layer_class=layer_class,
    )


def stack(
    name: str, units: tuple[int, int], both: bool, skip: str | None, variant: bool = True
) -> Case:
    """A stack of an LSTM and an Elman network."""
    plan = [(reference.lstm, 3, 2), (reference.elman, 3, 1)]
    return Case(
        name=name,
        make=lambda **options: layers.Stack(
            **{
                "layers": [
                    layers.LSTM(units[0], dtype=options.get("dtype")),
                    layers.ElmanRNN(units[1], dtype=options.get("dtype")),
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


def residual_block(
    name: str, width: int | None, input_units: int | None, gated: bool, expansion: float | None
) -> Case:
    """A residual block of an LSTM. The first one has all parts, the others are variants."""
    features = D if input_units is None else input_units
    return Case(
        name=name,
        make=lambda **options: layers.ResidualBlock(
            **{
                "layer": layers.LSTM(U, dtype=options.get("dtype")),
                "input_units": input_units,
                "kernel_size": width,
                "gated": gated,
                "expansion": expansion,
                "return_state": True,
                **options,
            }
        ),
        oracle=partial(
            reference.residual_block,
            reference.lstm,
            width=width,
            projected=input_units is not None,
            gated=gated,
            wide=expansion or 0,
        ),
        covers=("ResidualBlock",),
        options={
            "layer": layers.GRU(2),
            "input_units": 7,
            "kernel_size": 5,
            "gated": False,
            "expansion": 0.5,
            "activation": "gelu",
            "normalization": "layer",
            "epsilon": 0.01,
            "dropout": 0.25,
            "seed": 7,
            "return_state": True,
        },
        states=(*(() if width is None else ((width - 1) * features,)), U, U),
        random={"dropout": 0.5},
        variant=name != "ResidualBlock",
        exhaustive=True,
    )


def lstm_segments(weights, sequences, states=(), mask=None):
    def oracle(weights, part, mask):
        return reference.lstm(weights, part, reference.zeros(part, U, U), mask)

    return reference.segments(oracle, 2, weights, sequences, mask=mask)


def extended_lstm(layer_class: type[RecurrentLayer], oracle: Callable, **settings) -> Recurrent:
    """The case of a layer of the LSTM family with a projection, clipping and zoneout.

    In training with zoneout, outputs are those of no dropout mask: `test_zoneout.py` tests them.
    """
    more, size = {}, 2
    if layer_class is layers.LayerNormLSTM:  # which amplifies rounding errors of few units
        more, size = {"epsilon": 0.01}, 7
    return recurrent(
        layer_class,
        partial(reference.extended_lstm, oracle, **settings),
        f"{layer_class.__name__} with {', '.join(['projection', *settings])}",
        options={**LSTM, **more},
        variant=False,
        random={} if {"zoneout_cell", "zoneout_hidden"} & set(settings) else None,
        exhaustive=True,
        projection=size,
        **settings,
    )


# The part of R in a clockwork network of two modules from the faster to the slower module.
FAST_TO_SLOW = np.kron([[0, 1], [0, 0]], np.ones((U // 2, U // 2))).astype("bool")

CASES: tuple[Case, ...] = (
    recurrent(layers.LSTM, reference.lstm, options=LSTM),
    recurrent(layers.LSTM, reference.lstm, "LSTM without bias", use_bias=False, options=LSTM),
    recurrent(layers.PeepholeLSTM, reference.peephole_lstm, options=LSTM),
    recurrent(layers.CoupledLSTM, reference.coupled_lstm, options=LSTM),
    recurrent(layers.LayerNormLSTM, reference.layer_norm_lstm, options={**LSTM, "epsilon": 0.01}),
    recurrent(layers.ContextLSTM, reference.context_lstm, options=LSTM, context_size=1),
    recurrent(layers.GRU, reference.gru, options={**GATED, "reset_after": False}),
    recurrent(
        layers.GRU, reference.gru_of_the_paper, "GRU of the paper", options=GATED, reset_after=False
    ),
    recurrent(
        layers.GRU,
        reference.gru,
        "GRU without bias",
        use_bias=False,
        options={**GATED, "reset_after": False},
    ),
    recurrent(layers.ElmanRNN, reference.elman, options=OUTPUT_MAP),
    recurrent(
        layers.ElmanRNN, reference.elman, "ElmanRNN with output", options=OUTPUT_MAP, output_units=7
    ),
    # With these inputs each unit is active after each other unit at least once.
    replace(recurrent(layers.IRNN, reference.irnn, options=OUTPUT_MAP), inputs=-SEQUENCES),
    recurrent(layers.JordanRNN, reference.jordan, options=OUTPUT_MAP, output_units=7),
    recurrent(
        layers.SCRN, reference.scrn, options={"context_units": 7, "alpha": 0.5}, context_units=2
    ),
    recurrent(
        layers.ClockworkRNN,
        partial(reference.clockwork, periods=(1, 2)),
        options={"periods": [1, 3]},
        idle={"recurrent_kernel": FAST_TO_SLOW},
        periods=[1, 2],
    ),
    recurrent(
        layers.ClockworkRNN,
        partial(reference.clockwork, periods=(2, 2, 3, 7)),
        "ClockworkRNN of four periods",
        options={"periods": [1, 3]},
        idle={"recurrent_kernel": np.tri(U, k=-1).T.astype("bool")},
        periods=[2, 2, 3, 7],
    ),
    # With these inputs no unit is near a jump of its second derivative.
    replace(
        recurrent(layers.IndRNN, reference.ind_rnn, options={"time_steps": 9}, exhaustive=True),
        inputs=-SEQUENCES,
    ),
    replace(
        recurrent(
            layers.SLSTM,
            reference.slstm,
            options={**GATED, **SLSTM},
            positive=(2,),
            exhaustive=True,
            heads=2,
        ),
        inputs=-SEQUENCES,
    ),
    recurrent(
        layers.SLSTM,
        partial(reference.slstm, forget_gate=np.exp),
        "SLSTM of one head with exponential gates",
        options={**GATED, **SLSTM},
        variant=False,
        positive=(2,),
        exhaustive=True,
        forget_activation="exponential",
    ),
    recurrent(
        layers.MLSTM,
        partial(reference.mlstm, heads=2),
        options=MLSTM,
        exhaustive=True,
        heads=2,
        key_size=3,
    ),
    recurrent(
        layers.MLSTM,
        partial(reference.mlstm, forget_gate=np.exp, activation=np.tanh),
        "MLSTM of one head with exponential gates",
        options=MLSTM,
        exhaustive=True,
        forget_activation="exponential",
        activation="tanh",
    ),
    recurrent(
        layers.NAS,
        reference.nas,
        options={**GATED, "use_bias": False, "projection": 9},
        exhaustive=True,
        use_bias=True,
        projection=2,
    ),
    recurrent(
        layers.ESN,
        partial(reference.esn, leaky=0.75),
        options={**ESN, "leaky": 0.5},
        trained=False,
        exhaustive=True,
        leaky=0.75,
    ),
    recurrent(layers.MinGRU, reference.min_gru),
    recurrent(
        layers.MinGRU,
        partial(reference.min_gru, activation=reference.identity),
        "MinGRU with linear candidates",
        variant=False,
        exhaustive=True,
        activation="linear",
    ),
    recurrent(layers.MinLSTM, reference.min_lstm, exhaustive=True),
    recurrent(layers.RGLRU, reference.rg_lru, options={"exponent": 4.0}, exhaustive=True),
    recurrent(layers.LRU, reference.lru, options=LRU, exhaustive=True),
    recurrent(
        layers.LRU,
        reference.lru,
        "LRU with a vector",
        options={**LRU, "state_units": 5},
        exhaustive=True,
        units=D,
    ),
    recurrent(layers.QRNN, reference.qrnn, options=QRNN, exhaustive=True),
    recurrent(
        layers.QRNN,
        partial(reference.qrnn, pooling="f"),
        "QRNN with f-pooling",
        options=QRNN,
        exhaustive=True,
        pooling="f",
        window=3,
    ),
    recurrent(
        layers.QRNN,
        partial(reference.qrnn, pooling="ifo"),
        "QRNN with ifo-pooling",
        options=QRNN,
        exhaustive=True,
        pooling="ifo",
        window=1,
    ),
    recurrent(layers.SRU, reference.sru, options={"highway_bias": -1.0}, exhaustive=True),
    recurrent(
        layers.SRU,
        partial(reference.sru, highway_bias=-2.0),
        "SRU with a highway",
        options={"highway_bias": -1.0},
        exhaustive=True,
        highway_bias=-2.0,
        units=D,
    ),
    extended_lstm(layers.LSTM, reference.lstm, projection_clip=0.6, cell_clip=0.7),
    extended_lstm(layers.PeepholeLSTM, reference.peephole_lstm, zoneout_cell=0.25),
    extended_lstm(layers.CoupledLSTM, reference.coupled_lstm, cell_clip=0.7, zoneout_hidden=0.25),
    extended_lstm(layers.LayerNormLSTM, reference.layer_norm_lstm, **ZONEOUT),
    stack("Stack", (4, 7), both=True, skip="dense", variant=False),
    stack("Stack plain", (4, 7), both=False, skip=None),
    stack("Stack residual", (7, 7), both=False, skip="residual"),
    stack("Stack both residual", (4, 4), both=True, skip="residual"),
    residual_block("ResidualBlock", 3, 8, True, 7 / 3),
    residual_block("ResidualBlock of a convolution", 4, None, False, None),
    residual_block("ResidualBlock of a layer alone", None, None, False, None),
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
)
