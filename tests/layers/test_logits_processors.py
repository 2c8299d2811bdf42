"""What changes the log probabilities of a search: temperature, top-k, top-p, processors."""

import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.layers.search_cases import EACH_SEARCH, SEARCHES, assert_same, bigrams, run
from tests.layers.test_beam_search import FIRST_ROWS, step_of
from tests.parameters import first_of
from tests.reference import search as reference
from tests.reference.search import Options, PrefixModel
from unroll import layers
from unroll.layers import decoding


def frequencies(probs, **options) -> np.ndarray:
    """How often each token is sampled of 4,000 first steps; the last is the end."""
    logits = np.log(np.array([*probs, 1e-30])).astype("float32")

    def step(tokens, states):
        shape = (ops.shape(tokens)[0], len(logits))
        return ops.broadcast_to(ops.convert_to_tensor(logits), shape), states, None

    found = layers.sample(
        step, None, start=np.zeros(4000, "int32"), end=len(probs), max_length=1, seed=1, **options
    )
    return np.bincount(running.numpy(found.tokens)[:, 0], minlength=len(probs)) / 4000


def test_top_k_and_top_p_keep_the_first_of_equal_tokens():
    equal = [0.25] * 4
    np.testing.assert_allclose(frequencies(equal, top_k=2), [0.5, 0.5, 0, 0], atol=0.03)
    np.testing.assert_allclose(frequencies(equal, top_k=3), [1 / 3] * 3 + [0], atol=0.03)
    np.testing.assert_allclose(frequencies(equal, top_p=0.4), [0.5, 0.5, 0, 0], atol=0.03)
    np.testing.assert_allclose(frequencies(equal, top_p=0.2), [1, 0, 0, 0], atol=0)
    two_pairs = [0.1, 0.4, 0.1, 0.4]
    np.testing.assert_allclose(frequencies(two_pairs, top_p=0.3), [0, 1, 0, 0], atol=0)
    np.testing.assert_allclose(
        frequencies(two_pairs, top_p=0.85), [1 / 9, 4 / 9, 0, 4 / 9], atol=0.03
    )
    # The probabilities of the top k are normalized before the top p.
    np.testing.assert_allclose(frequencies(two_pairs, top_k=2, top_p=0.5), [0, 1, 0, 0], atol=0)


@EACH_SEARCH
@pytest.mark.parametrize("pad", first_of([-7, 6, 1000]))
def test_no_repeated_ngrams_with_a_pad_outside_of_the_vocabulary(search, pad):
    """Examples end at different steps."""
    model = PrefixModel(1, 6)
    for n in (1, 2):
        options = {"no_repeat_ngram_size": n, "max_length": 8}
        expected = run(search, step_of(model), FIRST_ROWS, **options)
        found = run(search, step_of(model), FIRST_ROWS, pad=pad, **options)
        assert_same(found, expected)
        is_pad = running.numpy(found.tokens) == pad
        assert (is_pad == (np.arange(8) >= running.numpy(found.lengths)[..., None])).all()
        assert is_pad.any()


@EACH_SEARCH
def test_wrong_processors(search):
    for wrong in (lambda x: x, [1], None, "abc"):
        assert_refused(
            lambda wrong=wrong: run(search, bigrams, None, start=[0], logits_processors=wrong),
            "logits_processors",
            "list of functions",
        )


@EACH_SEARCH
def test_rules_are_processors(search):
    """`min_length`, `no_repeat_ngram_size` and `temperature` are compositions."""
    step = step_of(PrefixModel(1, 6))
    rules = {"min_length": 2, "no_repeat_ngram_size": 2}
    processors = [decoding.MinLength(2, 1), decoding.NoRepeatNgrams(2)]
    found = run(search, step, FIRST_ROWS, logits_processors=processors)
    assert_same(found, run(search, step, FIRST_ROWS, **rules))
    if search in SEARCHES[1:3]:
        expected = run(search, step, FIRST_ROWS, temperature=0.5, **rules)
        processors.append(decoding.Temperature(0.5))
        assert_same(run(search, step, FIRST_ROWS, logits_processors=processors), expected)


def test_a_processor_sees_the_log_probabilities_and_the_tokens_so_far():
    calls = []

    def record(logits, tokens, step):
        calls.append((running.numpy(logits), running.numpy(tokens), int(step)))
        return logits

    if running.BACKEND == "jax":
        pytest.skip("JAX traces the loop, so there are no values to record")
    found = run(layers.greedy, bigrams, None, start=[0, 3], pad=-9, logits_processors=[record])
    tokens = running.numpy(found.tokens)
    for t, (logits, so_far, step) in enumerate(calls):
        assert step == t
        assert_near([np.exp(logits).sum(axis=1)], [[1, 1]], 1e-5)
        assert (so_far[:, :t] == tokens[:, :t]).all()
        assert (so_far[:, t:] == -9).all()


def test_processors_equal_their_definition():
    """Over random logits and tokens; what follows the step does not count."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 6)).astype("float32")
    tokens = rng.integers(6, size=(20, 7)).astype("int32")
    for step in (0, 1, 4, 7):
        for processor, options in [
            (decoding.RepetitionPenalty(1.7), {"repetition_penalty": 1.7}),
            (decoding.NoRepeatNgrams(1), {"no_repeat_ngram_size": 1}),
            (decoding.NoRepeatNgrams(2), {"no_repeat_ngram_size": 2}),
            (decoding.NoRepeatNgrams(3), {"no_repeat_ngram_size": 3}),
            (decoding.ForbiddenTokens([2, 5]), {"forbidden": (2, 5)}),
            (decoding.MinLength(4, [1, 2]), {"min_length": 4, "end": (1, 2)}),
        ]:
            found = processor(
                ops.convert_to_tensor(logits),
                ops.convert_to_tensor(tokens),
                ops.convert_to_tensor(step, "int32"),
            )
            given = Options(**{"start": 0, "end": (), "max_length": 7, **options})
            expected = [
                reference.token_scores(row.astype("float64"), tuple(own[:step].tolist()), given)[1]
                for row, own in zip(logits, tokens, strict=True)
            ]
            assert_near([running.numpy(found)], [expected], 1e-6, type(processor).__name__)


PROCESSORS = [
    (lambda: decoding.RepetitionPenalty(0), ["penalty", "0"]),
    (lambda: decoding.RepetitionPenalty(float("nan")), ["penalty", "nan"]),
    (lambda: decoding.NoRepeatNgrams(0), ["size", "0"]),
    (lambda: decoding.NoRepeatNgrams(True), ["size", "True"]),
    (lambda: decoding.ForbiddenTokens([]), ["tokens", "[]"]),
    (lambda: decoding.ForbiddenTokens([1.5]), ["tokens", "1.5"]),
    (lambda: decoding.ForbiddenTokens(7)(np.zeros((1, 5)), None, 0), ["tokens", "5", "7"]),
    (lambda: decoding.MinLength(-1, 2), ["length", "-1"]),
    (lambda: decoding.MinLength(1, 2.5), ["end", "2.5"]),
    (lambda: decoding.Temperature(0.0), ["temperature", "0.0"]),
    (lambda: decoding.Temperature(float("inf")), ["temperature", "inf"]),
]


@pytest.mark.parametrize(("action", "words"), PROCESSORS)
def test_wrong_arguments_of_processors(action, words):
    assert_refused(action, *words)
