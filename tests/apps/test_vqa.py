"""The question app: all variants of the model, reports, dialogs, regions, exports."""

import ast
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps import resuming
from unroll.apps.core import cli, evaluation, export, training, transfer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained, weights_of
from unroll.apps.core.protocol import Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.shared import images
from unroll.apps.vqa import app, network, report
from unroll.apps.vqa.examples import litert as litert_example
from unroll.apps.vqa.examples import serving as serving_example
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import datasets, vision
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.visual_questions import FIRST_ANSWER, UNKNOWN_ANSWER

# The trained models of this module are fixtures: one worker trains them.
VOCABULARY = ["[PAD]", "[UNK]", "what", "is", "it", "red", "?", "yes", "no"]
SMALL = {
    **{"image_size": 16, "filters": 4, "stages": 2},
    **{"units": 6, "embedding_dim": 5, "fusion_units": 8},
}
VARIANTS = {
    "image": {},
    "one glimpse": {
        "glimpses": 1,
        "cell": "GRU",
        "depth": 2,
        "global_average": False,
        "word_vectors": False,
        "count_features": False,
    },
    "mean": {"image": "mean", "question": "max", "hidden_layer": True},
    "no image": {"image": "none"},
    "no question": {"question": "none"},
    "dialog": {"history": True, "random_colors": True},
    "regions": {"regions": "a file"},
}
UNUSUAL = ["", "   ", "what " * 300, "😀❤️", "من اين", "nul\0byte red", "是红色吗", "Is it RED?!"]


def photos() -> tuple[bytes, bytes]:
    """Two different images."""
    first, _, second, _ = (contents for contents, _ in app.examples())
    return first, second


def assets_of(regions="", image="attention", **_) -> dict:
    spec = {"kind": "image", "shape": [16, 16, 3]}
    if image == "none":
        spec = images.NO_IMAGES
    elif regions:
        spec = {"kind": "regions", "shape": [None, 6]}
    return {
        "vocabulary": VOCABULARY,
        "answers": ["yes", "no", "red"],
        "question_types": ["is it", "what is"],
        "images": spec,
    }


def make(**options) -> Trained:
    """A model with random weights."""
    keras.utils.set_random_seed(1)
    config, assets = app.Config(**SMALL, **options), assets_of(**options)
    model = app.build(config, assets)
    # Away from the initial values, where a bias of zero hides a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(config, assets, model)


def dialog_features() -> dict:
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(2, 9, (1, 4, 5)).astype("int32"),
        "rounds": rng.integers(2, 9, (1, 4, 6)).astype("int32"),
        "image": rng.uniform(0, 255, (1, 16, 16, 3)).astype("float32"),
    }


@pytest.fixture(params=VARIANTS, scope="module")
def made(request) -> Trained:
    return make(**VARIANTS[request.param])


def test_weight_decay_is_optional():
    assert make(weight_decay=0.1).model.optimizer.weight_decay == 0.1
    assert make().model.optimizer.weight_decay is None


def test_any_text_gets_an_answer(made):
    photo, _ = photos()
    results = app.predict(made, [(photo, question) for question in UNUSUAL])
    assert [result["question"] for result in results] == UNUSUAL
    for result in results:
        assert sorted(result["answers"]) == sorted(made.assets["answers"])
        assert sum(result["scores"]) == pytest.approx(1, abs=1e-5)
        for name in ("question_attention", "image_attention", "history_attention"):
            weights = np.array(result.get(name, 0.0))
            assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()
        assert app.show(result).plain.startswith(result["answers"][0])
    assert len(results[2]["tokens"]) == 300
    json.dumps(results)


def test_an_answer_does_not_depend_on_its_batch(made):
    service, (photo, other) = app.serve(made), photos()
    inputs = [
        (photo, "is it red?"),
        (other, "what is it? is it red? what is it?"),
        (photo, "no"),
    ]
    request = service.requests(inputs)["ids"]
    together = service.functions["ids"](**request)
    for k in range(len(inputs)):
        alone = {name: array[k : k + 1] for name, array in request.items()}
        answer = service.functions["ids"](**alone)
        np.testing.assert_allclose(answer["scores"][0], together["scores"][k], atol=1e-5)


def test_the_service_gives_the_answers_of_the_training_model(made):
    """Several questions per image, and an image per question."""
    service, (photo, _) = app.serve(made), photos()
    ids = service.requests([(photo, "is it red ?"), (photo, "what is it ?")])["ids"]
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
    logits = made.model(features, training=False)
    outputs = service.functions["ids"](**ids)
    np.testing.assert_allclose(tf.nn.softmax(logits[0]), outputs["scores"], atol=1e-5)
    # `score` uses the compiled model; TensorFlow once optimized its graph to one that failed.
    np.testing.assert_allclose(made.model.predict_on_batch(features), logits, atol=1e-5)
    attention = network.with_attention(made.model)(features, training=False)
    np.testing.assert_allclose(attention["logits"], logits, atol=1e-5)
    if "image_attention" in outputs:
        np.testing.assert_allclose(
            attention["image_attention"][0], outputs["image_attention"], atol=1e-5
        )


def test_litert_gives_the_same_answers(made):
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(made).functions["ids"]
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


def test_the_attention_to_the_image_depends_on_the_question():
    """The weights are a distribution over the grid, and differ between two questions."""
    photo, _ = photos()
    one, other = app.predict(make(), [(photo, "is it red ?"), (photo, "what ?")])
    for result in (one, other):
        weights = np.array(result["image_attention"])
        assert weights.shape == (2, 4, 4)
        np.testing.assert_allclose(weights.sum((1, 2)), 1, atol=1e-5)
        assert sum(result["question_attention"]) == pytest.approx(1, abs=1e-5)
    assert np.abs(np.array(one["image_attention"]) - other["image_attention"]).max() > 1e-3


def test_padded_regions_have_no_effect():
    function = app.serve(make(regions="a file")).functions["ids"]
    rng = np.random.default_rng(0)
    tokens, regions = np.array([[3, 4, 5]], "int32"), rng.normal(size=(1, 3, 6)).astype("float32")
    short = function(tokens=tokens, regions=regions)
    padded = function(tokens=tokens, regions=np.pad(regions, [(0, 0), (0, 4), (0, 0)]))
    np.testing.assert_allclose(short["scores"], padded["scores"], atol=1e-6)
    assert (padded["image_attention"].numpy()[..., 3:] == 0).all()


def test_an_answer_depends_on_previous_rounds_only():
    model, features = make(history=True).model, dialog_features()
    before = model(features, training=False).numpy()
    features["rounds"][0, 2] = [8, 7, 6, 5, 4, 3]
    after = model(features, training=False).numpy()
    np.testing.assert_allclose(after[0, :3], before[0, :3], atol=1e-6)
    assert np.abs(after[0, 3] - before[0, 3]).max() > 1e-4


def test_a_model_for_dialogs_starts_with_the_answers_of_the_run_it_is_fine_tuned_from(tmp_path):
    run, source = Run(tmp_path), make()
    run.write_config(app, source.config)
    run.write_assets(source.assets)
    weights_of(source.model).save_weights(run.best)
    model = app.build(app.Config(**SMALL, history=True), source.assets)
    config = app.Config(**SMALL, history=True, start=str(tmp_path))
    carried = transfer.start(app, config, model, source.assets)
    assert not carried.matched
    assert set(carried.fresh) == {"facts/cell", "history", "history_projection"}
    features = dialog_features()
    found = model(features, training=False)
    del features["rounds"]
    np.testing.assert_allclose(found, source.model(features, training=False), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"image": "none", "question": "none"}, "image=none and question=none cannot be combined"),
        ({"history": True, "question": "none"}, "history=True needs question=attention or max"),
        ({"image_dropout": 1.0}, r"image_dropout must be in \[0, 1\)"),
        ({"encoder": "Nothing"}, "encoder must be residual or a network of keras.applications"),
    ],
)
def test_bad_configurations_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_arguments_are_images_followed_by_questions(tmp_path):
    photo = tmp_path / "a photo"
    photo.write_bytes(photos()[0])
    arguments = [str(photo), "one ?", "two ?", "b.JPG", "three ?"]
    assert app.parse_inputs(arguments) == [
        (str(photo), "one ?"),
        (str(photo), "two ?"),
        ("b.JPG", "three ?"),
    ]
    for question in UNUSUAL:
        assert app.parse_inputs(["b.jpg", question]) == [("b.jpg", question)]
    for wrong, message in (
        (["what ?", "b.jpg"], r"'what \?': name the image before"),
        (["b.jpg"], "b.jpg: a question about it is missing"),
        (["b.jpg", "c.jpg", "what ?"], "b.jpg: a question about it is missing"),
    ):
        with pytest.raises(UsageError, match=message):
            app.parse_inputs(wrong)


def test_files_that_are_not_images_are_errors(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        images.read(str(tmp_path / "none.jpg"))
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UsageError, match=r"text.jpg cannot be decoded: it must be a JPEG"):
        images.read(str(tmp_path / "text.jpg"))


def test_the_report_lists_the_most_probable_errors_first():
    trained = make()
    tokens = np.array([[[3, 4, 5], [2, 3, 4], [4, 4, 4]]])  # "it it" is not a frequent type
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)), tf.float32)
    features = {"tokens": tf.constant(tokens, tf.int32), "image": image}
    logits = np.array(trained.model(features))[0]
    probabilities = np.array(tf.nn.softmax(logits))
    labels = np.array([[[UNKNOWN_ANSWER], [logits[1].argmin() + FIRST_ANSWER], [0]]])
    labels[0, 2] = logits[2].argmax() + FIRST_ANSWER  # the only correct answer
    made = app.report(trained, tf.data.Dataset.from_tensors((features, labels)))
    assert made.text.startswith("2 of 3 questions are answered incorrectly.")
    assert "| is it ... | 1 | 0.000 |" in made.text
    assert "| what is ... | 1 | 0.000 |" in made.text
    assert "| others | 1 | 1.000 |" in made.text
    answers = trained.assets["answers"]
    expected = [
        (probabilities[0].max(), report.UNKNOWN, answers[logits[0].argmax()], "is it red"),
        (probabilities[1].max(), answers[logits[1].argmin()], answers[logits[1].argmax()],
         "what is it"),
    ]  # fmt: skip
    rows = [
        f"| {correct} | {predicted} | {p:.3f} | {question} |"
        for p, correct, predicted, question in sorted(expected, reverse=True)
    ]
    assert made.text.split("| --- | --- | --- | --- |\n")[-1].splitlines() == rows
    # Each error has the image and two glimpses.
    assert len(made.figures["errors"].axes) == 2 * 3
    assert "confusion" in made.figures


@pytest.mark.parametrize("variant", ["image", "no image", "mean", "regions"])
def test_a_result_without_positions_is_plotted_too(variant, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(photos()[0])
    [result] = app.predict(make(**VARIANTS[variant]), [(photos()[0], "is it red ?")])
    app.plot(result | {"image": str(photo)}, tmp_path / "with an image.png")
    app.plot(result, tmp_path / "without an image.png")
    for path in tmp_path.glob("with*.png"):
        assert min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of scenes with one circle, whose color and presence of red are the questions."""
    folder = tmp_path_factory.mktemp("data")
    for split, number in (("train", 400), ("test", 48)):
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            color = ("red", "blue", "white")[k % 3]
            [thing] = scenes.sample(rng, "train", 1, ((color, "circle"),))
            pixels = scenes.render([thing], rng)
            (folder / f"{split}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            lines += [
                f"{split}{k}.png\twhat color is the circle ?\t{color}\n",
                f"{split}{k}.png\tis there a red thing ?\t{'yes' if k % 3 == 0 else 'no'}\n",
            ]
        (folder / f"{split}.tsv").write_text("".join(lines))
    return folder


OPTIONS = {
    **{"filters": 8, "image_size": 32, "units": 16, "fusion_units": 32, "embedding_dim": 16},
    **{"batch_size": 16, "learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Run:
    """A run that learned the questions of `folder`, trained on the command line."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    command = ["vqa", "train", f"--data={folder}", f"--run={path}", "--epochs=6", *options]
    assert cli.main(command) == 0
    return Run(path)


def test_colors_are_learned(trained):
    figures = evaluate(app, trained)
    assert figures["examples"] == 96
    assert figures["accuracy"] > 0.95
    found = load_trained(app, trained)
    data = app.load(found.config, ("train", "test"), found.assets)
    baseline = app.baseline(found.config, data, "test")["accuracy"]
    assert baseline < 0.6
    text, files = evaluation.report(app, trained)
    assert "of 96 questions are answered incorrectly" in text
    assert {"test.md", "test-confusion.png"} <= {path.name for path in files}


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


def test_predict_plots_the_attention_and_writes_nothing_else(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(photos()[0])
    inputs = ["photo.png", "What color is the circle?", "is there a red thing ?"]
    assert cli.main(["vqa", "predict", str(trained.path), *inputs]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    assert cli.main(["vqa", "predict", str(trained.path), *inputs, "--plot=plots"]) == 0
    plots = sorted(path.name for path in Path("plots").iterdir())
    assert plots == ["prediction-1.png", "prediction-2.png"]
    for path in Path("plots").iterdir():
        pixels = tf.io.decode_image(path.read_bytes())
        assert min(pixels.shape[:2]) > 200
    capsys.readouterr()
    assert cli.main(["vqa", "predict", str(trained.path), "photo.png"]) == 2
    assert "a question about it is missing" in capsys.readouterr().err


def test_only_the_requested_splits_are_read(monkeypatch):
    """Without assets also the questions of the training split, for the vocabularies."""
    splits, arrays = [], []
    read, cached = datasets.read, vision.cached_array
    monkeypatch.setattr(
        datasets, "read", lambda prepared, split: splits.append(split) or read(prepared, split)
    )
    monkeypatch.setattr(
        vision, "cached_array", lambda rows, path, *a: arrays.append(path) or cached(rows, path, *a)
    )
    config = app.Config(generated_size=0.002, image_size=16)
    data = app.load(config, ("test",))
    assert set(data.splits) == {"test"}
    assert sorted(splits) == ["test", "train"]
    assert [path.name.split("-")[0] for path in arrays] == ["test"]
    splits.clear()
    app.load(config, ("valid",), data.assets)
    assert splits == ["valid"]


def test_unknown_answers_are_reported_and_get_a_label(folder, capsys):
    config = app.Config(data=str(folder), num_answers=3, image="none")
    data = app.load(config, ("train", "test"), training=True)
    warnings = capsys.readouterr().err
    assert len(data.assets["answers"]) == 3
    assert (
        "questions of train have an answer that is not in the vocabulary, and are not" in warnings
    )
    assert "questions of test have" in warnings
    labels = np.concatenate([y.numpy().ravel() for _, y in data["test"]])
    assert (labels == UNKNOWN_ANSWER).any()


@pytest.mark.usefixtures("parity_process")
def test_a_frozen_network_of_keras_applications(folder, tmp_path):
    """Its features are computed once; the exported model reads files."""
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    mobile = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    mobile.save_weights(weights)
    config = app.Config(
        **SMALL | {"image_size": 64},
        data=str(folder),
        encoder="MobileNet",
        encoder_weights=weights,
        epochs=1,
    )
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    training.train(app, config, run)
    assert run.assets()["images"] == {"kind": "regions", "shape": [2, 2, 1024]}
    prepared = datasets.builder(str(folder), kind="visual_questions").folder("valid")
    [stored] = prepared.glob("*.npy")
    written = stored.stat().st_mtime_ns
    figures = evaluate(app, run, "valid")
    assert 0 <= figures["accuracy"] <= 1
    assert [stored] == list(prepared.glob("*.npy"))
    assert stored.stat().st_mtime_ns == written
    exported = export.export(app, run, tmp_path / "saved", formats=("saved_model",))
    manifest = json.loads((exported / "manifest.json").read_text())
    assert "image_bytes" in manifest["signatures"]["serving_default"]["inputs"]
    trained = load_trained(app, run)
    [row] = app.load(trained.config, ("valid",), trained.assets)["valid"].unbatch().take(1)
    pixels = tf.io.read_file(str(folder / "train360.png"))
    encoder = images.frozen_encoder(trained.config)
    features = images.frozen_features(encoder, images.decode(pixels[None], 64))[0]
    np.testing.assert_allclose(row[0]["regions"], features, rtol=1e-2, atol=1e-2)  # float16


@pytest.mark.usefixtures("parity_process")
def test_regions_from_a_file(folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [path.name for path in folder.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    run = tmp_path / "run"
    options = [f"--regions={tmp_path / 'regions.npz'}", "--epochs=1", "--glimpses=1"]
    options += ["--units=6", "--embedding-dim=5", "--fusion-units=8"]
    assert cli.main(["vqa", "train", f"--data={folder}", f"--run={run}", *options]) == 0
    capsys.readouterr()
    inputs = [str(folder / "test0.png"), "is there a red thing ?"]
    assert cli.main(["vqa", "predict", str(run), *inputs, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["image_attention"])[1] == len(regions["test0.png"])
    expected = vision.select_regions(regions, ["test0.png"], "regions.npz")
    spec = {"kind": "regions", "shape": [None, 6]}
    config = app.Config(regions=str(tmp_path / "regions.npz"))
    np.testing.assert_allclose(images.regions_of(["test0.png"], config, spec), expected)
    assert export.export(app, Run(run), tmp_path / "saved").is_dir()


@pytest.fixture(scope="module")
def dialogs(tmp_path_factory) -> tuple[Run, list]:
    """A run on generated dialogs, and the histories of it and of an interrupted one."""
    tmp_path = tmp_path_factory.mktemp("dialogs")
    config = app.Config(
        **SMALL, data="scenes_dialog", generated_size=0.004, history=True, glimpses=1, epochs=3,
        translate=2, color_jitter=0.2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        histories = resuming.histories(app, config, tmp_path, patch)
    return Run(tmp_path / "uninterrupted"), histories


def test_a_resumed_run_sees_the_same_augmentation(dialogs):
    uninterrupted, resumed = dialogs[1]
    # The sums in the gradient of a convolution have no fixed order. Other images would change the
    # third digit.
    assert len(uninterrupted) == len(resumed) == 3
    for one, other in zip(uninterrupted, resumed, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_dialog_on_the_command_line(dialogs, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(photos()[0])
    inputs = [str(tmp_path / "photo.png"), "what shape is the red thing ?", "what color is it ?"]
    assert cli.main(["vqa", "predict", str(dialogs[0].path), *inputs, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert np.sum(first["history_attention"]) == 0  # there is no previous round
    of_hops = np.sum(second["history_attention"], axis=-1)
    assert ((of_hops > 0) & (of_hops < 1)).all()  # the rest is that of empty memory slots


def test_the_rounds_of_a_dialog_are_those_of_its_image(monkeypatch):
    """The history of a question consists of the previous questions about the same image."""
    requests = []

    def answer(service, inputs):
        requests.extend(inputs)
        return [{"answers": [f"answer {len(requests)}"], "tokens": [], "scores": [1.0]}]

    monkeypatch.setattr(app, "query", answer)
    app.predict(make(history=True), [("a.png", "one ?"), ("b.png", "two ?"), ("a.png", "three ?")])
    assert requests == [
        ("a.png", "one ?", ()),
        ("b.png", "two ?", ()),
        ("a.png", "three ?", ("one ? answer 1",)),
    ]


def test_the_training_step_compiles_under_xla_with_static_shapes(tmp_path):
    config = app.Config(**SMALL, generated_size=0.002, batch_size=8, glimpses=1, epochs=1, jit=True)
    assert training.train(app, config, Run(tmp_path))["epochs"] == 1
    data = app.load(config, ("train", "valid"), training=True)
    shapes = {tuple(labels.shape) for _, labels in data["train"]}
    assert len(shapes) == 1
    assert next(iter(shapes))[0] == 8
