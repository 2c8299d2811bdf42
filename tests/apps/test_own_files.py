"""A person's own files: every app in each documented layout, in folders with spaces and umlauts."""

import importlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.apps import own_files
from tests.apps.own_files import KINDS, LAYOUTS
from tests.pipelines.datasets.helpers import read_all
from unroll.apps.core import cli, evaluation, export
from unroll.pipelines import datasets

# The smallest networks, for one epoch.
_IMAGES = ["--image-size=16", "--filters=4", "--stages=1", "--units=4", "--embedding-dim=4"]
OPTIONS = {
    "image_captioning": [
        *(*_IMAGES, "--attention-units=4", "--max-length=4"),
        *("--beam-width=1", "--num-return-sequences=1"),
    ],
    "reading_comprehension": ["--units=4", "--hops=1", "--restarts=1", "--linear-start=0"],
    "sentiment": ["--units=4", "--embedding-dim=4"],
    "slot_filling": ["--units=4", "--embedding-dim=4", "--character-units=4"],
    "speech_ctc": [
        *("--units=4", "--depth=1", "--mels=8", f"--rate={own_files.RATE}"),
        *("--unit=words", "--beam-width=2", "--lm-order=2"),
    ],
    "vqa": [*_IMAGES, "--attention-units=4", "--fusion-units=4", "--glimpses=1"],
}
# Arguments of `predict`, with paths relative to the folder of the files.
INPUTS = {
    "image_captioning": ["Bilder/Bild 0.png"],
    "reading_comprehension": ["test.txt"],
    "sentiment": ["Ein schöner Film"],
    "slot_filling": ["Flug nach New York"],
    "speech_ctc": ["Töne/Ton 0.wav"],
    "vqa": ["Bilder/Bild 0.png", "welche farbe?"],
}
# The examples of the test split that `evaluate` counts.
EXAMPLES = {"reading_comprehension": 8, "vqa": 8}


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "Übungen für alle 1"
    folder.mkdir()
    return folder


@pytest.fixture
def cheap(name, monkeypatch) -> None:
    """A model is loaded once, not by each verb, and its training step is not compiled."""
    app = importlib.import_module(f"unroll.apps.{name}.app")
    build, load, known = app.build, evaluation.load_trained, {}

    def build_eager(config, assets):
        model = build(config, assets)
        model.run_eagerly = True
        return model

    def load_trained(app, run):
        return known.get(run.path) or known.setdefault(run.path, load(app, run))

    monkeypatch.setattr(app, "build", build_eager)
    for module in (evaluation, export):
        monkeypatch.setattr(module, "load_trained", load_trained)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        # The most expensive networks; their verbs are tested on generated data too.
        pytest.param(
            name, marks=pytest.mark.exhaustive if name in ("image_captioning", "vqa") else []
        )
        for name in LAYOUTS
    ],
)
def test_from_training_to_export(name, home, cheap, parity_process, capsys, monkeypatch):
    data, run = home / "eigene Daten", home / "Läufe" / "erster Lauf"
    next(iter(LAYOUTS[name]))(data)
    before = contents(data)
    options = [f"--data={data}", f"--run={run}", "--epochs=1", "--batch-size=6"]
    assert cli.main([name, "train", *options, *OPTIONS[name]]) == 0
    capsys.readouterr()
    assert cli.main([name, "evaluate", str(run)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["examples"] == EXAMPLES.get(name, own_files.SIZES["test"])
    monkeypatch.chdir(data)
    assert cli.main([name, "predict", str(run), *INPUTS[name], "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(results) == (8 if name == "reading_comprehension" else 1)
    assert cli.main([name, "report", str(run)]) == 0
    assert list(run.rglob("test.md"))
    assert cli.main([name, "export", str(run), f"--to={home}", "--formats=saved_model"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.parent == home / name
    assert (folder / "saved_model.pb").is_file()
    assert contents(data) == before


@pytest.mark.parametrize("name", LAYOUTS)
def test_too_few_examples_to_hold_some_out(name, home, monkeypatch, capsys):
    monkeypatch.setattr(own_files, "SIZES", {"train": 3})
    data, run = home / "eigene Daten", home / "Lauf"
    next(iter(LAYOUTS[name]))(data)
    assert cli.main([name, "train", f"--data={data}", f"--run={run}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"unroll: {data}\S* has no validation split, and a tenth of [36] \w+ cannot be held out "
        r"for one: add .+, or more data\.",
        line,
    )
    assert not run.exists()


def comparable(example: dict, app: str) -> str:
    """An example without what its layout determines."""
    if app == "image_captioning":
        found = example["image"], sorted(example["captions"])
    elif app == "vqa":
        found = example["image"], [(q["question"], q["answers"][0]) for q in example["questions"]]
    elif app == "speech_ctc":
        found = example["transcript"]
    elif app == "slot_filling":
        found = example["words"], example["tags"]
    else:
        found = {name: value for name, value in example.items() if name != "task"}
    return repr(found)


def examples(app: str, layout, folder: Path) -> dict[str, Counter]:
    layout(folder)
    options = LAYOUTS[app][layout]
    found = read_all(datasets.KINDS[KINDS[app]], folder.parent / "tfds", folder=folder, **options)
    return {split: Counter(comparable(row, app) for row in rows) for split, rows in found.items()}


@pytest.mark.parametrize(
    ("app", "layout"),
    [(app, layout) for app, layouts in LAYOUTS.items() for layout in list(layouts)[1:]],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_all_layouts_are_read_the_same(app, layout, home):
    expected = examples(app, next(iter(LAYOUTS[app])), home / "erste Daten")
    found = examples(app, layout, home / "andere Daten")
    if layout is own_files.ljspeech:  # it has one split
        assert sum(found.values(), Counter()) == sum(expected.values(), Counter())
        assert set(found) == {"train", "valid"}
        return
    if layout in (own_files.coco, own_files.vqa):  # they have no test split
        del expected["test"]
    assert found == expected
    assert {split: sum(rows.values()) for split, rows in found.items()} == {
        split: (2 if app == "reading_comprehension" else 1) * size
        for split, size in own_files.SIZES.items()
        if split in expected
    }


def test_every_kind_of_files_has_its_layouts():
    assert set(LAYOUTS) == set(KINDS) == set(OPTIONS) == set(INPUTS)
    # Plain text has no layout: its tests are those of the app that reads it.
    assert {*KINDS.values(), "plain_text"} == set(datasets.KINDS)
