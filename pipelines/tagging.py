"""Sentences with tags, in the graph: text to words, words and characters to ids, tags to spans."""

import re
from collections import Counter

import tensorflow as tf
import tensorflow_text as tf_text

from unroll.pipelines.batching import batches
from unroll.pipelines.lines import WORD_SEPARATORS
from unroll.pipelines.text import BOUNDARIES, Vocabulary, most_frequent, to_dense

# The characters of a word that are read.
MAX_CHARACTERS = 20
# The punctuation marks that are words themselves: the inside of a character class.
_MARKS = r',?!;()\[\]"'
_WORD = re.compile(f"[{_MARKS}]|[^{WORD_SEPARATORS}{_MARKS}]+")
# Further marks of documents, and a possessive ending, which is a word itself.
_DOCUMENT_MARKS = _MARKS + "%\u2013\u2018\u201c\u201d"
_POSSESSIVE = r"['\x{2019}]s\b"
# What stands for a full stop or a colon that is a word, until the text is split.
_STOP, _COLON = "\x01", "\x02"
# The types of tags that training does not have, such as "x" in "B-x", are hashed to this size.
_HASH_SIZE = 2**29


def split_words(
    text, documents: bool = False
) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
    """The words of texts as people type them, and their offsets.

    White space separates words. Commas, question and exclamation marks, brackets, quotes and
    semicolons are words themselves. A full stop at the end of a text is removed, unless it follows
    a single letter or an abbreviation with dots ("p.m.").

    Args:
        text: `[B]`, strings. Invalid UTF-8 becomes U+FFFD.
        documents: whether the texts are documents of several sentences, as the Penn Treebank splits
            them: full stops and colons after a word, percent signs, dashes and a possessive "'s"
            are words, too.

    Returns:
        The words `[B, (T)]`, and the characters at which they begin and end, `[B, (T)]`, int32.

    >>> words, begins, ends = split_words(tf.constant(["To Zürich, please."]))
    >>> [word.decode() for word in words[0].numpy()], ends[0].numpy().tolist()
    (['To', 'Zürich', ',', 'please'], [2, 9, 10, 17])
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    # One space for each, which keeps the offsets of characters. A NUL byte would end the text.
    text = tf.strings.regex_replace(text, f"[{WORD_SEPARATORS}]", " ")
    if documents:
        # One character for each, as above.
        body = tf.strings.regex_replace(
            text, rf"([^ .{_MARKS}]{{2}})\.([ {_DOCUMENT_MARKS}]|$)", rf"\1{_STOP}\2"
        )
        body = tf.strings.regex_replace(body, r"([^ ]):( |$)", rf"\1{_COLON}\2")
        kept = f"[{_STOP}{_COLON}{_DOCUMENT_MARKS}]|{_POSSESSIVE}"
    else:
        body = tf.strings.regex_replace(text, r"((?:^| )[^ .]{2,})\.+ *$", r"\1")
        kept = f"[{_MARKS}]"
    words, begins, ends = tf_text.regex_split_with_offsets(body, f" +|{kept}", kept)
    # The first bytes of all characters of the batch, one text after the other.
    _, first_bytes = tf.strings.unicode_decode_with_offsets(body, "UTF-8")
    sizes = tf.strings.length(body)  # in bytes
    text_starts = tf.cast(tf.cumsum(sizes, exclusive=True), tf.int64)
    starts = first_bytes.flat_values + tf.gather(text_starts, first_bytes.value_rowids())
    rows = words.value_rowids()

    def characters(offsets):
        """Byte offsets as character offsets."""
        before = tf.searchsorted(starts, offsets + tf.gather(text_starts, rows))
        return before - tf.cast(tf.gather(first_bytes.row_starts(), rows), tf.int32)

    for mark, letter in ((_STOP, "."), (_COLON, ":")) if documents else ():
        flat = words.flat_values
        words = words.with_flat_values(tf.where(flat == mark, letter, flat))
    return (
        words,
        words.with_flat_values(characters(begins.flat_values)),
        words.with_flat_values(characters(ends.flat_values)),
    )


def split_word(word: str) -> list[str]:
    """What `split_words` makes of a word inside a text, in Python.

    >>> split_word("1,000"), split_word("New York")
    (['1', ',', '000'], ['New', 'York'])
    """
    return _WORD.findall(word)


def normalize_words(words):
    """Words as in a vocabulary: NFKC, case folded, with 0 for each digit."""
    words = tf_text.case_fold_utf8(tf_text.normalize_utf8(words, "NFKC"))
    return tf.strings.regex_replace(words, r"\pN", "0")


class WordEncoder(tf.Module):
    """Words to the inputs of a model: ids of words, `tokens`, and of their `characters`.

    Args:
        vocabulary: the tokens of the vocabulary of words.
        characters: the tokens of the vocabulary of characters.
    """

    def __init__(self, vocabulary: list[str], characters: list[str]):
        super().__init__()
        self.vocabulary = Vocabulary(vocabulary)
        self.characters = Vocabulary(characters)

    def __call__(self, words: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """`[B, (T)]` strings to `[B, T]` and `[B, T, L]`, int32, padded with zeros."""
        tokens = tf.ragged.map_flat_values(normalize_words, words)
        characters = tf.strings.unicode_split(words.flat_values, "UTF-8", errors="replace")
        characters = characters[:, :MAX_CHARACTERS]
        ids = words.with_flat_values(self.characters(characters))
        ids = to_dense(ids.to_tensor())  # [B, T, L]
        missing = tf.maximum(0, 1 - tf.shape(ids)[2])
        ids = tf.pad(ids, [[0, 0], [0, 0], [0, missing]])
        return {"tokens": to_dense(self.vocabulary(tokens)), "characters": ids}


def build_vocabularies(
    dataset: tf.data.Dataset, max_size: int, min_count: int = 1
) -> dict[str, list[str]]:
    """The vocabularies, tags and intents of a training split.

    Args:
        dataset: of `{"words": [T], "tags": [T], "intent": []}`, strings.
        max_size, min_count: of the words, as in `pipelines.text.most_frequent`.

    Returns:
        `vocabulary` and `characters`, the tokens of the vocabularies; `tags`, with "O"; and
        `intents`, empty if the dataset has none.
    """
    words, characters = Counter(), Counter()
    for batch in dataset.map(lambda example: example["words"]).ragged_batch(1024):
        words.update(normalize_words(batch.flat_values).numpy().tolist())
        split = tf.strings.unicode_split(batch.flat_values, "UTF-8", errors="replace")
        characters.update(split.flat_values.numpy().tolist())
    words.pop(b"", None)  # a word of invisible characters, such as a soft hyphen: it is unknown
    tags, intents = set(), set()
    for example in dataset.as_numpy_iterator():
        tags.update(tag.decode() for tag in example["tags"])
        intents.add(example["intent"].decode())
    return {
        "vocabulary": most_frequent(words, max_size, min_count),
        "characters": most_frequent(characters, max_size),
        "tags": sorted(tags | {"O"}),
        "intents": sorted(intents - {""}),
    }


def tagged_batches(
    dataset: tf.data.Dataset,
    encoder: WordEncoder,
    tags: list[str],
    intents: list[str],
    batch_size: int,
    shuffle: int | None = None,
    with_words: bool = False,
) -> tf.data.Dataset:
    """Batches of features and targets.

    Args:
        dataset: of `{"words": [T], "tags": [T], "intent": []}`, strings, one example each.
        encoder: turns words into features.
        tags, intents: those of the training split. `intents` may be empty.
        batch_size: B.
        shuffle: as in `batches`.
        with_words: whether the targets include the words.

    Returns:
        Batches of `(features, targets)`. The targets are `tags`, `[B, T]`, with -1 for padding and
        ids from K on for tags that are not among the K `tags` (`tag_name` decodes them);
        `potentials`, the same with -1 for these tags; if there are intents, `intent`, `[B]`, with
        the number of `intents` as the id of all others; and, on request, `words`, `[B, T]`.
    """
    tag_ids, intent_ids = _table(tags), _table(intents)

    def encode(example: dict) -> tuple[dict, dict]:
        words = tf.RaggedTensor.from_tensor(example["words"][None])
        features = {name: x[0] for name, x in encoder(words).items()}
        known = tag_ids.lookup(example["tags"])
        ids = tf.where(known < len(tags), known, len(tags) + _hash_tags(example["tags"]))
        # One is added since padding is zero until the batch is made.
        targets = {"tags": ids + 1, "intent": intent_ids.lookup(example["intent"]) + 1}
        return features, targets | ({"words": example["words"]} if with_words else {})

    def targets(features: dict, made: dict) -> tuple[dict, dict]:
        ids = {name: made[name] - 1 for name in ("tags", *(["intent"] if intents else []))}
        ids["potentials"] = tf.where(ids["tags"] < len(tags), ids["tags"], -1)
        return features, ids | ({"words": made["words"]} if with_words else {})

    made = batches(
        dataset.map(encode, tf.data.AUTOTUNE).cache(),
        lambda features, _: tf.shape(features["tokens"])[0],
        batch_size,
        boundaries=BOUNDARIES,
        shuffle=shuffle,
    )
    return made.map(targets)


def tag_name(tag_id: int, tags: list[str]) -> str:
    """The name of a tag in the targets of `tagged_batches`.

    A tag that is not in `tags` gets its name if there is another tag of its type (`I-x` for `B-x`).
    Otherwise the name has a hash of the type: different types have different names.

    Args:
        tag_id: 0 or more.
        tags: the tags of the training split.
    """
    if tag_id < len(tags):
        return tags[tag_id]
    hashed, inside = divmod(tag_id - len(tags), 2)
    types = sorted({tag[2:] for tag in tags})
    hashes = tf.strings.to_hash_bucket_fast(tf.constant(types), _HASH_SIZE).numpy().tolist()
    name = dict(zip(hashes, types, strict=True)).get(hashed, f"unseen-{hashed}")
    return f"{'BI'[inside]}-{name}"


def _hash_tags(tags) -> tf.Tensor:
    """Even integers for `B-` tags and odd integers for `I-` tags, int32."""
    types = tf.strings.regex_replace(tags, "^[BI]-", "")
    hashed = tf.strings.to_hash_bucket_fast(types, _HASH_SIZE)
    inside = tf.strings.regex_full_match(tags, "I-.*")
    return tf.cast(2 * hashed + tf.cast(inside, tf.int64), tf.int32)


def _table(names: list[str]) -> tf.lookup.StaticHashTable:
    ids = tf.range(len(names), dtype=tf.int32)
    # A table needs an entry, but a dataset may have no intents.
    initial = tf.lookup.KeyValueTensorInitializer(tf.constant(names or [""]), ids if names else [0])
    return tf.lookup.StaticHashTable(initial, default_value=len(names))


def spans_of(tags, begins: tf.RaggedTensor, ends: tf.RaggedTensor, names: list[str]) -> tuple:
    """The spans of BIO tags.

    Args:
        tags: `[B, T]`, ids.
        begins, ends: the offsets of the words, `[B, (T)]`, from `split_words`.
        names: of the tags.

    Returns:
        The first character and the end of each span, `[B, N, 2]`, int32, padded with -1; and the
        labels, `[B, N]`, strings, padded with empty strings.
    """
    kinds = tf.constant([{"B": 1, "I": 2}.get(name[:1], 0) for name in names])
    labels = tf.constant([name[2:] for name in names])
    real = tf.sequence_mask(begins.row_lengths(), tf.shape(tags)[1])  # [B, T]
    kind = tf.where(real, tf.gather(kinds, tags), 0)
    starts = kind == 1
    # A span ends before the next tag that is not I.
    others = kind != 2
    positions = tf.range(tf.shape(tags)[1])
    ends_before = tf.ragged.boolean_mask(tf.zeros_like(tags) + positions, others)  # [B, (N)]
    rows = tf.fill([tf.shape(tags)[0], 1], tf.shape(tags)[1])
    following = tf.concat([ends_before, rows], axis=1)[:, 1:]
    is_start = tf.ragged.boolean_mask(starts, others)
    last = tf.gather(to_dense(ends), tf.ragged.boolean_mask(following, is_start) - 1, batch_dims=1)
    first = tf.ragged.boolean_mask(to_dense(begins), starts)
    spans = first.with_values(tf.stack([first.values, last.values], axis=-1)).to_tensor(-1)
    return spans, tf.ragged.boolean_mask(tf.gather(labels, tags), starts).to_tensor("")
