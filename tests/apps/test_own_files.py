"""A person's own files: every app in each documented layout, in folders with spaces and umlauts."""

import fnmatch
import importlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.apps import own_files
from tests.apps.own_files import KINDS, LAYOUTS
from tests.apps.own_media import RATE, picture
from tests.apps.own_writing import SIZES
from tests.pipelines.datasets.helpers import read_all
from unroll.apps.core import cli, evaluation, export
from unroll.pipelines import datasets
from unroll.pipelines.datasets.sentiment import text_files
from unroll.pipelines.datasets.tagging import schemes, tagged_files

APPS = cli.APPS

# The smallest networks, for one epoch.
_IMAGES = ["--image-size=16", "--filters=4", "--stages=1", "--units=4", "--embedding-dim=4"]
OPTIONS = {
    "forecasting": [
        *("--units=4", "--context=4", "--horizon=1", "--segment=2", "--epoch-windows=0"),
    ],
    "image_captioning": [
        *(*_IMAGES, "--attention-units=4", "--max-length=4"),
        *("--beam-width=1", "--num-return-sequences=1"),
    ],
    "key_terms": ["--units=4", "--embedding-dim=4", "--character-units=4"],
    "language_model": ["--units=4", "--embedding-dim=4", "--sequence-length=16", "--max-length=5"],
    "reading_comprehension": ["--units=4", "--hops=1", "--restarts=1", "--linear-start=0"],
    "sentiment": ["--units=4", "--embedding-dim=4"],
    "slot_filling": ["--units=4", "--embedding-dim=4", "--character-units=4"],
    "speech_ctc": [
        *("--units=4", "--depth=1", "--mels=8", f"--rate={RATE}"),
        *("--unit=words", "--beam-width=2", "--lm-order=2"),
    ],
    "translation": [
        *("--units=4", "--embedding-dim=4", "--vocabulary-size=60"),
        *("--beam-width=2", "--max-length=5"),
    ],
    "vqa": [*_IMAGES, "--attention-units=4", "--fusion-units=4", "--glimpses=1"],
    "word_vectors": ["--embedding-dim=4", "--min-count=1"],
}
# What `evaluate` counts for each example of `SIZES`. A text has tokens.
EXAMPLES = {"reading_comprehension": 2, "vqa": 2}
EACH_LAYOUT = pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(app, name, id=f"{app}, {name}")
        for app, layouts in LAYOUTS.items()
        for name in layouts
    ],
)


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


@pytest.mark.exhaustive
@EACH_LAYOUT
def test_from_training_to_export(name, layout, home, cheap, parity_process, capsys, monkeypatch):
    data, run, layout = home / "eigene Daten", home / "Läufe" / "erster Lauf", LAYOUTS[name][layout]
    layout.write(data)
    before = contents(data)
    options = [f"--data={data / layout.path}", f"--run={run}", "--epochs=1", "--batch-size=6"]
    options += [*OPTIONS[name], *layout.arguments]
    assert cli.main([name, "train", *options]) == 0
    capsys.readouterr()
    split = "test" if "test" in layout.splits else "valid"
    assert cli.main([name, "evaluate", str(run), f"--split={split}"]) == 0
    figures = json.loads(capsys.readouterr().out)
    if split in layout.splits and KINDS[name] != "plain_text":
        assert figures["examples"] == EXAMPLES.get(name, 1) * SIZES[split]
    assert figures["examples"] > 1
    monkeypatch.chdir(data)
    assert cli.main([name, "predict", str(run), *layout.inputs, "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(results) == layout.answers
    assert cli.main([name, "report", str(run), f"--split={split}"]) == 0
    assert list(run.rglob(f"{split}.md"))
    assert cli.main([name, "export", str(run), f"--to={home}", "--formats=saved_model"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.parent == home / name
    assert (folder / "saved_model.pb").is_file()
    assert contents(data) == before


def comparable(example: dict, app: str) -> list:
    """An example without what its layout determines."""
    if app == "image_captioning":
        return [(example["image"], sorted(example["captions"]))]
    if app == "vqa":
        found = [(q["question"], q["answers"][0]) for q in example["questions"]]
        return [(example["image"], found)]
    if app == "speech_ctc":
        return [example["transcript"]]
    if app == "slot_filling":
        return [(example["words"], example["tags"])]
    if app == "key_terms":  # the terms of a table have no labels
        return [(example["words"], [tag[0] for tag in example["tags"]])]
    if KINDS[app] == "plain_text":
        return example["text"].splitlines()
    if app == "forecasting":  # a row is a step
        return example["values"][example["start"] :].tolist()
    if app == "reading_comprehension":
        return [(example["facts"], example["question"], example["answer"])]
    return [example]


def examples(app: str, layout: own_files.Layout, folder: Path) -> dict[str, Counter]:
    layout.write(folder)
    reader = datasets.KINDS[KINDS[app]]
    argument = "path" if KINDS[app] in ("plain_text", "series") else "folder"
    options = {argument: folder / layout.path, **layout.options}
    read = read_all(reader, folder.parent / "tfds", **options)
    if app == "image_captioning" and layout.arguments:  # the frames of a clip are not compared
        read = {s: [{**e, "image": picture_of(e)} for e in rows] for s, rows in read.items()}
    return {
        split: Counter(repr(each) for row in rows for each in comparable(row, app))
        for split, rows in read.items()
    }


def picture_of(example: dict) -> bytes:
    """The picture of the first layout for a clip."""
    return picture(int(re.search(r"\d+", example["image_id"])[0]))[0]


@pytest.mark.parametrize(
    ("app", "name"),
    [
        pytest.param(app, name, id=f"{app}, {name}")
        for app, layouts in LAYOUTS.items()
        for name, layout in layouts.items()
        if layout.write is not next(iter(layouts.values())).write
    ],
)
def test_all_layouts_are_read_the_same(app, name, home, capsys):
    layout = LAYOUTS[app][name]
    first = next(each for each in LAYOUTS[app].values() if len(each.splits) == 3)
    expected = examples(app, first, home / "erste Daten")
    capsys.readouterr()
    found = examples(app, layout, home / "andere Daten")
    if named := re.search("IOB1|IOBES|BILOU|BMES", name):
        assert f"has {named[0]} tags, which are converted" in capsys.readouterr().err
    if layout.splits == ("train",):
        assert sum(found.values(), Counter()) == sum(expected.values(), Counter())
        held_out = {"valid", "test"} if app == "forecasting" else {"valid"}
        assert set(found) == {"train", *held_out}
    else:
        assert found == {split: expected[split] for split in layout.splits}


def test_the_layouts_have_the_same_number_of_examples(home):
    for app, layouts in LAYOUTS.items():
        if KINDS[app] != "plain_text":
            found = examples(app, next(iter(layouts.values())), home / app)
            each = 2 if app == "reading_comprehension" else 1
            sizes = {split: each * size for split, size in SIZES.items()}
            assert {split: sum(rows.values()) for split, rows in found.items()} == sizes


def documented(app: str) -> set[str]:
    """The names of files and folders in what the README of an app says about your own files.

    Also the last part of a name, such as `.csv`.
    """
    text = (APPS / app / "README.md").read_text("utf-8")
    start = r"(?:^(?:#+ )?Your own|A folder of your own) "
    [section] = re.findall(rf"{start}.*?(?=^#)", text, re.M | re.S)
    section = re.sub(r"^```.*?^```", "", section, flags=re.M | re.S)
    names = set()
    for name in re.findall(r"`([\w{},*./-]*[./*][\w*/.-]*[a-z*])`", section):
        if braces := re.search(r"{(\w+),(\w+)}", name):
            names |= {name.replace(braces[0], braces[k]) for k in (1, 2)}
        else:
            names.add(name.replace("any-name", "*"))
    return names


def not_written(app: str, names: set[str], folder: Path) -> set[str]:
    """The names that no layout of an app has."""
    written = set()
    for k, layout in enumerate(LAYOUTS[app].values()):
        layout.write(folder / str(k))
        for path in (folder / str(k)).rglob("*"):
            written.add("/" + path.relative_to(folder / str(k)).as_posix())
    return {
        name
        for name in names
        if not fnmatch.filter(written, f"*{name}" if name[0] == "." else f"*/{name}")
    }


# The README of word_vectors refers to that of language_model.
@pytest.mark.parametrize("app", [app for app in LAYOUTS if app != "word_vectors"])
def test_every_documented_name_is_that_of_a_file_of_a_layout(app, home):
    names = documented(app)
    assert len(names) > 2
    assert not_written(app, names, home) == set()
    assert not_written(app, {"train.xyz"}, home / "again") == {"train.xyz"}


def test_every_kind_of_files_has_its_layouts(home):
    assert set(LAYOUTS) == set(KINDS) == set(OPTIONS)
    assert set(KINDS.values()) == set(datasets.KINDS)
    # What the readers accept.
    assert not_written("sentiment", set(text_files.SUFFIXES), home / "texts") == set()
    assert not_written("slot_filling", set(tagged_files.SUFFIXES), home / "tags") == set()
    known = set(re.findall(r"[A-Z1]{3,}", schemes._KNOWN))
    assert {"BIO", "IOB1", "IOBES"} < known
    assert {
        name for name in known if not any(name in each for each in LAYOUTS["slot_filling"])
    } == set()
