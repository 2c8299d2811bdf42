"""The soak of exports finds rows that change others, processes that end, and memory that grows."""

import os
import signal

import numpy as np
import pytest
import soak
from hostile_requests import Request

SIGNATURES = {"double": {"inputs": {"x": {"dtype": "float32", "shape": [None, None]}}}}
SIGNATURES |= dict.fromkeys(("leak", "grow", "warm"), SIGNATURES["double"])


def load(folder):
    """A model that is wrong for some values."""
    kept = []

    def answer(name, inputs):
        x = inputs["x"]
        if (x == 13).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (x < 0).any():
            return f"InvalidArgumentError: {x.min()} is negative"
        if name == "grow" or (name == "warm" and len(kept) < 8):  # in the first two repeats
            kept.append(np.ones(2**20))
        others = x.max(initial=0.0) - x if name == "leak" else 0.0
        return {"y": 2 * x + others, "text": np.array([[b"a"] * (x.shape[1] + 1)] * len(x), object)}

    return answer


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch) -> None:
    monkeypatch.setattr(soak, "REPEATS", 2)


class Requests:
    """The requests of a list, by their numbers."""

    signatures = SIGNATURES

    def __init__(self, *requests: tuple[str, list]):
        self.requests = [Request(n, {"x": np.array(x, "float32")}, "values") for n, x in requests]

    def __call__(self, number: int) -> Request:
        return self.requests[number]


def report_of(*requests: tuple[str, list], threads: int = 3) -> soak.Report:
    count = soak.REPEATS * len(requests)
    return soak.soak(Requests(*requests), None, count, threads, load)


def test_rows_that_change_others_and_processes_that_end_are_found():
    good, negative = ("double", [[1, 1], [2, 3]]), ("double", [[-1]])
    requests = (good, ("leak", [[1, 2], [3, 4]]), ("double", [[13, 1]]), negative)
    report = report_of(*requests, threads=1)  # several would end with the process
    assert report.rows == 2 + 2 + 1 + 1
    leak, killer = (
        [each.partition("): ")[2] for each in report.faults if each.startswith(f"request {k}, ")]
        for k in (1, 2)
    )
    assert {each.partition(" by")[0] for each in leak} == {"y of row 0 differs"}
    assert killer == ["the process ended: exit code -9"] * (1 + soak.REPEATS)
    assert len(leak) + len(killer) == len(report.faults)
    assert report.errors == {"InvalidArgumentError: -N.N is negative": soak.REPEATS}


def test_a_model_without_faults_has_none():
    report = report_of(*(("double", [[k, 1.0]]) for k in range(9)), ("double", [[-2.0]]))
    assert report.faults == []
    assert report.errors.total() == soak.REPEATS
    assert len(report.seconds) == 10 * soak.REPEATS
    assert len(report.memory) == soak.REPEATS


@pytest.mark.parametrize(("name", "faults"), [("grow", ["memory grows"]), ("warm", [])])
def test_memory_that_goes_on_growing_is_found(name, faults, monkeypatch):
    monkeypatch.setattr(soak, "REPEATS", 5)
    report = report_of(*((name, [[1.0]]) for _ in range(3)))
    assert [line.partition(" from")[0] for line in report.faults] == faults
    assert report.memory[1] > report.memory[0]


@pytest.mark.parametrize(
    ("whole", "part", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.0, 0.0], [1.0, 2.0], 0),
        ([1.0, 2.0, 3.0], [1.0, 2.0], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
        ([4.0, 1.0], [2.0, 1.0], 1),
        ([np.nan, np.inf], [np.nan, np.inf], 0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([3, -1], [3], 0),
        ([3, 2], [3], np.inf),
        ([b"a", b""], [b"a"], 0),
        ([b"a", b"b"], [b"a"], np.inf),
    ],
)
def test_the_difference_of_a_row_from_the_row_alone(whole, part, difference):
    kind = object if isinstance(part[0], bytes) else None
    assert soak.difference_of(np.array(whole, kind), np.array(part, kind)) == difference
