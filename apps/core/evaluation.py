"""A run's trained model, and its figures on a split."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import write_bytes
from unroll.apps.core.protocol import Report, Trained, hook
from unroll.apps.core.runs import Run


class _WeightsFile(io.BytesIO):
    """A file of weights in memory, since HDF5 crashes if the disk is full."""

    def __str__(self) -> str:
        return "memory.weights.h5"  # Keras chooses the format by the end of the name


def save_weights(model: keras.Model, run: Run) -> None:
    """Writes the best weights of a run, without the state of the optimizer.

    Figures of previous weights, of a run that was evaluated and is resumed, are removed.

    Raises:
        OSError: that names the file. The previous weights remain.
    """
    file = _WeightsFile()
    # Without its optimizer, whose state would triple the size of the file.
    keras.Model(model.inputs, model.outputs).save_weights(file)
    run.write(run.best.name, file.getvalue())
    run.remove_metrics()


def load_trained(app: ModuleType, run: Run) -> Trained:
    """The configuration, the assets and the model of a run, with its best weights.

    Raises:
        UsageError: if a file of the run is broken, or the weights do not fit.
    """
    config, assets, weights = run.config(app), run.assets(), run.read(run.best.name)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = app.build(config, assets)
    finally:
        keras.config.set_dtype_policy(policy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below has the same content
            keras.Model(model.inputs, model.outputs).load_weights(_WeightsFile(weights))
    except (OSError, ValueError, KeyError) as error:
        # Keras appends an example of many lines.
        why = str(error).splitlines()[0].partition(" Example error")[0]
        raise UsageError(f"{run.best} cannot be loaded: {why}") from None
    return Trained(config, assets, model)


def load_ensemble(app: ModuleType, runs: list[Run]) -> Trained:
    """Several runs as one model, with the configuration of the first; or that of a single run.

    Raises:
        UsageError: if a file of a run is broken, the app has no ensembles, or the runs do not fit
            together.
    """
    members = [load_trained(app, run) for run in runs]
    if len(members) == 1:
        return members[0]
    ensemble = hook(app, "ensemble")
    if ensemble is None:
        raise UsageError("this app cannot use several runs as one model.")
    return ensemble(members)


def evaluate(
    app: ModuleType,
    run: Run,
    split: str = "test",
    show: Callable[[dict], None] = lambda figures: None,
) -> dict:
    """The task's figures on a whole split.

    They are also written to the run's `metrics.json` under the split's name, with the search
    options that override those of the run.

    Args:
        app: the app's module.
        run: a trained run.
        split: the name of the split.
        show: receives the figures before they are written, so that they are not lost if that fails.

    Returns:
        `data`, `split`, `examples` and the app's metrics.

    Raises:
        UsageError: if the run cannot be loaded, or the dataset has no such split.
        OSError: if `metrics.json` cannot be written.
    """
    figures = compute(app, run, split)
    show(figures)
    run.write_metrics(split, figures)
    return figures


def compute(app: ModuleType, run: Run, split: str = "test") -> dict:
    """Like `evaluate`, without writing a file."""
    trained, dataset = load_split(app, [run], split)
    return {"data": trained.config.data, "split": split, **app.score(trained, dataset)}


def evaluate_ensemble(app: ModuleType, runs: list[Run], split: str = "test") -> dict:
    """The task's figures of several runs as one model, on a whole split. It writes no file.

    Returns:
        As `evaluate`, with the paths of the `runs`.

    Raises:
        UsageError: as `load_ensemble`, or if the dataset has no such split.
    """
    trained, dataset = load_split(app, runs, split)
    about = {"data": trained.config.data, "split": split, "runs": [str(run.path) for run in runs]}
    return {**about, **app.score(trained, dataset)}


def load_split(app: ModuleType, runs: list[Run], split: str) -> tuple[Trained, tf.data.Dataset]:
    """The trained model of one or several runs, and one split of its dataset.

    Raises:
        UsageError: as `load_ensemble`, or if the dataset has no such split.
    """
    trained = load_ensemble(app, runs)
    return trained, app.load(trained.config, (split,), trained.assets)[split]


def report(
    app: ModuleType,
    run: Run,
    split: str = "test",
    show: Callable[[str], None] = lambda text: None,
) -> tuple[str, list[Path]]:
    """What a run gets wrong on a split, also written to the run's folder `report`.

    Args:
        app: the app's module.
        run: a trained run.
        split: the name of the split.
        show: receives the text before it is written, so that it is not lost if that fails.

    Returns:
        The text, in Markdown, and the files: `<split>.md`, `<split>-<figure>.png`, and those of the
        app's report.

    Raises:
        UsageError: if the run cannot be loaded, or the dataset has no such split.
        OSError: if a file cannot be written.
    """
    made: Report = app.report(*load_split(app, [run], split))
    show(made.text)
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    contents = {f"{split}.md": (made.text.rstrip() + "\n").encode()}
    for name, figure in made.figures.items():
        image = io.BytesIO()
        figure.savefig(image, dpi=100, format="png")
        contents[f"{split}-{name}.png"] = image.getvalue()
    contents |= made.files
    try:
        for name, content in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_bytes(folder / name, content)
    except OSError:
        with contextlib.suppress(OSError):  # it has earlier reports
            folder.rmdir()
        raise
    return made.text, [folder / name for name in contents]
