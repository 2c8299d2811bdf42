"""Datasets of recordings: generated and published."""

import itertools
import zipfile

import numpy as np
import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets, sound
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.speech import an4, fsdd, spoken_digits
from unroll.pipelines.datasets.speech.base import DIGITS
from unroll.pipelines.errors import DataError

TONE = 0.5 * np.sin(np.arange(800) / 4)


def rows(name, split, tmp_path, **options):
    made = datasets.builder(str(name), data_dir=tmp_path / "prepared", **options)
    return list(datasets.read(made, split).as_numpy_iterator())


class TestSpokenDigits:
    def test_deterministic_in_the_split(self):
        first, second = ([*spoken_digits.recordings("test", 3)] for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert one[:2] == other[:2]
            np.testing.assert_array_equal(one[2], other[2])
        train = next(spoken_digits.recordings("train", 1))
        assert train[2].shape != first[0][2].shape or (train[2] != first[0][2]).any()

    def test_length_and_loudness(self):
        for words, _, samples in spoken_digits.recordings("train", 10):
            assert 1 <= len(words) <= 5
            assert 0.2 < len(samples) / spoken_digits.RATE / len(words) < 1.5
            assert np.isfinite(samples).all()
            assert 0.25 < np.abs(samples).max() <= 0.7

    def test_fricatives_are_high_and_vowels_are_low(self):
        rng = np.random.default_rng(0)
        speaker = spoken_digits.Speaker(pitch=120, tract=1.0, rate=1.0, noise=1e-3)

        def center(word):
            samples = spoken_digits.speak([word], speaker, rng)
            power = np.abs(np.fft.rfft(samples)) ** 2
            return (np.fft.rfftfreq(len(samples), 1 / 8000) * power).sum() / power.sum()

        assert center("six") > 2000 > 900 > center("four")

    def test_splits(self, tmp_path):
        train = read_all(spoken_digits.SpokenDigits, tmp_path, size=0.01)["train"]
        assert len(train) == 12
        assert {word for row in train for word in row["transcript"].split()} == set(DIGITS)
        assert len({row["speaker"] for row in train}) == 12
        samples, rate, _ = sound.decode_wav(train[0]["audio"])
        assert int(rate) == 8000
        assert samples.shape[0] > 1000


def fsdd_archive(folder):
    """Eight recordings of two digits and each speaker, with different amplitudes."""
    (folder / "fsdd").mkdir()
    with zipfile.ZipFile(folder / "fsdd" / "fsdd.zip", "w") as archive:
        for k, (speaker, digit, index) in enumerate(
            itertools.product(fsdd.SPEAKERS, (3, 7), range(4, 9))
        ):
            contents = sound.encode_wav(TONE * (k + 1) / 100, 8000).numpy()
            archive.writestr(f"x/recordings/{digit}_{speaker}_{index}.wav", contents)
        archive.writestr("x/README.md", "no recording")


class TestFsdd:
    @pytest.fixture(autouse=True)
    def published(self, tmp_path, monkeypatch):
        monkeypatch.setattr(fsdd, "ARCHIVE", sources.Source("fsdd", "fsdd.zip", "http://x"))
        monkeypatch.setattr(fsdd, "STRINGS", {"train": 8, "valid": 6, "test": 12})
        fsdd_archive(tmp_path)

    def test_splits_by_index(self, tmp_path):
        splits = read_all(fsdd.Fsdd, tmp_path, config="single", manual_dir=tmp_path)
        # Of the indices 4 to 8: 4 tests, 5 to 7 validate.
        assert {split: len(x) for split, x in splits.items()} == {
            "train": 12, "valid": 36, "test": 12
        }  # fmt: skip
        contents = [row["audio"] for rows in splits.values() for row in rows]
        assert len(set(contents)) == len(contents)
        assert {row["transcript"] for row in splits["test"]} == {"three", "seven"}
        prepared = rows("fsdd", "test", tmp_path, manual_dir=tmp_path)
        assert {row["audio"] for row in prepared} == {row["audio"] for row in splits["test"]}

    def test_strings_are_joined_within_a_split_and_a_speaker(self, tmp_path):
        singles = read_all(fsdd.Fsdd, tmp_path, config="single", manual_dir=tmp_path)["test"]
        splits = read_all(fsdd.Fsdd, tmp_path, config="strings", manual_dir=tmp_path)
        assert {split: len(x) for split, x in splits.items()} == fsdd.STRINGS
        for row in splits["test"]:
            words = row["transcript"].split()
            assert 3 <= len(words) <= 6
            samples = sound.decode_wav(row["audio"])[0].numpy()
            [first] = [
                sound.decode_wav(single["audio"])[0].numpy()
                for single in singles
                if (single["transcript"], single["speaker"]) == (words[0], row["speaker"])
            ]
            np.testing.assert_allclose(samples[: len(first)], first, atol=1e-4)

    def test_speaker_of_the_test_split(self, tmp_path):
        splits = read_all(fsdd.Fsdd, tmp_path, config="without_theo", manual_dir=tmp_path)
        speakers = {split: {row["speaker"] for row in x} for split, x in splits.items()}
        assert speakers["test"] == {"theo"}
        assert speakers["train"] == speakers["valid"] == set(fsdd.SPEAKERS) - {"theo"}
        assert len(splits["test"]) == 10

    def test_archive_without_recordings(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "fsdd" / "fsdd.zip", "w") as archive:
            archive.writestr("x/README.md", "no recording")
        with pytest.raises(DataError, match=r"fsdd\.zip has no recordings/"):
            read_all(fsdd.Fsdd, tmp_path, config="single", manual_dir=tmp_path)


def mfcc(frames: int) -> bytes:
    return (13 * frames).to_bytes(4, "big") + np.arange(13 * frames, dtype=">f4").tobytes()


class TestAn4:
    def archive(self, folder, transcript="<s> A B </s> ({})"):
        (folder / "an4").mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "an4" / an4.ARCHIVE.name, "w") as archive:
            for split, speakers in (("train", 11), ("test", 2)):
                names = [f"{split}/{split}{k:02}/{split}{k}-u" for k in range(speakers)]
                archive.writestr(f"etc/an4_{split}.fileids", "\n".join(names))
                lines = [transcript.format(name.rpartition("/")[2]) for name in names]
                archive.writestr(f"etc/an4_{split}.transcription", "\n".join(lines))
                for name in names:
                    archive.writestr(f"feat/{name}.mfc", mfcc(2))
        return {"manual_dir": folder}

    def test_splits(self, tmp_path):
        folders = self.archive(tmp_path)
        speakers = {
            split: sorted(
                row["speaker"].decode() for row in rows("an4", split, tmp_path, **folders)
            )
            for split in ("train", "valid", "test")
        }
        assert speakers["valid"] == ["train00", "train10"]  # every tenth
        assert speakers["train"] == [f"train0{k}" for k in range(1, 10)]
        assert speakers["test"] == ["test00", "test01"]
        [row, _] = rows("an4", "test", tmp_path, **folders)
        assert row["transcript"] == b"A B"
        np.testing.assert_array_equal(row["features"], np.arange(26.0).reshape(2, 13))

    def test_transcript_of_another_utterance(self, tmp_path):
        folders = self.archive(tmp_path, transcript="<s> A B </s> (other)")
        with pytest.raises(DataError, match=r"is not the transcript of train/train00/train0-u"):
            datasets.load("an4", "test", data_dir=tmp_path / "prepared", **folders)

    def test_broken_mfccs(self):
        np.testing.assert_array_equal(
            an4.read_mfcc(mfcc(2), "a"), np.arange(26, dtype="float32").reshape(2, 13)
        )
        good = mfcc(2)
        for contents in (good[:-1], b"", (25).to_bytes(4, "big") + good[4:-4]):
            with pytest.raises(DataError, match=r"^a is not a file of 13 MFCCs"):
                an4.read_mfcc(contents, "a")


class TestPublished:
    def test_fsdd(self, manual_dir, tmp_path):
        splits = read_all(fsdd.Fsdd, tmp_path, config="single")
        assert {split: len(x) for split, x in splits.items()} == {
            "train": 2520, "valid": 180, "test": 300
        }  # fmt: skip
        for digit in DIGITS:
            assert sum(row["transcript"] == digit for row in splits["test"]) == 30

    def test_an4(self, manual_dir, tmp_path):
        splits = read_all(an4.An4, tmp_path)
        assert len(splits["train"]) + len(splits["valid"]) == 948
        assert len(splits["test"]) == 130
        speakers = {split: {row["speaker"] for row in x} for split, x in splits.items()}
        assert not speakers["train"] & speakers["valid"]
        assert not speakers["train"] & speakers["test"]
        for row in splits["test"]:
            assert row["features"].shape[1] == 13
            assert np.isfinite(row["features"]).all()
            assert "<" not in row["transcript"]
        assert splits["test"][0]["transcript"].isupper()
