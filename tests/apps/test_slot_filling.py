"""The slot filling app, on its generated data, on arbitrary texts, and on own files."""

import dataclasses
import json
from itertools import chain

import keras
import numpy as np
import pytest
import tensorflow as tf
from seqeval.metrics import f1_score

from tests.apps.variants import fixtures
from unroll.apps.core import export, training
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.options import parse_train
from unroll.apps.core.protocol import Trained, query
from unroll.apps.core.runs import Run
from unroll.apps.shared.spans import SpanF1, span_table
from unroll.apps.slot_filling import app, metrics, report
from unroll.apps.slot_filling.examples import litert
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import tagging

ASSETS = {
    "vocabulary": ["[PAD]", "[UNK]", "to", "from", "boston", "denver", "00"],
    "characters": ["[PAD]", "[UNK]", *"abcdefmnorstv0"],
    "tags": ["B-from", "B-to", "I-from", "I-to", "O"],
    "intents": ["fare", "flight"],
}
VARIANTS = {
    "crf": {},
    "independent tags": {
        **{"crf": False, "constrained": False, "characters": "none", "intent_attention": False}
    },
    "attention": {"context": "attention", "characters": "recurrent"},
    "gate": {"context": "gate", "cell": "GRU", "depth": 2},
}
CONVERTED = {"context": "gate", "cell": "GRU", "characters": "recurrent"}
TEXTS = [
    "",
    "   ",
    "to boston " * 150,
    "😀❤️👨‍👩‍👧",
    "من بوسطن إلى دنفر",
    "nul\0byte boston",
    "从波士顿到丹佛",
    "99 98",
]


def make(**options) -> Trained:
    keras.utils.set_random_seed(1)
    config = app.Config(units=6, embedding_dim=5, character_units=4, **options)
    model = app.build(config, ASSETS)
    # Random weights, since initial biases of zero would hide a mistake.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return Trained(config, ASSETS, model)


served, model, plain = fixtures(app, make, VARIANTS)


def test_any_text_gets_an_answer(model):
    results = app.predict(model, TEXTS)
    assert [result["text"] for result in results] == TEXTS
    assert results[0]["tokens"] == results[1]["spans"] == []
    assert len(results[2]["slots"]) == 300
    for result in results:
        assert set(result["slots"]) <= set(ASSETS["tags"])
        assert result["intent"] in ASSETS["intents"]
        assert 0.5 <= result["intent_score"] <= 1
        for span in result["spans"]:
            assert span["text"] == result["text"][span["begin"] : span["end"]] != ""
    json.dumps(results)


def test_an_answer_does_not_depend_on_its_batch(model):
    service = app.serve(model)
    for text, whole in zip(TEXTS, query(service, TEXTS), strict=True):
        (alone,) = query(service, [text])
        count = len(alone["slots"])
        assert alone["slots"] == whole["slots"][:count]
        assert not any(whole["slots"][count:])
        assert alone["spans"] == whole["spans"][: len(alone["spans"])]
        assert alone["intent_score"] == pytest.approx(whole["intent_score"], abs=1e-5)


@pytest.mark.exhaustive
def test_litert_agrees_with_the_model():
    """The export of the trained run is the test of the default options."""
    from ai_edge_litert.interpreter import Interpreter

    function = app.serve(make(**CONVERTED)).functions["ids"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, length in ((1, 7), (3, 40), (5, 12)):
        inputs = {
            "tokens": rng.integers(1, 7, (batch, length)).astype("int32"),
            "characters": rng.integers(0, 16, (batch, length, 6)).astype("int32"),
        }
        inputs["tokens"][0, length // 2 :] = 0
        inputs["tokens"][-1, -1], inputs["characters"][-1, -1, :2] = 7, [-1, 16]  # unknown ids
        found, expected = run(**inputs), function(**inputs)
        assert set(found) == {"tags", "intent", "intent_score"}
        assert (found["tags"] == expected["tags"].numpy()).all()
        assert (found["intent"] == expected["intent"].numpy()).all()
        np.testing.assert_allclose(found["intent_score"], expected["intent_score"], atol=1e-5)


def test_ids_that_are_not_in_the_vocabulary_are_the_unknown_token(plain):
    function = app.serve(plain).functions["ids"]
    found = []
    for outside in (1, -1, 10**9):
        tokens = tf.constant([[2, outside, 3, outside]])
        characters = tf.fill([1, 4, 5], outside)
        found.append(function(tokens=tokens, characters=characters)["intent_score"])
    assert found[0] == found[1] == found[2]


def test_an_empty_batch_and_hostile_texts_get_an_answer(plain):
    serving = app.serve(plain).functions["serving_default"]
    empty = serving(tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in empty.items()} == dict.fromkeys(empty, 0)
    megabyte = 2**20
    hostile = [b"\0" * megabyte, b"x" * megabyte, b"\xff\xfe" * 99, b"\xe2\x80" * 9, b"\r\v"]
    found = serving(tf.constant(hostile))
    assert found["intent"].shape == [5]
    assert np.isfinite(found["intent_score"]).all()
    # A text of a megabyte with a word at every other byte.
    words, _, ends = tagging.split_words(tf.constant(["a " * (megabyte // 2)]))
    assert words.row_lengths().numpy().tolist() == [megabyte // 2]
    assert int(ends[0, -1]) == megabyte - 1


def test_constrained_tags_are_valid_bio_and_others_are_not_always():
    texts = ["from to boston denver " * 5] * 2 + ["boston denver to from 98 " * 4]
    constrained = app.predict(make(crf=False), texts)
    free = app.predict(make(crf=False, constrained=False), texts)
    assert not any(_breaks(result["slots"]) for result in constrained)
    assert any(_breaks(result["slots"]) for result in free)


def _breaks(tags: list[str]) -> bool:
    before = ["O", *tags[:-1]]
    return any(t[:1] == "I" and p[2:] != t[2:] for p, t in zip(before, tags, strict=True))


def test_the_output_shows_slots_and_intent(plain):
    (result,) = app.predict(plain, ["from boston to denver"])
    shown = app.show(result).plain
    assert result["intent"] in shown
    assert all(word in shown for word in result["tokens"])
    assert all(f"[{span['slot']}]" in shown for span in result["spans"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "Foo"}, "cell must be one of .*GRU"),
        ({"intent_weight": 0.0}, "intent_weight must be above 0"),
        ({"character_dropout": 1.0}, r"character_dropout must be in \[0, 1\)"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_own_files_have_a_preset_of_their_own(tmp_path):
    config = parse_train(app, [f"--data={tmp_path}", "--units=5"], "train")
    assert config == dataclasses.replace(app.OWN_FILES, data=str(tmp_path), units=5)


def test_figures_by_hand():
    found = metrics.Predictions(
        tokens=[["1", "2", "3"], ["1", "2"], ["1"], ["1"]],
        tags=[["B-a", "I-a", "O"], ["O", "B-b"], ["B-b"], ["O"]],
        predicted_tags=[["B-a", "O", "O"], ["O", "B-b"], ["B-b"], ["O"]],
        intents=["x", "x", "y", "z"],
        predicted_intents=["x", "y", "y", "z"],
        unknown=[True, False, False, False],
    )
    figures = metrics.figures(found)
    # Three spans, three predicted, two correct.
    assert figures["slot_f1"] == pytest.approx(2 / 3)
    assert figures["intent_accuracy"] == 3 / 4
    assert figures["sentence_accuracy"] == 2 / 4
    assert (figures["slot_f1_known_words"], figures["slot_f1_unknown_words"]) == (1, 0)
    assert (figures["examples_known_words"], figures["examples_unknown_words"]) == (3, 1)
    table = span_table("slot", found.tags, found.predicted_tags).splitlines()
    assert table[2] == "| b | 1.000 | 1.000 | 1.000 | 2 |"
    assert table[3] == "| a | 0.000 | 0.000 | 0.000 | 1 |"
    assert report._wrong_sentences(found) == [
        ["[1 2 a] 3", "[1 a] 2 3", "x", "x"],
        ["1 [2 b]", "1 [2 b]", "x", "y"],
    ]


def test_the_f1_of_training_is_that_of_seqeval():
    tags = ASSETS["tags"]
    rng = np.random.default_rng(0)
    metric = SpanF1(tags)

    def sentence(length: int) -> list[str]:
        row = ["O"]
        for _ in range(length):
            inside = [f"I-{row[-1][2:]}"] * 3 if row[-1] != "O" else []
            row.append(rng.choice(["B-from", "B-to", "O", *inside]))
        return row[1:]

    def padded(rows: list[list[str]], length: int, padding: int) -> np.ndarray:
        ids = [[tags.index(tag) for tag in row] for row in rows]
        return np.array([row + [padding] * (length - len(row)) for row in ids])

    correct, predicted = [], []
    for _ in range(30):
        lengths = rng.integers(1, 9, 3)
        correct.append([sentence(n) for n in lengths])
        predicted.append([row if rng.random() < 0.4 else sentence(len(row)) for row in correct[-1]])
        longest = max(lengths)
        metric.update_state(padded(correct[-1], longest, -1), padded(predicted[-1], longest, 0))
    expected = f1_score([*chain(*correct)], [*chain(*predicted)])
    assert 0.2 < expected < 0.8
    assert float(metric.result()) == pytest.approx(expected)
    metric.reset_state()
    metric.update_state(np.array([[9, 4]]), np.array([[0, 4]]))  # a tag that training lacks
    assert float(metric.result()) == 0


def test_sentence_accuracy_ignores_padding():
    metric = metrics.SentenceAccuracy()
    right, found = [[1, 2, -1], [1, 2, 2], [0, -1, -1]], [[1, 2, 5], [1, 2, 0], [0, 1, 1]]
    metric.update_state(np.array(right), np.array(found))
    assert float(metric.result()) == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The generated preset, with fewer sentences."""
    run = Run(tmp_path_factory.mktemp("run"))
    preset = app.PRESETS["flights"]
    training.train(app, dataclasses.replace(preset, generated_size=0.4, monitor="val_loss"), run)
    return run


@pytest.fixture(scope="module")
def trained(run) -> Trained:
    return load_trained(app, run)


@pytest.fixture(scope="module")
def data(trained):
    return app.load(trained.config, ("train", "valid", "test"), trained.assets)


@pytest.mark.exhaustive
def test_flights_are_learned_also_with_unseen_cities(trained, data):
    figures = app.score(trained, data["test"])
    assert figures["slot_f1_known_words"] >= 0.90
    assert figures["slot_f1_unknown_words"] >= 0.75
    assert figures["intent_accuracy"] >= 0.95
    baseline = app.baseline(trained.config, data, "test")
    assert baseline["slot_f1"] < 0.6
    (result,) = app.predict(trained, ["Show me flights out of Zürich into Boston."])
    found = {span["slot"]: span["text"] for span in result["spans"]}
    assert found == {"fromloc": "Zürich", "toloc": "Boston"}


@pytest.mark.exhaustive
def test_the_report_lists_slots_and_intents(trained, data):
    made = app.report(trained, data["valid"])
    assert "| toloc |" in made.text
    assert "| fromloc |" in made.text
    assert "| flight |" in made.text
    assert list(made.figures) == ["confusion"]


def test_the_plot_is_an_image(plain, tmp_path):
    [result] = app.predict(plain, ["from boston to denver"])
    app.plot(result, tmp_path / "plot.png")
    assert min(tf.io.decode_image((tmp_path / "plot.png").read_bytes()).shape[:2]) > 100


@pytest.mark.exhaustive
def test_the_example_scripts_agree_with_predict(
    run, trained, tmp_path, parity_process, run_example
):
    folder = export.export(app, run, tmp_path)
    expected = app.predict(trained, app.examples())
    lines = {}
    for script in ("serving", "litert"):
        output = run_example("slot_filling", script, folder, *app.examples())
        lines[script] = [line.split("\t") for line in output]
    for served, lite, result in zip(*lines.values(), expected, strict=True):
        spans = [f"{span['slot']}={span['text']}" for span in result["spans"]]
        assert served == [result["intent"], *spans]
        pairs = zip(result["tokens"], result["slots"], strict=True)
        assert lite == [result["intent"], *(f"{w}/{tag}" for w, tag in pairs if tag != "O")]


def test_the_splitter_of_the_litert_example_agrees_on_plain_english():
    for sentence in (*app.examples(), "What's the 838 to St. Louis, p.m.?", "", "end..."):
        words = tagging.split_words(tf.constant([sentence]))[0].to_list()[0]
        assert litert.split_words(sentence) == [word.decode() for word in words]


@pytest.mark.exhaustive
def test_named_entities_from_conll_columns(tmp_path, monkeypatch):
    """Data without intents, in IOBES. The training step is traced once."""
    rng = np.random.default_rng(1)
    people, places = ("harry ron hermione ginny".split(), "london paris rome oslo".split())
    for split, size in (("train", 200), ("valid", 20), ("test", 40)):
        rows = []
        for _ in range(size):
            person, place = rng.choice(people), rng.choice(places)
            rows += [f"{person} S-PER", "met O", f"{rng.choice(people)} B-PER", "potter E-PER"]
            rows += ["in O", f"{place} S-LOC", ""]
        (tmp_path / f"{split}.conll").write_text("\n".join(rows))
    config = parse_train(app, [f"--data={tmp_path}"], "train")
    small = {"epochs": 5, "units": 16, "embedding_dim": 16, "dropout": 0.1}
    config = dataclasses.replace(config, **small)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    traces, train_step = [], keras.Model.train_step

    def counted(self, batch):
        traces.append(batch)
        return train_step(self, batch)

    monkeypatch.setattr(keras.Model, "train_step", counted)
    training.train(app, config, run)
    assert len(traces) == 1
    trained = load_trained(app, run)
    figures = app.score(trained, app.load(config, ("test",), trained.assets)["test"])
    assert figures["slot_f1"] > 0.95
    assert "intent_accuracy" not in figures
    (result,) = app.predict(trained, ["Harry met Hermione Potter in Oslo."])
    assert [(s["slot"], s["text"]) for s in result["spans"]] == [
        ("PER", "Harry"),
        ("PER", "Hermione Potter"),
        ("LOC", "Oslo"),
    ]
    assert "intent" not in result
    outputs = app.serve(trained).functions["ids"].get_concrete_function().structured_outputs
    assert list(outputs) == ["tags"]
