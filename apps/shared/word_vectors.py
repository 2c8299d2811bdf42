"""Pretrained word vectors for an embedding."""

from pathlib import Path

import keras
import numpy as np

from unroll.apps.core.errors import UsageError
from unroll.pipelines import text
from unroll.pipelines.errors import report_once


def embedding_initializer(path: str, vocabulary: list[str], embedding_dim: int, seed: int):
    """The vectors of a file as an initializer, or Keras's default without a file.

    The vectors have length 1 (Levy, Goldberg and Dagan 2015, "Improving distributional similarity
    with lessons learned from word embeddings", section 3.3): the steps of Adam hardly change longer
    ones. The weights of a trained run contain the vectors: it does not need the file any more.

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
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return keras.initializers.Constant(vectors / np.where(lengths > 0, lengths, 1))
