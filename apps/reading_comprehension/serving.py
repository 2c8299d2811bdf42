"""The functions that the app exports: stories and questions to answers."""

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.pipelines import stories, text

FIRST_ANSWER = text.UNKNOWN + 1  # padding and the unknown token are not answers


def request(trained: Trained, inputs: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for pairs of a story and a question."""
    texts, questions = zip(*inputs, strict=True)
    return {"story": np.array(texts, object), "question": np.array(questions, object)}


@once
def service(trained: Trained) -> Service:
    """The app's functions, with the copy of the model that has the lowest training loss.

    - `serving_default`: `story` and `question` `[B]`, strings, to `answer` `[B]`, `scores` `[B, V]`
      of all words, `facts` `[B, S]`, the sentences or lines of the story (the last ones of a long
      story), and `attention` `[B, hops, S]`.
    - `ids`: `facts` `[B, S, J]` and `question` `[B, J']` to `scores` and `attention`. Ids that are
      not in the vocabulary are read as the unknown token.
    """
    assets = trained.assets
    restarts = trained.model.get_layer("restarts")
    copy = restarts.copies[int(restarts.best())]
    vocabulary = text.Vocabulary(assets["vocabulary"])
    entries = tf.constant(assets["vocabulary"])
    memory_size = assets["memory"]["size"]

    def answer(features: dict) -> dict:
        logits, attention = copy([features["facts"], features["question"]], training=False)
        return {"scores": tf.nn.softmax(logits), "attention": attention}

    def answer_ids(features: dict) -> dict:
        return answer({k: text.known_ids(x, len(entries)) for k, x in features.items()})

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="story"),
            tf.TensorSpec([None], tf.string, name="question"),
        ]
    )
    def serving_default(story, question):
        facts = stories.split_facts(story)[:, -memory_size:]
        outputs = answer(_ids(facts, question, vocabulary))
        best = tf.argmax(outputs["scores"][:, FIRST_ANSWER:], axis=-1) + FIRST_ANSWER
        return {"answer": tf.gather(entries, best), "facts": text.to_dense(facts)} | outputs

    ids = {
        "facts": tf.TensorSpec([None, None, None], tf.int32),
        "question": tf.TensorSpec([None, None], tf.int32),
    }

    def requests(examples: list[tuple]) -> dict[str, dict[str, np.ndarray]]:
        story_texts, questions = zip(*examples, strict=True)
        facts = stories.split_facts(tf.constant(story_texts))[:, -memory_size:]
        inputs = _ids(facts, tf.constant(questions), vocabulary)
        return {
            "serving_default": request(trained, examples),
            "ids": {name: x.numpy() for name, x in inputs.items()},
        }

    functions = {"serving_default": serving_default, "ids": with_inputs(answer_ids, ids)}
    return Service(functions, requests, litert="ids", keep=[copy.variables, vocabulary])


def _ids(facts: tf.RaggedTensor, question, vocabulary: text.Vocabulary) -> dict:
    """Facts `[B, (S)]` and questions `[B]` to ids `[B, S, J]` and `[B, J']`."""
    words = stories.to_ids(facts.flat_values, vocabulary)  # [N, J]
    facts = tf.RaggedTensor.from_row_splits(words, facts.row_splits)
    return {
        "facts": text.to_dense(facts.to_tensor()),
        "question": stories.to_ids(question, vocabulary),
    }
