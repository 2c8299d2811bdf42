"""Your own images with captions: a folder in one of two layouts."""

import json
from collections.abc import Iterable
from pathlib import Path

from unroll.pipelines.datasets.vision.base import Captions, caption_example
from unroll.pipelines.datasets.vision.image_files import Annotations, ImageFiles, read_table
from unroll.pipelines.errors import DataError

_TABLES = {"train": "captions.tsv", "valid": "valid.tsv", "test": "test.tsv"}
_COCO = {"train": "train", "valid": "val"}


class CaptionFiles(ImageFiles, Captions, skip_registration=True):
    """Images with captions, from a folder.

    - `captions.tsv` and, optionally, `valid.tsv` and `test.tsv`: a line is the path of an image
      relative to the folder, a tab, and a caption. An image may have several lines.
    - The layout of COCO: `annotations/captions_train2014.json` (or of 2017) with the images in
      `train2014`, and the same of `val2014` for validation.

    Unreadable images are skipped, as in `ImageFiles`.

    Raises:
        DataError: one line, if the folder has neither layout, a line is not an image and a caption,
            a caption has no image, or a split has no image left.
    """

    ANNOTATION = "captions"

    def _read(self, folder: Path) -> dict[str, Annotations]:
        tables = {split: folder / name for split, name in _TABLES.items()}
        coco = {
            split: path
            for split, name in _COCO.items()
            for path in sorted(folder.glob(f"annotations/captions_{name}[0-9]*.json"))
        }
        if tables["train"].is_file():
            captions = {
                split: _group(read_table(path, ["an image", "a caption"]))
                for split, path in tables.items()
                if path.is_file()
            }
        elif "train" in coco:
            captions = {split: _read_coco(folder, path) for split, path in coco.items()}
        else:
            raise DataError(
                f"{folder} has no training data: captions.tsv of images and captions, or COCO's "
                "annotations/captions_train2014.json with its images."
            )
        for split, rows in captions.items():
            if not rows:
                raise DataError(f"{folder} has no captions ({split}).")
        return captions

    def _example(self, name: str, contents: bytes, rows: list) -> dict:
        return caption_example(name, contents, rows)


def _group(rows: Iterable[tuple[str, str]]) -> Annotations:
    captions: Annotations = {}
    for image, caption in rows:
        captions.setdefault(image, []).append(caption)
    return captions


def _read_coco(folder: Path, path: Path) -> Annotations:
    images = folder / path.stem.removeprefix("captions_")
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {each["id"]: each["file_name"] for each in coco["images"]}
        captions = [(each["image_id"], each["caption"].strip()) for each in coco["annotations"]]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not in COCO's layout: {type(error).__name__} {error}."
        ) from None
    if missing := [image for image, _ in captions if image not in names]:
        raise DataError(
            f"{path} has no image for {len(missing)} of {len(captions)} captions, such as that of "
            f"{missing[0]!r}."
        )
    return _group((str(images / names[image]), caption) for image, caption in captions)
