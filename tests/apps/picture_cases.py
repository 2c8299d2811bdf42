"""Small inputs with pictures that once failed; see `test_cases.py`, which runs them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.apps import own_media, vqa_cases
from tests.pipelines.test_image_decoding import palette_bmp


def _save(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def _answers(use, *paths: Path) -> list[list[float]]:
    """The scores of the answers to a question about some pictures."""
    inputs = [each for path in paths for each in (path, "is it red ?")]
    return [result["scores"] for result in use.predict("vqa", *inputs)]


def _picture() -> Image.Image:
    return Image.open(io.BytesIO(vqa_cases.photos()[0])).convert("RGB")


def bmp_palette(use):
    """The colors of a palette of 16 or 256 colors are those of the same picture without one."""
    for depth in (4, 8):
        contents, pixels = palette_bmp(depth)
        indexed, plain = use.folder / f"palette {depth}.bmp", Image.fromarray(pixels)
        indexed.write_bytes(contents)
        one, other, gray = _answers(
            use,
            indexed,
            _save(plain, use.folder / f"plain {depth}.bmp"),
            _save(plain.convert("L"), use.folder / f"gray {depth}.png"),
        )
        assert one == pytest.approx(other, abs=1e-6)
        assert one != pytest.approx(gray, abs=1e-5)


def exif_orientation(use):
    """A photo that lies on its side is read as viewers show it."""
    for kind, orientations in (("png", (1, 3, 5, 6, 7, 8)), ("jpg", (1, 6))):
        lying = {}
        for orientation in orientations:
            exif = Image.Exif()
            exif[0x0112] = orientation
            options = {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
            path = use.folder / f"{orientation}.{kind}"
            lying[orientation] = _save(_picture(), path, exif=exif.tobytes(), **options)
        upright = [
            _save(ImageOps.exif_transpose(Image.open(path)), use.folder / f"{n} up.png")
            for n, path in lying.items()
        ]
        scores = _answers(use, *lying.values(), *upright)
        seen, expected = np.array(scores[: len(lying)]), np.array(scores[len(lying) :])
        np.testing.assert_allclose(seen, expected, atol=1e-6 if kind == "png" else 5e-3)
        assert (np.abs(seen[1:] - seen[0]).max(axis=1) > 1e-4).all()


def coco_null_caption(use):
    """Captions that are missing are left out and counted, and numbers are texts."""
    own_media.coco_2017(use.folder)
    path = use.folder / "annotations" / "captions_train2017.json"
    coco = json.loads(path.read_text())
    unusual = [None, float("nan"), "", "  ", 7]
    for annotation, caption in zip(coco["annotations"], unusual, strict=False):
        annotation["caption"] = caption
    path.write_text(json.dumps(coco))
    data, said = use.load("image_captioning", image_size=16)
    assert "4 of 24 captions are missing or empty and are left out: annotation 0, " in said
    assert "1 of 24 captions are numbers and are read as texts: annotation 20." in said
    assert {"7", "bild"} < set(data.assets["vocabulary"])
    assert {"nan", "none", "null"}.isdisjoint(data.assets["vocabulary"])
    coco["annotations"][0]["caption"] = ["a", "list"]
    path.write_text(json.dumps(coco))
    line = use.refused("image_captioning", "train", f"--data={use.folder}")
    assert line.startswith(
        f"unroll: {path}: annotation 0: expected a text of the captions, got ['a"
    )
