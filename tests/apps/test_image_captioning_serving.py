"""The caption app: all variants of the network, every search, and the exported functions."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf

from tests.apps.image_captioning_cases import VOCABULARY, make
from tests.parameters import first_of
from unroll import layers
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Service, Trained, query
from unroll.apps.image_captioning import app
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines.captions import END, PADDING, SPECIAL_TOKENS, START, UNKNOWN

VARIANTS = {
    "attention": {"coverage": 1.0},
    "regions": {"regions": "a file", "gate": False, "cell": "GRU", "depth": 2},
    "after the step, by risk": {"attention": "after", "coverage": 0.5, "mbr_samples": 9},
    "no attention": {"attention": "none", "cell": "PeepholeLSTM"},
    "clips": {"frames": 3, "cell": "LSTM", "clip_cell": "GRU"},
}
# The export of a trained model has the first variant.
IN_LITERT = tuple(VARIANTS)[1:]


@dataclass
class Case:
    """A model and its service, which is traced once for all tests."""

    trained: Trained
    service: Service

    def ids(self, **inputs) -> dict:
        return self.service.functions["ids"](**inputs)


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
        frames = case.trained.config.frames
        assert len(result.get("frames", ())) == frames
        assert set(result.get("frames", ())) <= {"left", "still"}
        if frames:
            assert np.shape(result["attention"])[-1] == frames
        assert app.show(result).plain.startswith(result["captions"][0])


def test_a_batch_equals_its_images_one_by_one(case):
    inputs = random_inputs(case.service, 3)
    together = case.ids(**inputs)
    for k in range(3):
        alone = case.ids(**{name: x[k : k + 1] for name, x in inputs.items()})
        for name, value in together.items():
            np.testing.assert_allclose(value[k], alone[name][0], atol=1e-5)


def test_a_batch_without_images_has_no_captions(case):
    inputs = case.service.requests(app.examples()[:1])
    for name, function in case.service.functions.items():
        some = function(**inputs[name])
        none = function(**{key: value[:0] for key, value in inputs[name].items()})
        assert {key: x.shape[0] for key, x in none.items()} == dict.fromkeys(some, 0)
        assert {key: x.shape.rank for key, x in none.items()} == {
            key: x.shape.rank for key, x in some.items()
        }


@pytest.mark.parametrize("case", first_of(["attention", "clips"]), indirect=True)
def test_a_broken_file_changes_no_other_caption(case):
    first, second, _ = app.examples()
    function = case.service.functions["serving_default"]
    found = function(image_bytes=tf.constant([first, b"text", second[:-40], second]))
    for k, contents in ((0, first), (3, second)):
        alone = function(image_bytes=tf.constant([contents]))
        np.testing.assert_array_equal(found["captions"][k], alone["captions"][0])
        np.testing.assert_allclose(found["scores"][k], alone["scores"][0], atol=1e-5)
        length = alone["attention"].shape[2]  # that of the longest caption
        weights = found["attention"][k][:, :length]
        np.testing.assert_allclose(weights, alone["attention"][0], atol=1e-5)
    errors = [error.decode() for error in found["error"].numpy()]
    assert errors[0] == errors[3] == ""
    assert errors[1] == "is not a JPEG, PNG, GIF, BMP or WebP file"
    assert errors[2].startswith("is damaged, ")
    for name, worst in {"captions": b"", "words": b"", "scores": -np.inf, "attention": 0}.items():
        assert set(found[name][1:3].numpy().flat) == {worst}


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", ["after the step, by risk"], indirect=True)
def test_minimum_bayes_risk_ranks_the_captions_of_the_beam(case):
    """The captions are those of the beam, in another order, also for an image alone."""
    trained = case.trained
    by_score = dataclasses.replace(
        trained, config=dataclasses.replace(trained.config, mbr_samples=0)
    )
    service, inputs = case.service, app.examples()
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


@pytest.mark.parametrize("case", first_of(IN_LITERT), indirect=True)
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


@pytest.mark.parametrize("case", ["regions"], indirect=True)
def test_padded_regions_do_not_count(case):
    service = case.service
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
        ({"mbr_samples": -1}, r"mbr_samples must be in \[0, .*\), got -1"),
        ({"captions_per_image": -1}, r"captions_per_image must be in \[0, .*\), got -1"),
        ({"frames": 1}, "frames must be 0 or at least 2, got 1"),
    ],
)
def test_invalid_configurations_raise(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


@pytest.mark.parametrize("attention", ["none", "a heat map", "a grid", "a grid, empty caption"])
@pytest.mark.parametrize("has_file", [True, False])
def test_plot(attention, has_file, tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(app.examples()[0])
    # Matplotlib would read the second word as a formula, and refuse it.
    words = ["", ""] if "empty" in attention else ["red", "$\\frac$", ""]
    result = {"captions": ["red $x_$", "blue ring"], "words": [words, words]}
    if attention == "a heat map":
        result["frames"] = ["left", "$_$", "still", "still"]
    if attention != "none":
        shape = [2, len(words), 4] if attention == "a heat map" else [2, len(words), 4, 4]
        result["attention"] = np.random.default_rng(0).uniform(size=shape).tolist()
    if has_file:
        result["image"] = str(photo)
    app.plot(result, tmp_path / "plot.png")
    assert min(tf.io.decode_image((tmp_path / "plot.png").read_bytes()).shape[:2]) > 100


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "The image is empty."),
        (b"text", "The image cannot be decoded: it must be a JPEG, PNG, GIF, BMP or WebP file."),
    ],
)
@pytest.mark.parametrize("case", first_of(["attention", "clips"]), indirect=True)
def test_a_broken_image_is_an_error_in_one_line(case, contents, message):
    with pytest.raises(UsageError) as error:
        case.service.requests([contents])
    assert str(error.value) == message


def test_weight_decay_reaches_the_optimizer():
    assert make(weight_decay=0.1).model.optimizer.weight_decay == 0.1


@pytest.mark.parametrize("case", ["no attention"], indirect=True)
def test_no_attention_builds_a_recurrent_decoder(case):
    assert layers.RecurrentDecoder in [type(each) for each in case.trained.model.layers]
