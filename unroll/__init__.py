"""Recurrent and attention layers for Keras 3, and sequence applications built from them.

`unroll.layers` holds the layers, `unroll.pipelines` the data pipelines and `unroll.apps` the
applications.
"""

from pathlib import Path

__version__ = "0.2.0.dev0"

# In a checkout, `unroll.layers` is the folder `layers` of the repository. An installed wheel has
# these folders inside `unroll`.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "layers" / "__init__.py").is_file():
    __path__.append(str(_root))


def load(folder):
    """Loads a trained model from the folder of a run or of an export.

    Needs the apps: `pip install 'unroll-keras[apps]'`.

    Example:

    ```python
    from unroll import load

    model = load("runs/sentiment/sst2-1")
    [result] = model(["Slow, but worth it."])
    result["label"]  # "positive"
    ```

    Args:
        folder: String or `pathlib.Path`. A run, such as `runs/sentiment/sst2-1`, or a version of an
            export, such as `saved_models/sentiment/1`.

    Returns:
        A function of a list of raw inputs, which returns a list of dicts. Raw inputs are those of
        the app: texts, paths or contents of files, or pairs such as an image and a question; see
        its `examples()`. The function has the attributes `app`, the name of the app, and `config`,
        the configuration of the training.

        The dicts of a run are those of `unroll APP predict RUN INPUT... --json`. Those of an export
        are the outputs of its signature `serving_default`, which the README of the app describes.
        Compared with a run, they are padded with empty strings and zeros to the longest of their
        batch, and they lack what `predict` adds, such as the names of the classes of `sentiment`
        and the probabilities over time of `speech_ctc`. Of a model of `language_model` an export
        returns one sampled text without `top_k`, `top_p` and beam search; of `word_vectors`, the
        neighbors of single words; of `forecasting`, a dict for each series.

    Raises:
        ValueError: If the folder is neither, or a file in it is missing or broken. The message is
            one line.
        ModuleNotFoundError: If a package of the apps is missing.
    """
    try:
        from unroll.apps.core import loading
    except ModuleNotFoundError as error:
        if (error.name or "unroll").partition(".")[0] == "unroll":
            raise
        raise ModuleNotFoundError(
            f"unroll.load needs the package {error.name}: pip install 'unroll-keras[apps]'.",
            name=error.name,
        ) from None
    return loading.load(folder)
