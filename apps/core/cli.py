"""The command line of all apps."""

import ast
import contextlib
import importlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import tyro

from apps.core.errors import UsageError
from pipelines.errors import DataError

APPS = Path(__file__).parent.parent
VERBS = ("train", "evaluate", "predict", "export")
USAGE = """\
python -m apps                              the apps
python -m apps APP train    [--data=NAME] [--field=value ...] [--run=DIR] [--strategy=...]
                            [--resume]
python -m apps APP evaluate RUN... [--split=test] [--record] [--variant=default]
python -m apps APP predict  RUN INPUT... [--json]    an INPUT of - reads lines
python -m apps APP export   RUN [--to=saved_models] [--formats=saved_model,litert]
Add --help to a verb for its options."""


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
    # the folders of runs; several with --record
    runs: tyro.conf.Positional[tuple[str, ...]]
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
    run: tyro.conf.Positional[str]
    # texts or paths; - reads them from the standard input, one a line
    inputs: tyro.conf.Positional[tuple[str, ...]]
    # print one JSON object for each input
    json: bool = False


@dataclass(frozen=True)
class ExportOptions:
    # the folder of the run
    run: tyro.conf.Positional[str]
    # the folder of models, as TF Serving watches it
    to: str = "saved_models"
    # what to write, with commas between: saved_model, litert
    formats: str = "saved_model,litert"


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code. Wrong use is one line and 2."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except (UsageError, DataError) as error:
        print(f"unroll: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unroll: stopped; train --run=DIR --resume goes on with a run.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(argv: list[str]) -> int:
    apps = describe()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, apps))
        print("\n".join(f"{name:{width}}  {line}" for name, line in apps.items()))
        print(f"\n{USAGE}")
        return 0
    name, *rest = argv
    if name not in apps:
        raise UsageError(f"no app {name!r}; the apps are {', '.join(apps)}.")
    if rest and rest[0] in ("-h", "--help"):
        print(f"{name}: {apps[name]}\n\n{USAGE}")
        return 0
    if not rest or rest[0] not in VERBS:
        given = repr(rest[0]) if rest else "none"
        raise UsageError(f"{name} needs a verb, one of {', '.join(VERBS)}; got {given}.")
    from apps.core.quiet import import_tensorflow

    import_tensorflow()
    app = importlib.import_module(f"apps.{name}.app")
    verb = {"train": _train, "evaluate": _evaluate, "predict": _predict, "export": _export}
    return verb[rest[0]](app, rest[1:])


def describe() -> dict[str, str]:
    """The apps and the first line of each one's docstring."""
    return {
        path.parent.name: ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]
        for path in sorted(APPS.glob("*/app.py"))
    }


def _train(app: ModuleType, arguments: list[str]) -> int:
    from apps.core import config as configs
    from apps.core import training
    from apps.core.runs import Run

    if {"-h", "--help"} & set(arguments):
        with contextlib.suppress(SystemExit):
            configs.parse_options(TrainOptions, ["--help"], prog=_prog(app, "train"))
    options, rest = configs.parse_known_options(TrainOptions, arguments)
    _set_manual_dir(options.manual_dir)
    if options.resume:
        if rest:
            raise UsageError(f"--resume takes the run's own configuration, not {' '.join(rest)}.")
        if not options.run:
            raise UsageError("--resume needs --run=DIR, the run to go on with.")
        run = Run.open(app, options.run, trained=False)
        config = run.config(app)
    else:
        config = configs.parse(app, rest, prog=_prog(app, "train"))
        run = Run.create(app, config.data, options.run or None)
    try:
        result = training.train(app, config, run, strategy=options.strategy, resume=options.resume)
    except BaseException:
        # A run that has not finished an epoch cannot be resumed: nothing of it stays.
        if not run.state.exists():
            shutil.rmtree(run.path)
        raise
    _summary(config, run, result)
    print(run.path)
    return 0


def _evaluate(app: ModuleType, arguments: list[str]) -> int:
    from apps.core import evaluation, results
    from apps.core.runs import Run

    options = _parse(EvaluateOptions, arguments, app, "evaluate")
    _set_manual_dir(options.manual_dir)
    runs = [Run.open(app, path) for path in options.runs]
    if not runs:
        raise UsageError("evaluate needs the folder of a run.")
    if options.record:
        figures = results.record(app, runs, options.split, options.variant)
    elif len(runs) > 1:
        raise UsageError("evaluate takes several runs with --record alone.")
    else:
        figures = evaluation.evaluate(app, runs[0], options.split)
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def _predict(app: ModuleType, arguments: list[str]) -> int:
    from rich.console import Console

    from apps.core.evaluation import load_model
    from apps.core.runs import Run

    options = _parse(PredictOptions, arguments, app, "predict")
    run = Run.open(app, options.run)
    inputs = []
    for given in options.inputs:
        inputs += _lines() if given == "-" else [given]
    if not inputs:
        raise UsageError("predict needs an input: a text or a path, or - for lines.")
    model, _, assets = load_model(app, run)
    console = Console()
    for result in app.predict(model, assets, inputs):
        if options.json:
            print(json.dumps(result, ensure_ascii=False))
        else:
            console.print(app.show(result), highlight=False)
    return 0


def _export(app: ModuleType, arguments: list[str]) -> int:
    from apps.core.export import export
    from apps.core.runs import Run

    options = _parse(ExportOptions, arguments, app, "export")
    print(export(app, Run.open(app, options.run), options.to, tuple(options.formats.split(","))))
    return 0


def _lines() -> list[str]:
    """The lines of the standard input; bytes that are no UTF-8 become U+FFFD, as in the graph."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    return text.removesuffix("\n").split("\n") if text else []


def _parse(cls: type, arguments: list[str], app: ModuleType, verb: str):
    from apps.core.config import parse_options

    return parse_options(cls, arguments, prog=_prog(app, verb))


def _prog(app: ModuleType, verb: str) -> str:
    from apps.core.runs import app_name

    return f"python -m apps {app_name(app)} {verb}"


def _set_manual_dir(folder: str) -> None:
    if folder:
        os.environ["UNROLL_MANUAL_DIR"] = folder


def _summary(config, run, result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Trained", show_header=False)
    table.add_row("data", config.data)
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs", f"{result['epochs']}, the best {result['best_epoch']}")
    table.add_row(f"best {config.monitor}", f"{result[config.monitor]:.4f}")
    table.add_row("minutes", f"{result['seconds'] / 60:.1f}")
    table.add_row("run", str(run.path))
    Console().print(table)
