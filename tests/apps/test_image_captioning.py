"""The caption app: both models, every search, scores, clips, files of features, exports."""

import dataclasses
import json
import subprocess
import sys
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
from unroll.apps.core.evaluation import evaluate, load_model
from unroll.apps.core.protocol import ask, settings_asset, settings_of
from unroll.apps.core.runs import Run
from unroll.apps.image_captioning import app, metrics, network
from unroll.apps.shared import images
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import captions
from unroll.pipelines.captions import END, PADDING, START, UNKNOWN
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.vision import scenes, scenes_captions, scenes_clips

FOLDER = Path(app.__file__).parent
ENTRIES = [*captions.SPECIAL_TOKENS, "a", "red", "ring", "blue", "above"]
SETTINGS = {
    **images.NO_PICTURES,
    **{"image_size": 16, "frames": 0, "labels": [], "told": ""},
    **{"max_length": 6, "beam": 3, "best": 2, "length_penalty": 0.6, "agreement": 0},
}
VARIANTS = {
    "attend": {"coverage": 1.0},
    "ungated GRU": {"gate": False, "cell": "GRU", "depth": 2},
    "look after reading": {"attention": "after", "coverage": 0.5},
    "show and tell": {"attention": "none", "cell": "PeepholeLSTM"},
    "regions": {"regions": "made elsewhere"},
    "agree": {"agreement": 9},
    "clip": {"frames": 3, "cell": "LSTM", "clip_cell": "GRU"},
}


def assets_of(regions="", frames=0, agreement=0, **_) -> dict:
    shape = [None, 6] if regions else [*[frames] * bool(frames), 16, 16, 3]
    settings = {"kind": "regions" if regions else "image", "shape": shape, "regions": regions}
    settings |= {
        "frames": frames,
        "agreement": agreement,
        "labels": ["left", "still"] if frames else [],
    }
    return {"vocabulary": ENTRIES, "settings": settings_asset(SETTINGS | settings)}


def make(**options) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(1)
    assets = assets_of(**options)
    small = {"image_size": 16, "filters": 4, "stages": 2, "units": 6, "features": 5}
    model = app.build(app.Config(**small, **options), assets)
    # Away from the start, where a bias of zero hides a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return model, assets


@pytest.fixture(params=VARIANTS, scope="module")
def made(request) -> tuple[keras.Model, dict]:
    return make(**VARIANTS[request.param])


def inputs_of(service, count: int) -> dict[str, np.ndarray]:
    [spec] = service.functions["ids"].input_signature
    shape = [count, *(4 if size is None else size for size in spec.shape[1:])]
    rng = np.random.default_rng(0)
    given = rng.uniform(0, 255, shape) if spec.name == "image" else rng.normal(size=shape)
    return {spec.name: given.astype("float32")}


def test_every_picture_gets_captions(made):
    model, assets = made
    for result in app.predict(model, assets, app.EXAMPLES):
        assert len(result["captions"]) == 2
        assert result["scores"][0] >= result["scores"][1]
        for caption, words in zip(result["captions"], result["words"], strict=True):
            assert caption.split() == [word for word in words if word]
            assert set(caption.split()) <= set(ENTRIES) - set(captions.SPECIAL_TOKENS)
        if "attention" in result:
            spoken = len(result["captions"][0].split())
            looks = np.array(result["attention"][0])
            sums = looks.reshape(len(looks), -1)[:spoken].sum(-1)
            np.testing.assert_allclose(sums, np.ones(spoken), atol=1e-5)
        assert app.show(result).plain.startswith(result["captions"][0])


def test_a_batch_gives_what_each_picture_gives_alone(made):
    model, assets = made
    service = app.serve(model, assets)
    given = inputs_of(service, 3)
    together = service.functions["ids"](**given)
    for k in range(3):
        alone = service.functions["ids"](**{name: x[k : k + 1] for name, x in given.items()})
        for name, value in together.items():
            np.testing.assert_allclose(value[k], alone[name][0], atol=1e-5)


def test_the_captions_that_agree_most_come_first():
    """What a beam finds, in another order, and the same for a picture alone."""
    model, assets = make(agreement=9)
    likely = assets | {
        "settings": settings_asset(SETTINGS | settings_of(assets) | {"agreement": 0})
    }
    ask_for = [ask(app.serve(model, each), app.EXAMPLES) for each in (assets, likely)]
    differ = 0
    for example, by_agreement, by_likelihood in zip(app.EXAMPLES, *ask_for, strict=True):
        assert 1 >= by_agreement["scores"][0] >= by_agreement["scores"][1] >= 0
        assert by_likelihood["scores"][0] < 0
        differ += by_agreement["captions"] != by_likelihood["captions"]
        [alone] = ask(app.serve(model, assets), [example])
        assert list(alone["captions"]) == list(by_agreement["captions"])
        np.testing.assert_allclose(alone["scores"], by_agreement["scores"], atol=1e-5)
    assert differ


def test_writing_follows_the_model_in_training(made):
    """The logits of teacher forcing, read word by word, choose the words of the greedy search."""
    model, assets = made
    service = app.serve(model, assets)
    given = inputs_of(service, 2)
    found = service.functions["ids"](**given)
    tokens = np.full((2, 1, 7), PADDING, "int32")
    tokens[:, 0, 0] = START
    tokens[:, 0, 1:] = found["ids"]
    logits = model(given | {"tokens": tokens}, training=False)
    logits = (logits["captions"] if isinstance(logits, dict) else logits).numpy()
    logits[..., [PADDING, UNKNOWN, START]] = -np.inf
    for row, length in enumerate(found["lengths"].numpy()):
        chosen = logits[row, 0].argmax(-1)
        np.testing.assert_array_equal(chosen[:length], found["ids"][row, :length])
        assert length == SETTINGS["max_length"] or chosen[length] == END


def test_all_captions_of_a_picture_see_it(made):
    """Captions side by side with their picture, and each with a picture of its own."""
    model, assets = made
    given = inputs_of(app.serve(model, assets), 2)
    tokens = np.random.default_rng(0).integers(1, len(ENTRIES), (2, 3, 4))
    together = model(given | {"tokens": tokens}, training=False)
    single = {name: np.repeat(x, 3, axis=0) for name, x in given.items()}
    alone = model(single | {"tokens": tokens.reshape(6, 1, 4)}, training=False)
    if isinstance(together, dict):
        together, alone = together["captions"], alone["captions"]
    np.testing.assert_allclose(tf.reshape(alone, together.shape), together, atol=1e-5)


def test_litert_writes_what_the_model_writes(made):
    from ai_edge_litert.interpreter import Interpreter

    model, assets = made
    service = app.serve(model, assets)
    function = service.functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    for count in (1, 3):
        given = inputs_of(service, count)
        found, expected = run(**given), function(**given)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_regions_behind_the_last_do_not_count():
    model, assets = make(regions="made elsewhere")
    service = app.serve(model, assets)
    regions = inputs_of(service, 1)["regions"]
    short = service.functions["ids"](regions=regions)
    padded = service.functions["ids"](regions=np.pad(regions, [(0, 0), (0, 3), (0, 0)]))
    np.testing.assert_array_equal(short["ids"], padded["ids"])
    np.testing.assert_allclose(short["attention"], padded["attention"][..., :4], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"clip_cell": "Foo"}, "clip_cell must be one of .*GRU"),
        ({"best": 4}, r"best must lie in \[1, beam\], got 4 of 3"),
        ({"agreement": -1}, "agreement must be 0 or more, got -1"),
        ({"drawn_captions": -1}, "drawn_captions must be 0 or more, got -1"),
        ({"frames": 1}, "frames must be 0 or at least 2, got 1"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_the_loss_by_hand():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(size=(1, 2, 3, 6)), tf.float32)
    labels = np.array([[[4, 99, END], [5, END, PADDING]]])  # 99 is in no vocabulary
    log_probabilities = tf.nn.log_softmax(logits).numpy()[0]
    picked = [(0, 0, 4), (0, 1, UNKNOWN), (0, 2, END), (1, 0, 5), (1, 1, END)]
    right = np.mean([-log_probabilities[place] for place in picked])
    others = np.mean([-log_probabilities[place[:2]].mean() for place in picked])
    assert float(network.CaptionLoss()(labels, logits)) == pytest.approx(right, rel=1e-5)
    smooth = network.CaptionLoss(smoothing=0.1)(labels, logits)
    assert float(smooth) == pytest.approx(0.9 * right + 0.1 * others, rel=1e-5)
    metric = network.WordLoss()
    metric.update_state(labels, logits)
    metric.update_state(labels[:, 1:], logits[:, 1:])
    again = np.mean([-log_probabilities[place] for place in [*picked, *picked[3:]]])
    assert float(metric.result()) == pytest.approx(again, rel=1e-5)


def test_places_that_are_looked_at_too_seldom_cost():
    weights = tf.constant(
        [[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], [[1.0, 0, 0]] * 3]
    )
    tokens = np.array([[2, 4, 0], [0, 0, 0]])  # the third word, and the second caption, are padding
    layer = network.DoublyStochastic(0.5)
    logits = tf.ones((2, 3, 4))
    np.testing.assert_array_equal(layer(logits, weights, tokens), logits)
    assert float(layer.losses[0]) == pytest.approx(0.5 * (0 + 0.25**2 + 0.75**2) / 2)


class TestScores:
    WRITTEN = ("a b c d", "a b")
    REFERENCES = (("a b c d e", "x y"), ("a b", "b a c"))

    def captions(self):
        written = [tuple(each.split()) for each in self.WRITTEN]
        return written, [[tuple(each.split()) for each in of] for of in self.REFERENCES]

    def test_bleu_by_hand(self):
        one, two, *_ = metrics.bleu(*self.captions())
        # All words and pairs are right; the closest references have 5 and 2 words, the captions 4
        # and 2.
        short = np.exp(1 - 7 / 6)
        assert one == pytest.approx(100 * short)
        assert two == pytest.approx(100 * short)

    def test_words_are_clipped_by_the_reference_that_has_most(self):
        written, references = [("a", "a", "a")], [[("a", "b", "b"), ("a", "a", "c")]]
        assert metrics.bleu(written, references)[0] == pytest.approx(100 * 2 / 3)

    def test_cider_is_that_of_the_published_evaluation(self):
        """The figures are those of pycocoevalcap 1.2 (Cider, df="corpus") on the same words."""
        written = ["a man rides a horse", "two dogs run on grass", "a cat"]
        told = [
            ["a man rides a brown horse", "a person on a horse", "man riding a horse on a beach"],
            ["two dogs run", "dogs are running on the grass", "two brown dogs play on grass"],
            ["a cat sleeps on a chair", "a sleeping cat", "a cat"],
        ]
        split = [tuple(each.split()) for each in written]
        references = [[tuple(each.split()) for each in of] for of in told]
        assert metrics.cider(split, references) == pytest.approx(3.125100503796356)
        assert metrics.cider([of[0] for of in references], references) > 3.2

    def test_what_is_said_of_things_and_moves(self):
        caption = tuple("the red ring moves left , then the blue cross moves up".split())
        things = (("red", "ring"), ("blue", "cross"))
        assert metrics.said(caption, "moves") == (things, ("left", "up"))
        assert metrics.said(caption, "things") == tuple(sorted(things))

    def test_all_wordings_say_the_same(self):
        for k in range(20):
            rng = np.random.default_rng(k)
            things = scenes.sample(rng, "train", 3)
            moves = scenes_clips.sample_moves(things, rng)
            told = {
                "things": scenes_captions.captions(things, rng),
                "moves": scenes_clips.captions(things, moves, rng),
            }
            for kind, each in told.items():
                assert len({metrics.said(tuple(c.split()), kind) for c in each}) == 1

    def test_baselines_by_hand(self):
        pixels = np.zeros((2, 8, 8, 3), "float32")
        pixels[1] = 200
        labels = np.array([[[4, 5, END], [6, END, 0]], [[4, 5, END], [7, 8, END]]])
        train = tf.data.Dataset.from_tensors(({"image": pixels}, labels))
        near = tf.data.Dataset.from_tensors(({"image": pixels[1:] - 9}, labels[1:, :1]))
        data = app.Data(train, near, None, assets_of())
        found = metrics.baseline(data, "valid")
        assert found["bleu_1"] == pytest.approx(100)  # "a red" stands twice
        assert found["nearest_bleu_1"] == pytest.approx(100)


def scene(rng, split="train"):
    things = scenes.sample(rng, split, int(rng.integers(1, 3)))
    return scenes.render(things, rng), scenes_captions.captions(things, rng)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of a few drawn scenes with their captions."""
    folder = tmp_path_factory.mktemp("own")
    for name, number in (("captions", 40), ("valid", 12), ("test", 12)):
        lines = []
        for k in range(number):
            pixels, told = scene(np.random.default_rng([k, number]))
            (folder / f"{name}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            lines += [f"{name}{k}.png\t{caption}\n" for caption in told]
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder


def test_baselines_know_all_captions_and_pictures_as_they_are(own):
    plain = app.Config(data=str(own), image_size=16)
    options = {"drawn_captions": 1, "shift": 4, "zoom": 0.5, "light": 0.5, "flip": True}
    disturbed = dataclasses.replace(plain, **options)
    found = [app.baseline(c, app.load(c), "valid") for c in (plain, disturbed)]
    assert found[0] == found[1]
    assert found[0]["nearest_bleu_1"] > 0


SMALL = ["--units=8", "--features=8", "--filters=4", "--image-size=32", "--batch-size=8"]
TINY = {"units": 6, "features": 8, "filters": 4, "image_size": 16, "max_length": 8}


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory) -> Run:
    run = tmp_path_factory.mktemp("runs") / "own"
    command = ["image_captioning", "train", f"--data={own}", "--epochs=2", f"--run={run}", *SMALL]
    assert cli.main(command) == 0
    return Run(run)


def test_the_exported_model_writes_by_the_documented_examples(trained, tmp_path):
    folder = export.export(app, trained, tmp_path)
    model, _, assets = load_model(app, trained)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) <= 1e-5
    photo = tmp_path / "photo.png"
    small = tf.image.resize(tf.io.decode_image(app.EXAMPLES[0]), [32, 32])
    photo.write_bytes(tf.io.encode_png(tf.cast(small, tf.uint8)).numpy())
    [answer] = ask(app.serve(model, assets), [photo.read_bytes()])
    shown = {}
    for script in ("serving.py", "litert.py"):
        command = [sys.executable, "-I", FOLDER / script, folder, photo]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        shown[script] = done.stdout.splitlines()
    wanted = [
        f"{caption}\t{score:.2f}"
        for caption, score in zip(answer["captions"], answer["scores"], strict=True)
    ]
    assert shown["serving.py"] == wanted
    pixels = tf.constant([photo.read_bytes()])
    given = images.decode(pixels, 32)
    ids = app.serve(model, assets).functions["ids"](image=given)
    words = [assets["vocabulary"][k] for k in ids["ids"][0, : int(ids["lengths"][0])]]
    assert shown["litert.py"] == [" ".join(words)]


def test_predict_writes_a_picture_of_the_attention(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(app.EXAMPLES[0])
    assert cli.main(["image_captioning", "predict", str(trained.path), "photo.png"]) == 0
    assert "photo.attention.png" in capsys.readouterr().out
    assert min(tf.io.decode_image(Path("photo.attention.png").read_bytes()).shape[:2]) > 100
    assert cli.main(["image_captioning", "predict", str(trained.path), "none.png"]) == 2
    assert "none.png: No such file" in capsys.readouterr().err


def test_a_frozen_network_of_keras_applications(own, tmp_path):
    """With weights of a file, on the frames of clips, which stand still here."""
    weights = str(tmp_path / "mobile.weights.h5")
    keras.utils.set_random_seed(0)
    keras.applications.MobileNet(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    ).save_weights(weights)
    options = [*SMALL, "--image-size=64", "--encoder=MobileNet", "--epochs=1", "--frames=2"]
    options += [f"--encoder-weights={weights}", f"--data={own}", f"--run={tmp_path / 'run'}"]
    assert cli.main(["image_captioning", "train", *options]) == 0
    folder = tmp_path / "saved"
    exported = export.export(app, Run(tmp_path / "run"), folder, formats=("saved_model",))
    manifest = json.loads((exported / "manifest.json").read_text())
    assert list(manifest["signatures"]["serving_default"]["inputs"]) == ["image_bytes"]


def test_regions_that_were_made_elsewhere(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = [path.name for path in own.glob("*.png")]
    regions = {name: rng.normal(size=(rng.integers(2, 5), 6)) for name in names}
    np.savez(tmp_path / "regions.npz", **regions)
    run = tmp_path / "run"
    options = [f"--regions={tmp_path / 'regions.npz'}", "--epochs=1", *SMALL]
    assert cli.main(["image_captioning", "train", f"--data={own}", f"--run={run}", *options]) == 0
    capsys.readouterr()
    photo = str(own / "test0.png")
    assert cli.main(["image_captioning", "predict", str(run), photo, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert np.shape(result["attention"])[-1] == len(regions["test0.png"])


def test_coco_is_data_of_the_app(monkeypatch, tmp_path):
    def photos_of(builder, **_):
        picture = tf.io.encode_png(np.zeros([8, 8, 3], np.uint8)).numpy()
        rows = {"image": [picture] * 2, "image/filename": ["7.jpg", "8.jpg"]}
        told = {"captions": {"text": [["A dog.", "It runs"], ["A dog", "A cat"]]}}
        return tf.data.Dataset.from_tensor_slices(rows | told)

    monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
    with tfds.testing.mock_data(as_dataset_fn=photos_of), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "data_dir", tmp_path)  # of the prepared pixels
        options = ["--data=coco_captions", "--image-size=16", "--min-count=2"]
        data = app.load(config.parse(app, options))
        inputs, labels = next(iter(data.valid))
    assert data.assets["vocabulary"] == [*captions.SPECIAL_TOKENS, "a", "dog"]
    assert inputs["image"].shape == [2, 16, 16, 3]
    assert labels.shape == [2, 2, 3]


def test_clips_with_labelled_frames(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes_clips.ScenesClips, "SIZES", {"train": 16, "valid": 8, "test": 8})
    # Its variable in the environment was read when it was imported.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(metrics, "BEAMS", (1,))  # each width is a graph of its own to build
    run = tmp_path / "run"
    options = ["--data=scenes_clips", "--epochs=1", "--beam=1", "--best=1", *SMALL, f"--run={run}"]
    assert cli.main(["image_captioning", "train", *options]) == 0
    figures = evaluate(app, Run(run))
    assert figures["examples"] == 8
    assert 0 <= figures["frame_accuracy"] <= 1
    assert 0 <= figures["moves_right"] <= 1
    capsys.readouterr()
    rng = np.random.default_rng(0)
    things = scenes.sample(rng, "train", 2)
    film, _ = scenes_clips.render(things, scenes_clips.sample_moves(things, rng), rng)
    (tmp_path / "clip.gif").write_bytes(scenes_clips.encode_gif(film))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["image_captioning", "predict", str(run), "clip.gif", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["frames"]) == scenes_clips.FRAMES
    assert np.shape(result["attention"])[-1] == scenes_clips.FRAMES
    assert Path(result["picture"]).is_file()


def test_a_run_that_goes_on_sees_the_same_disturbances(own, tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.Config(), data=str(own), **TINY, epochs=3, shift=2, light=0.2, flip=True,
        scheduled_sampling=0.2,
    )  # fmt: skip
    whole, resumed = resuming.histories(app, config, tmp_path, monkeypatch)
    # The gradient of a convolution is a sum in any order; other pictures would show in the third
    # digit.
    for one, other in zip(whole, resumed, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_step_compiles_under_xla_with_static_shapes(own, tmp_path):
    config = dataclasses.replace(app.Config(), data=str(own), **TINY, epochs=1, jit=True)
    assert training.train(app, config, Run(tmp_path))["epochs"] == 1


def test_what_a_scene_needs_is_learned(tmp_path):
    """One thing of three colours: the parts together name it, and look at where it is."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, number in (("captions", 400), ("test", 60)):
        lines = []
        for k in range(number):
            rng = np.random.default_rng([k, number])
            colour = ("red", "blue", "white")[k % 3]
            [thing] = scenes.sample(rng, "train", 1, ((colour, "circle"),))
            pixels = scenes.render([thing], rng)
            (folder / f"{name}{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
            lines.append(f"{name}{k}.png\ta {thing.size} {colour} circle\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    (tmp_path / "run").mkdir()
    config = dataclasses.replace(
        app.Config(), data=str(folder), epochs=6, filters=8, image_size=32, units=32, features=16,
        batch_size=16, learning_rate=5e-3,
    )  # fmt: skip
    training.train(app, config, Run(tmp_path / "run"))
    figures = evaluate(app, Run(tmp_path / "run"))
    assert figures["bleu_1"] > 95
    assert figures["words"] == pytest.approx(4, abs=0.2)


def test_no_photo_is_one_line():
    with pytest.raises(UsageError, match="The picture cannot be decoded"):
        app.predict(*make(), [b"no picture"])


def test_weights_decay_on_request():
    assert make(weight_decay=0.1)[0].optimizer.weight_decay == 0.1
    assert layers.RecurrentDecoder in [type(each) for each in make(attention="none")[0].layers]
