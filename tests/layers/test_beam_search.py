"""Beam search against a search with lists that takes all steps: ranks, ties, groups, its end."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from tests.layers import running
from tests.layers.checks import assert_near
from tests.layers.recurrent_checks import assert_refused
from tests.parameters import first_of
from tests.reference import search as reference
from tests.reference.search import Options, PrefixModel
from unroll import layers
from unroll.layers import decoding

FIRST_ROWS = np.array([5, 77, 310], "int32")  # the initial states of three examples


def step_of(model: PrefixModel):
    """The step function of a model. Its state is one integer per row."""
    logits, weights = ops.convert_to_tensor(model.logits), ops.convert_to_tensor(model.weights)

    def step(tokens, row):
        row = (row * model.vocabulary + tokens + 1) % model.rows
        return ops.take(logits, row, axis=0), row, ops.take(weights, row, axis=0)

    return step


def search(model: PrefixModel, options: Options, n: int, **others):
    """`beam_search` with the options of the reference; the same options for each example."""
    batch = len(FIRST_ROWS)
    processors = []
    if np.any(options.bonus):
        processors.append(lambda logits, tokens, step: logits + ops.cast(options.bonus, "float32"))
    if options.repetition_penalty != 1:
        processors.append(decoding.RepetitionPenalty(options.repetition_penalty))
    if options.forbidden:
        processors.append(decoding.ForbiddenTokens(options.forbidden))
    given = {name: getattr(options, name) for name in ("start", "max_length", "min_length")}
    given |= {"end": list(options.end), "logits_processors": processors}
    for name in ("no_repeat_ngram_size", "beam_width", "num_beam_groups", "diversity_penalty"):
        given[name] = getattr(options, name)
    for name in ("length_penalty", "coverage_penalty"):
        given[name] = getattr(options, name)
    if options.prefix:
        given["prefix"] = np.array([options.prefix] * batch)
    if options.counted is not None:
        counts = np.isin(np.arange(model.weights.shape[1]), options.counted)
        given["memory_mask"] = np.tile(counts, (batch, 1))
    rows = ops.convert_to_tensor(FIRST_ROWS)
    return layers.beam_search(step_of(model), rows, num_return_sequences=n, **given, **others)


def assert_equal(found, model: PrefixModel, options: Options, n: int):
    """The n results of each example equal those of the reference, and missing ones are empty."""
    tokens, lengths, log_probs, scores, alignments = map(running.numpy, found)
    for b, row in enumerate(FIRST_ROWS):
        expected = reference.beam_search(model, row, options, n)
        own = [tuple(each[:k].tolist()) for each, k in zip(tokens[b], lengths[b], strict=True)]
        assert own == [each[0] for each in expected] + [()] * (n - len(expected))
        missing = [-1e9] * (n - len(expected))
        assert_near([log_probs[b]], [[each[1] for each in expected] + missing], 1e-4, "log prob")
        assert_near([scores[b]], [[each[2] for each in expected] + missing], 1e-4, "scores")
        for k in range(n):
            weights = expected[k][3] if k < len(expected) else np.zeros((0, model.weights.shape[1]))
            assert_near([alignments[b, k, : len(weights)]], [weights], 1e-5, "alignments")
            assert not alignments[b, k, len(weights) :].any()


def random_options(rng: np.random.Generator, vocabulary: int) -> tuple[Options, int]:
    width = int(rng.integers(1, 5))
    groups = int(rng.choice([g for g in range(1, width + 1) if width % g == 0]))
    ends = rng.permutation(vocabulary)[: rng.integers(1, 3)]
    length = int(rng.integers(1, 7))
    options = Options(
        start=int(rng.integers(vocabulary)),
        end=tuple(sorted(map(int, ends))),
        max_length=length,
        min_length=int(rng.choice([0, min(2, length)])),
        prefix=tuple(rng.integers(-1, vocabulary, size=rng.integers(0, min(3, length + 1)))),
        no_repeat_ngram_size=int(rng.choice([0, 0, 1, 2])),
        forbidden=tuple(rng.permutation(vocabulary)[: rng.choice([0, 0, 1])].tolist()),
        repetition_penalty=float(rng.choice([1.0, 1.5])),
        beam_width=width,
        num_beam_groups=groups,
        diversity_penalty=float(rng.uniform(0.1, 2)) if groups > 1 else 0.0,
        length_penalty=float(rng.choice([0.0, 0.7, 2.0, -0.5])),
        coverage_penalty=float(rng.choice([0.0, 0.6])),
        counted=(0, 2) if rng.random() < 0.5 else None,
    )
    return options, int(rng.integers(1, width + 1))


@pytest.mark.parametrize("seed", first_of(range(60), *range(1, 20)))
def test_random_searches_equal_the_reference(seed):
    rng = np.random.default_rng(seed)
    vocabulary = int(rng.integers(3, 7))
    model = PrefixModel(seed, vocabulary, scale=rng.choice([0.5, 2.0]))
    options, n = random_options(rng, vocabulary)
    assert_equal(search(model, options, n), model, options, n)


LONG = Options(start=0, end=(1,), max_length=12, beam_width=4)


@pytest.mark.parametrize("penalty", first_of([0.6, 0.0, 1.5, -0.7]))
def test_the_early_end_changes_no_result(penalty):
    """Over models whose sequences end at very different lengths."""
    for seed, n in itertools.product(range(3), (1, 3)):
        model = PrefixModel(seed, 5)
        model.logits[:, 1] += 2 * (seed - 1)
        options = LONG._replace(length_penalty=penalty)
        assert_equal(search(model, options, n), model, options, n)


def steps_of(model: PrefixModel, options: Options, n: int = 1, **others) -> int:
    """How many steps a search takes."""
    step, count = step_of(model), 0

    def counted(tokens, states):
        nonlocal count
        count += 1
        return step(tokens, states)

    layers.beam_search(
        counted,
        ops.convert_to_tensor(FIRST_ROWS),
        start=options.start,
        end=list(options.end),
        max_length=options.max_length,
        beam_width=options.beam_width,
        num_return_sequences=n,
        length_penalty=options.length_penalty,
        **others,
    )
    return count - 1  # the first call only reads what the step function returns


@pytest.mark.skipif(running.BACKEND == "jax", reason="JAX traces the loop, so steps do not count")
def test_the_search_ends_when_no_open_hypothesis_can_win():
    """With an end of probability .5 after each prefix, and no other token above .25."""
    model = PrefixModel(0, 3)
    model.logits[:] = np.log([0.25, 0.5, 0.25])
    # The end at once has log .5, each open hypothesis log .25: one step is enough.
    assert steps_of(model, LONG) == 1
    # The second result has log .125, like the open hypotheses after the second step.
    assert steps_of(model, LONG, n=2) == 2
    # With the length penalty a, n steps in the beam may win while
    # n log(.25) / ((5 + 12) / 6)^a > log .5.
    for penalty in (1.0, 2.0):
        expected = next(
            t for t in range(1, 13) if t * np.log(0.25) / (17 / 6) ** penalty <= np.log(0.5)
        )
        assert steps_of(model, LONG._replace(length_penalty=penalty)) == expected
    assert steps_of(model, LONG._replace(length_penalty=-1.0)) == 1
    # Nothing is known about a function of one's own.
    own = {"logits_processors": [lambda logits, tokens, step: logits]}
    assert steps_of(model, LONG, **own) == 12


def test_a_processor_may_raise_log_probabilities():
    """A sequence that gains with each token is found, though shorter ones end early."""
    bonus = np.array([0.0, 0.0, 2.0, 1.0])
    for seed in range(4):
        model = PrefixModel(seed, 4)
        options = Options(start=0, end=(1,), max_length=6, beam_width=3, bonus=bonus)
        assert_equal(search(model, options, 2), model, options, 2)


def test_unfinished_sequences_are_ranked_by_their_scores():
    """With a coverage penalty and no finished sequence, as well as after the finished ones."""
    model = PrefixModel(3, 6)
    model.logits[:, 1] -= 8
    options = Options(start=0, end=(1,), max_length=4, beam_width=4, coverage_penalty=5.0)
    found = search(model, options, 4)
    scores = running.numpy(found.scores)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert (running.numpy(found.lengths) == 4).all()
    assert len(np.unique(scores)) == scores.size
    assert_equal(found, model, options, 4)
    model.logits[:, 1] += 5
    assert_equal(search(model, options, 4), model, options, 4)


def test_a_finished_sequence_ranks_before_an_unfinished_one_however_unlikely():
    model = PrefixModel(0, 3)
    model.logits[:] = np.log([1e-30, 1e-30, 1.0])
    options = Options(start=2, end=(0, 1), max_length=1, beam_width=3)
    found = search(model, options, 3)
    assert running.numpy(found.lengths)[0].tolist() == [0, 0, 1]
    assert_near([running.numpy(found.scores)[0]], [[-69.0776, -69.0776, 0]], 1e-4)


@pytest.mark.parametrize("vocabulary", [5, 300])
def test_equal_scores_are_in_the_order_of_their_tokens(vocabulary):
    """With equal logits: the same order on each backend, by parent and then by token."""
    model = PrefixModel(0, vocabulary)
    model.logits[:] = 0
    options = Options(start=0, end=(1,), max_length=3, beam_width=4)
    found = search(model, options, 4)
    assert_equal(found, model, options, 4)
    # The end has the index 1, so the W best extensions are those of the first hypothesis.
    assert running.numpy(found.tokens)[0].tolist() == [[0, 0, 0]] * 4
    assert running.numpy(found.lengths)[0].tolist() == [0, 1, 2, 3]
    half = PrefixModel(1, vocabulary)
    half.logits[:] = np.round(half.logits)  # some of them equal
    assert_equal(search(half, options, 4), half, options, 4)


def test_the_results_do_not_depend_on_the_batch():
    """An example that ends early does not change while the others go on."""
    model = PrefixModel(11, 5)
    options = Options(start=0, end=(1,), max_length=9, beam_width=3, length_penalty=0.9)
    together = search(model, options, 3)
    for b, row in enumerate(FIRST_ROWS):
        alone = layers.beam_search(
            step_of(model),
            ops.convert_to_tensor([row]),
            start=0,
            end=1,
            max_length=9,
            beam_width=3,
            num_return_sequences=3,
            length_penalty=0.9,
        )
        for one, all_of in zip(alone, together, strict=True):
            assert_near([running.numpy(one)[0]], [running.numpy(all_of)[b]], 1e-6)


def test_groups_without_a_penalty_are_equal_and_with_one_are_diverse():
    model = PrefixModel(2, 6)
    options = Options(start=0, end=(1,), max_length=4, beam_width=6, num_beam_groups=3)
    found = search(model, options, 6)
    tokens = [list(map(tuple, rows)) for rows in running.numpy(found.tokens)]
    assert all(len(set(rows)) <= 3 for rows in tokens)
    diverse = search(model, options._replace(diversity_penalty=50.0), 6)
    for b in range(len(FIRST_ROWS)):
        # Three groups: at least three different first tokens, instead of those of one beam.
        firsts = running.numpy(diverse.tokens)[b, :, 0]
        assert len(set(firsts)) >= 3
    assert_equal(diverse, model, options._replace(diversity_penalty=50.0), 6)
    one = search(model, options._replace(num_beam_groups=1, beam_width=2), 2)
    best = running.numpy(found.tokens)[:, ::3][:, :2]
    assert (best == running.numpy(one.tokens)).all()


def test_log_probabilities_are_those_of_the_model():
    """Whatever the processors and the diversity penalty make of them."""
    model = PrefixModel(4, 6)
    options = Options(
        start=0,
        end=(1,),
        max_length=4,
        beam_width=4,
        num_beam_groups=2,
        diversity_penalty=1.0,
        repetition_penalty=2.0,
    )
    found = search(model, options, 4)
    for b, row in enumerate(FIRST_ROWS):
        for k in range(4):
            tokens = running.numpy(found.tokens)[b, k].tolist()
            tokens = tokens[: int(found.lengths[b, k])]
            tokens += [1] if len(tokens) < 4 else []
            total = 0.0
            for t, token in enumerate(tokens):
                total += model.after(row, (0, *tokens[:t]))[0][token]
            assert float(found.log_probabilities[b, k]) == pytest.approx(total, abs=1e-4)


INVALID = [
    ({"num_beam_groups": 0}, ["num_beam_groups", "0"]),
    ({"num_beam_groups": 3}, ["num_beam_groups", "beam_width, 4", "got 3"]),
    ({"diversity_penalty": 0.5}, ["diversity_penalty", "0.5", "num_beam_groups"]),
    ({"num_beam_groups": 2, "diversity_penalty": -0.5}, ["diversity_penalty", "-0.5"]),
    ({"length_penalty": float("nan")}, ["length_penalty", "nan"]),
    ({"coverage_penalty": float("nan")}, ["coverage_penalty", "nan"]),
    ({"coverage_penalty": float("inf")}, ["coverage_penalty", "inf"]),
]


@pytest.mark.parametrize(("options", "words"), INVALID)
def test_invalid_arguments(options, words):
    step, rows = step_of(PrefixModel(0, 5)), ops.convert_to_tensor(FIRST_ROWS)
    assert_refused(
        lambda: layers.beam_search(step, rows, start=0, end=1, beam_width=4, **options), *words
    )


def test_top_k_orders_equal_values_by_their_index():
    """Over random rows with many equal values, with minus infinity, and all equal."""
    rng = np.random.default_rng(0)
    for shape in ((7,), (3, 40), (2, 3, 11), (0, 5)):
        x = rng.integers(-2, 3, size=shape).astype("float32")
        x[x == -2] = -np.inf
        for k in (1, 3, shape[-1]):
            values, indices = decoding.ranking.top_k(ops.convert_to_tensor(x), k)
            order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
            assert keras.backend.standardize_dtype(indices.dtype) == "int32"
            assert (running.numpy(indices) == order).all()
            assert (running.numpy(values) == np.take_along_axis(x, order, axis=-1)).all()
