"""The question app: a run from training to export, fine-tuning, compilation."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.apps.vqa_cases import SMALL, make, photos, write_questions
from tests.apps.written_runs import write_run
from unroll.apps.core import cli, evaluation, export, training, transfer
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.protocol import query
from unroll.apps.core.runs import Run
from unroll.apps.vqa import app
from unroll.apps.vqa.examples import litert as litert_example
from unroll.apps.vqa.examples import serving as serving_example
from unroll.pipelines.visual_questions import NO_QUESTION

# The trained model of this module is a fixture: one worker trains it.
OPTIONS = {
    **{"filters": 8, "image_size": 32, "units": 16, "fusion_units": 32, "embedding_dim": 16},
    **{"batch_size": 16, "learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("data"), {"train": 400, "test": 48})


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Run:
    """A run that learned the questions of `folder`, trained on the command line."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    command = ["vqa", "train", f"--data={folder}", f"--run={path}", "--epochs=6", *options]
    assert cli.main(command) == 0
    return Run(path)


def test_weight_decay_is_optional():
    assert make(weight_decay=0.1).model.optimizer.weight_decay == 0.1
    assert make().model.optimizer.weight_decay is None


@pytest.mark.exhaustive
def test_colors_are_learned(trained):
    figures = evaluate(app, trained)
    assert figures["examples"] == 96
    assert figures["accuracy"] > 0.95
    found = load_trained(app, trained)
    data = app.load(found.config, ("train", "valid", "test"), found.assets)
    baseline = app.baseline(found.config, data, "test")["accuracy"]
    assert baseline < 0.6
    # Each training question is in one of the two parts.
    labels = [y.numpy() for split in ("train", "valid") for _, y in data[split]]
    assert sum((each != NO_QUESTION).sum() for each in labels) == 800
    text, files = evaluation.report(app, trained)
    assert "of 96 questions are answered incorrectly" in text
    assert {"test.md", "test-confusion.png"} <= {path.name for path in files}


@pytest.mark.exhaustive
@pytest.mark.usefixtures("parity_process")
def test_the_example_scripts_query_an_export(trained, tmp_path, capsys):
    exported = export.export(app, trained, tmp_path)
    manifest = json.loads((exported / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    photo = tmp_path / "photo.png"
    small = tf.image.resize(tf.io.decode_image(photos()[0]), [32, 32])
    photo.write_bytes(tf.io.encode_png(tf.cast(small, tf.uint8)).numpy())
    questions = ["What color is the circle?", "is there a red thing ?"]
    service = app.serve(load_trained(app, trained))
    expected = query(service, [(photo.read_bytes(), question) for question in questions])
    capsys.readouterr()
    for script in (serving_example, litert_example):
        script.main(str(exported), str(photo), *questions)
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        for line, question, answer in zip(lines, questions, expected, strict=True):
            best = f"{answer['answers'][0]} {answer['scores'][0]:.1%}"
            assert line[0] == question
            assert " ".join(line[1:]).startswith(best)


def test_the_example_scripts_import_only_what_they_name():
    allowed = {
        serving_example: {"sys", "pathlib", "tensorflow", "tensorflow_text"},
        litert_example: {"re", "sys", "pathlib", "numpy", "PIL", "ai_edge_litert"},
    }
    for script, names in allowed.items():
        found = set()
        for node in ast.walk(ast.parse(Path(script.__file__).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
        assert found == names


def test_predict_plots_the_attention_and_writes_nothing_else(tmp_path, monkeypatch, capsys):
    """A file that is there stays as it is. A question may be longer than the name of a file."""
    path = str(write_run(tmp_path / "run", app, make()).path)
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "other", "plots"):
        Path(folder).mkdir()
    for folder, contents in zip(("one", "other"), photos(), strict=True):
        (Path(folder) / "cat.png").write_bytes(contents)
    Path("plots/prediction-1.png").write_text("mine")
    inputs = ["one/cat.png", "What color is it?", "other/cat.png", "is there a red thing ? " * 20]
    assert cli.main(["vqa", "predict", path, *inputs, "--plot=plots"]) == 0
    plots = sorted(path.name for path in Path("plots").iterdir())
    assert plots == ["prediction-1.png", "prediction-2.png", "prediction-3.png"]
    assert Path("plots/prediction-1.png").read_text() == "mine"
    for name in plots[1:]:
        assert min(tf.io.decode_image(Path("plots", name).read_bytes()).shape[:2]) > 200
    written = {str(each) for each in Path().rglob("*") if each.is_file()}
    written = {name for name in written if not name.startswith("run/")}
    assert written == {"one/cat.png", "other/cat.png", *(f"plots/{name}" for name in plots)}
    capsys.readouterr()
    for wrong, message in (
        (["one/cat.png"], "one/cat.png: a question about it is missing"),
        (["none.png", "what ?"], "none.png: No such file or directory."),
        (["plots/prediction-1.png", "what ?"], "plots/prediction-1.png cannot be decoded"),
    ):
        assert cli.main(["vqa", "predict", path, *wrong]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_model_for_dialogs_starts_with_the_answers_of_the_run_it_is_fine_tuned_from(tmp_path):
    source = make()
    run = write_run(tmp_path / "run", app, source)
    config = app.Config(**SMALL, history=True, start=str(run.path))
    model = app.build(config, source.assets)
    carried = transfer.start(app, config, model, source.assets)
    assert not carried.matched
    assert set(carried.fresh) == {"facts/cell", "history", "history_projection"}
    rng = np.random.default_rng(0)
    features = {
        "tokens": rng.integers(2, 9, (1, 4, 5)).astype("int32"),
        "rounds": rng.integers(2, 9, (1, 4, 6)).astype("int32"),
        "image": rng.uniform(0, 255, (1, 16, 16, 3)).astype("float32"),
    }
    found = model(features, training=False)
    del features["rounds"]
    np.testing.assert_allclose(found, source.model(features, training=False), atol=1e-5)


@pytest.mark.exhaustive
def test_the_training_step_compiles_under_xla_with_static_shapes(folder, tmp_path):
    config = app.Config(
        **SMALL, data=str(folder), batch_size=64, glimpses=1, epochs=1, jit=True, color_jitter=0.2
    )
    run = Run(tmp_path)
    assert training.train(app, config, run)["epochs"] == 1
    batches = app.load(config, ("train",), run.assets(), training=True)["train"]
    assert {tuple(labels.shape) for _, labels in batches} == {(64, 2, 1)}
