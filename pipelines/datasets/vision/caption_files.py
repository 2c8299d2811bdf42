"""A person's own pictures with captions: a folder in one of two layouts."""

import json
from pathlib import Path

from unroll.pipelines.datasets.vision.flickr8k import Captions, example
from unroll.pipelines.datasets.vision.image_files import PictureFiles, Told, table
from unroll.pipelines.errors import DataError

_TABLES = {"train": "captions.tsv", "valid": "valid.tsv", "test": "test.tsv"}
_COCO = {"train": "train", "valid": "val"}


class CaptionFiles(PictureFiles, Captions, skip_registration=True):
    """Pictures with captions, from a folder.

    - `captions.tsv`, and perhaps `valid.tsv` and `test.tsv`: a line is the path of a picture as
      seen from the folder, a tab, and a caption. A picture may have several lines.
    - COCO's: `annotations/captions_train2014.json` (or of 2017) with the pictures in `train2014`,
      and the same of `val2014`, which is the validation split.

    What cannot be read is left out, as in `PictureFiles`.

    Raises:
        DataError: one line, if the folder has neither layout, a line is no picture and caption, a
            caption names no picture, or a split has no picture left.
    """

    SAID = "captions"

    def _read(self, folder: Path) -> dict[str, Told]:
        tables = {split: folder / name for split, name in _TABLES.items()}
        coco = {
            split: path
            for split, name in _COCO.items()
            for path in sorted(folder.glob(f"annotations/captions_{name}[0-9]*.json"))
        }
        if tables["train"].is_file():
            found = {
                split: _grouped(table(path, ["a picture", "a caption"]))
                for split, path in tables.items()
                if path.is_file()
            }
        elif "train" in coco:
            found = {split: _of_coco(folder, path) for split, path in coco.items()}
        else:
            raise DataError(
                f"{folder} has no training data: captions.tsv of pictures and captions, or COCO's "
                "annotations/captions_train2014.json with its pictures."
            )
        for split, told in found.items():
            if not told:
                raise DataError(f"{folder} has no captions ({split}).")
        return found

    def _example(self, name: str, contents: bytes, said: list) -> dict:
        return example(name, contents, said)


def _grouped(rows) -> Told:
    told: Told = {}
    for picture, caption in rows:
        told.setdefault(picture, []).append(caption)
    return told


def _of_coco(folder: Path, path: Path) -> Told:
    pictures = folder / path.stem.removeprefix("captions_")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        names = {each["id"]: each["file_name"] for each in read["images"]}
        captions = [(each["image_id"], each["caption"].strip()) for each in read["annotations"]]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not in COCO's layout: {type(error).__name__} {error}."
        ) from None
    if missing := [image for image, _ in captions if image not in names]:
        raise DataError(
            f"{path} has no image for {len(missing)} of {len(captions)} captions, such as that of "
            f"{missing[0]!r}."
        )
    return _grouped((str(pictures / names[image]), caption) for image, caption in captions)
