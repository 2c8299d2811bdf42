"""Published files of datasets: from the manual folder, or downloaded."""

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
        name: the published file name. It may contain a `/`.
        url: the published address.
        sha256: the checksum of the file, or `None` if it is not known.
    """

    folder: str
    name: str
    url: str
    sha256: str | None = None


def manual_folder(manual_dir: str | Path | None = None) -> Path | None:
    """`manual_dir`, or the folder in the environment variable `UNROLL_MANUAL_DIR`, if it is set.

    Raises:
        DataError: if the folder does not exist.
    """
    folder = manual_dir or os.environ.get("UNROLL_MANUAL_DIR")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise DataError(f"The manual folder {folder} does not exist.")
    return Path(folder)


def in_manual_folder(source: Source, manual_dir: str | Path | None) -> Path | None:
    """The path of the file in the manual folder, or `None` if it is not there."""
    folder = manual_folder(manual_dir)
    path = folder / source.folder / source.name if folder else None
    return path if path and path.is_file() else None


def find(
    source: Source,
    downloads: tfds.download.DownloadManager,
    manual_dir: str | Path | None,
) -> Path:
    """The path of a published file in the manual folder, or of its download.

    Raises:
        DataError: if the file cannot be found or downloaded, or if its sha256 differs.
    """
    path = in_manual_folder(source, manual_dir)
    if path:
        if not _is_published(path, source):
            raise DataError(f"{path} is not the published file: its sha256 differs.")
        return path
    require_reachable(source, manual_dir)
    try:
        path = Path(downloads.download(source.url))
    except Exception as error:  # from requests, TFDS or the operating system
        raise _cannot_download(source, manual_dir, error) from None
    if not _is_published(path, source):
        for written in path.parent.glob(path.name + "*"):  # and the file that TFDS writes beside it
            written.unlink()
        raise DataError(f"{source.url} is not the published file: its sha256 differs.")
    return path


def require_reachable(source: Source, manual_dir: str | Path | None, timeout: float = 20) -> None:
    """Requests the published file. TFDS would repeat a failing download for minutes.

    Raises:
        DataError: if the address does not respond within `timeout` seconds, or has no such file.
    """
    try:
        with requests.get(source.url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
    except requests.RequestException as error:
        raise _cannot_download(source, manual_dir, error) from None


def _cannot_download(source: Source, manual_dir: str | Path | None, error: Exception) -> DataError:
    response = getattr(error, "response", None)
    why = type(error).__name__ if response is None else f"HTTP {response.status_code}"
    path = f"{source.folder}/{source.name}"
    folder = manual_folder(manual_dir)
    target = f"{folder}/{path}" if folder else f"{path} in the folder of UNROLL_MANUAL_DIR"
    return DataError(f"{source.url} cannot be downloaded ({why}): put the file at {target}.")


def _is_published(path: Path, source: Source) -> bool:
    return source.sha256 is None or _sha256(path) == source.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
