"""`CRF` against the package `pytorch-crf`: likelihoods, their gradients, and Viterbi paths."""

import keras
import numpy as np
import pytest

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.properties.common import FIFTY, SEEDS, given, lengths, st
from unroll import layers

torch = pytest.importorskip("torch", reason="pytorch-crf needs PyTorch")
torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf is the oracle")

TOLERANCE = 1e-10 if running.PRECISE == "float64" else 1e-4


class Likelihood(layers.CRF):
    """A layer that returns log P(tags)."""

    def call(self, potentials, mask=None):
        return self.log_likelihood(potentials, self.tags, mask)

    def compute_output_spec(self, potentials, mask=None):
        return keras.KerasTensor(potentials.shape[:1], self.compute_dtype)


@st.composite
def cases(draw):
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    return {
        "time": time,
        "lengths": draw(lengths(batch, time)),
        "num_tags": draw(st.integers(1, 5)),
        # Scores of hundreds of nats, too: sums of exponentials overflow there.
        "scale": draw(st.sampled_from([0.5, 5.0, 100.0])),
        "seed": draw(SEEDS),
    }


def arrays(case) -> tuple:
    rng = np.random.default_rng(case["seed"])
    size, k = case["lengths"], case["num_tags"]
    shape = (len(size), case["time"])
    potentials = case["scale"] * rng.normal(size=(*shape, k))
    weights = [case["scale"] * rng.normal(size=s) for s in ((k, k), (k,), (k,))]
    tags = rng.integers(k, size=shape)
    return potentials, weights, tags, np.arange(case["time"]) < size[:, None], rng


def both(layer_class, case) -> tuple:
    """The layer, and the module with the same weights."""
    potentials, weights, *_ = arrays(case)
    layer = layer_class(case["num_tags"], dtype=running.PRECISE)
    layer.build(potentials.shape)
    layer.set_weights(weights)
    module = torchcrf.CRF(case["num_tags"], batch_first=True).double()
    parameters = (module.transitions, module.start_transitions, module.end_transitions)
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(torch.tensor(weight))
    return layer, module, parameters


@FIFTY
@given(case=cases())
def test_likelihoods_and_gradients(case):
    layer, module, parameters = both(Likelihood, case)
    potentials, _, layer.tags, mask, rng = arrays(case)
    factors = rng.normal(size=len(mask))
    x = torch.tensor(potentials, requires_grad=True)
    expected = module(x, torch.tensor(layer.tags), torch.tensor(mask), reduction="none")
    total = (expected * torch.tensor(factors)).sum()
    # A single step has no transitions.
    gradients = torch.autograd.grad(
        total, [x, *parameters], allow_unused=True, materialize_grads=True
    )
    found = running.evaluate(layer, potentials, (), mask, [factors])
    size = max(1.0, case["scale"])
    assert_near(found.outputs, [expected.detach().numpy()], size * TOLERANCE)
    assert_near(found.gradients, [g.numpy() for g in gradients], size * TOLERANCE, "gradients")


@FIFTY
@given(case=cases())
def test_best_paths(case):
    layer, module, _ = both(layers.CRF, case)
    potentials, _, _, mask, _ = arrays(case)
    paths = module.decode(torch.tensor(potentials), torch.tensor(mask))
    expected = np.zeros(mask.shape, int)
    for row, path in zip(expected, paths, strict=True):
        row[: len(path)] = path
    assert_near(running.outputs(layer, potentials, mask=mask), [expected], 0.0)
