"""The layers of key terms: candidates against enumeration, selections against brute force."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from unroll.apps.key_terms.network import (
    CandidateLoss,
    CandidateScores,
    SelectSpans,
    SpanCRF,
    begin_and_inside,
)

TAGS = ["B-a", "B-b", "I-a", "I-b", "O"]
N = 3  # max_words
MASK = np.array([[1] * 5, [1, 1, 1, 0, 0], [0] * 5], bool)


def spans_of(tags) -> list[tuple[int, int, int]]:
    """The first word, the end and the label of each span of ids of `TAGS`."""
    found, t = [], 0
    while t < len(tags):
        end = t + 1
        if tags[t] < 2:
            while end < len(tags) and tags[end] == tags[t] + 2:
                end += 1
            found.append((t, end, int(tags[t])))
        t = end
    return found


def test_a_crf_gives_the_probability_of_each_candidate():
    """Against the sum over all sequences of tags."""
    rng = np.random.default_rng(0)
    crf = SpanCRF(TAGS, N)
    potentials = rng.normal(scale=2, size=(3, 5, 5)).astype("float32")
    crf.build(potentials.shape)
    for weight in crf.weights:
        weight.assign(rng.normal(size=weight.shape))
    transitions, start, end = (np.array(w) for w in (crf.transitions, crf.start, crf.end))
    allowed = np.array(crf.allowed_transitions)
    expected = np.zeros((3, 5, N, 2))
    for row, length in enumerate(MASK.sum(axis=1)[:2]):
        total = 0
        for tags in itertools.product(range(5), repeat=int(length)):
            pairs = [*itertools.pairwise(tags)]
            if not allowed[-1, tags[0]] or not all(allowed[pair] for pair in pairs):
                continue
            score = sum(potentials[row, t, tag] for t, tag in enumerate(tags))
            score += start[tags[0]] + end[tags[-1]] + sum(transitions[pair] for pair in pairs)
            total += np.exp(score)
            for begin, stop, label in spans_of(tags):
                if stop - begin <= N:
                    expected[row, begin, stop - begin - 1, label] += np.exp(score)
        expected[row] /= total
    found = crf(potentials, mask=MASK)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected[:2].max() > 0.3


def test_a_label_without_longer_spans_has_candidates_of_one_word():
    crf = SpanCRF(["B-a", "O"], N)
    probabilities = np.array(crf(np.array([[[1.0, 0.0], [0.0, 0.0]]], "float32")))
    np.testing.assert_allclose(probabilities[0, :, 0, 0], [1 / (1 + np.exp(-1)), 0.5], atol=1e-6)
    assert not probabilities[:, :, 1:].any()
    tags, _ = SelectSpans(["B-a", "O"], 0.3)(np.full((1, 2, N, 1), 0.9, "float32"))
    assert np.array(tags).tolist() == [[0, 0]]


def best_selection(probabilities: np.ndarray, threshold: float) -> tuple[float, list[tuple]]:
    """The best spans of a text by trying all selections."""
    length = len(probabilities)

    def best(t: int) -> tuple[float, list[tuple]]:
        if t == length:
            return 0.0, []
        value, chosen = best(t + 1)
        for size in range(1, min(N, length - t) + 1):
            own = probabilities[t, size - 1]
            rest, others = best(t + size)
            if (total := own.max() - threshold + rest) > value:
                value, chosen = total, [(t, t + size, int(own.argmax())), *others]
        return value, chosen

    return best(0)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_selection_has_the_largest_sum(threshold):
    rng = np.random.default_rng(1)
    probabilities = rng.random((8, 6, N, 2)).astype("float32")
    mask = np.arange(6) < rng.integers(0, 7, (8, 1))
    tags, scores = (np.array(x) for x in SelectSpans(TAGS, threshold)(probabilities, mask=mask))
    number = 0
    for row, length in enumerate(mask.sum(axis=1)):
        _, expected = best_selection(probabilities[row, :length], threshold)
        assert spans_of(tags[row, :length]) == expected
        assert not tags[row, length:].any()
        own = np.zeros(6)
        for begin, end, label in expected:
            own[begin] = probabilities[row, begin, end - begin - 1, label]
        np.testing.assert_allclose(scores[row], own)
        number += len(expected)
    assert number > 5


def test_a_long_text_is_selected_as_its_parts():
    """The values of a selection do not grow with the text, and stay precise."""
    rng = np.random.default_rng(2)
    part = rng.random((1, 20, N, 2)).astype("float32")
    part[:, -1] = part[:, -2, 1:] = part[:, -3, 2:] = 0  # no span ends in the next part
    part[:, -1, 0] = 0.5
    select = tf.function(SelectSpans(TAGS, 0.3))
    whole = select(np.tile(part, (1, 100, 1, 1)))[0]
    assert (np.array(whole) == np.tile(select(part)[0], (1, 100))).all()


def test_the_targets_of_candidates():
    tags = np.array([[0, 2, 2, 1, 4], [0, 0, 3, -1, -1]])
    targets, counted = (np.array(x) for x in CandidateLoss(TAGS, N).targets(tags))
    assert np.argwhere(targets).tolist() == [[0, 0, 2, 0], [0, 3, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert counted[1, :, :, 0].tolist() == [
        *([True, True, True], [True, True, False], [True, False, False]),
        *([False] * 3,) * 2,
    ]


def test_the_loss_of_candidates_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    tags = np.array([[0, 2, 4, 1], [4, 1, -1, -1]])
    scores = rng.normal(size=(2, 4, N * 2)).astype("float32")
    loss = CandidateLoss(TAGS, N)
    targets, counted = (np.array(x) for x in loss.targets(tags))
    p = 1 / (1 + np.exp(-scores.reshape(targets.shape)))
    each = -np.log(np.where(targets > 0, p, 1 - p)) * counted
    assert float(loss(tags, scores)) == pytest.approx(each.sum() / 2, rel=1e-5)


def test_the_scores_of_candidates():
    """Against the equations of the docstring; padding has no effect; each weight has a gradient."""
    rng = np.random.default_rng(3)
    states, document = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 3))
    weights, mask = rng.random((2, 5)), np.array([[1] * 5, [1, 1, 1, 0, 0]], bool)
    weights[~mask], states[~mask] = 0, 0
    layer = CandidateScores(TAGS, N, 6, dtype="float32")
    arguments = [x.astype("float32") for x in (states, document, weights)]
    layer.build(*(x.shape for x in arguments))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    found = np.array(layer(*arguments, mask=mask))
    assert found.shape == (2, 5, N, 2)
    w_b, w_e, w_m, w_p = (
        np.array(x.kernel) for x in (layer.of_first, layer.of_last, layer.of_mean, layer.of_product)
    )
    for row, length in enumerate((5, 3)):
        whole = document[row] @ np.array(layer.of_document.kernel) + layer.of_document.bias
        for begin, size in itertools.product(range(length), range(1, N + 1)):
            if begin + size > length:
                continue
            own = states[row, begin : begin + size]
            mean = (own @ w_m).mean(axis=0)
            u = own[0] @ w_b + own[-1] @ w_e + mean + (document[row] @ w_p) * mean + whole
            u += length * weights[row, begin : begin + size].sum() * np.array(layer.of_attention)
            u = np.tanh(u + np.array(layer.of_length)[size - 1])
            score = u @ np.array(layer.head.kernel) + np.array(layer.head.bias)
            np.testing.assert_allclose(found[row, begin, size - 1], score[:2], atol=1e-4)
    padded = [np.pad(x, [[0, 0], [0, 2], [0, 0]][: x.ndim]) for x in arguments[::2]]
    padded = layer(padded[0], arguments[1], padded[1], mask=np.pad(mask, [[0, 0], [0, 2]]))
    np.testing.assert_allclose(padded[:, :3], found[:, :3], atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        SpanCRF(TAGS, N),
        CandidateScores(TAGS, N, 6),
        CandidateLoss(TAGS, N),
        SelectSpans(TAGS, 0.4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_is_the_same_from_its_configuration(layer):
    serialized = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()


def test_labels_are_in_the_order_of_their_names():
    assert begin_and_inside(TAGS) == ([0, 1], [2, 3])
    assert begin_and_inside(TAGS[::-1]) == ([4, 3], [2, 1])
