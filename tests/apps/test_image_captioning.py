"""The caption app: all variants of the model, every search, clips, regions, exports."""

import ast
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.apps import resuming
from unroll import layers
from unroll.apps.core import cli, config, export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_trained
from unroll.apps.core.protocol import Service, Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.image_captioning import app, metrics
from unroll.apps.image_captioning.examples import litert as litert_example
from unroll.apps.image_captioning.examples import serving as serving_example
from unroll.apps.shared import images
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines.captions import END, PADDING, SPECIAL_TOKENS, START, UNKNOWN
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.vision import scenes, scenes_captions, scenes_clips

# The trained models of this module are fixtures: one worker trains them.
VOCABULARY = [*SPECIAL_TOKENS, "a", "red", "ring", "blue", "above"]
SMALL = {
    **{"image_size": 16, "filters": 4, "stages": 2, "units": 6, "embedding_dim": 5},
    **{"max_length": 6, "num_return_sequences": 2, "length_penalty": 0.6},
}
VARIANTS = {
    "attention": {"coverage": 1.0},
    "GRU without gate": {"gate": False, "cell": "GRU", "depth": 2},
    "attention after the step": {"attention": "after", "coverage": 0.5},
    "no attention": {"attention": "none", "cell": "PeepholeLSTM"},
    "regions": {"regions": "a file"},
    "minimum Bayes risk": {"mbr_samples": 9},
    "clips": {"frames": 3, "cell": "LSTM", "clip_cell": "GRU"},
}


def make(**options) -> Trained:
    """A model with random weights."""
    keras.utils.set_random_seed(1)
    chosen = app.Config(**{**SMALL, **options})
    frames = [chosen.frames] if chosen.frames else []
    spec = {"kind": "image", "shape": [*frames, 16, 16, 3]}
    assets = {
        "vocabulary": VOCABULARY,
        "images": {"kind": "regions", "shape": [None, 6]} if chosen.regions else spec,
    }
    if chosen.frames:
        assets["frame_labels"] = ["left", "still"]
    model = app.build(chosen, assets)
    # Random biases too: biases of zero would hide errors.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(chosen, assets, model)


@dataclass
class Case:
    """A model and its service, which is traced once for all tests."""

    trained: Trained
    service: Service

    def ids(self, **inputs) -> dict:
        return self.service.functions["ids"](**inputs)


@pytest.fixture(params=VARIANTS, scope="module")
def case(request) -> Case:
    trained = make(**VARIANTS[request.param])
    return Case(trained, app.serve(trained))


def random_inputs(service: Service, count: int) -> dict[str, np.ndarray]:
    [spec] = service.functions["ids"].input_signature
    shape = [count, *(4 if size is None else size for size in spec.shape[1:])]
    rng = np.random.default_rng(0)
    given = rng.uniform(0, 255, shape) if spec.name == "image" else rng.normal(size=shape)
    return {spec.name: given.astype("float32")}


def test_each_image_gets_captions(case, monkeypatch):
    monkeypatch.setattr(app, "serve", lambda trained: case.service)  # traced for other tests too
    for result in app.predict(case.trained, app.examples()):
        assert len(result["captions"]) == 2
        assert result["scores"][0] >= result["scores"][1]
        for caption, words in zip(result["captions"], result["words"], strict=True):
            assert caption.split() == [word for word in words if word]
            assert set(caption.split()) <= set(VOCABULARY) - set(SPECIAL_TOKENS)
        assert ("attention" in result) == (case.trained.config.attention != "none")
        if "attention" in result:
            length = len(result["captions"][0].split())
            weights = np.array(result["attention"][0])
            sums = weights.reshape(len(weights), -1)[:length].sum(-1)
            np.testing.assert_allclose(sums, np.ones(length), atol=1e-5)
        assert app.show(result).plain.startswith(result["captions"][0])


def test_a_batch_equals_its_images_one_by_one(case):
    inputs = random_inputs(case.service, 3)
    together = case.ids(**inputs)
    for k in range(3):
        alone = case.ids(**{name: x[k : k + 1] for name, x in inputs.items()})
        for name, value in together.items():
            np.testing.assert_allclose(value[k], alone[name][0], atol=1e-5)


def test_minimum_bayes_risk_ranks_the_captions_of_the_beam():
    """The captions are those of the beam, in another order, also for an image alone."""
    trained = make(mbr_samples=9)
    by_score = dataclasses.replace(
        trained, config=dataclasses.replace(trained.config, mbr_samples=0)
    )
    service, inputs = app.serve(trained), app.examples()
    changed = 0
    for example, ranked, likely in zip(
        inputs, query(service, inputs), query(app.serve(by_score), inputs), strict=True
    ):
        assert 1 >= ranked["scores"][0] >= ranked["scores"][1] >= 0
        assert likely["scores"][0] < 0
        changed += ranked["captions"] != likely["captions"]
        [alone] = query(service, [example])
        assert alone["captions"] == ranked["captions"]
        np.testing.assert_allclose(alone["scores"], ranked["scores"], atol=1e-5)
    assert changed


def test_greedy_search_chooses_the_words_of_teacher_forcing(case):
    inputs = random_inputs(case.service, 2)
    found = case.ids(**inputs)
    limit = case.trained.config.max_length
    tokens = np.full((2, 1, limit + 1), PADDING, "int32")
    tokens[:, 0, 0] = START
    tokens[:, 0, 1:] = found["ids"]
    logits = case.trained.model(inputs | {"tokens": tokens}, training=False)
    logits = (logits["captions"] if isinstance(logits, dict) else logits).numpy()
    logits[..., [PADDING, UNKNOWN, START]] = -np.inf
    for row, length in enumerate(found["lengths"].numpy()):
        chosen = logits[row, 0].argmax(-1)
        np.testing.assert_array_equal(chosen[:length], found["ids"][row, :length])
        assert length == limit or chosen[length] == END


def test_all_captions_of_an_image_read_it(case):
    """Several captions per image equal the same captions with one image each."""
    inputs = random_inputs(case.service, 2)
    tokens = np.random.default_rng(0).integers(1, len(VOCABULARY), (2, 3, 4))
    together = case.trained.model(inputs | {"tokens": tokens}, training=False)
    repeated = {name: np.repeat(x, 3, axis=0) for name, x in inputs.items()}
    alone = case.trained.model(repeated | {"tokens": tokens.reshape(6, 1, 4)}, training=False)
    if isinstance(together, dict):
        together, alone = together["captions"], alone["captions"]
    np.testing.assert_allclose(tf.reshape(alone, together.shape), together, atol=1e-5)


def test_litert_equals_the_model(case):
    from ai_edge_litert.interpreter import Interpreter

    function = case.service.functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    for count in (1, 3):
        inputs = random_inputs(case.service, count)
        found, expected = run(**inputs), function(**inputs)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_padded_regions_do_not_count():
    service = app.serve(make(regions="a file"))
    regions = random_inputs(service, 1)["regions"]
    short = service.functions["ids"](regions=regions)
    padded = service.functions["ids"](regions=np.pad(regions, [(0, 0), (0, 3), (0, 0)]))
    np.testing.assert_array_equal(short["ids"], padded["ids"])
    np.testing.assert_allclose(short["attention"], padded["attention"][..., :4], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"clip_cell": "Foo"}, "clip_cell must be one of .*GRU"),
        (
            {"num_return_sequences": 4},
            r"num_return_sequences must be in \[1, beam_width\], got 4 with beam_width=3",
        ),
        ({"mbr_samples": -1}, "mbr_samples must be 0 or more, got -1"),
        ({"captions_per_image": -1}, "captions_per_image must be 0 or more, got -1"),
        ({"frames": 1}, "frames must be 0 or at least 2, got 1"),
    ],
)
def test_invalid_configurations_raise(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def write_folder(folder: Path, sizes: dict[str, int], make_things) -> Path:
    """A folder of rendered scenes, with captions in `<name>.tsv`."""
    for name, number in sizes.items():
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            things, captions = make_things(k, rng)
            pixels = scenes.render(things, rng)
            (folder / f"{name}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            captions = captions or scenes_captions.captions(things, rng)
            lines += [f"{name}{k}.png\t{caption}\n" for caption in captions]
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of a few scenes with five captions each."""
    return write_folder(
        tmp_path_factory.mktemp("own"),
        {"captions": 24, "valid": 8, "test": 8},
        lambda k, rng: (scenes.sample(rng, "train", 1 + k % 2), None),
    )


def test_baselines_use_all_captions_and_no_augmentation(own):
    plain = app.Config(data=str(own), image_size=16)
    options = {"captions_per_image": 1, "translate": 4, "zoom": 0.5, "color_jitter": 0.5}
    augmented = dataclasses.replace(plain, **options, flip=True)
    found = [app.baseline(c, app.load(c, ("train", "valid")), "valid") for c in (plain, augmented)]
    assert found[0] == found[1]
    assert found[0]["nearest_bleu_1"] > 0


def test_only_the_named_splits_are_loaded(own):
    data = app.load(app.Config(data=str(own), image_size=16), ())
    assert data.splits == {}
    assert {"red", "ring"} <= set(data.assets["vocabulary"])
    assert data.assets["images"] == {"kind": "image", "shape": [16, 16, 3]}
    again = app.load(app.Config(data=str(own), image_size=16), ("test",), data.assets)
    assert list(again.splits) == ["test"]
    assert again.assets is data.assets


TINY_OPTIONS = [
    "--units=8", "--embedding-dim=8", "--filters=4", "--stages=2", "--image-size=16",
    "--batch-size=8",
]  # fmt: skip
TINY = {
    **{"units": 6, "embedding_dim": 8, "filters": 4, "stages": 2, "image_size": 16},
    "max_length": 8,
}


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


def test_colors_and_sizes_are_learned(trained):
    figures = evaluate(app, trained)
    assert figures["bleu_1"] > 95
    assert figures["mean_length"] == pytest.approx(4, abs=0.2)
    assert {"bleu_4", "cider", *(f"bleu_4_beam_{k}" for k in (1, 3, 5))} <= set(figures)


def test_the_search_options_of_evaluate_replace_those_of_the_run(trained):
    run = Run.open(app, trained.path, search={"beam_width": 1, "num_return_sequences": 1})
    [result] = app.predict(load_trained(app, run), app.examples()[:1])
    assert len(result["captions"]) == 1  # the run's own search returns three, see below


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


def test_predict_plots_the_attention_and_writes_nothing_else(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(app.examples()[0])
    command = ["image_captioning", "predict", str(trained.path)]
    assert cli.main([*command, "photo.png", "--json", "--plot=plots"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["image"] == "photo.png"
    assert len(result["captions"]) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "plots"}
    [path] = Path("plots").iterdir()
    assert min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100
    assert cli.main([*command, "none.png"]) == 2
    assert "none.png: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("attention", ["none", "a heat map", "a grid", "a grid, empty caption"])
@pytest.mark.parametrize("has_file", [True, False])
def test_plot(attention, has_file, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(app.examples()[0])
    words = ["", ""] if "empty" in attention else ["red", "ring", ""]
    result = {"captions": ["red ring", "blue ring"], "words": [words, words]}
    if attention != "none":
        shape = [2, len(words), 4] if attention == "a heat map" else [2, len(words), 4, 4]
        result["attention"] = np.random.default_rng(0).uniform(size=shape).tolist()
    if has_file:
        result["image"] = str(photo)
    app.plot(result, tmp_path / "plot.png")
    assert min(tf.io.decode_image((tmp_path / "plot.png").read_bytes()).shape[:2]) > 100


@pytest.mark.usefixtures("parity_process")
def test_a_frozen_network_of_keras_applications(own, tmp_path):
    """With weights from a file, for the frames of clips (an image is a clip without motion)."""
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    ).save_weights(weights)
    options = [*TINY_OPTIONS, "--image-size=64", "--encoder=MobileNet", "--epochs=1", "--frames=2"]
    options += [f"--encoder-weights={weights}", f"--data={own}", f"--run={tmp_path / 'run'}"]
    assert cli.main(["image_captioning", "train", *options]) == 0
    folder = tmp_path / "saved"
    exported = export.export(app, Run(tmp_path / "run"), folder, formats=("saved_model",))
    manifest = json.loads((exported / "manifest.json").read_text())
    assert list(manifest["signatures"]["serving_default"]["inputs"]) == ["image_bytes"]


def test_regions_from_a_file(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = [path.name for path in own.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    run = tmp_path / "run"
    options = [f"--regions={tmp_path / 'regions.npz'}", "--epochs=1", *TINY_OPTIONS]
    assert cli.main(["image_captioning", "train", f"--data={own}", f"--run={run}", *options]) == 0
    capsys.readouterr()
    photo = str(own / "test0.png")
    assert cli.main(["image_captioning", "predict", str(run), photo, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["attention"])[-1] == len(regions["test0.png"])


def test_coco_captions_are_loaded(monkeypatch, tmp_path):
    def mock_examples(builder, **_):
        image = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()
        rows = {"image": [image] * 2, "image/filename": ["7.jpg", "8.jpg"]}
        captions = {"captions": {"text": [["A dog.", "It runs"], ["A dog", "A cat"]]}}
        return tf.data.Dataset.from_tensor_slices(rows | captions)

    monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
    with tfds.testing.mock_data(as_dataset_fn=mock_examples), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "data_dir", tmp_path)  # of the prepared pixels
        options = ["--data=coco_captions", "--image-size=16", "--min-count=2"]
        data = app.load(config.parse(app, options), ("valid",))
        inputs, labels = next(iter(data["valid"]))
    assert data.assets["vocabulary"] == [*SPECIAL_TOKENS, "a", "dog"]
    assert inputs["image"].shape == [2, 16, 16, 3]
    assert labels.shape == [2, 2, 3]


def test_clips_with_frame_labels(tmp_path, monkeypatch, capsys):
    # TFDS read its environment variable when it was imported.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(metrics, "BEAM_WIDTHS", ())  # each width adds a search to the graph
    run = tmp_path / "run"
    options = ["--data=scenes_clips", "--generated-size=0.01", "--epochs=1", "--beam-width=1"]
    options += ["--num-return-sequences=1", *TINY_OPTIONS, f"--run={run}"]
    assert cli.main(["image_captioning", "train", *options]) == 0
    figures = evaluate(app, Run(run))
    assert figures["examples"] == 8
    assert 0 <= figures["frame_accuracy"] <= 1
    assert 0 <= figures["caption_accuracy"] <= 1
    capsys.readouterr()
    rng = np.random.default_rng(0)
    things = scenes.sample(rng, "train", 2)
    frames, _ = scenes_clips.render(things, scenes_clips.sample_moves(things, rng), rng)
    (tmp_path / "clip.gif").write_bytes(scenes_clips.encode_gif(frames))
    monkeypatch.chdir(tmp_path)
    command = ["image_captioning", "predict", str(run), "clip.gif", "--json", "--plot=plots"]
    assert cli.main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["frames"]) == scenes_clips.FRAMES
    assert np.shape(result["attention"])[-1] == scenes_clips.FRAMES
    assert Path("plots/prediction-1.png").is_file()
    assert cli.main(["image_captioning", "report", str(run)]) == 0
    assert "## Labels of frames" in capsys.readouterr().out
    assert (run / "report" / "test-frames.png").is_file()


def test_a_resumed_run_repeats_the_augmentation(own, tmp_path, monkeypatch):
    options = {"translate": 2, "color_jitter": 0.2, "flip": True, "scheduled_sampling": 0.2}
    chosen = dataclasses.replace(app.Config(), data=str(own), **TINY, **options, epochs=3)
    whole, resumed = resuming.histories(app, chosen, tmp_path, monkeypatch)
    # The sums of convolution gradients have no fixed order. Other images would change the third
    # digit.
    for one, other in zip(whole, resumed, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_training_step_compiles_with_xla(own, tmp_path):
    chosen = dataclasses.replace(app.Config(), data=str(own), **TINY, epochs=1, jit=True)
    assert training.train(app, chosen, Run(tmp_path))["epochs"] == 1


def test_a_broken_image_is_an_error_in_one_line():
    with pytest.raises(UsageError, match="The image cannot be decoded"):
        app.predict(make(), [b"not an image"])


def test_weight_decay_reaches_the_optimizer():
    assert make(weight_decay=0.1).model.optimizer.weight_decay == 0.1


def test_no_attention_builds_a_recurrent_decoder():
    model = make(attention="none").model
    assert layers.RecurrentDecoder in [type(each) for each in model.layers]
