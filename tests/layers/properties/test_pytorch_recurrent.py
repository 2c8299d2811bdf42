"""`LSTM`, `GRU` and `ElmanRNN` against PyTorch's LSTM, GRU and RNN.

Outputs, final states and the gradients of inputs, initial states and weights, in one and in both
directions, with masks of any shape: PyTorch gets a packed sequence of the steps that are not
masked.
"""

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.properties.common import FIFTY, SEEDS, given, masks, st
from unroll import layers

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")

TOLERANCE = 1e-10 if running.PRECISE == "float64" else 1e-4
# The layer, PyTorch's, the blocks of PyTorch's rows in the order of Keras's columns.
KINDS = {
    "LSTM": (layers.LSTM, torch.nn.LSTM, (0, 1, 2, 3)),
    "GRU": (layers.GRU, torch.nn.GRU, (1, 0, 2)),
    "RNN": (layers.ElmanRNN, torch.nn.RNN, (0,)),
}


@st.composite
def cases(draw):
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    return {
        "mask": draw(masks(batch, time)),
        "features": draw(st.integers(1, 5)),
        "units": draw(st.integers(1, 6)),
        "directions": draw(st.integers(1, 2)),
        "seed": draw(SEEDS),
    }


@pytest.mark.parametrize("kind", KINDS)
@FIFTY
@given(case=cases())
def test_outputs_states_and_gradients(kind, case):
    layer_class, torch_class, order = KINDS[kind]
    mask, units, directions = case["mask"], case["units"], case["directions"]
    rng = np.random.default_rng(case["seed"])
    inputs = rng.normal(size=(*mask.shape, case["features"]))
    layer = layer_class(
        units,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=True,
        dtype=running.PRECISE,
    )
    if directions == 2:
        layer = keras.layers.Bidirectional(layer, dtype=running.PRECISE)
    layer.build(inputs.shape)
    module = torch_class(
        case["features"], units, bidirectional=directions == 2, batch_first=True
    ).double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))))
    parameters = [p.detach().numpy() for p in module.parameters()]
    layer.set_weights(to_keras(kind, parameters, order, combine=np.add))
    count = directions * (2 if kind == "LSTM" else 1)
    states = [rng.normal(size=(len(mask), units)) for _ in range(count)]
    factors = [rng.normal(size=(*mask.shape, directions * units))]
    factors += [rng.normal(size=(len(mask), units)) for _ in range(count)]
    outputs, gradients = by_torch(module, inputs, states, mask, factors)
    n = 1 + count
    # Both biases of PyTorch's LSTM and RNN have the gradient of their sum.
    gradients[n:] = to_keras(kind, gradients[n:], order, combine=lambda a, b: a)
    found = running.evaluate(layer, inputs, states, mask, factors)
    assert_near(found.outputs, outputs, TOLERANCE)
    assert_near(found.gradients, gradients, TOLERANCE, "gradients")


def to_keras(kind: str, parameters: list, order: tuple, combine) -> list:
    """W, R and b of each direction: blocks in Keras's order, and the two biases combined."""

    def reordered(rows):
        blocks = np.split(rows, len(order))
        return np.concatenate([blocks[k] for k in order])

    found = []
    for start in range(0, len(parameters), 4):
        kernel, recurrent, bias, recurrent_bias = map(reordered, parameters[start : start + 4])
        pair = (bias, recurrent_bias)
        found += [kernel.T, recurrent.T, np.stack(pair) if kind == "GRU" else combine(*pair)]
    return found


def by_torch(module, inputs, states, mask, factors) -> tuple:
    """The outputs and final states of PyTorch, and the gradients of all that goes in.

    The states are those of `keras.layers.Bidirectional`: of each direction its h, then its c.
    """
    x = torch.tensor(inputs, requires_grad=True)
    start = [torch.tensor(s, requires_grad=True) for s in states]
    kinds = len(start) // (2 if module.bidirectional else 1)
    stacked = [torch.stack(start[k::kinds]) for k in range(kinds)]  # [directions, B, U] each
    packed = torch.nn.utils.rnn.pack_sequence(
        [row[m] for row, m in zip(x, mask, strict=True)], enforce_sorted=False
    )
    outputs, final = module(packed, tuple(stacked) if kinds == 2 else stacked[0])
    compact, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    scattered = []
    for row, keep in zip(compact, mask, strict=True):
        whole = torch.zeros(mask.shape[1], row.shape[1], dtype=row.dtype)
        whole[torch.tensor(keep)] = row[: keep.sum()]
        scattered.append(whole)
    final = final if kinds == 2 else (final,)
    found = [torch.stack(scattered)]
    found += [state[k] for k in range(len(start) // kinds) for state in final]
    total = sum((y * torch.tensor(c)).sum() for y, c in zip(found, factors, strict=True))
    wanted = [x, *start, *module.parameters()]
    gradients = torch.autograd.grad(total, wanted)
    return [y.detach().numpy() for y in found], [g.numpy() for g in gradients]
