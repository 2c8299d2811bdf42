"""Images with questions, as batches: each image comes once, with all its questions."""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from unroll.pipelines import text
from unroll.pipelines.vision import Augmentation, StoredArray, image_batches

# Labels that are not answers. The index of an answer starts at FIRST_ANSWER.
NO_QUESTION, UNKNOWN_ANSWER, FIRST_ANSWER = 0, 1, 2

_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_WORDS = {"none": "0", **{word: str(k) for k, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's i'd i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't
not've o'clock oughtn't shan't she'd she's should've shouldn't somebody's someone's something's
that'd that's there'd there're there's they'd they'll they're they've wasn't we've weren't what'll
what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's
won't would've wouldn't y'all you'd you'll you're you've
""".split()
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS}


@dataclass(frozen=True)
class ImageQuestions:
    """The name of an image, its questions, and the answers to each question."""

    image_id: str
    questions: list[str]
    answers: list[list[str]]

    def rounds(self) -> list[str]:
        """Each question with its answer, as the rounds of a dialog."""
        return [f"{q} {a[0]}" for q, a in zip(self.questions, self.answers, strict=True)]


def read(dataset: tf.data.Dataset) -> list[ImageQuestions]:
    """The questions of each image. The most frequent answer to a question comes first."""

    def joined(example: dict) -> tuple:
        answers = tf.strings.reduce_join(example["questions"]["answers"], axis=-1, separator="\n")
        return example["image_id"], example["questions"]["question"], answers

    rows = dataset.map(joined, tf.data.AUTOTUNE).as_numpy_iterator()
    return [
        ImageQuestions(
            name.decode(),
            [question.decode() for question in questions],
            [_by_frequency(each.decode().split("\n")) for each in answers],
        )
        for name, questions, answers in rows
    ]


def _by_frequency(answers: list[str]) -> list[str]:
    if len(answers) == 1:
        return [" ".join(answers[0].casefold().split())]
    answers = [normalize_answer(answer) for answer in answers]
    counts = Counter(answers)
    return sorted(answers, key=lambda answer: (-counts[answer], answers.index(answer)))


def normalize_answer(answer: str) -> str:
    """An answer as the evaluation of VQA (Antol et al. 2015) compares it.

    Lower case, without articles and punctuation, digits instead of number words, apostrophes in
    contractions.

    >>> normalize_answer("The two dogs, isnt it?")
    "2 dogs isn't it"
    """
    answer = " ".join(answer.split())
    comma = re.search(r"\d,\d", answer)
    for mark in _MARKS:
        beside = f"{mark} " in answer or f" {mark}" in answer or comma
        answer = answer.replace(mark, "" if beside else " ")
    answer = re.sub(r"\.(?!\d)", "", answer)
    words = [_WORDS.get(word, word) for word in answer.lower().split()]
    words = [_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(words)


def answer_vocabulary(images: list[ImageQuestions], max_size: int) -> list[str]:
    """The most frequent answers, in the order of their frequency."""
    counts = Counter(answers[0] for each in images for answers in each.answers)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:max_size]


def question_types(images: list[ImageQuestions], max_size: int) -> list[str]:
    """The most frequent first two words of questions, in the order of their frequency."""
    words = text.tokenize(tf.constant([q for each in images for q in each.questions]))[:, :2]
    joined = tf.strings.reduce_join(words, axis=-1, separator=" ").numpy()
    counts = Counter(first.decode() for first in joined)
    return sorted(counts, key=lambda first: (-counts[first], first))[:max_size]


def question_batches(
    questions: list[ImageQuestions],
    images: np.ndarray | StoredArray | None,
    encoder: text.Encoder,
    answers: list[str],
    batch_size: int,
    *,
    rounds: bool = False,
    augmentation: Augmentation | None = None,
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Batches of P images with the Q questions of each.

    Args:
        questions: the questions of N images.
        images: `[N, S, S, 3]`, uint8; or features, `[N, S, D]` or `[N, H, W, D]`, floats; or `None`
            for batches without images.
        encoder: turns questions into ids.
        answers: the vocabulary of answers.
        batch_size: P.
        rounds: whether each question is also given together with its answer, as the round of a
            dialog.
        augmentation, shuffle: as in `pipelines.vision.image_batches`.
        static: whether all batches have the same shape, as XLA on a TPU needs. The last batch is
            dropped if it is smaller.

    Returns:
        Batches of `({"tokens": [P, Q, T], ...}, labels [P, Q, N])`, with `"image": [P, S, S, 3]` or
        `"regions": [P, ..., D]`, and with `"rounds": [P, Q, T']` if `rounds` is set. A label is
        `NO_QUESTION` (padding), `UNKNOWN_ANSWER`, or the index of an answer from `FIRST_ANSWER`.
    """
    ids = {answer: k for k, answer in enumerate(answers, start=FIRST_ANSWER)}
    labels = tf.ragged.constant(
        [[[ids.get(a, UNKNOWN_ANSWER) for a in own] for own in each.answers] for each in questions],
        ragged_rank=2,
        dtype=tf.int32,
    )
    texts = {"tokens": [each.questions for each in questions]}
    if rounds:
        texts["rounds"] = [each.rounds() for each in questions]
    encoded = {name: _encode(rows, encoder) for name, rows in texts.items()}
    most = max(len(each.questions) for each in questions)
    token_shapes = {
        name: [most, int(tf.reduce_max(rows.row_lengths(axis=2)))] for name, rows in encoded.items()
    }
    label_shape = [most, max(len(own) for each in questions for own in each.answers)]
    return image_batches(
        images,
        len(questions),
        lambda indices, _: (
            {name: tf.gather(rows, indices) for name, rows in encoded.items()},
            tf.gather(labels, indices),
        ),
        batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        max_shapes=(token_shapes, label_shape) if static else None,
    )


def _encode(rows: list[list[str]], encoder: text.Encoder) -> tf.RaggedTensor:
    """`[N, (Q), (T)]`."""
    flat = tf.constant([question for row in rows for question in row])
    tokens = encoder(flat)["tokens"]
    return tf.RaggedTensor.from_row_lengths(tokens, [len(row) for row in rows])
