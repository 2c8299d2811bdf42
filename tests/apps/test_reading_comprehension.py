"""The reading comprehension app: generated data, own files, the command line, what is exported."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.apps import resuming
from unroll.apps.core import cli, export
from unroll.apps.core.evaluation import evaluate, load_model
from unroll.apps.core.protocol import ask
from unroll.apps.core.runs import Run
from unroll.apps.reading_comprehension import app, metrics
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines.text import UNKNOWN

FOLDER = Path(app.__file__).parent
ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "bob", "garden", "is", "kitchen", "mary", "the", "to", "went"],
    "tasks": ["1", "6"],
    "memory_size": ["9"],
}
VARIANTS = {
    "memory": {},
    "restarts": {"restarts": 3, "noise": 0.3, "linear_start": 0.5},
    "layer-wise": {"tying": "layer_wise", "position_encoding": False, "hops": 1},
    "recurrent facts": {"facts": "recurrent", "cell": "GRU"},
    "recurrent": {"model": "recurrent"},
}
STRANGE = [
    ("", ""),
    ("   \n\n", "   "),
    ("Mary went to the garden. " * 40, "where is Mary?"),
    ("😀❤️. من اين\nnul\0byte kitchen", "去哪儿?"),
    ("...! ? .", "?!"),
]


def make(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    config = app.Config(**{"units": 6, "memory_size": 9, **options})
    model = app.build(config, ASSETS)
    # Away from the start, where a bias of zero hides a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    for copy in model.get_layer("restarts").copies:
        for weight in copy.non_trainable_weights:
            if weight.name == "linear":
                weight.assign(0.0)
    return model


def batch(rng, size=4, facts=5) -> tuple[dict, np.ndarray]:
    features = {
        "facts": rng.integers(2, 10, (size, facts, 4)).astype("int32"),
        "question": rng.integers(2, 10, (size, 3)).astype("int32"),
    }
    features["facts"][0, facts // 2 :] = 0
    return features, np.stack([rng.integers(2, 10, size), rng.integers(0, 2, size)], axis=1)


@pytest.fixture(params=VARIANTS, scope="module")
def model(request) -> keras.Model:
    return make(**VARIANTS[request.param])


def test_whatever_people_tell_gets_an_answer(model):
    results = app.predict(model, ASSETS, STRANGE)
    assert [len(result["facts"]) for result in results] == [0, 0, 9, 3, 3]
    attends = "hops" in (layer.name for layer in copies(model)[0].layers)
    for result, some in zip(results, [0, 0, 1, 1, 0], strict=True):  # marks are no words
        assert result["answer"] in ASSETS["vocabulary"][2:]
        for weights in result["attention"]:
            assert all(0 <= weight < 1 for weight in weights)
            assert (sum(weights) > 0) == bool(some and attends)
    json.dumps(results)


def copies(model) -> list[keras.Model]:
    return model.get_layer("restarts").copies


def test_an_answer_depends_on_no_other_of_its_batch(model):
    together = app.predict(model, ASSETS, STRANGE)
    for given, whole in zip(STRANGE, together, strict=True):
        (alone,) = app.predict(model, ASSETS, [given])
        assert alone["answer"] == whole["answer"]
        np.testing.assert_allclose(alone["attention"], whole["attention"], atol=1e-5)


def test_litert_gives_the_model_s_answers(model):
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(model, ASSETS).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for size, facts in ((1, 1), (3, 9), (2, 4)):
        features, _ = batch(rng, size, facts)
        found, expected = run(**features), function(**features)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_models_side_by_side_are_those_one_by_one():
    model = make(restarts=3, noise=0.0, linear_start=0.0, clip_norm=0.5)
    features, labels = batch(np.random.default_rng(0))
    logits = model(features)
    alone = [copy([features["facts"], features["question"]])[0] for copy in copies(model)]
    np.testing.assert_allclose(logits, ops.stack(alone, axis=1), atol=1e-5)

    steps = []
    for k in range(3):
        one = make(noise=0.0, clip_norm=0.5)
        copies(one)[0].set_weights(copies(model)[k].get_weights())
        one.train_on_batch(features, labels)
        steps.append(one.trainable_weights)
    model.train_on_batch(features, labels)
    for copy, expected in zip(copies(model), steps, strict=True):
        for found, wanted in zip(copy.trainable_weights, expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_the_copy_with_the_least_training_loss_answers():
    model = make(restarts=3)
    restarts = model.get_layer("restarts")
    restarts.losses_of_copies.assign([0.3, 0.1, 0.2])
    features, labels = batch(np.random.default_rng(0))
    best = copies(model)[1]
    expected, _ = best([features["facts"], features["question"]])
    served = app.serve(model, ASSETS).functions["ids"](**features)
    np.testing.assert_allclose(served["scores"], tf.nn.softmax(expected), atol=1e-5)
    dataset = tf.data.Dataset.from_tensors((features, labels))
    assert (metrics.answers(model, dataset)[:, 0] == np.argmax(expected, -1)).all()


def test_training_losses_are_kept_and_those_of_validation_are_not():
    model = make(restarts=2, noise=0.0)
    kept = model.get_layer("restarts").losses_of_copies
    features, labels = batch(np.random.default_rng(0))
    logits = model(features)
    model.test_on_batch(features, labels)
    assert not np.any(kept)
    model.train_on_batch(features, labels)
    right = np.repeat(labels[:, :1], 2, axis=1)
    each = keras.losses.sparse_categorical_crossentropy(right, logits, from_logits=True)
    np.testing.assert_allclose(kept, 0.01 * np.mean(each, axis=0), rtol=1e-4)


def test_an_answer_that_the_vocabulary_lacks_is_not_learned_and_is_wrong():
    features, labels = batch(np.random.default_rng(0))
    unknown = labels.copy()
    unknown[:, 0] = UNKNOWN
    model = make()
    before = [np.array(w) for w in model.trainable_weights]
    model.train_on_batch(features, unknown)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    found = metrics.figures(np.array([[UNKNOWN, UNKNOWN, 0], [5, 5, 0]]), ["1"])
    assert found["error"] == 0.5


def test_the_linear_start_ends():
    config = app.Config(epochs=12, linear_start=0.3, learning_rate=0.1, schedule="halving")
    model = make(linear_start=0.3, restarts=2)
    [start] = app.callbacks(config, [])
    start.set_model(model)
    seen = []
    for epoch in range(config.epochs):
        start.on_epoch_begin(epoch)
        seen.append([float(copy.get_layer("hops").linear) for copy in copies(model)])
    assert seen == 4 * [[1, 1]] + 8 * [[0, 0]]
    rates = [config.learning_rate_at(epoch, []) for epoch in range(config.epochs)]
    halved = [rate for rate in (0.1, 0.05, 0.025, 0.0125) for _ in range(2)]
    assert rates == pytest.approx([0.05] * 4 + halved)
    without = dataclasses.replace(config, linear_start=0.0)
    assert without.learning_rate_at(2, []) == 0.1
    assert without.learning_rate_at(3, []) == 0.05
    assert app.callbacks(without, []) == []
    assert app.callbacks(dataclasses.replace(config, model="recurrent"), []) == []


@pytest.mark.parametrize(
    ("losses", "linear"),
    [
        ([9, 8, 7, 6, 5, 4, 3, 2], 6),  # as long as its share
        ([9, 8, 8, 7, 7, 7, 3, 2], 6),
        ([9, 8, 8, 8.5, 3, 2, 1, 0], 4),
        ([9, 9, 9, 3, 2, 1, 0, 0], 3),
    ],
)
@pytest.mark.parametrize("name", ["val_loss", "loss"])
def test_the_linear_start_ends_with_the_loss_that_falls_no_more(losses, linear, name):
    config = app.Config(
        epochs=8, linear_start=0.75, linear_patience=2, learning_rate=0.1, schedule="halving"
    )
    model, history, seen, rates = make(linear_start=0.75), [], [], []
    [start] = app.callbacks(config, history)
    start.set_model(model)
    for epoch, loss in enumerate(losses):
        start.on_epoch_begin(epoch)
        seen.append(float(copies(model)[0].get_layer("hops").linear))
        rates.append(config.learning_rate_at(epoch, history))
        history.append({"loss": float(epoch), name: loss})
    assert seen == [1] * linear + [0] * (8 - linear)
    assert config.preparing_epochs(history) == linear
    halved = [0.1 * 0.5 ** (4 * k // (8 - linear)) for k in range(8 - linear)]
    assert rates == pytest.approx([0.05] * linear + halved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"hops": 0}, "hops must be at least 1, got 0"),
        ({"memory_size": -1}, "memory_size must be 0 or more, got -1"),
        ({"linear_patience": -1}, "linear_patience must be 0 or more, got -1"),
        ({"noise": 1.0}, r"noise must lie in \[0, 1\)"),
        ({"linear_start": 1.0}, "linear_start must lie in"),
        ({"restarts": 2, "facts": "recurrent"}, "restarts are for model=memory"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_figures_by_hand():
    found = metrics.figures(np.array([[5, 5, 0], [5, 6, 0], [7, 7, 1], [7, 7, 1]]), ["2", "10"])
    expected = {"examples": 4, "error": 0.25, "tasks_above_5": 1, "error_2": 0.5, "error_10": 0.0}
    assert found == expected


LINES = {
    "train": ["Bob is here.", "Mary is there.", "Where is {}?\t{}\t{}"],
    "test": ["Mary is there.", "Bob is here.", "Where is {}?\t{}\t{}"],
}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for split, (first, second, asked) in LINES.items():
        for task, who in (("1", "Bob"), ("2", "Mary")):
            answer = "here" if who == "Bob" else "there"
            why = 1 if first.startswith(who) else 2
            story = [f"1 {first}", f"2 {second}", "3 " + asked.format(who, answer, why)]
            path = folder / f"qa{task}_who-is-where_{split}.txt"
            path.write_text("\n".join(story * 100), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory) -> Run:
    run = tmp_path_factory.mktemp("runs") / "own"
    options = ["--epochs=40", "--patience=40", "--units=8", "--restarts=2", "--linear-start=0.1"]
    command = ["reading_comprehension", "train", f"--data={own}", f"--run={run}", *options]
    assert cli.main(command) == 0
    return Run(run)


def test_own_files_are_learned(trained):
    found = evaluate(app, trained, "test")
    assert found["error"] == found["error_1"] == found["error_2"] == 0.0


def test_one_task_alone(own, tmp_path, capsys):
    config = app.Config(data=str(own), task="2")
    data = app.load(config)
    assert data.assets["tasks"] == ["2"]
    assert int(sum(len(labels) for _, labels in data.test)) == 100
    command = ["reading_comprehension", "train", f"--data={own}", f"--run={tmp_path / 'run'}"]
    assert cli.main([*command, "--task=3"]) == 2
    assert re.search(r"--task=3: .* has 1, 2\.", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_memory_as_large_as_the_longest_story(own):
    config = app.Config(data=str(own), units=6, memory_size=0)
    data = app.load(config)
    assert data.assets["memory_size"] == ["2"]
    hops = copies(app.build(config, data.assets))[0].get_layer("hops")
    assert {tuple(encoding.shape) for encoding in hops.temporal_encodings} == {(2, 6)}
    assert app.load(app.Config(data=str(own))).assets["memory_size"] == ["50"]


def test_a_task_that_training_lacks_is_named(own, tmp_path, capsys):
    folder = tmp_path / "lacking"
    shutil.copytree(own, folder)
    (folder / "qa2_who-is-where_train.txt").unlink()
    assert cli.main(["reading_comprehension", "train", f"--data={folder}"]) == 2
    assert re.search(r"the test split has task 2, train has not", capsys.readouterr().err)


def test_the_exported_model_answers_by_the_documented_examples(trained, tmp_path):
    folder = export.export(app, trained, tmp_path)
    model, _, assets = load_model(app, trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    story, question = "Bob is here. Mary is there.", "Where is Mary?"
    [expected] = ask(app.serve(model, assets), [(story, question)])
    assert expected["answer"] == "there"
    for script in ("serving.py", "litert.py"):
        command = [sys.executable, "-I", FOLDER / script, folder, story, question]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        shown = done.stdout.rstrip("\n").split("\t")
        assert shown == [question, "there", f"{max(expected['scores']):.1%}"]


def test_predict_shows_the_hops(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    story = tmp_path / "told.txt"
    story.write_text("Mary is there.\nBob is here.\n", encoding="utf-8")
    asked = [str(story), "Where is Bob?", "Where is Mary?", "Bob is here.", "Where is Bob?"]
    assert cli.main(["reading_comprehension", "predict", str(trained.path), *asked]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Mary is there.") == 2
    assert shown.count("(no fact)") == 3
    for k in (1, 2, 3):
        path = Path(f"story.hops-{k}.png")
        assert path.name in shown
        assert min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["Where is Bob?"], "name the story before the questions about it"),
        (["Bob is here.", "Mary is there."], "what is the question about it?"),
        (["Bob is here."], "what is the question about it?"),
        (["none.txt", "Where is Bob?"], "none.txt: No such file"),
    ],
)
def test_what_is_no_story_with_questions(trained, asked, message, capsys):
    assert cli.main(["reading_comprehension", "predict", str(trained.path), *asked]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_goes_on_draws_the_same_noise(own, tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.Config(),
        data=str(own),
        units=6,
        epochs=3,
        restarts=2,
        noise=0.3,
        linear_start=0.5,
        linear_patience=1,
    )
    whole, resumed = resuming.histories(app, config, tmp_path, monkeypatch)
    assert whole == resumed
    assert len({figures["loss"] for figures in whole}) == 3


def test_where_a_person_is_is_learned(tmp_path):
    run = Run(tmp_path / "run")
    options = ["--task=1", "--epochs=12", "--linear-start=0", "--restarts=1"]
    assert cli.main(["reading_comprehension", "train", f"--run={run.path}", *options]) == 0
    assert evaluate(app, run, "valid")["error"] < 0.2


def test_baseline_by_hand():
    features = {"facts": np.zeros((3, 1, 1), "int32"), "question": np.zeros((3, 1), "int32")}
    known = tf.data.Dataset.from_tensors((features, np.array([[5, 0], [5, 0], [6, 1]])))
    asked = tf.data.Dataset.from_tensors((features, np.array([[5, 0], [7, 0], [6, 1]])))
    data = app.Data(known, known, asked, ASSETS)
    found = app.baseline(app.Config(), data, "test")
    assert found["error"] == pytest.approx(0.25)
    assert found["tasks_above_5"] == 1
