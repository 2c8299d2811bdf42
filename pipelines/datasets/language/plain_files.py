"""Your own text: a file, or a folder of files."""

import codecs
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow_datasets as tfds

from unroll.pipelines.datasets.base import file_version
from unroll.pipelines.datasets.language.base import PlainText
from unroll.pipelines.errors import DataError, report_once

SPLITS = ("train", "valid", "test")
PIECE = 1 << 16  # the usual number of characters of a piece
_LONGEST = 1 << 20  # of a line that is not cut
_FEWEST = 100  # pieces, so that a tenth of them can be held out
_SHORTEST = 1000  # bytes of a text
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass
class _Files(tfds.core.BuilderConfig):
    files: dict[str, list[Path]] = field(default_factory=dict, repr=False)


class PlainFiles(PlainText, skip_registration=True):
    """A text from a .txt file, or from all .txt files of a folder in the order of their names.

    A folder may have `train.txt` and, optionally, `valid.txt` and `test.txt`. Otherwise, and
    without `valid.txt`, the last tenth of the text is the validation split. Files are UTF-8, or
    UTF-16 with a byte order mark, and are read piece by piece: they may be larger than the memory.
    LF, CR LF and CR end a line.

    Args:
        path: the file or the folder.

    Raises:
        DataError: one line that names the file, and the line and byte that are not text.
    """

    SPLITS = ()

    def __init__(self, path: str | Path, **kwargs):
        self.path = Path(path)
        files = _files(self.path)
        versions = [(split, str(p), file_version(p)) for split in files for p in files[split]]
        digest = hashlib.sha256(repr(versions).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        super().__init__(config=_Files(name=digest, files=files), **kwargs)

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in {"valid", *self.builder_config.files})

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.split_names}

    def _generate_examples(self, split: str):
        files = self.builder_config.files
        cut = "valid" not in files and split in ("train", "valid")
        paths = files["train" if cut else split]
        # Characters, not bytes, whose number depends on the encoding and the line ends.
        total = sum(len(text) for path in paths for text in read_pieces(path))
        size = min(PIECE, total // _FEWEST)
        # TFDS sorts what exceeds its buffer, 1 GB, in buckets by the key, of 128 bits: with keys
        # that fill this range, a bucket is small.
        step = (1 << 127) // (total // max(size, 1) + len(paths) + 1)
        before, number = 0, 0
        for path in paths:
            for text in read_pieces(path, size):
                belongs = "valid" if before >= 0.9 * total else "train"
                before += len(text)
                if not cut or belongs == split:
                    yield number * step, {"text": text}
                    number += 1
        if not number:
            raise DataError(
                f"{self.path} has no text for the split {split!r}: its last tenth is one long "
                "line. Add a file valid.txt."
            )
        if cut and split == "valid":
            report_once(f"{self.path} has no valid.txt: the last tenth of the text is held out.")


def _files(path: Path) -> dict[str, list[Path]]:
    if path.is_file():
        files = {"train": [path]}
    else:
        files = {s: [path / f"{s}.txt"] for s in SPLITS if (path / f"{s}.txt").is_file()}
        if files and "train" not in files:
            raise DataError(f"{path} has {' and '.join(files)}.txt, but no train.txt.")
        files = files or {"train": sorted(path.rglob("*.txt"))}
    if not files["train"]:
        raise DataError(f"{path} has no .txt files.")
    for split, paths in files.items():
        size = sum(each.stat().st_size for each in paths)
        if size < _SHORTEST:
            names = ", ".join(map(str, paths[:3]))
            raise DataError(
                f"{names}: {size} bytes of text for {split!r}, at least {_SHORTEST} are needed."
            )
    return files


def read_pieces(path: Path, size: int = PIECE) -> Iterator[str]:
    r"""The text of a file in pieces of at least `size` characters, with `\n` as line ends.

    A piece ends at the end of a line, or in a line of a million characters after a space, if there
    is one. The text ends with a line end.

    Raises:
        DataError: if the file cannot be read or is not text.
    """
    try:
        with path.open("rb") as file:
            yield from _pieces(file, path, size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _pieces(file, path: Path, size: int) -> Iterator[str]:
    head = file.read(4)
    mark = next((mark for mark in _ENCODINGS if head.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "utf-8")
    file.seek(len(mark))
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    waiting, line, position = "", 1, len(mark)
    while True:
        block = file.read(PIECE)
        try:
            text = lines.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # What is decoded starts with the bytes that an earlier block left over.
            start = position + len(block) - len(error.object) + error.start
            line += error.object[: error.start].count(b"\n")
            name = "UTF-8" if encoding == "utf-8" else "UTF-16, as its byte order mark says"
            raise DataError(
                f"{path}, line {line}: byte {start} is not {name}. Save the file as UTF-8."
            ) from None
        position += len(block)
        if text.count("\0") > len(text) // 4:
            raise DataError(
                f"{path}, line {line}: zero bytes between the characters, as in UTF-16 without a "
                "byte order mark. Save the file as UTF-8."
            )
        line += text.count("\n")
        waiting += text
        if not block:
            break
        while len(waiting) > max(size, 1):
            end = waiting.find("\n", max(size, 1) - 1) + 1
            if not end and len(waiting) > _LONGEST:
                end = waiting.rfind(" ") + 1 or len(waiting)
            if not end:
                break
            yield waiting[:end]
            waiting = waiting[end:]
    if waiting:
        yield waiting.removesuffix("\n") + "\n"
