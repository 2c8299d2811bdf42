"""Whether a published ordering of layers holds, and the table of scores."""

import tasks
import variants


def test_whether_an_ordering_holds():
    adding, parity = tasks.TASKS["adding_100"], tasks.TASKS["parity"]
    assert variants.holds(adding, [0.01, 0.02], [0.1, 0.11]) == "yes"
    assert variants.holds(adding, [0.1, 0.11], [0.01, 0.02]) == "no"
    assert variants.holds(parity, [0.99, 0.98], [0.7, 0.72]) == "yes"
    assert variants.holds(parity, [0.7, 0.72], [0.99, 0.98]) == "no"
    assert "seeds differ" in variants.holds(adding, [0.01, 0.1], [0.05, 0.06])
    assert "neither" in variants.holds(adding, [0.16, 0.16], [0.165, 0.165])
    assert "diverges" in variants.holds(adding, [float("nan"), 0.1], [0.05, 0.06])


def test_layers_have_about_the_same_number_of_parameters():
    for name in ("LSTM", "ClockworkRNN", "SCRN"):
        units = variants.units_for(name, features=2, answers=1)
        count = variants.parameters(name, units, 2, 1)
        step = variants.LAYERS[name][1]
        assert count <= variants.PARAMETERS < variants.parameters(name, units + step, 2, 1)


def test_the_table_shows_runs_that_diverged():
    run = {"tests": {"adding 100": float("nan")}, "solved": False}
    lines = variants.scores({"adding_100/IRNN/1": run})
    assert lines[2] == "| adding 100 | squared error | 0.167 (always 1) | diverged (0/1) |"
