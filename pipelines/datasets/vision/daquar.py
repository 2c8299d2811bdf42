"""DAQUAR."""

import re
import zipfile

from unroll.pipelines.datasets.sources import Source, in_manual_folder
from unroll.pipelines.datasets.vision.base import (
    VisualQuestions,
    examples_from_zip,
    group_questions,
)
from unroll.pipelines.errors import DataError

# Nobody publishes it as one file: this is the folder of the address, zipped.
ARCHIVE = Source(
    "daquar",
    "daquar.zip",
    "https://github.com/tezansahu/VQA-With-Multimodal-Transformers/tree/main/dataset",
)
# Each question ends with the name of its image.
_IMAGE_NAME = re.compile(r"\s*\b(?:in|on|of)?\s*(?:the|this)?\s*\bimage(\d+)\s*\?\s*$")


class Daquar(VisualQuestions, skip_registration=True):
    """DAQUAR: 12,468 questions of people on 1,449 photos of rooms, with the official lists.

    Training has 6,795 questions on 795 photos, every tenth of which is held out for validation. The
    test split has 5,673 questions on 654 photos. An answer of several words counts as one answer.
    The name of the image at the end of each question is removed.
    """

    HOMEPAGE = "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning"
    CITATION = "Malinowski and Fritz 2014"

    def _split_generators(self, dl_manager):
        path = in_manual_folder(ARCHIVE, self.manual_dir)
        if path is None:
            raise DataError(
                f"DAQUAR cannot be downloaded as one file: put {ARCHIVE.folder}/{ARCHIVE.name}, "
                f"the zipped files of {ARCHIVE.url}, into the folder of UNROLL_MANUAL_DIR."
            )
        with zipfile.ZipFile(path) as archive:
            lines = archive.read("all_qa_pairs.txt").decode().splitlines()
            rows = []
            for number, (question, answer) in enumerate(
                zip(lines[::2], lines[1::2], strict=True), start=1
            ):
                match = _IMAGE_NAME.search(question)
                if not match:
                    raise DataError(f"{path}: question {number} names no image: {question!r}.")
                rows.append((f"image{match[1]}", f"{question[: match.start()]} ?", [answer]))
            questions = group_questions(rows)
            lists = {
                split: archive.read(f"{split}_images_list.txt").decode().split()
                for split in ("train", "test")
            }
            lists["valid"] = lists["train"][::10]
            held_out = set(lists["valid"])
            lists["train"] = [name for name in lists["train"] if name not in held_out]
            return {
                split: list(
                    examples_from_zip(
                        archive,
                        "images/{}.jpg",
                        {name: questions[name] for name in names if name in questions},
                    )
                )
                for split, names in lists.items()
            }
