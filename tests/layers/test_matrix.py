"""The table of layers and checks, `layers/MATRIX.md`."""

from collections import Counter

import keras
import pytest

from tests.layers import matrix, test_bench, test_robustness
from unroll import layers

XML = """<testsuites><testsuite>
<testcase name="test_layer[reference_values-LSTM]"/>
<testcase name="test_layer[gradients-LSTM without bias]"><failure message="off"/></testcase>
<testcase name="test_layer[modes_agree-LSTM]"><skipped type="pytest.xfail"/></testcase>
<testcase name="test_layer[litert-LSTM]"><skipped type="pytest.skip"/></testcase>
<testcase name="test_layer[memory-LSTM]"/>
<testcase name="test_the_cases_cover_all_layers"/>
</testsuite></testsuites>"""


def test_each_check_has_one_column():
    listed = Counter(check for checks in matrix.COLUMNS.values() for check in checks)
    checks = {check.__name__.removeprefix("check_") for check in test_bench.CHECKS}
    checks |= {check.__name__.removeprefix("check_") for check in test_robustness.CHECKS}
    assert listed == Counter(checks)


def test_outcomes_become_cells(tmp_path):
    file = tmp_path / "junit.xml"
    file.write_text(XML)
    outcomes = matrix.read(file)
    assert len(outcomes) == 4
    text = matrix.table({"tensorflow": outcomes, "jax": {("memory", "LSTM"): True}})
    (row,) = (line for line in text.splitlines() if line.startswith("| `LSTM`, `LSTMCell` |"))
    cells = dict(zip(["layer", *matrix.COLUMNS], row.strip("| ").split(" | "), strict=False))
    assert cells["values"] == "T✗"
    assert cells["compiled"].strip() == "T✗"
    row = row.split("|")[2:-1]
    cells = {name: mark.strip() for name, mark in zip(matrix.COLUMNS, row, strict=True)}
    assert cells["memory"] == "T J"
    assert cells["export"] == cells["int8"] == ""


def test_unknown_backends_are_refused():
    with pytest.raises(SystemExit, match="tensorflow, jax, torch, got numpy"):
        matrix.main(["numpy=file.xml"])


def test_the_file_names_all_layers_and_columns():
    """`make bench-matrix` writes the file again."""
    text = matrix.FILE.read_text()
    public = {name: getattr(layers, name) for name in layers.__all__}
    names = [
        name
        for name, x in public.items()
        if isinstance(x, type) and issubclass(x, keras.layers.Layer)
    ]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert "| layer | " + " | ".join(matrix.COLUMNS) + " |" in text
