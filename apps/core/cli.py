"""The command line of all apps."""

import ast
import importlib
import itertools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

from unroll.apps.core import options
from unroll.apps.core.errors import UsageError
from unroll.pipelines.errors import DataError

APPS = Path(__file__).parent.parent
VERBS = ("train", "evaluate", "predict", "report", "export")
USAGE = """\
unroll                      list the apps
unroll APP train    [--data=NAME] [--field=value ...] [--run=DIR] [--strategy=...] [--resume]
unroll APP evaluate RUN... [--split=test] [--record] [--variant=default]
unroll APP predict  RUN INPUT... [--json] [--plot=DIR] [--stream]    INPUT - reads lines
unroll APP report   RUN [--split=test]
unroll APP export   RUN [--to=saved_models] [--formats=saved_model,litert]
evaluate, predict, report and export also accept the search options of an app, such as --beam-width.
Add --help to a verb for its options."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code: 2, after one line, for incorrect use."""
    if hasattr(sys.stdout, "reconfigure"):  # the terminal's encoding may lack some characters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except (UsageError, DataError) as error:
        print("unroll:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        print(f"unroll: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"unroll: stopped. {stop}".rstrip(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as stop:  # of --help
        return stop.code or 0


def _dispatch(argv: list[str]) -> int:
    apps = describe()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, apps))
        print("\n".join(f"{name:{width}}  {line}" for name, line in apps.items()))
        print(f"\n{USAGE}")
        return 0
    name, *rest = argv
    if name not in apps:
        raise UsageError(f"there is no app {name!r}; the apps are {', '.join(apps)}.")
    if rest and rest[0] in ("-h", "--help"):
        print(f"{name}: {apps[name]}\n\n{USAGE}")
        return 0
    if not rest or rest[0] not in VERBS:
        given = repr(rest[0]) if rest else "none"
        raise UsageError(f"{name} needs one of the verbs {', '.join(VERBS)}; got {given}.")
    from unroll.apps.core.quiet import import_tensorflow

    import_tensorflow()
    app = importlib.import_module(f"unroll.apps.{name}.app")
    verbs = {
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "report": _report,
        "export": _export,
    }
    return verbs[rest[0]](app, rest[1:])


def describe() -> dict[str, str]:
    """The names of the apps, each with the first line of its docstring."""
    return {
        path.parent.name: ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]
        for path in sorted(APPS.glob("*/app.py"))
    }


def _train(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import distribution, training
    from unroll.apps.core.config import parse_known_options
    from unroll.apps.core.runs import Run

    chosen, rest = parse_known_options(options.TrainOptions, arguments)
    if {"-h", "--help"} & set(rest):
        chosen, rest = options.TrainOptions(), arguments
    _set_manual_dir(chosen.manual_dir)
    chief = distribution.is_chief(chosen.strategy)
    if (chosen.resume or chosen.strategy == "multiworker") and not chosen.run:
        raise UsageError("--resume and --strategy=multiworker need --run=DIR.")
    if chosen.resume:
        if rest:
            raise UsageError(f"--resume uses the configuration of the run, not {' '.join(rest)}.")
        run = Run.open(app, chosen.run, trained=False)
        config = run.config(app)
    else:
        config = options.parse_train(app, arguments, _prog(app, "train"))
        run = Run.create(app, config.data, chosen.run or None) if chief else Run(chosen.run)
    try:
        result = training.train(app, config, run, strategy=chosen.strategy, resume=chosen.resume)
    except BaseException as error:
        # A run without a finished epoch cannot be resumed: remove it.
        if chief and not chosen.resume and not run.state.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt) and run.state.exists():
            command = f"{_prog(app, 'train')} --run={shlex.quote(str(run.path))} --resume"
            raise KeyboardInterrupt(f"To continue: {command}") from None
        raise
    _summary(config, run, result)
    print(run.path)
    return 0


def _evaluate(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import evaluation, results
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.EvaluateOptions, arguments, app, "evaluate")
    _set_manual_dir(chosen.manual_dir)
    runs = [Run.open(app, path, search=search) for path in chosen.runs]
    if not runs:
        raise UsageError("evaluate needs the folder of a run.")
    if chosen.record:
        figures = results.record(app, runs, chosen.split, chosen.variant)
    elif len(runs) > 1:
        raise UsageError("evaluate accepts several runs only with --record.")
    else:
        figures = evaluation.evaluate(app, runs[0], chosen.split)
    print(_json(figures))
    return 0


def _predict(app: ModuleType, arguments: list[str]) -> int:
    from rich.console import Console

    from unroll.apps.core.evaluation import load_trained
    from unroll.apps.core.protocol import hook
    from unroll.apps.core.runs import Run

    end = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, search = _parse(options.PredictOptions, arguments[:end], app, "predict")
    run = Run.open(app, chosen.run, search=search)
    inputs = []
    for given in chosen.inputs:
        inputs += _lines() if given == "-" else [_argument(given)]
    inputs += map(_argument, arguments[end + 1 :])
    if not inputs:
        raise UsageError("predict needs an input: a text, a path, or - to read lines.")
    stream, plot = hook(app, "stream"), hook(app, "plot")
    if chosen.stream and not stream:
        raise UsageError("--stream: this app reads an input as a whole.")
    if chosen.stream and (chosen.json or chosen.plot):
        raise UsageError("--stream cannot be combined with --json or --plot.")
    if chosen.plot and not plot:
        raise UsageError("--plot: this app does not draw its results.")
    raw = hook(app, "parse_inputs")(inputs)
    trained = load_trained(app, run)
    if chosen.stream:
        for each in raw:
            for piece in stream(trained, each):
                print(piece, end="", flush=True)
            print()
        return 0
    console = Console()
    for result in app.predict(trained, raw):
        if chosen.json:
            print(_json(result))
        else:
            # The plain text: no markup, no emoji codes, no line breaks at the terminal's width.
            console.print(
                app.show(result), highlight=False, markup=False, emoji=False, soft_wrap=True
            )
        if chosen.plot:
            path = _new_image(chosen.plot)
            plot(result, path)
            print(f"unroll: wrote {path}", file=sys.stderr)
    return 0


def _report(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import evaluation
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.ReportOptions, arguments, app, "report")
    _set_manual_dir(chosen.manual_dir)
    text, files = evaluation.report(app, Run.open(app, chosen.run, search=search), chosen.split)
    print(text)
    for path in files:
        print(f"unroll: wrote {path}", file=sys.stderr)
    return 0


def _export(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core.export import export
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.ExportOptions, arguments, app, "export")
    run = Run.open(app, chosen.run, search=search)
    print(export(app, run, chosen.to, tuple(chosen.formats.split(","))))
    return 0


def _new_image(folder: str) -> Path:
    """The first path `<folder>/prediction-<n>.png` that does not exist."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return next(
        path
        for n in itertools.count(1)
        if not (path := Path(folder) / f"prediction-{n}.png").exists()
    )


def _json(value: dict) -> str:
    """One line of JSON. Characters that the output cannot encode are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _lines() -> list[str]:
    """The lines of the standard input. Invalid UTF-8 becomes U+FFFD, as in the graph."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    return text.removesuffix("\n").split("\n") if text else []


def _argument(given: str) -> str:
    """An argument. Invalid UTF-8 becomes U+FFFD, except in the name of a file."""
    if os.path.exists(given):
        return given
    return given.encode("utf-8", "surrogateescape").decode("utf-8", errors="replace")


def _parse(cls: type, arguments: list[str], app: ModuleType, verb: str) -> tuple:
    return options.parse_for_run(cls, app, arguments, _prog(app, verb))


def _prog(app: ModuleType, verb: str) -> str:
    from unroll.apps.core.runs import app_name

    return f"unroll {app_name(app)} {verb}"


def _set_manual_dir(folder: str) -> None:
    if folder:
        os.environ["UNROLL_MANUAL_DIR"] = folder


def _summary(config, run, result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Trained", show_header=False)
    table.add_row("data", config.data)
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs", f"{result['epochs']} (best: {result['best_epoch']})")
    table.add_row(f"best {config.monitor}", f"{result[config.monitor]:.4f}")
    table.add_row("minutes", f"{result['seconds'] / 60:.1f}")
    table.add_row("run", str(run.path))
    Console().print(table)
