"""The question app: on its generated scenes, on photos, in dialogs, from files of features."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps import resuming
from unroll.apps.core import cli, export, training, transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_model, weights_of
from unroll.apps.core.protocol import ask
from unroll.apps.core.runs import Run
from unroll.apps.shared import images, questions
from unroll.apps.vqa import app, metrics, network, report
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import datasets
from unroll.pipelines.datasets.vision import scenes, scenes_dialog, scenes_qa
from unroll.pipelines.visual_questions import FIRST_ANSWER, NO_QUESTION, UNKNOWN_ANSWER

FOLDER = Path(app.__file__).parent
SETTINGS = {"image_size": 16, "encoder": "", "encoder_weights": "", "regions": ""}
ENTRIES = ["[PAD]", "[UNK]", "what", "is", "it", "red", "?", "yes", "no"]
VARIANTS = {
    "image": {},
    "one glimpse": {
        "glimpses": 1,
        "cell": "GRU",
        "depth": 2,
        "whole": False,
        "words": False,
        "count_features": False,
    },
    "mean": {"image": "mean", "question": "max", "hidden": True},
    "no image": {"image": "none"},
    "no question": {"question": "none"},
    "dialog": {"history": True, "random_colours": True},
    "regions": {"regions": "made elsewhere"},
}
PHOTO, OTHER = (contents for contents, _ in (app.EXAMPLES[0], app.EXAMPLES[2]))
STRANGE = ["", "   ", "what " * 300, "😀❤️", "من اين", "nul\0byte red", "是红色吗", "Is it RED?!"]


def assets_of(regions="", image="attention", **_) -> dict:
    kind = "none" if image == "none" else "regions" if regions else "image"
    shape = {"none": [], "regions": [None, 6], "image": [16, 16, 3]}[kind]
    settings = SETTINGS | {"kind": kind, "shape": shape, "regions": regions}
    return {
        "vocabulary": ENTRIES,
        "answers": ["yes", "no", "red"],
        "openings": ["is it", "what is"],
        "settings": json.dumps(settings).splitlines(),
    }


def make(**options) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(1)
    assets = assets_of(**options)
    small = {"image_size": 16, "filters": 4, "stages": 2, "units": 6, "features": 5, "fusion": 8}
    model = app.build(app.Config(**small, **options), assets)
    # Away from the start, where a bias of zero hides a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return model, assets


@pytest.fixture(params=VARIANTS, scope="module")
def made(request) -> tuple[keras.Model, dict]:
    return make(**VARIANTS[request.param])


def test_weights_decay_on_request():
    assert make(weight_decay=0.1)[0].optimizer.weight_decay == 0.1
    assert make()[0].optimizer.weight_decay is None


def test_whatever_people_ask_gets_an_answer(made):
    model, assets = made
    results = app.predict(model, assets, [(PHOTO, question) for question in STRANGE])
    assert [result["question"] for result in results] == STRANGE
    for result in results:
        assert sorted(result["answers"]) == sorted(assets["answers"])
        assert sum(result["scores"]) == pytest.approx(1, abs=1e-5)
        for name in ("question_attention", "image_attention", "history_attention"):
            weights = np.array(result.get(name, 0.0))
            assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()
        assert app.show(result).plain.startswith(result["answers"][0])
    assert len(results[2]["tokens"]) == 300
    json.dumps(results)


def test_an_answer_depends_on_no_other_of_its_batch(made):
    model, assets = made
    service = app.serve(model, assets)
    asked = [(PHOTO, "is it red?"), (OTHER, "what is it? is it red? what is it?"), (PHOTO, "no")]
    request = service.requests(asked)
    whole = service.functions["ids"](**request["ids"])
    for k in range(len(asked)):
        alone = {name: array[k : k + 1] for name, array in request["ids"].items()}
        answer = service.functions["ids"](**alone)
        np.testing.assert_allclose(answer["scores"][0], whole["scores"][k], atol=1e-5)


def test_the_answers_in_training_are_those_in_service(made):
    """Questions side by side with their picture, and questions each with its own."""
    model, assets = made
    service = app.serve(model, assets)
    questions = ["is it red ?", "what is it ?"]
    ids = service.requests([(PHOTO, q) for q in questions])["ids"]
    features = {"tokens": ids["tokens"][None]}
    if "image" in ids:
        features["image"] = ids["image"][:1]
    if "regions" in ids:
        ids["regions"][:] = ids["regions"][:1]
        features["regions"] = ids["regions"][:1]
    if "rounds" in ids:
        rounds = np.array([[3, 4, 5, 6, 7], [2, 3, 4, 6, 8]], "int32")
        features["rounds"] = rounds[None]
        ids["rounds"] = np.zeros((2, 2, 5), "int32")
        ids["rounds"][1, 0] = rounds[0]
    logits = model(features, training=False)
    found = service.functions["ids"](**ids)["scores"]
    np.testing.assert_allclose(tf.nn.softmax(logits[0]), found, atol=1e-5)
    # As a split is scored; TensorFlow once made another graph of it, in which this failed.
    np.testing.assert_allclose(model.predict_on_batch(features), logits, atol=1e-5)


def test_litert_gives_the_model_s_answers(made):
    from ai_edge_litert.interpreter import Interpreter

    model, assets = made
    function = app.serve(model, assets).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 40), (5, 12)):
        inputs = {"tokens": rng.integers(1, 9, (batch, length)).astype("int32")}
        inputs["tokens"][0, length // 2 :] = 0
        if "image" in specs:
            inputs["image"] = rng.uniform(0, 255, (batch, 16, 16, 3)).astype("float32")
        if "regions" in specs:
            inputs["regions"] = rng.normal(size=(batch, length + 1, 6)).astype("float32")
            inputs["regions"][0, 3:] = 0
        if "rounds" in specs:
            inputs["rounds"] = rng.integers(0, 9, (batch, 3, length)).astype("int32")
        found, expected = run(**inputs), function(**inputs)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_a_picture_is_looked_at_where_the_question_says():
    """The weights over the grid are a distribution, and those of two questions differ."""
    model, assets = make()
    one, other = app.predict(model, assets, [(PHOTO, "is it red ?"), (PHOTO, "what ?")])
    for result in (one, other):
        weights = np.array(result["image_attention"])
        assert weights.shape == (2, 4, 4)
        np.testing.assert_allclose(weights.sum((1, 2)), 1, atol=1e-5)
        assert sum(result["question_attention"]) == pytest.approx(1, abs=1e-5)
    assert np.abs(np.array(one["image_attention"]) - other["image_attention"]).max() > 1e-3


def test_regions_behind_the_last_do_not_count():
    model, assets = make(regions="made elsewhere")
    function = app.serve(model, assets).functions["ids"]
    rng = np.random.default_rng(0)
    tokens, regions = np.array([[3, 4, 5]], "int32"), rng.normal(size=(1, 3, 6)).astype("float32")
    short = function(tokens=tokens, regions=regions)
    padded = function(tokens=tokens, regions=np.pad(regions, [(0, 0), (0, 4), (0, 0)]))
    np.testing.assert_allclose(short["scores"], padded["scores"], atol=1e-6)
    assert (padded["image_attention"].numpy()[..., 3:] == 0).all()


def test_a_dialog_hears_the_rounds_before_and_not_those_to_come():
    model, _ = make(history=True)
    rng = np.random.default_rng(0)
    features = {
        "tokens": rng.integers(2, 9, (1, 4, 5)).astype("int32"),
        "rounds": rng.integers(2, 9, (1, 4, 6)).astype("int32"),
        "image": rng.uniform(0, 255, (1, 16, 16, 3)).astype("float32"),
    }
    before = model(features, training=False).numpy()
    features["rounds"][0, 2] = [8, 7, 6, 5, 4, 3]
    after = model(features, training=False).numpy()
    np.testing.assert_allclose(after[0, :3], before[0, :3], atol=1e-6)
    assert np.abs(after[0, 3] - before[0, 3]).max() > 1e-4


def test_a_dialog_begins_as_the_run_that_it_goes_on_from(tmp_path):
    small = {"image_size": 16, "filters": 4, "stages": 2, "units": 6, "features": 5, "fusion": 8}
    run, (source, assets) = Run(tmp_path), make()
    run.write_config(app, app.Config(**small))
    run.write_assets(assets)
    weights_of(source).save_weights(run.best)
    model = app.build(app.Config(**small, history=True), assets)
    assert transfer.copy(app, model, assets, str(tmp_path)) == len(source.weights)
    rng = np.random.default_rng(0)
    features = {
        "tokens": rng.integers(2, 9, (1, 4, 5)).astype("int32"),
        "rounds": rng.integers(2, 9, (1, 4, 6)).astype("int32"),
        "image": rng.uniform(0, 255, (1, 16, 16, 3)).astype("float32"),
    }
    found = model(features, training=False)
    del features["rounds"]
    np.testing.assert_allclose(found, source(features, training=False), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"image": "none", "question": "none"}, "leave nothing to answer from"),
        ({"history": True, "question": "none"}, "history needs a question"),
        ({"image_dropout": 1.0}, r"image_dropout must lie in \[0, 1\)"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_inputs_of_the_command_line(tmp_path):
    photo = tmp_path / "a photo"
    photo.write_bytes(PHOTO)
    given = [str(photo), "one ?", "two ?", "b.JPG", "three ?"]
    assert questions.pairs(given, report.is_picture, "picture") == [
        (str(photo), "one ?"),
        (str(photo), "two ?"),
        ("b.JPG", "three ?"),
    ]
    assert questions.pairs([(PHOTO, "what ?")], report.is_picture, "picture") == [(PHOTO, "what ?")]
    for wrong, message in (
        (["what ?", "b.jpg"], r"'what \?': name the picture before"),
        (["b.jpg"], "b.jpg: what is the question"),
        (["b.jpg", "c.jpg", "what ?"], "b.jpg: what is the question"),
    ):
        with pytest.raises(UsageError, match=message):
            questions.pairs(wrong, report.is_picture, "picture")
    with pytest.raises(UsageError, match="No such file"):
        images.read(str(tmp_path / "none.jpg"))
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UsageError, match=r"text.jpg cannot be decoded: JPEG"):
        images.read(str(tmp_path / "text.jpg"))


def test_the_loss_leaves_out_what_has_no_answer():
    logits = tf.constant(np.random.default_rng(0).normal(size=(2, 2, 3)), tf.float32)
    labels = np.array([[[2], [4]], [[UNKNOWN_ANSWER], [NO_QUESTION]]])
    each = keras.losses.sparse_categorical_crossentropy(
        tf.constant([0, 2]), logits[0], from_logits=True
    )
    loss = network.AnswerLoss()(labels, logits)
    assert float(loss) == pytest.approx(float(np.mean(each)), rel=1e-5)
    nothing = network.AnswerLoss()(np.zeros((2, 2, 1), "int32"), logits)
    assert float(nothing) == 0


def test_the_accuracy_counts_unknown_answers_as_wrong():
    logits = np.zeros((1, 4, 2), "float32")
    logits[..., 1] = 1
    metric = network.AnswerAccuracy()
    labels = np.array([[[FIRST_ANSWER + 1], [FIRST_ANSWER], [UNKNOWN_ANSWER], [NO_QUESTION]]])
    metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(1 / 3)


def test_figures_by_hand():
    people = [[FIRST_ANSWER] * 8 + [FIRST_ANSWER + 1] * 2, [FIRST_ANSWER + 2] * 10]
    found = metrics.Answers(
        tokens=[np.array([3, 4, 6]), np.array([2, 3, 0])],
        labels=[np.array(row) for row in people],
        chosen=[FIRST_ANSWER + 1, FIRST_ANSWER + 2],
    )
    figures = metrics.figures(found, assets_of())
    assert (figures["examples"], figures["accuracy"]) == (2, 0.5)
    assert (figures["accuracy_is_it"], figures["accuracy_what_is"]) == (0, 1)
    # Two of ten: with nine others, two of whom agree in eight cases, and one in two.
    assert figures["vqa_accuracy"] == pytest.approx((0.6 + 1) / 2)
    single = metrics.Answers(found.tokens, [np.array([2]), np.array([3])], [2, 4])
    assert "vqa_accuracy" not in metrics.figures(single, assets_of())


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of a few drawn scenes with their questions."""
    folder = tmp_path_factory.mktemp("own")
    for split, number in (("train", 40), ("valid", 12), ("test", 12)):
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            things = scenes.sample(rng, "train", 2)
            name = f"{split}{k}.png"
            pixels = scenes.render(things, rng)
            (folder / name).write_bytes(tf.io.encode_png(pixels).numpy())
            asked = scenes_qa.questions(things, rng, "train")
            lines += [f"{name}\t{question}\t{answer}\n" for question, answer in asked]
        (folder / f"{split}.tsv").write_text("".join(lines))
    return folder


SMALL = ["--units=8", "--features=8", "--fusion=16", "--filters=4", "--image-size=32"]


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory) -> Run:
    run = tmp_path_factory.mktemp("runs") / "own"
    command = ["vqa", "train", f"--data={own}", "--epochs=2", f"--run={run}", *SMALL]
    assert cli.main(command) == 0
    return Run(run)


def test_the_exported_model_answers_by_the_documented_examples(trained, tmp_path):
    folder = export.export(app, trained, tmp_path)
    model, _, assets = load_model(app, trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    photo = tmp_path / "photo.png"
    small = tf.image.resize(tf.io.decode_image(PHOTO), [32, 32])
    photo.write_bytes(tf.io.encode_png(tf.cast(small, tf.uint8)).numpy())
    questions = ["What color is the ring?", "how many circles are there ?"]
    expected = ask(app.serve(model, assets), [(photo.read_bytes(), q) for q in questions])
    for script in ("serving.py", "litert.py"):
        command = [sys.executable, "-I", FOLDER / script, folder, photo, *questions]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        for line, question, answer in zip(lines, questions, expected, strict=True):
            best = [answer["answers"][0], f"{answer['scores'][0]:.1%}"]
            assert line[0] == question
            assert " ".join(line[1:]).startswith(" ".join(best))


def test_predict_writes_a_picture_of_the_attention(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(PHOTO)
    asked = ["photo.png", "What color is the ring?", "is there a red circle ?"]
    assert cli.main(["vqa", "predict", str(trained.path), *asked]) == 0
    shown = capsys.readouterr().out
    for k in (1, 2):
        path = Path(f"photo.attention-{k}.png")
        assert path.name in shown
        pixels = tf.io.decode_image(path.read_bytes())
        assert min(pixels.shape[:2]) > 200
    assert cli.main(["vqa", "predict", str(trained.path), "photo.png"]) == 2
    assert "what is the question about it?" in capsys.readouterr().err


def test_answers_out_of_the_vocabulary_are_counted_and_named(own, capsys):
    config = app.Config(data=str(own), answers=3)
    data = app.load(config)
    told = capsys.readouterr().err
    assert len(data.assets["answers"]) == 3
    assert "questions of train have an answer that is not in the vocabulary, and are not" in told
    assert "questions of test have" in told
    labels = np.concatenate([y.numpy().ravel() for _, y in data.test])
    assert (labels == UNKNOWN_ANSWER).any()


def test_a_frozen_network_of_keras_applications(own, tmp_path):
    """With weights of a file, whose features are made once and kept."""
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    network_of_keras = keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    network_of_keras.save_weights(weights)
    run = tmp_path / "run"
    options = [*SMALL, "--image-size=64", "--encoder=MobileNet", "--epochs=1"]
    options += [f"--encoder-weights={weights}"]
    assert cli.main(["vqa", "train", f"--data={own}", f"--run={run}", *options]) == 0
    folder = Path(datasets.builder(str(own), kind="visual_questions").data_dir)
    stored = {path.name: path.stat().st_mtime_ns for path in folder.glob("train-*.npy")}
    figures = evaluate(app, Run(run))
    assert 0 <= figures["accuracy"] <= 1
    assert {p.name: p.stat().st_mtime_ns for p in folder.glob("train-*.npy")} == stored
    exported = export.export(app, Run(run), tmp_path / "saved", formats=("saved_model",))
    manifest = json.loads((exported / "manifest.json").read_text())
    assert "image_bytes" in manifest["signatures"]["serving_default"]["inputs"]
    with pytest.raises(ValueError, match="Nothing: neither residual nor"):
        images.frozen_encoder("Nothing", weights, 32)


def test_regions_that_were_made_elsewhere(own, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [path.name for path in own.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    run = tmp_path / "run"
    options = [f"--regions={tmp_path / 'regions.npz'}", "--epochs=1", *SMALL]
    assert cli.main(["vqa", "train", f"--data={own}", f"--run={run}", *options]) == 0
    capsys.readouterr()
    asked = [str(own / "test0.png"), "is there a red ring ?"]
    assert cli.main(["vqa", "predict", str(run), *asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["image_attention"])[1] == len(regions["test0.png"])
    assert export.export(app, Run(run), tmp_path / "saved").is_dir()


def test_a_dialog_on_the_command_line(tmp_path, monkeypatch, capsys):
    for split in ("train", "valid"):
        lines = []
        for k in range(12):
            rng = np.random.default_rng([k, len(split)])
            pairs = scenes_dialog.sample_twins(rng, "train")
            things = scenes.sample(rng, "train", len(pairs), pairs)
            pixels = scenes.render(things, rng)
            (tmp_path / f"{split}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            asked = scenes_dialog.dialog(things, rng)
            lines += [f"{split}{k}.png\t{question}\t{answer}\n" for question, answer in asked]
        (tmp_path / f"{split}.tsv").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    command = ["vqa", "train", f"--data={tmp_path}", "--history", "--epochs=1", f"--run={run}"]
    assert cli.main([*command, *SMALL]) == 0
    capsys.readouterr()
    asked = ["train0.png", "what shape is the red thing ?", "what color is the other one ?"]
    assert cli.main(["vqa", "predict", str(run), *asked, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert np.sum(first["history_attention"]) == 0  # there is no round before it
    of_hops = np.sum(second["history_attention"], axis=-1)
    assert ((of_hops > 0) & (of_hops < 1)).all()  # the rest is that of rounds that are not there


def test_a_run_that_goes_on_sees_the_same_disturbances(own, tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.Config(), data=str(own), units=6, fusion=8, filters=4, image_size=16, epochs=3,
        shift=2, light=0.2,
    )  # fmt: skip
    whole, resumed = resuming.histories(app, config, tmp_path, monkeypatch)
    # The gradient of a convolution is a sum in any order; other pictures would show in the third
    # digit.
    for one, other in zip(whole, resumed, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_step_compiles_under_xla_with_static_shapes(own, tmp_path):
    config = dataclasses.replace(
        app.Config(), data=str(own), units=6, fusion=8, filters=4, image_size=16, epochs=1,
        jit=True,
    )  # fmt: skip
    assert training.train(app, config, Run(tmp_path))["epochs"] == 1


def test_what_a_scene_needs_is_learned(tmp_path):
    """One thing, three kinds of questions: the parts together find its colour and its shape."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, number in (("train", 500), ("test", 60)):
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            things = scenes.sample(rng, "train", 1, ((("red", "blue", "white")[k % 3], "circle"),))
            pixels = scenes.render(things, rng)
            (folder / f"{split}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            thing = things[0]
            lines += [
                f"{split}{k}.png\twhat color is the circle ?\t{thing.color}\n",
                f"{split}{k}.png\tis there a red thing ?\t{'yes' if k % 3 == 0 else 'no'}\n",
            ]
        (folder / f"{split}.tsv").write_text("".join(lines))
    (tmp_path / "run").mkdir()
    config = dataclasses.replace(
        app.Config(), data=str(folder), epochs=6, filters=8, image_size=32, units=16, fusion=32,
        features=16, batch_size=16, learning_rate=5e-3,
    )  # fmt: skip
    training.train(app, config, Run(tmp_path / "run"))
    assert evaluate(app, Run(tmp_path / "run"))["accuracy"] > 0.95


def test_baseline_by_hand():
    labels = np.array([[[FIRST_ANSWER], [FIRST_ANSWER]], [[FIRST_ANSWER + 1], [NO_QUESTION]]])
    tokens = np.array([[[3, 4], [3, 4]], [[3, 4], [0, 0]]])
    rows = tf.data.Dataset.from_tensors(({"tokens": tokens}, labels))
    data = app.Data(rows, rows, None, assets_of())
    found = app.baseline(app.Config(), data, "valid")
    assert found["accuracy"] == pytest.approx(2 / 3)
