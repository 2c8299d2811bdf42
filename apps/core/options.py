"""The options of the verbs. The comment above a field is its help text."""

from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Annotated, Literal

import tyro

from unroll.apps.core import config as configs
from unroll.apps.core.config import TrainingConfig

RunFolder = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]


@dataclass(frozen=True)
class TrainOptions:
    # folder of the run; runs/<app>/<data>-<n> by default
    run: str = ""
    # distribution over devices and machines
    strategy: Literal["default", "mirrored", "multiworker", "tpu"] = "default"
    # continue the interrupted run in --run
    resume: bool = False
    # folder of downloaded data, in place of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


@dataclass(frozen=True)
class EvaluateOptions:
    # folder of a run, or with --record of several
    runs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN...")]]
    # split to evaluate: train, valid or test
    split: str = "test"
    # write the figures into the app's results.json, results.md and README.md
    record: bool = False
    # name of the recorded row
    variant: str = "default"
    # with --record: the runs are one model, whose figures are recorded, not their mean
    ensemble: bool = False
    # folder of downloaded data, in place of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


@dataclass(frozen=True)
class PredictOptions:
    # folder of the run
    run: RunFolder
    # texts or paths; - reads lines from the standard input; all arguments after -- are inputs
    inputs: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="INPUT...")]]
    # print one JSON object per input
    json: bool = False
    # print the output while the input is read, if the model can
    stream: bool = False
    # folder for an image of each result, if the app draws one
    plot: str = ""


@dataclass(frozen=True)
class ReportOptions:
    # folder of the run
    run: RunFolder
    # split to report on: train, valid or test
    split: str = "test"
    # folder of downloaded data, in place of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


@dataclass(frozen=True)
class ExportOptions:
    # folder of the run
    run: RunFolder
    # folder of the models, as TF Serving watches it
    to: str = "saved_models"
    # comma-separated formats: saved_model, litert, onnx (of the extra `onnx`)
    formats: str = "saved_model,litert"
    # further LiteRT files with smaller weights, comma-separated types: int8, float16
    quantize: str = ""
    # further LiteRT files of fixed shapes, comma-separated, such as 1x50 (batch size, length)
    litert_shapes: str = ""
    # in these, LSTMs are loops in place of one operation, which LiteRT.js in browsers does not have
    litert_loops: bool = False


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    # port of the page; 0 for the first free one from 7860 on
    port: int = 0
    # also give the page a public address of Gradio's servers, which anyone can open
    share: bool = False


@dataclass(frozen=True)
class DemoOptions(PageOptions):
    # folder of the run
    run: RunFolder


@dataclass(frozen=True)
class CardOptions:
    # folder of the run
    run: RunFolder
    # folder of downloaded data, in place of the environment variable UNROLL_MANUAL_DIR
    manual_dir: str = ""


def parse_for_run(cls: type, app: ModuleType, arguments: list[str], prog: str) -> tuple:
    """The options of a verb, and those given of the app's `Search`, by name.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """
    from unroll.apps.core.protocol import hook  # imports TensorFlow

    search = hook(app, "Search")
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
    """The configuration of a run. The arguments may contain options of `TrainOptions`.

    If `--start` is a run of another app, the options that its weights need are those of the run,
    unless they are given.

    Raises:
        UsageError: one line that names the option and what is allowed.
    """
    from unroll.apps.core import transfer  # imports TensorFlow
    from unroll.apps.core.protocol import hook

    @dataclass(frozen=True)
    class Train(app.Config, TrainOptions):  # one list of options, for --help and for errors
        pass

    names = [field.name for field in fields(app.Config)]

    def with_options(preset: TrainingConfig) -> Train:
        return Train(**{name: getattr(preset, name) for name in names})

    own = hook(app, "OWN_FILES")
    both = SimpleNamespace(
        Config=Train,
        PRESETS={data: with_options(preset) for data, preset in app.PRESETS.items()},
        OWN_FILES=own and with_options(own),
        ACCEPTS_A_FILE=hook(app, "ACCEPTS_A_FILE"),
        MONITORS=app.MONITORS,
    )
    parsed = configs.parse(both, arguments, prog=prog)
    if parsed.start:
        fitting = transfer.start_options(app, parsed.start)
        given = {a.partition("=")[0].removeprefix("--").replace("-", "_") for a in arguments}
        added = [
            f"--{name}={value}"
            for name, value in fitting.items()
            if not {name, f"no_{name}"} & given
        ]
        parsed = configs.parse(both, [*added, *arguments], prog=prog)
    return app.Config(**{name: getattr(parsed, name) for name in names})
