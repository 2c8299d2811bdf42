"""Configurations: frozen dataclasses, their overrides on the command line, their file in a run."""

import contextlib
import dataclasses
import difflib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_type_hints

import tyro

from unroll.apps.core.errors import UsageError


@dataclass(frozen=True)
class TrainingConfig:
    """What every app's `Config` has; the comment above a field is its help text."""

    # the dataset, or a folder of your own files
    data: str = ""
    # of the weights, the shuffling and the dropout
    seed: int = 0
    # the most passes over the training split
    epochs: int = 10
    # examples a batch
    batch_size: int = 32
    # at the start
    learning_rate: float = 1e-3
    # how the learning rate changes from epoch to epoch; "halving" is after each quarter of them
    schedule: Literal["constant", "cosine", "halving"] = "constant"
    # the largest global norm of a gradient; 0 for any
    clip_norm: float = 1.0
    # epochs without a better validation figure before training stops
    patience: int = 5
    # the validation figure that decides
    monitor: str = "val_accuracy"
    # of the computation; the weights stay float32
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    # whether XLA compiles the training step
    jit: bool = False
    # a run to fine-tune: its weights are where this one begins, as far as they fit
    start: str = ""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), got {self.seed}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}.")
        if not self.clip_norm >= 0:
            raise ValueError(f"clip_norm must be 0 or more, got {self.clip_norm}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # Shares; the rates of optimizers have no upper bound.
            if "dropout" in field.name and not 0 <= value < 1:
                raise ValueError(f"{field.name} must lie in [0, 1), got {value}.")

    def preparing_epochs(self, history: list[dict]) -> int:
        """How many epochs come before those of which the best one is kept.

        Args:
            history: the figures of each epoch that is done, which may decide it.
        """
        return 0

    def learning_rate_at(self, epoch: int, history: list[dict]) -> float:
        """The learning rate of an epoch, counted from 0, that follows those of the history."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** (4 * epoch // self.epochs)
        return self.learning_rate


def optimizer(config: TrainingConfig, weight_decay: float = 0.0):
    """Adam, or AdamW where weights decay, with the global norm of the gradient clipped."""
    import keras

    clip = config.clip_norm or None
    if weight_decay:
        return keras.optimizers.AdamW(
            config.learning_rate, weight_decay=weight_decay, global_clipnorm=clip
        )
    return keras.optimizers.Adam(config.learning_rate, global_clipnorm=clip)


def parse(app: ModuleType, arguments: list[str], prog: str = "train") -> TrainingConfig:
    """The preset of `--data`, with the other options put over it.

    Raises:
        UsageError: for unknown data, an unknown option or a bad value, in one line.
    """
    presets = app.PRESETS
    names = [a.split("=", 1)[0] for a in arguments]
    data = next(iter(presets))
    if "--data" in names:
        place = names.index("--data")
        given = arguments[place].split("=", 1)[1:] or arguments[place + 1 : place + 2]
        data = given[0] if given else data
    if data in presets:
        default = presets[data]
    elif Path(data).is_dir():
        default = dataclasses.replace(next(iter(presets.values())), data=data)
    else:
        raise UsageError(
            f"--data={data}: neither a dataset ({', '.join(presets)}) nor a folder that exists."
        )
    return parse_options(app.Config, arguments, default, prog)


def parse_options(cls: type, arguments: list[str], default: Any = None, prog: str = "") -> Any:
    """An instance of a dataclass from `--field=value` options.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """
    given = {} if default is None else {"default": default}
    return _tyro(cls, arguments, prog=prog, **given)


def parse_known_options(cls: type, arguments: list[str]) -> tuple[Any, list[str]]:
    """As `parse_options`, with the arguments that are none of its options given back."""
    return _tyro(cls, arguments, return_unknown_args=True, add_help=False)


_TRUTHS = ("True", "False")


def _tyro(cls: type, arguments: list[str], **how) -> Any:
    switches = {name for name, kind in get_type_hints(cls).items() if kind is bool}
    spelled, before = [], ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if before in switches and argument.title() in _TRUTHS:
            argument = argument.title()
        elif option.startswith("--no-") and name.removeprefix("no_") in switches:
            argument = f"--{option.removeprefix('--no-')}=False"
        elif option.startswith("--") and name in switches and value.title() in _TRUTHS:
            argument = f"{option}={value.title()}"
        elif option.startswith("--") and name in switches and not equals:
            argument += "" if following.title() in _TRUTHS else "=True"
        spelled.append(argument)
        before = name if option.startswith("--") and not equals else ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(cls, args=spelled, config=(tyro.conf.FlagConversionOff,), **how)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(said.getvalue(), cls)) from None


def _one_line(box: str, cls: type) -> str:
    """The message in the box that tyro draws around an error: from its title to the next rule."""
    # A rule becomes empty; the dashes that begin an option stay.
    lines = [re.sub("^[─-]+$", "", line.strip("│╭╮╰╯ ")) for line in box.strip().splitlines()]
    body = lines[2:] if not lines[1] else lines[1:]  # plain boxes have a rule below the title
    message = " ".join(body[: body.index("")]) if "" in body else " ".join(body)
    if "nrecognized" in message:
        options = [f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(cls)]
        unknown = [word.split("=")[0].replace("_", "-") for word in re.findall("--[^ ,]+", message)]
        close = {o for word in unknown for o in difflib.get_close_matches(word, options, n=1)}
        meant = f", did you mean {' or '.join(sorted(close))}?" if close else ""
        return f"{message}{meant or '.'} The options are {', '.join(options)}."
    message = message.removeprefix(f"Error parsing {cls.__name__}: ").removeprefix("Error parsing ")
    message = re.sub(
        r"invalid literal for int\(\) with base 10:", "must be an integer, got", message
    )
    return re.sub(r"could not convert string to float:", "must be a number, got", message)


def to_json(config: TrainingConfig) -> dict:
    """A configuration as an object for JSON."""
    return dataclasses.asdict(config)


def from_json(cls: type, fields: dict, where: str) -> TrainingConfig:
    """A configuration from the object that `to_json` made.

    Raises:
        UsageError: one line that names `where` it comes from and the field.
    """
    try:
        return parse_options(cls, [f"--{name}={value}" for name, value in fields.items()])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
