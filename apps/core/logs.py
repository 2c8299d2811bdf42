"""The figures of each epoch, for TensorBoard."""

from pathlib import Path

import keras
import tensorflow as tf


class TensorBoardLogs(keras.callbacks.Callback):
    """Writes the figures of each epoch for TensorBoard.

    Keras's callback keeps them in memory for up to two minutes, and a process that is killed loses
    them.

    Args:
        folder: receives the folders `train` and `validation`.
        history: the figures of each finished epoch. Another callback adds those of the last one.

    Raises:
        tf.errors.OpError: from `fit`, if a file cannot be written.
    """

    def __init__(self, folder: Path, history: list[dict]):
        super().__init__()
        self.folder = folder
        self.history = history
        self.writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs=None):
        # A process may have been killed after it had saved an epoch and before this.
        if self.history:
            self._write()

    def on_epoch_end(self, epoch, logs=None):
        self._write()

    def on_train_end(self, logs=None):
        for writer in self.writers.values():
            writer.close()

    def _write(self) -> None:
        for name, value in self.history[-1].items():
            split = "validation" if name.startswith("val_") else "train"
            if split not in self.writers:
                self.writers[split] = tf.summary.create_file_writer(str(self.folder / split))
            with self.writers[split].as_default(step=len(self.history) - 1):
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value)
        for writer in self.writers.values():
            writer.flush()
