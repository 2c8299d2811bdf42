"""What the searches have in common: states, prefixes, ends, processors, NaN, empty batches."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.layers.search_cases import (
    BIGRAMS,
    EACH_SEARCH,
    IDS,
    LIMITS,
    SAMPLE,
    SEARCHES,
    assert_same,
    bigrams,
    rows_of,
    run,
)
from tests.layers.test_beam_search import FIRST_ROWS, random_options, step_of
from tests.layers.test_decoding import NEEDS_TENSORFLOW
from tests.parameters import first_of
from tests.reference import search as reference
from tests.reference.search import Options, PrefixModel
from unroll import layers
from unroll.layers import decoding

TINY = float(np.log(np.finfo("float32").tiny))


@pytest.mark.parametrize("seed", range(20))
def test_random_greedy_searches_equal_the_reference(seed):
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(3, 7))
    model = PrefixModel(seed, vocabulary)
    options, _ = random_options(rng, vocabulary)
    found = layers.greedy(step_of(model), FIRST_ROWS, **given_to(options))
    tokens, log_probs = rows_of(found), running.numpy(found.log_probabilities)
    for b, row in enumerate(FIRST_ROWS):
        expected, total = reference.greedy(model, row, options)
        assert tokens[b] == [list(expected)]
        assert log_probs[b] == pytest.approx(max(total, -1e9), abs=1e-4)


def given_to(options: Options) -> dict:
    """The arguments of `greedy` and `sample`."""
    names = ("start", "max_length", "min_length", "no_repeat_ngram_size")
    given = {name: getattr(options, name) for name in names}
    given |= {"end": list(options.end), "pad": -9}
    if options.prefix:
        given["prefix"] = np.array([options.prefix] * len(FIRST_ROWS))
    given["logits_processors"] = [decoding.RepetitionPenalty(options.repetition_penalty)]
    if options.forbidden:
        given["logits_processors"].append(decoding.ForbiddenTokens(options.forbidden))
    return given


@pytest.mark.parametrize("seed", range(10))
def test_random_samples_are_possible_and_have_the_log_probabilities_of_the_model(seed):
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(3, 7))
    model = PrefixModel(seed, vocabulary)
    options, _ = random_options(rng, vocabulary)
    found = layers.sample(
        step_of(model), FIRST_ROWS, num_samples=5, seed=seed, top_k=2, **given_to(options)
    )
    log_probs = running.numpy(found.log_probabilities)
    for b, rows in enumerate(rows_of(found)):
        for k, tokens in enumerate(rows):
            total, scores = 0.0, None
            for t in range(len(tokens) + (len(tokens) < options.max_length)):
                before = tuple(tokens[:t])
                own, _ = model.after(FIRST_ROWS[b], (options.start, *before))
                own, scores = reference.token_scores(own, before, options)
                best = np.argsort(-scores, kind="stable")[:2]
                chosen = [tokens[t]] if t < len(tokens) else [e for e in options.end if e in best]
                possible = [token for token in chosen if scores[token] > -np.inf]
                if not possible:  # nowhere to go on
                    assert t == len(tokens)
                    assert scores.max() == -np.inf
                    total = -1e9
                    break
                assert possible[0] in best
                if len(possible) == 1:
                    total += own[possible[0]]
                else:  # either end
                    rest = log_probs[b, k] - total
                    total += own[possible[np.argmin(abs(own[possible] - rest))]]
            assert log_probs[b, k] == pytest.approx(max(total, -1e9), abs=1e-3)


def test_samples_of_one_token_are_the_greedy_search():
    """With the top token, with a very small top p, and with a very low temperature."""
    model = PrefixModel(5, 6)
    expected = run(layers.greedy, step_of(model), FIRST_ROWS)
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}, {"top_k": np.int64(1)}):
        assert_same(run(layers.sample, step_of(model), FIRST_ROWS, **options), expected)


@EACH_SEARCH
@pytest.mark.parametrize("masked", [-np.inf, -1e9, np.nan])
def test_a_prefix_is_forced_where_the_step_masks_it(search, masked):
    """It counts with the least log probability of a forced token, and the rest with its own."""
    logits = BIGRAMS.copy()
    logits[:, 4] = masked
    clean = np.delete(BIGRAMS, 4, axis=1)
    log_probs = clean - np.log(np.exp(clean).sum(axis=1, keepdims=True))
    log_probs = np.insert(log_probs, 4, TINY, axis=1)
    if np.isnan(masked):  # no other token is possible
        log_probs[:] = TINY

    def step(tokens, states):
        return ops.take(ops.convert_to_tensor(logits), tokens, axis=0), states, None

    prefix = np.array([[3, 4, 5], [4, 4, 2]])
    found = run(search, step, [np.zeros((2, 1))], prefix=prefix, max_length=3)
    for b, row in enumerate(prefix.tolist()):
        total = sum(log_probs[a, c] for a, c in zip([0, *row], row, strict=False))
        # A beam holds one sequence with this prefix.
        assert rows_of(found)[b][0] == row
        own = running.numpy(found.log_probabilities).reshape(2, -1)[b]
        assert_near([own[0]], [total], 1e-4)


def test_a_forced_impossible_token_keeps_the_order_of_the_other_tokens():
    """The hypotheses differ before and after the forced token."""
    model = PrefixModel(4, 6)
    model.logits[:, 4] = -np.inf
    prefix = np.array([[-1, 4, -1]] * 3)
    options = Options(start=0, end=(1,), max_length=4, beam_width=4, prefix=(-1, 4, -1))
    found = layers.beam_search(
        step_of(model),
        FIRST_ROWS,
        beam_width=4,
        num_return_sequences=4,
        **LIMITS | {"max_length": 4, "prefix": prefix},
    )
    for b, row in enumerate(FIRST_ROWS):
        expected = reference.beam_search(model, row, options, 4)
        assert [tuple(tokens) for tokens in rows_of(found)[b]] == [each[0] for each in expected]
        log_probs = running.numpy(found.log_probabilities)[b]
        assert_near([log_probs], [[each[1] for each in expected]], 1e-4)


@NEEDS_TENSORFLOW
@EACH_SEARCH
@pytest.mark.parametrize("compiler", first_of([False, True]))
def test_a_prefix_of_unknown_length(search, compiler):
    import tensorflow as tf

    step = step_of(PrefixModel(2, 6))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)],
        autograph=False,
        jit_compile=compiler,
    )
    def compiled(rows, prefix):
        found = run(search, step, rows, prefix=prefix)
        return found._asdict()

    random = search is layers.sample and compiler  # XLA generates other random numbers
    for length in (0, 3, 8):
        prefix = np.random.default_rng(length).integers(-1, 6, size=(3, length)).astype("int32")
        found = decoding.SearchResult(**compiled(FIRST_ROWS, prefix))
        expected = run(search, step, FIRST_ROWS, prefix=prefix[:, :5])
        if random:
            for rows, forced in zip(rows_of(found), prefix.tolist(), strict=True):
                own = forced[: forced.index(1)] if 1 in forced else forced[:5]
                assert all(a in (b, -1) for row in rows for a, b in zip(own, row, strict=False))
        else:
            assert_same(found, expected)


@EACH_SEARCH
def test_several_end_tokens(search):
    """A sequence that ends is one that ends with either; they are not part of it."""
    model = PrefixModel(1, 6)
    found = run(search, step_of(model), FIRST_ROWS, end=[4, 3])
    assert_same(run(search, step_of(model), FIRST_ROWS, end=(3, 4, 3)), found)
    assert_same(run(search, step_of(model), FIRST_ROWS, end=np.array([3, 4])), found)
    assert not np.isin(running.numpy(found.tokens), [3, 4]).any()
    assert (running.numpy(found.lengths) < 5).any()
    one = run(search, step_of(model), FIRST_ROWS, end=[3])
    assert_same(one, run(search, step_of(model), FIRST_ROWS, end=np.int64(3)))
    longer = run(search, step_of(model), FIRST_ROWS, end=[4, 3], min_length=4)
    assert (running.numpy(longer.lengths) >= 4).all()


ENDS = [
    (3.0, ["end", "3.0"]),
    (True, ["end", "True"]),
    (-1, ["end", "-1"]),
    (6, ["end", "6"]),
    ([3, 6], ["end", "6"]),
    ([3, -1], ["end", "-1"]),
    ([3.0, 4.0], ["end", "3.0"]),
    ([True], ["end", "True"]),
    ([], ["end", "[]"]),
    ([[3], [4]], ["end", "[[3], [4]]"]),
    (None, ["end", "None"]),
    ("3", ["end", "'3'"]),
]


@EACH_SEARCH
@pytest.mark.parametrize(("end", "words"), ENDS, ids=str)
def test_wrong_ends(search, end, words):
    assert_refused(lambda: run(search, bigrams, None, start=[0], end=end), *words)


@EACH_SEARCH
def test_nan_ends_a_sequence_and_no_other(search):
    """From the second step of the second example; then of all examples from the first."""
    plain = step_of(PrefixModel(1, 6))

    def broken_from(first_step, rows):
        is_broken = np.isin(np.arange(3), rows)

        def step(tokens, states):
            logits, row, weights = plain(tokens, states["row"])
            count = states["count"] + 1
            broken = ops.logical_and(states["broken"], count > first_step)[:, None]
            logits = ops.where(broken, np.nan, logits)
            return logits, {"row": row, "broken": states["broken"], "count": count}, weights

        return step, {
            "row": FIRST_ROWS,
            "broken": is_broken,
            "count": np.zeros((3,), "int32"),
        }

    clean = run(search, plain, FIRST_ROWS, min_length=3)
    found = run(search, *broken_from(1, [1]), min_length=3)
    for b in (0, 2):
        assert rows_of(found)[b] == rows_of(clean)[b]
        log_probs = running.numpy(found.log_probabilities)[b]
        assert_near([log_probs], [running.numpy(clean.log_probabilities)[b]], 1e-5)
    # A beam search drops such hypotheses, the others return what there is.
    expected = 0 if search is layers.beam_search else 1
    assert {len(row) for row in rows_of(found)[1]} == {expected}
    assert (running.numpy(found.log_probabilities)[1] == -1e9).all()
    assert (running.numpy(found.scores)[1] == -1e9).all()
    found = run(search, *broken_from(0, [0, 1, 2]))
    assert not running.numpy(found.lengths).any()
    assert (running.numpy(found.log_probabilities) == -1e9).all()


def test_a_beam_drops_the_hypotheses_with_nan():
    """The second best first token leads to NaN."""
    model = PrefixModel(0, 4)
    broken = PrefixModel(0, 4)
    for row in FIRST_ROWS:
        broken.logits[model.next_row(model.next_row(row, 0), 2)] = np.nan
    options = {"beam_width": 3, "num_return_sequences": 3, "min_length": 2}
    found = run(layers.beam_search, step_of(broken), FIRST_ROWS, **options)
    arguments = Options(start=0, end=(1,), max_length=5, beam_width=3, min_length=2)
    for b, row in enumerate(FIRST_ROWS):
        expected = reference.beam_search(broken, row, arguments, 3)
        assert [tuple(tokens) for tokens in rows_of(found)[b]] == [each[0] for each in expected]
        assert all(tokens[0] != 2 for tokens in rows_of(found)[b])


@EACH_SEARCH
def test_a_sequence_ends_where_all_tokens_are_forbidden(search):
    """Five tokens without repetition, and no end before the eighth."""
    options = {"no_repeat_ngram_size": 1, "min_length": 8, "max_length": 9}
    found = run(search, step_of(PrefixModel(1, 6)), FIRST_ROWS, **options)
    expected = 0 if search is layers.beam_search else 5
    assert all(len(set(row)) == len(row) == expected for rows in rows_of(found) for row in rows)
    assert (running.numpy(found.log_probabilities) == -1e9).all()


@EACH_SEARCH
def test_impossible_tokens_are_never_chosen(search):
    """Minus infinity and the -1e9 of masks; a beam wider than what is possible has gaps."""
    for masked in (-np.inf, -1e9, -3e38):
        logits = BIGRAMS.copy()
        logits[:, [0, 3, 4, 5]] = masked

        def step(tokens, states, logits=logits):
            return ops.take(ops.convert_to_tensor(logits), tokens, axis=0), states, None

        options = {"max_length": 2}
        if search is layers.beam_search:
            options["num_return_sequences"] = 5
        found = run(search, step, None, start=[0, 2], **options)
        tokens = {tuple(row) for rows in rows_of(found) for row in rows}
        assert tokens <= {(), (2,), (2, 2)}
        if search is layers.beam_search:
            log_probs = running.numpy(found.log_probabilities)
            assert (log_probs[:, :3] > -50).all()
            assert (log_probs[:, 3:] == -1e9).all()
            assert not running.numpy(found.lengths)[:, 3:].any()


INTEGERS = {
    "max_length": (5, 4),
    "min_length": (2, 1),
    "no_repeat_ngram_size": (2, 1),
    "pad": (3, 2),
    "start": (3, 2),
}
OWN_INTEGERS = {
    layers.sample: {"top_k": (2, 3), "num_samples": (2, 3), "seed": (1, 2)},
    layers.beam_search: {
        "beam_width": (4, 2),
        "num_return_sequences": (2, 1),
        "num_beam_groups": (5, 1),
    },
}
EACH_INTEGER = [
    (search, name, values)
    for search in (layers.greedy, layers.sample, layers.beam_search)
    for name, values in {**INTEGERS, **OWN_INTEGERS.get(search, {})}.items()
]


@pytest.mark.parametrize("integer", first_of(EACH_INTEGER))
def test_integers_may_be_those_of_numpy_and_not_booleans(integer):
    search, name, values = integer
    states = [np.zeros((2, 1), "float32")]
    expected = run(search, bigrams, states, **{name: values[0]})
    for kind in (np.int64, np.int32, np.uint8):
        assert_same(run(search, bigrams, states, **{name: kind(values[0])}), expected)
    for wrong in (True, False, np.True_, 1.5):
        assert_refused(
            lambda wrong=wrong: run(search, bigrams, states, **{name: wrong}), name, repr(wrong)
        )


@EACH_SEARCH
def test_wrong_prefixes(search):
    def refused(prefix, *words):
        states = [np.zeros((2, 1), "float32")]
        assert_refused(lambda: run(search, bigrams, states, prefix=prefix), "prefix", *words)

    refused([[1.0], [2.0]], "integers", "float32")
    refused([[True], [False]], "integers", "bool")
    refused([1, 2], "(2,)")
    refused([[1], [6]], "6")
    refused(np.ones((2, 6), "int32"), "5", "(2, 6)")


# Every option, for the checks of compiled and exported searches.
ALL_OPTIONS = {
    "prefix": [[2, -1], [-1, 4], [-1, -1]],
    "min_length": 1,
    "no_repeat_ngram_size": 2,
    "end": [1, 5],
    "pad": -3,
    "logits_processors": [decoding.RepetitionPenalty(1.3), decoding.ForbiddenTokens(3)],
}
OWN_OPTIONS = {
    layers.sample: {"top_k": 4, "top_p": 0.9, "temperature": 0.8},
    SAMPLE: {"top_k": 4, "top_p": 0.9, "temperature": 0.8},
    layers.beam_search: {
        "beam_width": 4,
        "num_return_sequences": 3,
        "length_penalty": 0.6,
        "coverage_penalty": 0.2,
        "num_beam_groups": 2,
        "diversity_penalty": 0.4,
    },
}


def with_all_options(search, rows, prefix=None):
    options = {**ALL_OPTIONS, **OWN_OPTIONS.get(search, {})}
    if prefix is not None:
        options["prefix"] = prefix
    plain = step_of(PrefixModel(2, 6))

    def step(tokens, states):
        logits, row, weights = plain(tokens, states["row"])
        return logits, {"none": None, "row": row}, weights

    return run(search, step, {"none": None, "row": rows}, **options)


PREFIX = np.array(ALL_OPTIONS["prefix"], "int32")


@NEEDS_TENSORFLOW
@EACH_SEARCH
@pytest.mark.parametrize("compiler", first_of([True, False]))
def test_all_options_compile(search, compiler):
    """In a graph for any batch and prefix, and under XLA."""
    import tensorflow as tf

    specs = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]

    @tf.function(input_signature=None if compiler else specs, autograph=False, jit_compile=compiler)
    def compiled(rows, prefix):
        return with_all_options(search, rows, prefix)._asdict()

    found = decoding.SearchResult(**compiled(tf.constant(FIRST_ROWS), tf.constant(PREFIX)))
    expected = with_all_options(search, FIRST_ROWS)
    if not (compiler and search is layers.sample):  # XLA generates other random numbers
        assert_same(found, expected)
    empty = compiled(tf.constant(FIRST_ROWS[:0]), tf.constant(PREFIX[:0]))
    assert_empty(decoding.SearchResult(**empty), expected)


@pytest.mark.skipif(running.BACKEND != "jax", reason="jit needs the JAX backend")
@EACH_SEARCH
def test_all_options_compile_in_jax(search):
    import jax

    def compiled(rows, prefix):
        return tuple(with_all_options(search, rows, prefix))

    found = decoding.SearchResult(*jax.jit(compiled)(FIRST_ROWS, PREFIX))
    assert_same(found, with_all_options(search, FIRST_ROWS))
    assert_empty(decoding.SearchResult(*jax.jit(compiled)(FIRST_ROWS[:0], PREFIX[:0])), found)


def assert_empty(found, expected):
    """The shapes and dtypes of `expected`, with a batch of zero."""
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert tuple(a.shape) == (0, *b.shape[1:])
        assert keras.backend.standardize_dtype(a.dtype) == keras.backend.standardize_dtype(b.dtype)


@EACH_SEARCH
def test_an_empty_batch_has_an_empty_answer(search):
    found = with_all_options(search, FIRST_ROWS[:0], PREFIX[:0])
    assert_empty(found, with_all_options(search, FIRST_ROWS))
    assert_empty(
        run(search, bigrams, None, start=np.zeros(0, "int32")),
        run(search, bigrams, None, start=[0]),
    )


@pytest.mark.exhaustive
@NEEDS_TENSORFLOW
@pytest.mark.parametrize("search", first_of(SEARCHES[::-1]), ids=IDS[::-1])
def test_saved_models(search, tmp_path):
    """With all options, for any batch, zero included."""
    import tensorflow as tf

    specs = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
    module = tf.Module()
    module.search = tf.function(
        lambda rows, prefix: with_all_options(search, rows, prefix)._asdict(),
        input_signature=specs,
    )
    tf.saved_model.save(module, tmp_path)
    served = tf.saved_model.load(tmp_path).search
    expected = with_all_options(search, FIRST_ROWS)
    assert_same(decoding.SearchResult(**served(FIRST_ROWS, PREFIX)), expected)
    assert_empty(decoding.SearchResult(**served(FIRST_ROWS[:0], PREFIX[:0])), expected)


@NEEDS_TENSORFLOW
@pytest.mark.parametrize(
    "search",
    [layers.beam_search, SAMPLE, layers.greedy],
    ids=["beam search", "several samples", "greedy"],
)
@pytest.mark.exhaustive
def test_litert_models_of_builtin_operations(search):
    """With all options, for any batch."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from unroll.layers.litert_tensorflow import convert

    file = convert(
        lambda rows, prefix: with_all_options(search, rows, prefix)._asdict(),
        {"rows": tf.TensorSpec([None], tf.int32), "prefix": tf.TensorSpec([None, None], tf.int32)},
    )
    runner = Interpreter(model_content=file, num_threads=1).get_signature_runner()
    found = decoding.SearchResult(**runner(rows=FIRST_ROWS, prefix=PREFIX))
    assert_same(found, with_all_options(search, FIRST_ROWS))
    one = decoding.SearchResult(**runner(rows=FIRST_ROWS[1:2], prefix=PREFIX[1:2, :1]))
    assert_same(one, with_all_options(search, FIRST_ROWS[1:2], PREFIX[1:2, :1]))
