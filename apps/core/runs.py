"""A run's folder: everything that evaluating, predicting, exporting and resuming need."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from unroll.apps.core import config as configs
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, settings_asset, settings_of

PACKAGES = ("tensorflow", "keras", "tensorflow-text", "tensorflow-datasets", "ai-edge-litert")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when all is written, and vanishes else."""
    # The suffix stays: some writers choose their format by it.
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Writes an object in one stroke."""
    with atomic(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def git_commit() -> str | None:
    """The commit of the code that runs, if it is a checkout; with a + if it was changed since."""
    here = Path(__file__)

    def git(*arguments):
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # installed, it may lie in another checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def environment() -> dict:
    """What a run ran on."""
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
    if hasattr(os, "sched_getaffinity"):  # what this process may use, where the system tells
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Run:
    """The folder of one training run.

    It holds `config.json` (with the name of the app), `assets/<name>.txt`, `best.weights.h5`,
    `state.npz` (all that resuming needs), `history.json`, `logs/` for TensorBoard, `metrics.json`
    by split and `environment.json`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.best = self.path / "best.weights.h5"
        self.state = self.path / "state.npz"
        self.history = self.path / "history.json"
        self.metrics = self.path / "metrics.json"
        self.logs = self.path / "logs"
        self.search = {}  # what was set anew when it was opened

    @classmethod
    def create(cls, app: ModuleType, data: str, path: str | Path | None = None) -> "Run":
        """A new folder: `path`, or `runs/<app>/<data>-<n>` with the next n that is free.

        Raises:
            UsageError: if `path` exists and is not empty, or no folder can be made.
        """
        parent = Path("runs") / app_name(app)
        stem = Path(data).resolve().name
        try:
            if path:
                run = cls(path)
                if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
                    raise UsageError(f"--run={path} exists: name another folder, or use --resume.")
                run.path.mkdir(parents=True, exist_ok=True)
                return run
            parent.mkdir(parents=True, exist_ok=True)
            for n in itertools.count(1):
                with contextlib.suppress(FileExistsError):
                    (parent / f"{stem}-{n}").mkdir()
                    return cls(parent / f"{stem}-{n}")
        except OSError as error:
            raise UsageError(f"{path or parent} cannot be made: {error.strerror}.") from None

    @classmethod
    def open(
        cls, app: ModuleType, path: str | Path, *, trained: bool = True, search: dict | None = None
    ) -> "Run":
        """An existing run of an app.

        Args:
            app, path: which.
            trained: whether it must have weights.
            search: fields of the app's `Search`, which stand here in the place of the run's own.

        Raises:
            UsageError: if it is none, has no weights, or a field is out of its range.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            raise UsageError(f"{path} is no run folder: it has no config.json.")
        owner = run._read("config.json").get("app")
        if owner != app_name(app):
            raise UsageError(f"{path} is a run of {owner}, not of {app_name(app)}.")
        if trained and not run.best.is_file():
            raise UsageError(f"{path} has no weights (best.weights.h5): it was not trained.")
        if search:
            run.search = search
            try:
                run.config(app)
            except ValueError as error:
                raise UsageError(str(error)) from None
        return run

    def write_config(self, app: ModuleType, config: configs.TrainingConfig) -> None:
        write_json(self.path / "config.json", {"app": app_name(app), **configs.to_json(config)})

    def config(self, app: ModuleType) -> configs.TrainingConfig:
        """The configuration that the run was trained with, and opened."""
        fields = self._read("config.json")
        fields.pop("app")
        config = configs.from_json(app.Config, fields, str(self.path / "config.json"))
        return dataclasses.replace(config, **self.search)

    def write_assets(self, assets: Assets) -> None:
        (self.path / "assets").mkdir(exist_ok=True)
        for name, lines in assets.items():
            for line in lines:
                if "\n" in line:
                    raise ValueError(f"Asset {name}: {line!r} is no single line.")
            with atomic(self.path / "assets" / f"{name}.txt") as temporary:
                temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())

    def assets(self) -> Assets:
        """The vocabularies and labels that the run was trained with, the settings as opened."""
        files = sorted((self.path / "assets").glob("[!.]*.txt"))
        if not files:
            raise UsageError(f"{self.path} has no assets: it was not trained.")
        assets = {
            # Bytes, for a text file would take a carriage return for the end of a line.
            file.stem: file.read_bytes().decode().split("\n")[:-1]
            for file in files
        }
        if self.search:
            assets["settings"] = settings_asset(settings_of(assets) | self.search)
        return assets

    def remove_half_written(self) -> None:
        """Removes what a killed process was about to write."""
        for file in self.path.glob("**/.[0-9]*.*"):
            file.unlink()

    def environment(self) -> dict:
        return self._read("environment.json")

    def write_environment(self, **more) -> None:
        write_json(self.path / "environment.json", {**environment(), **more})

    def read_metrics(self) -> dict:
        """The figures of each split that was evaluated."""
        return self._read("metrics.json") if self.metrics.is_file() else {}

    def _read(self, name: str) -> dict:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / name} cannot be read: {error}") from None
        if not isinstance(value, dict):
            raise UsageError(f"{self.path / name} holds no JSON object.")
        return value


def app_name(app: ModuleType) -> str:
    """`sentiment` for `apps.sentiment.app`."""
    return app.__name__.removesuffix(".app").split(".")[-1]
