"""Greedy search, sampling, beam search and minimum Bayes risk against exhaustive search."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import decoding_cases, running
from tests.layers.case import MASK, D
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.layers.test_decoding import END, MEMORY, MEMORY_MASK, NEEDS_TENSORFLOW, START
from tests.layers.test_minimum_bayes_risk import similarity
from unroll import layers

VOCABULARY = 6


def toy_step(seed=0, vocabulary=VOCABULARY, scale=2.0):
    """A step function whose logits depend on all tokens so far and on the example."""
    rng = np.random.default_rng(seed)
    embedding, matrix = rng.normal(size=(vocabulary, 5)), rng.normal(size=(5, 5))
    output = scale * rng.normal(size=(5, vocabulary))
    embedding, matrix, output = (x.astype("float32") for x in (embedding, matrix, output))

    def step(tokens, states):
        h = ops.tanh(ops.matmul(states[0], matrix) + ops.take(embedding, tokens, axis=0))
        return ops.matmul(h, output), [h], ops.softmax(h, axis=-1)

    return step


def toy_states(batch=3, seed=1):
    return [ops.convert_to_tensor(np.random.default_rng(seed).normal(size=(batch, 5)), "float32")]


def walk(step, state, tokens) -> tuple[float, np.ndarray]:
    """The log probability of tokens after START, and the attention weights of each step."""
    total, alignments, previous = 0.0, [], START
    for token in tokens:
        logits, state, weights = step(ops.convert_to_tensor([previous]), state)
        total += float(ops.log_softmax(logits)[0, token])
        alignments.append(running.numpy(weights)[0])
        previous = token
    return total, np.array(alignments)


# A beam of all prefixes of four steps and four tokens.
EVERY_PREFIX = {"start": START, "end": END, "max_length": 4, "beam_width": 81}


def sequences(length: int, vocabulary: int):
    """All sequences that end within `length` steps."""
    tokens = [k for k in range(vocabulary) if k != END]
    for n in range(length):
        for body in itertools.product(tokens, repeat=n):
            yield (*body, END)


def of(states, row: int):
    return [s[row : row + 1] for s in states]


@pytest.mark.parametrize("penalty", [0.0, 0.8])
def test_a_beam_of_all_prefixes_is_exhaustive_search(penalty):
    step, states, vocabulary = toy_step(vocabulary=4), toy_states(), 4
    found = layers.beam_search(
        step, states, num_return_sequences=10, length_penalty=penalty, **EVERY_PREFIX
    )
    for row in range(3):
        scored = {}
        for sequence in sequences(4, vocabulary):
            log_prob, _ = walk(step, of(states, row), sequence)
            scored[sequence] = (log_prob / ((5 + len(sequence)) / 6) ** penalty, log_prob)
        ordered = sorted(scored, key=scored.get, reverse=True)[:10]
        lengths = running.numpy(found.lengths)[row]
        tokens = running.numpy(found.tokens)[row]
        assert [tuple(w[:n]) for w, n in zip(tokens, lengths, strict=True)] == [
            sequence[:-1] for sequence in ordered
        ]
        assert_near(
            [running.numpy(found.scores)[row], running.numpy(found.log_probabilities)[row]],
            list(zip(*(scored[sequence] for sequence in ordered), strict=True)),
            1e-4,
        )


def test_coverage_penalty_equals_its_definition():
    step, states = toy_step(vocabulary=4), toy_states()
    mask = np.array([[1, 1, 1, 0, 0]] * 3, "bool")
    found = layers.beam_search(step, states, coverage_penalty=0.7, memory_mask=mask, **EVERY_PREFIX)
    for row in range(3):
        best = -np.inf
        for sequence in sequences(4, 4):
            log_prob, alignments = walk(step, of(states, row), sequence)
            covered = np.log(np.minimum(alignments.sum(axis=0), 1))[:3].sum()
            best = max(best, log_prob + 0.7 * covered)
        assert float(found.scores[row, 0]) == pytest.approx(best, abs=1e-4)


def test_greedy_equals_a_plain_loop_and_a_beam_of_one():
    step, states = toy_step(3), toy_states(5)
    options = {"start": START, "end": END, "max_length": 8}
    found = layers.greedy(step, states, **options)
    beam = layers.beam_search(step, states, beam_width=1, **options)
    for row in range(5):
        tokens, state, previous = [], of(states, row), START
        while len(tokens) < 8 and previous != END:
            logits, state, _ = step(ops.convert_to_tensor([previous]), state)
            previous = int(ops.argmax(logits[0]))
            tokens.append(previous)
        log_prob, weights = walk(step, of(states, row), tokens)
        expected = [k for k in tokens if k != END]
        assert int(found.lengths[row]) == len(expected)
        assert running.numpy(found.tokens)[row].tolist() == expected + [0] * (8 - len(expected))
        assert float(found.log_probabilities[row]) == pytest.approx(log_prob, abs=1e-4)
        alignments = running.numpy(found.alignments)[row]
        assert_near([alignments[: len(tokens)]], [weights], 1e-5)
        assert not alignments[len(tokens) :].any()
    for name in ("tokens", "lengths", "log_probabilities", "alignments"):
        one = running.numpy(getattr(beam, name))[:, 0]
        assert_near([one], [running.numpy(getattr(found, name))], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search])
def test_a_batch_equals_single_examples(search):
    decoder = decoding_cases.ATTENTION[0].build("float32")
    options = {"start": START, "end": END, "max_length": 6}
    states = decoder.initial_states(MEMORY)
    together = search(decoder.step_function(MEMORY, MEMORY_MASK), states, **options)
    for row, keep in enumerate(MASK):
        if keep.any():
            memory = ops.convert_to_tensor(running.numpy(MEMORY)[row : row + 1, keep])
            alone = search(decoder.step_function(memory), decoder.initial_states(memory), **options)
            for name in ("tokens", "lengths", "log_probabilities"):
                expected = running.numpy(getattr(together, name))[row]
                assert_near([running.numpy(getattr(alone, name))[0]], [expected], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search, layers.sample])
def test_rules(search):
    step, states = toy_step(5), toy_states(4)
    options = {"start": np.array([START] * 4), "end": END, "max_length": 9}
    seed = {"seed": 3} if search is layers.sample else {}

    def tokens(**rules):
        found = search(step, states, **options, **rules, **seed)
        rows = ops.reshape(found.tokens, (4, 9))
        lengths = running.numpy(found.lengths).reshape(4)
        return [row[:n].tolist() for row, n in zip(running.numpy(rows), lengths, strict=True)]

    assert min(map(len, tokens())) < 6
    assert min(map(len, tokens(min_length=6))) >= 6
    assert tokens(min_length=9) == [row for row in tokens(min_length=9) if len(row) == 9]
    prefix = np.array([[3, -1, 4], [4, 3, -1], [-1, -1, 3], [5, 5, 5]])
    for row, start in zip(tokens(min_length=3, prefix=prefix), prefix, strict=True):
        assert [w for w, p in zip(row, start, strict=False) if p >= 0] == [
            p for p in start if p >= 0
        ]
    assert any(_repeats(row, 2) for row in tokens(min_length=9))
    for n in (1, 2, 3):
        assert not any(_repeats(row, n) for row in tokens(min_length=5, no_repeat_ngram_size=n))


def _repeats(tokens, n: int) -> bool:
    grams = list(zip(*(tokens[k:] for k in range(n)), strict=False))
    return len(grams) > len(set(grams))


def test_pad_is_the_value_after_the_end():
    found = layers.greedy(toy_step(3), toy_states(5), start=1, end=END, max_length=8, pad=-7)
    for row, n in zip(running.numpy(found.tokens), running.numpy(found.lengths), strict=True):
        assert (row[n:] == -7).all()
        assert (row[:n] != -7).all()


def test_samples_follow_the_probabilities():
    """The tokens of 4,000 first steps: all, with temperature, of the top 2, of the top 0.7."""
    probs = np.array([0.1, 0.4, 0.05, 0.2, 0.25])
    logits = np.array([*np.log(probs), -np.inf])  # the last token is the end

    def step(tokens, states):
        rows = ops.shape(tokens)[0]
        return ops.broadcast_to(ops.convert_to_tensor(logits, "float32"), (rows, 6)), states, None

    def frequencies(**options):
        found = layers.sample(
            step, [ops.zeros((4000, 1))], start=0, end=5, max_length=1, seed=1, **options
        )
        assert found.alignments is None
        return np.bincount(running.numpy(found.tokens)[:, 0], minlength=5) / 4000

    cold = probs**2 / (probs**2).sum()
    two = np.array([0, 0.4, 0, 0, 0.25]) / 0.65
    three = np.array([0, 0.4, 0, 0.2, 0.25]) / 0.85
    np.testing.assert_allclose(frequencies(), probs, atol=0.03)
    np.testing.assert_allclose(frequencies(temperature=0.5), cold, atol=0.03)
    np.testing.assert_allclose(frequencies(top_k=2), two, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.7), three, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.3), [0, 1, 0, 0, 0])


def test_a_seed_repeats_the_samples_and_a_generator_does_not():
    step, states = toy_step(5), toy_states(20)

    def tokens(seed):
        return running.numpy(layers.sample(step, states, start=1, end=END, seed=seed).tokens)

    assert (tokens(1) == tokens(1)).all()
    assert (tokens(1) != tokens(2)).any()
    generator = keras.random.SeedGenerator(1)
    assert (tokens(generator) != tokens(generator)).any()


def test_several_samples_of_a_batch_equal_those_of_single_examples():
    step, states = toy_step(5), toy_states(3)
    options = {"start": np.array([3, 4, 5]), "end": END, "max_length": 6, "seed": 7}
    found = layers.sample(step, states, num_samples=40, **options)
    assert found.tokens.shape == (3, 40, 6)
    assert found.lengths.shape == found.log_probabilities.shape == (3, 40)
    assert len(np.unique(running.numpy(found.tokens)[0], axis=0)) > 10
    options |= {"start": 4}
    alone = layers.sample(step, [states[0][1:2]], num_samples=40, **options)
    for batch, one in zip(found, alone, strict=True):
        assert_near([running.numpy(one)[0]], [running.numpy(batch)[1]], 1e-5, "alone")
    prefix = np.array([[3], [-1], [5]])
    found = layers.sample(step, states, num_samples=9, prefix=prefix, min_length=1, **options)
    firsts = running.numpy(found.tokens)[:, :, 0]
    assert (firsts[[0, 2]] == [[3], [5]]).all()
    assert len(set(firsts[1])) > 1


@pytest.mark.parametrize("order", [1, 2, 3])
def test_minimum_bayes_risk_equals_its_definition(order):
    step, states = toy_step(5, scale=1.0), toy_states(4)
    options = {"start": START, "end": END, "max_length": 7}
    candidates = layers.beam_search(step, states, beam_width=6, num_return_sequences=6, **options)
    samples = layers.sample(step, states, num_samples=12, seed=3, **options)
    found = layers.minimum_bayes_risk(candidates, samples, order=order, num_return_sequences=4)
    decoded = [
        [[row[:n].tolist() for row, n in zip(*each, strict=True)] for each in zip(*of, strict=True)]
        for of in (
            (running.numpy(each.tokens), running.numpy(each.lengths))
            for each in (candidates, samples, found)
        )
    ]
    differs = 0
    for row, (own, others, best) in enumerate(zip(*decoded, strict=True)):
        means = [np.mean([similarity(c, e, order) for e in others]) for c in own]
        ranked = np.argsort(-np.array(means), kind="stable")[:4]
        differs += ranked[0] != 0
        assert best == [own[k] for k in ranked]
        assert_near([running.numpy(found.scores)[row]], [np.array(means)[ranked]], 1e-5, "scores")
        for name in ("log_probabilities", "alignments"):
            expected = running.numpy(getattr(candidates, name))[row][ranked]
            assert_near([running.numpy(getattr(found, name))[row]], [expected], 1e-6, name)
    assert differs


def test_minimum_bayes_risk_of_repeated_tokens_and_empty_sequences():
    """A repeated token matches as often as it occurs in both; two empty sequences are equal."""

    def result(*rows, log_probs=0.0):
        tokens = np.zeros((1, len(rows), 3), "int32")
        for k, row in enumerate(rows):
            tokens[0, k, : len(row)] = row
        lengths, log_probs = [list(map(len, rows))], np.zeros((1, len(rows))) + log_probs
        tensors = (ops.convert_to_tensor(x) for x in (tokens, lengths, log_probs.astype("float32")))
        return layers.decoding.SearchResult(*tensors, None, None)

    samples = result([4, 5, 4], [])
    best = layers.minimum_bayes_risk(
        result([4, 4], [], [4, 5], log_probs=[[-3, -2, -1]]), samples, num_return_sequences=3
    )
    # Two tokens of [4, 4] match [4, 5, 4] and no bigram; of [4, 5] two tokens and the bigram.
    assert_near([running.numpy(best.scores)], [[[0.5, 6 / 16, 4 / 16]]], 1e-6, "scores")
    assert running.numpy(best.tokens)[0].tolist() == [[0, 0, 0], [4, 5, 0], [4, 4, 0]]
    assert running.numpy(best.log_probabilities).tolist() == [[-2, -1, -3]]
    missing = result([4], [4, 5, 4], log_probs=[[0, -2e9]])
    assert running.numpy(layers.minimum_bayes_risk(missing, samples).lengths).tolist() == [[1]]


def minimum_risk(
    step, states, *, start, end, max_length=5, order=2, num_return_sequences=1, **options
):
    """`minimum_bayes_risk` of beam search and samples."""
    limits = {"start": start, "end": end, "max_length": max_length, **options}
    return layers.minimum_bayes_risk(
        layers.beam_search(step, states, beam_width=4, num_return_sequences=4, **limits),
        layers.sample(step, states, num_samples=6, seed=1, **limits),
        order=order,
        num_return_sequences=num_return_sequences,
    )


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("search", [layers.beam_search, layers.greedy, layers.sample, minimum_risk])
@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.exhaustive
def test_searches_compile(search, compiler):
    import tensorflow as tf

    decoder = decoding_cases.ATTENTION[2].build("float32")
    options = {"start": START, "end": END, "max_length": 7, "no_repeat_ngram_size": 2}
    options |= {"seed": 1} if search is layers.sample else {}

    def run(memory, mask):
        found = search(
            decoder.step_function(memory, mask), decoder.initial_states(memory), **options
        )
        return found._asdict()

    compiled = tf.function(run, jit_compile=compiler)
    # XLA generates other random numbers.
    own = compiler and search in (layers.sample, minimum_risk)
    eager = (compiled if own else run)(MEMORY, MEMORY_MASK)
    if not compiler:  # for any batch and length
        specs = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)]
        compiled = tf.function(run, input_signature=specs)
    found = compiled(MEMORY, MEMORY_MASK)
    for name in ("tokens", "lengths"):
        assert (found[name].numpy() == eager[name].numpy()).all()
    for name in ("log_probabilities", "alignments"):
        assert_near([found[name]], [eager[name]], 1e-4)


@pytest.mark.skipif(running.BACKEND != "jax", reason="jit needs the JAX backend")
@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search])
def test_searches_compile_in_jax(search):
    import jax

    decoder = decoding_cases.ATTENTION[2].build("float32")

    def run(memory, mask):
        states = decoder.initial_states(memory)
        found = search(
            decoder.step_function(memory, mask), states, start=START, end=END, max_length=7
        )
        return found.tokens, found.log_probabilities

    eager, compiled = run(MEMORY, MEMORY_MASK), jax.jit(run)(MEMORY, MEMORY_MASK)
    assert (running.numpy(eager[0]) == running.numpy(compiled[0])).all()
    assert_near([running.numpy(eager[1])], [running.numpy(compiled[1])], 1e-4)


SEARCH = {"start": 1, "end": 2, "max_length": 5}


def search(function=layers.beam_search, **options):
    return function(toy_step(), toy_states(), **{**SEARCH, **options})


def without_weights(tokens, states):
    logits, states, _ = toy_step()(tokens, states)
    return logits, states, None


INVALID = [
    (lambda: search(beam_width=0), ["beam_width", "0"]),
    (lambda: search(num_return_sequences=6), ["num_return_sequences", "5, got 6"]),
    (lambda: search(coverage_penalty=-1.0), ["coverage_penalty", "-1.0"]),
    (
        lambda: layers.beam_search(without_weights, toy_states(), **SEARCH, coverage_penalty=1.0),
        ["coverage_penalty", "weights"],
    ),
    (lambda: search(max_length=0), ["max_length", "0"]),
    (lambda: search(min_length=6), ["min_length", "6 and 5"]),
    (lambda: search(no_repeat_ngram_size=-1), ["no_repeat_ngram_size", "-1"]),
    (lambda: search(prefix=np.ones((3, 6), "int32")), ["prefix", "5", "(3, 6)"]),
    (lambda: search(layers.sample, temperature=0.0), ["temperature", "0.0"]),
    (lambda: search(layers.sample, top_k=-1), ["top_k", "-1"]),
    (lambda: search(layers.sample, top_p=0.0), ["top_p", "0.0"]),
    (lambda: search(layers.sample, num_samples=0), ["num_samples", "0"]),
    (lambda: search(minimum_risk, order=0), ["order", "0"]),
    (lambda: search(minimum_risk, num_return_sequences=0), ["num_return_sequences", "0"]),
    (lambda: search(minimum_risk, num_return_sequences=5), ["num_return_sequences", "4, got 5"]),
    (
        lambda: layers.minimum_bayes_risk(search(num_return_sequences=2), search(layers.sample)),
        ["samples", "(3, 5)"],
    ),
]


@pytest.mark.parametrize(("action", "words"), INVALID)
def test_invalid_arguments(action, words):
    assert_refused(action, *words)
