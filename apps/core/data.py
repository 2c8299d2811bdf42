"""The raw splits of an app's dataset."""

from pathlib import Path

import tensorflow as tf

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.pipelines import datasets


class RawSplits:
    """The splits of the dataset that a configuration names, each read when it is first used.

    Args:
        config: names the dataset.
        kind: what the files of a folder of your own are; see `datasets.builder`.
        **options: of `datasets.builder`.
    """

    def __init__(self, config: TrainingConfig, kind: str, **options):
        self.name = config.data
        self.builder = datasets.builder(
            config.data, kind=kind, size=config.generated_size, **options
        )
        self._read: dict[str, tf.data.Dataset] = {}

    def folder(self, split: str) -> Path:
        """Where a split is prepared, and what is computed from it can be stored."""
        return datasets.folder(self.builder, split)

    def __getitem__(self, split: str) -> tf.data.Dataset:
        """Raises a `UsageError` if the dataset has no such split."""
        if split not in self._read:
            if split not in (names := datasets.split_names(self.builder)):
                raise UsageError(f"--split={split}: {self.name} has {', '.join(names)}.")
            self._read[split] = datasets.splits(self.builder, [split])[split]
        return self._read[split]
