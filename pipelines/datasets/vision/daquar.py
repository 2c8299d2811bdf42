"""DAQUAR."""

import itertools
import re

from unroll.pipelines.datasets.sources import Source, in_manual_folder
from unroll.pipelines.datasets.vision.base import (
    VisualQuestions,
    examples_from_zip,
    group_questions,
    open_archive,
)
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import decode_text, split_lines

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
    LICENSE = "for research"

    def _split_generators(self, dl_manager):
        path = in_manual_folder(ARCHIVE, self.manual_dir)
        if path is None:
            raise DataError(
                f"DAQUAR cannot be downloaded as one file: put {ARCHIVE.folder}/{ARCHIVE.name}, "
                f"the zipped files of {ARCHIVE.url}, into the folder of UNROLL_MANUAL_DIR."
            )
        with open_archive(path) as archive:
            lines = split_lines(decode_text(archive.read("all_qa_pairs.txt"), str(path)))
            lists = {
                split: archive.read(f"{split}_images_list.txt").decode().split()
                for split in ("train", "test")
            }
        rows = []
        for number, (question, answer) in enumerate(
            itertools.zip_longest(lines[::2], lines[1::2]), start=1
        ):
            match = _IMAGE_NAME.search(question)
            if not match or answer is None:
                lacks = "names no image" if answer else "has no answer"
                raise DataError(f"{path}: question {number} {lacks}: {question!r}.")
            rows.append((f"image{match[1]}", f"{question[: match.start()]} ?", [answer]))
        questions = group_questions(rows)
        lists["valid"] = lists["train"][::10]
        held_out = set(lists["valid"])
        lists["train"] = [name for name in lists["train"] if name not in held_out]
        return {
            split: examples_from_zip(
                path,
                "images/{}.jpg",
                {name: questions[name] for name in names if name in questions},
            )
            for split, names in lists.items()
        }
