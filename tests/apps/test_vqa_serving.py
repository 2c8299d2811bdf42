"""The question app: all variants of the network, and the functions that it exports."""

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.apps.vqa_cases import make, photos
from tests.parameters import first_of
from unroll.apps.core import export
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service, Trained, query
from unroll.apps.vqa import app, network, report
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines.visual_questions import FIRST_ANSWER, UNKNOWN_ANSWER

VARIANTS = {
    "image": {},
    "one glimpse at regions": {
        "regions": "a file",
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
}
# The export of a trained model has the first variant; the others have no operation of their own.
IN_LITERT = ("one glimpse at regions", "mean", "dialog")
UNUSUAL = ["", "   ", "what " * 300, "😀❤️", "من اين", "nul\0byte red", "是红色吗", "Is it RED?!"]


@dataclass
class Case:
    """A model and its service, which is traced once for all tests."""

    trained: Trained
    service: Service


@pytest.fixture(scope="module")
def cases() -> Callable[[str], Case]:
    """The case of a variant, made once."""

    @functools.cache
    def make_case(variant: str) -> Case:
        trained = make(**VARIANTS[variant])
        return Case(trained, app.serve(trained))

    return make_case


@pytest.fixture(params=first_of(VARIANTS))
def case(request, cases) -> Case:
    return cases(request.param)


def test_any_text_gets_an_answer(case, monkeypatch):
    monkeypatch.setattr(app, "serve", lambda trained: case.service)
    photo, _ = photos()
    results = app.predict(case.trained, [(photo, question) for question in UNUSUAL])
    assert [result["question"] for result in results] == UNUSUAL
    for result in results:
        assert sorted(result["answers"]) == sorted(case.trained.assets["answers"])
        assert sum(result["scores"]) == pytest.approx(1, abs=1e-5)
        for name in ("question_attention", "image_attention", "history_attention"):
            weights = np.array(result.get(name, 0.0))
            assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()
        assert app.show(result).plain.startswith(result["answers"][0])
    assert len(results[2]["tokens"]) == 300
    json.dumps(results)


def test_an_answer_does_not_depend_on_its_batch(case):
    photo, other = photos()
    inputs = [
        (photo, "is it red?"),
        (other, "what is it? is it red? what is it?"),
        (photo, "no"),
    ]
    request = case.service.requests(inputs)["ids"]
    together = case.service.functions["ids"](**request)
    for k in range(len(inputs)):
        alone = {name: array[k : k + 1] for name, array in request.items()}
        answer = case.service.functions["ids"](**alone)
        np.testing.assert_allclose(answer["scores"][0], together["scores"][k], atol=1e-5)


def test_a_batch_without_examples_has_no_answers(case):
    requests = case.service.requests([(photos()[0], "is it red ?")])
    for name, function in case.service.functions.items():
        some = function(**requests[name])
        none = function(**{key: value[:0] for key, value in requests[name].items()})
        assert {key: x.shape[0] for key, x in none.items()} == dict.fromkeys(some, 0)
        assert {key: x.shape.rank for key, x in none.items()} == {
            key: x.shape.rank for key, x in some.items()
        }


def test_the_service_gives_the_answers_of_the_training_model(case):
    """Several questions per image, and an image per question."""
    photo, _ = photos()
    model = case.trained.model
    ids = case.service.requests([(photo, "is it red ?"), (photo, "what is it ?")])["ids"]
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
    outputs = case.service.functions["ids"](**ids)
    np.testing.assert_allclose(tf.nn.softmax(logits[0]), outputs["scores"], atol=1e-5)
    # `score` uses the compiled model; TensorFlow once optimized its graph to one that failed.
    np.testing.assert_allclose(model.predict_on_batch(features), logits, atol=1e-5)
    attention = network.with_attention(model)(features, training=False)
    np.testing.assert_allclose(attention["logits"], logits, atol=1e-5)
    if "image_attention" in outputs:
        np.testing.assert_allclose(
            attention["image_attention"][0], outputs["image_attention"], atol=1e-5
        )


@pytest.mark.parametrize("case", first_of(IN_LITERT), indirect=True)
def test_litert_gives_the_same_answers(case):
    from ai_edge_litert.interpreter import Interpreter

    function = case.service.functions["ids"]
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


@pytest.mark.parametrize("case", ["image"], indirect=True)
class TestImages:
    def test_the_attention_to_the_image_depends_on_the_question(self, case):
        """The weights are a distribution over the grid, and differ between two questions."""
        photo, _ = photos()
        one, other = query(case.service, [(photo, "is it red ?"), (photo, "what ?")])
        for result in (one, other):
            weights = np.array(result["image_attention"])
            assert weights.shape == (2, 4, 4)
            np.testing.assert_allclose(weights.sum((1, 2)), 1, atol=1e-5)
            assert sum(result["question_attention"]) == pytest.approx(1, abs=1e-5)
        assert np.abs(np.array(one["image_attention"]) - other["image_attention"]).max() > 1e-3

    def test_files_of_one_picture_have_one_answer(self, case):
        """A photo that lies on its side, a palette of 256 colors, a transparent background."""

        def save(picture, kind, **options):
            file = io.BytesIO()
            picture.save(file, kind, **options)
            return file.getvalue()

        picture = Image.open(io.BytesIO(photos()[0])).convert("RGB").quantize(200).convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        assert ImageOps.exif_transpose(picture).size == picture.size
        palette = picture.quantize(200)
        assert (np.asarray(palette.convert("RGB")) == np.asarray(picture)).all()
        files = [
            save(picture, "PNG"),
            save(turned, "PNG", exif=exif.tobytes()),
            save(turned, "WEBP", exif=exif.tobytes(), lossless=True),
            save(palette, "BMP"),
            save(palette, "GIF"),
            save(picture.convert("RGBA"), "PNG"),
        ]
        first, *others = query(case.service, [(contents, "is it red ?") for contents in files])
        sideways, _ = query(case.service, [(save(turned, "PNG"), "is it red ?")] * 2)
        for other in others:
            np.testing.assert_allclose(other["scores"], first["scores"], atol=1e-6)
        assert np.abs(np.array(sideways["scores"]) - first["scores"]).max() > 1e-4

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            (b"", "The image is empty."),
            (
                b"text",
                "The image cannot be decoded: it must be a JPEG, PNG, GIF, BMP or WebP file.",
            ),
            (b"II*\0", "The image is a TIFF file: save it as JPEG or PNG."),
        ],
    )
    def test_files_that_are_not_images_are_errors(self, case, contents, message):
        with pytest.raises(UsageError) as error:
            app.predict(case.trained, [(contents, "is it red ?")])
        assert str(error.value) == message

    def test_a_broken_file_changes_no_other_answer(self, case):
        """Alone and in the middle of a batch."""
        photo, other = photos()
        broken = {b"": "is empty", b"text": "is not a JPEG", other[:-40]: "is damaged"}
        function = case.service.functions["serving_default"]
        question = tf.constant(["is it red ?"])
        whole = tf.repeat(question, 2 + len(broken))
        found = function(image_bytes=tf.constant([photo, *broken, other]), question=whole)
        for k, contents in ((0, photo), (-1, other)):
            alone = function(image_bytes=tf.constant([contents]), question=question)
            for name, value in alone.items():
                if value.dtype == tf.string:
                    np.testing.assert_array_equal(found[name][k], value[0])
                else:
                    np.testing.assert_allclose(found[name][k], value[0], atol=1e-5)
        assert found["error"][0] == found["error"][-1] == b""
        for k, reason in enumerate(broken.values(), 1):
            assert found["error"][k].numpy().decode().startswith(reason)
            assert set(found["answers"][k].numpy()) == {b""}
            assert not found["scores"][k].numpy().any()
            assert not found["image_attention"][k].numpy().any()
        alone = function(image_bytes=tf.constant([b"text"]), question=question)
        assert alone["error"].numpy()[0].startswith(b"is not a JPEG, PNG, GIF, BMP or WebP")


@pytest.mark.parametrize("case", ["one glimpse at regions"], indirect=True)
def test_padded_regions_have_no_effect(case):
    function = case.service.functions["ids"]
    rng = np.random.default_rng(0)
    tokens, regions = np.array([[3, 4, 5]], "int32"), rng.normal(size=(1, 3, 6)).astype("float32")
    short = function(tokens=tokens, regions=regions)
    padded = function(tokens=tokens, regions=np.pad(regions, [(0, 0), (0, 4), (0, 0)]))
    np.testing.assert_allclose(short["scores"], padded["scores"], atol=1e-6)
    assert (padded["image_attention"].numpy()[..., 3:] == 0).all()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("parity_process")
@pytest.mark.parametrize("case", ["one glimpse at regions"], indirect=True)
def test_the_saved_model_of_regions_agrees_with_the_model(case, tmp_path):
    folder = export.write(
        case.service, case.trained.assets, app.examples(), tmp_path / "vqa", ("saved_model",)
    )
    differences = json.loads((folder / "manifest.json").read_text())["largest_difference"]
    assert differences.keys() == {"saved_model", "saved_model_session"}
    assert max(differences.values()) < 1e-5


@pytest.mark.parametrize("case", ["dialog"], indirect=True)
class TestDialogs:
    def test_an_answer_depends_on_previous_rounds_only(self, case):
        rng = np.random.default_rng(0)
        features = {
            "tokens": rng.integers(2, 9, (1, 4, 5)).astype("int32"),
            "rounds": rng.integers(2, 9, (1, 4, 6)).astype("int32"),
            "image": rng.uniform(0, 255, (1, 16, 16, 3)).astype("float32"),
        }
        before = case.trained.model(features, training=False).numpy()
        features["rounds"][0, 2] = [8, 7, 6, 5, 4, 3]
        after = case.trained.model(features, training=False).numpy()
        np.testing.assert_allclose(after[0, :3], before[0, :3], atol=1e-6)
        assert np.abs(after[0, 3] - before[0, 3]).max() > 1e-4

    def test_the_history_has_the_weights_of_the_previous_rounds(self, case, monkeypatch):
        monkeypatch.setattr(app, "serve", lambda trained: case.service)
        photo, _ = photos()
        first, second = app.predict(case.trained, [(photo, "is it red ?"), (photo, "what ?")])
        assert np.sum(first["history_attention"]) == 0  # there is no previous round
        of_hops = np.sum(second["history_attention"], axis=-1)
        assert ((of_hops > 0) & (of_hops < 1)).all()  # the rest is that of empty memory slots

    def test_the_rounds_of_a_dialog_are_those_of_its_image(self, case, monkeypatch):
        """The history of a question consists of the previous questions about the same image."""
        requests = []

        def answer(service, inputs):
            requests.extend(inputs)
            return [{"answers": [f"answer {len(requests)}"], "tokens": [], "scores": [1.0]}]

        monkeypatch.setattr(app, "query", answer)
        monkeypatch.setattr(app, "serve", lambda trained: case.service)
        inputs = [("a.png", "one ?"), ("b.png", "two ?"), ("a.png", "three ?")]
        app.predict(case.trained, inputs)
        assert requests == [
            ("a.png", "one ?", ()),
            ("b.png", "two ?", ()),
            ("a.png", "three ?", ("one ? answer 1",)),
        ]

    def test_a_conversation_remembers_its_own_rounds(self, case, monkeypatch):
        monkeypatch.setattr(app, "serve", lambda trained: case.service)
        photo, _ = photos()
        answer, other = app.converse(case.trained), app.converse(case.trained)
        first, second = answer((photo, "is it red ?")), answer((photo, "what ?"))
        assert first["history"] == []
        assert second["history"] == [f"is it red ? {first['answers'][0]}"]
        assert other((photo, "what ?"))["history"] == []
        shown = dict(app.page(case.trained).outputs)
        assert shown["reply"][1](second) == second["answers"][0]
        for result in (first, second):
            rounds = shown["attention to previous rounds"][1](result)
            assert [text.strip() for text, _ in rounds] == result["history"]


def test_a_model_without_history_does_not_converse():
    assert app.converse(make()) is None


@pytest.mark.parametrize("variant", ["image", "no image", "mean", "regions"])
def test_a_result_without_positions_is_plotted_too(variant, tmp_path):
    """Any text is drawn as it is, also what Matplotlib would read as a formula."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(photos()[0])
    tokens = ["is", "它", "$\\frac", "$", "_{", "\\x"]
    result = {"question": " ".join(tokens), "answers": ["$x_$", "a_b"], "scores": [0.7, 0.3]}
    result["tokens"] = tokens
    rng = np.random.default_rng(0)
    if variant != "mean":
        result["question_attention"] = rng.uniform(size=len(tokens)).tolist()
    if variant in ("image", "regions"):
        shape = (2, 4, 4) if variant == "image" else (2, 5)
        result["image_attention"] = rng.uniform(size=shape).tolist()
    app.plot(result | {"image": str(photo)}, tmp_path / "with an image.png")
    app.plot(result, tmp_path / "without an image.png")
    for path in tmp_path.glob("with*.png"):
        assert min(tf.io.decode_image(path.read_bytes()).shape[:2]) > 100


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
