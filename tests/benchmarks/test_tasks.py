"""The synthetic tasks of the comparison of recurrent layers, against their papers."""

import numpy as np
import pytest
import tasks

EXAMPLES = 200


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_adding(rng):
    inputs, targets, weights = tasks.adding(rng, EXAMPLES, length=11)
    marks = inputs[..., 1]
    assert (marks[:, :5].sum(axis=1) == 1).all()
    assert (marks[:, 5:].sum(axis=1) == 1).all()
    for row, answer in zip(inputs, targets, strict=True):
        (first, second) = np.flatnonzero(row[:, 1])
        assert answer[-1, 0] == pytest.approx(row[first, 0] + row[second, 0])
    assert (weights[:, -1] == 1).all()
    assert not weights[:, :-1].any()


def test_parity(rng):
    bits, targets, weights = tasks.parity(rng, EXAMPLES, length=7, every=True)
    for row, answers in zip(bits[..., 0], targets, strict=True):
        odd = [sum(row[: t + 1]) % 2 for t in range(7)]
        assert answers.argmax(axis=-1).tolist() == odd
    assert weights.all()
    assert tasks.parity(rng, 3, length=7, every=False).weights.tolist() == [[0] * 6 + [1]] * 3


def test_temporal_order(rng):
    inputs, targets, weights = tasks.temporal_order(rng, EXAMPLES)
    lengths = set()
    for row, answer, weight in zip(inputs, targets, weights, strict=True):
        (end,) = np.flatnonzero(weight)
        lengths.add(end + 1)
        assert row[: end + 1].sum() == end + 1
        assert not row[end + 1 :].any()
        symbols = "".join("abcdEBXY"[k] for k in row[: end + 1].argmax(axis=-1))
        assert symbols[0] == "E"
        assert symbols[-1] == "B"
        first, second = [t for t, symbol in enumerate(symbols) if symbol in "XY"]
        assert 10 <= first <= 20
        assert 50 <= second <= 60
        order = ("XX", "XY", "YX", "YY")[answer[end].argmax()]
        assert order == symbols[first] + symbols[second]
    assert min(lengths) == 100
    assert max(lengths) == 110


def test_the_length_of_temporal_order_can_be_scaled(rng):
    inputs, _, weights = tasks.temporal_order(rng, EXAMPLES, scale=0.2)
    ends = weights.argmax(axis=1) + 1
    assert ends.min() == 20
    assert ends.max() == inputs.shape[1] == 22


def test_copying(rng):
    inputs, targets, weights = tasks.copying(rng, EXAMPLES, symbols=3, delay=4)
    assert inputs.shape == (EXAMPLES, 3 + 4 + 3, 10)
    symbols = inputs.argmax(axis=-1)
    assert (symbols[:, :3] < 8).all()
    assert (symbols[:, 3:] == [8, 8, 8, 8, 9, 8, 8]).all()
    assert (weights == [0] * 7 + [1] * 3).all()
    assert (targets.argmax(axis=-1)[:, -3:] == symbols[:, :3]).all()


def test_waves(rng):
    inputs, targets, weights = tasks.waves(rng, 5, length=320)
    assert (inputs == np.eye(5)[:, None]).all()
    assert weights.all()
    curves = targets[..., 0]
    np.testing.assert_allclose(curves.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(curves.var(axis=1), 1, atol=1e-5)
    # At most 16 periods. Frequencies that are not integers leak into their neighbors.
    power = np.square(np.abs(np.fft.rfft(curves)))
    assert (power[:, 1:25].sum(axis=1) > 0.97 * power.sum(axis=1)).all()


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_declared_score_of_a_trivial_answer(name, rng):
    task = tasks.TASKS[name]
    for generate in task.tests.values():
        batch = generate(rng, 2000 if not task.fixed else task.batch)
        counts = batch.targets[batch.weights > 0]
        # The most frequent class, or the mean.
        score = counts.mean(axis=0).max() if task.classes else counts.var()
        assert score == pytest.approx(task.trivial[0], abs=0.03)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_seed_determines_the_examples(name):
    generate = tasks.TASKS[name].generate
    one, again, other = (generate(np.random.default_rng(seed), 4) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one.targets != other.targets).any()
