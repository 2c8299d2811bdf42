"""Datasets of TFDS: each split is downloaded and prepared alone."""

import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.pipelines.datasets.helpers import jpeg
from unroll.pipelines import captions, datasets, sound
from unroll.pipelines.captions import ImageCaptions
from unroll.pipelines.datasets import sources
from unroll.pipelines.datasets.published import Published, published
from unroll.pipelines.datasets.sentiment.reviews import Reviews
from unroll.pipelines.datasets.speech import librispeech
from unroll.pipelines.datasets.vision import coco_captions
from unroll.pipelines.errors import DataError


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No address responds, and the archives have any content."""

    def refuse(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr(sources.requests, "get", refuse)
    monkeypatch.setattr(sources, "_is_published", lambda path, source: len(source.sha256) == 64)


def write_librispeech(manual: Path, split: str) -> np.ndarray:
    """An archive with two recordings. Returns the samples of the first."""
    (manual / "librispeech").mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 400).astype("int16")
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="flac")
    table = "; a comment\n7 | F | subset | 1.5 | A Name | x | y\n"
    files = {
        "SPEAKERS.TXT": table.encode(),
        "CHAPTERS.TXT": table.encode(),
        f"{split}/7/3/7-3.trans.txt": b"7-3-0000 A DOG\n7-3-0001 IT RUNS\n",
        f"{split}/7/3/7-3-0000.flac": file.getvalue(),
        f"{split}/7/3/7-3-0001.flac": file.getvalue(),
    }
    with tarfile.open(manual / "librispeech" / f"{split}.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"LibriSpeech/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return samples


def write_coco(manual: Path) -> None:
    """The archives that `val`, `test` and `restval` need, with a photo for each."""
    folder = manual / "coco_captions"
    folder.mkdir(parents=True)
    splits = {1: "val", 2: "test", 3: "restval", 4: "train"}
    names = {k: f"COCO_val2014_{k:012}.jpg" for k in splits}
    numbers = {"area": 4, "iscrowd": 0}
    of_coco = {
        "images": [
            {"id": k, "file_name": name, "height": 8, "width": 10} for k, name in names.items()
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": k, "bbox": [1, 1, 2, 2], **numbers}
            for k in splits
        ],
        "categories": [{"id": k, "name": f"thing {k}", "supercategory": "x"} for k in range(80)],
    }  # fmt: skip
    of_karpathy = [
        {
            "split": split,
            "filename": names[k],
            "sentences": [{"sentid": k, "raw": f"A {split} dog."}, {"sentid": 9, "raw": "It runs"}],
        }
        for k, split in splits.items()
    ]
    contents = {
        "val2014.zip": {f"val2014/{names[k]}": jpeg(value=10 * k) for k in (1, 2, 3)},
        "annotations_trainval2014.zip": {
            f"annotations/instances_{split}2014.json": json.dumps(of_coco)
            for split in ("train", "val")
        },
        "caption_datasets.zip": {"dataset_coco.json": json.dumps({"images": of_karpathy})},
    }
    for name, files in contents.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)


def test_a_split_of_librispeech_needs_its_own_archive_only(tmp_path):
    manual, data_dir = tmp_path / "manual", tmp_path / "prepared"
    expected = write_librispeech(manual, "test-clean")
    made = datasets.builder("librispeech", manual_dir=manual, data_dir=data_dir)
    assert datasets.split_names(made) == ["train", "valid", "test"]
    test = list(datasets.splits(made, ["test"])["test"])
    assert sorted(bytes(row["transcript"].numpy()) for row in test) == [b"A DOG", b"IT RUNS"]
    assert test[0]["speaker"] == b"7"
    samples, rate, _ = sound.decode_wav(test[0]["audio"])
    assert rate == 16_000
    np.testing.assert_array_equal(samples, expected / 2**15)
    assert [folder.name for folder in (data_dir / "librispeech").iterdir()] == ["test_clean"]
    [extracted] = (data_dir / "downloads/extracted").iterdir()
    assert "test-clean" in extracted.name
    with pytest.raises(DataError) as error:
        datasets.read(made, "valid")
    assert str(error.value) == (
        "http://www.openslr.org/resources/12/dev-clean.tar.gz cannot be downloaded "
        f"(ConnectionError): put the file at {manual}/librispeech/dev-clean.tar.gz."
    )
    again = datasets.load("librispeech", "test", data_dir=data_dir)  # without its archive
    assert len(list(again)) == 2


def test_a_split_of_coco_needs_no_other_photos(tmp_path):
    manual, data_dir = tmp_path / "manual", tmp_path / "prepared"
    write_coco(manual)
    made = datasets.builder("coco_captions", manual_dir=manual, data_dir=data_dir)
    found = {}
    for split, own in (("valid", "val"), ("test", "test")):
        rows = datasets.splits(made, [split])[split]
        [found[split]] = captions.read(rows)
        assert found[split].captions == [f"a {own} dog", "it runs"]
        assert datasets.folder(made, split).parent.name == own
        [row] = rows
        assert tf.io.decode_jpeg(row["image"]).shape == (8, 10, 3)
    assert found["valid"] == ImageCaptions(
        "COCO_val2014_000000000001.jpg", ["a val dog", "it runs"]
    )
    assert len(list(made.read("restval", coco_captions.DECODERS))) == 1
    with pytest.raises(DataError, match=r"zips/train2014\.zip cannot be .* put the file at "):
        datasets.read(made, "train")  # train and restval


@pytest.mark.parametrize("cut", [False, True])
def test_a_broken_archive_is_one_line(cut, tmp_path):
    write_librispeech(tmp_path, "test-clean")
    path = tmp_path / "librispeech/test-clean.tar.gz"
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) * 3 // 4] if cut else b"not an archive")
    with pytest.raises(DataError, match=f"^{path} cannot be extracted: ") as error:
        datasets.load("librispeech", "test", manual_dir=tmp_path, data_dir=tmp_path / "prepared")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "prepared").rglob("*"))


@pytest.mark.parametrize("builder", [coco_captions.CocoCaptions, librispeech.Librispeech])
def test_a_dataset_that_tfds_has_prepared_is_read_as_it_is(builder, tmp_path):
    made = published(builder, data_dir=tmp_path)
    assert isinstance(made, Published)
    Path(made.whole.data_dir).mkdir(parents=True)
    made.whole.info.write_to_directory(made.whole.data_dir)
    again = published(builder, data_dir=tmp_path)
    assert type(again) is type(made.whole)
    assert again.data_dir == made.whole.data_dir


@pytest.mark.parametrize("builder", [coco_captions.CocoCaptions, librispeech.Librispeech])
def test_the_archives_are_those_of_tfds(builder, tmp_path):
    known = {url.rpartition("/")[2] for url in builder(data_dir=tmp_path).whole.url_infos}
    assert known >= {name for names in builder.ARCHIVES.values() for name in names}


def test_builders_leave_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    Reviews(data_dir=tmp_path)
    datasets.load("reviews", "test", size=0.02, data_dir=tmp_path)
    datasets.builder("librispeech", data_dir=tmp_path)
    with pytest.raises(DataError, match="aclImdb"):  # of TFDS, as there is no archive of ours
        datasets.builder("imdb", manual_dir=tmp_path, data_dir=tmp_path)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert tfds.core.DatasetInfo.initialize_from_bucket.__name__ == "initialize_from_bucket"
