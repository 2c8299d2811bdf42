"""Recorded results: the rows, what is refused, the tables of the README and results.md."""

import dataclasses
import json
import statistics

import pytest

from tests.apps import toy
from unroll.apps.core import checksums, results
from unroll.apps.core import runs as run_folders
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import encode_json
from unroll.apps.core.protocol import Data
from unroll.apps.core.runs import Run

README = "# Toy\n\n<!-- results -->\nold\n<!-- /results -->\n\nend\n"
CONFIG = toy.PRESETS["digits"]
ASSETS = {"labels": ["of", "this", "run"]}
COMMIT, OTHER, UNKNOWN = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    """A checkout whose repository has two commits."""
    monkeypatch.setattr(run_folders, "git_commit", lambda: COMMIT)
    monkeypatch.setattr(run_folders, "has_commit", lambda commit: commit in (COMMIT, OTHER))


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The toy app in an empty folder. Its runs need no training here."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "README.md").write_text(README)
    monkeypatch.setattr(toy, "__file__", str(folder / "app.py"))

    def evaluate(app, run, split):
        if split == "dev":
            raise UsageError("--split=dev: digits has train, valid, test.")
        figures = {"data": "digits", "split": split, "examples": 103}
        return figures | {"accuracy": 0.5 + run.config(app).seed / 10, "errors": 7}

    def load(config, splits, assets=None):
        return Data(dict.fromkeys(splits), assets)

    def baseline(config, data, split):
        assert data.assets == ASSETS
        assert set(data.splits) == {"train", "valid", split}
        return {"what": "most frequent label", "accuracy": 0.512345}

    monkeypatch.setattr(results, "compute", evaluate)
    monkeypatch.setattr(toy, "load", load)
    monkeypatch.setattr(toy, "baseline", baseline)
    return toy


@pytest.fixture
def make(tmp_path):
    def make(seed=0, commit=COMMIT, **changes) -> Run:
        run = Run(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        run.path.mkdir()
        run.write_config(toy, dataclasses.replace(CONFIG, seed=seed, **changes))
        run.write_assets(ASSETS)
        environment = {"seconds": 60.0 * (seed + 1), "commit": commit, "hardware": "2 cores"}
        run.write("environment.json", encode_json(environment))
        return run

    return make


def rows_of(app) -> list[dict]:
    return results.read(results.Path(app.__file__).parent)


def file_of(app, name: str) -> str:
    return results.Path(app.__file__).with_name(name).read_text("utf-8")


def unchanged(app) -> bool:
    folder = results.Path(app.__file__).parent
    return [path.name for path in folder.iterdir()] == ["README.md"] and (
        file_of(app, "README.md") == README
    )


def test_three_seeds_are_one_row(app, make):
    row = results.record(app, [make(seed) for seed in (2, 0, 1)], "test")
    assert rows_of(app) == [row]
    assert row["metrics"]["accuracy"] == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(statistics.stdev([0.7, 0.5, 0.6])),
        "runs": 3,
    }
    assert row["metrics"]["errors"] == {"mean": 7, "std": 0, "runs": 3}
    assert set(row["metrics"]) == {"accuracy", "errors"}
    assert (row["data"], row["split"], row["variant"]) == ("digits", "test", "default")
    assert row["examples"] == 103
    assert row["minutes"] == 2.0
    assert row["hardware"] == "2 cores"
    assert row["published"] == {"accuracy": 1.0, "source": "the rule"}
    assert row["command"] == "unroll toy train --data=digits --seed={0,1,2}"
    assert row["commit"] == COMMIT
    assert row["config"]["units"] == 12
    assert not {"seed", "data"} & set(row["config"])
    assert row["baseline"] == {"what": "most frequent label", "accuracy": 0.5123}


def test_a_row_is_shown_before_a_file_is_written(app, make, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    run, shown = make(), []
    monkeypatch.setattr(checksums, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        results.record(app, [run], "test", show=shown.append)
    assert [row["examples"] for row in shown] == [103]


def test_the_figures_of_each_run_are_kept_with_the_run(app, make):
    runs = [make(seed) for seed in (0, 1)]
    results.record(app, runs, "test")
    assert [run.read_metrics()["test"]["accuracy"] for run in runs] == [0.5, 0.6]


def test_parts_with_a_model_each_are_one_row(app, make, monkeypatch):
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
    assert row["minutes"] == 3.0  # two parts of one minute and two of two, over two seeds
    assert row["command"] == "unroll toy train --data=digits --units={7,5} --seed={0,1}"
    assert "units" not in row["config"]

    with pytest.raises(UsageError, match="seeds 1 and 0 differ in --units"):
        results.record(app, runs[:3], "test")
    with pytest.raises(UsageError, match="need different seeds"):
        results.record(app, [*runs, make(1, units=5)], "test")
    with pytest.raises(UsageError, match="in more than the seed"):
        results.record(app, [*runs, make(2, units=5, normalize=False)], "test")
    assert rows_of(app) == [row]


def test_an_ensemble_is_one_model(app, make, monkeypatch):
    def evaluate(app, runs, split):
        figures = {
            "data": "digits",
            "split": split,
            "examples": 103,
            "runs": [r.path for r in runs],
        }
        return figures | {"accuracy": 0.9, "errors": 2}

    monkeypatch.setattr(results, "evaluate_ensemble", evaluate)
    runs = [make(seed) for seed in (1, 0)]
    row = results.record(app, runs, "test", "both", ensemble=True)
    assert row["metrics"]["accuracy"] == {"mean": 0.9, "std": None, "runs": 1}
    assert set(row["metrics"]) == {"accuracy", "errors"}
    assert row["minutes"] == 3.0
    assert row["command"] == "unroll toy train --data=digits --seed={0,1}"
    assert row["ensemble"] is True
    assert rows_of(app) == [row]
    assert all("test" not in run.read_metrics() for run in runs)  # it is not of one of them


def test_a_single_run_has_no_deviation_and_the_command_has_its_options(app, make):
    row = results.record(app, [make(3, units=5, normalize=False)], "valid", "small")
    assert row["metrics"]["accuracy"] == {"mean": pytest.approx(0.8), "std": None, "runs": 1}
    assert row["command"] == "unroll toy train --data=digits --units=5 --normalize=False --seed=3"
    assert row["published"] is None  # the published figure is of the test split


def test_a_row_replaces_only_that_of_its_data_variant_and_split(app, make):
    results.record(app, [make(0, data="long_digits")], "test")
    results.record(app, [make(0, units=3)], "test", "small")
    results.record(app, [make(0)], "test")
    results.record(app, [make(0)], "valid")
    keys = [(r["data"], r["variant"], r["split"]) for r in rows_of(app)]
    assert keys == [
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


def test_the_files_beside_the_rows_hold_their_tables(app, make):
    results.record(app, [make(0)], "test")
    results.record(app, [make(0), make(4)], "test", "wide")
    rows = rows_of(app)
    assert file_of(app, "README.md") == README.replace("old", results.tables(app, rows))
    assert file_of(app, "results.md") == results.details(app, rows)


def row(**changes) -> dict:
    return {
        "data": "digits",
        "variant": "default",
        "split": "test",
        "examples": 1893,
        "metrics": {
            "accuracy": {"mean": 0.957, "std": 0.002, "runs": 3},
            "errors": {"mean": 2, "std": None, "runs": 1},
            "accuracy_of_long": {"mean": 12.345, "std": 0.0, "runs": 3},
        },
        "baseline": {"what": "most frequent label", "accuracy": 0.61},
        "published": {"accuracy": 0.9598, "source": "Liu and Lane 2016"},
        "minutes": 14.2,
        "hardware": "2 cores",
        "command": "unroll toy train --data=digits --seed={0,1,2}",
        "commit": COMMIT,
    } | changes


def test_a_table_has_the_headline_figures_and_a_line_for_each_reference_and_variant():
    rows = [
        row(),
        row(variant="small", metrics={"accuracy": {"mean": 0.5, "std": None, "runs": 1}}),
        row(data="long_digits", published=None, examples=5),
    ]
    assert results.tables(toy, rows) == (
        """**digits**, test split, 1,893 examples

|  | accuracy | errors | minutes per run |
| --- | --- | --- | --- |
| baseline: most frequent label | 0.6100 |  |  |
| published: Liu and Lane 2016 | 0.9598 |  |  |
| default | 0.9570 ± 0.0020 (3) | 2 (1) | 14.2 |
| small | 0.5000 (1) |  | 14.2 |

```sh
unroll toy train --data=digits --seed={0,1,2}
unroll toy train --data=digits --seed={0,1,2}  # small
```

**long_digits**, test split, 5 examples

|  | accuracy | errors | minutes per run |
| --- | --- | --- | --- |
| baseline: most frequent label | 0.6100 |  |  |
| default | 0.9570 ± 0.0020 (3) | 2 (1) | 14.2 |

```sh
unroll toy train --data=digits --seed={0,1,2}
```"""
    )


def test_a_row_without_a_commit_is_marked():
    assert "†" not in results.tables(toy, [row()]) + results.details(toy, [row()])
    rows = [row(), row(variant="wide", commit=None)]
    table = results.tables(toy, rows)
    assert "| wide † |" in table
    assert "| default |" in table
    assert table.count("\n† Measured at a commit that is not in the repository") == 1
    details = results.details(toy, rows)
    assert "| wide | 14.2 | 2 cores | none † |" in details
    assert details.count("\n† Measured at") == 1


def test_the_details_have_every_figure_of_every_variant():
    published = {"accuracy": 0.9, "source": "by parts"}
    rows = [
        row(),
        row(
            variant="parts",
            metrics={"parts": {"mean": 1234, "std": 0, "runs": 2}},
            published=published,
        ),
    ]
    assert results.details(toy, rows) == (
        f"""# Results of toy

Written by `evaluate --record`.

## digits, test split, 1,893 examples

|  | baseline: most frequent label | published: Liu and Lane 2016 | published: by parts | \
default | parts |
| --- | --- | --- | --- | --- | --- |
| accuracy | 0.6100 | 0.9598 | 0.9000 | 0.9570 ± 0.0020 (3) |  |
| errors |  |  |  | 2 (1) |  |
| accuracy of long |  |  |  | 12.35 ± 0.0000 (3) |  |
| parts |  |  |  |  | 1,234 (2) |

| variant | minutes per run | hardware | commit |
| --- | --- | --- | --- |
| default | 14.2 | 2 cores | {COMMIT[:12]} |
| parts | 14.2 | 2 cores | {COMMIT[:12]} |
"""
    )


def test_the_details_have_the_formats_of_exports(app):
    formats = [
        {"format": "SavedModel", "bytes": 12345, "milliseconds": 1.234, "difference": 0.0},
        {"format": "LiteRT, int8", "bytes": 99, "milliseconds": 0.1, "difference": 2e-4},
        {"format": "ONNX with loops", "bytes": 9, "milliseconds": 0.5, "difference": None},
    ]
    shares = zip(formats, (None, 0.995, None), strict=True)
    record = {
        "command": "unroll toy train",
        "data": "digits",
        "function": "ids",
        "figure": "label_accuracy",
        "examples": 1893,
        "hardware": "a processor",
        "refused": {"float16": "It differs."},
        "formats": [row | {"equal": share, "figure": 0.75} for row, share in shares],
    }
    results.Path(app.__file__).with_name("formats.json").write_text(json.dumps(record))
    details = results.details(app, [row()])
    _, _, section = details.partition("\n## Formats of exports\n")
    about, table, refused = section.strip().split("\n\n")
    assert about.startswith("The function `ids` of one run, `unroll toy train`.")
    assert "one core (a processor)" in about
    assert "whole test split (1,893 examples)" in about
    assert table.splitlines() == [
        "| format | bytes | ms | largest difference | equal integers | label accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
        "| SavedModel | 12,345 | 1.23 | 0.0e+00 |  | 0.7500 |",
        "| LiteRT, int8 | 99 | 0.1 | 2.0e-04 | 99.5% | 0.7500 |",
        "| ONNX with loops | 9 | 0.5 |  |  | 0.7500 |",
    ]
    assert refused == "- `float16` is refused: It differs."


def test_a_cell_keeps_its_line():
    assert results.markdown_table(["a|b"], [["x | y"]]) == "| a\\|b |\n| --- |\n| x \\| y |"


@pytest.mark.parametrize(
    ("runs", "split", "message"),
    [
        ([{"seed": 0}, {"seed": 1, "units": 9}], "test", "differs from .* in more than the seed"),
        ([{"seed": 0}, {"seed": 1, "data": "long_digits"}], "test", "in more than the seed"),
        ([{"seed": 1}, {"seed": 1}], "test", r"need different seeds, got \[1, 1\]"),
        ([{"data": "my/folder"}], "test", r"\(digits, long_digits\), not for my/folder"),
        ([{"seed": 0}], "dev", "--split=dev: digits has train, valid, test"),
        ([{"commit": f"{COMMIT}+"}], "test", "run-1 was trained with local changes to the code"),
        ([{"commit": None}], "test", "run-1 was trained with local changes to the code"),
        ([{"commit": UNKNOWN}], "test", f"run-1 was trained at {UNKNOWN}, which the repository"),
        (
            [{"seed": 0}, {"seed": 1, "commit": UNKNOWN}],
            "test",
            f"run-2 was trained at {UNKNOWN}, which the repository",
        ),
        (
            [{"seed": 0}, {"seed": 1, "commit": OTHER}],
            "test",
            f"need one commit, got {COMMIT}, {OTHER}",
        ),
    ],
)
def test_runs_that_are_not_a_row_are_refused(app, make, runs, split, message):
    made = [make(**changes) for changes in runs]
    with pytest.raises(UsageError, match=message) as error:
        results.record(app, made, split)
    assert "\n" not in str(error.value)
    assert unchanged(app)


def test_an_installed_copy_records_nothing(app, make, monkeypatch):
    monkeypatch.setattr(run_folders, "git_commit", lambda: None)
    message = r"^--record writes into a checkout of the repository, not an installed copy\.$"
    with pytest.raises(UsageError, match=message):
        results.record(app, [make(0)], "test")
    assert unchanged(app)


@pytest.mark.parametrize("text", [None, "# Toy\n", "<!-- results -->\n"])
def test_a_readme_without_the_marks_is_refused_before_the_evaluation(app, make, monkeypatch, text):
    path = results.Path(app.__file__).with_name("README.md")
    path.unlink()
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(results, "compute", lambda *_: pytest.fail("it was evaluated"))
    with pytest.raises(UsageError, match=r"README\.md lacks the marks"):
        results.record(app, [make(0)], "test")
    assert rows_of(app) == []


def test_the_rows_are_indented_json_and_reproducible(app, make):
    results.record(app, [make(0)], "test")
    names = ("results.json", "results.md", "README.md")
    before = [file_of(app, name) for name in names]
    assert before[0] == json.dumps(rows_of(app), indent=2, ensure_ascii=False) + "\n"
    results.record(app, [make(0)], "test")
    assert [file_of(app, name) for name in names] == before
