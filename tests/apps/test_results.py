"""The rows of results and their table."""

import dataclasses
import json
import statistics

import pytest

from tests.apps import toy
from unroll.apps.core import results
from unroll.apps.core.errors import UsageError
from unroll.apps.core.runs import Run

README = "# Toy\n\n<!-- results -->\nold\n<!-- /results -->\n\nend\n"
CONFIG = toy.PRESETS["digits"]
ASSETS = {"labels": ["of", "this", "run"]}


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The toy app in a folder of its own; its runs need no training here."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "README.md").write_text(README)
    monkeypatch.setattr(toy, "__file__", str(folder / "app.py"))

    def evaluate(app, run, split):
        if split == "dev":
            raise UsageError("--split=dev: digits has train, valid, test.")
        accuracy = 0.5 + run.config(app).seed / 10
        return {
            "data": "digits",
            "split": split,
            "examples": 103,
            "accuracy": accuracy,
            "errors": 7,
        }

    def load(config, assets=None):
        return config, assets

    def baseline(config, data, split):
        assert data == (config, ASSETS)
        return {"what": "most frequent label", "accuracy": 0.512345}

    monkeypatch.setattr(results, "evaluate", evaluate)
    monkeypatch.setattr(toy, "load", load)
    monkeypatch.setattr(toy, "baseline", baseline)
    return toy


@pytest.fixture
def make(tmp_path):
    def make(seed=0, **changes) -> Run:
        run = Run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        run.path.mkdir()
        run.write_config(toy, dataclasses.replace(CONFIG, seed=seed, **changes))
        run.write_assets(ASSETS)
        run.write_environment(seconds=60.0 * (seed + 1), command="x")
        return run

    return make


def rows_of(app) -> list[dict]:
    return results.read(results.Path(app.__file__).parent)


def readme_of(app) -> str:
    return results.Path(app.__file__).with_name("README.md").read_text("utf-8")


def test_a_row_of_three_seeds(app, make):
    row = results.record(app, [make(seed) for seed in (2, 0, 1)], "test")
    assert rows_of(app) == [row]
    accuracies = [0.7, 0.5, 0.6]
    assert row["metrics"]["accuracy"] == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(statistics.stdev(accuracies)),
        "runs": 3,
    }
    assert row["metrics"]["errors"] == {"mean": 7, "std": 0, "runs": 3}
    assert set(row["metrics"]) == {"accuracy", "errors"}
    assert (row["data"], row["split"], row["variant"]) == ("digits", "test", "default")
    assert row["examples"] == 103
    assert row["minutes"] == 2.0
    assert row["published"] == {"accuracy": 1.0, "source": "the rule"}
    assert row["command"] == "unroll toy train --data=digits --seed={0,1,2}"
    assert row["config"]["units"] == 12
    assert "seed" not in row["config"]
    assert row["baseline"] == {"what": "most frequent label", "accuracy": 0.5123}


def test_parts_of_a_whole_are_one_row(app, make, monkeypatch):
    def combine(figures):
        assert [f.get("examples", 103) for f in figures] == [103, 103]
        return figures[0] | {"accuracy": sum(f["accuracy"] for f in figures)}

    monkeypatch.setattr(app, "PART", "units", raising=False)
    monkeypatch.setattr(app, "combine", combine, raising=False)
    published = {"accuracy": 0.9, "source": "by parts"}
    monkeypatch.setattr(app, "PUBLISHED", {**app.PUBLISHED, "digits, parts": published})
    runs = [make(seed, units=units) for seed in (1, 0) for units in (7, 5)]
    row = results.record(app, runs, "test", "parts")
    assert row["metrics"]["accuracy"]["mean"] == pytest.approx(1.1)
    assert row["metrics"]["accuracy"]["runs"] == 2
    assert row["baseline"]["accuracy"] == pytest.approx(1.0247)
    assert row["published"] == published
    assert row["minutes"] == 3.0  # two of one minute, two of two: in all six for two seeds
    assert row["command"] == "unroll toy train --data=digits --units={7,5} --seed={0,1}"
    assert "units" not in row["config"]

    with pytest.raises(UsageError, match="seeds 1 and 0 differ in --units"):
        results.record(app, runs[:3], "test")
    with pytest.raises(UsageError, match="need different seeds"):
        results.record(app, [*runs, make(1, units=5)], "test")
    with pytest.raises(UsageError, match="in more than the seed"):
        results.record(app, [*runs, make(2, units=5, normalize=False)], "test")
    assert rows_of(app) == [row]


def test_one_run_has_no_spread_and_the_command_has_what_was_overridden(app, make):
    row = results.record(app, [make(3, units=5, normalize=False)], "valid", "small")
    assert row["metrics"]["accuracy"] == {"mean": pytest.approx(0.8), "std": None, "runs": 1}
    assert row["command"] == ("unroll toy train --data=digits --units=5 --normalize=False --seed=3")
    assert row["published"] is None  # the figure is of the test split


def test_a_row_takes_the_place_of_its_like_alone(app, make):
    results.record(app, [make(0, data="long_digits")], "test")
    results.record(app, [make(0, units=3)], "test", "small")
    results.record(app, [make(0)], "test")
    results.record(app, [make(0)], "valid")
    places = [(r["data"], r["variant"], r["split"]) for r in rows_of(app)]
    assert places == [
        ("digits", "default", "test"),
        ("digits", "default", "valid"),
        ("digits", "small", "test"),
        ("long_digits", "default", "test"),
    ]
    before = rows_of(app)
    results.record(app, [make(1)], "test")
    after = rows_of(app)
    assert after[1:] == before[1:]
    assert after[0]["metrics"]["accuracy"]["mean"] == pytest.approx(0.6)


def test_the_readme_has_the_table_and_keeps_the_rest(app, make):
    results.record(app, [make(0)], "test")
    results.record(app, [make(0), make(4)], "test", "wide")
    table = results.table(rows_of(app))
    expected = README.replace("old", table)
    assert readme_of(app) == expected
    assert len(table.splitlines()) == 4


def test_the_table_shows_all_of_a_row_and_a_miss_as_it_is():
    row = {
        "data": "atis",
        "variant": "crf",
        "split": "test",
        "examples": 893,
        "metrics": {
            "slot_f1": {"mean": 0.957, "std": 0.002, "runs": 3},
            "failed_tasks": {"mean": 2, "std": None, "runs": 1},
        },
        "baseline": {"what": "most frequent slot", "slot_f1": 0.61},
        "published": {"slot_f1": 0.9598, "source": "Liu and Lane 2016"},
        "minutes": 14.2,
        "hardware": "2 cores",
        "command": "train | tee",
    }
    assert results.table([row]).splitlines()[2] == (
        "| atis | crf | test (893) | slot_f1 0.9570 ± 0.0020 (3); failed_tasks 2 (1) "
        "| slot_f1 0.6100 (most frequent slot) | slot_f1 0.9598 (Liu and Lane 2016) "
        r"| 14.2 on 2 cores | `train \| tee` |"
    )
    assert " | none | " in results.table([{**row, "published": None}])


@pytest.mark.parametrize(
    ("runs", "split", "message"),
    [
        ([{"seed": 0}, {"seed": 1, "units": 9}], "test", "differs from .* in more than the seed"),
        ([{"seed": 0}, {"seed": 1, "data": "long_digits"}], "test", "in more than the seed"),
        ([{"seed": 1}, {"seed": 1}], "test", r"need different seeds, got \[1, 1\]"),
        ([{"data": "my/folder"}], "test", r"\(digits, long_digits\), not for my/folder"),
        ([{"seed": 0}], "dev", "--split=dev: digits has train, valid, test"),
    ],
)
def test_what_makes_no_row_is_one_line_and_changes_nothing(app, make, runs, split, message):
    made = [make(**changes) for changes in runs]
    with pytest.raises(UsageError, match=message) as error:
        results.record(app, made, split)
    assert "\n" not in str(error.value)
    assert rows_of(app) == []
    assert readme_of(app) == README


@pytest.mark.parametrize("text", [None, "# Toy\n", "<!-- results -->\n"])
def test_a_readme_without_a_place_changes_nothing(app, make, text):
    path = results.Path(app.__file__).with_name("README.md")
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"README\.md lacks the marks"):
        results.record(app, [make(0)], "test")
    assert rows_of(app) == []


def test_the_file_is_json_that_people_can_compare(app, make):
    results.record(app, [make(0)], "test")
    text = results.Path(app.__file__).with_name("results.json").read_text("utf-8")
    assert text == json.dumps(rows_of(app), indent=2, ensure_ascii=False) + "\n"
    results.record(app, [make(0)], "test")
    assert results.Path(app.__file__).with_name("results.json").read_text("utf-8") == text
