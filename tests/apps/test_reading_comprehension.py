"""The reading comprehension app: generated data, own files, the command line, exports."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.parameters import first_of
from unroll.apps.core import cli, export
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.evaluation import report as report_on
from unroll.apps.core.protocol import Data, Service, Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.reading_comprehension import app, metrics
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines.text import UNKNOWN

ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "bob", "garden", "is", "kitchen", "mary", "the", "to", "went"],
    "tasks": ["1", "6"],
    "memory": {"size": 9},
}
VARIANTS = {
    "restarts": {"restarts": 3, "noise": 0.3, "linear_start": 0.5},
    "recurrent facts": {"facts": "recurrent", "cell": "GRU"},
    "recurrent": {"model": "recurrent"},
}
STORIES = [
    ("", ""),
    ("   \n\n", "   "),
    ("Mary went to the garden. " * 40, "where is Mary?"),
    ("😀❤️. من اين\nnul\0byte kitchen", "去哪儿?"),
    ("...! ? .", "?!"),
    ("Bob is \ufffd\u202e\u2028 a\u0301.\rMary\r\nis\x1b[31m", "[PAD] [UNK] " + "where " * 300),
    ("garden" * 3000, "\0"),
]


def make(eager: bool = False, **options) -> Trained:
    """A model with random weights. Training steps of an `eager` one are not compiled."""
    keras.utils.set_random_seed(1)
    config = app.Config(**{"units": 6, "memory_size": 9, **options})
    model = app.build(config, ASSETS)
    model.run_eagerly = eager
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    for copy in model.get_layer("restarts").copies:
        for weight in copy.non_trainable_weights:
            if weight.name == "linear":
                weight.assign(0.0)
    return Trained(config, ASSETS, model)


def batch(rng, size=4, facts=5) -> tuple[dict, np.ndarray]:
    features = {
        "facts": rng.integers(2, 10, (size, facts, 4)).astype("int32"),
        "question": rng.integers(2, 10, (size, 3)).astype("int32"),
    }
    features["facts"][0, facts // 2 :] = 0
    return features, np.stack([rng.integers(2, 10, size), rng.integers(0, 2, size)], axis=1)


@pytest.fixture(params=first_of(VARIANTS), scope="module")
def trained_variant(request) -> Trained:
    return make(**VARIANTS[request.param])


@pytest.fixture(scope="module")
def service(trained_variant) -> Service:
    return app.serve(trained_variant)


def test_any_story_gets_an_answer(trained_variant):
    results = app.predict(trained_variant, STORIES)
    assert [len(result["facts"]) for result in results] == [0, 0, 9, 3, 3, 3, 1]
    attends = "hops" in (layer.name for layer in copies(trained_variant.model)[0].layers)
    # Punctuation is not a word.
    for result, some in zip(results, [0, 0, 1, 1, 0, 1, 1], strict=True):
        assert result["answer"] in ASSETS["vocabulary"][2:]
        for weights in result["attention"]:
            assert all(0 <= weight <= 1 for weight in weights)
            assert (sum(weights) > 0) == bool(some and attends)
    json.dumps(results)


def test_any_story_is_plotted(tmp_path):
    given = ["It costs $5 and \\frac$.", "garden" * 3000, ""]
    results = app.predict(make(), [(story, "How much is $x^$?") for story in given])
    for k, result in enumerate(results):
        app.plot(result, tmp_path / f"{k}.png")
        assert min(tf.io.decode_image((tmp_path / f"{k}.png").read_bytes()).shape[:2]) > 100


def test_an_empty_batch(trained_variant, service):
    assert app.predict(trained_variant, []) == []
    functions = service.functions
    none = tf.constant([], tf.string)
    outputs = functions["serving_default"](story=none, question=none)
    assert {len(value) for value in outputs.values()} == {0}
    no_ids = {"facts": tf.zeros([0, 2, 3], tf.int32), "question": tf.zeros([0, 4], tf.int32)}
    assert {len(value) for value in functions["ids"](**no_ids).values()} == {0}


def test_ids_that_are_not_in_the_vocabulary_are_unknown(service):
    features, _ = batch(np.random.default_rng(0))
    unknown, outside = (
        {name: np.where(x == 5, token, x) for name, x in features.items()}
        for token in (UNKNOWN, -1)
    )
    outside["facts"][outside["facts"] == -1] = 2**31 - 1
    expected = service.functions["ids"](**unknown)
    for name, value in service.functions["ids"](**outside).items():
        np.testing.assert_array_equal(value, expected[name])


def test_invalid_utf8_is_answered(service):
    function = service.functions["serving_default"]
    outputs = function(story=[b"Bob \xff\xfe is here. \xc3"], question=[b"\xf0\x9f Where?"])
    assert outputs["answer"].numpy()[0].decode() in ASSETS["vocabulary"][2:]


def copies(model) -> list[keras.Model]:
    return model.get_layer("restarts").copies


def test_an_answer_does_not_depend_on_its_batch(service):
    for given, whole in zip(STORIES, query(service, STORIES), strict=True):
        (alone,) = query(service, [given])
        assert alone["answer"] == whole["answer"]
        count = len(alone["attention"][0])
        expected = np.array(whole["attention"])[:, :count]
        np.testing.assert_allclose(alone["attention"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "variant", ["recurrent facts", pytest.param("recurrent", marks=pytest.mark.exhaustive)]
)
def test_litert_agrees_with_the_model(variant):
    """The export of `trained` is the memory network."""
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(make(**VARIANTS[variant])).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for size, facts in ((1, 1), (3, 9), (2, 4)):
        features, _ = batch(rng, size, facts)
        found, expected = run(**features), function(**features)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_parallel_models_equal_single_models():
    model = make(restarts=3, noise=0.0, linear_start=0.0, clip_norm=0.5).model
    features, labels = batch(np.random.default_rng(0))
    logits = model(features)
    alone = [copy([features["facts"], features["question"]])[0] for copy in copies(model)]
    np.testing.assert_allclose(logits, ops.stack(alone, axis=1), atol=1e-5)

    steps = []
    for k in range(3):
        one = make(eager=True, noise=0.0, clip_norm=0.5).model
        copies(one)[0].set_weights(copies(model)[k].get_weights())
        one.train_on_batch(features, labels)
        steps.append(one.trainable_weights)
    model.train_on_batch(features, labels)
    for copy, expected in zip(copies(model), steps, strict=True):
        for found, wanted in zip(copy.trainable_weights, expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_the_copy_with_the_lowest_training_loss_is_used():
    trained = make(restarts=3)
    model = trained.model
    restarts = model.get_layer("restarts")
    restarts.copy_losses.assign([0.3, 0.1, 0.2])
    features, labels = batch(np.random.default_rng(0))
    best = copies(model)[1]
    expected, _ = best([features["facts"], features["question"]])
    served = app.serve(trained).functions["ids"](**features)
    np.testing.assert_allclose(served["scores"], tf.nn.softmax(expected), atol=1e-5)
    dataset = tf.data.Dataset.from_tensors((features, labels))
    predicted = metrics.predictions(trained, dataset).predicted
    assert (predicted == np.argmax(expected, -1)).all()


@pytest.mark.exhaustive
def test_copy_losses_are_of_training_not_of_validation():
    model = make(eager=True, restarts=2, noise=0.0).model
    kept = model.get_layer("restarts").copy_losses
    features, labels = batch(np.random.default_rng(0))
    logits = model(features)
    model.test_on_batch(features, labels)
    assert not np.any(kept)
    model.train_on_batch(features, labels)
    right = np.repeat(labels[:, :1], 2, axis=1)
    each = keras.losses.sparse_categorical_crossentropy(right, logits, from_logits=True)
    np.testing.assert_allclose(kept, 0.01 * np.mean(each, axis=0), rtol=1e-4)


def test_unknown_answers_have_no_loss_and_are_wrong():
    features, labels = batch(np.random.default_rng(0))
    unknown = labels.copy()
    unknown[:, 0] = UNKNOWN
    model = make(eager=True).model
    before = [np.array(w) for w in model.trainable_weights]
    model.train_on_batch(features, unknown)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    found = metrics.figures(predictions([[UNKNOWN, UNKNOWN, 0], [5, 5, 0]]), ["1"])
    assert found["error"] == 0.5


def test_the_linear_start_ends():
    config = app.Config(epochs=12, linear_start=0.3, learning_rate=0.1, schedule="halving")
    model = make(linear_start=0.3, restarts=2).model
    [start] = app.callbacks(config, [])
    start.set_model(model)
    linear = []
    for epoch in range(config.epochs):
        start.on_epoch_begin(epoch)
        linear.append([float(copy.get_layer("hops").linear) for copy in copies(model)])
    assert linear == 4 * [[1, 1]] + 8 * [[0, 0]]
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
        ([9, 8, 7, 6, 5, 4, 3, 2], 6),  # the limit
        ([9, 8, 8, 7, 7, 7, 3, 2], 6),
        ([9, 8, 8, 8.5, 3, 2, 1, 0], 4),
        ([9, 9, 9, 3, 2, 1, 0, 0], 3),
    ],
)
@pytest.mark.parametrize("name", ["val_loss", "loss"])
def test_the_linear_start_ends_when_the_loss_stops_falling(losses, linear, name):
    config = app.Config(
        epochs=8, linear_start=0.75, linear_patience=2, learning_rate=0.1, schedule="halving"
    )
    model, history, found, rates = make(linear_start=0.75).model, [], [], []
    [start] = app.callbacks(config, history)
    start.set_model(model)
    for epoch, loss in enumerate(losses):
        start.on_epoch_begin(epoch)
        found.append(float(copies(model)[0].get_layer("hops").linear))
        rates.append(config.learning_rate_at(epoch, history))
        history.append({"loss": float(epoch), name: loss})
    assert found == [1] * linear + [0] * (8 - linear)
    assert config.preparing_epochs(history) == linear
    halved = [0.1 * 0.5 ** (4 * k // (8 - linear)) for k in range(8 - linear)]
    assert rates == pytest.approx([0.05] * linear + halved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"hops": 0}, "hops must be at least 1, got 0"),
        ({"memory_size": -1}, r"memory_size must be in \[0, 2\*\*31\), got -1"),
        ({"linear_patience": -1}, r"linear_patience must be in \[0, 2\*\*31\), got -1"),
        ({"noise": 1.0}, r"noise must be in \[0, 1\)"),
        ({"linear_start": 1.0}, "linear_start must be in"),
        ({"restarts": 2, "facts": "recurrent"}, "restarts above 1 need model=memory"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def predictions(rows: list) -> metrics.Predictions:
    return metrics.Predictions(*np.array(rows).T)


def test_figures_by_hand():
    found = metrics.figures(predictions([[5, 5, 0], [5, 6, 0], [7, 7, 1], [7, 7, 1]]), ["2", "10"])
    expected = {"examples": 4, "error": 0.25, "tasks_above_5": 1, "error_2": 0.5, "error_10": 0.0}
    assert found == expected


LINES = {
    "train": ["Bob is here.", "Mary is there.", "Where is {}?\t{}\t{}"],
    "test": ["Mary is there.", "Bob is here.", "Where is {}?\t{}\t{}"],
}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for split, (first, second, question) in LINES.items():
        for task, who in (("1", "Bob"), ("2", "Mary")):
            answer = "here" if who == "Bob" else "there"
            why = 1 if first.startswith(who) else 2
            story = [f"1 {first}", f"2 {second}", "3 " + question.format(who, answer, why)]
            path = folder / f"qa{task}_who-is-where_{split}.txt"
            path.write_text("\n".join(story * 10), encoding="utf-8")
    return folder


def test_one_task_alone(own, tmp_path, capsys):
    config = app.Config(data=str(own), task="2")
    data = app.load(config, ("test",))
    assert data.assets["tasks"] == ["2"]
    assert int(sum(len(labels) for _, labels in data["test"])) == 10
    command = ["reading_comprehension", "train", f"--data={own}", f"--run={tmp_path / 'run'}"]
    assert cli.main([*command, "--task=3"]) == 2
    assert re.search(r"--task=3: .* has 1, 2\.", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_memory_as_large_as_the_longest_story(own, capsys):
    config = app.Config(data=str(own), units=6, memory_size=0)
    data = app.load(config, ())
    assert data.assets["memory"] == {"size": 2}
    hops = copies(app.build(config, data.assets))[0].get_layer("hops")
    assert {tuple(encoding.shape) for encoding in hops.temporal_encodings} == {(2, 6)}
    assert app.load(app.Config(data=str(own)), ()).assets["memory"] == {"size": 50}
    assert capsys.readouterr().err.count("facts before them") == 0
    assert app.load(dataclasses.replace(config, memory_size=1), ()).assets["memory"] == {"size": 1}
    message = "18 of 18 training questions have more than 1 facts before them; the last 1 are"
    assert message in capsys.readouterr().err


def test_a_task_that_training_lacks_is_named(own, tmp_path, capsys):
    folder = tmp_path / "lacking"
    shutil.copytree(own, folder)
    (folder / "qa2_who-is-where_train.txt").unlink()
    config = app.Config(data=str(folder))
    with pytest.raises(UsageError, match="the test split has task 2, train has not"):
        app.load(config, ("test",))
    shutil.copy(own / "qa2_who-is-where_test.txt", folder / "qa2_who-is-where_valid.txt")
    shutil.copy(own / "qa1_who-is-where_test.txt", folder / "qa1_who-is-where_valid.txt")
    assert cli.main(["reading_comprehension", "train", f"--data={folder}"]) == 2
    assert re.search(r"the valid split has task 2, train has not", capsys.readouterr().err)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A run that learned one task of the generated stories."""
    return train(tmp_path_factory.mktemp("runs") / "run", "--epochs=12")


@pytest.fixture(scope="module")
def brief(tmp_path_factory) -> Run:
    """A run of one epoch over some stories of that task."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(folder, "--epochs=1", "--generated-size=0.1")


def train(folder: Path, *options: str) -> Run:
    """A run with the command line."""
    options = ["--task=1", "--linear-start=0", "--restarts=1", *options]
    assert cli.main(["reading_comprehension", "train", f"--run={folder}", *options]) == 0
    return Run(folder)


@pytest.mark.exhaustive
def test_the_generated_stories_are_learned(trained):
    found = evaluate(app, trained, "valid")
    assert found["error"] == found["error_1"] < 0.2


@pytest.mark.exhaustive
def test_the_example_scripts_agree_with_the_model(trained, tmp_path, parity_process, run_example):
    folder = export.export(app, trained, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    story, question = "Mary went to the kitchen. John moved to the office.", "Where is Mary?"
    [expected] = query(app.serve(load_trained(app, trained)), [(story, question)])
    for script in ("serving", "litert"):
        [line] = run_example("reading_comprehension", script, folder, story, question)
        score = f"{max(expected['scores']):.1%}"
        assert line.split("\t") == [question, expected["answer"], score]


def test_predict_shows_and_plots_the_hops(brief, tmp_path, capsys):
    story = tmp_path / "story.txt"
    facts = "1 Mary went to the office.\n2 Where is Mary?\toffice\t1\n3 Bill went to the garden.\n"
    story.write_text(facts)
    inputs = [str(story), "Where is Bill?", "Where is Mary?", "Bill left.", "Where is Bill?"]
    command = ["reading_comprehension", "predict", str(brief.path), *inputs]
    assert cli.main([*command, "Mary left."]) == 2
    assert "Mary left.: a question about it is missing" in capsys.readouterr().err
    assert cli.main([*command, f"--plot={tmp_path / 'plots'}"]) == 0
    output = capsys.readouterr().out
    assert output.count("  Mary went to the office.") == 2
    assert output.count("(no fact)") == 3
    plots = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in plots] == [f"prediction-{k}.png" for k in (1, 2, 3)]
    assert all(min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100 for path in plots)


def test_the_report_lists_tasks(brief):
    text, files = report_on(app, brief, "valid")
    assert re.search(r"\n\| 1 \| [01]\.\d{3} \| \d+ \| 10 \|\n", text)
    assert [path.name for path in files] == ["valid.md", "valid-confusion.png"]


def test_the_noise_is_part_of_the_state_of_a_run():
    """A resumed run restores all variables of a model: then it has the noise of an unbroken one."""
    model = make(eager=True, restarts=1, hops=1, noise=0.3).model
    features, labels = batch(np.random.default_rng(0))
    [seed] = [v for v in copies(model)[0].non_trainable_variables if "seed" in v.path]
    assert any(seed is variable for variable in model.variables)
    before = [np.array(variable) for variable in model.variables]
    losses = []
    for restored in (True, True, False):
        for variable, value in zip(model.variables, before, strict=True):
            if restored or variable is not seed:
                variable.assign(value)
        losses.append(float(model.train_on_batch(features, labels)[0]))
    assert losses[0] == losses[1] != losses[2]


def test_baseline_by_hand():
    features = {"facts": np.zeros((3, 1, 1), "int32"), "question": np.zeros((3, 1), "int32")}
    train = tf.data.Dataset.from_tensors((features, np.array([[5, 0], [5, 0], [6, 1]])))
    test = tf.data.Dataset.from_tensors((features, np.array([[5, 0], [7, 0], [6, 1]])))
    data = Data({"train": train, "test": test}, ASSETS)
    found = app.baseline(app.Config(), data, "test")
    assert found["error"] == pytest.approx(0.25)
    assert found["tasks_above_5"] == 1
