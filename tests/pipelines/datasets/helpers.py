"""What the tests of datasets share."""

from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf


def read_all(builder_class, data_dir: Path, **options) -> dict[str, list[dict]]:
    """The examples of each split as a builder generates them, without writing TFRecords."""
    builder = builder_class(data_dir=data_dir, **options)
    return {
        split: [example for _, example in examples]
        for split, examples in builder.generators(None).items()
    }


def png(side: int = 8, value: int = 120) -> bytes:
    """A gray image file, wider than high."""
    return tf.io.encode_png(np.full((side, side + 2, 3), value, "uint8")).numpy()


def jpeg(side: int = 8, value: int = 120) -> bytes:
    """A gray image file, wider than high."""
    return tf.io.encode_jpeg(np.full((side, side + 2, 3), value, "uint8")).numpy()


def write_own_files(folder: Path, kind: str, words: dict[str, str]) -> None:
    """Twenty of your own texts, sentences, questions, recordings or captions for each split.

    Args:
        folder: of the files.
        kind: one of `datasets.KINDS`.
        words: by split, the word of all texts, labels, tags, transcripts and answers, or the name
            of the series.
    """
    for split, word in words.items():
        if kind == "text_classification":
            rows = "".join(f"{word} text {k}\t{word} {k % 2}\n" for k in range(20))
            (folder / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
        elif kind == "stories":
            lines = f"1 Mary is {word}.\n2 What is Mary?\t{word}\t1\n"
            (folder / f"{split}.txt").write_text(20 * lines)
        elif kind == "series":
            year = 2000 + 20 * list(words).index(split)
            rows = "".join(f"{year + k},{word},{k * k}\n" for k in range(20))
            (folder / f"{split}.csv").write_text(f"year,series,value\n{rows}")
        elif kind == "plain_text":
            (folder / f"{split}.txt").write_text(200 * f"{word} text\n")
        elif kind == "key_terms":
            rows = "".join(f"The {word} {k}.\t{word}\n" for k in range(20))
            (folder / f"{split}.tsv").write_text(f"text\tterms\n{rows}")
        elif kind == "translation":
            rows = "".join(f"{word} {k}\t{k} {word}\n" for k in range(20))
            (folder / f"{split}.tsv").write_text(f"source\ttarget\n{rows}")
        elif kind == "tagging":
            (folder / f"{split}.conll").write_text(20 * f"{word} B-{word}\n\n")
        elif kind == "speech":
            soundfile.write(folder / f"{split}.wav", [0.5, -0.5] * 4000, 8000)
            (folder / f"{split}.tsv").write_text(20 * f"{split}.wav\t{word}\n")
        else:
            (folder / f"{split}.png").write_bytes(png(value=10 * len(split)))
            columns = {"captions": word, "visual_questions": f"Is it {word} ?\t{word}"}[kind]
            name = "captions" if (kind, split) == ("captions", "train") else split
            (folder / f"{name}.tsv").write_text(20 * f"{split}.png\t{columns}\n")
