"""Where the files of a dataset come from: a manual folder first, the published address else."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import requests
import tensorflow_datasets as tfds

from unroll.pipelines.errors import DataError


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
    """The file from the manual folder, else downloaded; where its sha256 is known, checked.

    Raises:
        DataError: if it is in neither place, or is not the published file.
    """
    path = in_manual_folder(source, manual_dir)
    if path:
        if not _as_published(path, source):
            raise DataError(f"{path} is not the published file: its sha256 differs.")
        return path
    require_reachable(source, manual_dir)
    try:
        path = Path(downloads.download(source.url))
    except Exception as error:  # of requests, TFDS or the operating system
        raise _cannot_download(source, manual_dir, error) from None
    if not _as_published(path, source):
        for written in path.parent.glob(path.name + "*"):  # and TFDS's note beside it
            written.unlink()
        raise DataError(f"{source.url} is not the published file: its sha256 differs.")
    return path


def require_reachable(source: Source, manual_dir: str | Path | None, timeout: float = 20) -> None:
    """Asks for the published file, since TFDS repeats a failing download for minutes.

    Raises:
        DataError: if the address does not answer within `timeout` seconds, or has no such file.
    """
    try:
        with requests.get(source.url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
    except requests.RequestException as error:
        raise _cannot_download(source, manual_dir, error) from None


def of_tfds(
    archive: Source, *, manual_dir: str | Path | None = None, data_dir: str | Path | None = None
) -> tfds.core.DatasetBuilder:
    """TFDS's own builder of the archive's folder, which downloads where it was not prepared yet.

    Raises:
        DataError: one line, if it has to be downloaded and cannot be.
    """
    made = tfds.builder(archive.folder, data_dir=data_dir, try_gcs=False)
    if not made.is_prepared():
        try:
            require_reachable(archive, manual_dir)
        except DataError as error:
            why = str(error).partition(": put")[0]
            raise DataError(f"{why}: name a folder of its unpacked archives instead.") from None
    return made


def _cannot_download(source: Source, manual_dir: str | Path | None, error: Exception) -> DataError:
    answer = getattr(error, "response", None)
    why = type(error).__name__ if answer is None else f"HTTP {answer.status_code}"
    path = f"{source.folder}/{source.name}"
    folder = manual_folder(manual_dir)
    where = f"{folder}/{path}" if folder else f"{path} in the folder of UNROLL_MANUAL_DIR"
    return DataError(f"{source.url} cannot be downloaded ({why}): put the file at {where}.")


def _as_published(path: Path, source: Source) -> bool:
    return source.sha256 is None or _sha256(path) == source.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
