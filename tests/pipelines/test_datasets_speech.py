"""Datasets of speech: generated, published, and one's own in three layouts."""

import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines import audio, datasets
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.speech import published, spoken_digits
from unroll.pipelines.errors import DataError

TONE = 0.5 * np.sin(np.arange(800) / 4)


def rows(name, split, tmp_path, **options):
    made = datasets.builder(str(name), data_dir=tmp_path / "prepared", **options)
    return list(datasets.read(made, split).as_numpy_iterator())


class TestSpokenDigits:
    def test_the_same_seed_says_the_same(self):
        one, other = ([*spoken_digits.recordings("test", 3)] for _ in range(2))
        for (words, who, samples), (words_too, who_too, samples_too) in zip(
            one, other, strict=True
        ):
            assert (words, who) == (words_too, who_too)
            np.testing.assert_array_equal(samples, samples_too)
        train = next(spoken_digits.recordings("train", 1))
        assert train[2].shape != one[0][2].shape or (train[2] != one[0][2]).any()

    def test_what_is_said_can_be_heard(self):
        for words, _, samples in spoken_digits.recordings("train", 20):
            assert 1 <= len(words) <= 5
            assert 0.2 < len(samples) / spoken_digits.RATE / len(words) < 1.5
            assert np.isfinite(samples).all()
            assert 0.25 < np.abs(samples).max() <= 0.7

    def test_a_hiss_is_high_and_a_vowel_is_low(self):
        rng = np.random.default_rng(0)
        speaker = spoken_digits.Speaker(pitch=120, tract=1.0, rate=1.0, noise=1e-3)

        def middle(word):
            samples = spoken_digits.speak([word], speaker, rng)
            power = np.abs(np.fft.rfft(samples)) ** 2
            return (np.fft.rfftfreq(len(samples), 1 / 8000) * power).sum() / power.sum()

        assert middle("six") > 2000 > 900 > middle("four")

    def test_splits(self, tmp_path, monkeypatch):
        monkeypatch.setattr(spoken_digits, "SIZES", {"train": 4, "valid": 2, "test": 3})
        found = rows("spoken_digits", "train", tmp_path)
        assert len(found) == 4
        assert len(rows("spoken_digits", "test", tmp_path)) == 3
        samples, rate = audio.decode_wav(found[0]["audio"])
        assert int(rate) == 8000
        assert samples.shape[0] > 1000


class TestRealData:
    def test_fsdd(self, manual_dir, tmp_path):
        found = {split: rows("fsdd", split, tmp_path) for split in ("train", "valid", "test")}
        assert {split: len(x) for split, x in found.items()} == {
            "train": 2520, "valid": 180, "test": 300
        }  # fmt: skip
        sounds = [{row["audio"] for row in x} for x in found.values()]
        assert not sounds[0] & sounds[2]
        for digit in published.DIGITS:
            assert sum(row["transcript"] == digit.encode() for row in found["test"]) == 30

    def test_fsdd_strings_are_joined_within_a_split(self, manual_dir, tmp_path):
        found = rows("fsdd_strings", "test", tmp_path)
        assert len(found) == 300
        lengths = {len(row["transcript"].split()) for row in found}
        assert lengths == {3, 4, 5, 6}
        singles = {
            (row["transcript"].decode(), row["speaker"]): []
            for row in rows("fsdd", "test", tmp_path)
        }
        for row in rows("fsdd", "test", tmp_path):
            singles[row["transcript"].decode(), row["speaker"]].append(
                audio.decode_wav(row["audio"])[0].numpy()
            )
        sound = audio.decode_wav(found[0]["audio"])[0].numpy()
        first = found[0]["transcript"].decode().split()[0]
        assert any(
            len(single) <= len(sound) and np.abs(sound[: len(single)] - single).max() < 1e-4
            for single in singles[first, found[0]["speaker"]]
        )

    def test_a_speaker_left_out_is_heard_in_the_test_split_alone(self, manual_dir, tmp_path):
        heard = {
            split: {row["speaker"] for row in rows("fsdd_without_theo", split, tmp_path)}
            for split in ("train", "valid", "test")
        }
        assert heard["test"] == {b"theo"}
        assert (
            heard["train"] == heard["valid"] == {x.encode() for x in published.SPEAKERS} - {b"theo"}
        )

    def test_an4(self, manual_dir, tmp_path):
        found = {split: rows("an4", split, tmp_path) for split in ("train", "valid", "test")}
        assert len(found["train"]) + len(found["valid"]) == 948
        assert len(found["test"]) == 130
        people = {split: {row["speaker"] for row in x} for split, x in found.items()}
        assert not people["train"] & people["valid"]
        assert not people["train"] & people["test"]
        for row in found["test"]:
            assert row["features"].shape[1] == 13
            assert np.isfinite(row["features"]).all()
            assert b"<" not in row["transcript"]
        assert found["test"][0]["transcript"].decode().isupper()


class TestLibrispeech:
    def test_tfds_s_recordings_become_wav_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "require_reachable", lambda *_: None)
        with tfds.testing.mock_data(num_examples=3):
            made = datasets.builder("librispeech", data_dir=tmp_path)
            splits = datasets.splits(made)
            assert list(splits) == ["train", "valid", "test"]
            own = next(iter(made.as_dataset(split="dev_clean")))
            first = next(iter(splits["valid"]))
            same = next(iter(datasets.load("librispeech", "valid", data_dir=tmp_path)))
        assert same["audio"] == first["audio"]
        samples, rate = audio.decode_wav(first["audio"])
        assert rate == 16_000
        np.testing.assert_allclose(
            samples, np.clip(own["speech"].numpy() / 2**15, -1, 1), atol=2**-14
        )
        assert first["transcript"] == own["text"]
        assert first["speaker"].dtype == tf.string


def test_broken_mfccs():
    good = (26).to_bytes(4, "big") + np.arange(26, dtype=">f4").tobytes()
    np.testing.assert_array_equal(
        published.read_mfcc(good, "a"), np.arange(26, dtype="float32").reshape(2, 13)
    )
    for contents in (good[:-1], b"", (25).to_bytes(4, "big") + good[4:-4]):
        with pytest.raises(DataError, match=r"^a is no file of 13 MFCCs"):
            published.read_mfcc(contents, "a")


def folder(tmp_path, splits, sounds=("one.wav", "two.flac", "three.wav")):
    path = tmp_path / "mine"
    path.mkdir()
    for name in sounds:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path / name, TONE, 8000)
    for name, text in splits.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


class TestOwnFiles:
    def test_tables(self, tmp_path):
        mine = folder(
            tmp_path,
            {"train.tsv": "one.wav\tone\ntwo.flac\ttwo  words\n", "dev.tsv": "three.wav\tthree\n"},
        )
        found = rows(mine, "train", tmp_path, folder="spoken")
        assert {row["transcript"] for row in found} == {b"one", b"two words"}
        for row in found:
            samples, rate = audio.decode_wav(row["audio"])
            assert int(rate) == 8000
            np.testing.assert_allclose(samples, TONE, atol=1e-3)
        assert len(rows(mine, "valid", tmp_path, folder="spoken")) == 1

    def test_librispeech_s_layout(self, tmp_path):
        mine = folder(
            tmp_path,
            {
                "train-clean/19/198/19-198.trans.txt": "19-198-0 HE SAID\n19-198-1 SHE SAID\n",
                "test-clean/7/1/7-1.trans.txt": "7-1-0 NO\n",
            },
            ["train-clean/19/198/19-198-0.flac", "train-clean/19/198/19-198-1.wav",
             "test-clean/7/1/7-1-0.flac"],
        )  # fmt: skip
        found = rows(mine, "train", tmp_path, folder="spoken")
        assert {(row["transcript"], row["speaker"]) for row in found} == {
            (b"HE SAID", b"19"), (b"SHE SAID", b"19")
        }  # fmt: skip
        assert rows(mine, "test", tmp_path, folder="spoken")[0]["transcript"] == b"NO"

    def test_ljspeech_s_layout(self, tmp_path):
        lines = "LJ-1|Dr. No|Doctor No\nLJ-2|Yes|Yes\n"
        mine = folder(tmp_path, {"metadata.csv": lines}, ["wavs/LJ-1.wav", "wavs/LJ-2.wav"])
        found = rows(mine, "train", tmp_path, folder="spoken")
        assert {row["transcript"] for row in found} == {b"Doctor No", b"Yes"}

    def test_what_cannot_be_used_is_left_out_and_told(self, tmp_path, capsys):
        lines = "one.wav\tone\nbroken.wav\ttwo\nmissing.wav\tthree\nthree.wav\t\n"
        mine = folder(tmp_path, {"train.tsv": lines, "broken.wav": "no sound"})
        assert len(rows(mine, "train", tmp_path, folder="spoken")) == 1
        told = capsys.readouterr().err
        assert "3 of 4 recordings of train are left out" in told
        assert "broken.wav cannot be read" in told
        assert "missing.wav cannot be read" in told
        assert "train.tsv, line 4, has no transcript" in told
        (line,) = told.splitlines()
        assert line.startswith("unroll: ")

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, "has no training data: train.tsv"),
            ({"train.tsv": "one.wav one\n"}, r"train\.tsv, line 1: expected a path, a tab"),
            ({"train.tsv": "\n"}, r"has no recordings \(train\)"),
            ({"train.tsv": "a.wav\tno\n"}, "1 of 1 recordings of train are left out: .*a.wav"),
            ({"metadata.csv": "LJ-1 no\n"}, r"metadata\.csv, line 1: expected a name, a bar"),
            (
                {"train.tsv": "one.wav\tx\n", "dev.tsv": "", "valid.tsv": ""},
                "has both valid.tsv and dev.tsv",
            ),
        ],
    )
    def test_errors_are_one_line(self, tmp_path, files, message):
        mine = folder(tmp_path, files)
        with pytest.raises(DataError, match=message) as error:
            rows(mine, "train", tmp_path, folder="spoken")
        assert "\n" not in str(error.value)

    def test_bytes_that_are_no_text(self, tmp_path):
        mine = folder(tmp_path, {})
        (mine / "train.tsv").write_bytes(b"one.wav\t\xff\n")
        with pytest.raises(DataError, match="is not UTF-8 at byte 8"):
            rows(mine, "train", tmp_path, folder="spoken")

    def test_a_changed_file_is_prepared_anew(self, tmp_path):
        mine = folder(tmp_path, {"train.tsv": "one.wav\tone\n"})
        before = rows(mine, "train", tmp_path, folder="spoken")
        soundfile.write(mine / "one.wav", TONE[:400], 8000)
        after = rows(mine, "train", tmp_path, folder="spoken")
        assert len(after[0]["audio"]) < len(before[0]["audio"])
