"""Sums and differences of word vectors, such as "king - man + woman", and their neighbors."""

import re

import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained
from unroll.apps.word_vectors.network import nearest, normalized
from unroll.apps.word_vectors.serving import lookup_of

_SIGN = re.compile(r"(?:^|(?<=\s))([+-])(?=\s|$)")


def parse(expression: str) -> list[tuple[int, str]]:
    """The terms of an expression with their signs. Signs are between spaces.

    >>> parse("king - man + woman")
    [(1, 'king'), (-1, 'man'), (1, 'woman')]
    >>> parse("new york")
    [(1, 'new york')]

    Raises:
        UsageError: if a term is missing.
    """
    first, *rest = _SIGN.split(expression.strip())
    pairs = [("+", first), *zip(rest[::2], rest[1::2], strict=True)]
    if rest and not first:
        pairs = pairs[1:]
    if not all(term.strip() for _, term in pairs):
        raise UsageError(
            f"{expression!r} is neither a word nor an expression such as 'king - man + woman'."
        )
    return [(1 if sign == "+" else -1, term.strip()) for sign, term in pairs]


def evaluate(trained: Trained, inputs: list[str]) -> list[dict]:
    """The nearest words of each expression, other than its own.

    Its vector is the sum of the vectors of the words, of length 1 each, with their signs. An
    expression with a word that has no vector has no neighbors; `unknown` lists these words.
    """
    lookup = lookup_of(trained)
    results = []
    for expression in inputs:
        signs, terms = zip(*parse(expression), strict=True)
        ids, vectors, known = lookup(tf.constant(terms))
        unknown = [term for term, k in zip(terms, known.numpy(), strict=True) if not k]
        result: dict = {"input": expression, "unknown": unknown, "neighbors": []}
        if not unknown:
            query = tf.reduce_sum(normalized(vectors) * tf.constant(signs, "float32")[:, None], 0)
            scores, found = nearest(lookup.matrix, query[None], ids[None], trained.config.neighbors)
            result["neighbors"] = [
                {"word": trained.assets["vocabulary"][k], "score": score}
                for k, score in zip(found[0].numpy(), scores[0].numpy().tolist(), strict=True)
                if score >= -1.001
            ]
        results.append(result)
    return results


def show(result: dict) -> str:
    """The nearest words with their cosines, or which words are unknown."""
    if result["unknown"]:
        return f"{result['input']}: no vector for {', '.join(result['unknown'])}"
    found = (f"{each['word']} {each['score']:.3f}" for each in result["neighbors"])
    return f"{result['input']}: {', '.join(found)}"
