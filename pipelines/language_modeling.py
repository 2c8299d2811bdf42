"""Plain text to the batches of a language model: units, ids on disk, streams.

The text of a split is one sequence of units: characters, words or subwords. It is cut into as many
streams as a batch has rows, and each batch continues the streams where the batch before it ends.
So a model can carry its state from batch to batch (truncated backpropagation through time).
"""

import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from unroll.pipelines.batching import prefetched
from unroll.pipelines.errors import DataError
from unroll.pipelines.subwords import SPACE, subword_tokenizer, train_subwords
from unroll.pipelines.text import normalize

UNITS = ("characters", "words", "punctuation", "tokens", "subwords")
UNKNOWN, END = 0, 1
# The first units of every vocabulary: what is not in it, and the end of a line.
SPECIAL = ("<unk>", "<eos>")
_RESTARTS = 0.02  # of the streams, in each batch of the training
IGNORED = -1  # the label of a position that does not count
_PUNCTUATION = r"([^\p{L}\p{M}\p{N}\s])"
_BATCH = 16  # pieces that are encoded at once
_BLOCK = 10_000  # batches of the training whose lengths are drawn at once


class Units(tf.Module):
    """Splits texts into units and joins units to texts, in the graph.

    | kind | units |
    | --- | --- |
    | `characters` | Unicode characters |
    | `words` | what is between spaces |
    | `punctuation` | as `words`, and each character that is no letter, mark or number |
    | `tokens` | those of `text.tokenize`, which classifiers read: lower case, contractions split |
    | `subwords` | the pieces of a SentencePiece model |

    The end of a line is the unit `<eos>`. What is not in the vocabulary is `<unk>`.

    Args:
        kind: one of `UNITS`.
        vocabulary: the units in the order of their ids, as `build_vocabulary` returns them.
        model: the SentencePiece model of `subwords`.
    """

    def __init__(self, kind: str, vocabulary: list[str], model: bytes = b""):
        super().__init__()
        self.kind = kind
        self.vocabulary = vocabulary
        self.names = tf.constant(vocabulary)
        if kind == "subwords":
            self.tokenizer = subword_tokenizer(model)
        else:
            ids = tf.range(len(vocabulary), dtype=tf.int64)
            entries = tf.lookup.KeyValueTensorInitializer(self.names, ids)
            self.table = tf.lookup.StaticHashTable(entries, UNKNOWN)

    def __call__(self, texts) -> tf.RaggedTensor:
        """The ids of texts: `[B]` strings to `[B, (T)]`, int32."""
        texts = _normalize(texts)
        if self.kind == "subwords":
            return self._subwords(texts)
        found = _split(texts, self.kind)
        ids = self.table.lookup(found.flat_values)
        return found.with_flat_values(tf.cast(ids, tf.int32))

    def _subwords(self, texts):
        lines = tf.strings.split(texts, "\n")  # [B, (lines)]
        pieces = self.tokenizer.tokenize(lines.flat_values)  # [N, (T)]
        ends = tf.fill([tf.shape(lines.flat_values)[0], 1], END)
        pieces = tf.concat([pieces, ends], axis=1)
        of_text = tf.RaggedTensor.from_row_splits(pieces, lines.row_splits)
        return of_text.merge_dims(1, 2)[:, :-1]  # the last line has no end

    def join(self, ids) -> tf.Tensor:
        """The texts of ids: `[B, (T)]` to `[B]` strings."""
        return self.extend(tf.fill([ids.nrows()], ""), ids)

    def extend(self, prompts, ids) -> tf.Tensor:
        """Prompts with the units that follow them: `[B]` strings, `[B, (T)]` ids to `[B]`."""
        names = tf.where(ids.flat_values == END, "\n", tf.gather(self.names, ids.flat_values))
        if self.kind not in ("characters", "subwords"):
            names = tf.where(names == "\n", names, tf.strings.join([" ", names]))
        names = tf.strings.regex_replace(names, SPACE, " ") if self.kind == "subwords" else names
        texts = tf.strings.reduce_join(ids.with_flat_values(names), axis=-1)
        if self.kind != "characters":
            # The first word of a line follows no space.
            texts = tf.strings.regex_replace(texts, "\n ", "\n")
            at_start = tf.strings.regex_full_match(prompts, r"(?s)(.*\s)?")
            texts = tf.where(at_start, tf.strings.regex_replace(texts, "^ ", ""), texts)
        return tf.strings.join([prompts, texts])


def document(text):
    """A labeled text, `[]`, as lines that end at the end of a line, without the tags of IMDB."""
    text = tf.strings.regex_replace(_normalize(text), r"(\s*<br\s*/?>\s*)+", "\n")
    return tf.strings.join([tf.strings.strip(text), "\n"])


def _normalize(texts):
    """Valid UTF-8 with line feeds as line ends."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.regex_replace(texts, "\r\n?", "\n")


def _split(texts, kind: str) -> tf.RaggedTensor:
    """The units of normalized texts, other than subwords: `[B]` to `[B, (T)]` strings."""
    if kind == "characters":
        units = tf.strings.unicode_split(texts, "UTF-8")
        names = units.flat_values
        return units.with_flat_values(tf.where(names == "\n", SPECIAL[END], names))
    if kind == "tokens":
        lines = tf.strings.split(texts, "\n")
        ended = tf.strings.join([normalize(lines.flat_values), f" {SPECIAL[END]} "])
        found = tf.strings.split(tf.strings.reduce_join(lines.with_flat_values(ended), axis=-1))
        return found[:, :-1]  # the last line has no end
    if kind == "punctuation":
        texts = tf.strings.regex_replace(texts, _PUNCTUATION, r" \1 ")
    return tf.strings.split(tf.strings.regex_replace(texts, "\n", f" {SPECIAL[END]} "))


def build_vocabulary(
    pieces: tf.data.Dataset, kind: str, size: int, min_count: int = 1
) -> tuple[list[str], bytes]:
    """The vocabulary of a text, and the SentencePiece model of subwords (else no bytes).

    Args:
        pieces: of the training text, strings.
        kind: one of `UNITS`.
        size: the maximum size of the vocabulary, with the two special units.
        min_count: of a unit that is not a subword.

    Raises:
        DataError: if there is no text, or too little for subwords.
    """
    if kind == "subwords":
        special = {"unk": SPECIAL[UNKNOWN], "eos": SPECIAL[END]}
        return train_subwords(_lines(pieces), size, special)
    counts: Counter = Counter()

    def count(texts):
        units, _, counts = tf.unique_with_counts(_split(_normalize(texts), kind).flat_values)
        return units, counts

    for units, numbers in pieces.batch(_BATCH).map(count, tf.data.AUTOTUNE).as_numpy_iterator():
        counts.update(dict(zip(units.tolist(), numbers.tolist(), strict=True)))
    names = Counter({unit.decode("utf-8"): number for unit, number in counts.items()})
    for special in SPECIAL:
        names.pop(special, None)
    if not names:
        raise DataError("The training text is empty.")
    order = sorted(names, key=lambda name: (-names[name], name))
    return [*SPECIAL, *(name for name in order if names[name] >= min_count)][:size], b""


def _lines(pieces: tf.data.Dataset) -> Iterator[str]:
    for text in pieces.map(_normalize).as_numpy_iterator():
        yield from filter(None, text.decode("utf-8").split("\n"))


def ids_on_disk(pieces: tf.data.Dataset, units: Units, folder: Path, name: str) -> np.ndarray:
    """The ids of a text, `[N]`, as a memory-mapped array.

    They are written once, to a file in `folder` that is named after `name` and the vocabulary.

    Args:
        pieces: of the text, strings.
        units: splits them.
        folder: an existing folder.
        name: of the text.

    Raises:
        OSError: that names the file, if it cannot be written. Nothing incomplete stays on disk.
    """
    dtype = np.uint16 if len(units.vocabulary) < 2**16 else np.int32
    vocabulary = "\n".join([units.kind, *units.vocabulary])
    key = hashlib.sha256(vocabulary.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = folder / f"{re.sub('[^A-Za-z0-9]', '_', name)}-{key}.ids"
    if not path.is_file():
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        encoded = pieces.batch(_BATCH).map(lambda texts: units(texts).flat_values, tf.data.AUTOTUNE)
        try:
            with temporary.open("xb") as file:
                for ids in encoded.as_numpy_iterator():
                    file.write(ids.astype(dtype).tobytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    if not path.stat().st_size:
        return np.zeros([0], dtype)
    return np.memmap(path, dtype, mode="r")


def training_batches(
    ids: np.ndarray,
    batch_size: int,
    length: int,
    *,
    seed: int,
    random_lengths: bool = True,
    most: int = 0,
) -> tf.data.Dataset:
    """Batches of `(features, labels)` for training, B streams in parallel.

    An epoch reads the text as a circle from a random position. Merity et al. 2018, "Regularizing
    and optimizing LSTM language models", section 5: the length of a batch is that of the others
    times a normal random number, and half of it in one of twenty. In each batch one stream of fifty
    starts again. Otherwise a model would know only the states after a long text, and predict badly
    after a start.

    Args:
        ids: `[N]`.
        batch_size: B.
        length: T, the mean length of a batch.
        seed: of the random numbers, which differ from epoch to epoch.
        random_lengths: whether the lengths differ; otherwise all batches have the same shape.
        most: the maximum number of units of an epoch; 0 for the whole text.

    Returns:
        A dataset of known cardinality. Features: `tokens`, `[B, T]` int32, and `start`, `[B]`
        booleans, whether a stream starts with this batch. Labels: the next tokens, `[B, T]`.

    Raises:
        DataError: if the text is shorter than a batch has rows.
    """
    total = len(ids)
    if total <= batch_size:
        raise DataError(
            f"The training text has {total} units, too few for {batch_size} streams: use a smaller "
            "batch size, or more text."
        )
    # Also those of an epoch that is shorter than the text are spread over all of it.
    per_stream = (min(most, total) if most else total) // batch_size
    if per_stream < length:
        length = per_stream
    steps = per_stream // length
    rows = np.arange(batch_size, dtype="int64") * (total // batch_size)

    def read(first, last):
        positions = (rows[:, None] + np.arange(first, last + 1)) % total
        return ids[positions].astype("int32")

    def batch(first, last, start):
        found = tf.numpy_function(read, [first, last], tf.int32)
        size = None if random_lengths else length
        tokens = tf.ensure_shape(found[:, :-1], [batch_size, size])
        labels = tf.ensure_shape(found[:, 1:], [batch_size, size])
        return {"tokens": tokens, "start": start}, labels

    used = per_stream if random_lengths else steps * length

    def epoch(number):
        def seeds(k):
            return tf.stack([tf.cast(number, tf.int64), tf.cast(k, tf.int64)])

        offset = tf.random.stateless_uniform([], seeds(2), maxval=total, dtype=tf.int64)

        def block(k):
            first, last = k * _BLOCK, tf.minimum((k + 1) * _BLOCK, steps)
            count = last - first
            lengths = tf.ones([count])
            if random_lengths:
                spread = tf.random.stateless_normal([count], seeds(4 * k)) / 14  # 5 of 70
                is_short = tf.random.stateless_uniform([count], seeds(4 * k + 1)) < 0.05
                lengths = tf.maximum(tf.where(is_short, 0.5, 1.0) + spread, 0.25)
            share = tf.cumsum(tf.cast(lengths, tf.float64))
            begin, end = used * first // steps, used * last // steps
            own = tf.cast(end - begin, tf.float64)
            lasts = begin + tf.cast(tf.round(share / share[-1] * own), tf.int64)
            firsts = tf.concat([[begin], lasts[:-1]], axis=0)
            is_first = tf.range(first, last) == 0
            uniform = tf.random.stateless_uniform([count, batch_size], seeds(4 * k + 3))
            start = (uniform < _RESTARTS) | is_first[:, None]
            return tf.data.Dataset.from_tensor_slices((firsts + offset, lasts + offset, start))

        return tf.data.Dataset.range(-(-steps // _BLOCK)).flat_map(block)

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    batches = numbers.flat_map(epoch).map(batch, tf.data.AUTOTUNE, deterministic=True)
    return prefetched(batches.apply(tf.data.experimental.assert_cardinality(steps)))


def evaluation_batches(
    ids: np.ndarray, batch_size: int, length: int, most: int = 0
) -> tf.data.Dataset:
    """Batches of `(features, labels)` in which each unit of a text is a label once.

    The text is cut into B parts that are read in parallel. Before its part, a stream reads the end
    of the part before it, without labels (`IGNORED`), so that its state is hardly that of a start.

    Args:
        ids: `[N]`. The first of them follows an `<eos>`.
        batch_size: B.
        length: T.
        most: the maximum number of units, from the start of the text; 0 for all.

    Returns:
        A dataset of known cardinality, as of `training_batches`; all shapes are `[B, T]`.

    Raises:
        DataError: if there is no text.
    """
    total = min(most, len(ids)) if most else len(ids)
    if not total:
        raise DataError("The text to evaluate is empty.")
    before = min(length, total // (2 * batch_size))
    # Each stream reads `width` units. The first `before` are the last ones of the stream before.
    width = -(-(total + (batch_size - 1) * before) // batch_size)
    firsts = np.arange(batch_size, dtype="int64")[:, None] * (width - before)
    skipped = np.where(firsts > 0, before, 0)

    def read(step):
        offsets = step * length + np.arange(length)
        positions = firsts + offsets
        counts = (skipped <= offsets) & (offsets < width) & (positions < total)
        labels = ids[np.minimum(positions, total - 1)].astype("int32")
        previous = ids[np.clip(positions - 1, 0, total - 1)].astype("int32")
        tokens = np.where(positions > 0, previous, np.int32(END))
        return tokens, np.where(counts, labels, np.int32(IGNORED))

    def batch(step):
        tokens, labels = tf.numpy_function(read, [step], (tf.int32, tf.int32))
        tokens, labels = (tf.ensure_shape(each, [batch_size, length]) for each in (tokens, labels))
        return {"tokens": tokens, "start": tf.fill([batch_size], step == 0)}, labels

    steps = tf.data.Dataset.range(-(-width // length))
    return prefetched(steps.map(batch, tf.data.AUTOTUNE, deterministic=True))


def unit_lengths(kind: str, vocabulary: list[str]) -> np.ndarray:
    """The number of characters of each unit, `[V]`, NaN where it is not known.

    A word counts with the space or the line end after it, so the end of a line counts only if the
    line is empty: it is zero here.
    """
    if kind == "characters":
        return np.ones(len(vocabulary))
    if kind in ("punctuation", "tokens"):  # where the spaces are is not known
        return np.full(len(vocabulary), np.nan)
    space = 1 if kind == "words" else 0  # subwords have their spaces
    lengths = np.array([len(unit) + space for unit in vocabulary], "float64")
    lengths[END], lengths[UNKNOWN] = 0, np.nan
    return lengths


def starts_of_words(kind: str, vocabulary: list[str]) -> np.ndarray | None:
    """Which units begin a word or end a line, `[V]` booleans; None for characters."""
    if kind == "characters":
        return None
    if kind == "subwords":
        return np.array([k == END or unit.startswith(SPACE) for k, unit in enumerate(vocabulary)])
    return np.ones(len(vocabulary), bool)
