"""The adaptive softmax: the log-probabilities of targets, embeddings, agreement with PyTorch."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.structured_cases import CUTOFFS
from unroll import layers

V = 13
# Padding, and each token at least once.
TARGETS = np.random.default_rng(7).permutation([*range(V), *range(V), -1, -1, -1, -1])
TARGETS = TARGETS.reshape(B, T).astype("int32")
COUNTS = TARGETS >= 0


def built(dtype=running.PRECISE, **options):
    layer = layers.AdaptiveSoftmax(V, CUTOFFS, 1.5, dtype=dtype, **options)
    layer.build((B, T, D))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape, scale=0.6) for w in layer.weights])
    return layer


def of_all(layer, targets=TARGETS, mask=None):
    """The log-probabilities of targets, taken from those of all tokens."""
    (found,) = running.outputs(layer, SEQUENCES, mask=mask)
    found = np.take_along_axis(found, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    counts = targets >= 0 if mask is None else (targets >= 0) & mask
    return np.where(counts, found, 0.0)


class OfTargets(keras.layers.Layer):
    """The log-probabilities of constant targets as a layer of one input."""

    def __init__(self, softmax, targets, **kwargs):
        super().__init__(**kwargs)
        self.softmax, self.targets = softmax, targets
        self.built = self.supports_masking = True

    def call(self, inputs, mask=None, inputs_mask=None):
        return self.softmax(inputs, ops.convert_to_tensor(self.targets), mask=mask)


class Taken(OfTargets):
    """The same from the log-probabilities of all tokens."""

    def call(self, inputs, mask=None, inputs_mask=None):
        targets = ops.convert_to_tensor(self.targets)
        one_hot = ops.one_hot(targets, V, dtype=self.compute_dtype)  # zeros for padding
        found = ops.sum(one_hot * self.softmax(inputs, mask=mask), axis=-1)
        return found if mask is None else ops.where(mask, found, 0.0)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "masked"])
def test_values_and_gradients_of_targets_are_those_of_all_tokens(mask):
    softmax = built()
    cotangents = [np.random.default_rng(6).normal(size=(B, T))]
    expected = running.evaluate(
        Taken(softmax, TARGETS, dtype=running.PRECISE), SEQUENCES, (), mask, cotangents
    )
    layer = OfTargets(softmax, TARGETS, dtype=running.PRECISE)
    for mode in (running.QUICK, *running.OTHER_MODES):
        found = running.evaluate(layer, SEQUENCES, (), mask, cotangents, mode=mode)
        assert_near(found.outputs, expected.outputs, running.EXACT, mode)
        if mode in running.GRADIENT_MODES:
            assert_near(found.gradients, expected.gradients, 10 * running.EXACT, mode)


@pytest.mark.parametrize("targets", [[-1, -1], [0, 1], [2, 2], [12, 12]])
def test_a_batch_may_lack_any_cluster(targets):
    targets = np.tile(np.array(targets, "int32")[None, :1], (B, T))
    layer = OfTargets(built(), targets, dtype=running.PRECISE)
    for mode in running.GRADIENT_MODES:
        found = running.evaluate(layer, SEQUENCES, cotangents=[np.ones((B, T))], mode=mode)
        assert_near(found.outputs, [of_all(layer.softmax, targets)], running.EXACT)
        assert all(np.isfinite(g).all() for g in found.gradients)


def test_probabilities_add_up_to_one():
    (found,) = running.outputs(built(), SEQUENCES)
    assert_near([np.exp(found).sum(axis=-1)], [np.ones((B, T))], 10 * running.EXACT)


def test_shapes_of_any_rank():
    layer = built()
    x, targets = ops.convert_to_tensor(SEQUENCES), ops.convert_to_tensor(TARGETS)
    expected = of_all(layer)
    assert_near([running.numpy(layer(x[:, 0], targets[:, 0]))], [expected[:, 0]], running.EXACT)
    found = layer(ops.reshape(x, (2, 3, T, D)), ops.reshape(targets, (2, 3, T)))
    assert_near([running.numpy(found)], [expected.reshape(2, 3, T)], running.EXACT)
    assert layer(x[:0], targets[:0]).shape == (0, T)
    assert layer.compute_output_shape((2, 3, T, D), (2, 3, T)) == (2, 3, T)


@pytest.mark.exhaustive
def test_equals_that_of_pytorch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(D, V, list(CUTOFFS), 1.5, head_bias=True).double()
    layer = built()
    head, clusters, bias, *tails = layer.get_weights()
    values = [np.concatenate([head, clusters.T]), bias]
    values += [w if k % 2 else w.T for k, w in enumerate(tails)]
    with torch.no_grad():
        for parameter, value in zip(theirs.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
        x = torch.tensor(SEQUENCES.reshape(-1, D))
        expected = theirs.log_prob(x).numpy().reshape(B, T, V)
        targets = np.maximum(TARGETS, 0)
        of_targets = theirs(x, torch.tensor(targets.ravel()).long()).output.numpy().reshape(B, T)
    assert_near(running.outputs(layer, SEQUENCES), [expected], running.EXACT)
    found = layer(ops.convert_to_tensor(SEQUENCES), ops.convert_to_tensor(targets))
    assert_near([running.numpy(found)], [of_targets], running.EXACT)


def test_embeddings_are_rows_of_the_same_weights():
    """A row of a tail is multiplied with its projection."""
    layer = layers.AdaptiveSoftmax(V, CUTOFFS, 1.5, input_size=D, dtype=running.PRECISE)
    found = layer(ops.reshape(ops.arange(V, dtype="int32"), (1, V)), embed=True)
    head, _, _, p_1, e_1, p_2, e_2 = layer.get_weights()
    expected = np.concatenate([head, e_1 @ p_1.T, e_2 @ p_2.T])
    assert_near([running.numpy(found)[0]], [expected], running.EXACT)
    assert [w.shape for w in layer.weights] == [w.shape for w in built().weights]
    assert layer(ops.convert_to_tensor(SEQUENCES)).shape == (B, T, V)


@keras.saving.register_keras_serializable(package="unroll_tests")
def mean_loss(_, log_probabilities):
    return -ops.mean(log_probabilities)


def test_a_model_with_targets_and_tied_embeddings_is_saved(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    targets = keras.Input((None,), dtype="int32")
    softmax = layers.AdaptiveSoftmax(V, CUTOFFS, input_size=8)
    x = layers.LSTM(8, return_sequences=True)(softmax(tokens, embed=True))
    outputs = softmax(x, targets)
    assert outputs.shape == (None, None)
    model = keras.Model([tokens, targets], outputs)
    model.compile("sgd", loss=mean_loss)
    given = [np.maximum(TARGETS, 0), TARGETS]
    losses = [model.train_on_batch(given, np.zeros((B, T))) for _ in range(3)]
    assert losses[2] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert len(again.weights) == len(model.weights)
    tensors = running.tensors(given)[0]
    assert_near([running.numpy(again(tensors))], [running.numpy(model(tensors))], 1e-6)


@pytest.mark.parametrize("policy", running.POLICIES)
def test_sums_of_a_large_vocabulary_are_float32(policy):
    """With all logits equal, log P of a token is -log of the number of tokens of the head."""
    layer = layers.AdaptiveSoftmax(40_000, [20_000], dtype=policy)
    layer.build((1, 1, 2))
    layer.set_weights([np.zeros(w.shape) for w in layer.weights])
    x = ops.zeros((1, 1, 2))
    expected = -np.log(20_001) * np.array([1.0, 2.0])
    found = [running.numpy(layer(x, ops.convert_to_tensor([[k]]))) for k in (0, 30_000)]
    assert_near([np.array(found).ravel()], [expected], 0.01)
    assert_near([running.numpy(layer(x))[0, 0, [0, 30_000]]], [expected], 0.01)


@pytest.mark.skipif(running.BACKEND == "torch", reason="PyTorch raises an error of its own")
def test_targets_out_of_range_are_no_tokens():
    x, targets = ops.convert_to_tensor(SEQUENCES), np.where(TARGETS == 3, V, TARGETS)
    layer = built()
    if running.BACKEND == "jax":
        found = running.numpy(layer(x, ops.convert_to_tensor(targets)))
        assert (np.isnan(found) == (targets == V)).all()
        return
    with pytest.raises(Exception, match="label value of 4"):
        layer(x, ops.convert_to_tensor(targets))
