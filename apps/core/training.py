"""Training: one `fit`, and one callback that can stop, keep the best and be taken up again."""

import json
import os
import sys
import time
import zipfile
from types import ModuleType

import keras
import numpy as np

from unroll.apps.core import distribution, transfer
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import weights_of
from unroll.apps.core.runs import Run, atomic, write_json

# What is better when it is less.
_LESS_IS_BETTER = ("loss", "error", "rate", "perplexity")


def train(
    app: ModuleType,
    config: TrainingConfig,
    run: Run,
    *,
    strategy: str = "default",
    resume: bool = False,
) -> dict:
    """Trains a model into a run's folder.

    Args:
        app: the app's module.
        config: of the run.
        run: its folder. It gets the best weights, the last state, the history, TensorBoard logs.
        strategy: `default`, `mirrored`, `multiworker` or `tpu`.
        resume: whether to go on where the run stopped. It ends with what an unbroken one gives;
            a run that has ended is left as it is.

    Returns:
        `epochs`, `best_epoch`, the best value of `config.monitor`, `parameters`, `seconds`.

    Raises:
        UsageError: if the data have no training split, the loss is not finite, or the state to go
            on from is broken.
    """
    progress = Progress(run, config, writes=distribution.is_chief(strategy))
    resume = resume and run.state.is_file()  # killed in its first epoch, a run starts anew
    used = distribution.strategy(strategy)
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        data = app.load(config, run.assets() if resume else None)
        if data.train is None:
            raise UsageError(f"{config.data} has no training split.")
        if (steps := int(data.train.cardinality())) < 1:
            raise ValueError("The training set must know its number of batches.")
        if progress.writes:
            run.remove_half_written()
        if progress.writes and not resume:
            run.write_config(app, config)
            run.write_assets(data.assets)
        # To prepare a dataset, once, draws random numbers: the weights do not depend on that.
        keras.utils.set_random_seed(config.seed)
        with used.scope():
            model = app.build(config, data.assets)
            if config.start and not resume:
                copied = transfer.copy(app, model, data.assets, config.start)
                if progress.writes:
                    print(f"{copied} of {len(model.weights)} weights are those of {config.start}.")
            model.optimizer.build(model.trainable_variables)
        train_set, valid_set = distribution.prepare(model, used, data.train, data.valid)
        progress.set_model(model)
        if resume:
            progress.restore()
            # Each pass takes the next seeds of the shuffles: those of the epochs that are done are
            # taken here. A shuffle before the buckets takes its seeds with the first element.
            for _ in range(0 if progress.finished else progress.epochs):
                next(iter(train_set))
        if progress.finished:
            print(f"{run.path} had ended after {progress.epochs} epochs: nothing is changed.")
        else:
            callbacks = [progress]
            if progress.writes:
                callbacks.append(keras.callbacks.TensorBoard(run.logs, write_graph=False))
            if hasattr(app, "callbacks"):
                callbacks += app.callbacks(config, progress.history)
            model.fit(
                # One iterator for all epochs: Keras would open some that it does not read, whose
                # seeds would be missed by what resumes.
                train_set.repeat(),
                steps_per_epoch=steps,
                validation_data=valid_set,
                epochs=config.epochs,
                initial_epoch=progress.epochs,
                callbacks=callbacks,
                shuffle=False,  # the dataset does that
                verbose=("auto" if sys.stdout.isatty() else 2) if progress.writes else 0,
            )
    finally:
        keras.config.set_dtype_policy(policy)
    return {
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        config.monitor: progress.best,
        "parameters": model.count_params(),
        "seconds": progress.seconds,
    }


class Progress(keras.callbacks.Callback):
    """Keeps the best weights, stops when nothing gets better, and saves the state of each epoch.

    One callback instead of Keras's three, for those do not restore one another's state.

    Args:
        run: where to write.
        config: what it says of epochs, learning rate and choice is read.
        writes: whether this process is the one that writes.

    Raises:
        UsageError: from `fit`, if a loss is not finite or there is no figure to monitor. The best
            weights stay.
    """

    def __init__(self, run: Run, config: TrainingConfig, writes: bool = True):
        super().__init__()
        self.run = run
        self.config = config
        self.writes = writes
        self.sign = -1 if config.monitor.endswith(_LESS_IS_BETTER) else 1
        self.history: list[dict] = []
        self.best: float | None = None
        self.best_epoch = 0
        self.seconds = 0.0
        self.clock = time.monotonic()

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        waited = self.epochs - max(self.best_epoch, self.config.preparing_epochs(self.history))
        return self.epochs >= self.config.epochs or waited >= self.config.patience

    def on_epoch_begin(self, epoch, logs=None):
        self.rate = self.config.learning_rate_at(epoch, self.history)
        self.model.optimizer.learning_rate = self.rate

    def on_train_batch_end(self, batch, logs=None):
        self.step = batch + 1
        self._must_be_finite("loss", np.max(logs["loss"]))

    def _must_be_finite(self, name, value):
        if not np.isfinite(value):
            raise UsageError(
                f"The {name} is {value} at epoch {self.epochs + 1}, step {self.step}: try a "
                "smaller --learning-rate or --clip-norm, or --precision=float32."
            )

    def on_epoch_end(self, epoch, logs=None):
        figures = {name: float(np.mean(value)) for name, value in logs.items()}
        if self.config.monitor not in figures:
            raise UsageError(
                f"--monitor={self.config.monitor}: this model has {', '.join(sorted(figures))}."
            )
        # Weights that the last step has spoilt show in no training loss.
        for name in {"val_loss", self.config.monitor} & figures.keys():
            self._must_be_finite(name, figures[name])
        figures["learning_rate"] = self.rate
        self.history.append(figures)
        value = figures[self.config.monitor]
        first = self.best is None or epoch == self.config.preparing_epochs(self.history)
        if first or self.sign * value > self.sign * self.best:
            self.best, self.best_epoch = value, epoch + 1
            if self.writes:
                with atomic(self.run.best) as temporary:
                    weights_of(self.model).save_weights(temporary)
        now = time.monotonic()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        self.model.stop_training = self.finished
        if self.writes:
            self.save()

    def save(self) -> None:
        """Writes the state in one stroke."""
        command = " ".join(sys.orig_argv[1:])
        self.run.write_environment(seconds=round(self.seconds, 1), command=command)
        write_json(self.run.history, self.history)
        own = ("history", "best", "best_epoch", "seconds")
        state = {
            f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self._variables())
        }
        state["progress"] = np.array(json.dumps({name: getattr(self, name) for name in own}))
        with atomic(self.run.state) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)
            file.flush()
            os.fsync(file.fileno())

    def restore(self) -> None:
        """Takes up the state that `save` wrote.

        Raises:
            UsageError: if it cannot be read, or is of another model.
        """
        try:
            with self.run.state.open("rb") as opened, np.load(opened) as file:
                state = {name: file[name] for name in file.files}
            progress = json.loads(str(state.pop("progress")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UsageError(f"{self.run.state} cannot be read: {error}") from None
        variables = self._variables()
        if [v.shape for v in variables] != [value.shape for value in state.values()]:
            raise UsageError(f"{self.run.state} is of another model or version.")
        for variable, value in zip(variables, state.values(), strict=True):
            variable.assign(value)
        for name, value in progress.items():
            setattr(self, name, value)

    def _variables(self) -> list:
        # With the states of the dropouts' generators and of the optimizer.
        return [*self.model.variables, *self.model.optimizer.variables]
