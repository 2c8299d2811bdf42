"""Runs an exported LiteRT file with the interpreter and NumPy only.

    python litert.py saved_models/translation/1 "The old dogs have caught some mice."

LiteRT has no strings. Each line of `source_vocabulary.txt` and `target_vocabulary.txt` (or of
`vocabulary.txt`, if both share one) is a token, and its line number, from 0, is the id. This script
splits texts into words and punctuation marks as the SavedModel does for texts with spaces between
words, or, with a shared vocabulary of single characters, into characters; it has no subwords. The
search, which is greedy, is in the file.
"""

import re
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

END, UNKNOWN = 2, 3
SPECIAL = 5  # ids before those of tokens
JOINER, SPACE = "\uffed", "\u2581"


def split_words(text: str) -> list[str]:
    """Words and punctuation marks. A joiner is on the side where the text has no space."""
    tokens = []
    for word in text.split():
        parts = re.findall(r"[^\W_]+|[^\w\s]|_", word)
        for k, part in enumerate(parts):
            is_mark = re.fullmatch(r"[^\w]|_", part) is not None
            before = JOINER if is_mark and k else ""
            follows_word = k + 1 < len(parts) and re.fullmatch(r"[^\w]|_", parts[k + 1]) is None
            tokens.append(before + part + (JOINER if is_mark and follows_word else ""))
    return tokens


def join_words(tokens: list[str]) -> str:
    """The text of tokens."""
    text = " ".join(tokens)
    return text.replace(f" {JOINER}", "").replace(f"{JOINER} ", "").replace(JOINER, "")


def read_tokens(folder: str, side: str) -> list[str]:
    """The tokens of `source` or `target`."""
    path = Path(folder) / f"{side}_vocabulary.txt"
    if not path.exists():
        path = Path(folder) / "vocabulary.txt"
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def main(folder: str, *texts: str) -> None:
    """Prints the translation of each text."""
    if list(Path(folder).glob("*subwords.bin")):
        sys.exit(f"{folder}: this script does not read subwords.")
    source, target = read_tokens(folder, "source"), read_tokens(folder, "target")
    are_characters = max(map(len, source[SPECIAL:])) == 1
    ids = {token: k for k, token in enumerate(source)}
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for text in texts:
        joined = " ".join(text.split())
        tokens = list(joined.replace(" ", SPACE)) if are_characters else split_words(text)
        given = [*(ids.get(token, UNKNOWN) for token in tokens), END]
        outputs = model(source=np.array([given], np.int32))
        found = [target[k] for k in outputs["ids"][0, : outputs["lengths"][0]]]
        text = "".join(found).replace(SPACE, " ").strip() if are_characters else join_words(found)
        print(text)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER TEXT...")
    main(*sys.argv[1:])
