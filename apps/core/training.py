"""Training: one `fit`, with one callback that keeps the best weights, stops and resumes."""

import contextlib
import io
import json
import sys
import time
import zipfile
from types import ModuleType

import keras
import numpy as np

from unroll.apps.core import distribution, transfer
from unroll.apps.core.config import TrainingConfig, monitor_direction
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import save_weights
from unroll.apps.core.files import encode_json
from unroll.apps.core.logs import TensorBoardLogs
from unroll.apps.core.protocol import Assets, hook
from unroll.apps.core.runs import Run


def train(
    app: ModuleType,
    config: TrainingConfig,
    run: Run,
    *,
    strategy: str = "default",
    resume: bool = False,
) -> dict:
    """Trains a model into a run's folder, which no other process can train into meanwhile.

    Whatever ends the process, the folder contains the state after the last finished epoch, or at
    least the configuration, and the training can be resumed.

    Args:
        app: the app's module.
        config: its configuration.
        run: receives the best weights, the last state, the history and TensorBoard logs.
        strategy: `default`, `mirrored`, `multiworker` or `tpu`.
        resume: whether to continue an interrupted run. The result equals that of an uninterrupted
            run; a finished run is not changed.

    Returns:
        `epochs`, `best_epoch`, the best value of `config.monitor`, `parameters`, `seconds`.

    Raises:
        UsageError: if another process uses the folder, or it is deleted; if the model cannot be
            built with these options, or lacks the monitored figure; if the loss is not finite; if a
            file of the run to resume is broken.
        OSError: if a file cannot be written. It names the file.
    """
    direction = monitor_direction(app, config.monitor)
    progress = Progress(run, config, direction, writes=distribution.is_chief(strategy))
    with run.lock if progress.writes else contextlib.nullcontext():
        return _train(app, config, run, progress, strategy, resume)


def _train(
    app: ModuleType,
    config: TrainingConfig,
    run: Run,
    progress: "Progress",
    strategy: str,
    resume: bool,
) -> dict:
    resume = resume and run.state.is_file()  # without a finished epoch, a run starts again
    if resume:
        run.verify()
    used = distribution.strategy(strategy)
    if progress.writes:
        run.remove_half_written()
        if not resume:  # before the data are prepared: a process that is killed then can be resumed
            run.write_config(app, config)
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        assets = run.assets() if resume else None
        data = app.load(config, ("train", "valid"), assets, training=True)
        if (steps := int(data["train"].cardinality())) < 1:
            raise ValueError("The training set must know its number of batches.")
        if progress.writes and not resume:
            run.write_assets(data.assets)
        # Again, since preparing a dataset uses random numbers.
        keras.utils.set_random_seed(config.seed)
        with used.scope():
            model = _build(app, config, data.assets)
            if config.start and not resume:
                carried = transfer.start(app, config, model, data.assets)
                if progress.writes:
                    print(f"Weights of {config.start}:\n{carried}")
            model.optimizer.build(model.trainable_variables)
        train_set, valid_set = distribution.prepare(model, used, data["train"], data["valid"])
        progress.set_model(model)
        if resume:
            progress.restore()
            # Each iterator uses the next seeds of the shuffles: skip those of the finished epochs.
            for _ in range(0 if progress.finished else progress.epochs):
                iter(train_set)
        if progress.finished:
            print(f"{run.path} finished after {progress.epochs} epochs: nothing to do.")
        else:
            callbacks = [*distribution.callbacks(used), progress]
            if progress.writes:
                callbacks.append(TensorBoardLogs(run.logs, progress.history))
            callbacks += hook(app, "callbacks")(config, progress.history)
            model.fit(
                # One iterator for all epochs: Keras would open some that it does not read, and a
                # resumed run would lack their seeds.
                train_set.repeat(),
                steps_per_epoch=steps,
                validation_data=valid_set,
                epochs=config.epochs,
                initial_epoch=progress.epochs,
                callbacks=callbacks,
                shuffle=False,  # the dataset is shuffled already
                verbose=("auto" if sys.stdout.isatty() else 2) if progress.writes else 0,
            )
        if progress.writes:
            run.lock.check()
    finally:
        keras.config.set_dtype_policy(policy)
    return {
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        config.monitor: progress.best,
        "parameters": model.count_params(),
        "seconds": progress.seconds,
    }


def _build(app: ModuleType, config: TrainingConfig, assets: Assets) -> keras.Model:
    """The app's model. Keras and the layers raise a `ValueError` for a wrong size or name."""
    try:
        return app.build(config, assets)
    except UsageError:
        raise
    except ValueError as error:
        why = str(error).strip().splitlines()[0]
        raise UsageError(f"The model cannot be built with these options: {why}") from error


class Progress(keras.callbacks.Callback):
    """Keeps the best weights, stops early, and saves the state after each epoch.

    One callback instead of Keras's three, which do not restore each other's state.

    Args:
        run: where to write.
        config: of the training.
        direction: whether a larger ("max") or smaller ("min") monitored figure is better.
        writes: whether this process writes the run's files.

    Raises:
        UsageError: from `fit`, if a loss is not finite or the monitored figure does not exist. The
            best weights remain.
    """

    def __init__(self, run: Run, config: TrainingConfig, direction: str, writes: bool = True):
        super().__init__()
        self.run = run
        self.config = config
        self.writes = writes
        self.sign = 1 if direction == "max" else -1
        self.history: list[dict] = []
        self.best: float | None = None
        self.best_epoch = 0
        self.seconds = 0.0
        self.clock = time.monotonic()

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether training is complete."""
        waited = self.epochs - max(self.best_epoch, self.config.preparing_epochs(self.history))
        return self.epochs >= self.config.epochs or waited >= self.config.patience

    def on_epoch_begin(self, epoch, logs=None):
        self.rate = self.config.learning_rate_at(epoch, self.history)
        self.model.optimizer.learning_rate = self.rate

    def on_train_batch_end(self, batch, logs=None):
        self.step = batch + 1
        if batch == 0 and not self.epochs:
            self._must_be_a_figure(self.config.monitor, logs)
        self._must_be_finite("loss", np.max(logs["loss"]))

    def _must_be_a_figure(self, monitor, of_model):
        # After one step, not after an epoch. An app declares figures that not all its models have.
        figures = [*of_model, *(f"val_{name}" for name in of_model)]
        if monitor not in figures:
            raise UsageError(f"--monitor={monitor}: this model has {', '.join(figures)}.")

    def _must_be_finite(self, name, value):
        if not np.isfinite(value):
            raise UsageError(
                f"The {name} is {value} at epoch {self.epochs + 1}, step {self.step}: try a "
                "smaller --learning-rate or --clip-norm, or --precision=float32."
            )

    def on_epoch_end(self, epoch, logs=None):
        if self.writes:
            self.run.lock.check()
        figures = {name: float(np.mean(value)) for name, value in logs.items()}
        # The training loss does not show that the last step made the weights non-finite.
        for name in {"val_loss", self.config.monitor} & figures.keys():
            self._must_be_finite(name, figures[name])
        figures["learning_rate"] = self.rate
        self.history.append(figures)
        value = figures[self.config.monitor]
        first = self.best is None or epoch == self.config.preparing_epochs(self.history)
        if first or self.sign * value > self.sign * self.best:
            self.best, self.best_epoch = value, epoch + 1
            if self.writes:
                save_weights(self.model, self.run)
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        self.model.stop_training = self.finished
        if self.writes:
            self.save()

    def save(self) -> None:
        """Writes the state."""
        command = " ".join(sys.orig_argv[1:])
        self.run.write_environment(seconds=round(self.seconds, 1), command=command)
        self.run.write(self.run.history.name, encode_json(self.history))
        own = ("history", "best", "best_epoch", "seconds")
        state = {
            f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self._variables())
        }
        state["progress"] = np.array(json.dumps({name: getattr(self, name) for name in own}))
        file = io.BytesIO()
        np.savez(file, **state)
        self.run.write(self.run.state.name, file.getvalue())

    def restore(self) -> None:
        """Restores the state that `save` wrote.

        Raises:
            UsageError: if it is broken, or belongs to another model.
        """
        content = io.BytesIO(self.run.read(self.run.state.name))
        try:
            with np.load(content) as file:
                state = {name: file[name] for name in file.files}
            progress = json.loads(str(state.pop("progress")))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UsageError(f"{self.run.state} cannot be read: {error}") from None
        variables = self._variables()
        if [v.shape for v in variables] != [value.shape for value in state.values()]:
            raise UsageError(f"{self.run.state} belongs to another model or version.")
        for variable, value in zip(variables, state.values(), strict=True):
            variable.assign(value)
        for name, value in progress.items():
            setattr(self, name, value)

    def _variables(self) -> list:
        # Including the seeds of the dropout layers and the state of the optimizer.
        return [*self.model.variables, *self.model.optimizer.variables]
