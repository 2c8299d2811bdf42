"""What the datasets of images share: features, and functions that make examples."""

import zipfile
from collections.abc import Iterable, Iterator
from typing import ClassVar

import tensorflow as tf
import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import Builder
from unroll.pipelines.errors import DataError

# By the name of an image its questions, each with its answers.
Questions = dict[str, list[tuple[str, list[str]]]]


class Captions(Builder, skip_registration=True):
    """An image with all its captions."""

    FEATURES: ClassVar = {
        "image": tf.string,
        "image_id": tf.string,
        "captions": tfds.features.Sequence(tf.string),
    }

    def _generate_examples(self, rows: Iterable[tuple[str, dict]]):
        yield from rows


class VisualQuestions(Builder, skip_registration=True):
    """An image with all its questions. A question has one answer, or the answers of ten people."""

    FEATURES: ClassVar = {
        "image": tf.string,
        "image_id": tf.string,
        "questions": tfds.features.Sequence(
            {"question": tf.string, "answers": tfds.features.Sequence(tf.string)}
        ),
    }

    def _generate_examples(self, rows: Iterable[tuple[str, dict]]):
        yield from rows


def caption_example(name: str, contents: bytes, captions: list[str]) -> dict:
    """An example of `Captions`."""
    return {"image": contents, "image_id": name, "captions": captions}


def question_example(name: str, contents: bytes, questions: list[tuple[str, list[str]]]) -> dict:
    """An example of `VisualQuestions`."""
    return {
        "image": contents,
        "image_id": name,
        "questions": [{"question": q, "answers": a} for q, a in questions],
    }


def group_questions(rows: Iterable[tuple[str, str, list[str]]]) -> Questions:
    """Groups (image, question, answers) by the image, in the order of the first occurrence."""
    groups: Questions = {}
    for image, question, answers in rows:
        groups.setdefault(image, []).append((question, answers))
    return groups


def examples_from_zip(
    archive: zipfile.ZipFile, template: str, questions: Questions
) -> Iterator[tuple[str, dict]]:
    """The examples of images in a zip file. `template` is the path of an image, with `{}`."""
    for name, pairs in questions.items():
        try:
            contents = archive.read(template.format(name))
        except KeyError as error:
            raise DataError(f"{archive.filename}: {error.args[0]}.") from None
        yield name, question_example(name, contents, pairs)
