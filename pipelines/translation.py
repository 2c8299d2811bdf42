"""Pairs of texts to the batches of an encoder-decoder: pieces, ids, batches of similar lengths.

A pair is a sentence and its translation, or the turns of a dialog so far and the next one:
`{"source": string, "target": string, "history": [N] strings}`. The history has the turns before the
source, the oldest first; that of a translation is empty.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from unroll.pipelines.batching import prefetched
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import WORD_SEPARATORS
from unroll.pipelines.subwords import (
    COVERAGE,
    MOST_LINES,
    SPACE,
    subword_tokenizer,
    train_subwords,
)
from unroll.pipelines.text import CHARACTER_SCRIPTS, to_dense

UNITS = ("subwords", "words", "characters")
SUBWORD_TYPES = ("bpe", "unigram")
PAD, START, END, UNKNOWN, SEPARATOR = range(5)
# The first pieces of every vocabulary. The separator is between the turns of a dialog.
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<sep>")
SIDES = ("source", "target")
JOINER = "\uffed"  # on the side of a piece that no space follows or precedes
_SUBWORD_NAMES = dict(zip(("pad", "bos", "eos", "unk", "sep"), SPECIAL, strict=True))
_BATCH = 256  # pairs that are encoded at once
_NOISE = 4.0  # tokens that sources of a batch differ by, to vary the batches
_GAP = "\x01"  # a space of the text, while words are split
# In order. A text has no control characters then, and single spaces.
_SPLIT = (
    (JOINER, "\u25a0"),
    (" ", _GAP),
    # Each character that is no letter, mark or number is a piece, and each Chinese or Japanese one.
    (
        rf"([^\p{{L}}\p{{M}}\p{{N}}{_GAP}]|[{CHARACTER_SCRIPTS}])",
        rf" {JOINER}\1{JOINER} ",
    ),
    # Of two such pieces, the second has the joiner.
    (f"{JOINER}  {JOINER}", f" {JOINER}"),
    (f"{JOINER} {_GAP}", _GAP),
    (f"{_GAP} {JOINER}", _GAP),
    (f"^ {JOINER}", ""),
    (f"{JOINER} $", ""),
    (_GAP, " "),
)


def normalize(texts):
    """Valid UTF-8 in NFC, with single spaces between words and none around the text."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    texts = tf.strings.regex_replace(texts, f"[{WORD_SEPARATORS}]+", " ")
    return tf.strings.strip(tf_text.normalize_utf8(texts, "NFC"))


class Tokenizer(tf.Module):
    """Splits texts into pieces and joins pieces to texts, in the graph.

    | units | pieces |
    | --- | --- |
    | `subwords` | those of a SentencePiece model; `▁` is a space |
    | `words` | words, punctuation marks, Chinese and Japanese characters; `￭` joins a piece |
    | | to its neighbor: `don't!` is `don`, `￭'￭`, `t`, `￭!` |
    | `characters` | Unicode characters; `▁` is a space |

    Joined again, the pieces of a text are the text after `normalize`, except for unknown pieces,
    and the characters `▁` and `￭` in it.

    Args:
        units: one of `UNITS`.
        vocabulary: the pieces in the order of their ids. The first are `SPECIAL`.
        model: the SentencePiece model of `subwords`.

    Attributes:
        pieces: the vocabulary.
        size: the number of pieces.
    """

    def __init__(self, units: str, vocabulary: list[str], model: bytes = b""):
        super().__init__()
        self.units, self.pieces, self.size = units, vocabulary, len(vocabulary)
        self._model = model
        self.names = tf.constant(vocabulary)
        if units == "subwords":
            self.tokenizer = subword_tokenizer(model)
            self.of_strings = subword_tokenizer(model, tf.string)
        else:
            ids = tf.range(len(vocabulary), dtype=tf.int64)
            entries = tf.lookup.KeyValueTensorInitializer(self.names, ids)
            self.table = tf.lookup.StaticHashTable(entries, UNKNOWN)

    def encode(self, texts, sampling: float = 0.0) -> tf.RaggedTensor:
        """The ids of texts, `[B]` strings to `[B, (T)]` int32, without start and end.

        Above 0, `sampling` splits into random subwords, as in `subword_tokenizer`.
        """
        texts = normalize(texts)
        if self.units == "subwords" and sampling:
            # In a dataset, one of its own: `tf.random.set_seed` deletes those made before.
            return subword_tokenizer(self._model, sampling=sampling).tokenize(texts)
        if self.units == "subwords":
            return self.tokenizer.tokenize(texts)
        found = _split(texts, self.units)
        ids = self.table.lookup(found.flat_values)
        return found.with_flat_values(tf.cast(ids, tf.int32))

    def split(self, texts) -> tf.RaggedTensor:
        """The pieces of texts, `[B]` to `[B, (T)]` strings. Unknown ones are as in the text."""
        if self.units == "subwords":
            return self.of_strings.tokenize(normalize(texts))
        return _split(normalize(texts), self.units)

    def decode(self, ids) -> tf.Tensor:
        """The texts of ids, `[B, (T)]` or `[B, T]` to `[B]` strings, up to the first end."""
        if not isinstance(ids, tf.RaggedTensor):
            ids = tf.RaggedTensor.from_tensor(ids)
        before = tf.math.cumsum(tf.cast(ids.to_tensor() == END, tf.int32), axis=1) == 0
        is_text = tf.RaggedTensor.from_tensor(before, lengths=ids.row_lengths()).flat_values
        for special in (PAD, START, SEPARATOR):
            is_text &= ids.flat_values != special
        kept = tf.ragged.boolean_mask(ids, ids.with_flat_values(is_text))
        return self.join(tf.ragged.map_flat_values(tf.gather, self.names, kept))

    def join(self, pieces) -> tf.Tensor:
        """The texts of pieces, `[B, (T)]` to `[B]` strings."""
        if self.units == "words":
            texts = tf.strings.reduce_join(pieces, axis=-1, separator=" ")
            for pattern in (f" {JOINER}", f"{JOINER} ", JOINER):
                texts = tf.strings.regex_replace(texts, pattern, "")
            return texts
        texts = tf.strings.reduce_join(pieces, axis=-1)
        return tf.strings.strip(tf.strings.regex_replace(texts, SPACE, " "))


def split_words(texts) -> tf.RaggedTensor:
    """The words, punctuation marks, Chinese and Japanese characters of texts, `[B]` to `[B, (T)]`.

    They are the pieces of the units `words`, without joiners.
    """
    words = _split(normalize(texts), "words")
    return words.with_flat_values(tf.strings.regex_replace(words.flat_values, JOINER, ""))


def _split(texts, units: str) -> tf.RaggedTensor:
    """The pieces of normalized texts, other than subwords."""
    if units == "characters":
        return tf.strings.unicode_split(tf.strings.regex_replace(texts, " ", SPACE), "UTF-8")
    for pattern, replacement in _SPLIT:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    return tf.strings.split(texts)


def encode_source(
    tokenizer: Tokenizer, sources, histories=None, sampling: float = 0.0
) -> tf.RaggedTensor:
    """The ids that an encoder reads: the turns of a dialog with separators between, and an end.

    Args:
        tokenizer: of the sources.
        sources: `[B]` strings.
        histories: `[B, (N)]` strings, ragged: the turns before the sources, the oldest first. None
            for translations.
        sampling: as in `Tokenizer.encode`.

    Returns:
        `[B, (S)]`, int32.
    """
    turns = tf.expand_dims(sources, 1)  # [B, 1]
    if histories is not None:
        turns = tf.concat([histories, turns], axis=1)  # [B, (N + 1)]
    else:
        turns = tf.RaggedTensor.from_tensor(turns)
    ids = tokenizer.encode(turns.flat_values, sampling)  # [all turns, (T)]
    ids = tf.concat([ids, tf.fill([ids.nrows(), 1], SEPARATOR)], axis=1)
    ids = tf.RaggedTensor.from_nested_row_splits(
        ids.flat_values, [turns.row_splits, ids.row_splits]
    )
    ids = ids.merge_dims(1, 2)[:, :-1]
    return tf.concat([ids, tf.fill([ids.nrows(), 1], END)], axis=1)


def build_assets(
    pairs: tf.data.Dataset,
    units: str,
    vocabulary_size: int,
    *,
    shared: bool = False,
    subword_type: str = "bpe",
    min_count: int = 1,
) -> dict[str, list[str] | bytes]:
    """The vocabularies of the training pairs, and the SentencePiece models of subwords.

    Args:
        pairs: the training split.
        units: one of `UNITS`.
        vocabulary_size: the maximum size of a vocabulary, with the special pieces.
        shared: whether sources and targets have one vocabulary.
        subword_type: one of `SUBWORD_TYPES`.
        min_count: of a word or character.

    Returns:
        `vocabulary`, and for subwords `subwords`, if it is shared. Otherwise `source_vocabulary`
        and `target_vocabulary`, and for subwords `source_subwords` and `target_subwords`.

    Raises:
        DataError: if there is no text, or too little for subwords.
    """
    found = {}
    for prefix, sides in ({"": SIDES} if shared else {f"{s}_": (s,) for s in SIDES}).items():
        if units == "subwords":
            lines = list(islice(_lines(pairs, sides), MOST_LINES))
            # All characters, such as rare digits, if they leave half of the vocabulary to others.
            fits = len(set().union(*lines)) <= vocabulary_size // 2
            vocabulary, found[f"{prefix}subwords"] = train_subwords(
                lines,
                vocabulary_size,
                _SUBWORD_NAMES,
                subword_type,
                coverage=1.0 if fits else COVERAGE,
            )
        else:
            vocabulary = _most_frequent(pairs, sides, units, vocabulary_size, min_count)
        found[f"{prefix}vocabulary"] = vocabulary
    return found


def tokenizers(assets: dict, units: str) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of sources and of targets, the same one if they share a vocabulary."""
    prefixes = [""] if "vocabulary" in assets else [f"{side}_" for side in SIDES]
    made = [
        Tokenizer(units, assets[f"{p}vocabulary"], assets.get(f"{p}subwords", b""))
        for p in prefixes
    ]
    return made[0], made[-1]


def _lines(pairs: tf.data.Dataset, sides: tuple[str, ...]) -> Iterator[str]:
    for batch in pairs.ragged_batch(_BATCH).as_numpy_iterator():
        columns = [normalize(batch[side]).numpy() for side in sides]
        for row in zip(*columns, strict=True):
            yield from (text.decode("utf-8") for text in row if text)


def _most_frequent(
    pairs: tf.data.Dataset, sides: tuple[str, ...], units: str, size: int, min_count: int
) -> list[str]:
    """The special pieces and the most frequent ones. Equally frequent ones are in their order."""
    counts: Counter[bytes] = Counter()

    def count(batch):
        texts = normalize(tf.concat([batch[side] for side in sides], axis=0))
        pieces, _, numbers = tf.unique_with_counts(_split(texts, units).flat_values)
        return pieces, numbers

    for pieces, numbers in (
        pairs.ragged_batch(_BATCH).map(count, tf.data.AUTOTUNE).as_numpy_iterator()
    ):
        counts.update(dict(zip(pieces.tolist(), numbers.tolist(), strict=True)))
    if not counts:
        raise DataError("The training text is empty.")
    order = sorted((-number, piece) for piece, number in counts.items() if number >= min_count)
    return [*SPECIAL, *(piece.decode("utf-8") for _, piece in order)][:size]


def batches(
    pairs: tf.data.Dataset,
    source: Tokenizer,
    target: Tokenizer,
    batch_size: int,
    *,
    batch_tokens: int = 0,
    max_tokens: int = 0,
    shuffle: int | None = None,
    sampling: float = 0.0,
    with_text: bool = False,
) -> tf.data.Dataset:
    """Batches of `(features, labels)` for teacher forcing.

    The ids of all pairs are kept in memory, 4 bytes each, and with `sampling` or `with_text` also
    the texts.

    Args:
        pairs: of a split.
        source, target: the tokenizers.
        batch_size: B.
        batch_tokens: about the maximum number of tokens of the sources of a batch, and of its
            targets, with padding, in place of B: batches of short pairs have more of them. A longer
            pair is a batch of its own. A source may have up to four tokens more than the limit
            allows, for the random order.
        max_tokens: pairs of which the source or the target has more tokens (with the end) are left
            out, with a message that counts them; 0 for no limit.
        shuffle: a seed, for training: the order is different in each epoch.
        sampling: above 0, texts are split into random subwords, differently in each epoch.
        with_text: for evaluation: the pairs are in their order, and the labels also have the texts.

    Returns:
        Batches of known cardinality. Features: `source`, `[B, S]` int32, ids with an end; and
        `target`, `[B, T]` int32, a start and ids. Labels: `[B, T]` int32, ids and an end. Padding
        is 0 in all. Without `with_text`, a batch has pairs of similar lengths. With it, the labels
        are `{"tokens": [B, T], "source": [B], "target": [B], "history": [B, N]}`, strings; shorter
        histories are padded with empty ones.

    Raises:
        DataError: if there are no pairs, or none is left.
    """
    (sources, targets), texts = _encode(pairs, source, target, keep=bool(with_text or sampling))
    lengths = np.stack([targets.row_lengths() + 1, sources.row_lengths()])
    indices = np.arange(lengths.shape[1])
    if max_tokens and (longer := int(np.sum(lengths.max(axis=0) > max_tokens))):
        report_once(
            f"{longer:,} of {len(indices):,} training pairs are left out: they have more than "
            f"{max_tokens} tokens (max_tokens)."
        )
        indices = indices[lengths.max(axis=0) <= max_tokens]
        if not len(indices):
            raise DataError(f"No training pair has at most {max_tokens} tokens (max_tokens).")
    if with_text:
        order = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
    else:
        order = _similar(indices, lengths[:, indices], batch_size, batch_tokens, shuffle)

    def batch(rows):
        own = {name: tf.gather(each, rows) for name, each in texts.items()}
        if sampling:
            ids = _ids(source, target, own, sampling)
        else:
            ids = tf.gather(sources, rows), tf.gather(targets, rows)
        start, end = (tf.fill([tf.shape(rows)[0], 1], token) for token in (START, END))
        features = {
            "source": to_dense(ids[0]),
            "target": to_dense(tf.concat([start, ids[1]], axis=1)),
        }
        labels = to_dense(tf.concat([ids[1], end], axis=1))
        if with_text:
            labels = {"tokens": labels, **own, "history": own["history"].to_tensor()}
        return features, labels

    return prefetched(order.map(batch, tf.data.AUTOTUNE, deterministic=True))


def _similar(
    indices: np.ndarray, lengths: np.ndarray, batch_size: int, batch_tokens: int, seed: int | None
) -> tf.data.Dataset:
    """Batches of the indices of pairs of similar lengths, `[B]`.

    The pairs are sorted by the length of the target, and those of equal targets by that of the
    source, to which of each epoch a random number is added; they are cut into batches, in a random
    order. The sorted lengths are nearly the same in each epoch, and so are the sizes of batches.

    Args:
        indices: `[N]`.
        lengths: of targets and sources, `[2, N]`.
        batch_size, batch_tokens: as in `batches`.
        seed: `None` for batches that are the same each time.
    """
    first, second = lengths.astype("float64")
    # The longest sources of a target are next to the longest ones of the next target.
    within = np.where(first % 2, -second, second)
    keys = first * (2 * second.max() + 2 * _NOISE) + within
    order = np.argsort(keys, kind="stable")
    longest = np.maximum(first, second)[order]
    starts, most = [0], 0.0
    for k, length in enumerate(longest):
        most = max(most, length)
        count = k - starts[-1] + 1
        if count > 1 and (count * most > batch_tokens if batch_tokens else count > batch_size):
            starts.append(k)
            most = length
    ends = np.array([*starts[1:], len(order)])
    slices = np.stack([starts, ends], axis=1)
    if seed is None:
        dataset = tf.data.Dataset.from_tensor_slices(slices)
        return dataset.map(lambda each: tf.constant(indices[order])[each[0] : each[1]])

    def epoch(seeds):
        noise = tf.random.stateless_uniform([len(keys)], seeds, maxval=_NOISE, dtype=tf.float64)
        rows = tf.gather(indices, tf.argsort(keys + noise))
        shuffled = tf.random.experimental.stateless_shuffle(slices, seeds + 1)
        dataset = tf.data.Dataset.from_tensor_slices(shuffled)
        return dataset.map(lambda each: rows[each[0] : each[1]])

    # An iterator takes its seeds when it is made, not when it is first read: a resumed training
    # skips the finished epochs without reading an example.
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2).take(1)
    made = seeds.flat_map(epoch)
    return made.apply(tf.data.experimental.assert_cardinality(len(slices)))


def _ids(source: Tokenizer, target: Tokenizer, texts: dict, sampling: float = 0.0) -> tuple:
    """The ids of sources with an end, and of targets: `[B, (S)]` and `[B, (T)]`."""
    ids = encode_source(source, texts["source"], texts["history"], sampling)
    return ids, target.encode(texts["target"], sampling)


def _encode(pairs, source: Tokenizer, target: Tokenizer, keep: bool) -> tuple:
    """The ids of all pairs, as of `_ids`, and their texts if they are to be kept."""

    def encode(texts):
        return _ids(source, target, texts), texts if keep else {}

    rows = list(pairs.ragged_batch(_BATCH).map(encode, tf.data.AUTOTUNE))
    if not rows:
        raise DataError("There are no pairs.")
    return tf.nest.map_structure(lambda *each: tf.concat(each, axis=0), *rows)
