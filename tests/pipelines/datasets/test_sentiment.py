"""Published datasets of labeled texts: IMDB and the Stanford Sentiment Treebank."""

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.datasets.helpers import read_all
from unroll.pipelines import datasets
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.sentiment import imdb, sst
from unroll.pipelines.errors import DataError


def archive(path: Path, count: int = 3) -> Path:
    """A small archive with the layout of IMDB."""
    names = {
        f"aclImdb/{split}/{kind}/{i}_7.txt": f"{split} {kind} {i} <br />é"
        for split in ("train", "test")
        for kind in ("neg", "pos")
        for i in range(count)
    }
    names |= {"aclImdb/README": "read me", "aclImdb/train/unsup/0_0.txt": "no label"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, text in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))
    return path


class TestImdb:
    @pytest.fixture(autouse=True)
    def three_of_each(self, monkeypatch):
        monkeypatch.delenv("UNROLL_MANUAL_DIR", raising=False)
        monkeypatch.setattr(imdb.Imdb, "COUNT", 3)

    def error_message(self, tmp_path) -> str:
        """The message of the failure, which is one line and leaves no file."""
        with pytest.raises(DataError) as error:
            datasets.load("imdb", "test", data_dir=tmp_path / "prepared", manual_dir=tmp_path)
        assert "\n" not in str(error.value)
        assert list((tmp_path / "prepared").rglob("*")) == []
        return str(error.value)

    def test_archive(self, tmp_path):
        archive(tmp_path / "imdb" / "aclImdb_v1.tar.gz")
        builder = datasets.builder("imdb", data_dir=tmp_path / "prepared", manual_dir=tmp_path)
        assert builder.features["label"].names == ["negative", "positive"]
        assert builder.split_names == ("train", "test")
        expected = [
            (f"test {kind} {i} <br />é", label)
            for label, kind in enumerate(("neg", "pos"))
            for i in range(3)
        ]
        rows = datasets.read(builder, "test").as_numpy_iterator()
        assert sorted((row["text"].decode(), row["label"]) for row in rows) == expected
        assert len(datasets.read(builder, "train")) == 6
        # Prepared data do not need the archive.
        assert len(datasets.load("imdb", "train", data_dir=tmp_path / "prepared")) == 6

    def test_slices_have_both_labels(self, tmp_path, monkeypatch):
        monkeypatch.setattr(imdb.Imdb, "COUNT", 40)
        archive(tmp_path / "imdb" / "aclImdb_v1.tar.gz", count=40)
        folders = {"data_dir": tmp_path / "prepared", "manual_dir": tmp_path}
        rows = datasets.load("imdb", "train[-20:]", **folders).as_numpy_iterator()
        assert 4 < sum(row["label"] for row in rows) < 16

    def test_incomplete_archive(self, tmp_path):
        path = archive(tmp_path / "imdb" / "aclImdb_v1.tar.gz", count=40)
        whole = path.read_bytes()
        assert "40 files aclImdb/train/neg/*.txt, not 3" in self.error_message(tmp_path)
        flipped = bytearray(whole)
        flipped[-6] ^= 1  # in the checksum
        for broken in (b"", b"no archive", whole[:100], whole[:-8], whole[:-1], bytes(flipped)):
            path.write_bytes(broken)
            message = self.error_message(tmp_path)
            assert message.startswith(f"{path} is not a complete archive: ")

    def test_no_archive_and_no_network(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            datasets, "ARCHIVE", sources.Source("imdb", "a.tar.gz", "http://127.0.0.1:9/a.tar.gz")
        )
        message = self.error_message(tmp_path)
        assert "http://127.0.0.1:9/a.tar.gz" in message
        assert str(tmp_path / "imdb" / "a.tar.gz") in message


class TestPublished:
    @pytest.mark.parametrize(
        ("dataset", "labels"),
        [
            (
                sst.Sst2,
                {"train": [3310, 3610], "valid": [428, 444], "test": [912, 909]},
            ),
            (
                sst.Sst5,
                {
                    "train": [1092, 2218, 1624, 2322, 1288],
                    "valid": [139, 289, 229, 279, 165],
                    "test": [279, 633, 389, 510, 399],
                },
            ),
        ],
    )
    def test_treebank(self, dataset, labels, manual_dir, tmp_path):
        splits = read_all(dataset, tmp_path)
        for split, rows in splits.items():
            counts = Counter(row["label"] for row in rows)
            assert [counts[label] for label in range(len(counts))] == labels[split]
        sentence = "no movement , no yuks , not much of anything ."
        [row] = [row for row in splits["test"] if row["text"] == sentence]
        assert dataset.LABELS[row["label"]] == "negative"
        assert len(dataset.LABELS) == len(labels["test"])

    def test_imdb(self, manual_dir, tmp_path):
        splits = read_all(imdb.Imdb, tmp_path)
        assert set(splits) == {"train", "test"}
        for rows in splits.values():
            assert Counter(row["label"] for row in rows) == {0: 12_500, 1: 12_500}
            assert any("<br />" in row["text"] for row in rows)
            assert all(row["text"].strip() for row in rows)
