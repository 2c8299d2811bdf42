"""Pictures with questions and answers: what such datasets share; easy-VQA and DAQUAR."""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.datasets.sources import Source, find, in_manual_folder
from unroll.pipelines.errors import DataError

# By the name of a picture its questions, each with its answers.
Questions = dict[str, list[tuple[str, list[str]]]]


class VisualQuestions(Builder, skip_registration=True):
    """A picture an example, with all its questions, each with one answer or ten people's."""

    FEATURES: ClassVar = {
        "image": tf.string,
        "image_id": tf.string,
        "questions": tfds.features.Sequence(
            {"question": tf.string, "answers": tfds.features.Sequence(tf.string)}
        ),
    }

    def _generate_examples(self, rows: Iterable[tuple[str, dict]]):
        yield from rows


_EASY_VQA = Source(
    "easy_vqa",
    "easy-VQA-3b553bb7ff42a868d5f4cbe8c88255d7333c3c31.zip",
    "https://codeload.github.com/vzhou842/easy-VQA/zip/3b553bb7ff42a868d5f4cbe8c88255d7333c3c31",
)


class EasyVqa(VisualQuestions, skip_registration=True):
    """easy-VQA: 48,248 questions on 5,000 pictures of one shape, thirteen answers.

    The test split is the published one (1,000 pictures, 9,673 questions); validation is every tenth
    picture of the published training data.
    """

    HOMEPAGE = "https://github.com/vzhou842/easy-VQA"
    CITATION = "Zhou 2019, easy-VQA"

    def _split_generators(self, dl_manager):
        path = find(_EASY_VQA, dl_manager, self.manual_dir)
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0] + "easy_vqa/data"
            asked = {}
            for split in ("train", "test"):
                rows = json.loads(archive.read(f"{root}/{split}/questions.json"))
                asked[split] = grouped((str(image), q, [a]) for q, a, image in rows)
            held = set(sorted(asked["train"], key=int)[::10])
            asked["valid"] = {k: v for k, v in asked["train"].items() if k in held}
            asked["train"] = {k: v for k, v in asked["train"].items() if k not in held}
            folders = {"valid": "train"}
            return {
                split: list(
                    from_archive(archive, f"{root}/{folders.get(split, split)}/images/{{}}.png", of)
                )
                for split, of in asked.items()
            }


# Nobody publishes it as one file: the folder of this address, zipped.
_DAQUAR = Source(
    "daquar",
    "daquar.zip",
    "https://github.com/tezansahu/VQA-With-Multimodal-Transformers/tree/main/dataset",
)
# Each question ends with the name of its picture.
_OF_IMAGE = re.compile(r"\s*\b(?:in|on|of)?\s*(?:the|this)?\s*\bimage(\d+)\s*\?\s*$")


class Daquar(VisualQuestions, skip_registration=True):
    """DAQUAR: 12,468 questions of people on 1,449 photos of rooms, with the official lists.

    Training has 6,795 questions on 795 photos, of which every tenth photo is set aside for
    validation; the test split has 5,673 on 654. An answer of several words counts as one. The name
    of the picture, with which each question ends, is left out.
    """

    HOMEPAGE = "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning"
    CITATION = "Malinowski and Fritz 2014"

    def _split_generators(self, dl_manager):
        path = in_manual_folder(_DAQUAR, self.manual_dir)
        if path is None:
            raise DataError(
                f"There is no one file of DAQUAR to download: put {_DAQUAR.folder}/{_DAQUAR.name}, "
                f"the zipped files of {_DAQUAR.url}, into the folder of UNROLL_MANUAL_DIR."
            )
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("all_qa_pairs.txt").decode().splitlines()
            rows = []
            for number, (question, answer) in enumerate(
                zip(lines[::2], lines[1::2], strict=True), start=1
            ):
                found = _OF_IMAGE.search(question)
                if not found:
                    raise DataError(f"{path}: question {number} names no picture: {question!r}.")
                rows.append((f"image{found[1]}", f"{question[: found.start()]} ?", [answer]))
            asked = grouped(rows)
            lists = {
                split: archive.read(f"{split}_images_list.txt").decode().split()
                for split in ("train", "test")
            }
            lists["valid"] = lists["train"][::10]
            held = set(lists["valid"])
            lists["train"] = [name for name in lists["train"] if name not in held]
            return {
                split: list(
                    from_archive(
                        archive, "images/{}.jpg", {k: asked[k] for k in names if k in asked}
                    )
                )
                for split, names in lists.items()
            }


def grouped(rows: Iterable[tuple[str, str, list[str]]]) -> Questions:
    """Questions and answers by their pictures, each picture where it comes first."""
    found: Questions = {}
    for image, question, answers in rows:
        found.setdefault(image, []).append((question, answers))
    return found


def from_archive(
    archive: zipfile.ZipFile, name: str, asked: Questions
) -> Iterator[tuple[str, dict]]:
    """The examples of pictures in a zip file, `name` being where one lies."""
    for image, questions in asked.items():
        try:
            contents = archive.read(name.format(image))
        except KeyError as error:
            raise DataError(f"{archive.filename}: {error.args[0]}.") from None
        yield image, example(image, contents, questions)


def example(image: str, contents: bytes, questions: list[tuple[str, list[str]]]) -> dict:
    """A picture with its questions, as the builders here generate it."""
    return {
        "image": contents,
        "image_id": image,
        "questions": [{"question": q, "answers": a} for q, a in questions],
    }
