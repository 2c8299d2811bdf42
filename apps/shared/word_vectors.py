"""Pretrained word vectors for an embedding."""

from pathlib import Path

import keras
import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.pipelines import text
from unroll.pipelines.errors import report_once


def embedding_initializer(
    path: str, vocabulary: list[str], embedding_dim: int, seed: int, unit_length: bool = False
):
    """The vectors of a file as an initializer, or Keras's default without a file.

    The weights of a trained run contain the vectors: it does not need the file any more.

    Args:
        path: of the file, in GloVe's format.
        vocabulary: the words.
        embedding_dim: the size of the vectors.
        seed: of the vectors of words that the file does not have.
        unit_length: whether vectors are scaled to length 1, so that Adam changes them faster: those
            of word2vec and GloVe have lengths around 5.

    Raises:
        UsageError: if the size of the file's vectors is not `embedding_dim`.
    """
    if not path or not Path(path).is_file():
        return "uniform"
    vectors, known = text.read_vectors(path, vocabulary, seed)
    if vectors.shape[1] != embedding_dim:
        raise UsageError(f"{path} needs --embedding-dim={vectors.shape[1]}.")
    report_once(
        f"{path} has vectors of {known:,} of the {len(vocabulary):,} words of the vocabulary; the "
        "others are random."
    )
    if unit_length:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(lengths > 0, lengths, 1)
    return keras.initializers.Constant(vectors)
