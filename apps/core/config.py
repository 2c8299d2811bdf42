"""Configurations: frozen dataclasses, read from the command line and from a run's file."""

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
    """The fields of every app's `Config`. The comment above a field is its help text."""

    # name of a dataset, or a folder of your own files
    data: str = ""
    # size of a generated dataset, relative to its usual size
    generated_size: float = 1.0
    # random seed of the initial weights, shuffling and dropout
    seed: int = 0
    # maximum number of epochs
    epochs: int = 10
    # examples per batch
    batch_size: int = 32
    # initial learning rate
    learning_rate: float = 1e-3
    # learning rate schedule over the epochs; "halving" halves it after each quarter of them
    schedule: Literal["constant", "cosine", "halving"] = "constant"
    # maximum global norm of the gradient; 0 turns clipping off
    clip_norm: float = 1.0
    # epochs without improvement of the monitored figure before training stops
    patience: int = 5
    # figure that selects the best epoch
    monitor: str = "val_accuracy"
    # precision of the computation; weights are float32
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    # compile the training step with XLA
    jit: bool = False
    # folder of a run to fine-tune: its weights are copied, those of words and labels by their names
    start: str = ""

    def __post_init__(self):
        self.require_positive("epochs", "batch_size", "patience")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}.")
        if not 0 < self.generated_size < math.inf:
            raise ValueError(
                f"generated_size must be above 0 and finite, got {self.generated_size}."
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite, got {self.learning_rate}.")
        if not self.clip_norm >= 0:
            raise ValueError(f"clip_norm must be 0 or more, got {self.clip_norm}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "dropout" in field.name and not 0 <= value < 1:
                raise ValueError(f"{field.name} must be in [0, 1), got {value}.")
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{field.name} must be a number, got {value}.")
            # Sizes and counts. TensorFlow's own errors for others name neither the option nor this.
            if isinstance(value, int) and not 0 <= value < 2**31 and field.name != "seed":
                raise ValueError(f"{field.name} must be in [0, 2**31), got {value}.")

    def require_positive(self, *names: str) -> None:
        """Raises a ValueError for the first of the named fields that is less than 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def preparing_epochs(self, history: list[dict]) -> int:
        """Number of initial epochs that cannot be the best one.

        Args:
            history: the figures of each finished epoch, on which the number may depend.
        """
        return 0

    def learning_rate_at(self, epoch: int, history: list[dict]) -> float:
        """The learning rate of the epoch with index `epoch`, given the finished ones."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** (4 * epoch // self.epochs)
        return self.learning_rate


def optimizer(
    config: TrainingConfig,
    weight_decay: float = 0.0,
    average: float = 0.0,
    without_decay: tuple[str, ...] = ("bias",),
):
    """Adam, or AdamW with weight decay, with gradient clipping by global norm.

    Args:
        config: with the learning rate and the norm.
        weight_decay: of AdamW; 0 for Adam.
        average: the decay per step of a moving average of the weights; 0 for none.
        without_decay: parts of the names of weights that do not decay.
    """
    import keras

    options = {"global_clipnorm": config.clip_norm or None}
    if average:
        options |= {"use_ema": True, "ema_momentum": average}
    if weight_decay:
        adamw = keras.optimizers.AdamW(config.learning_rate, weight_decay=weight_decay, **options)
        adamw.exclude_from_weight_decay(var_names=list(without_decay))
        return adamw
    return keras.optimizers.Adam(config.learning_rate, **options)


def parse(app: ModuleType, arguments: list[str], prog: str = "train") -> TrainingConfig:
    """The preset of `--data`, or that of your own files, overridden by the other options.

    Raises:
        UsageError: for unknown data, an unknown option or a bad value, in one line.
    """
    from unroll.apps.core.protocol import hook

    presets = app.PRESETS
    names = [a.split("=", 1)[0] for a in arguments]
    data = next(iter(presets))
    if "--data" in names:
        i = names.index("--data")
        given = arguments[i].split("=", 1)[1:] or arguments[i + 1 : i + 2]
        data = given[0] if given else data
    if data in presets:
        default = presets[data]
    elif Path(data).is_dir() or (hook(app, "ACCEPTS_A_FILE") and Path(data).is_file()):
        own = hook(app, "OWN_FILES") or next(iter(presets.values()))
        default = dataclasses.replace(own, data=data)
    else:
        raise UsageError(
            f"--data={data}: neither a dataset ({', '.join(presets)}) nor a folder that exists."
        )
    config = parse_options(app.Config, arguments, default, prog)
    monitor_direction(app, config.monitor)
    return config


def monitor_direction(app: ModuleType, monitor: str) -> Literal["max", "min"]:
    """Whether the best epoch has the largest or the smallest value of `monitor`.

    Raises:
        UsageError: if the app does not declare this figure.
    """
    known = {"loss": "min", "val_loss": "min", **app.MONITORS}
    if monitor not in known:
        raise UsageError(f"--monitor={monitor}: it must be one of {', '.join(known)}.")
    return known[monitor]


def parse_options(cls: type, arguments: list[str], default: Any = None, prog: str = "") -> Any:
    """An instance of a dataclass from `--field=value` options.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """
    given = {} if default is None else {"default": default}
    return _tyro(cls, arguments, prog=prog, **given)


def parse_known_options(cls: type, arguments: list[str]) -> tuple[Any, list[str]]:
    """Like `parse_options`; also returns the arguments that are not options of the dataclass."""
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
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=spelled, config=(tyro.conf.FlagConversionOff,), **how)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(errors.getvalue(), cls)) from None


def _one_line(box: str, cls: type) -> str:
    """The message of an error that tyro prints in a box."""
    # Horizontal rules become empty lines. The leading dashes of an option remain.
    lines = [re.sub("^[─-]+$", "", line.strip("│╭╮╰╯ ")) for line in box.strip().splitlines()]
    body = lines[2:] if not lines[1] else lines[1:]  # ASCII boxes have a rule below the title
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
    """A configuration as a JSON object."""
    return dataclasses.asdict(config)


def from_json(cls: type, fields: dict, where: str) -> TrainingConfig:
    """A configuration from the object that `to_json` returned.

    A field that it lacks is one that was added since, and takes the default of the class. So that
    default must be the behavior before there was the field, or the format of runs must change.

    Raises:
        UsageError: one line that names the file `where` and the field.
    """
    try:
        return parse_options(cls, [f"--{name}={value}" for name, value in fields.items()])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
