"""Files of word vectors: the text formats of word2vec and GloVe, and of TensorBoard's projector."""

import numpy as np

from unroll.apps.core.protocol import Trained
from unroll.pipelines import text as texts

_CONFIG = """\
embeddings {
  tensor_name: "words"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def text_formats(trained: Trained) -> dict[str, bytes]:
    """The vectors of all words, one per line: `word2vec.txt` and `glove.txt`.

    A line has the word and its values with spaces between. The file of word2vec begins with a line
    of the numbers of words and values. Padding and the unknown word are left out.
    """
    words, matrix = _vectors(trained)
    rows = _rows(matrix, " ")
    lines = "".join(f"{word} {row}\n" for word, row in zip(words, rows, strict=True)).encode()
    header = f"{len(words)} {matrix.shape[1]}\n".encode()
    return {"glove.txt": lines, "word2vec.txt": header + lines}


def projector(trained: Trained, most: int = 10_000) -> dict[str, bytes]:
    """The files of TensorBoard's projector, of the `most` frequent words.

    `tensorboard --logdir=FOLDER`, where FOLDER has these files.
    """
    words, matrix = _vectors(trained)
    words, matrix = words[:most], matrix[:most]
    return {
        "vectors.tsv": "".join(f"{row}\n" for row in _rows(matrix, "\t")).encode(),
        "metadata.tsv": "".join(f"{word}\n" for word in words).encode(),
        "projector_config.pbtxt": _CONFIG.encode(),
    }


def _vectors(trained: Trained) -> tuple[list[str], np.ndarray]:
    """The words and their vectors, without padding and the unknown word."""
    first = texts.UNKNOWN + 1
    return trained.assets["vocabulary"][first:], np.asarray(trained.model.matrix())[first:]


def _rows(matrix: np.ndarray, separator: str):
    return (separator.join(f"{value:.6g}" for value in row) for row in matrix.tolist())
