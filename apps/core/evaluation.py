"""A run's trained model, and its figures on a split."""

import warnings
from pathlib import Path
from types import ModuleType

import keras
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import atomic, write_json
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run


def weights_of(model: keras.Model) -> keras.Model:
    """The model without its optimizer, whose state would triple the size of a weights file."""
    return keras.Model(model.inputs, model.outputs)


def load_trained(app: ModuleType, run: Run) -> Trained:
    """The configuration, the assets and the model of a run, with its best weights.

    Raises:
        UsageError: if the weights do not fit or cannot be read.
    """
    config, assets = run.config(app), run.assets()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = app.build(config, assets)
    finally:
        keras.config.set_dtype_policy(policy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below has the same content
            weights_of(model).load_weights(run.best)
    except (OSError, ValueError, KeyError) as error:
        # Keras appends an example of many lines.
        why = str(error).splitlines()[0].partition(" Example error")[0]
        raise UsageError(f"{run.best} cannot be loaded: {why}") from None
    return Trained(config, assets, model)


def evaluate(app: ModuleType, run: Run, split: str = "test") -> dict:
    """The task's figures on a whole split.

    They are also written to the run's `metrics.json` under the split's name, with the search
    options that override those of the run.

    Returns:
        `data`, `split`, `examples` and the app's metrics.

    Raises:
        UsageError: if the data have no such split.
    """
    trained, dataset = load_split(app, run, split)
    figures = {"data": trained.config.data, "split": split, **app.score(trained, dataset)}
    written = figures | ({"search": run.search} if run.search else {})
    write_json(run.metrics, {**run.read_metrics(), split: written})
    return figures


def load_split(app: ModuleType, run: Run, split: str) -> tuple[Trained, tf.data.Dataset]:
    """A run's trained model, and one split of its dataset.

    Raises:
        UsageError: if the run cannot be loaded, or the dataset has no such split.
    """
    trained = load_trained(app, run)
    return trained, app.load(trained.config, (split,), trained.assets)[split]


def report(app: ModuleType, run: Run, split: str = "test") -> tuple[str, list[Path]]:
    """What a run gets wrong on a split, also written to the run's folder `report`.

    Returns:
        The text, in Markdown, and the files: `<split>.md` and `<split>-<figure>.png`.

    Raises:
        UsageError: if the run cannot be loaded, or the dataset has no such split.
    """
    made = app.report(*load_split(app, run, split))
    folder = run.path / "report"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{split}.md"]
    with atomic(files[0]) as temporary:
        temporary.write_text(made.text.rstrip() + "\n", encoding="utf-8")
    for name, figure in made.figures.items():
        files.append(folder / f"{split}-{name}.png")
        with atomic(files[-1]) as temporary:
            figure.savefig(temporary, dpi=100)
    return made.text, files
