"""Pictures with questions, as batches: a picture stands once, with all that is asked about it."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from unroll.pipelines import image, text
from unroll.pipelines.errors import DataError

# What a label is instead of an answer's number, which counts from FIRST_ANSWER.
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
class Asked:
    """A picture's name, its questions, and the answers to each."""

    image_id: str
    questions: list[str]
    answers: list[list[str]]

    def rounds(self) -> list[str]:
        """Each question with its answer, as a dialog remembers it."""
        return [f"{q} {a[0]}" for q, a in zip(self.questions, self.answers, strict=True)]


def read(dataset: tf.data.Dataset) -> list[Asked]:
    """All that is asked, picture by picture; of several answers the most frequent comes first."""

    def joined(example: dict) -> tuple:
        of_each = tf.strings.reduce_join(example["questions"]["answers"], axis=-1, separator="\n")
        return example["image_id"], example["questions"]["question"], of_each

    found = []
    for name, questions, answers in dataset.map(joined, tf.data.AUTOTUNE).as_numpy_iterator():
        questions = [q.decode() for q in questions]
        of_each = [_ordered(a.decode().split("\n")) for a in answers]
        found.append(Asked(name.decode(), questions, of_each))
    return found


def _ordered(answers: list[str]) -> list[str]:
    if len(answers) == 1:
        return [" ".join(answers[0].casefold().split())]
    answers = [normalize_answer(answer) for answer in answers]
    counts = Counter(answers)
    return sorted(answers, key=lambda answer: (-counts[answer], answers.index(answer)))


def normalize_answer(answer: str) -> str:
    """An answer in the spelling in which VQA's evaluation compares them.

    Antol et al. 2015, "VQA: visual question answering"; the rules are those of its published
    evaluation: lower case, no articles and marks, digits for number words, whole contractions.

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


def answer_vocabulary(asked: list[Asked], most: int) -> list[str]:
    """The most frequent answers, the most frequent first."""
    counts = Counter(answers[0] for each in asked for answers in each.answers)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:most]


def openings(asked: list[Asked], most: int) -> list[str]:
    """The most frequent first two words of questions, by which these are counted as of a kind."""
    words = text.tokenize(tf.constant([q for each in asked for q in each.questions]))[:, :2]
    joined = tf.strings.reduce_join(words, axis=-1, separator=" ").numpy()
    counts = Counter(first.decode() for first in joined)
    return sorted(counts, key=lambda first: (-counts[first], first))[:most]


def stored(
    dataset: tf.data.Dataset,
    path: Path,
    function: Callable[[tf.Tensor], tf.Tensor],
    dtype: str,
    batch_size: int = 32,
) -> np.ndarray:
    """What a function makes of each picture file, computed once and kept on disk.

    Args:
        dataset: of `{"image": string}`.
        path: of the `.npy` file; if it is there, it is read.
        function: `[B]` strings to `[B, ...]`.
        dtype: of the numbers in the file.
        batch_size: B.

    Returns:
        `[N, ...]`, mapped from the disk, not read into memory.
    """
    if not path.is_file():
        count = sum(1 for _ in dataset)
        batches = dataset.map(lambda row: row["image"]).batch(batch_size)
        # Made beside and moved: a process that is stopped leaves no half file of this name.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        array, place = None, 0
        try:
            for found in batches.map(function, tf.data.AUTOTUNE).as_numpy_iterator():
                if array is None:
                    shape = (count, *found.shape[1:])
                    array = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
                array[place : place + len(found)] = found
                place += len(found)
            if array is None:
                raise DataError(f"There are no pictures for {path}.")
            array.flush()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def fingerprint(*parts) -> str:
    """A short name for what a stored file depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def read_regions(path: str | Path) -> dict[str, np.ndarray]:
    """Vectors of the regions of pictures, made elsewhere: by a picture's name `[S, D]`.

    Args:
        path: an `.npz` file with an array for each picture; or TFRecords of `tf.train.Example` with
            `image_id` (bytes), `features` (floats) and `shape` (S and D).

    Raises:
        DataError: if there is no such file, or an array has another rank or width.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of regions.")
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                found = {name: file[name].astype("float32") for name in file.files}
        else:
            found = dict(map(_region_record, tf.data.TFRecordDataset(str(path))))
    except (ValueError, OSError, tf.errors.OpError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{path} is neither an .npz file nor TFRecords of regions: {why}") from None
    widths = {array.shape[-1] for array in found.values() if array.ndim == 2}
    if wrong := [name for name, array in found.items() if array.ndim != 2]:
        raise DataError(f"{path}: {wrong[0]} has the shape {found[wrong[0]].shape}, not [S, D].")
    if len(widths) != 1:
        raise DataError(f"{path}: regions of one width are needed, got {sorted(widths)}.")
    return found


def _region_record(record) -> tuple[str, np.ndarray]:
    fields = {
        "image_id": tf.io.FixedLenFeature([], tf.string),
        "features": tf.io.VarLenFeature(tf.float32),
        "shape": tf.io.FixedLenFeature([2], tf.int64),
    }
    row = tf.io.parse_single_example(record, fields)
    values = tf.sparse.to_dense(row["features"]).numpy().reshape(row["shape"].numpy())
    return row["image_id"].numpy().decode(), values


def regions_of(found: dict[str, np.ndarray], names: list[str], path) -> np.ndarray:
    """The regions of some pictures, by name or by name without suffix, `[N, S, D]`.

    Behind the regions of a picture that has fewer there are zeros.

    Raises:
        DataError: if the file lacks some of them.
    """
    ways = [(name, Path(name).name, Path(name).stem) for name in names]
    keys = [next((way for way in each if way in found), None) for each in ways]
    if missing := [name for name, key in zip(names, keys, strict=True) if key is None]:
        raise DataError(
            f"{path} has no regions for {len(missing)} of {len(names)} pictures, such as "
            f"{missing[0]}."
        )
    arrays = [found[key] for key in keys]
    padded = np.zeros((len(names), max(map(len, arrays)), arrays[0].shape[1]), "float32")
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


@dataclass(frozen=True)
class Augmentation:
    """What disturbs pictures in training: see `pipelines.image.disturb`."""

    shift: int = 0
    zoom: float = 0.0
    light: float = 0.0
    flip: bool = False


def question_batches(
    asked: list[Asked],
    pictures: np.ndarray | None,
    encoder: text.Encoder,
    answers: list[str],
    batch_size: int,
    *,
    rounds: bool = False,
    augmentation: Augmentation | None = None,
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Batches of P pictures with the Q questions about each.

    Args:
        asked: what is asked about N pictures.
        pictures: `[N, S, S, 3]`, uint8; or features, `[N, S, D]` or `[N, H, W, D]`, floats; or
            `None`, and there are none.
        encoder: of questions.
        answers: the vocabulary.
        batch_size: P.
        rounds: whether each question is also given together with its answer, as a dialog
            remembers it.
        augmentation: of pictures, for training. It is drawn anew in each epoch.
        shuffle: a seed; each epoch has an order of its own. `None` keeps the order.
        static: whether all batches have one shape, as XLA on a TPU wants; the remainder of the
            pictures is left out.

    Returns:
        Batches of `({"tokens": [P, Q, T], ...}, labels [P, Q, N])`, with `"image": [P, S, S, 3]` or
        `"regions": [P, ..., D]`, and on request `"rounds": [P, Q, T']`. A label is `NO_QUESTION`
        (padding), `UNKNOWN_ANSWER` or an answer's number from `FIRST_ANSWER`.
    """
    ids = {answer: k for k, answer in enumerate(answers, start=FIRST_ANSWER)}
    labels = tf.ragged.constant(
        [[[ids.get(a, UNKNOWN_ANSWER) for a in of] for of in each.answers] for each in asked],
        ragged_rank=2,
        dtype=tf.int32,
    )
    texts = {"tokens": [each.questions for each in asked]}
    if rounds:
        texts["rounds"] = [each.rounds() for each in asked]
    encoded = {name: _encoded(rows, encoder) for name, rows in texts.items()}
    most = max(len(each.questions) for each in asked)
    longest = {
        name: [most, int(tf.reduce_max(rows.row_lengths(axis=2)))] for name, rows in encoded.items()
    }
    return picture_batches(
        pictures,
        len(asked),
        lambda which, _: (
            {name: tf.gather(rows, which) for name, rows in encoded.items()},
            tf.gather(labels, which),
        ),
        batch_size,
        augmentation=augmentation,
        shuffle=shuffle,
        longest=(longest, [most, max(len(a) for each in asked for a in each.answers)])
        if static
        else None,
    )


def picture_batches(
    pictures: np.ndarray | None,
    count: int,
    said: Callable[[tf.Tensor, tf.Tensor], tuple],
    batch_size: int,
    *,
    augmentation: Augmentation | None = None,
    shuffle: int | None = None,
    longest: tuple | None = None,
) -> tf.data.Dataset:
    """Batches of pictures and what is said of them.

    Args:
        pictures: `[N, S, S, 3]`, or clips `[N, F, S, S, 3]`, uint8; or features, floats; or `None`,
            and there are none.
        count: N.
        said: the numbers of pictures, `[P]`, and a seed `[2]` that is another in each epoch, to
            `(features, labels)`, tensors or ragged tensors.
        batch_size: P.
        augmentation: of pixels, for training. It is drawn anew in each epoch.
        shuffle: a seed; each epoch has an order of its own. `None` keeps the order.
        longest: the largest shapes of `said`; then all batches have one shape, and the remainder of
            the pictures is left out.

    Returns:
        Batches of `(features, labels)`, padded with zeros, with the pixels as `"image"` or the
        features as `"regions"` among the features.
    """
    kind = None if pictures is None else "image" if pictures.dtype == "uint8" else "regions"

    def batch(which, seed) -> tuple:
        found = said(which, seed)
        rows = which.shape[0]
        features, labels = (_padded(x, longest and longest[k], rows) for k, x in enumerate(found))
        if kind:
            x = tf.numpy_function(pictures.__getitem__, [which], pictures.dtype)
            x = tf.ensure_shape(x, [rows, *pictures.shape[1:]])
            x = tf.cast(x, tf.float32)
            if kind == "image" and augmentation:
                x = image.disturb(x, seed, **vars(augmentation))
            features = features | {kind: x}
        return features, labels

    numbers = tf.data.Dataset.range(count)
    if shuffle is not None:
        numbers = numbers.shuffle(count, seed=shuffle, reshuffle_each_iteration=True)
    numbers = numbers.batch(batch_size, drop_remainder=longest is not None)
    seeds = tf.data.Dataset.random(shuffle or 0, rerandomize_each_iteration=True).batch(2)
    numbers = tf.data.Dataset.zip(numbers, seeds)
    return numbers.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _padded(found, longest, rows: int | None):
    """Ragged tensors made dense: to these largest shapes and so many rows, or to their own."""
    if isinstance(found, dict):
        return {name: _padded(x, longest and longest[name], rows) for name, x in found.items()}
    if not isinstance(found, tf.RaggedTensor):
        return found
    return found.to_tensor(shape=longest and [rows, *longest])


def _encoded(rows: list[list[str]], encoder: text.Encoder) -> tf.RaggedTensor:
    """`[N, (Q), (T)]`."""
    flat = tf.constant([question for row in rows for question in row])
    tokens = encoder(flat)["tokens"]
    return tf.RaggedTensor.from_row_lengths(tokens, [len(row) for row in rows])
