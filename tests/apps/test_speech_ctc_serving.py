"""The speech app with random weights: predictions, hostile files, streaming, export."""

import ast
import dataclasses
import functools
import io
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tests.parameters import first_of
from tests.pipelines.sound_mutations import mutations
from unroll.apps.core import cli, export
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import save_weights
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run
from unroll.apps.speech_ctc import app, decoding, recordings, serving, streaming
from unroll.apps.speech_ctc.examples import litert as litert_example
from unroll.apps.speech_ctc.examples import serving as serving_example
from unroll.layers import NGramLanguageModel
from unroll.layers.litert_tensorflow import convert
from unroll.pipelines import audio, sound
from unroll.pipelines.errors import DataError

TEXTS = ["ab a".split(), "b ab".split()]
FRONT_END = audio.FrontEnd(rate=8000, window=200, hop=80, mels=12)
VARIANTS = {
    "both directions": {"normalization": "utterance"},
    "batch": {"bidirectional": False, "normalization": "batch", "convolutions": 0},
    "deep": {
        "bidirectional": False, "normalization": "running", "convolutions": 2, "cell": "GRU",
        "unit": "words",
    },
    "features": {"features": 13, "normalization": "utterance"},
}  # fmt: skip


def make(features: int = 0, **options) -> Trained:
    """A model with random weights. With `features`, its recordings are given as MFCCs."""
    keras.utils.set_random_seed(1)
    made = app.Config(units=8, depth=2, beam_width=4, **options)
    interface = {
        "front_end": None if features else dataclasses.asdict(FRONT_END),
        "features": features or FRONT_END.size,
    }
    assets = {
        "labels": ["[BLANK]", *(("ab", "b", "a") if made.unit == "words" else " ab")],
        "interface": interface,
        "language_model": NGramLanguageModel.from_texts(TEXTS, 2).to_arpa(),
    }
    model = app.build(made, assets)
    # Away from the initial values: a bias of zero hides errors, and each frame is a blank.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.6, size=weight.shape))
    return Trained(made, assets, model)


@dataclasses.dataclass
class Case:
    """A model, its functions, and its predictions for the unusual recordings."""

    name: str
    trained: Trained
    functions: dict
    predictions: dict[str, dict]

    def serve(self, contents: list[bytes], name: str = "serving_default") -> dict[str, np.ndarray]:
        [spec] = self.functions[name].input_signature
        found = self.functions[name](**{spec.name: tf.constant(contents, tf.string)})
        return {key: value.numpy() for key, value in found.items()}

    def changed(self, assets: dict | None = None, **options) -> Trained:
        """The model with other search options and assets."""
        config = dataclasses.replace(self.trained.config, **options)
        return Trained(config, self.trained.assets | (assets or {}), self.trained.model)


def wav(seconds: float, rate: int = 8000, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).normal(size=int(seconds * rate))
    loudness = 0.2 * np.sin(np.arange(len(noise)) / rate * 9)
    return sound.encode_wav(noise * loudness, rate).numpy()


def encode(contents: bytes, kind: str, subtype: str) -> bytes:
    samples, rate = soundfile.read(io.BytesIO(contents))
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


UNUSUAL = {
    "noise": wav(0.7),
    "one frame": wav(0.04),
    "silence": sound.encode_wav(np.zeros(4000), 8000).numpy(),
    "44 kHz": wav(0.5, 44100, 1),
    "16 kHz": wav(1.2, 16000, 2),
    "truncated": wav(0.4)[:2000],
}
UNREADABLE = {
    "no bytes": b"",
    "a page": b"<html>404 not found</html>",
    "a cut header": wav(0.1)[:30],
    "no samples": wav(0.0),
    "shorter than a frame": wav(0.001),
    "rate 1": wav(0.1)[:24] + (1).to_bytes(4, "little") + wav(0.1)[28:],
}


class Counted:
    """A model that counts its calls."""

    def __init__(self, model: keras.Model):
        self.model, self.calls = model, 0

    def __call__(self, inputs, training):
        self.calls += 1
        return self.model(inputs, training=training)


@functools.cache
def case_of(name: str) -> Case:
    """The case of a variant. A prediction without options does not search a language model."""
    trained = make(**VARIANTS[name])
    counted = Counted(trained.model)

    def unused(*_):
        raise AssertionError("The search with the language model was not requested.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_with_language_model", unused)
        once = Trained(trained.config, trained.assets, counted)
        results = app.predict(once, list(UNUSUAL.values()))
    assert counted.calls == 1  # in one function, which is called once for each recording
    functions = app.serve(trained).functions
    return Case(name, trained, functions, dict(zip(UNUSUAL, results, strict=True)))


@pytest.fixture(params=first_of(VARIANTS))
def case(request) -> Case:
    return case_of(request.param)


@pytest.fixture
def simple() -> Case:
    """A model that reads in both directions."""
    return case_of("both directions")


@pytest.fixture
def canned(monkeypatch) -> np.ndarray:
    """The logits that the network gives for each recording, `[T, K]`, without running."""
    logits = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")

    def recognizer(trained):
        outputs = {
            "transcript": ["a"], "score": [0.5], "labels": [["a"]], "timestamps": [[0.0]],
            "frames": [len(logits)], "logits": logits[np.newaxis],
        }  # fmt: skip

        def recognize(contents):
            is_short = tf.strings.length(contents) < 500
            error = tf.where(is_short, "shorter than 0.02 seconds", "")
            return {name: tf.constant(value) for name, value in outputs.items()} | {"error": error}

        return recognize

    monkeypatch.setattr(serving, "recognizer", recognizer)
    return logits


def test_every_recording_has_a_result(case):
    for result in case.predictions.values():
        assert 0 < result["score"] <= 1
        assert result["with_language_model"] is None
        times = [each["seconds"] for each in result["labels"]]
        assert times == sorted(times)
        assert {each["label"] for each in result["labels"]} <= set(
            case.trained.assets["labels"][1:]
        )
        assert app.show(result).plain
    json.dumps(list(case.predictions.values()))


def test_a_batch_is_served_as_its_recordings_are_predicted(case):
    given = [recordings.read(contents, case.trained) for contents in UNUSUAL.values()]
    served = case.serve([*given, b"unreadable"])
    assert (served["error"][:-1] == b"").all()
    for row, result in enumerate(case.predictions.values()):
        assert served["transcript"][row].decode() == result["transcript"]
        assert served["score"][row] == pytest.approx(result["score"], abs=1e-4)
        labels = [label.decode() for label in served["labels"][row] if label]
        assert labels == [each["label"] for each in result["labels"]]
    assert served["transcript"][-1] == b""
    assert served["score"][-1] == 0
    assert b"not a " in served["error"][-1]


def test_an_empty_batch_has_empty_outputs(case):
    full = case.serve([recordings.read(UNUSUAL["noise"], case.trained)])
    empty = case.serve([])
    assert {name: len(value) for name, value in empty.items()} == dict.fromkeys(full, 0)
    [size] = {spec.shape[-1] for spec in case.functions["frames"].input_signature[:1]}
    found = case.functions["frames"](features=np.zeros([0, 9, size]), lengths=np.zeros(0, int))
    assert {len(value) for value in found.values()} == {0}


def test_the_labels_are_the_transcript_and_have_times_within_the_recording(case):
    separator = " " if case.trained.config.unit == "words" else ""
    result = case.predictions["16 kHz"]
    assert separator.join(each["label"] for each in result["labels"]) == result["transcript"]
    if case.trained.assets["interface"]["front_end"]:  # the model of MFCCs outputs blanks here
        assert result["labels"]
    assert all(0 <= each["seconds"] < 1.2 for each in result["labels"])


def test_each_label_is_the_most_probable_in_the_frame_of_its_time(case):
    for name, result in case.predictions.items():
        probabilities = result["probabilities"]
        assert set(probabilities) == {"[BLANK]", *(each["label"] for each in result["labels"])}
        assert len({len(values) for values in probabilities.values()}) == 1
        for each in result["labels"]:
            frame = round(each["seconds"] / result["seconds_per_frame"])
            highest = max(values[frame] for values in probabilities.values())
            assert probabilities[each["label"]][frame] == highest, name


def test_streaming_gives_the_transcript_of_the_whole_recording(case, monkeypatch):
    step = streaming.step_function(case.trained)
    if case.trained.config.bidirectional:
        assert step is None
        with pytest.raises(UsageError, match="--bidirectional=false, --normalization=running"):
            list(app.stream(case.trained, UNUSUAL["noise"]))
        return
    monkeypatch.setattr(streaming, "step_function", lambda trained: step)  # traced once
    for name in ("noise", "44 kHz", "16 kHz"):
        transcript = case.predictions[name]["transcript"]
        assert transcript
        contents = recordings.read(UNUSUAL[name], case.trained)
        for seconds in (0.04, 0.25, 5):
            pieces = streaming.stream(case.trained, contents, seconds)
            # The text of a piece of words ends in a space.
            assert "".join(pieces).strip() == transcript
    size = streaming.samples_per_frame(case.trained)
    states = streaming.initial_states(case.trained, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"multiple of {size} samples"):
        step(audio=tf.zeros([1, size + 1]), **states)
    empty = step(audio=tf.zeros([0, size]), **streaming.initial_states(case.trained, 0))
    assert {len(value) for value in empty.values()} == {0}


def test_a_stream_is_printed_on_a_line_of_its_own(tmp_path, capsys):
    case = case_of("deep")
    run = Run(tmp_path)
    run.write_config(app, case.trained.config)
    run.write_assets(case.trained.assets)
    save_weights(case.trained.model, run)
    names = ("noise", "16 kHz")
    for name in names:
        (tmp_path / f"{name}.wav").write_bytes(UNUSUAL[name])
    paths = [str(tmp_path / f"{name}.wav") for name in names]
    assert cli.main(["speech_ctc", "predict", str(run.path), *paths, "--stream"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [
        case.predictions[name]["transcript"] for name in names
    ]


def test_normalization_over_the_recording_cannot_stream():
    config = app.Config(bidirectional=False, normalization="utterance")
    assets = {"interface": {"front_end": dataclasses.asdict(FRONT_END)}}
    assert not streaming.can_stream(Trained(config, assets, None))
    running = dataclasses.replace(config, normalization="running")
    assert streaming.can_stream(Trained(running, assets, None))


@pytest.mark.usefixtures("parity_process")
def test_exports_agree_with_the_model(case, tmp_path):
    if case.name not in ("deep", "features"):
        pytest.skip("tests/apps/test_speech_ctc.py exports what the two others do not have")
    formats = ("saved_model", "litert") if case.name == "deep" else ("saved_model",)
    to = tmp_path / "speech_ctc"
    service = app.serve(case.trained)
    folder = export.write(service, case.trained.assets, app.examples(), to, formats)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert max(manifest["largest_difference"].values()) < 1e-5
    assert set(manifest["largest_difference"]) == {"saved_model_session", *formats}


@pytest.mark.exhaustive
def test_litert_reads_mfccs():
    from ai_edge_litert.interpreter import Interpreter

    function = case_of("features").functions["frames"]
    specs = {spec.name: spec for spec in function.input_signature}
    run = Interpreter(model_content=convert(function, specs)).get_signature_runner()
    rng = np.random.default_rng(0)
    for batch, time in ((1, 7), (3, 90), (2, 300)):
        inputs = {
            "features": rng.normal(size=(batch, time, 13)).astype("float32"),
            "lengths": rng.integers(1, time + 1, batch).astype("int32"),
        }
        found, expected = run(**inputs), function(**inputs)
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        np.testing.assert_allclose(found["score"], expected["score"], atol=1e-5)


def test_a_result_can_be_plotted_also_without_labels(tmp_path):
    probabilities = {"[BLANK]": [0.9, 0.2], "a": [0.1, 0.8]}
    results = [
        {"transcript": "a", "seconds_per_frame": 0.02, "probabilities": probabilities},
        {"transcript": "", "seconds_per_frame": 0.02, "probabilities": {"[BLANK]": []}},
    ]
    for i, result in enumerate(results):
        app.plot(result, tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.usefixtures("canned")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_recording_is_one_line(simple, tmp_path, name):
    path = tmp_path / "x.wav"
    path.write_bytes(UNREADABLE[name])
    with pytest.raises((DataError, UsageError), match=r"x\.wav") as error:
        app.predict(simple.trained, [str(path)])
    assert "\n" not in str(error.value)


def test_what_is_no_recording_has_a_score_of_0_and_an_error(simple):
    contents = [UNUSUAL["noise"], *UNREADABLE.values(), encode(UNUSUAL["noise"], "FLAC", "PCM_16")]
    served, searched = simple.serve(contents), simple.serve(contents, "beam")
    for found in (served, searched):
        assert (found["error"] != b"").tolist() == [False] + [True] * (len(contents) - 1)
    assert served["score"][0] > 0
    assert (served["score"][1:] == 0).all()
    assert (served["transcript"][1:] == b"").all()
    assert (served["labels"][1:] == b"").all()
    assert np.isfinite(searched["log_probabilities"][0]).all()
    assert (searched["log_probabilities"][1:] == -np.inf).all()
    assert (searched["transcripts"][1:] == b"").all()
    reasons = dict(zip(UNREADABLE, served["error"][1:], strict=False))
    assert reasons["shorter than a frame"] == b"shorter than 0.02 seconds"
    assert reasons["rate 1"] == b"sample rate 1 Hz, must be 1000 to 768000"


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "ULAW"), ("WAV", "DOUBLE"), ("RF64", "PCM_16"), ("W64", "ALAW"), ("WAV", "MS_ADPCM"),
     ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")],
)  # fmt: skip
def test_a_recording_of_another_format_is_read(simple, tmp_path, kind, subtype):
    path = tmp_path / "x.wav"
    path.write_bytes(encode(UNUSUAL["noise"], kind, subtype))
    given = recordings.read(str(path), simple.trained)
    expected, *_ = sound.decode_wav(UNUSUAL["noise"])
    samples, rate, error = sound.decode_wav(given)
    assert (int(rate), error.numpy()) == (8000, b"")
    if subtype in ("PCM_16", "DOUBLE"):
        np.testing.assert_allclose(samples, expected, atol=1e-4)
    else:
        assert abs(len(samples) - len(expected)) < 1200
    if kind in ("WAV", "RF64", "W64") and "AD" not in subtype:  # the graph reads the file itself
        served = simple.serve([path.read_bytes(), given])
        assert served["transcript"][0] == served["transcript"][1] != b""
        assert served["score"][0] == pytest.approx(served["score"][1], abs=1e-4)


def test_a_thousand_mutated_files_in_a_batch(simple):
    seeds = [encode(wav(0.1), k, s) for k in ("WAV", "RF64") for s in ("PCM_16", "ULAW", "FLOAT")]
    served = simple.serve(mutations(seeds, 1000))
    is_read = served["error"] == b""
    assert 100 < is_read.sum() < 900
    assert (served["score"][~is_read] == 0).all()
    assert (served["transcript"][~is_read] == b"").all()
    assert ((served["score"][is_read] > 0) & (served["score"][is_read] <= 1)).all()


def test_a_small_request_cannot_take_much_memory(simple):
    # Each recording is padded to the longest: ten minutes for a thousand would be 600,000 seconds.
    long = sound.encode_wav(np.zeros(500_000), 1000).numpy()
    served = simple.serve([long, wav(0.1)] + [b""] * 998)
    assert served["error"][0] == b"500 seconds, at most 3 are allowed"
    assert served["error"][1] == b""


def test_files_of_mfccs():
    trained = make(**VARIANTS["features"])
    values = np.random.default_rng(0).normal(size=13 * 20).astype(">f4").tobytes()
    good = (13 * 20).to_bytes(4, "big") + values
    assert recordings.read(good, trained) == good
    assert recordings.read(UNUSUAL["noise"], trained)[:4] == (13 * 70).to_bytes(4, "big")
    broken = {
        "cut": good[:-4],
        "count": (13 * 21).to_bytes(4, "big") + values,
        "frames": (12 * 20).to_bytes(4, "big") + values[: 4 * 12 * 20],
        "numbers": good[:-4] + b"\x7f\xff\xff\xff",
        "page": b"<html>404 not found</html>",
        "nothing": b"",
        "bytes": b"abc",
        "negative": b"\xff\xff\xff\xff",
    }
    _, lengths, errors = recordings.feature_batch(tf.constant([good, *broken.values()]), trained)
    assert lengths.numpy().tolist() == [20] + [0] * len(broken)
    assert set(errors.numpy()[1:]) == {b"not a file of 13 MFCCs per frame"}
    for contents in broken.values():
        with pytest.raises(DataError, match=r"^The recording "):
            recordings.read(contents, trained)


def test_the_best_of_a_beam_is_at_least_as_probable_as_the_greedy_path(simple):
    trained = simple.changed(beam_width=16)
    beam = Case("", trained, app.serve(trained).functions, {}).serve([UNUSUAL["noise"]], "beam")
    assert (np.diff(beam["log_probabilities"], axis=1) <= 1e-5).all()
    outputs = serving.recognizer(trained)(tf.constant([UNUSUAL["noise"]]))
    greedy = math.log(float(outputs["score"][0])) * int(outputs["frames"][0])
    assert beam["log_probabilities"][0, 0] >= greedy - 1e-3
    assert len(set(beam["transcripts"][0])) > 1


def test_hot_words_change_the_transcript(simple):
    logits = np.full((3, 4), -9.0, "float32")
    logits[0, 2], logits[1, 3], logits[2, 0] = 9, 0.4, 9  # "a", then "b" or a blank
    logits[1, 0] = 0.6

    def transcripts(hot_words):
        trained = simple.changed({"language_model": []}, word_bonus=0.0, hot_words=hot_words)
        return decoding.decode_with_language_model([logits], trained)

    assert transcripts("") == ["a"]
    assert transcripts("ab=3") == ["ab"]


def test_without_a_weight_the_search_with_the_language_model_is_left_out(simple):
    assert set(decoding.decoders(simple.changed(lm_weight=0.0))) == {"", "beam_"}
    assert set(decoding.decoders(simple.trained)) == {"", "beam_", "language_model_"}


def test_hot_words_do_not_need_the_language_model(simple, canned):
    trained = simple.changed({"language_model": ["broken"]}, lm_weight=0.0, hot_words="ab=30")
    [result] = app.predict(trained, [UNUSUAL["noise"]])
    assert "ab" in result["with_language_model"].split()


def test_the_language_model_is_read_once_for_all_recordings(simple, canned, monkeypatch):
    reads = []

    def from_lines(lines):
        reads.append(lines)
        return NGramLanguageModel.from_texts(TEXTS)

    monkeypatch.setattr(NGramLanguageModel, "from_lines", from_lines)
    trained = simple.changed(with_language_model=True)
    found = [x["with_language_model"] for x in app.predict(trained, list(UNUSUAL.values())[:2])]
    assert len(reads) == 1
    assert found == decoding.decode_with_language_model([canned, canned], trained) != ["", ""]


def test_a_binary_file_of_kenlm_is_an_asset(simple, tmp_path, monkeypatch):
    contents = b"mmap lm http://kheafield.com/code format version 5\n\0\xff"

    def from_kenlm(path):
        assert Path(path).read_bytes() == contents
        return NGramLanguageModel.from_texts(TEXTS)

    monkeypatch.setattr(NGramLanguageModel, "from_kenlm", from_kenlm)
    path = tmp_path / "words.bin"
    path.write_bytes(contents)
    asset = decoding.language_model_asset(app.Config(language_model=str(path)), [], list)
    assert asset == contents
    logits = [np.random.default_rng(0).normal(size=(20, 4))]
    arpa = NGramLanguageModel.from_texts(TEXTS).to_arpa()
    found, expected = (
        decoding.decode_with_language_model(logits, simple.changed({"language_model": each}))
        for each in (asset, arpa)
    )
    assert found == expected != [""]


def test_the_example_scripts_import_only_what_they_name():
    allowed = {
        serving_example: {"sys", "pathlib", "tensorflow"},
        litert_example: {"json", "sys", "wave", "pathlib", "numpy", "ai_edge_litert"},
    }
    for script, names in allowed.items():
        found = set()
        for node in ast.walk(ast.parse(Path(script.__file__).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
        assert found == names
