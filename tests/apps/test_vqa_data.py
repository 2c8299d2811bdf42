"""The question app: options and inputs, what is loaded, encoders of images, features of regions."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.apps.vqa_cases import SMALL, assets_of, make, photos, write_questions
from tests.apps.written_runs import write_run
from unroll.apps.core import cli, export
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.shared import images
from unroll.apps.vqa import app
from unroll.pipelines import datasets, vision
from unroll.pipelines.visual_questions import UNKNOWN_ANSWER


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_questions(
        tmp_path_factory.mktemp("my data, größer"), {"train": 20, "valid": 8, "test": 8}, side=16
    )


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


class TestInputs:
    def test_arguments_are_images_followed_by_questions(self, tmp_path):
        photo = tmp_path / "a photo"
        photo.write_bytes(photos()[0])
        arguments = [str(photo), "one ?", "two ?", "b.JPG", "three ?", "c.webp", "four ?"]
        assert app.parse_inputs(arguments) == [
            (str(photo), "one ?"),
            (str(photo), "two ?"),
            ("b.JPG", "three ?"),
            ("c.webp", "four ?"),
        ]
        for question in ("", "   ", "what " * 300, "nul\0byte red", "是红色吗", "a/b\\c"):
            assert app.parse_inputs(["b.jpg", question]) == [("b.jpg", question)]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["what ?", "b.jpg"], r"'what \?': name the image before"),
            (["b.jpg"], "b.jpg: a question about it is missing"),
            (["b.jpg", "c.jpg", "what ?"], "b.jpg: a question about it is missing"),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(UsageError, match=message):
            app.parse_inputs(arguments)

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(UsageError, match="No such file"):
            images.read(str(tmp_path / "none.jpg"))
        with pytest.raises(UsageError, match="File name too long"):
            images.read(f"{'long' * 100}.jpg")
        with pytest.raises(UsageError, match="null byte"):
            images.read("nul\0.jpg")
        (tmp_path / "text.jpg").write_text("no image")
        with pytest.raises(UsageError, match=r"text.jpg cannot be decoded: it must be a JPEG"):
            images.read(str(tmp_path / "text.jpg"))


class TestLoad:
    def test_only_the_requested_splits_are_read(self, monkeypatch):
        """Without assets also the questions of the training split, for the vocabularies."""
        splits, arrays = [], []
        read, cached = datasets.read, vision.cached_array
        monkeypatch.setattr(
            datasets, "read", lambda prepared, split: splits.append(split) or read(prepared, split)
        )
        monkeypatch.setattr(
            vision, "cached_array", lambda x, path, *a: arrays.append(path) or cached(x, path, *a)
        )
        config = app.Config(generated_size=0.002, image_size=16)
        data = app.load(config, ("test",))
        assert set(data.splits) == {"test"}
        assert sorted(splits) == ["test", "train"]
        assert [path.name.split("-")[0] for path in arrays] == ["test"]
        splits.clear()
        app.load(config, ("valid",), data.assets)
        assert splits == ["valid"]

    def test_unknown_answers_are_reported_and_get_a_label(self, folder, capsys):
        config = app.Config(data=str(folder), num_answers=3, image="none")
        data = app.load(config, ("train", "test"), training=True)
        warnings = capsys.readouterr().err
        assert len(data.assets["answers"]) == 3
        assert (
            "questions of train have an answer that is not in the vocabulary, and are not"
            in warnings
        )
        assert "questions of test have" in warnings
        labels = np.concatenate([y.numpy().ravel() for _, y in data["test"]])
        assert (labels == UNKNOWN_ANSWER).any()

    def test_nothing_is_fitted_on_what_is_held_out(self, tmp_path):
        """Each image has a word and an answer of its own."""
        rows, names = [], [f"{a}{b}" for a in ("ca", "do", "pi") for b in "bcdfghklmn"]
        for k, name in enumerate(names):
            pixels = np.random.default_rng(k).integers(0, 256, (4, 4, 3), np.uint8)
            (tmp_path / f"{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            rows += [f"{k}.png\twhat is {name} ?\ta {name}\n", f"{k}.png\tis it ?\ta {name}\n"]
        (tmp_path / "train.tsv").write_text("".join(rows))
        config = app.Config(data=str(tmp_path), image="none")
        data = app.load(config, ("train", "valid"))
        known = {answer.removeprefix("a ") for answer in data.assets["answers"]}
        assert {*names} & {*data.assets["vocabulary"]} == known
        assert 24 <= len(known) <= 28
        train, valid = (
            np.concatenate([labels.numpy().ravel() for _, labels in data[split]])
            for split in ("train", "valid")
        )
        assert (valid == UNKNOWN_ANSWER).all()
        assert (train != UNKNOWN_ANSWER).all()
        assert len(train) + len(valid) == 60


@pytest.mark.usefixtures("parity_process")
@pytest.mark.exhaustive
def test_a_frozen_network_of_keras_applications(folder, tmp_path, monkeypatch):
    """Its features are computed once; the exported model reads files."""

    def small_network(include_top, weights, input_shape) -> keras.Model:
        convolution = keras.layers.Conv2D(7, 3, strides=16, activation="relu")
        network = keras.Sequential([keras.Input(input_shape), convolution])
        if weights:
            network.load_weights(weights)
        return network

    # `test_image_captioning_training.py` has the network itself.
    monkeypatch.setattr(keras.applications, "MobileNet", small_network)
    monkeypatch.setattr(keras.applications.mobilenet, "MobileNet", small_network)
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    small_network(False, None, (32, 32, 3)).save_weights(weights)
    options = {"encoder": "MobileNet", "encoder_weights": weights, "data": str(folder)}
    config = app.Config(**SMALL | {"image_size": 32}, **options)
    data = app.load(config, ("valid",))
    assert data.assets["images"] == {"kind": "regions", "shape": [2, 2, 7]}
    prepared = datasets.builder(str(folder), kind="visual_questions").folder("valid")
    [stored] = prepared.glob("*.npy")
    written = stored.stat().st_mtime_ns
    again = app.load(config, ("valid",), data.assets)["valid"]
    assert [stored] == list(prepared.glob("*.npy"))
    assert stored.stat().st_mtime_ns == written
    # The exported function computes the same features.
    service = app.serve(Trained(config, data.assets, app.build(config, data.assets)))
    [(features, _)] = again.unbatch().take(1)
    rows = datasets.splits(datasets.builder(str(folder), kind="visual_questions"), ["valid"])
    [contents] = [row["image"].numpy() for row in rows["valid"].take(1)]
    expected = images.frozen_features(
        images.frozen_encoder(config), images.decode(tf.constant([contents]), 32)
    )[0]
    np.testing.assert_allclose(features["regions"], expected, rtol=1e-2, atol=1e-2)  # float16
    request = service.requests([(contents, "is there a red thing ?")])
    files = service.functions["serving_default"](**request["serving_default"])
    ids = service.functions["ids"](**request["ids"])
    np.testing.assert_allclose(np.sort(ids["scores"])[:, ::-1], files["scores"], atol=1e-5)
    exported = export.write(
        service, data.assets, app.examples()[:1], tmp_path / "saved", formats=("saved_model",)
    )
    assert (exported / "manifest.json").is_file()


def test_regions_from_a_file(folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [path.name for path in folder.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    config = app.Config(**SMALL, data=str(folder), regions=str(tmp_path / "regions.npz"))
    data = app.load(config, ("test",))
    assert data.assets["images"] == {"kind": "regions", "shape": [None, 6]}
    most = max(len(regions[f"test{k}.png"]) for k in range(8))
    assert next(iter(data["test"]))[0]["regions"].shape == (8, most, 6)
    trained = Trained(config, data.assets, app.build(config, data.assets))
    run = write_run(tmp_path / "run", app, trained)
    inputs = [str(folder / "test0.png"), "is there a red thing ?"]
    assert cli.main(["vqa", "predict", str(run.path), *inputs, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["image_attention"])[1] == len(regions["test0.png"])
    expected = vision.select_regions(regions, ["test0.png"], "regions.npz")
    np.testing.assert_allclose(
        images.regions_of(["test0.png"], config, assets_of(regions="a file")["images"]), expected
    )


@pytest.mark.exhaustive
def test_a_dialog_on_the_command_line(tmp_path, capsys):
    run = write_run(tmp_path / "run", app, make(history=True))
    (tmp_path / "photo.png").write_bytes(photos()[0])
    inputs = [str(tmp_path / "photo.png"), "is it red ?", "what is it ?"]
    assert cli.main(["vqa", "predict", str(run.path), *inputs, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert np.sum(first["history_attention"]) == 0
    assert np.sum(second["history_attention"]) > 0
