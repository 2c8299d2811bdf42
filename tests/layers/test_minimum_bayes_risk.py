"""Minimum Bayes risk against its definition: random cases, ties, what is missing, empty batches."""

import collections

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.layers.test_decoding import NEEDS_TENSORFLOW
from unroll import layers
from unroll.layers.decoding import SearchResult


def result(rows: list, length: int, log_probs=None) -> SearchResult:
    """Sequences `[B, n]` as the result of a search."""
    tokens = np.zeros((len(rows), len(rows[0]) if rows else 2, length), "int32")
    lengths = np.zeros(tokens.shape[:2], "int32")
    for b, own in enumerate(rows):
        for k, row in enumerate(own):
            tokens[b, k, : len(row)], lengths[b, k] = row, len(row)
    log_probs = np.zeros(tokens.shape[:2]) if log_probs is None else np.array(log_probs)
    tensors = (tokens, lengths, *[log_probs.astype("float32")] * 2)
    return SearchResult(*map(ops.convert_to_tensor, tensors), None)


def similarity(candidate: list, sample: list, order: int) -> float:
    """u of the docstring of `minimum_bayes_risk`."""
    grams = [
        collections.Counter(
            tuple(tokens[k : k + n])
            for n in range(1, order + 1)
            for k in range(len(tokens) - n + 1)
        )
        for tokens in (candidate, sample)
    ]
    total = sum(each.total() for each in grams)
    return 2 * (grams[0] & grams[1]).total() / total if total else 1.0


def expected(candidates, samples, order, exists, counts) -> list[tuple]:
    """The ranked `(score, number)` of the candidates of one example."""
    used = [row for row, counted in zip(samples, counts, strict=True) if counted]
    scores = [
        float(np.mean([similarity(row, each, order) for each in used] or [0])) if there else -1e9
        for row, there in zip(candidates, exists, strict=True)
    ]
    return sorted(enumerate(scores), key=lambda each: (-each[1], each[0]))


def random_rows(rng, batch: int, n: int, length: int) -> list:
    return [
        [rng.integers(1, 4, size=rng.integers(0, length + 1)).tolist() for _ in range(n)]
        for _ in range(batch)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_random_cases_equal_the_definition(seed):
    """Short sequences of three tokens have many ties; some candidates and samples are missing."""
    rng = np.random.default_rng(seed)
    candidates, samples = random_rows(rng, 3, 5, 4), random_rows(rng, 3, 4, 6)
    exists, counts = rng.random((3, 5)) < 0.8, rng.random((3, 4)) < 0.8
    order, n = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    found = layers.minimum_bayes_risk(
        result(candidates, 4, np.where(exists, -1.0, -1e9)),
        result(samples, 6, np.where(counts, -1.0, -1e9)),
        order=order,
        num_return_sequences=n,
    )
    for b in range(3):
        ranked = expected(candidates[b], samples[b], order, exists[b], counts[b])[:n]
        assert_near([running.numpy(found.scores)[b]], [[score for _, score in ranked]], 1e-6)
        tokens, lengths = running.numpy(found.tokens)[b], running.numpy(found.lengths)[b]
        own = [row[:k].tolist() for row, k in zip(tokens, lengths, strict=True)]
        assert own == [candidates[b][k] for k, _ in ranked]


def test_missing_samples_do_not_count():
    """The samples of a beam with fewer sequences than requested, or of a search that met NaN."""
    candidates = result([[[4, 5], [6]]], 2)
    samples = result([[[6], [4, 5], [4, 5], [4, 5]]], 2, [[-1.0, -1e9, np.nan, -np.inf]])
    found = layers.minimum_bayes_risk(candidates, samples, num_return_sequences=2)
    assert running.numpy(found.tokens)[0].tolist() == [[6, 0], [4, 5]]
    assert_near([running.numpy(found.scores)], [[[1, 0]]], 1e-6)


def test_integers_may_be_those_of_numpy_and_not_booleans():
    rows = result([[[4, 5], [6]]], 2)
    for name in ("order", "num_return_sequences"):
        found = layers.minimum_bayes_risk(rows, rows, **{name: np.int64(2)})
        plain = layers.minimum_bayes_risk(rows, rows, **{name: 2})
        assert (running.numpy(found.tokens) == running.numpy(plain.tokens)).all()
        assert_refused(
            lambda name=name: layers.minimum_bayes_risk(rows, rows, **{name: True}), name, "True"
        )


def test_an_empty_batch_has_an_empty_answer():
    found = layers.minimum_bayes_risk(result([], 3), result([], 4), num_return_sequences=2)
    assert tuple(found.tokens.shape) == (0, 2, 3)
    assert tuple(found.lengths.shape) == tuple(found.scores.shape) == (0, 2)
    assert keras.backend.standardize_dtype(found.scores.dtype) == "float32"


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("compiler", [False, True])
def test_all_sizes_may_be_unknown_in_a_graph(compiler):
    import tensorflow as tf

    pair, triple = tf.TensorSpec([None, None]), tf.TensorSpec([None, None, None], tf.int32)
    specs = [triple, tf.TensorSpec([None, None], tf.int32), pair, pair]

    @tf.function(input_signature=specs * 2, autograph=False, jit_compile=compiler)
    def compiled(*tensors):
        candidates, samples = SearchResult(*tensors[:4], None), SearchResult(*tensors[4:], None)
        return layers.minimum_bayes_risk(candidates, samples, num_return_sequences=2)

    rng = np.random.default_rng(0)
    for batch in (0, 1, 3):
        given = (
            result(random_rows(rng, batch, 2, 4), 4),
            result(random_rows(rng, batch, 2, 3), 3),
        )
        found, wanted = (
            compiled(*given[0][:4], *given[1][:4]),
            layers.minimum_bayes_risk(*given, num_return_sequences=2),
        )
        assert (found.tokens.numpy() == wanted.tokens.numpy()).all()
        assert found.tokens.shape == (batch, 2, 4)
        assert_near([found.scores], [wanted.scores], 1e-6)


@NEEDS_TENSORFLOW
def test_a_litert_model_of_builtin_operations():
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    def function(candidates, lengths, samples, sample_lengths):
        zeros = tf.zeros_like(lengths, tf.float32), tf.zeros_like(sample_lengths, tf.float32)
        return layers.minimum_bayes_risk(
            SearchResult(candidates, lengths, zeros[0], zeros[0], None),
            SearchResult(samples, sample_lengths, zeros[1], zeros[1], None),
            num_return_sequences=2,
        )._asdict() | {"alignments": tf.zeros(1)}

    rng = np.random.default_rng(0)
    own = result(random_rows(rng, 2, 3, 4), 4), result(random_rows(rng, 2, 5, 3), 3)
    names = ("candidates", "lengths", "samples", "sample_lengths")
    tensors = (own[0].tokens, own[0].lengths, own[1].tokens, own[1].lengths)
    given = dict(zip(names, tensors, strict=True))
    specs = {name: tf.TensorSpec([None, *x.shape[1:]], x.dtype) for name, x in given.items()}
    file = convert(function, specs)
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    found = runner(**{name: x.numpy() for name, x in given.items()})
    wanted = layers.minimum_bayes_risk(*own, num_return_sequences=2)
    assert (found["tokens"] == wanted.tokens.numpy()).all()
    assert_near([found["scores"]], [wanted.scores], 1e-6)
