"""Where datasets come from, and that a failure is one line and leaves nothing behind."""

import functools
import http.server
import io
import shutil
import tarfile
import threading
from collections import Counter
from pathlib import Path

import pytest
import requests
import tensorflow as tf

from unroll.pipelines import datasets
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.sentiment import imdb, reviews, sst
from unroll.pipelines.datasets.speech import librispeech
from unroll.pipelines.datasets.speech.published import SPEAKERS
from unroll.pipelines.datasets.vision import coco_captions
from unroll.pipelines.errors import DataError


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "prepared"


@pytest.fixture(autouse=True)
def no_manual_dir(monkeypatch, request):
    if "manual_dir" not in request.fixturenames:
        monkeypatch.delenv("UNROLL_MANUAL_DIR", raising=False)


@pytest.fixture
def server(tmp_path):
    """The address of a server of the files in `tmp_path/"served"`."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


def examples(name: str, split: str, **where) -> list[tuple[str, int]]:
    dataset = datasets.load(name, split, **where)
    return [(e["text"].decode(), int(e["label"])) for e in dataset.as_numpy_iterator()]


def fails(*args, **where) -> str:
    """The message of the failure, which is one line and leaves no file in `data_dir`."""
    with pytest.raises(DataError) as error:
        datasets.builder(*args, **where)
    message = str(error.value)
    assert "\n" not in message
    assert list(where["data_dir"].rglob("*")) == []
    return message


def archive(path: Path, count: int = 3, **files: str) -> Path:
    """A tiny archive of IMDB's layout."""
    names = {
        f"aclImdb/{split}/{kind}/{i}_7.txt": f"{split} {kind} {i} <br />é"
        for split in ("train", "test")
        for kind in ("neg", "pos")
        for i in range(count)
    }
    names |= {"aclImdb/README": "read me", "aclImdb/train/unsup/0_0.txt": "no label"} | files
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, text in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))
    return path


class TestRegistry:
    def test_names(self):
        reviews = {"imdb", "reviews", "sst2", "sst5"}
        sentences = {"atis", "flights", "snips"}
        without = {f"fsdd_without_{speaker}" for speaker in SPEAKERS}
        speech = {"an4", "fsdd", "fsdd_strings", "librispeech", "spoken_digits"} | without
        pictures = {"daquar", "easy_vqa", "scenes_dialog", "scenes_qa"}
        captions = {"coco_captions", "flickr8k", "scenes_captions", "scenes_clips"}
        told = {"babi", "babi_10k", "stories"}
        assert datasets.names() == sorted(reviews | sentences | speech | pictures | captions | told)

    @pytest.mark.parametrize("module", [coco_captions, librispeech])
    def test_what_tfds_cannot_download(self, module, data_dir, monkeypatch):
        def refuse(*_, **__):
            raise requests.ConnectionError

        monkeypatch.setattr(sources.requests, "get", refuse)
        with pytest.raises(DataError) as error:
            datasets.builder(module.NAME, data_dir=data_dir)
        assert str(error.value) == (
            f"{module.ARCHIVE.url} cannot be downloaded (ConnectionError): "
            "name a folder of its unpacked archives instead."
        )

    def test_an_unknown_name(self, data_dir):
        message = fails("sst3", data_dir=data_dir)
        assert all(word in message for word in ("'sst3'", *datasets.names(), "folder"))

    @pytest.mark.parametrize(
        "split", ["dev", "train[:x%]", "train[", "", "train[:0%]", "train[:99999]"]
    )
    def test_an_unknown_split(self, split, data_dir):
        with pytest.raises(DataError) as error:
            datasets.load("reviews", split, data_dir=data_dir)
        message = str(error.value)
        assert repr(split) in message
        assert "train (4000), valid (500), test (1000)" in message
        assert "\n" not in message

    def test_slices_and_sums_of_splits(self, data_dir):
        load = functools.partial(examples, "reviews", data_dir=data_dir)
        assert load("train[:90%]") + load("train[90%:]") == load("train")
        assert sorted(load("valid+test[:10]")) == sorted(load("valid") + load("test[:10]"))

    def test_what_an_example_is(self, data_dir):
        dataset = datasets.load("reviews", "train", data_dir=data_dir)
        assert dataset.element_spec == {
            "text": tf.TensorSpec((), tf.string),
            "label": tf.TensorSpec((), tf.int64),
        }

    def test_the_order_is_the_same_in_another_place(self, tmp_path):
        first = examples("reviews", "valid", data_dir=tmp_path / "one")
        assert first == examples("reviews", "valid", data_dir=tmp_path / "one")
        assert first == examples("reviews", "valid", data_dir=tmp_path / "two")

    def test_preparing_says_nothing(self, data_dir, capfd):
        datasets.builder("reviews", data_dir=data_dir)
        assert capfd.readouterr() == ("", "")

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"^reviews cannot be prepared in .*file"):
            datasets.builder("reviews", data_dir=tmp_path / "file")

    def test_another_process_prepares_it_meanwhile(self, data_dir, monkeypatch):
        generate = reviews.generate

        def slowly():
            monkeypatch.setattr(reviews, "generate", generate)
            datasets.builder("reviews", data_dir=data_dir)
            return generate()

        monkeypatch.setattr(reviews, "generate", slowly)
        assert len(examples("reviews", "valid", data_dir=data_dir)) == 500
        assert [path.name for path in (data_dir / "reviews").iterdir()] == [
            str(reviews.Reviews.VERSION)
        ]


class TestSources:
    """The published file is SST-2's test split, with a checksum of its own."""

    TEXT = "1 a fine film .\n0 a dull one .\n"

    @pytest.fixture(autouse=True)
    def published(self, server, monkeypatch, tmp_path):
        (tmp_path / "served" / "tiny").write_text(self.TEXT)
        sha256 = sources._sha256(tmp_path / "served" / "tiny")
        monkeypatch.setattr(sst, "_ADDRESS", server)
        monkeypatch.setattr(sst.Sst2, "FILES", {"test": ("tiny", sha256)})

    def test_downloaded(self, data_dir):
        expected = [("a dull one .", 0), ("a fine film .", 1)]
        assert sorted(examples("sst2", "test", data_dir=data_dir)) == expected

    def test_the_manual_folder_comes_first(self, data_dir, tmp_path, monkeypatch):
        (tmp_path / "manual" / "sst").mkdir(parents=True)
        shutil.move(tmp_path / "served" / "tiny", tmp_path / "manual" / "sst" / "tiny")
        assert len(examples("sst2", "test", data_dir=data_dir, manual_dir=tmp_path / "manual")) == 2
        monkeypatch.setenv("UNROLL_MANUAL_DIR", str(tmp_path / "manual"))
        assert len(examples("sst2", "test", data_dir=tmp_path / "other")) == 2

    def test_not_there(self, data_dir, server, tmp_path):
        (tmp_path / "served" / "tiny").unlink()
        message = fails("sst2", data_dir=data_dir, manual_dir=tmp_path)
        assert f"{server}tiny" in message
        assert "HTTP 404" in message
        assert str(tmp_path / "sst" / "tiny") in message
        assert "sst/tiny in the folder of UNROLL_MANUAL_DIR" in fails("sst2", data_dir=data_dir)

    def test_nobody_answers(self, data_dir, monkeypatch):
        monkeypatch.setattr(sst, "_ADDRESS", "http://127.0.0.1:9/")
        assert "http://127.0.0.1:9/tiny cannot be downloaded" in fails("sst2", data_dir=data_dir)

    def test_the_download_breaks_off(self, data_dir, monkeypatch):
        monkeypatch.setattr(sources, "require_reachable", lambda *args: None)
        monkeypatch.setattr(
            "tensorflow_datasets.core.download.downloader._open_url",
            lambda *args, **kwargs: (_ for _ in ()).throw(ConnectionError("reset by peer")),
        )
        assert "tiny cannot be downloaded (ConnectionError)" in fails("sst2", data_dir=data_dir)

    def test_another_file_is_served(self, data_dir, tmp_path):
        (tmp_path / "served" / "tiny").write_text(self.TEXT + "1 one more\n")
        assert "tiny is not the published file" in fails("sst2", data_dir=data_dir)
        (tmp_path / "served" / "tiny").write_text(self.TEXT)
        assert len(examples("sst2", "test", data_dir=data_dir)) == 2

    @pytest.mark.parametrize("text", [TEXT[:16], "", "no label\n"])
    def test_a_broken_manual_file(self, text, data_dir, tmp_path):
        (tmp_path / "sst").mkdir()
        (tmp_path / "sst" / "tiny").write_text(text)
        message = fails("sst2", data_dir=data_dir, manual_dir=tmp_path)
        assert message.startswith(f"{tmp_path / 'sst' / 'tiny'} is not the published file")

    def test_no_manual_folder(self, data_dir, tmp_path):
        message = fails("sst2", data_dir=data_dir, manual_dir=tmp_path / "none")
        assert message == f"The manual folder {tmp_path / 'none'} does not exist."


class TestImdb:
    @pytest.fixture(autouse=True)
    def three_of_a_kind(self, monkeypatch):
        monkeypatch.setattr(imdb.Imdb, "COUNT", 3)

    def test_from_the_archive(self, data_dir, tmp_path):
        archive(tmp_path / "imdb" / "aclImdb_v1.tar.gz")
        where = {"data_dir": data_dir, "manual_dir": tmp_path}
        builder = datasets.builder("imdb", **where)
        assert builder.info.features["label"].names == ["negative", "positive"]
        assert set(builder.info.splits) == {"train", "test"}
        expected = [
            (f"test {kind} {i} <br />é", label)
            for label, kind in enumerate(("neg", "pos"))
            for i in range(3)
        ]
        assert sorted(examples("imdb", "test", **where)) == expected
        # Once prepared, the archive is no longer needed.
        assert len(examples("imdb", "train", data_dir=data_dir)) == 6

    def test_an_archive_that_is_short_or_not_whole(self, data_dir, tmp_path):
        path = archive(tmp_path / "imdb" / "aclImdb_v1.tar.gz", count=40)
        whole = path.read_bytes()
        where = {"data_dir": data_dir, "manual_dir": tmp_path}
        assert "40 files aclImdb/train/neg/*.txt, not 3" in fails("imdb", **where)
        flipped = bytearray(whole)
        flipped[-6] ^= 1  # of the sum at the end
        for broken in (b"", b"no archive", whole[:100], whole[:-8], whole[:-1], bytes(flipped)):
            path.write_bytes(broken)
            assert fails("imdb", **where).startswith(f"{path} is no whole archive: ")

    def test_without_the_archive_and_the_network(self, data_dir, tmp_path, monkeypatch):
        monkeypatch.setattr(
            datasets, "ARCHIVE", sources.Source("imdb", "a.tar.gz", "http://127.0.0.1:9/a.tar.gz")
        )
        message = fails("imdb", data_dir=data_dir, manual_dir=tmp_path)
        assert "http://127.0.0.1:9/a.tar.gz" in message
        assert str(tmp_path / "imdb" / "a.tar.gz") in message


class TestRealData:
    @pytest.mark.parametrize(
        ("name", "split", "size", "labels"),
        [
            ("sst2", "train", 6920, [3310, 3610]),
            ("sst2", "valid", 872, [428, 444]),
            ("sst2", "test", 1821, [912, 909]),
            ("sst5", "train", 8544, [1092, 2218, 1624, 2322, 1288]),
            ("sst5", "valid", 1101, [139, 289, 229, 279, 165]),
            ("sst5", "test", 2210, [279, 633, 389, 510, 399]),
        ],
    )
    def test_treebank(self, name, split, size, labels, manual_dir, data_dir):
        rows = examples(name, split, manual_dir=manual_dir, data_dir=data_dir)
        assert len(rows) == size
        counts = Counter(label for _, label in rows)
        assert [counts[label] for label in range(len(labels))] == labels

    def test_a_sentence_of_each(self, manual_dir, data_dir):
        where = {"manual_dir": manual_dir, "data_dir": data_dir}
        assert ("no movement , no yuks , not much of anything .", 0) in examples(
            "sst2", "test", **where
        )
        assert ("no movement , no yuks , not much of anything .", 1) in examples(
            "sst5", "test", **where
        )
        names = datasets.builder("sst5", **where).info.features["label"].names
        assert names == ["very negative", "negative", "neutral", "positive", "very positive"]

    def test_imdb(self, manual_dir, data_dir):
        where = {"manual_dir": manual_dir, "data_dir": data_dir}
        for split in ("train", "test"):
            rows = examples("imdb", split, **where)
            assert Counter(label for _, label in rows) == {0: 12_500, 1: 12_500}
            assert any("<br />" in text for text, _ in rows)
            assert all(text.strip() for text, _ in rows)
            # A slice holds both labels.
            assert 0.4 < sum(label for _, label in rows[-2500:]) / 2500 < 0.6
