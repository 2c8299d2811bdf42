"""Your own images with captions: a folder in one of two layouts."""

from collections.abc import Iterable
from pathlib import Path

from unroll.pipelines.datasets.vision.base import Captions, caption_example
from unroll.pipelines.datasets.vision.image_files import (
    Annotations,
    ImageFiles,
    JsonTexts,
    Layout,
    has_words,
    read_table,
)
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import read_json

_TABLES = {"train": "captions.tsv", "valid": "valid.tsv", "test": "test.tsv"}
_COCO = {"train": "train", "valid": "val"}


class CaptionFiles(ImageFiles, Captions, skip_registration=True):
    """Images with captions, from a folder.

    - `captions.tsv` and, optionally, `valid.tsv` and `test.tsv`: a line is the path of an image
      relative to the folder, a tab, and a caption. An image may have several lines.
    - The layout of COCO: `annotations/captions_train2014.json` (or of 2017) with the images in
      `train2014`, and the same of `val2014` for validation.

    Unreadable images are skipped, as in `ImageFiles`, and captions without words are left out.

    Raises:
        DataError: one line, if the folder has neither layout, a line is not an image and a caption,
            a caption has no image, a split has no image left, or there are too few images to hold
            some out for validation.
    """

    ANNOTATION = "captions"

    def _read(self, folder: Path) -> Layout:
        return read(folder)

    def _example(self, name: str, contents: bytes, rows: list) -> dict:
        return caption_example(name, contents, rows)


def read(folder: Path) -> Layout:
    """The captions of a folder.

    Raises:
        DataError: as `CaptionFiles`.
    """
    tables = {split: folder / name for split, name in _TABLES.items()}
    coco = {
        split: path
        for split, name in _COCO.items()
        for path in sorted(folder.glob(f"annotations/captions_{name}[0-9]*.json"))
    }
    if tables["train"].is_file():
        files = {split: path for split, path in tables.items() if path.is_file()}
        captions = {split: _read_table(path) for split, path in files.items()}
        layout = Layout(captions, tables["valid"].name, (folder,))
    elif "train" in coco:
        files = coco
        captions = {split: _read_coco(folder, path) for split, path in files.items()}
        name = coco["train"].name.replace("train", "val")
        roots = tuple(_images(folder, path) for path in coco.values())
        layout = Layout(captions, f"annotations/{name}", roots)
    else:
        raise DataError(
            f"{folder} has no training data: captions.tsv of images and captions, or COCO's "
            "annotations/captions_train2014.json with its images."
        )
    for split, rows in captions.items():
        if not rows:
            raise DataError(f"{files[split]} has no captions ({split}).")
    return layout


def _read_table(path: Path) -> Annotations:
    rows = list(read_table(path, ["an image", "a caption"]))
    written = [(image, caption) for image, caption in rows if has_words(caption)]
    if number := len(rows) - len(written):
        report_once(f"{path}: {number} of {len(rows)} captions have no words and are left out.")
    return _group(written)


def _group(rows: Iterable[tuple[str, str]]) -> Annotations:
    captions: Annotations = {}
    for image, caption in rows:
        captions.setdefault(image, []).append(caption)
    return captions


def _images(folder: Path, path: Path) -> Path:
    """The folder of the images of an annotation file."""
    return folder / path.stem.removeprefix("captions_")


def _read_coco(folder: Path, path: Path) -> Annotations:
    coco, texts = read_json(path), JsonTexts(path, "captions", lambda text: not has_words(text))
    try:
        names = {each["id"]: each["file_name"] for each in coco["images"]}
        captions = [
            (each["image_id"], texts.read(each["caption"], f"annotation {each.get('id', k)}"))
            for k, each in enumerate(coco["annotations"], start=1)
        ]
        missing = [image for image, _ in captions if image not in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not in COCO's layout: {type(error).__name__} {error}."
        ) from None
    if missing:
        raise DataError(
            f"{path} has no image for {len(missing)} of {len(captions)} captions, such as that of "
            f"{missing[0]!r}."
        )
    for image, name in names.items():
        if not isinstance(name, str):
            raise DataError(
                f"{path}: image {image!r}: expected the name of a file, got {name!r:.40}."
            )
    texts.report()
    root = _images(folder, path)
    return _group((str(root / names[image]), caption) for image, caption in captions if caption)
