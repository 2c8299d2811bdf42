"""What the datasets of images share: features, and functions that make examples."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
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


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file of a published dataset.

    Raises:
        DataError: if it is not a zip file, or a file in it is missing or broken.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} is not a complete zip file: {error}.") from None
    except KeyError as error:  # from `ZipFile.read`
        raise DataError(f"{path}: {error.args[0]}.") from None


def examples_from_zip(
    path: Path, template: str, questions: Questions
) -> Iterator[tuple[str, dict]]:
    """The examples of images in a zip file. `template` is the path of an image, with `{}`."""
    with open_archive(path) as archive:
        for name, pairs in questions.items():
            contents = archive.read(template.format(name))
            yield name, question_example(name, contents, pairs)
