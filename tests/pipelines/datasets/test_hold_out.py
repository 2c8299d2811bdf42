"""Held out examples: whole groups, about a tenth, the same ones each time."""

import random

import pytest

from unroll.pipelines.datasets.base import held_out, hold_out
from unroll.pipelines.errors import DataError

NAMES = {"examples": "questions", "group": "story", "add": "valid.txt"}


def chosen(groups, **options) -> set:
    """The groups that are held out, after a check that none is in both parts."""
    out = held_out(groups, **options)
    assert len(out) == len(groups)
    own = [{g for g, held in zip(groups, out, strict=True) if held == part} for part in (0, 1)]
    assert not own[0] & own[1]
    return own[1]


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_in_both_parts_and_a_tenth_is_held_out(seed):
    draw = random.Random(seed)
    groups = [f"group {k}" for k in range(draw.randint(20, 60)) for _ in range(draw.randint(1, 5))]
    draw.shuffle(groups)
    out = held_out(groups)
    assert abs(sum(out) - len(groups) / 10) <= 3
    first = chosen(groups)
    draw.shuffle(groups)
    assert chosen(groups) == first  # whatever the order
    assert len(chosen([*groups, "new"]) ^ first) <= 4


def test_the_last_groups_are_at_least_a_tenth():
    assert chosen([k // 7 for k in range(100)], last=True) == {12, 13, 14}
    assert chosen([k // 5 for k in range(100)], last=True) == {18, 19}
    assert chosen(list(range(9)), last=True) == set()


def test_labels_keep_an_example():
    groups = list(range(200))
    out = chosen(groups)
    labels = [{"rare"} if k in out else {"frequent"} for k in groups]
    kept = chosen(groups, labels=labels)
    assert len(out - kept) == 1  # the last of the rare ones
    assert chosen(groups, labels=[{k} for k in groups]) == set()


def test_sorted_labels_are_all_held_out():
    out = held_out(list(range(1000)))
    assert 30 < sum(out[:500]) < 70


def test_large_groups():
    assert len(chosen(["a"] * 30 + ["b"] * 40 + ["c"] * 40)) == 1
    assert chosen(["a"] * 70 + ["b"] * 30) == {"b"}
    assert chosen(["a"] * 100) == set()


def test_what_is_held_out_is_said(capsys):
    groups = [k // 5 for k in range(100)]
    assert hold_out(groups, "own/train.txt", **NAMES) == held_out(groups)
    assert capsys.readouterr().err == (
        "unroll: own/train.txt has no validation split: 10 of 100 questions are held out for it, "
        "by story (2 of 20).\n"
    )


@pytest.mark.parametrize("number", range(10))
def test_few_examples(number):
    with pytest.raises(DataError) as error:
        hold_out(list(range(number)), "own", **NAMES)
    assert str(error.value) == (
        f"own has no validation split, and a tenth of {number} questions cannot be held out for "
        "one: add valid.txt, or more data."
    )


@pytest.mark.parametrize("groups", [[0] * 50, [0] * 50 + [1] * 40])
def test_few_groups(groups):
    with pytest.raises(DataError, match=r"held out by story \(\d in all\): add valid.txt, or more"):
        hold_out(groups, "own", **NAMES)
