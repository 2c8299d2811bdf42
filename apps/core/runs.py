"""A run's folder: all that evaluation, prediction, export and resuming need."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

from unroll.apps.core import checksums, locks
from unroll.apps.core import config as configs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import (
    asset_files,
    decode_asset,
    encode_assets,
    encode_json,
    is_abandoned,
)
from unroll.apps.core.protocol import Assets

PACKAGES = ("tensorflow", "keras", "tensorflow-text", "tensorflow-datasets", "ai-edge-litert")


# The version of the format of a run's folder. Other versions are refused.
FORMAT = 3
# Files that a recorded result changes, and that no run reads.
_RESULTS = (
    ":(top,exclude)apps/*/results.json",
    ":(top,exclude)apps/*/results.md",
    ":(top,exclude)apps/*/formats.json",
    ":(top,exclude)apps/*/README.md",
)


def git_commit() -> str | None:
    """The commit of the running code, with a "+" after local changes; `None` if it is installed."""
    here = Path(__file__)
    try:
        _git("ls-files", "--error-unmatch", here.name)  # site-packages can be inside a checkout
        changed = _git("status", "--porcelain", "-uno", "--", ":/", *_RESULTS)
        return _git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def has_commit(commit: str) -> bool:
    """Whether the repository of the running code contains a commit."""
    try:
        _git("cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def environment() -> dict:
    """Versions, commit and hardware of this process."""
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    cores = _cores()
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": git_commit(),
        "hardware": ", ".join([f"{cores} core{'s' * (cores > 1)}", *gpus]),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # respects taskset and containers; not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Run:
    """The folder of one training run.

    It contains `config.json` (with the name of the app and the format's version), `assets/`,
    `best.weights.h5`, `state.npz` (for resuming), `history.json`, `environment.json`, and
    `metrics.json` by split. `checksums/` has the SHA-256 of each of these; a file that differs from
    it is refused by name. `logs/` (for TensorBoard) and `report/` have no checksums.

    Attributes:
        lock: held by the process that trains the run; see `locks.Lock`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.lock = locks.Lock(self.path)
        self.best = self.path / "best.weights.h5"
        self.state = self.path / "state.npz"
        self.history = self.path / "history.json"
        self.metrics = self.path / "metrics.json"
        self.logs = self.path / "logs"
        self._made: list[Path] = []  # the folders that `create` made, innermost first
        self.search = {}  # search options that override those of the run

    @classmethod
    def create(cls, app: ModuleType, data: str, path: str | Path | None = None) -> "Run":
        """A new folder: `path`, or `runs/<app>/<data>-<n>` with the first free n.

        Raises:
            UsageError: if `path` exists and is not empty, or the folder cannot be created.
        """
        parent = Path("runs") / app_name(app)
        stem = Path(data).resolve().name
        try:
            if path:
                run = cls(path)
                if run.path.exists() and (not run.path.is_dir() or run._has_files()):
                    raise UsageError(f"--run={path} exists: name another folder, or use --resume.")
                run._make(exist_ok=True)
                return run
            for n in itertools.count(1):
                with contextlib.suppress(FileExistsError):
                    run = cls(parent / f"{stem}-{n}")
                    run._make()
                    return run
        except OSError as error:
            raise UsageError(f"{path or parent} cannot be created: {error.strerror}.") from None

    @classmethod
    def open(
        cls, app: ModuleType, path: str | Path, *, trained: bool = True, search: dict | None = None
    ) -> "Run":
        """An existing run of an app.

        Args:
            app: the app's module.
            path: the run's folder.
            trained: whether the run must have weights.
            search: fields of the app's `Search` that override those of the run.

        Raises:
            UsageError: if the folder is not a run of this app and format, has no weights, or a
                field is out of range.
        """
        run = cls(path)
        if not trained and run.path.is_dir() and not run._has_files():
            raise UsageError(f"{path} has no training to resume: start one without --resume.")
        about = run._about()
        if (owner := about.get("app")) != app_name(app):
            raise UsageError(f"{path} is a run of {owner}, not of {app_name(app)}.")
        if (version := about.get("format", 1)) != FORMAT:
            raise UsageError(
                f"{path} is a run of format {version}, and this version of Unroll reads format "
                f"{FORMAT}: train it again."
            )
        if trained and not run.best.is_file():
            raise UsageError(f"{path} has no weights (best.weights.h5): it was not trained.")
        if search:
            run.search = search
            try:
                run.config(app)
            except ValueError as error:
                raise UsageError(str(error)) from None
        return run

    def _make(self, exist_ok: bool = False) -> None:
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=exist_ok)

    def remove(self) -> None:
        """Removes what can be removed: the files, and the folders of `create` if now empty."""
        with contextlib.suppress(OSError):
            for path in self.path.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        path.unlink()
            for path in self._made:
                path.rmdir()

    def app(self) -> str:
        """The name of the app that an existing run belongs to.

        Raises:
            UsageError: if the folder is not a run.
        """
        return str(self._about().get("app"))

    def _about(self) -> dict:
        if not (self.path / "config.json").is_file():
            raise UsageError(f"{self.path} is not a run folder: it has no config.json.")
        return self._json("config.json", self._unverified("config.json"))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the run and its checksum, completely or not at all.

        Raises:
            OSError: that names the file. A previous file remains.
        """
        checksums.write(self.path, name, content)

    def read(self, name: str) -> bytes:
        """The content of a file of the run.

        Raises:
            UsageError: that names the file, if it is missing or is not what was written.
        """
        return checksums.read(self.path, name)

    def verify(self) -> None:
        """Reads all files of a trained run.

        Raises:
            UsageError: that names the first file that is missing or is not what was written.
        """
        written = {file.relative_to(self.path).as_posix() for file in self._asset_files()}
        written |= {"config.json", self.best.name, self.history.name, "environment.json"}
        written |= set(checksums.names(self.path))
        for name in sorted(written - {self.metrics.name}):
            self.read(name)

    def write_config(self, app: ModuleType, config: configs.TrainingConfig) -> None:
        about = {"app": app_name(app), "format": FORMAT}
        self.write("config.json", encode_json(about | configs.to_json(config)))

    def config(self, app: ModuleType) -> configs.TrainingConfig:
        """The configuration of the training, with the search options that override it."""
        fields = self._json("config.json", self._unverified("config.json"))
        fields = {k: v for k, v in fields.items() if k not in ("app", "format")}
        config = configs.from_json(app.Config, fields, str(self.path / "config.json"))
        self.read("config.json")  # after the errors above, which say more
        return dataclasses.replace(config, **self.search)

    def write_assets(self, assets: Assets) -> None:
        (self.path / "assets").mkdir(exist_ok=True)
        for name, content in encode_assets(assets).items():
            self.write(f"assets/{name}", content)

    def assets(self) -> Assets:
        """The assets that the run was trained with."""
        assets = {}
        for file in self._asset_files():
            content = self.read(f"assets/{file.name}")
            try:
                assets[file.stem] = decode_asset(file.suffix, content)
            except (ValueError, EOFError) as error:
                raise UsageError(f"{file} cannot be read: {error}") from None
        if not assets:
            raise UsageError(f"{self.path} has no assets: it was not trained.")
        return assets

    def _asset_files(self) -> list[Path]:
        """The files of assets that are there, or that have a checksum."""
        recorded = {
            self.path / name for name in checksums.names(self.path) if name.startswith("assets/")
        }
        return sorted(recorded.union(asset_files(self.path / "assets")))

    def remove_half_written(self) -> None:
        """Removes temporary files of processes that have ended; see `files.is_abandoned`."""
        for file in self.path.rglob(".*"):
            if is_abandoned(file):
                file.unlink(missing_ok=True)

    def environment(self) -> dict:
        return self._json("environment.json", self.read("environment.json"))

    def write_environment(self, **more) -> None:
        self.write("environment.json", encode_json({**environment(), **more}))

    def read_metrics(self) -> dict:
        """The figures of each evaluated split."""
        if not self.metrics.is_file():
            return {}
        return self._json("metrics.json", self.read("metrics.json"))

    def write_metrics(self, split: str, figures: dict) -> None:
        """Adds the figures of a split, with the search options that override those of the run.

        Other splits that are evaluated at the same time, in other processes, keep their figures.

        Raises:
            OSError: if the file cannot be written.
        """
        figures = figures | ({"search": self.search} if self.search else {})
        with locks.Lock(self.path, name=".metrics.lock", wait=True):
            self.write("metrics.json", encode_json({**self.read_metrics(), split: figures}))

    def remove_metrics(self) -> None:
        """Removes the figures of all splits, since the weights have changed."""
        for path in (self.metrics, self.path / checksums.FOLDER / self.metrics.name):
            path.unlink(missing_ok=True)

    def _has_files(self) -> bool:
        """Whether the folder has more than what a process leaves that is killed at once."""
        begun = {locks.NAME, checksums.FOLDER, f"{checksums.FOLDER}/config.json"}
        return any(
            path.relative_to(self.path).as_posix() not in begun and not is_abandoned(path)
            for path in self.path.rglob("*")
        )

    def _unverified(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UsageError(f"{self.path / name} cannot be read: {error.strerror}.") from None

    def _json(self, name: str, content: bytes) -> dict:
        try:
            value = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.path / name} cannot be read: {error}") from None
        if not isinstance(value, dict):
            raise UsageError(f"{self.path / name} is not a JSON object.")
        return value


def app_name(app: ModuleType) -> str:
    """`sentiment` for the module `unroll.apps.sentiment.app`."""
    return app.__name__.removesuffix(".app").split(".")[-1]
