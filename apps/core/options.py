"""The options of the verbs; the comment above a field is its help text."""

from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Annotated, Literal

import tyro

from unroll.apps.core import config as configs
from unroll.apps.core.config import TrainingConfig

RunFolder = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]


@dataclass(frozen=True)
class TrainOptions:
    # the folder of the run; runs/<app>/<data>-<n> by default
    run: str = ""
    # how the work is spread
    strategy: Literal["default", "mirrored", "multiworker", "tpu"] = "default"
    # go on with the run in --run where it stopped
    resume: bool = False
    # where downloaded data lie, instead of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


@dataclass(frozen=True)
class EvaluateOptions:
    # the folder of a run; of several with --record
    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN...")]]
    # the split: train, valid or test
    split: str = "test"
    # write the row of results.json and of the app's README
    record: bool = False
    # the name of the row beside the data's
    variant: str = "default"
    # where downloaded data lie, instead of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


@dataclass(frozen=True)
class PredictOptions:
    # the folder of the run
    run: RunFolder
    # texts or paths; - reads them from the standard input, one a line; after -- all are inputs
    inputs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="INPUT...")]]
    # print one JSON object for each input
    json: bool = False
    # show what is recognised while the input is read, where the model can
    stream: bool = False


@dataclass(frozen=True)
class ExportOptions:
    # the folder of the run
    run: RunFolder
    # the folder of models, as TF Serving watches it
    to: str = "saved_models"
    # what to write, with commas between: saved_model, litert
    formats: str = "saved_model,litert"


def parse_for_run(cls: type, app: ModuleType, arguments: list[str], prog: str) -> tuple:
    """The options of a verb, and by name those of the app's `Search` that stand among them.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """
    search = getattr(app, "Search", None)
    if search is None:
        return configs.parse_options(cls, arguments, prog=prog), {}

    @dataclass(frozen=True)
    class Both(search, cls):
        pass

    parsed = configs.parse_options(Both, arguments, prog=prog)
    named = {a.partition("=")[0].removeprefix("--").replace("-", "_") for a in arguments}
    given = {f.name: getattr(parsed, f.name) for f in fields(search) if f.name in named}
    return cls(**{f.name: getattr(parsed, f.name) for f in fields(cls)}), given


def parse_train(app: ModuleType, arguments: list[str], prog: str) -> TrainingConfig:
    """The configuration of a run; options of `TrainOptions` may stand among its own.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """

    @dataclass(frozen=True)
    class Train(app.Config, TrainOptions):  # one list of options, for --help and for complaints
        pass

    names = [field.name for field in fields(app.Config)]
    presets = {
        data: Train(**{name: getattr(preset, name) for name in names})
        for data, preset in app.PRESETS.items()
    }
    both = SimpleNamespace(Config=Train, PRESETS=presets)
    parsed = configs.parse(both, arguments, prog=prog)
    return app.Config(**{name: getattr(parsed, name) for name in names})
