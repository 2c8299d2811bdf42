"""Word vectors from a file, to start an embedding with."""

from pathlib import Path

import keras

from unroll.apps.core.errors import UsageError
from unroll.pipelines import text


def start(path: str, vocabulary: list[str], features: int, seed: int):
    """The initializer of an embedding: the file's vectors, or Keras's own without a file.

    A run that was trained has them in its weights, and does not need the file any more.

    Raises:
        UsageError: if the file's vectors have another size than `features`.
    """
    if not path or not Path(path).is_file():
        return "uniform"
    vectors = text.read_vectors(path, vocabulary, seed)[0]
    if vectors.shape[1] != features:
        raise UsageError(f"{path} needs --features={vectors.shape[1]}.")
    return keras.initializers.Constant(vectors)
