"""Stories and questions as batches of ids: facts, questions and answers."""

from collections import Counter

import tensorflow as tf

from unroll.pipelines import text
from unroll.pipelines.batching import batches

# The numbers of facts at which a new bucket of questions begins.
BOUNDARIES = (4, 8, 12, 16, 24, 32, 50)


def normalize_answer(answer):
    """Answers of one spelling, each one entry of the vocabulary, be it of several words."""
    return tf.strings.lower(tf.strings.strip(answer), "utf-8")


def tasks(dataset: tf.data.Dataset) -> list[str]:
    """The names of the tasks of a split: numbers in their order, then the others."""
    named = dataset.map(lambda row: row["task"], tf.data.AUTOTUNE)
    found = {name.decode() for name in named.as_numpy_iterator()}
    return sorted(
        found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
    )


def longest(dataset: tf.data.Dataset) -> int:
    """The number of facts of the longest story, 1 at least."""
    sizes = dataset.map(lambda row: tf.shape(row["facts"])[0], tf.data.AUTOTUNE)
    return max(1, *sizes.as_numpy_iterator())


def of_task(dataset: tf.data.Dataset, task: str) -> tf.data.Dataset:
    """The questions of one task."""
    return dataset.filter(lambda row: row["task"] == task)


def build_vocabulary(dataset: tf.data.Dataset) -> list[str]:
    """The words of facts and questions and the answers, after padding and the unknown."""
    counts: Counter[bytes] = Counter()

    def all_of(example: dict):
        told = tf.concat([example["facts"], [example["question"]]], axis=0)
        return text.words(told).flat_values, normalize_answer(example["answer"])

    for words, answer in dataset.map(all_of, tf.data.AUTOTUNE).as_numpy_iterator():
        counts.update([*words.tolist(), answer])
    return ["[PAD]", "[UNK]", *sorted(word.decode() for word in counts)]


def split_facts(stories) -> tf.RaggedTensor:
    """Stories `[B]` to their facts `[B, (S)]`: lines, and sentences within a line.

    >>> split_facts(tf.constant(["Bob left. Ann is here.\\nShe sat down"])).to_list()
    [[b'Bob left.', b'Ann is here.', b'She sat down']]
    """
    lines = tf.strings.regex_replace(stories, r"([.!?])\s+", "\\1\n")
    facts = tf.strings.split(lines, "\n")
    facts = facts.with_values(tf.strings.strip(facts.flat_values))
    return tf.ragged.boolean_mask(facts, facts.with_values(facts.flat_values != ""))


def to_ids(strings, vocabulary: text.Vocabulary):
    """Sentences `[N]` to ids `[N, J]`, without marks; one word at least, which may be padding."""
    return text.to_dense(vocabulary(text.words(strings)))


def question_batches(
    dataset: tf.data.Dataset,
    vocabulary: text.Vocabulary,
    tasks: list[str],
    batch_size: int,
    memory_size: int,
    *,
    shuffle: int | None = None,
) -> tf.data.Dataset:
    """Batches of B questions with the S facts before each.

    Args:
        dataset: of `{"task", "facts", "question", "answer"}`, as the datasets of stories have.
        vocabulary: made by `build_vocabulary`.
        tasks: the names of all of them.
        batch_size: B.
        memory_size: of longer stories the last so many facts are kept.
        shuffle: as in `pipelines.batching.batches`.

    Returns:
        Batches of `({"facts": [B, S, J], "question": [B, J']}, [B, 2])`, which are the id of the
        answer, that of the unknown where the vocabulary lacks it, and the number of the task among
        the names. There is one fact at least, which may be padding.
    """
    names = tf.constant(tasks)

    def encoded(example: dict) -> tuple:
        facts = to_ids(example["facts"][-memory_size:], vocabulary)
        facts = text.to_dense(facts, time_axis=0)
        question = to_ids([example["question"]], vocabulary)[0]
        answer = vocabulary.table.lookup(normalize_answer(example["answer"]))
        [task] = tf.unstack(tf.where(names == example["task"])[:, 0], num=1)
        return {"facts": facts, "question": question}, tf.stack([answer, task])

    return batches(
        dataset.map(encoded, tf.data.AUTOTUNE).cache(),
        lambda features, _: tf.shape(features["facts"])[0],
        batch_size,
        boundaries=(*(b for b in BOUNDARIES if b <= memory_size), memory_size + 1),
        shuffle=shuffle,
    )
