"""Stories as ids: the vocabulary, what is kept of a long story, batches."""

import numpy as np
import tensorflow as tf

from unroll.pipelines import stories, text

ROWS = [
    ("1", ["Mary is here.", "Bob left."], "Where is Mary?", " Here"),
    ("2", ["Ann left."] * 5 + ["Bob is in the New York office."], "Where is Bob?", "New York"),
    ("1", [], "Is Ann here?", "s,e"),
]
WORDS = ["ann", "bob", "here", "in", "is", "left", "mary", "new", "new york", "office", "s,e"]
ENTRIES = ["[PAD]", "[UNK]", *WORDS, "the", "where", "york"]


def dataset() -> tf.data.Dataset:
    rows = [
        {"task": task, "facts": tf.constant(facts, tf.string), "question": q, "answer": answer}
        for task, facts, q, answer in ROWS
    ]
    signature = {name: tf.TensorSpec([], tf.string) for name in ("task", "question", "answer")}
    signature["facts"] = tf.TensorSpec([None], tf.string)
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)


def said(ids) -> list[str]:
    return [" ".join(ENTRIES[k] for k in row if k) for row in ids]


def test_the_tasks_and_the_questions_of_one():
    assert stories.tasks(dataset()) == ["1", "2"]
    found = stories.of_task(dataset(), "2")
    assert [row["answer"] for row in found.as_numpy_iterator()] == [b"New York"]


def test_words_and_answers_are_one_vocabulary():
    assert stories.build_vocabulary(dataset()) == ENTRIES


def test_questions_of_like_stories_stand_together():
    vocabulary = text.Vocabulary(ENTRIES)
    found = list(stories.question_batches(dataset(), vocabulary, ["1", "2"], 2, 4))
    by_size = {len(labels): (features, labels.numpy()) for features, labels in found}
    features, labels = by_size[2]
    assert features["facts"].shape == [2, 2, 3]
    assert said(features["facts"][0]) == ["mary is here", "bob left"]
    assert not np.any(features["facts"][1])
    assert said(features["question"]) == ["where is mary", "is ann here"]
    assert labels.tolist() == [[ENTRIES.index("here"), 0], [ENTRIES.index("s,e"), 0]]
    features, labels = by_size[1]
    # The last facts of a long story.
    assert said(features["facts"][0]) == [*["ann left"] * 3, "bob is in the new york office"]
    assert labels.tolist() == [[ENTRIES.index("new york"), 1]]


def test_an_answer_that_the_vocabulary_lacks():
    vocabulary = text.Vocabulary(["[PAD]", "[UNK]", "here"])
    batches = stories.question_batches(dataset(), vocabulary, ["1", "2"], 3, 50)
    answers = np.concatenate([labels.numpy()[:, 0] for _, labels in batches])
    assert sorted(answers) == [1, 1, 2]
