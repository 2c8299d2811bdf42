"""Where the files of a dataset come from: a manual folder first, the published address else."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from pipelines.errors import DataError


@dataclass(frozen=True)
class Source:
    """A published file.

    Attributes:
        folder: the dataset's folder in the manual folder.
        name: the published file name, which may hold a `/`.
        url: the published address.
        sha256: of the published file, where it is known.
    """

    folder: str
    name: str
    url: str
    sha256: str | None = None


def manual_folder(manual_dir: str | Path | None = None) -> Path | None:
    """The folder given, or that of the environment variable `UNROLL_MANUAL_DIR`.

    Raises:
        DataError: if it does not exist.
    """
    folder = manual_dir or os.environ.get("UNROLL_MANUAL_DIR")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise DataError(f"The manual folder {folder} does not exist.")
    return Path(folder)


def in_manual_folder(source: Source, manual_dir: str | Path | None) -> Path | None:
    """The file in the manual folder, if it is there."""
    folder = manual_folder(manual_dir)
    path = folder / source.folder / source.name if folder else None
    return path if path and path.is_file() else None


def find(
    source: Source,
    downloads: tfds.download.DownloadManager,
    manual_dir: str | Path | None,
) -> Path:
    """The file from the manual folder, else downloaded and checked.

    Raises:
        DataError: if it is in neither place, or the download is not the published file.
    """
    path = in_manual_folder(source, manual_dir)
    if path:
        return path
    try:
        path = Path(downloads.download(source.url))
    except Exception as error:
        where = manual_folder(manual_dir) or "the folder that UNROLL_MANUAL_DIR names"
        raise DataError(
            f"{source.url} cannot be downloaded ({type(error).__name__}): "
            f"put the file at {source.folder}/{source.name} in {where}."
        ) from None
    if source.sha256 and _sha256(path) != source.sha256:
        path.unlink()
        raise DataError(f"{source.url} is not the published file: its sha256 differs.")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
