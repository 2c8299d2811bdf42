"""The functions that the app exports: words to neighbors, analogies, and ids to vectors."""

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.word_vectors.network import nearest, normalized, padded_ngrams
from unroll.pipelines import text as texts
from unroll.pipelines import word_vectors as pairs

_MAX_CHARACTERS = 200  # of an unknown word, whose n-grams are read


class Lookup:
    """The vectors of words, in the graph.

    Args:
        trained: a trained model.

    Attributes:
        matrix: the vectors of the vocabulary, `[V, D]`.
    """

    def __init__(self, trained: Trained):
        self.config = trained.config
        self.network = trained.model
        self.vocabulary = texts.Vocabulary(trained.assets["vocabulary"])
        self.matrix = tf.Variable(trained.model.matrix(), trainable=False)

    def __call__(self, words) -> tuple:
        """The ids `[B]` of words, `[B]` strings, their vectors `[B, D]`, and which have one."""
        names = pairs.names_of(words)
        ids = self.vocabulary(names)
        vectors, known = tf.gather(self.matrix, ids), ids > texts.UNKNOWN
        if self.network.table is not None:
            short = tf.strings.substr(names, 0, _MAX_CHARACTERS, unit="UTF8_CHAR")
            of_ngrams = self.network.compose(padded_ngrams(self.config, short))
            vectors = tf.where(known[:, None], vectors, of_ngrams)
            known = names != ""
        return ids, vectors, known


@once
def lookup_of(trained: Trained) -> Lookup:
    """The vectors of the words of a trained model, made once."""
    return Lookup(trained)


def request(trained: Trained, inputs: list[str]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for words."""
    return {"words": np.array(inputs, object)}


@once
def service(trained: Trained) -> Service:
    """The app's functions. N is the option `neighbors`.

    - `serving_default`: `words` `[B]` to `neighbors` `[B, N]`, the nearest words, their cosines
      `scores` `[B, N]`, and `known` `[B]`, whether a word has a vector. A word that has none has
      empty strings and zeros.
    - `analogy`: `a`, `b` and `c`, `[B]` each, to the words `neighbors` `[B, N]` to which c is as a
      is to b; `scores` and `known` as above.
    - `vectors`, for LiteRT: `tokens` `[B, T]` ids to `vectors` `[B, T, D]`. Ids that are not in the
      vocabulary are read as the unknown word.
    """
    lookup = lookup_of(trained)
    vocabulary = tf.constant(trained.assets["vocabulary"])
    most = min(trained.config.neighbors, len(trained.assets["vocabulary"]) - 2)

    def answer(queries, ids, known) -> dict:
        scores, found = nearest(lookup.matrix, queries, ids, most)
        # Also a word whose place is taken by one that is excluded.
        is_word = known[:, None] & (scores > -2)
        return {
            "neighbors": tf.where(is_word, tf.gather(vocabulary, found), ""),
            "scores": tf.where(is_word, scores, 0.0),
            "known": known,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="words")])
    def serving_default(words):
        ids, vectors, known = lookup(words)
        return answer(vectors, ids[:, None], known)

    strings = {name: tf.TensorSpec([None], tf.string) for name in ("a", "b", "c")}

    def analogy(inputs: dict) -> dict:
        ids, vectors, known = zip(*(lookup(inputs[name]) for name in strings), strict=True)
        a, b, c = map(normalized, vectors)
        return answer(b - a + c, tf.stack(ids, axis=1), tf.reduce_all(tf.stack(known), axis=0))

    def of_ids(inputs: dict) -> dict:
        ids = texts.known_ids(inputs["tokens"], len(trained.assets["vocabulary"]))
        return {"vectors": tf.gather(lookup.matrix, ids)}

    def requests(examples: list[str]) -> dict[str, dict[str, np.ndarray]]:
        raw = request(trained, [example.split()[0] for example in examples])
        names = raw["words"]
        ids, _, _ = lookup(tf.constant(names))
        return {
            "serving_default": raw,
            "analogy": {"a": names, "b": names[::-1], "c": names},
            "vectors": {"tokens": ids.numpy()[:, None]},
        }

    return Service(
        {
            "serving_default": serving_default,
            "analogy": with_inputs(analogy, strings),
            "vectors": with_inputs(of_ids, {"tokens": tf.TensorSpec([None, None], tf.int32)}),
        },
        requests,
        litert="vectors",
        keep=[lookup.vocabulary, lookup.matrix],
    )
