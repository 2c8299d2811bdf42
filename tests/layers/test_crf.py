"""The conditional random field against the enumeration of all paths."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import reference
from tests.layers import running
from tests.layers.case import MASK, SEQUENCES, B, D, T
from tests.layers.checks import assert_near
from tests.layers.crf_cases import ALLOWED, crf, tensors
from tests.layers.recurrent_checks import assert_refused
from tests.layers.structured_cases import CASES
from unroll import layers

CRF = next(case for case in CASES if case.name == "CRF")

RNG = np.random.default_rng(8)


def parameters(layer) -> list[np.ndarray]:
    """The layer's weights, minus infinity where a transition is not allowed."""
    weights = layer.get_weights()
    if layer.allowed_transitions is None:
        return weights
    allowed = np.array(layer.allowed_transitions)
    parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
    return [np.where(part, w, -np.inf) for part, w in zip(parts, weights, strict=True)]


@pytest.mark.parametrize("allowed", [None, ALLOWED])
def test_tags_marginals_and_likelihood_by_enumeration(allowed):
    layer = crf(allowed_transitions=allowed)
    potentials, mask = tensors(SEQUENCES.astype(running.PRECISE), MASK)
    gold = RNG.integers(0, D, (B, T))
    tags, scores = (running.numpy(x) for x in layer.decode(potentials, mask))
    marginals = running.numpy(layer.marginals(potentials, mask))
    likelihood = running.numpy(layer.log_likelihood(potentials, *tensors(gold), mask))
    for b, keep in enumerate(MASK):
        found = reference.paths(SEQUENCES[b, keep], *parameters(layer))
        log_z = reference.log_sum(found.values())
        best = max(found, key=found.get)
        assert tuple(tags[b, keep]) == best
        assert (tags[b, ~keep] == 0).all()
        assert scores[b] == pytest.approx(found[best], abs=1e-4)
        expected = np.zeros((T, D))
        for path, score in found.items():
            expected[np.flatnonzero(keep), list(path)] += np.exp(score - log_z)
        assert_near([marginals[b]], [expected], 10 * running.EXACT)
        score = found[tuple(gold[b, keep])]
        if np.isfinite(score):
            assert likelihood[b] == pytest.approx(score - log_z, abs=1e-4)
        else:
            assert likelihood[b] == -np.inf


def test_probabilities_of_all_sequences_sum_to_one():
    layer = crf()
    potentials = SEQUENCES[:1, :4].repeat(D**4, axis=0).astype(running.PRECISE)
    every = np.stack(np.meshgrid(*[range(D)] * 4), axis=-1).reshape(-1, 4)
    found = running.numpy(layer.log_likelihood(*tensors(potentials, every)))
    assert np.exp(found.astype("float64")).sum() == pytest.approx(1, abs=1e-4)


def test_the_gradient_of_log_z_is_the_marginals():
    potentials = SEQUENCES.astype(running.PRECISE)
    layer = CRF.build()
    found = running.evaluate(layer, potentials, (), MASK, [np.ones(B)])
    marginals = running.numpy(layer.marginals(*tensors(potentials, MASK)))
    assert_near([found.gradients[0]], [marginals], 100 * running.EXACT)


def test_transitions_are_obeyed_for_any_potentials():
    labels = ["O", "B-city", "I-city", "B-day", "I-day"]
    layer = layers.CRF(5, allowed_transitions=layers.bio_transitions(labels))
    potentials = 50 * RNG.normal(size=(40, 9, 5)).astype("float32")
    found = running.numpy(layer(*tensors(potentials)))
    free = running.numpy(layers.CRF(5)(*tensors(potentials)))
    assert not any(_breaks_bio([labels[k] for k in row]) for row in found)
    assert sum(_breaks_bio([labels[k] for k in row]) for row in free) > 20
    marginals = running.numpy(layer.marginals(*tensors(potentials)))
    assert marginals[:, 0, [2, 4]].max() == 0


def _breaks_bio(row) -> bool:
    previous_labels = ["O", *row[:-1]]
    return any(
        label.startswith("I-") and previous not in ("B-" + label[2:], label)
        for previous, label in zip(previous_labels, row, strict=True)
    )


def test_without_transitions_it_is_a_softmax_at_each_step():
    layer = layers.CRF(D)
    potentials = ops.convert_to_tensor(SEQUENCES.astype("float32"))
    assert (running.numpy(layer(potentials)) == SEQUENCES.argmax(axis=-1)).all()
    expected = running.numpy(ops.softmax(potentials))
    assert_near([running.numpy(layer.marginals(potentials))], [expected], 1e-5)


def test_long_sequences_of_large_potentials_stay_exact():
    """Compared with a plain recursion in float64."""
    layer = crf("float32")
    potentials = 20 * RNG.normal(size=(2, 300, D)).astype("float32")
    transitions, start, end = (w.astype("float64") for w in layer.get_weights())
    alpha = start + potentials[:, 0]
    for t in range(1, 300):
        options = alpha[:, :, None] + transitions
        top = options.max(axis=1)
        alpha = top + np.log(np.exp(options - top[:, None]).sum(axis=1)) + potentials[:, t]
    expected = [reference.log_sum(row) for row in alpha + end]
    found = running.numpy(layer.log_partition(ops.convert_to_tensor(potentials)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def by_recursion(x, mask, transitions, start, end) -> np.ndarray:
    """log Z of each example in float64, with minus infinity where nothing is allowed."""
    found = np.zeros(len(x))
    with np.errstate(invalid="ignore"):
        for b, keep in enumerate(mask):
            alpha = None
            for row in x[b, keep]:
                if alpha is None:
                    alpha = start + row
                else:
                    alpha = np.logaddexp.reduce(alpha[:, None] + transitions, axis=0) + row
            found[b] = 0.0 if alpha is None else np.logaddexp.reduce(alpha + end)
    return found


class Likelihood(keras.layers.Layer):
    """log P of the gold tags, as a layer for `running.evaluate`."""

    def __init__(self, crf, tags):
        super().__init__()
        self.crf, self.tags, self.supports_masking = crf, tags, True

    def call(self, potentials, mask=None):
        return self.crf.log_likelihood(potentials, self.tags, mask)


def test_an_impossible_entity_is_as_probable_as_its_best_rival():
    """A logit of 100 for O, then for I-x: three paths have the score 100."""
    layer = layers.CRF(3, allowed_transitions=layers.bio_transitions(["O", "B-x", "I-x"]))
    layer.build((None, None, 3))
    potentials = np.array([[[100, 0, 0], [0, 0, 100]]], "float32")
    log_z = running.numpy(layer.log_partition(*tensors(potentials)))
    assert log_z[0] == pytest.approx(100 + np.log(3), rel=1e-6)
    marginals = running.numpy(layer.marginals(*tensors(potentials)))
    assert_near([marginals[0]], [[[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3]]], 1e-5)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(("scale", "transition_scale"), [(1, 50), (100, 1), (100, 50), (1000, 1)])
def test_large_scores_in_float32(scale, transition_scale, constrained):
    """log Z, P and all gradients, compared with a recursion in float64."""
    rng = np.random.default_rng(4)
    names = ["O", "B-x", "I-x", "B-y", "I-y"]
    allowed = layers.bio_transitions(names) if constrained else None
    case = CRF.make(num_tags=5, allowed_transitions=allowed, dtype="float32")
    case.build((None, None, 5))
    case.set_weights([transition_scale * rng.normal(size=w.shape) for w in case.weights])
    x, mask = scale * rng.normal(size=(4, 30, 5)).astype("float32"), rng.random((4, 30)) > 0.3
    mask[3] = False
    found = running.evaluate(case, x, (), mask, [np.ones(4)])
    arguments = [x.astype("float64"), *(w.astype("float64") for w in case.get_weights())]

    def log_z(given):
        weights = given[1:]
        if constrained:
            parts = (allowed[:-1, :-1], allowed[-1, :-1], allowed[:-1, -1])
            weights = [np.where(p, w, -np.inf) for p, w in zip(parts, weights, strict=True)]
        return by_recursion(given[0], mask, *weights)

    np.testing.assert_allclose(found.outputs[0], log_z(arguments), rtol=1e-6)
    for k, gradient in enumerate(found.gradients):
        direction = rng.normal(size=gradient.shape)
        ends = [
            log_z([a + (h * direction if j == k else 0) for j, a in enumerate(arguments)]).sum()
            for h in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]) / 2e-5
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_a_likelihood_close_to_one_is_precise():
    """The difference of two sums of 1,000 large scores."""
    layer = crf("float32")
    x = 100 * np.random.default_rng(5).normal(size=(2, 1000, D)).astype("float32")
    decode, likelihood = map(running.in_graph, (layer.decode, layer.log_likelihood))
    tags, _ = (running.numpy(y) for y in decode(*tensors(x)))
    transitions, start, end = (w.astype("float64") for w in layer.get_weights())
    mask, x64 = np.ones((2, 1000), "bool"), x.astype("float64")
    own = np.take_along_axis(x64, tags[..., None], axis=-1)[..., 0].sum(axis=1)
    score = own + start[tags[:, 0]] + end[tags[:, -1]]
    score += transitions[tags[:, :-1], tags[:, 1:]].sum(axis=1)
    expected = score - by_recursion(x64, mask, transitions, start, end)
    found = running.numpy(likelihood(*tensors(x, tags)))
    assert (expected > -20).all()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_what_is_not_allowed_has_the_probability_zero():
    layer = layers.CRF(3, allowed_transitions=layers.bio_transitions(["O", "B-x", "I-x"]))
    layer.build((None, None, 3))
    x = np.zeros((3, 2, 3), "float32")
    x[2, 1, :2] = -np.inf  # only I-x is left, and
    x[2, 0, 1:] = -np.inf  # only O before it
    gold = np.array([[0, 1], [0, 2], [0, 0]])  # the second breaks the constraint
    likelihood = Likelihood(layer, gold)
    likelihood.build(x.shape)
    found = running.evaluate(likelihood, x, cotangents=[np.ones(3)])
    assert found.outputs[0].tolist()[1:] == [-np.inf, -np.inf]
    assert found.outputs[0][0] == pytest.approx(-np.log(5))
    assert all(np.isfinite(gradient).all() for gradient in found.gradients)
    assert found.gradients[0][0].any()
    assert not found.gradients[0][1:].any()
    loss = running.numpy(layer.loss(*tensors(gold, x)))
    assert float(loss) == pytest.approx(np.log(5) / 3)
    assert running.numpy(layer.log_partition(*tensors(x)))[2] == -np.inf
    assert not running.numpy(layer.marginals(*tensors(x)))[2].any()
    tags, scores = (running.numpy(y) for y in layer.decode(*tensors(x)))
    assert scores[2] == -np.inf
    assert tags.min() >= 0
    assert tags.max() < 3


def test_potentials_that_are_nan():
    """In masked steps they have no effect; in others they affect no other sequence."""
    layer = crf("float32", allowed_transitions=ALLOWED)
    clean = SEQUENCES.astype("float32")
    x = np.where(MASK[..., None], clean, np.nan).astype("float32")
    gold = layer.decode(*tensors(clean, MASK))[0]
    likelihood = Likelihood(layer, running.numpy(gold))
    likelihood.build(x.shape)
    found, expected = (running.evaluate(likelihood, y, (), MASK, [np.ones(B)]) for y in (x, clean))
    assert_near(found.outputs + found.gradients, expected.outputs + expected.gradients, 1e-6)
    for function in (layer.decode, layer.log_partition, layer.marginals):
        pairs = (keras.tree.flatten(function(*tensors(y, MASK))) for y in (x, clean))
        for one, other in zip(*pairs, strict=True):
            assert_near([running.numpy(one)], [running.numpy(other)], 1e-6)
    x = clean.copy()
    x[0, 2, 1] = np.nan
    tags = running.numpy(layer(*tensors(x)))
    assert tags.min() >= 0
    assert tags.max() < D
    assert (tags[1:] == running.numpy(layer(*tensors(clean)))[1:]).all()


def test_gold_tags_out_of_range():
    """An error in eager mode, NaN in a graph. A masked tag may be anything."""
    layer = crf("float32")
    x, tags = SEQUENCES.astype("float32"), np.full((B, T), 1)
    tags[0, 1] = D
    with pytest.raises(ValueError, match=f"tags must be at least 0 and below {D}, got {D}"):
        layer.log_likelihood(*tensors(x, tags))
    mask = tags < D
    assert np.isfinite(running.numpy(layer.log_likelihood(*tensors(x, tags, mask)))).all()
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        found = tf.function(layer.log_likelihood)(*tensors(x, tags)).numpy()
        assert np.isnan(found[0])
        assert np.isfinite(found[1:]).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_policies_do_not_round_the_potentials(policy):
    half = layers.CRF(D, dtype=policy)
    half.build((None, None, D))
    potentials = 1000 + SEQUENCES.astype("float32")
    expected = SEQUENCES.argmax(axis=-1)
    for tags in (half(potentials), half.decode(potentials)[0]):
        assert (running.numpy(tags) == expected).all()


def test_empty_inputs():
    layer = crf("float32", allowed_transitions=ALLOWED)

    def run(x, mask):
        tags, scores = layer.decode(x, mask)
        gold = ops.zeros_like(tags)
        return (tags, scores, layer(x), layer.marginals(x, mask), layer.log_partition(x, mask)), (
            layer.log_likelihood(x, gold, mask)
        )

    modes, compiled = [run], []
    if running.BACKEND == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)]
        modes.append(tf.function(run, input_signature=signature))
        compiled.append(tf.function(run, jit_compile=True))
    for batch, length in ((0, 4), (2, 0), (0, 0)):
        x, mask = np.zeros((batch, length, D), "float32"), np.ones((batch, length), "bool")
        steps = (batch, length)
        # XLA compiles a function for each shape, which takes seconds.
        for mode in modes + (compiled if batch else []):
            found = keras.tree.flatten(mode(*tensors(x, mask)))
            shapes = [tuple(y.shape) for y in found]
            assert shapes == [steps, (batch,), steps, (*steps, D), (batch,), (batch,)]
            for y in found:
                assert not running.numpy(y).any()  # a sequence without steps has log Z = 0
        likelihood = Likelihood(layer, np.zeros((batch, length), "int32"))
        likelihood.build(x.shape)
        found = running.evaluate(likelihood, x, (), mask, [np.ones(batch)])
        assert not any(gradient.any() for gradient in found.gradients)


INVALID = [
    (lambda: layers.CRF(0), ["num_tags", "0"]),
    (lambda: layers.CRF(True), ["num_tags", "True"]),
    (lambda: layers.CRF(3, allowed_transitions=np.ones((3, 3))), ["[4, 4]", "[3, 3]"]),
    (lambda: layers.CRF(3)(np.zeros((2, 5, 4), "float32")), ["[B, T, 3]", "(2, 5, 4)"]),
    (lambda: layers.bio_transitions(["O", "S-city"]), ["B-<name>", "'S-city'"]),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)


def test_sizes_may_be_numpy_integers():
    assert layers.CRF(np.int64(3)).get_config()["num_tags"] == 3
