"""What an app is: the names that `apps/<app>/app.py` defines, and the types that they exchange.

An app is a module, and the functions of `apps.core` take it as an argument. It defines the names
in `REQUIRED`, with the signatures given there, and may define those in `OPTIONAL`. `hook` returns
an optional name or its default. `tests/apps/test_contract.py` checks every app.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

# What a trained model needs beside its weights: lines of text (a vocabulary, labels), a JSON
# object, bytes (a subword model) or an array.
Asset = list[str] | dict | bytes | np.ndarray
Assets = dict[str, Asset]

# Whether more or less of a figure is better.
Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Part:
    """The lines of an asset from `start` on, up to `stop` if there is one."""

    asset: str
    start: int
    stop: int | None = None


# What the entries of an axis of a weight are: the name of an asset of lines, or a `Part` of it;
# `None` where their position counts; or `(name, ...)`, those of the asset followed by others whose
# position counts.
Axis = str | Part | tuple | None
# The axes of weights, by a regular expression of their paths: `transfer.by_name` gives the paths.
Axes = dict[str, tuple[Axis, ...]]


@dataclass(frozen=True)
class Shared:
    """The weights of a model that models of other apps have, too.

    Attributes:
        weights: by a regular expression of their paths (see `transfer.by_name`), a template of what
            both apps call them, for `re.Match.expand`.
        tokens: what the tokens are that the model reads, such as "words".
        unknown: the entry of the vocabulary for all tokens that it does not have.
        computed: weights that the model does not have as such, by their path: functions that
            compute their values.
    """

    weights: dict[str, str]
    tokens: str
    unknown: str
    computed: dict[str, Callable[["Trained"], np.ndarray]] = field(default_factory=dict)


# A part of a raw input on a page: a line, a text of several lines, or a file of some kind.
InputKind = Literal["line", "text", "image", "audio", "table"]
# A part of a result on a page, and what its function returns:
# - "text": a string;
# - "scores": probabilities by name;
# - "spans": a text as a list of its parts, each with its label, or `None` for none;
# - "weights": the same with weights of 0 or more, which are shown relative to the largest;
# - "table": the names of the columns, and the rows.
OutputKind = Literal["text", "scores", "spans", "weights", "table"]


@dataclass(frozen=True)
class Page:
    """What a page to try a model looks like; see `apps.core.page`.

    Attributes:
        inputs: the kinds of the parts of a raw input, by their labels. If there is one part, it is
            the raw input; otherwise that is the tuple of the parts. Files are given by their paths.
        outputs: the parts of a result that are shown above its plot and its JSON, by their labels:
            the kind, and a function of the result. By default, the text that `show` returns.
        plot: whether the plot of the result is shown, if the app has `plot`.
        example: the parts of a raw input of `examples`; the contents of files as bytes. By default,
            the input is its only part, or the tuple of its parts.
        is_streamed: whether the text that `stream` yields is shown as it grows.
        listen: returns a new function of samples `[N]`, -1 to 1, and their rate in Hz. It returns
            the text by which they extend a transcript, and remembers what the next samples need.
            `None` if the model does not read sound while it is recorded.
    """

    inputs: dict[str, InputKind] = field(default_factory=lambda: {"text": "text"})
    outputs: dict[str, tuple[OutputKind, Callable[[dict], Any]]] = field(default_factory=dict)
    plot: bool = True
    example: Callable[[Any], tuple] | None = None
    is_streamed: bool = False
    listen: Callable[[], Callable[[np.ndarray, int], str]] | None = None


# The names that every app defines. For a function, its arguments.
REQUIRED = {
    # The task, as hubs of models name it: a "pipeline tag" such as "text-classification".
    "TASK": None,
    # A frozen dataclass. The comment above a field is its help text.
    "Config": None,
    # `{dataset name: Config}`. The first dataset is generated.
    "PRESETS": None,
    # The headline figures of `score`, `{name: Direction}`: the columns of the README's tables.
    "METRICS": None,
    # The figures of training that `--monitor` accepts beside the loss, `{name: Direction}`.
    "MONITORS": None,
    # Published figures by dataset, or by "dataset, variant", each with its "source".
    "PUBLISHED": None,
    # The splits, as batches, and the assets. Assets that are given are used, not built. With
    # `training`, which is false by default, "train" is shuffled, augmented and cut as training
    # needs it; without, and in all other splits, each example comes once, as it is.
    "load": ("config", "splits", "assets", "training"),
    # The compiled Keras model.
    "build": ("config", "assets"),
    # The figures of a whole split, with the number of "examples".
    "score": ("trained", "dataset"),
    # The figures of a trivial method, with "what" it is.
    "baseline": ("config", "data", "split"),
    # A `Service`: the functions to export.
    "serve": ("trained",),
    # Raw inputs to decoded outputs, ready for JSON. It writes no files.
    "predict": ("trained", "inputs"),
    # One result of `predict` for a terminal.
    "show": ("result",),
    # A `Report`: what the model gets wrong on a split.
    "report": ("trained", "dataset"),
    # A few raw inputs.
    "examples": (),
}


def _no_callbacks(config, history: list[dict]) -> list[keras.callbacks.Callback]:
    return []


def _no_axes(config) -> Axes:
    return {}


def _no_files(trained) -> dict[str, bytes]:
    return {}


def _no_options(config) -> dict:
    return {}


def _text_request(trained, inputs: list[str]) -> dict[str, np.ndarray]:
    return {"text": np.array(inputs, object)}


def _text_page(trained) -> Page:
    return Page()


# The names that an app may define, with their defaults.
OPTIONAL: dict[str, Any] = {
    # A base class of `Config`: the fields that `evaluate`, `predict` and `export` also accept.
    "Search": None,
    # `axes(config)`: the axes of all weights that an asset indexes: the rows of an embedding, the
    # columns and the bias of an output layer. `--start` copies their entries by the lines of the
    # asset; it copies all other weights as they are.
    "axes": _no_axes,
    # `shared(config)`: a `Shared`, the weights that `--start` copies from a run of another app that
    # shares them.
    "shared": None,
    # `start_options(config)`: the options that the weights of a run of another app need, by name,
    # from the configuration of that run. `--start` sets those that are not given.
    "start_options": _no_options,
    # `callbacks(config, history)`: Keras callbacks of the training. `history` is the list of the
    # figures of each finished epoch, and grows.
    "callbacks": _no_callbacks,
    # `export_files(trained)`: the contents of further files of an export, by name.
    "export_files": _no_files,
    # `parse_inputs(arguments)`: command-line arguments to raw inputs.
    "parse_inputs": list,
    # `plot(result, path)`: writes one result of `predict` as an image.
    "plot": None,
    # `stream(trained, input)`: yields the output piece by piece while the input is read.
    "stream": None,
    # `converse(trained)`: for a model of dialogs, a function of a raw input that returns one result
    # of `predict`, and remembers the inputs and its answers; `None` for another model. If a raw
    # input is a line, `predict RUN -` then reads one, answers, and reads the next one. On a page,
    # the last part of the input is a line, and the first part of the result is the text of the
    # reply.
    "converse": None,
    # `request(trained, inputs)`: the arguments of the exported `serving_default` for raw inputs, by
    # name. It does not use `trained.model`, which may be `None`.
    "request": _text_request,
    # `page(trained)`: a `Page`, how a page to try the model shows inputs and results.
    "page": _text_page,
    # `ensemble(members)`: several trained models as one, for `predict RUN RUN...` and `evaluate
    # RUN RUN...`. It raises a `UsageError` if they do not fit together.
    "ensemble": None,
    # The `Config` for a folder of your own files. By default, that of the first preset.
    "OWN_FILES": None,
    # Whether `--data` also accepts a single file of your own.
    "ACCEPTS_A_FILE": False,
    # The field of `Config` that splits a dataset into parts with a model each, and
    # `combine(figures)`, which makes one row of the figures of all parts.
    "PART": None,
    "combine": None,
}


def hook(app: ModuleType, name: str) -> Any:
    """An optional name of an app, or its default."""
    return getattr(app, name, OPTIONAL[name])


@dataclass(frozen=True)
class Data:
    """Splits of a dataset, ready for a model.

    Attributes:
        splits: by name, batches of `(features, labels)`, or `(features, labels, weights)`. For
            training, "train" is reshuffled in each epoch. Otherwise a split gives each example
            once, as it is, in a fixed order.
        assets: what turns ids back into tokens and labels.
    """

    splits: dict[str, tf.data.Dataset]
    assets: Assets

    def __getitem__(self, split: str) -> tf.data.Dataset:
        return self.splits[split]


@dataclass(frozen=True)
class Trained:
    """A trained model with its configuration and its assets.

    Attributes:
        made: what the functions with `once` have made of it.
    """

    config: Any
    assets: Assets
    model: keras.Model
    made: dict[Callable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


def once(make: Callable[[Trained], Any]) -> Callable[[Trained], Any]:
    """A function that is called once for each `Trained`, and then returns the same result.

    For what holds TensorFlow functions, which are slow to trace.
    """

    @functools.wraps(make)
    def made(trained: Trained):
        if make not in trained.made:
            trained.made[make] = make(trained)
        return trained.made[make]

    return made


@dataclass(frozen=True)
class Report:
    """What a model gets wrong.

    Attributes:
        text: Markdown: tables of errors, the worst examples.
        figures: Matplotlib figures by file name, without a suffix.
        files: the contents of further files by name, which may begin with a folder.
    """

    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class Service(tf.Module):
    """The functions that an app exports.

    Args:
        functions: by signature name, a `tf.function` with an `input_signature` of named specs that
            returns a dict of tensors. `serving_default` takes the raw input.
        requests: turns raw examples into the arguments of each function, by name.
        litert: the functions of the LiteRT file by signature name, like `functions`; or the name of
            the one of `functions` that it contains. None by default, and then there is no file.
            Where a function has a fixed batch size, the requests of other sizes are not tested.
        keep: what the functions use and a SavedModel must contain: variables, tables.
    """

    def __init__(
        self,
        functions: dict[str, tf.types.experimental.PolymorphicFunction],
        requests: Callable[[list], dict[str, dict[str, np.ndarray]]],
        litert: str | dict[str, tf.types.experimental.PolymorphicFunction] | None = None,
        keep: Any = (),
    ):
        super().__init__()
        self.functions = functions
        self.requests = requests
        self.litert = {litert: functions[litert]} if isinstance(litert, str) else litert or {}
        self.keep = keep


def with_inputs(function: Callable[[dict], dict], specs: dict[str, tf.TensorSpec]):
    """A `tf.function` with named and typed arguments, from a function of one dict."""
    names = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in specs]
    )

    def call(*args, **kwargs):
        return function(dict(names.bind(*args, **kwargs).arguments))

    call.__signature__ = names
    named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    return tf.function(call, input_signature=named, autograph=False)


def query(service: Service, inputs: list, batch_size: int = 32) -> list[dict]:
    """The outputs of `serving_default` for each raw input, as plain Python values.

    Strings are `str`, and no output has a batch axis.
    """
    results = []
    for i in range(0, len(inputs), batch_size):
        batch = inputs[i : i + batch_size]
        request = service.requests(batch)["serving_default"]
        results += answers(service.functions["serving_default"], request)
    return results


def answers(function: Callable, request: dict[str, np.ndarray]) -> list[dict]:
    """The outputs of an exported function for each row of a request, as plain Python values."""
    outputs = function(**{name: tf.constant(value) for name, value in request.items()})
    columns = {name: _plain(value.numpy().tolist()) for name, value in outputs.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value):
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
