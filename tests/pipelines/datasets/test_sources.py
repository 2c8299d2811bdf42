"""Published files: from the manual folder, downloaded, missing or broken."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

from unroll.pipelines import datasets
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.sentiment import sst
from unroll.pipelines.errors import DataError

TEXT = "1 a fine film .\n0 a dull one .\n"


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "prepared"


@pytest.fixture(autouse=True)
def no_manual_dir(monkeypatch):
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
        serve = functools.partial(httpd.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def published(server, monkeypatch, tmp_path):
    """SST-2 with one small published file."""
    (tmp_path / "served" / "tiny").write_text(TEXT)
    sha256 = sources._sha256(tmp_path / "served" / "tiny")
    monkeypatch.setattr(sst, "_ADDRESS", server)
    monkeypatch.setattr(sst.Sst2, "FILES", {"test": ("tiny", sha256)})


def examples(**folders) -> list[tuple[str, int]]:
    dataset = datasets.load("sst2", "test", **folders)
    return sorted((e["text"].decode(), int(e["label"])) for e in dataset.as_numpy_iterator())


def error_message(**folders) -> str:
    """The message of the failure, which is one line and leaves no file in `data_dir`."""
    with pytest.raises(DataError) as error:
        datasets.load("sst2", "test", **folders)
    message = str(error.value)
    assert "\n" not in message
    assert list(folders["data_dir"].rglob("*")) == []
    return message


def test_downloaded(data_dir):
    assert examples(data_dir=data_dir) == [("a dull one .", 0), ("a fine film .", 1)]


def test_manual_folder_comes_first(data_dir, tmp_path, monkeypatch):
    (tmp_path / "manual" / "sst").mkdir(parents=True)
    shutil.move(tmp_path / "served" / "tiny", tmp_path / "manual" / "sst" / "tiny")
    assert len(examples(data_dir=data_dir, manual_dir=tmp_path / "manual")) == 2
    monkeypatch.setenv("UNROLL_MANUAL_DIR", str(tmp_path / "manual"))
    assert len(examples(data_dir=tmp_path / "other")) == 2


def test_missing_file(data_dir, server, tmp_path):
    (tmp_path / "served" / "tiny").unlink()
    message = error_message(data_dir=data_dir, manual_dir=tmp_path)
    assert f"{server}tiny" in message
    assert "HTTP 404" in message
    assert str(tmp_path / "sst" / "tiny") in message
    assert "sst/tiny in the folder of UNROLL_MANUAL_DIR" in error_message(data_dir=data_dir)


def test_no_response(data_dir, monkeypatch):
    monkeypatch.setattr(sst, "_ADDRESS", "http://127.0.0.1:9/")
    assert "http://127.0.0.1:9/tiny cannot be downloaded" in error_message(data_dir=data_dir)


def test_interrupted_download(data_dir, monkeypatch):
    monkeypatch.setattr(sources, "require_reachable", lambda *args: None)
    monkeypatch.setattr(
        "tensorflow_datasets.core.download.downloader._open_url",
        lambda *args, **kwargs: (_ for _ in ()).throw(ConnectionError("reset by peer")),
    )
    assert "tiny cannot be downloaded (ConnectionError)" in error_message(data_dir=data_dir)


def test_another_file_is_served(data_dir, tmp_path):
    (tmp_path / "served" / "tiny").write_text(TEXT + "1 one more\n")
    assert "tiny is not the published file" in error_message(data_dir=data_dir)
    (tmp_path / "served" / "tiny").write_text(TEXT)
    assert len(examples(data_dir=data_dir)) == 2


@pytest.mark.parametrize("text", [TEXT[:16], "", "no label\n"])
def test_broken_manual_file(text, data_dir, tmp_path):
    (tmp_path / "sst").mkdir()
    (tmp_path / "sst" / "tiny").write_text(text)
    message = error_message(data_dir=data_dir, manual_dir=tmp_path)
    assert message.startswith(f"{tmp_path / 'sst' / 'tiny'} is not the published file")


def test_missing_manual_folder(data_dir, tmp_path):
    message = error_message(data_dir=data_dir, manual_dir=tmp_path / "none")
    assert message == f"The manual folder {tmp_path / 'none'} does not exist."
