"""The caption app: data, a run from training to export, frozen encoders, regions, clips."""

import ast
import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.apps.image_captioning_cases import make, write_folder
from tests.apps.resuming import histories
from tests.apps.written_runs import write_run
from unroll.apps.core import cli, config, evaluation, export, training
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.protocol import Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.image_captioning import app, metrics
from unroll.apps.image_captioning.examples import litert as litert_example
from unroll.apps.image_captioning.examples import serving as serving_example
from unroll.apps.shared import images
from unroll.pipelines.captions import SPECIAL_TOKENS
from unroll.pipelines.datasets.vision import scenes

# The trained models of this module are fixtures: one worker trains them.
TINY = {
    **{"units": 6, "embedding_dim": 8, "filters": 4, "stages": 2, "image_size": 16},
    "max_length": 8,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of a few scenes with five captions each."""
    return write_folder(
        tmp_path_factory.mktemp("own"),
        {"captions": 24, "valid": 8, "test": 8},
        lambda k, rng: (scenes.sample(rng, "train", 1 + k % 2), None),
    )


@pytest.mark.exhaustive
def test_baselines_use_all_captions_and_no_augmentation(own):
    plain = app.Config(data=str(own), image_size=16)
    options = {"captions_per_image": 1, "translate": 4, "zoom": 0.5, "color_jitter": 0.5}
    augmented = dataclasses.replace(plain, **options, flip=True)
    found = [app.baseline(c, app.load(c, ("train", "valid")), "valid") for c in (plain, augmented)]
    assert found[0] == found[1]
    assert found[0]["nearest_bleu_1"] > 0


@pytest.mark.exhaustive
def test_nothing_is_fitted_on_what_is_held_out(tmp_path):
    """Each image has a word of its own. All captions of an image are scored."""
    names = [f"{a}{b}" for a in ("ca", "do", "pi") for b in "bcdfghklmn"]
    lines = []
    for k, name in enumerate(names):
        pixels = np.random.default_rng(k).integers(0, 256, (4, 4, 3), np.uint8)
        (tmp_path / f"{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
        lines += [f"{k}.png\ta {name} number {j}\n" for j in range(3)]
    (tmp_path / "captions.tsv").write_text("".join(lines))
    chosen = app.Config(**TINY | {"max_length": 2}, data=str(tmp_path), captions_per_image=1)
    data = app.load(chosen, ("train", "valid"))
    known = {*names} & {*data.assets["vocabulary"]}
    train, valid = (
        [labels for _, rows in data[split] for labels in rows.numpy()]
        for split in ("train", "valid")
    )
    assert len(train) == len(known)
    assert len(train) + len(valid) == 30
    assert 24 <= len(known) <= 28
    size = len(data.assets["vocabulary"])
    assert all((labels[:, 1] >= size).all() for labels in valid)  # unknown words
    assert all((labels[:, 1] < size).all() for labels in train)
    assert {labels.shape for labels in train} == {(3, 5)}  # three whole captions and END
    augmented = app.load(chosen, ("train",), data.assets, training=True)["train"]
    assert next(iter(augmented))[1].shape[1:] == (1, 3)


def test_only_the_named_splits_are_loaded(own):
    data = app.load(app.Config(data=str(own), image_size=16), ())
    assert data.splits == {}
    assert {"red", "ring"} <= set(data.assets["vocabulary"])
    assert data.assets["images"] == {"kind": "image", "shape": [16, 16, 3]}
    again = app.load(app.Config(data=str(own), image_size=16), ("test",), data.assets)
    assert list(again.splits) == ["test"]
    assert again.assets is data.assets


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Run:
    """A run of a model with random weights, whose search returns three captions."""
    model = make(beam_width=3, num_return_sequences=3)
    return write_run(tmp_path_factory.mktemp("runs") / "untrained", app, model)


def captions_of_one_thing(k: int, rng) -> tuple:
    color = ("red", "blue", "white")[k % 3]
    [thing] = scenes.sample(rng, "train", 1, ((color, "circle"),))
    return [thing], [f"a {thing.size} {color} circle"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A run on scenes of one circle of three colors and two sizes."""
    folder = write_folder(
        tmp_path_factory.mktemp("circles"), {"captions": 400, "test": 60}, captions_of_one_thing
    )
    run = tmp_path_factory.mktemp("runs") / "circles"
    options = ["--epochs=6", "--filters=8", "--image-size=32", "--units=32", "--embedding-dim=16"]
    options += ["--batch-size=16", "--learning-rate=5e-3", f"--data={folder}", f"--run={run}"]
    # The options of a folder are those of the generated dataset; these are the defaults.
    options += [
        "--patience=5", "--schedule=constant", "--first-stage-blocks=0", "--no-random-colors",
        "--attention-units=64", "--translate=0", "--color-jitter=0",
    ]  # fmt: skip
    assert cli.main(["image_captioning", "train", *options]) == 0
    return Run(run)


@pytest.mark.exhaustive
def test_colors_and_sizes_are_learned(trained, monkeypatch):
    monkeypatch.setattr(metrics, "BEAM_WIDTHS", (1,))  # each width adds a search to the graph
    figures = evaluate(app, trained)
    assert figures["bleu_1"] > 95
    assert figures["mean_length"] == pytest.approx(4, abs=0.2)
    assert {"bleu_4", "cider", "bleu_4_beam_1"} <= set(figures)


@pytest.mark.exhaustive
def test_the_search_options_of_evaluate_replace_those_of_the_run(untrained):
    run = Run.open(app, untrained.path, search={"beam_width": 1, "num_return_sequences": 1})
    assert run.config(app).num_return_sequences == 1
    [result] = app.predict(load_trained(app, run), app.examples()[:1])
    assert len(result["captions"]) == 1  # the run's own search returns three, see below


@pytest.mark.exhaustive
def test_report_shows_the_best_and_worst_captions(trained, capsys):
    assert cli.main(["image_captioning", "report", str(trained.path)]) == 0
    text = capsys.readouterr().out
    assert "CIDEr-D" in text
    assert "## Captions with the lowest CIDEr-D" in text
    assert "a large red circle" in text
    folder = trained.path / "report"
    assert (folder / "test.md").read_text() in text
    assert (folder / "test-images.png").stat().st_size > 1000


@pytest.mark.usefixtures("parity_process")
@pytest.mark.exhaustive
def test_the_example_scripts_query_an_export(trained, tmp_path, capsys):
    folder = export.export(app, trained, tmp_path)
    model = load_trained(app, trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    photo = tmp_path / "photo.png"
    small = tf.image.resize(tf.io.decode_image(app.examples()[0]), [32, 32])
    photo.write_bytes(tf.io.encode_png(tf.cast(small, tf.uint8)).numpy())
    service = app.serve(model)
    [result] = query(service, [photo.read_bytes()])
    capsys.readouterr()
    serving_example.main(str(folder), str(photo))
    lines = [f"{c}\t{s:.2f}" for c, s in zip(result["captions"], result["scores"], strict=True)]
    assert capsys.readouterr().out.splitlines() == lines
    pixels = images.decode(tf.constant([photo.read_bytes()]), 32)
    ids = service.functions["ids"](image=pixels)
    words = [model.assets["vocabulary"][k] for k in ids["ids"][0, : int(ids["lengths"][0])]]
    litert_example.main(str(folder), str(photo))
    assert capsys.readouterr().out.splitlines() == [" ".join(words)]


def test_the_example_scripts_import_only_what_they_name():
    allowed = {
        serving_example: {"sys", "pathlib", "tensorflow"},
        litert_example: {"sys", "pathlib", "numpy", "PIL", "ai_edge_litert"},
    }
    for script, names in allowed.items():
        found = set()
        for node in ast.walk(ast.parse(Path(script.__file__).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
        assert found == names


@pytest.mark.exhaustive
def test_predict_plots_the_attention_and_writes_nothing_else(
    untrained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for folder, contents in zip(("one", "other"), app.examples(), strict=False):
        Path(folder).mkdir()
        (Path(folder) / "cat.png").write_bytes(contents)
    Path("one/cat.attention.png").write_text("mine")
    command = ["image_captioning", "predict", str(untrained.path)]
    inputs = ["one/cat.png", "other/cat.png"]
    assert cli.main([*command, *inputs, "--json", "--plot=plots"]) == 0
    results = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [result["image"] for result in results] == inputs
    assert [len(result["captions"]) for result in results] == [3, 3]
    assert {str(path) for path in Path().rglob("*") if path.is_file()} == {
        *("one/cat.png", "one/cat.attention.png", "other/cat.png"),
        *("plots/prediction-1.png", "plots/prediction-2.png"),
    }
    assert Path("one/cat.attention.png").read_text() == "mine"
    for path in Path("plots").iterdir():
        assert min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100
    for wrong, message in (
        ("none.png", "none.png: No such file"),
        ("one/cat.attention.png", "one/cat.attention.png cannot be decoded"),
    ):
        assert cli.main([*command, wrong]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.mark.exhaustive
def test_a_frozen_network_of_keras_applications(own, tmp_path):
    """With weights from a file, for the frames of clips (an image is a clip without motion)."""
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    mobile = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    mobile.save_weights(weights)
    options = {"encoder": "MobileNet", "encoder_weights": weights, "frames": 2}
    chosen = app.Config(**TINY | {"image_size": 32}, **options, data=str(own))
    data = app.load(chosen, ("valid",))
    assert data.assets["images"] == {"kind": "regions", "shape": [2, 1024]}
    service = app.serve(Trained(chosen, data.assets, app.build(chosen, data.assets)))
    specs = {name: each.input_signature for name, each in service.functions.items()}
    assert [spec.name for spec in specs["serving_default"]] == ["image_bytes"]
    # The features of a file are those that are stored for training.
    names = [line.split("\t")[0] for line in (own / "valid.tsv").read_text().splitlines()]
    request = service.requests([str(own / name) for name in dict.fromkeys(names)])
    stored = np.concatenate([features["regions"] for features, _ in data["valid"]])
    computed = request["ids"]["regions"]
    differences = np.abs(stored[:, None] - computed[None]).max((2, 3)).min(1)
    assert differences.max() < 1e-2  # float16


@pytest.mark.exhaustive
def test_regions_from_a_file(own, tmp_path):
    rng = np.random.default_rng(0)
    names = [path.name for path in own.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    chosen = dataclasses.replace(
        app.Config(**TINY), data=str(own), regions=str(tmp_path / "regions.npz"), beam_width=1,
        num_return_sequences=1, epochs=1,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    training.train(app, chosen, Run(tmp_path / "run"))
    [result] = app.predict(load_trained(app, Run(tmp_path / "run")), [str(own / "test0.png")])
    assert np.shape(result["attention"])[-1] == len(regions["test0.png"])


@pytest.mark.exhaustive
def test_training_with_scheduled_sampling_resumes_exactly(own, tmp_path, monkeypatch):
    chosen = app.Config(
        **TINY, data=str(own), epochs=2, batch_size=8, scheduled_sampling=0.5, dropout=0.2
    )
    whole, resumed = histories(app, chosen, tmp_path, monkeypatch)
    assert resumed == whole


def test_coco_captions_are_loaded(monkeypatch, tmp_path):
    def mock_examples(builder, **_):
        image = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()
        rows = {"image": [image] * 2, "image/filename": ["7.jpg", "8.jpg"]}
        captions = {"captions": {"text": [["A dog.", "It runs"], ["A dog", "A cat"]]}}
        return tf.data.Dataset.from_tensor_slices(rows | captions)

    with tfds.testing.mock_data(as_dataset_fn=mock_examples), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "data_dir", tmp_path)  # of the prepared pixels
        options = ["--data=coco_captions", "--image-size=16", "--min-count=3"]
        data = app.load(config.parse(app, options), ("valid",))
        inputs, labels = next(iter(data["valid"]))
    assert data.assets["vocabulary"] == [*SPECIAL_TOKENS, "a", "dog"]
    assert inputs["image"].shape == [2, 16, 16, 3]
    assert labels.shape == [2, 2, 3]


@pytest.mark.exhaustive
def test_clips_with_frame_labels(tmp_path, monkeypatch):
    # TFDS read its environment variable when it was imported.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    options = {"data": "scenes_clips", "generated_size": 0.01, "beam_width": 1, "frames": 4}
    chosen = dataclasses.replace(
        app.Config(**TINY, num_return_sequences=1), **options, epochs=1,
        monitor="val_captions_word_loss",
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    training.train(app, chosen, run)
    trained, dataset = evaluation.load_split(app, [run], "test")
    found = metrics.predictions(trained, dataset)
    assert found.frames.shape == (8, 4)
    # One graph of the search for the figures and the report.
    monkeypatch.setattr(metrics, "predictions", lambda *_: found)
    figures = app.score(trained, dataset)
    assert figures["examples"] == 8
    assert 0 <= figures["frame_accuracy"] <= 1
    assert 0 <= figures["caption_accuracy"] <= 1
    made = app.report(trained, dataset)
    assert "## Labels of frames" in made.text
    assert "frames" in made.figures


@pytest.mark.exhaustive
def test_a_resumed_run_gets_the_next_epochs(own):
    """The order, the sampled captions and the changes of the images are those of the next epochs.

    Training skips the finished epochs of a dataset by creating an iterator for each.
    """
    options = {"translate": 2, "color_jitter": 0.2, "flip": True, "zoom": 0.3}
    chosen = app.Config(**TINY, **options, data=str(own), captions_per_image=2, batch_size=24)

    def batches() -> tf.data.Dataset:
        return app.load(chosen, ("train",), training=True)["train"]

    whole, resumed = batches(), batches()
    epochs = list(whole.repeat(3))
    assert len(epochs) == 3
    for _ in range(2):
        iter(resumed)
    [third] = resumed
    for first, last, again in zip(
        *(tf.nest.flatten(epoch) for epoch in (epochs[0], epochs[2], third)), strict=True
    ):
        np.testing.assert_array_equal(last, again)
        assert not np.array_equal(first, again)


@pytest.mark.exhaustive
def test_the_training_step_compiles_with_xla(own, tmp_path):
    chosen = dataclasses.replace(app.Config(), data=str(own), **TINY, epochs=1, jit=True)
    assert training.train(app, chosen, Run(tmp_path))["epochs"] == 1
