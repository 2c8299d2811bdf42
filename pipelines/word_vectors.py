"""Plain text to the training data of word vectors: ids, phrases, windows with negative samples.

A text is one sequence of ids, in which the id of the padding ends each line. It is cut into blocks
of consecutive words, each with the words before and after it that are in the windows of its words.
All words of a block share the same negative samples, so that the scores of a block, of words that
do and do not occur together, are one matrix product.
"""

from collections import Counter

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from unroll.pipelines import text as texts
from unroll.pipelines.batching import prefetched
from unroll.pipelines.errors import DataError
from unroll.pipelines.language_modeling import document

END = texts.PADDING  # the id after each line
JOINT = "_"  # between the words of a phrase
BLOCK = 32  # words of a block
SEGMENT = 1 << 17  # words of the text that are read at once
_POWER = 0.75  # of the counts, in the distribution of the negative samples
_TABLE = 1 << 22  # entries of the table from which they are sampled
_PER_WORD = 1 << 12  # entries for each word, in a small vocabulary
_BATCH = 64  # pieces of a text that are encoded at once
_QUESTIONS = 256  # of a batch


class Words(tf.Module):
    """Splits texts into the ids of their words, in the graph.

    The words are those of `text.words`: lower case, without punctuation marks. `END` follows each
    line.

    Args:
        vocabulary: the words in the order of their ids, after padding and the unknown word.
    """

    kind = "words of word vectors"

    def __init__(self, vocabulary: list[str]):
        super().__init__()
        self.vocabulary = vocabulary
        self.table = texts.Vocabulary(vocabulary)

    def __call__(self, pieces) -> tf.RaggedTensor:
        """The ids of texts: `[B]` strings to `[B, (T)]`, int32."""
        found = lines(pieces)  # [B, (lines), (words)]
        ids = self.table(found.flat_values)
        of_line = tf.RaggedTensor.from_row_splits(ids, found.values.row_splits)
        ends = tf.fill([of_line.nrows(), 1], END)
        of_line = tf.concat([of_line, ends], axis=1)
        return tf.RaggedTensor.from_row_splits(of_line, found.row_splits).merge_dims(1, 2)


def lines(pieces) -> tf.RaggedTensor:
    """The words of each line of texts: `[B]` strings to `[B, (lines), (words)]` strings."""
    pieces = tf.strings.unicode_transcode(pieces, "UTF-8", "UTF-8", errors="replace")
    pieces = tf.strings.regex_replace(pieces, "\r\n?", "\n")
    found = tf.strings.split(pieces, "\n")
    return found.with_flat_values(texts.words(found.flat_values))


def names_of(strings) -> tf.Tensor:
    """Words and phrases as they are in a vocabulary: `[B]` strings to `[B]` strings.

    >>> names_of(tf.constant(["New York", "PARIS"])).numpy().tolist()
    [b'new_york', b'paris']
    """
    return tf.strings.reduce_join(texts.words(strings), axis=-1, separator=JOINT)


def letter_ngrams(names, shortest: int, longest: int, buckets: int) -> tf.RaggedTensor:
    """The letter n-grams of words (Bojanowski et al. 2017), as numbers of buckets.

    Args:
        names: `[B]`, strings.
        shortest, longest: the numbers of characters of an n-gram, with the marks `<` and `>` at the
            ends of a word.
        buckets: their number. Different n-grams can have the same bucket.

    Returns:
        `[B, (L)]`, int32, from 1.
    """
    marked = tf.strings.join(["<", names, ">"])
    characters = tf.strings.unicode_split(marked, "UTF-8")  # [B, (T)]
    found = [
        tf_text.ngrams(
            characters, n, reduction_type=tf_text.Reduction.STRING_JOIN, string_separator=""
        )
        for n in range(shortest, longest + 1)
    ]
    together = tf.concat(found, axis=1)
    ids = tf.strings.to_hash_bucket_fast(together.flat_values, buckets) + 1
    return together.with_flat_values(tf.cast(ids, tf.int32))


def pieces_of(examples: tf.data.Dataset) -> tf.data.Dataset:
    """The texts of examples, as strings. A text with a label loses the tags of web pages."""
    if "label" not in examples.element_spec:
        return examples.map(lambda example: example["text"])
    return examples.map(lambda example: document(example["text"]))


def build_vocabulary(pieces: tf.data.Dataset, size: int, min_count: int) -> list[str]:
    """Padding, the unknown word, and the words of a text in the order of their frequency.

    Args:
        pieces: of the training text, strings.
        size: the maximum size of the vocabulary, with these two.
        min_count: the least number of occurrences of a word.

    Raises:
        DataError: if no word is as frequent.
    """
    counts: Counter[bytes] = Counter()

    def count(batch):
        words, _, numbers = tf.unique_with_counts(lines(batch).flat_values)
        return words, numbers

    for words, numbers in pieces.batch(_BATCH).map(count, tf.data.AUTOTUNE).as_numpy_iterator():
        counts.update(dict(zip(words.tolist(), numbers.tolist(), strict=True)))
    found = texts.most_frequent(counts, size, min_count)
    if len(found) < 4:
        raise DataError(
            f"The training text has {len(found) - 2} words that occur at least {min_count} times: "
            "use a smaller min_count, or more text."
        )
    return found


def find_phrases(
    ids: np.ndarray, vocabulary: list[str], *, threshold: float, min_count: int, passes: int
) -> tuple[list[str], list[str]]:
    """Pairs of words that occur together more often than their counts explain.

    Mikolov et al. 2013, "Distributed representations of words and phrases", equation 6: a pair is a
    phrase if `(count(ab) - min_count) / (count(a) count(b)) * N > threshold` for a text of N words.
    Each further pass finds pairs that contain phrases of the passes before.

    Args:
        ids: of the training text, `[N]`.
        vocabulary: the words by id.
        threshold: the least score.
        min_count: the number of occurrences that is subtracted, and which a phrase exceeds.
        passes: their number.

    Returns:
        The vocabulary, in which the phrases follow the words, joined by `_`; and the phrases as
        their two parts with a space between them, in the order in which `join_phrases` joins them.
    """
    vocabulary, phrases = list(vocabulary), []
    known, joined = set(vocabulary), np.asarray(ids)
    for _ in range(passes):
        counts = np.bincount(joined, minlength=len(vocabulary)).astype("float64")
        is_word = joined > texts.UNKNOWN
        codes = joined[:-1].astype("int64") * len(vocabulary) + joined[1:]
        pairs, numbers = np.unique(codes[is_word[:-1] & is_word[1:]], return_counts=True)
        first, second = pairs // len(vocabulary), pairs % len(vocabulary)
        expected = counts[first] * counts[second] / is_word.sum()
        scores = (numbers - min_count) / expected
        chosen = np.flatnonzero((scores > threshold) & (numbers > min_count))
        found = {}
        for k in chosen[np.lexsort((pairs[chosen], -scores[chosen]))]:
            parts = vocabulary[first[k]], vocabulary[second[k]]
            found.setdefault(JOINT.join(parts), " ".join(parts))
        new = [name for name in found if name not in known]
        if not new:
            break
        known |= set(new)
        vocabulary += new
        phrases += [found[name] for name in new]
        joined = join_phrases(ids, vocabulary, phrases)
    return vocabulary, phrases


def join_phrases(ids: np.ndarray, vocabulary: list[str], phrases: list[str]) -> np.ndarray:
    """A text in which the ids of the two parts of a phrase are the id of the phrase.

    Args:
        ids: of the words, `[N]`.
        vocabulary: the words and phrases by id.
        phrases: of `find_phrases`. Those whose parts are words are joined first, then those whose
            parts these are; of overlapping ones, the first in the text.
    """
    ids = np.asarray(ids, "int32")
    position, size = {name: k for k, name in enumerate(vocabulary)}, len(vocabulary)
    depths: dict[str, int] = {}
    by_depth: dict[int, list[tuple[int, int]]] = {}
    for phrase in phrases:
        first, second = phrase.split(" ")
        name = JOINT.join((first, second))
        depths[name] = 1 + max(depths.get(first, 0), depths.get(second, 0))
        code = position[first] * size + position[second]
        by_depth.setdefault(depths[name], []).append((code, position[name]))
    for depth in sorted(by_depth):
        keys, names = np.array(sorted(by_depth[depth]), "int64").T
        pairs = ids[:-1].astype("int64") * size + ids[1:]
        found = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
        starts = np.flatnonzero(keys[found] == pairs)
        # Of consecutive starts, every second one overlaps with the one before it.
        breaks = np.diff(starts, prepend=-2) > 1
        first_of_run = np.maximum.accumulate(np.where(breaks, np.arange(len(starts)), 0))
        starts = starts[(np.arange(len(starts)) - first_of_run) % 2 == 0]
        ids = ids.copy()
        ids[starts] = names[found[starts]]
        ids = np.delete(ids, starts + 1)
    return ids


def counts_of(ids: np.ndarray, size: int) -> np.ndarray:
    """The number of occurrences of each word of a vocabulary of this size, `[V]` int64."""
    counts = np.bincount(ids, minlength=size)
    counts[: texts.UNKNOWN + 1] = 0
    return counts


def training_batches(
    ids: np.ndarray,
    counts: np.ndarray,
    *,
    window: int,
    sample: float,
    negatives: int,
    seed: int,
) -> tf.data.Dataset:
    """Batches of `(features, labels)` for training, in a new order in each epoch.

    As in word2vec, unknown words are left out; frequent words are left out at random, with the
    probability `1 - sqrt(sample / f) - sample / f` of a word that makes up the share f of the text;
    and the size of a window is a random number from 1 to `window`.

    Args:
        ids: `[N]`, with `END` after each line.
        counts: of the words, `[V]`.
        window: W, the maximum number of words on each side of a word.
        sample: a share; 0 keeps all words.
        negatives: K, the number of negative samples of a block.
        seed: of the random numbers, which differ from epoch to epoch.

    Returns:
        A dataset of known cardinality. A batch has the B blocks of a segment of the text. Features:
        `words`, `[B, W + BLOCK + W]` int32, the words of a block and those before and after it;
        `negatives`, `[B, K]` int32, sampled with the power 3/4 of the counts; `progress`, `[B]`,
        the share of the epoch that is over. Labels: `windows`, `[B, BLOCK]` int32, the number of
        words on each side of each word that are to be predicted.
    """
    table, kept = _table(counts), _kept(counts, sample)
    total = len(ids)
    length = min(SEGMENT, total)
    steps = -(-total // length)

    def read(start, size, key):
        rng = np.random.default_rng(key)
        part = ids[(start + np.arange(size)) % total]
        part = part[rng.random(size, "float32") < kept[part]]
        blocks = _blocks(part, window)
        rng.shuffle(blocks)
        return blocks, *_sampled(rng, table, len(blocks), negatives, window)

    def batch(step, start, size, key):
        parts = tf.numpy_function(read, [start, size, key], [tf.int32] * 3)
        words, sampled, windows = _with_shapes(parts, window, negatives)
        count = tf.shape(words)[0]
        within = tf.range(count) / tf.maximum(count, 1)
        progress = tf.cast((tf.cast(step, within.dtype) + within) / steps, tf.float32)
        features = {"words": words, "negatives": sampled, "progress": progress}
        return features, {"windows": windows}

    def epoch(number):
        starts = tf.range(steps, dtype=tf.int64) * length
        sizes = tf.minimum(starts + length, total) - starts
        seeds = tf.stack([number, 0])
        offset = tf.random.stateless_uniform([], seeds, maxval=total, dtype=tf.int64)
        # A seed of NumPy is not negative.
        keys = tf.bitwise.bitwise_and(number, (1 << 48) - 1) * (1 << 14) + tf.range(
            steps, dtype=tf.int64
        )
        order = tf.random.experimental.stateless_shuffle(tf.range(steps), seeds)
        columns = [tf.gather(column, order) for column in (starts + offset, sizes, keys)]
        return tf.data.Dataset.from_tensor_slices((tf.range(steps), *columns))

    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    batches = numbers.flat_map(epoch).map(batch, tf.data.AUTOTUNE, deterministic=True)
    return prefetched(batches.apply(tf.data.experimental.assert_cardinality(steps)))


def evaluation_batches(
    ids: np.ndarray,
    counts: np.ndarray,
    questions: list[tuple[np.ndarray, np.ndarray]],
    *,
    window: int,
    negatives: int,
) -> tf.data.Dataset:
    """Batches of `(features, labels)` of questions, and of a text in its order.

    Args:
        ids: `[N]`. Words are neither left out nor shuffled. The negative samples and the sizes of
            the windows are always the same.
        counts: of the words of the training text, `[V]`.
        questions: for each section, the ids of its words, `[Q, 4]` or `[Q, 2]` int32, and the
            ratings, `[Q]` float32.
        window, negatives: as in `training_batches`.

    Returns:
        A dataset of known cardinality, as of `training_batches` without `progress`, and with more
        labels: `section`, `[B]` int32, which is zero for a block of the text, and k for a question
        of the section with the index k - 1; and `rating`, `[B]`. The words of a question are the
        first `words` of its row; its windows are zero.
    """
    table = _table(counts)
    segments = {start: ids[start : start + SEGMENT] for start in range(0, len(ids), SEGMENT)}
    starts = [start for start, part in segments.items() if (part > texts.UNKNOWN).any()]
    steps = len(starts) + sum(-(-len(rows) // _QUESTIONS) for rows, _ in questions)

    def labeled_questions():
        for k, (rows, ratings) in enumerate(questions, start=1):
            for first in range(0, len(rows), _QUESTIONS):
                part = rows[first : first + _QUESTIONS]
                words = np.zeros((len(part), BLOCK + 2 * window), "int32")
                words[:, : part.shape[1]] = part
                nothing = (np.zeros((len(part), size), "int32") for size in (negatives, BLOCK))
                section = np.full(len(part), k, "int32")
                yield words, *nothing, section, ratings[first : first + _QUESTIONS]

    def text():
        for start in starts:
            rng = np.random.default_rng(start)
            blocks = _blocks(np.asarray(segments[start]), window)
            sampled, windows = _sampled(rng, table, len(blocks), negatives, window)
            zeros = np.zeros(len(blocks), "int32")
            yield blocks, sampled, windows, zeros, zeros.astype("float32")

    def both():
        yield from labeled_questions()
        yield from text()

    def batch(words, sampled, windows, section, rating):
        labels = {"windows": windows, "section": section, "rating": rating}
        return {"words": words, "negatives": sampled}, labels

    widths = (BLOCK + 2 * window, negatives, BLOCK)
    spec = [tf.TensorSpec([None, width], tf.int32) for width in widths]
    spec += [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)]
    batches = tf.data.Dataset.from_generator(both, output_signature=tuple(spec))
    batches = batches.map(batch).apply(tf.data.experimental.assert_cardinality(steps))
    return prefetched(batches)


def text_of(dataset: tf.data.Dataset, window: int) -> np.ndarray:
    """The ids of the text in batches of `evaluation_batches`, `[N]`, without unknown words.

    A line ends also where a batch does.
    """
    parts = [np.zeros(0, "int32")]
    for features, labels in dataset.as_numpy_iterator():
        blocks = features["words"][labels["section"] == 0]
        parts.append(blocks[:, window : window + BLOCK].ravel())
    return _without_empty_lines(np.concatenate(parts))


def _blocks(ids: np.ndarray, window: int) -> np.ndarray:
    """The blocks of a text with the words around them, `[B, W + BLOCK + W]`."""
    ids = _without_empty_lines(ids[ids != texts.UNKNOWN])
    count = -(-len(ids) // BLOCK)
    padded = np.pad(ids, (window, count * BLOCK - len(ids) + window)).astype("int32")
    if not count:
        return np.zeros((0, BLOCK + 2 * window), "int32")
    return np.lib.stride_tricks.sliding_window_view(padded, BLOCK + 2 * window)[::BLOCK].copy()


def _without_empty_lines(ids: np.ndarray) -> np.ndarray:
    before = np.concatenate([[END], ids[:-1]])[: len(ids)]
    return ids[(ids != END) | (before != END)]


def _sampled(rng, table: np.ndarray, count: int, negatives: int, window: int) -> tuple:
    """The negative samples `[B, K]`, and the sizes of the windows `[B, BLOCK]`."""
    sampled = table[rng.integers(len(table), size=(count, negatives))]
    return sampled, rng.integers(1, window + 1, (count, BLOCK), "int32")


def _with_shapes(parts, window: int, negatives: int) -> list:
    widths = (BLOCK + 2 * window, negatives, BLOCK)
    return [tf.ensure_shape(part, [None, w]) for part, w in zip(parts, widths, strict=True)]


def _table(counts: np.ndarray) -> np.ndarray:
    """Ids, each as often as the power of its count requires, at least once."""
    weights = counts.astype("float64") ** _POWER
    size = min(_TABLE, _PER_WORD * len(counts))
    times = np.where(counts > 0, np.maximum(np.round(weights / weights.sum() * size), 1), 0)
    return np.repeat(np.arange(len(counts), dtype="int32"), times.astype("int64"))


def _kept(counts: np.ndarray, sample: float) -> np.ndarray:
    """The probability that a word is kept, `[V]` float32; that of a line end is 1."""
    kept = np.ones(len(counts), "float32")
    if sample:
        share = np.maximum(counts, 1) / counts.sum()
        kept = np.minimum(np.sqrt(sample / share) + sample / share, 1).astype("float32")
    kept[END], kept[texts.UNKNOWN] = 1, 0
    return kept
