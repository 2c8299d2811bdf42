"""The speech app: on its generated data, on whatever people send, in streams, and exported."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.apps import resuming
from unroll.apps.core import cli, config, export, training
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate, load_model
from unroll.apps.core.protocol import settings_of
from unroll.apps.core.runs import Run
from unroll.apps.speech_ctc import app, metrics, recordings, serving, streaming
from unroll.apps.speech_ctc.examples import litert
from unroll.layers import NGramLanguageModel
from unroll.pipelines import audio
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.speech import spoken_digits

FOLDER = Path(app.__file__).parent
SETTINGS = {name: getattr(app.Config(), name) for name in recordings.SETTINGS}
FRONT_END = {"rate": 8000, "window": 200, "hop": 80, "mels": 12, "cepstra": 0, "deltas": 0}
FRONT_END |= {"emphasis": 0.97, "floor": 1e-6}
TEXTS = ["ab a".split(), "b ab".split()]
VARIANTS = {
    "both directions": {"normalization": "utterance"},
    "stream": {"bidirectional": False, "normalization": "running"},
    "batch": {"bidirectional": False, "normalization": "batch", "convolutions": 0},
    "deep": {"bidirectional": False, "normalization": "running", "convolutions": 2, "cell": "GRU"},
    "words": {"unit": "words", "normalization": "utterance"},
    "features": {"features": 13},
}


def assets_of(unit="characters", features=0, **config) -> dict:
    settings = SETTINGS | {k: v for k, v in config.items() if k in SETTINGS} | {"unit": unit}
    settings |= {"front_end": None if features else FRONT_END, "features": features or 12}
    return {
        "labels": ["[BLANK]", *(("ab", "b", "a") if unit == "words" else " ab")],
        "settings": json.dumps(settings).splitlines(),
        "language_model": NGramLanguageModel.from_texts(TEXTS, 2).to_arpa(),
    }


def make(**options) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(1)
    assets = assets_of(**options)
    config = {k: v for k, v in options.items() if k != "features"}
    model = app.build(app.Config(units=8, depth=2, **config), assets)
    # Away from the start, where a bias of zero hides a mistake and every frame is a blank.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.6, size=weight.shape))
    return model, assets


@pytest.fixture(params=VARIANTS, scope="module")
def made(request) -> tuple[keras.Model, dict]:
    return make(**VARIANTS[request.param])


def wav(seconds: float, rate: int = 8000, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(size=int(seconds * rate))
    loudness = 0.2 * np.sin(np.arange(len(noise)) / rate * 9)
    return audio.encode_wav(noise * loudness, rate).numpy()


STRANGE = [
    wav(0.7),
    b"",
    b"this is no sound",
    wav(0.0),
    wav(0.001),
    audio.encode_wav(np.zeros(4000), 8000).numpy(),
    wav(0.5, 44100, 1),
    wav(1.2, 16000, 2),
    wav(0.4)[:1000],
]


def test_whatever_people_send_gets_an_answer(made):
    model, assets = made
    results = app.predict(model, assets, STRANGE)
    assert len(results) == len(STRANGE)
    for result in results:
        assert 0 <= result["score"] <= 1
        times = [each["seconds"] for each in result["labels"]]
        assert times == sorted(times)
        assert {each["label"] for each in result["labels"]} <= set(assets["labels"][1:])
        assert app.show(result).plain
    assert [results[k]["labels"] for k in (1, 2, 3)] == [[], [], []]
    json.dumps(results)


def test_an_answer_does_not_depend_on_its_batch(made):
    model, assets = made
    some = [STRANGE[k] for k in (0, 1, 6)]
    together = app.predict(model, assets, some)
    for contents, whole in zip(some, together, strict=True):
        (alone,) = app.predict(model, assets, [contents])
        assert alone["labels"] == whole["labels"]
        assert alone["with_language_model"] == whole["with_language_model"]
        assert alone["score"] == pytest.approx(whole["score"], abs=1e-4)


def test_the_labels_with_their_times_are_the_transcript(made):
    model, assets = made
    separator = " " if settings_of(assets)["unit"] == "words" else ""
    (result,) = app.predict(model, assets, [STRANGE[7]])
    assert separator.join(each["label"] for each in result["labels"]) == result["transcript"]
    if settings_of(assets)["front_end"]:  # else the bytes are taken for MFCCs
        assert result["labels"]
        assert all(0 <= each["seconds"] < 1.2 for each in result["labels"])


def test_a_beam_s_best_is_no_worse_than_the_greedy_transcript(made):
    model, assets = made
    service = app.serve(model, assets)
    (name,) = (spec.name for spec in service.functions["beam"].input_signature)
    found = service.functions["beam"](**{name: tf.constant(STRANGE[:1])})
    scored = found["log_probabilities"].numpy()
    assert (np.diff(scored, axis=1) <= 1e-5).all()
    greedy = service.functions["serving_default"](**{name: tf.constant(STRANGE[:1])})
    logits = serving.logits_of(model, assets, STRANGE[0])
    assert scored[0, 0] >= np.log(greedy["score"].numpy()[0]) * len(logits) - 1e-3
    assert len(set(found["transcripts"].numpy()[0])) > 1


STREAMS = [name for name, options in VARIANTS.items() if options.get("bidirectional") is False]


@pytest.mark.parametrize("variant", STREAMS)
def test_a_stream_gives_the_transcript_of_the_whole(variant):
    model, assets = make(**VARIANTS[variant])
    contents = [STRANGE[0], STRANGE[6], STRANGE[7]]
    for one, result in zip(contents, app.predict(model, assets, contents), strict=True):
        assert result["transcript"]
        for seconds in (0.04, 0.25, 5):
            pieces = [*streaming.letters_as_they_come(model, assets, one, seconds)]
            assert "".join(pieces) == result["transcript"]


def test_what_looks_ahead_cannot_stream():
    model, assets = make()
    assert "step" not in app.serve(model, assets).functions
    with pytest.raises(UsageError, match="--bidirectional=false, --normalization=running"):
        list(app.stream(model, assets, STRANGE[0]))
    model, assets = make(bidirectional=False, normalization="utterance")
    assert "step" not in app.serve(model, assets).functions


def test_a_piece_is_a_multiple_of_what_a_frame_takes():
    model, assets = make(**VARIANTS["stream"])
    step = app.serve(model, assets).functions["step"]
    states = streaming.first_states(model, assets, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="multiple of 160 samples"):
        step(audio=tf.zeros([1, 161]), **states)


@pytest.mark.parametrize("variant", ["both directions", "deep", "batch", "words", "features"])
def test_exports_agree_with_the_model(variant, tmp_path):
    model, assets = make(**VARIANTS[variant])
    service = app.serve(model, assets)
    folder = export.write(service, assets, app.EXAMPLES, tmp_path / "speech_ctc")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) < 1e-5
    assert set(manifest["largest_difference"]) == {"saved_model", "saved_model_session", "litert"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "LSTN"}, "cell must be one of"),
        ({"unit": "phones"}, "needs lexicon"),
        ({"noise": 1.0}, r"noise must lie in \[0, 1\)"),
        ({"speed": -0.1}, r"speed must lie in \[0, 1\)"),
        ({"hot_words": "a=x"}, "hot_words must be word=bonus"),
        ({"hot_words": "a"}, "hot_words must be word=bonus"),
        ({"bidirectional": False, "normalization": "running", "deltas": 1}, "deltas look ahead"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        app.Config(**options)


def test_error_rates():
    right, heard = ["a b c d", "e f"], ["a x c", "e f"]
    found = metrics.error_rates(right, heard, "words")
    assert found["word_error_rate"] == found["label_error_rate"] == pytest.approx(2 / 6)
    assert found["character_error_rate"] == pytest.approx(3 / 10)
    assert found["accuracy"] == 0.5
    assert metrics.error_rates(right, heard, "characters")["label_error_rate"] == pytest.approx(0.3)
    phones = metrics.error_rates(right, heard, "phones")
    assert phones == {"accuracy": 0.5, "label_error_rate": pytest.approx(2 / 6)}


def test_the_metric_counts_edits_over_all_labels():
    metric = metrics.LabelErrorRate()
    logits = 9 * np.eye(4, dtype="float32")[[[1, 1, 0, 2, 0], [3, 0, 3, 0, 0]]]
    metric.update_state(np.array([[1, 2], [3, 0]]), logits)  # right; one too many
    assert float(metric.result()) == pytest.approx(1 / 3)
    metric.update_state(np.array([[1, 1, 1]]), logits[:1])  # 1 2 for 1 1 1: two
    assert float(metric.result()) == pytest.approx(3 / 6)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("jit", [False, True])
def test_edit_distances_are_those_of_tensorflow(jit):
    rng = np.random.default_rng(0)
    function = tf.function(metrics.edit_distances, jit_compile=jit)
    for most, least in ((1, 1), (5, 3), (17, 30), (40, 6)):
        sizes = rng.integers([most + 1, least + 1], size=(16, 2))
        rows = [
            np.where(np.arange(n) < sizes[:, [k]], rng.integers(1, 4, (16, n)), 0)
            for k, n in enumerate((most, least))
        ]
        right = [tf.sparse.from_dense(np.vstack([x, np.ones_like(x[:1])])) for x in rows]
        expected = tf.edit_distance(*right, normalize=False)[:16]
        found = function(
            *(tf.constant(x, tf.int32) for k in (0, 1) for x in (rows[k], sizes[:, k]))
        )
        np.testing.assert_array_equal(found, expected)


def test_hot_words_are_heard():
    _, assets = make()
    logits = np.full((3, 4), -9.0, "float32")
    logits[0, 2], logits[1, 3], logits[2, 0] = 9, 0.4, 9  # "a", then "b" or nothing
    logits[1, 0] = 0.6
    settings = settings_of(assets)

    def heard(words):
        given = assets | {
            "language_model": [],
            "settings": [json.dumps(settings | {"hot_words": words, "word_bonus": 0.0})],
        }
        return metrics.with_language_model([logits], given)

    assert heard("") == ["a"]
    assert heard("ab=3") == ["ab"]


def test_alignments_show_a_right_and_a_wrong_utterance():
    text = metrics.alignments(["one two", "three"], ["one two", "tree"])
    assert "one two" in text
    assert "tree" in text
    assert "S" in text


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("digits"))
    config = dataclasses.replace(app.PRESETS["spoken_digits"], epochs=6)
    training.train(app, config, run)
    return run


def test_the_generated_digits_are_learned(trained):
    found = evaluate(app, trained, "test")
    assert found["examples"] == 240
    assert found["label_error_rate"] < 0.03
    assert found["beam_label_error_rate"] < 0.03
    always = app.baseline(
        trained.config(app), app.load(trained.config(app), trained.assets()), "test"
    )
    assert always["label_error_rate"] > 0.8


def run_script(name, *arguments):
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_exported_model_answers_by_the_documented_examples(trained, tmp_path):
    folder = export.export(app, trained, tmp_path / "saved")
    paths = []
    for k, (_, _, samples) in enumerate(spoken_digits.recordings("test", 4)):
        paths.append(tmp_path / f"{k}.wav")
        soundfile.write(paths[-1], samples, spoken_digits.RATE)
    model, _, assets = load_model(app, trained)
    expected = [result["transcript"] for result in app.predict(model, assets, [*map(str, paths)])]
    assert all(expected)
    served = run_script("serving.py", folder, *paths)
    assert [row[1] for row in served] == expected
    assert served[0][2].count("@") == len(expected[0].split())
    assert [row[1] for row in run_script("litert.py", folder, *paths)] == expected
    np.testing.assert_allclose(
        litert.mel_filters(8000, 256, 40), audio.mel_filters(8000, 256, 40), atol=1e-7
    )


def test_flac_is_heard_as_wav_is(trained, tmp_path):
    model, _, assets = load_model(app, trained)
    *_, samples = next(spoken_digits.recordings("test", 1))
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, 8000)
    one, other = app.predict(model, assets, [str(tmp_path / "a.wav"), str(tmp_path / "a.flac")])
    assert one["transcript"] == other["transcript"] != ""
    assert one["recording"].endswith("a.wav")
    for name, contents, message in (
        ("none.wav", None, "No such file"),
        ("b.flac", b"fLaC and nothing more", "b.flac: "),
    ):
        if contents:
            (tmp_path / name).write_bytes(contents)
        with pytest.raises(UsageError, match=message) as error:
            app.predict(model, assets, [str(tmp_path / name)])
        assert "\n" not in str(error.value)


def test_the_picture_and_the_alignments_are_written(trained, capsys):
    metrics.main(str(trained.path))
    assert "spikes.png" in capsys.readouterr().out
    assert (trained.path / "spikes.png").read_bytes()[:4] == b"\x89PNG"
    assert (trained.path / "alignments.txt").stat().st_size > 100


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of somebody's recordings."""
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = []
    for k, (words, _, samples) in enumerate(spoken_digits.recordings("train", 24)):
        soundfile.write(folder / f"{k}.wav", samples, 8000)
        lines.append(f"{k}.wav\t{' '.join(words)}\n")
    lines.append(f"0.wav\t{'one two ' * 200}\n")
    (folder / "train.tsv").write_text("".join(lines))
    return folder


SMALL = ["--rate=8000", "--units=6", "--depth=1", "--mels=12", "--epochs=2", "--batch-size=8"]


def test_a_stream_on_the_command_line(own, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--unit=characters", "--bidirectional=false", "--normalization=running"]
    where = [f"--data={own}", f"--run={run}"]
    assert cli.main(["speech_ctc", "train", *where, *SMALL, *options]) == 0
    assert "1 transcripts are longer than their recordings allow" in capsys.readouterr().err
    sound = str(own / "0.wav")
    assert cli.main(["speech_ctc", "predict", str(run), sound, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])["transcript"]
    assert cli.main(["speech_ctc", "predict", str(run), sound, "--stream"]) == 0
    assert capsys.readouterr().out == f"{whole}\n"


def test_librispeech_is_data_of_the_app(monkeypatch):
    def recordings_of(builder, **_):
        # What TFDS makes up itself is shorter than its transcript allows.
        rows = {"speech": np.zeros([3, 16_000], "int64"), "speaker_id": np.arange(3)}
        return tf.data.Dataset.from_tensor_slices(rows | {"text": ["ONE", "TWO", "A TEN"]})

    monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
    with tfds.testing.mock_data(as_dataset_fn=recordings_of):
        data = app.load(config.parse(app, ["--data=librispeech", "--batch-size=3"]))
        inputs, labels = next(iter(data.valid))
    assert data.assets["labels"] == ["[BLANK]", *" AENOTW"]
    assert inputs["features"].shape == [3, 100, 40]
    assert labels.shape == [3, 5]


def test_phones_and_a_language_model_of_one_s_own(own, tmp_path, capsys):
    lexicon = tmp_path / "digits.dic"
    names = spoken_digits.PRONUNCIATIONS.items()
    lexicon.write_text("".join(f"{word} {phones.replace('- ', '')}\n" for word, phones in names))
    run = tmp_path / "run"
    options = ["--unit=phones", f"--lexicon={lexicon}", "--cepstra=8", "--deltas=2"]
    where = [f"--data={own}", f"--run={run}"]
    assert cli.main(["speech_ctc", "train", *where, *SMALL, *options]) == 0
    labels = Run(run).assets()["labels"]
    assert labels == ["[BLANK]", *sorted({p for _, x in names for p in x.split()} - {"-"})]
    found = evaluate(app, Run(run), "valid")
    assert "label_error_rate" in found
    assert "word_error_rate" not in found
    broken = tmp_path / "broken.arpa"
    broken.write_text("\\data\\\n")
    again = [f"--data={own}", f"--language-model={broken}", f"--run={tmp_path / 'no'}"]
    assert cli.main(["speech_ctc", "train", *again]) == 2
    assert "broken.arpa, line 1: the file ends without" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_run_that_goes_on_hears_the_same_disturbances(own, tmp_path, monkeypatch):
    config = dataclasses.replace(
        app.PRESETS["spoken_digits"], data=str(own), units=6, epochs=3, batch_size=8, mels=12
    )
    whole, resumed = resuming.histories(app, config, tmp_path, monkeypatch)
    assert whole == resumed


def test_the_step_compiles_under_xla_with_static_shapes(own, tmp_path):
    line, *_ = (own / "train.tsv").read_text().splitlines(keepends=True)
    for split in ("train", "valid"):  # one shape: each takes its time
        (own / f"{split}.tsv").write_text(2 * line)
    config = dataclasses.replace(
        app.PRESETS["spoken_digits"], data=str(own), units=6, epochs=1, batch_size=2, jit=True
    )
    result = training.train(app, config, Run(tmp_path))
    assert result["epochs"] == 1
