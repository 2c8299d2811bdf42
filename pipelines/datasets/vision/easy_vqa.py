"""easy-VQA."""

import json

from unroll.pipelines.datasets.sources import Source, find
from unroll.pipelines.datasets.vision.base import (
    VisualQuestions,
    examples_from_zip,
    group_questions,
    open_archive,
)
from unroll.pipelines.lines import decode_text

ARCHIVE = Source(
    "easy_vqa",
    "easy-VQA-3b553bb7ff42a868d5f4cbe8c88255d7333c3c31.zip",
    "https://codeload.github.com/vzhou842/easy-VQA/zip/3b553bb7ff42a868d5f4cbe8c88255d7333c3c31",
)


class EasyVqa(VisualQuestions, skip_registration=True):
    """easy-VQA: 48,248 questions on 5,000 images of one shape, thirteen answers.

    The test split is the published one (1,000 images, 9,673 questions). Validation is every tenth
    image of the published training data.
    """

    HOMEPAGE = "https://github.com/vzhou842/easy-VQA"
    CITATION = "Zhou 2019, easy-VQA"
    LICENSE = "MIT"

    def _split_generators(self, dl_manager):
        path = find(ARCHIVE, dl_manager, self.manual_dir)
        with open_archive(path) as archive:
            root = f"{(archive.namelist() or [''])[0]}easy_vqa/data"
            questions = {}
            for split in ("train", "test"):
                name = f"{root}/{split}/questions.json"
                rows = json.loads(decode_text(archive.read(name), f"{path}: {name}"))
                questions[split] = group_questions((str(image), q, [a]) for q, a, image in rows)
        held_out = set(sorted(questions["train"], key=int)[::10])
        training = questions["train"].items()
        questions["valid"] = {k: v for k, v in training if k in held_out}
        questions["train"] = {k: v for k, v in training if k not in held_out}
        folders = {"valid": "train"}
        return {
            split: examples_from_zip(
                path, f"{root}/{folders.get(split, split)}/images/{{}}.png", own
            )
            for split, own in questions.items()
        }
