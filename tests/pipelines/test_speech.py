"""Recordings to batches: labels, skipped recordings, data augmentation."""

import os

import numpy as np
import pytest
import tensorflow as tf

from unroll.pipelines import audio, sound, speech
from unroll.pipelines.errors import DataError

FRONT_END = audio.FrontEnd(rate=8000, window=200, hop=80, mels=8)
LABELS = [speech.BLANK, *"abc"]


def dataset(*texts: str, seconds: float = 0.2) -> tf.data.Dataset:
    """Noise of a different length for each transcript."""
    rng = np.random.default_rng(0)
    sounds = [
        sound.encode_wav(0.1 * rng.normal(size=int(8000 * seconds * (1 + k / 10))), 8000).numpy()
        for k in range(len(texts))
    ]
    return tf.data.Dataset.from_tensor_slices({"audio": sounds, "transcript": list(texts)})


def batches(data, **options):
    options = {"normalization": "utterance", "subsampling": 2, "batch_size": 4} | options
    surveyed = speech.survey(data, FRONT_END)
    return speech.speech_batches(data, surveyed, FRONT_END, LABELS, list, **options)


def test_units_of_a_transcript():
    lexicon = {"no": ["N", "OW"], "one": ["W", "AH", "N"]}
    assert speech.split_units("no one", "characters", {}) == list("no one")
    assert speech.split_units("no one", "words", {}) == ["no", "one"]
    phones = speech.split_units("no one", "phones", lexicon)
    assert phones == ["N", "OW", "W", "AH", "N"]
    for unit, joined in (("characters", "no one"), ("words", "no one")):
        assert speech.join_units(speech.split_units("no one", unit, {}), unit) == joined
    assert speech.join_units(phones, "phones") == "N OW W AH N"
    with pytest.raises(DataError, match="no word 'two' of the transcript 'no two'"):
        speech.split_units("no two", "phones", lexicon)


def test_lexicon_keeps_the_first_pronunciation(tmp_path):
    path = tmp_path / "words.dic"
    path.write_text("A AH\nA EY\n\nONE W AH N\n")
    assert speech.read_lexicon(path) == {"A": ["AH"], "ONE": ["W", "AH", "N"]}
    path.write_text("A AH\nONE\n")
    with pytest.raises(DataError, match=r"words\.dic, line 2: 'ONE' has no phones"):
        speech.read_lexicon(path)
    path.write_bytes(b"A AH\r\xff")
    with pytest.raises(DataError, match=r"words\.dic, line 2: byte 5 is not UTF-8"):
        speech.read_lexicon(path)
    with pytest.raises(DataError, match=r"none\.dic cannot be read: No such file"):
        speech.read_lexicon(tmp_path / "none.dic")


def test_a_label_with_the_name_of_the_blank():
    assert speech.labels_of(["b a", "c"], str.split) == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"has the label '\[BLANK\]', which is the name of the bl"):
        speech.labels_of(["a [BLANK]"], str.split)


@pytest.mark.parametrize(("text", "frames"), [("", 0), ("a", 1), ("abc", 3), ("aabb", 6)])
def test_frames_needed(text, frames):
    assert speech.frames_needed(np.array([LABELS.index(x) for x in text])) == frames


def test_batches_have_features_lengths_and_labels():
    data, skipped = batches(dataset("ab", "c", "abca"))
    [(inputs, labels)] = data
    assert skipped == []
    assert inputs["lengths"].numpy().tolist() == [20, 22, 24]
    assert inputs["features"].shape == (3, 24, 8)
    assert labels.numpy().tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [1, 2, 3, 1]]
    for row, length in zip(inputs["features"].numpy(), [20, 22, 24], strict=True):
        np.testing.assert_allclose(row[:length].mean(axis=0), 0, atol=1e-4)
        assert (row[length:] == 0).all()


def test_unknown_labels_have_an_id_of_their_own():
    data, _ = batches(dataset("axb"))
    [(_, labels)] = data
    assert labels.numpy().tolist() == [[1, len(LABELS), 2]]


def test_features_need_no_front_end():
    rows = {"features": tf.ones([2, 6, 3]), "transcript": ["a", "b"]}
    examples = tf.data.Dataset.from_tensor_slices(rows)
    data, _ = speech.speech_batches(
        examples,
        speech.survey(examples, None),
        None,
        LABELS,
        list,
        normalization="batch",
        subsampling=1,
        batch_size=2,
    )
    [(inputs, _)] = data
    assert inputs["features"].numpy().tolist() == np.ones([2, 6, 3]).tolist()
    assert inputs["lengths"].numpy().tolist() == [6, 6]


def test_transcript_with_too_few_frames_is_skipped_in_training():
    data = dataset("ab", "abcabcabcabc", "aaaaaa", "abcabc")  # 10 to 13 frames after subsampling
    made, skipped = batches(data, shuffle=0)
    assert skipped == ["abcabcabcabc"]  # "aaaaaa" needs eleven frames and has eleven
    rows = [row for _, labels in made for row in labels.numpy().tolist()]
    assert sorted(sum(1 for x in row if x) for row in rows) == [2, 6, 6]
    everything, skipped = batches(data)
    assert skipped == []
    assert sum(len(labels) for _, labels in everything) == 4
    with pytest.raises(DataError, match="All 4 recordings have too few frames"):
        batches(data, shuffle=0, subsampling=20)


AUGMENTATION = speech.Augmentation(speed=0.2, gain=6.0, noise=0.05, time=4, frequency=2)


def test_augmentation_differs_between_epochs_and_is_reproducible():
    def made():
        data, _ = batches(dataset(*["ab"] * 8), augmentation=AUGMENTATION, shuffle=3)
        return data

    whole = [x["features"].numpy() for x, _ in made().repeat(2)]
    first, second = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    # A training that is resumed makes an iterator for each finished epoch, and does not read it.
    resumed = made()
    iter(resumed)
    for a, b in zip(second, [x["features"].numpy() for x, _ in resumed], strict=True):
        np.testing.assert_array_equal(a, b)
    one, other = (np.sort(np.concatenate([x.ravel() for x in part])) for part in (first, second))
    assert one.shape != other.shape or np.abs(one - other).max() > 0.01


@pytest.mark.exhaustive
def test_number_of_batches_with_augmentation():
    texts = ["ab"] * 40
    data, _ = batches(
        dataset(*texts, seconds=0.45), augmentation=AUGMENTATION, shuffle=0, batch_size=3
    )
    for _ in range(3):
        assert sum(1 for _ in data) == int(data.cardinality())


@pytest.mark.exhaustive
def test_static_shapes_allow_a_lower_speed():
    data, _ = batches(
        dataset(*["ab"] * 30, seconds=0.3),
        augmentation=AUGMENTATION,
        shuffle=0,
        batch_size=2,
        static=True,
    )
    shapes = {x["features"].shape[1] for x, _ in data}
    assert shapes <= {boundary - 1 for boundary in speech.BOUNDARIES}


def files(tmp_path, data: tf.data.Dataset) -> tf.data.Dataset:
    """The same recordings as paths of files, as the builder of your own files gives them."""
    rows = []
    for k, example in enumerate(data.as_numpy_iterator()):
        path = tmp_path / f"{k}.wav"
        path.write_bytes(example["audio"])
        samples, rate = sound.wav_size(example["audio"])
        rows.append((os.fsencode(path), example["transcript"], int(samples), int(rate)))
    paths, transcripts, samples, rates = zip(*rows, strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {"path": [*paths], "transcript": [*transcripts], "samples": [*samples], "rate": [*rates]}
    )


@pytest.mark.exhaustive
def test_paths_give_the_batches_of_their_files(tmp_path):
    data = dataset(*["ab", "c", "abc"] * 3)
    options = {"augmentation": AUGMENTATION, "shuffle": 1, "batch_size": 2}
    of_audio, of_paths = (
        list(batches(each, **options)[0]) for each in (data, files(tmp_path, data))
    )
    assert len(of_audio) == len(of_paths) == 5
    for (one, labels), (other, same_labels) in zip(of_audio, of_paths, strict=True):
        np.testing.assert_allclose(one["features"], other["features"], atol=1e-4)
        np.testing.assert_array_equal(labels, same_labels)


def test_recordings_are_decoded_after_the_shuffle(tmp_path, monkeypatch):
    data = files(tmp_path, dataset(*["ab"] * 60))
    reads = []
    read = sound.read_bytes
    monkeypatch.setattr(sound, "read_bytes", lambda path: reads.append(path) or read(path))
    made, _ = batches(data, shuffle=0, batch_size=1)
    assert not reads  # the lengths are known
    next(iter(made))
    assert 0 < len(reads) < 40  # the first batches, and those prepared in advance
    assert sum(len(labels) for _, labels in made) == 60


def test_the_buffer_holds_a_limited_number_of_bytes(monkeypatch):
    data = dataset(*["ab"] * 12)
    surveyed = speech.survey(data, FRONT_END)
    assert surveyed.mean_bytes == np.mean([len(x["audio"].numpy()) for x in data])
    given = []
    monkeypatch.setattr(speech, "BUFFER_BYTES", 5 * surveyed.mean_bytes)
    original = speech.batches
    monkeypatch.setattr(
        speech, "batches", lambda *x, **y: given.append(y["buffer"]) or original(*x, **y)
    )
    made, _ = batches(data, shuffle=0)
    assert given == [5]
    assert sum(len(labels) for _, labels in made) == 12
