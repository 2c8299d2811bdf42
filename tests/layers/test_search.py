"""Greedy, sampled and beam search, against exhaustive search and one another."""

import collections
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
from unroll import layers

VOCABULARY = 6


def toy_step(seed=0, vocabulary=VOCABULARY, scale=2.0):
    """A step whose logits hang on all words so far, and on the example; the state holds both."""
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


def walk(step, state, words) -> tuple[float, np.ndarray]:
    """The log probability of words after START, and the weights of each step."""
    total, looks, before = 0.0, [], START
    for word in words:
        logits, state, weights = step(ops.convert_to_tensor([before]), state)
        total += float(ops.log_softmax(logits)[0, word])
        looks.append(running.numpy(weights)[0])
        before = word
    return total, np.array(looks)


# A beam that holds all that can be said in four steps with four words.
EVERY_PREFIX = {"start": START, "end": END, "max_length": 4, "beam_width": 81}


def sequences(length: int, vocabulary: int):
    """All sequences that end within so many steps, and all that do not."""
    words = [w for w in range(vocabulary) if w != END]
    for n in range(length):
        for body in itertools.product(words, repeat=n):
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
        for words in sequences(4, vocabulary):
            log_prob, _ = walk(step, of(states, row), words)
            scored[words] = (log_prob / ((5 + len(words)) / 6) ** penalty, log_prob)
        ordered = sorted(scored, key=scored.get, reverse=True)[:10]
        lengths = running.numpy(found.lengths)[row]
        tokens = running.numpy(found.tokens)[row]
        assert [tuple(w[:n]) for w, n in zip(tokens, lengths, strict=True)] == [
            words[:-1] for words in ordered
        ]
        assert_near(
            [running.numpy(found.scores)[row], running.numpy(found.log_probabilities)[row]],
            list(zip(*(scored[words] for words in ordered), strict=True)),
            1e-4,
        )


def test_coverage_is_counted_as_gnmt_does():
    step, states = toy_step(vocabulary=4), toy_states()
    mask = np.array([[1, 1, 1, 0, 0]] * 3, "bool")
    found = layers.beam_search(step, states, coverage_penalty=0.7, memory_mask=mask, **EVERY_PREFIX)
    for row in range(3):
        best = -np.inf
        for words in sequences(4, 4):
            log_prob, looks = walk(step, of(states, row), words)
            covered = np.log(np.minimum(looks.sum(axis=0), 1))[:3].sum()
            best = max(best, log_prob + 0.7 * covered)
        assert float(found.scores[row, 0]) == pytest.approx(best, abs=1e-4)


def test_greedy_by_hand_and_a_beam_of_one():
    step, states = toy_step(3), toy_states(5)
    options = {"start": START, "end": END, "max_length": 8}
    found = layers.greedy(step, states, **options)
    beam = layers.beam_search(step, states, beam_width=1, length_penalty=0.6, **options)
    for row in range(5):
        words, state, before = [], of(states, row), START
        while len(words) < 8 and before != END:
            logits, state, _ = step(ops.convert_to_tensor([before]), state)
            before = int(ops.argmax(logits[0]))
            words.append(before)
        log_prob, looks = walk(step, of(states, row), words)
        kept = [w for w in words if w != END]
        assert int(found.lengths[row]) == len(kept)
        assert running.numpy(found.tokens)[row].tolist() == kept + [0] * (8 - len(kept))
        assert float(found.log_probabilities[row]) == pytest.approx(log_prob, abs=1e-4)
        alignments = running.numpy(found.alignments)[row]
        assert_near([alignments[: len(words)]], [looks], 1e-5)
        assert not alignments[len(words) :].any()
    for name in ("tokens", "lengths", "log_probabilities", "alignments"):
        one = running.numpy(getattr(beam, name))[:, 0]
        assert_near([one], [running.numpy(getattr(found, name))], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search])
def test_a_batch_gives_what_each_gives_alone(search):
    decoder = decoding_cases.ATTENTION[0].build("float32")
    options = {"start": START, "end": END, "max_length": 6}
    states = decoder.initial_states(MEMORY)
    together = search(decoder.step_function(MEMORY, MEMORY_MASK), states, **options)
    for row, keep in enumerate(MASK):
        if keep.any():
            memory = ops.convert_to_tensor(running.numpy(MEMORY)[row : row + 1, keep])
            alone = search(decoder.step_function(memory), decoder.initial_states(memory), **options)
            for name in ("tokens", "lengths", "log_probabilities"):
                whole = running.numpy(getattr(together, name))[row]
                assert_near([running.numpy(getattr(alone, name))[0]], [whole], 1e-5, name)


@pytest.mark.parametrize("search", [layers.greedy, layers.beam_search, layers.sample])
def test_rules(search):
    step, states = toy_step(5), toy_states(4)
    options = {"start": np.array([START] * 4), "end": END, "max_length": 9}
    seed = {"seed": 3} if search is layers.sample else {}

    def words(**rules):
        found = search(step, states, **options, **rules, **seed)
        tokens = ops.reshape(found.tokens, (4, 9))
        lengths = running.numpy(found.lengths).reshape(4)
        return [row[:n].tolist() for row, n in zip(running.numpy(tokens), lengths, strict=True)]

    assert min(map(len, words())) < 6
    assert min(map(len, words(min_length=6))) >= 6
    assert words(min_length=9) == [row for row in words(min_length=9) if len(row) == 9]
    prefix = np.array([[3, -1, 4], [4, 3, -1], [-1, -1, 3], [5, 5, 5]])
    for row, start in zip(words(min_length=3, prefix=prefix), prefix, strict=True):
        assert [w for w, p in zip(row, start, strict=False) if p >= 0] == [
            p for p in start if p >= 0
        ]
    assert any(_repeats(row, 2) for row in words(min_length=9))
    for n in (1, 2, 3):
        assert not any(_repeats(row, n) for row in words(min_length=5, no_repeat_ngram_size=n))


def _repeats(words, n: int) -> bool:
    grams = list(zip(*(words[k:] for k in range(n)), strict=False))
    return len(grams) > len(set(grams))


def test_pad_fills_the_rest():
    found = layers.greedy(toy_step(3), toy_states(5), start=1, end=END, max_length=8, pad=-7)
    for row, n in zip(running.numpy(found.tokens), running.numpy(found.lengths), strict=True):
        assert (row[n:] == -7).all()
        assert (row[:n] != -7).all()


def test_samples_follow_the_probabilities():
    """The words of 4,000 first steps, in all, with temperature, of the top two, of the top 0.7."""
    logits = np.log(np.array([0.1, 0.4, 0.05, 0.2, 0.25]))

    def step(tokens, states):
        rows = ops.shape(tokens)[0]
        return ops.broadcast_to(ops.convert_to_tensor(logits, "float32"), (rows, 5)), states, None

    def frequencies(**options):
        found = layers.sample(
            step, [ops.zeros((4000, 1))], start=0, end=9, max_length=1, seed=1, **options
        )
        assert found.alignments is None
        return np.bincount(running.numpy(found.tokens)[:, 0], minlength=5) / 4000

    probs = np.exp(logits)
    cold = probs**2 / (probs**2).sum()
    two = np.array([0, 0.4, 0, 0, 0.25]) / 0.65
    three = np.array([0, 0.4, 0, 0.2, 0.25]) / 0.85
    np.testing.assert_allclose(frequencies(), probs, atol=0.03)
    np.testing.assert_allclose(frequencies(temperature=0.5), cold, atol=0.03)
    np.testing.assert_allclose(frequencies(top_k=2), two, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.7), three, atol=0.03)
    np.testing.assert_allclose(frequencies(top_p=0.3), [0, 1, 0, 0, 0])


def test_a_seed_fixes_samples_and_a_generator_does_not():
    step, states = toy_step(5), toy_states(20)

    def tokens(seed):
        return running.numpy(layers.sample(step, states, start=1, end=END, seed=seed).tokens)

    assert (tokens(1) == tokens(1)).all()
    assert (tokens(1) != tokens(2)).any()
    generator = keras.random.SeedGenerator(1)
    assert (tokens(generator) != tokens(generator)).any()


def test_several_draws_are_those_of_each_example_alone():
    step, states = toy_step(5), toy_states(3)
    options = {"start": np.array([3, 4, 5]), "end": END, "max_length": 6, "seed": 7}
    found = layers.sample(step, states, num_samples=40, **options)
    assert found.tokens.shape == (3, 40, 6)
    assert found.lengths.shape == found.log_probabilities.shape == (3, 40)
    assert len(np.unique(running.numpy(found.tokens)[0], axis=0)) > 10
    options |= {"start": 4}
    alone = layers.sample(step, [states[0][1:2]], num_samples=40, **options)
    for whole, one in zip(found, alone, strict=True):
        assert_near([running.numpy(one)[0]], [running.numpy(whole)[1]], 1e-5, "alone")
    prefix = np.array([[3], [-1], [5]])
    found = layers.sample(step, states, num_samples=9, prefix=prefix, min_length=1, **options)
    firsts = running.numpy(found.tokens)[:, :, 0]
    assert (firsts[[0, 2]] == [[3], [5]]).all()
    assert len(set(firsts[1])) > 1


def _in_common(own: list, other: list, order: int) -> float:
    """What two sequences share, as the words of `minimum_bayes_risk` say it."""
    grams = [
        collections.Counter(
            tuple(words[k : k + n]) for n in range(1, order + 1) for k in range(len(words) - n + 1)
        )
        for words in (own, other)
    ]
    total = sum(each.total() for each in grams)
    return 2 * (grams[0] & grams[1]).total() / total if total else 1.0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_least_risk_is_that_of_the_definition(order):
    step, states = toy_step(5, scale=1.0), toy_states(4)
    options = {"start": START, "end": END, "max_length": 7}
    candidates = layers.beam_search(step, states, beam_width=6, num_return_sequences=6, **options)
    evidence = layers.sample(step, states, num_samples=12, seed=3, **options)
    found = layers.minimum_bayes_risk(candidates, evidence, order=order, num_return_sequences=4)
    said = [
        [[row[:n].tolist() for row, n in zip(*each, strict=True)] for each in zip(*of, strict=True)]
        for of in (
            (running.numpy(each.tokens), running.numpy(each.lengths))
            for each in (candidates, evidence, found)
        )
    ]
    differs = 0
    for row, (own, others, best) in enumerate(zip(*said, strict=True)):
        means = [np.mean([_in_common(c, e, order) for e in others]) for c in own]
        places = np.argsort(-np.array(means), kind="stable")[:4]
        differs += places[0] != 0
        assert best == [own[k] for k in places]
        assert_near([running.numpy(found.scores)[row]], [np.array(means)[places]], 1e-5, "scores")
        for name in ("log_probabilities", "alignments"):
            whole = running.numpy(getattr(candidates, name))[row][places]
            assert_near([running.numpy(getattr(found, name))[row]], [whole], 1e-6, name)
    assert differs


def test_the_least_risk_by_hand():
    """A repeated word matches as often as it stands in both; no sequence is all there is to say."""

    def found(*rows, log_probs=0.0):
        tokens = np.zeros((1, len(rows), 3), "int32")
        for k, words in enumerate(rows):
            tokens[0, k, : len(words)] = words
        lengths, log_probs = [list(map(len, rows))], np.zeros((1, len(rows))) + log_probs
        tensors = (ops.convert_to_tensor(x) for x in (tokens, lengths, log_probs.astype("float32")))
        return layers.decoding.SearchResult(*tensors, None, None)

    evidence = found([4, 5, 4], [])
    best = layers.minimum_bayes_risk(
        found([4, 4], [], [4, 5], log_probs=[[-3, -2, -1]]), evidence, num_return_sequences=3
    )
    # Of [4, 4] two words match [4, 5, 4] and no pair; of [4, 5] two words and the pair.
    assert_near([running.numpy(best.scores)], [[[0.5, 6 / 16, 4 / 16]]], 1e-6, "scores")
    assert running.numpy(best.tokens)[0].tolist() == [[0, 0, 0], [4, 5, 0], [4, 4, 0]]
    assert running.numpy(best.log_probabilities).tolist() == [[-2, -1, -3]]
    none = found([4], [4, 5, 4], log_probs=[[0, -2e9]])
    assert running.numpy(layers.minimum_bayes_risk(none, evidence).lengths).tolist() == [[1]]


def least_risk(
    step, states, *, start, end, max_length=5, order=2, num_return_sequences=1, **options
):
    """Beam search and samples, and the best of the ones by the others."""
    limits = {"start": start, "end": end, "max_length": max_length, **options}
    return layers.minimum_bayes_risk(
        layers.beam_search(step, states, beam_width=4, num_return_sequences=4, **limits),
        layers.sample(step, states, num_samples=6, seed=1, **limits),
        order=order,
        num_return_sequences=num_return_sequences,
    )


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("search", [layers.greedy, layers.sample, layers.beam_search, least_risk])
@pytest.mark.parametrize("compiler", [False, True])
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
    # XLA has random numbers of its own.
    own = compiler and search in (layers.sample, least_risk)
    eager = (compiled if own else run)(MEMORY, MEMORY_MASK)
    if not compiler:  # for any batch and length
        specs = [tf.TensorSpec([None, None, D]), tf.TensorSpec([None, None], tf.bool)]
        compiled = tf.function(run, input_signature=specs)
    found = compiled(MEMORY, MEMORY_MASK)
    for name in ("tokens", "lengths"):
        assert (found[name].numpy() == eager[name].numpy()).all()
    for name in ("log_probabilities", "alignments"):
        assert_near([found[name]], [eager[name]], 1e-4)


@pytest.mark.skipif(running.BACKEND != "jax", reason="jit is JAX's")
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


def blind(tokens, states):
    logits, states, _ = toy_step()(tokens, states)
    return logits, states, None


REFUSED = [
    (lambda: search(beam_width=0), ["beam_width", "0"]),
    (lambda: search(num_return_sequences=6), ["num_return_sequences", "5, got 6"]),
    (lambda: search(coverage_penalty=-1.0), ["coverage_penalty", "-1.0"]),
    (
        lambda: layers.beam_search(blind, toy_states(), **SEARCH, coverage_penalty=1.0),
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
    (lambda: search(least_risk, order=0), ["order", "0"]),
    (lambda: search(least_risk, num_return_sequences=0), ["num_return_sequences", "0"]),
    (lambda: search(least_risk, num_return_sequences=5), ["num_return_sequences", "4, got 5"]),
    (
        lambda: layers.minimum_bayes_risk(search(num_return_sequences=2), search(layers.sample)),
        ["samples", "(3, 5)"],
    ),
]


@pytest.mark.parametrize(("action", "words"), REFUSED)
def test_refused(action, words):
    assert_refused(action, *words)
