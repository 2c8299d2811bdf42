"""Training: one `fit`, and one callback that can stop, keep the best and be taken up again."""

import json
import math
import os
import sys
import time
from types import ModuleType

import keras
import numpy as np

from apps.core import distribution
from apps.core.config import TrainingConfig
from apps.core.errors import UsageError
from apps.core.runs import Run, atomic, write_json

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
        resume: whether to go on where the run stopped. It ends with what an unbroken one gives.

    Returns:
        `epochs`, `best_epoch`, the best value of `config.monitor`, `parameters`, `seconds`.

    Raises:
        UsageError: if the loss is not finite, or the run to resume has no state.
    """
    scope = distribution.strategy(strategy)
    started = time.monotonic()
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        data = app.load(config, run.assets() if resume else None)
        if distribution.is_chief(scope):
            run.write_config(app, config)
            run.write_assets(data.assets)
        with scope.scope():
            model = app.build(config, data.assets)
            model.optimizer.build(model.trainable_variables)
        distribution.prepare(model, scope, data.train)
        progress = Progress(run, config, writes=distribution.is_chief(scope))
        progress.set_model(model)
        if resume:
            progress.restore(model)
            # Each epoch of `fit` takes an iterator of its own, and with it the next seeds of the
            # shuffles: those of the epochs that are done are taken here.
            for _ in range(progress.epochs):
                iter(data.train)
        callbacks = [progress]
        if progress.writes:
            callbacks.append(keras.callbacks.TensorBoard(run.logs, write_graph=False))
        if not progress.finished:
            model.fit(
                data.train,
                validation_data=data.valid,
                epochs=config.epochs,
                initial_epoch=progress.epochs,
                callbacks=callbacks,
                shuffle=False,  # the dataset does that
                verbose="auto" if sys.stdout.isatty() else 2,
            )
            progress.finish()
    finally:
        keras.config.set_dtype_policy(policy)
    seconds = progress.seconds + time.monotonic() - started
    if progress.writes:
        run.write_environment(seconds=round(seconds, 1), command=" ".join(sys.orig_argv[1:]))
    return {
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        config.monitor: progress.best,
        "parameters": model.count_params(),
        "seconds": seconds,
    }


def weights_of(model: keras.Model) -> keras.Model:
    """The model without its optimizer, whose state would triple a file of weights."""
    return keras.Model(model.inputs, model.outputs)


class Progress(keras.callbacks.Callback):
    """Keeps the best weights, stops when nothing gets better, and saves the state of each epoch.

    One callback instead of Keras's three, for those do not restore one another's state.

    Args:
        run: where to write.
        config: `monitor`, `patience`, `schedule`, `learning_rate` and `epochs` are read.
        writes: whether this process is the one that writes.
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
        self.finished = False

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    def on_epoch_begin(self, epoch, logs=None):
        rate = self.config.learning_rate
        if self.config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * epoch / self.config.epochs))
        self.model.optimizer.learning_rate = rate
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if not np.all(np.isfinite(logs["loss"])):
            raise UsageError(
                f"The loss is {float(np.max(logs['loss']))} at epoch {self.epochs + 1}, step "
                f"{batch + 1}: try a smaller --learning-rate or --clip-norm."
            )

    def on_epoch_end(self, epoch, logs=None):
        figures = {name: float(np.mean(value)) for name, value in logs.items()}
        if self.config.monitor not in figures:
            raise UsageError(
                f"--monitor={self.config.monitor}: this model has {', '.join(sorted(figures))}."
            )
        figures["learning_rate"] = float(self.model.optimizer.learning_rate)
        self.history.append(figures)
        self.seconds += time.monotonic() - self.began
        value = figures[self.config.monitor]
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best, self.best_epoch = value, epoch + 1
            if self.writes:
                with atomic(self.run.best) as temporary:
                    weights_of(self.model).save_weights(temporary)
        if epoch + 1 - self.best_epoch >= self.config.patience:
            self.model.stop_training = True
        self.save()

    def finish(self) -> None:
        self.finished = True
        self.save()

    def save(self) -> None:
        """Writes the state in one stroke."""
        if not self.writes:
            return
        write_json(self.run.history, self.history)
        own = ("history", "best", "best_epoch", "seconds", "finished")
        state = {f"variable_{i}": v.numpy() for i, v in enumerate(self._variables())}
        state["progress"] = np.array(json.dumps({name: getattr(self, name) for name in own}))
        with atomic(self.run.state) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)
            file.flush()
            os.fsync(file.fileno())

    def restore(self, model: keras.Model) -> None:
        """Takes up the state that `save` wrote.

        Raises:
            UsageError: if there is none, or it is of another model.
        """
        if not self.run.state.is_file():
            raise UsageError(f"{self.run.path} cannot be resumed: no epoch of it was finished.")
        with np.load(self.run.state) as state:
            for name, value in json.loads(str(state["progress"])).items():
                setattr(self, name, value)
            variables = self._variables()
            if len(variables) != len(state.files) - 1:
                raise UsageError(f"{self.run.state} is of another model or version.")
            for i, variable in enumerate(variables):
                variable.assign(state[f"variable_{i}"])

    def _variables(self) -> list:
        # With the states of the dropouts' generators and of the optimizer.
        return [*self.model.variables, *self.model.optimizer.variables]
