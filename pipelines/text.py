"""Text to tensors, in the graph: training and exported models use the same functions."""

import shutil
import tempfile
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from unroll.pipelines.batching import batches
from unroll.pipelines.errors import DataError, report_once
from unroll.pipelines.lines import WORD_SEPARATORS, read_json

PADDING, UNKNOWN = 0, 1
SPECIAL = ("[PAD]", "[UNK]")  # the first tokens of every vocabulary
NUM_TRIGRAMS = 27**3 + 1
# The tokens of a text that an exported model reads. A request of a megabyte, which can be as many
# tokens, would take gigabytes.
MAX_TOKENS = 2**14
_LARGEST_VALUE = 1e9  # of a word vector
# The lengths at which a new bucket of texts begins.
BOUNDARIES = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

# Chinese and Japanese have no spaces between words: each character is a token.
CHARACTER_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}"
_STEPS = (
    # White space and control characters, such as the NUL byte, separate tokens.
    (f"[{WORD_SEPARATORS}]+", " "),
    # Line breaks of web pages, as in IMDB.
    (r"<br\s*/?>", " "),
    # Typographic apostrophes.
    ("[\u2018\u2019\u02bc]", "'"),
    # Formatting characters and emoji variation selectors.
    (r"[\p{Cf}\x{FE0E}\x{FE0F}]", ""),
    # Brackets in the Penn Treebank, as in SST.
    (r"-(lrb|rrb|lsb|rsb|lcb|rcb)-", " "),
    # Contractions as the Penn Treebank splits them: do n't, it 's.
    (r"([\p{L}])n't\b", r"\1 n't"),
    (r"(^|\s)'", r"\1' "),
    (r"'\s?(s|m|d|ll|re|ve)\b", r" '\1"),
    # Each character that is not a letter, mark, number or apostrophe of a contraction is a token,
    # and each character of the scripts above.
    (rf"([^\p{{L}}\p{{M}}\p{{N}}\s']|[{CHARACTER_SCRIPTS}])", r" \1 "),
    (r"'(\s|$)", r" ' \1"),
    (r"\s+", " "),
)


def normalize(text):
    """Normalizes text: valid UTF-8, NFKC, case folded, spaces between tokens.

    Args:
        text: a string tensor of any shape. Invalid UTF-8 becomes U+FFFD.

    Returns:
        A string tensor of the same shape with single spaces between tokens.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = tf_text.case_fold_utf8(tf_text.normalize_utf8(text, "NFKC"))
    for pattern, replacement in _STEPS:
        text = tf.strings.regex_replace(text, pattern, replacement)
    return tf.strings.strip(text)


def tokenize(text) -> tf.RaggedTensor:
    """Splits texts into words, numbers, punctuation and emoji, or Chinese and Japanese characters.

    Args:
        text: `[B]`, strings.

    Returns:
        `[B, (T)]`, strings. The row of an empty text is empty.

    >>> tokenize(tf.constant(["It wasn't bad: 10/10!"])).to_list()
    [[b'it', b'was', b"n't", b'bad', b':', b'10', b'/', b'10', b'!']]
    """
    return tf.strings.split(normalize(text))


def words(text) -> tf.RaggedTensor:
    """As `tokenize`, without punctuation.

    >>> words(tf.constant(["A dog 's ball , in mid-air ."])).to_list()
    [[b'a', b'dog', b"'s", b'ball', b'in', b'mid', b'air']]
    """
    tokens = tokenize(text)
    is_word = tf.strings.regex_full_match(tokens.flat_values, r".*[\p{L}\p{M}\p{N}].*")
    return tf.ragged.boolean_mask(tokens, tokens.with_values(is_word))


def letter_trigrams(tokens: tf.RaggedTensor) -> tf.RaggedTensor:
    """The letter trigrams of each word: #go, goo, ood and od# for "good" (Huang et al. 2013).

    Args:
        tokens: `[B, (T)]`, strings.

    Returns:
        `[B, (T), (L)]`, int32, from 1. A word without letters has the one trigram `NUM_TRIGRAMS`.
    """
    letters = tf.strings.regex_replace(tokens.flat_values, "[^a-z]", "")
    marked = tf.strings.join(["#", letters, "#"])
    codes = tf.strings.unicode_decode(marked, "UTF-8")  # [N, (letters)]
    codes = tf.ragged.map_flat_values(lambda c: tf.where(c == ord("#"), 0, c - ord("a") + 1), codes)
    windows = tf_text.sliding_window(codes, width=3, axis=1)  # [N, (L), 3]
    ids = tf.ragged.map_flat_values(
        lambda w: tf.reduce_sum(w * tf.constant([27 * 27, 27, 1]), axis=-1) + 1, windows
    )
    none = tf.fill([ids.nrows(), 1], NUM_TRIGRAMS)
    none = tf.RaggedTensor.from_tensor(none, lengths=tf.cast(ids.row_lengths() == 0, tf.int64))
    return tokens.with_flat_values(tf.concat([ids, none], axis=1))


def to_dense(ids, time_axis: int = 1):
    """Pads ids to a dense tensor with at least one time step, which recurrent layers need.

    Args:
        ids: integers, a ragged or dense tensor.
        time_axis: 1 for a batch, 0 for a single example.
    """
    if isinstance(ids, tf.RaggedTensor):
        ids = ids.to_tensor()
    missing = tf.maximum(0, 1 - tf.shape(ids)[time_axis])
    paddings = [[0, missing if axis == time_axis else 0] for axis in range(ids.shape.rank)]
    return tf.pad(ids, paddings)


def known_ids(ids, size: int, unknown: int = UNKNOWN):
    """Ids from outside: those below zero, or not below the size of the vocabulary, are `unknown`.

    >>> known_ids(tf.constant([-1, 0, 4, 5, 2**31 - 1]), 5).numpy().tolist()
    [1, 0, 4, 1, 1]
    """
    return tf.where(tf.logical_and(ids >= 0, ids < size), ids, unknown)


class Vocabulary(tf.Module):
    """Tokens and their ids. 0 is padding, 1 the unknown token.

    A number that is not in the vocabulary is looked up with zeros for its digits: 1987 as 0000.

    Args:
        tokens: in the order of their ids. The first two are padding and the unknown token.
    """

    def __init__(self, tokens: list[str]):
        super().__init__()
        self.tokens = tokens
        # A table from a file becomes an asset of the exported model.
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "vocabulary.txt"
        path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        lines = tf.lookup.TextFileInitializer(
            str(path),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(lines, default_value=UNKNOWN)

    def __call__(self, tokens):
        """The ids, int32, of a dense or ragged string tensor of any shape."""
        if isinstance(tokens, tf.RaggedTensor):
            return tf.ragged.map_flat_values(self, tokens)
        ids = self.table.lookup(tokens)
        ids = tf.where(ids == UNKNOWN, self.table.lookup(mask_digits(tokens)), ids)
        return tf.cast(ids, tf.int32)

    def __len__(self) -> int:
        return len(self.tokens)


class Encoder(tf.Module):
    """Strings to the inputs of a model: the ids `tokens`, and optionally `trigrams`.

    Args:
        vocabulary: the tokens of a `Vocabulary`.
        trigrams: whether to return the letter trigrams of each word.
    """

    def __init__(self, vocabulary: list[str], trigrams: bool = False):
        super().__init__()
        self.vocabulary = Vocabulary(vocabulary)
        self.trigrams = trigrams

    def __call__(self, strings) -> dict[str, tf.RaggedTensor]:
        """`[B]` strings to `[B, (T)]` ids and `[B, (T), (L)]` trigrams."""
        return self.of_tokens(tokenize(strings))

    def of_tokens(self, tokens: tf.RaggedTensor) -> dict[str, tf.RaggedTensor]:
        """The same from the tokens, `[B, (T)]` strings."""
        features = {"tokens": self.vocabulary(tokens)}
        if self.trigrams:
            features["trigrams"] = letter_trigrams(tokens)
        return features


def text_batches(
    dataset: tf.data.Dataset,
    encoder: Encoder,
    batch_size: int,
    *,
    max_length: int = 0,
    shuffle: int | None = None,
    static: bool = False,
) -> tf.data.Dataset:
    """Batches of `(features, labels)` from texts with a label.

    Args:
        dataset: of `{"text": string, "label": integer}`, one example each.
        encoder: turns texts into features.
        batch_size: B.
        max_length: the number of tokens after which texts are cut; 0 for no limit.
        shuffle, static: as in `batches`.
    """

    def single(features: dict, label) -> tuple:
        # One more than the limit, to count the texts that are cut.
        longest = max_length + 1 if max_length else None
        return {k: to_dense(v, time_axis=0)[:longest] for k, v in features.items()}, label

    def cut(features: dict, label) -> tuple:
        return {k: v[:max_length] for k, v in features.items()}, label

    examples = (
        dataset.batch(256)
        .map(lambda batch: (encoder(batch["text"]), batch["label"]), tf.data.AUTOTUNE)
        .unbatch()
        .map(single)
        .cache()
    )

    def length(features: dict, _) -> tf.Tensor:
        return tf.shape(features["tokens"])[0]

    lengths = np.fromiter(examples.map(length).as_numpy_iterator(), "int64")
    if max_length:
        if longer := int(np.sum(lengths > max_length)):
            report_once(
                f"{longer:,} of {len(lengths):,} training texts are cut after {max_length} tokens "
                "(max_length)."
            )
        examples, lengths = examples.map(cut), np.minimum(lengths, max_length)
    return batches(
        examples,
        length,
        batch_size,
        boundaries=BOUNDARIES,
        shuffle=shuffle,
        static=static,
        lengths=lengths,
    )


def mask_digits(tokens):
    """Replaces each decimal digit with 0."""
    return tf.strings.regex_replace(tokens, r"\p{Nd}", "0")


def build_vocabulary(texts: tf.data.Dataset, max_size: int, min_count: int = 1) -> list[str]:
    """Padding, the unknown token, and the tokens of a corpus in the order of their frequency.

    Args:
        texts: scalar strings.
        max_size: the largest size of the vocabulary, with these two.
        min_count: the least number of occurrences of a token.

    Returns:
        The tokens. Equally frequent ones are in the order of their code points.
    """
    counts: Counter[bytes] = Counter()
    for batch in texts.batch(1024).map(lambda text: tokenize(text).flat_values):
        counts.update(batch.numpy().tolist())
    return most_frequent(counts, max_size, min_count)


def most_frequent(counts: Counter[bytes], max_size: int, min_count: int = 1) -> list[str]:
    """As `build_vocabulary`, from the counts of tokens. A number also counts as its masked form."""
    counts = counts.copy()
    tokens = list(counts)
    for token, masked in zip(tokens, mask_digits(tf.constant(tokens)).numpy(), strict=True):
        if masked != token:
            counts[masked] += counts[token]
    known = sorted((-n, token) for token, n in counts.items() if n >= min_count)
    return [*SPECIAL, *(token.decode() for _, token in known[: max_size - 2])]


def read_vectors(path: str | Path, tokens: list[str], seed: int = 0) -> tuple[np.ndarray, int]:
    """Word vectors of a vocabulary, from a file in the format of GloVe.

    Args:
        path: a file of lines `word v1 v2 ... vD`, with or without the first line of word2vec and
            fastText; or, if it ends in `.json`, of one object `{word: [v1, ..., vD]}`.
        tokens: the vocabulary. The first token is padding, whose vector is zero.
        seed: of the vectors of words that the file does not have. They are normal, with the
            standard deviation of the others.

    Returns:
        `[V, D]`, float32, and the number of tokens that the file has.

    Raises:
        DataError: if the file is missing or empty, a line cannot be parsed, a value is not finite,
            or widths differ.
    """
    wanted = {token: i for i, token in enumerate(tokens)}
    vectors: dict[int, np.ndarray] = {}
    width = None
    for row, word, values in _vector_rows(Path(path)):
        if width is None:
            width = len(values)
        if len(values) != width or not width:
            raise DataError(
                f"{path}, row {row}: {len(values)} values, but the first row has {width}."
            )
        if not (np.abs(values) < _LARGEST_VALUE).all():  # NaN is not smaller
            raise DataError(
                f"{path}, row {row}: a value is not finite, or not below {_LARGEST_VALUE:g}."
            )
        if word in wanted:
            vectors[wanted[word]] = values
    if width is None:
        raise DataError(f"{path} has no vectors.")
    known = np.array(list(vectors.values()), "float32").reshape(-1, width)
    spread = known.std(axis=0) if len(known) > 1 else np.ones(width, "float32")
    matrix = np.random.default_rng(seed).normal(size=(len(tokens), width)).astype("float32")
    matrix *= spread
    matrix[list(vectors)] = known
    matrix[: PADDING + 1] = 0
    return matrix, len(vectors)


def _vector_rows(path: Path):
    """The row, the word and the values of each vector of a file."""
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict):
            raise DataError(f"{path} is not a JSON object of words and their vectors.")
        for row, (word, values) in enumerate(content.items(), start=1):
            yield row, word, _vector(values, path, row)
        return
    try:
        with path.open(encoding="utf-8-sig") as lines:
            width = None
            for row, line in enumerate(lines, start=1):
                # A word may contain spaces.
                fields = line.rstrip().rsplit(" ", -1 if width is None else width)
                if row == 1 and len(fields) == 2 and all(map(str.isdecimal, fields)):
                    continue  # word2vec and fastText begin with the numbers of words and values
                width = width or len(fields) - 1
                yield row, fields[0], _vector(fields[1:], path, row)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of word vectors.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a file of word vectors: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _vector(values, path: Path, row: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # infinity is refused later
            vector = np.array(values, "float32")
        if vector.ndim == 1:
            return vector
    except (ValueError, TypeError, OverflowError):
        pass
    raise DataError(f"{path}, row {row}: expected 'word v1 v2 ...', with numbers.")
