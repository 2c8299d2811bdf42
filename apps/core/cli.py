"""The command line of all apps.

A command ends in an answer and exit code 0, or in one line on the standard error: exit code 2 for
incorrect use, a broken file, a full disk, a folder that cannot be written to, or too little memory;
130 after an interrupt (Ctrl-C), and 143 after SIGTERM, which a cluster sends before it ends a job.
Everything else is a defect, and a traceback.
"""

import ast
import contextlib
import importlib
import itertools
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType

from unroll.apps.core import options, terminal
from unroll.apps.core.errors import UsageError
from unroll.pipelines.errors import DataError

APPS = Path(__file__).parent.parent
SMALL = 0.25  # of the generated data that `unroll demo` trains on
VERBS = ("train", "evaluate", "predict", "report", "card", "export", "demo")
USAGE = """\
unroll                      list the apps
unroll APP train    [--data=NAME] [--field=value ...] [--run=DIR] [--strategy=...] [--resume]
unroll APP evaluate RUN... [--split=test] [--record] [--variant=default]
unroll APP predict  RUN... INPUT... [--json] [--plot=DIR] [--stream]    INPUT - reads lines
unroll APP report   RUN [--split=test]
unroll APP card     RUN
unroll APP export   RUN [--to=saved_models] [--formats=saved_model,litert,onnx]
                        [--quantize=int8,float16] [--litert-shapes=1x50] [--litert-loops]
unroll APP demo     RUN [--port=N] [--share]
unroll demo         [--port=N] [--share]      all apps on one page
evaluate, predict, report, export and demo also accept the search options of an app, such as
--beam-width.
Add --help to a verb for its options."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the process, other than an interrupt.

    Attributes:
        signal: its number.
    """

    def __init__(self, *message: str, number: int = signal.SIGINT):
        super().__init__(*message)
        self.signal = number


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; see above."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the terminal's encoding may lack some characters
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stop_by_signals():
            code = _dispatch(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
            return code
    except (UsageError, DataError) as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        print(f"unroll: stopped. {stop}".rstrip(), file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        code = _fail(_reason(error))
        try:
            sys.stdout.flush()
        except OSError:  # the standard output itself cannot be written to
            _discard_output()
        return code
    except MemoryError:
        return _fail("there is not enough memory: try a smaller model or --batch-size.")
    except SystemExit as stop:  # of --help
        return stop.code or 0
    except Exception as error:
        if reason := _tensorflow_reason(error):
            return _fail(reason)
        raise


def _fail(message: str) -> int:
    print("unroll:", " ".join(message.split()), file=sys.stderr)
    return 2


def _reason(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename or 'the output'}: {error.strerror}."


def _tensorflow_reason(error: Exception) -> str | None:
    """What is wrong, if it is a file of the data, the disk, the memory or another worker."""
    if not type(error).__module__.startswith("tensorflow"):
        return None
    from tensorflow import errors

    # Raised by a function of a pipeline that reads files, while the pipeline runs.
    if found := re.search(r"DataError: ([^\n]+)", str(error)):
        return found[1]
    machine = (errors.ResourceExhaustedError, errors.PermissionDeniedError, errors.UnavailableError)
    if not isinstance(error, machine):
        return None
    lines = str(error).strip().splitlines()
    return f"{lines[0]} ({type(error).__name__})." if lines else type(error).__name__


def _discard_output() -> None:
    """Makes the flush of the standard output at the end of the process succeed."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _stop_by_signals() -> Iterator[None]:
    """Handles SIGTERM and SIGHUP like an interrupt: files are cleaned up, and a line says so.

    A signal that the process was started to ignore, as by `nohup`, remains ignored.
    """
    previous = {}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in previous:  # a second one must not interrupt the cleaning
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number=number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _dispatch(argv: list[str]) -> int:
    apps = describe()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, apps))
        print("\n".join(f"{name:{width}}  {line}" for name, line in apps.items()))
        print(f"\n{USAGE}")
        return 0
    name, *rest = argv
    if name == "demo":
        return _demo_of_all(apps, rest)
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
        "card": _card,
        "export": _export,
        "demo": _demo,
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
    with run.lock if chief else contextlib.nullcontext():
        try:
            result = training.train(
                app, config, run, strategy=chosen.strategy, resume=chosen.resume
            )
        except BaseException as error:
            # A run without a finished epoch cannot be resumed: remove it.
            if chief and not chosen.resume and not run.state.exists():
                run.remove()
            if run.state.exists():
                _say_how_to_continue(error, app, run, chosen)
            raise
    _summary(config, run, result)
    print(run.path)
    return 0


def _say_how_to_continue(
    error: BaseException, app: ModuleType, run, chosen: options.TrainOptions
) -> None:
    """Raises an error that a resumed training need not meet again, with the command for it."""
    command = f"{_prog(app, 'train')} --run={shlex.quote(str(run.path))} --resume"
    if chosen.strategy != "default":
        command += f" --strategy={chosen.strategy}"
    if chosen.manual_dir:
        command += f" --manual-dir={shlex.quote(chosen.manual_dir)}"
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        raise Stopped(f"To continue: {command}", number=number) from None
    reason = _reason(error) if isinstance(error, OSError) else None
    if reason := reason or (isinstance(error, Exception) and _tensorflow_reason(error)):
        raise UsageError(f"{reason} To continue: {command}") from None


def _evaluate(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import evaluation, results
    from unroll.apps.core.protocol import hook
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.EvaluateOptions, arguments, app, "evaluate")
    _set_manual_dir(chosen.manual_dir)
    runs = [Run.open(app, path, search=search) for path in chosen.runs]
    if not runs:
        raise UsageError("evaluate needs the folder of a run.")
    if chosen.ensemble and not (chosen.record and len(runs) > 1):
        raise UsageError("--ensemble is for --record of several runs.")
    if chosen.record:
        options_of_row = {"ensemble": chosen.ensemble, "show": terminal.print_json}
        results.record(app, runs, chosen.split, chosen.variant, **options_of_row)
    elif len(runs) > 1 and hook(app, "ensemble"):
        terminal.print_json(evaluation.evaluate_ensemble(app, runs, chosen.split))
    elif len(runs) > 1:
        raise UsageError("evaluate accepts several runs only with --record.")
    else:
        evaluation.evaluate(app, runs[0], chosen.split, show=terminal.print_json)
    return 0


def _predict(app: ModuleType, arguments: list[str]) -> int:
    from rich.console import Console

    from unroll.apps.core.evaluation import load_ensemble
    from unroll.apps.core.protocol import OPTIONAL, hook
    from unroll.apps.core.runs import Run

    end = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, search = _parse(options.PredictOptions, arguments[:end], app, "predict")
    paths, given = [chosen.run], list(chosen.inputs)
    while hook(app, "ensemble") and given and (Path(given[0]) / "config.json").is_file():
        paths.append(given.pop(0))
    runs = [Run.open(app, path, search=search) for path in paths]
    converse, after_dashes = (
        hook(app, "converse"),
        list(map(terminal.argument_of, arguments[end + 1 :])),
    )
    reads_lines = hook(app, "parse_inputs") is OPTIONAL["parse_inputs"]
    may_converse = converse is not None and reads_lines and given == ["-"] and not after_dashes
    inputs = []
    for each in () if may_converse else given:
        inputs += terminal.lines() if each == "-" else [terminal.argument_of(each)]
    inputs += after_dashes
    if not may_converse:
        _require_input(inputs)
    stream, plot = hook(app, "stream"), hook(app, "plot")
    if chosen.stream and not stream:
        raise UsageError("--stream: this app reads an input as a whole.")
    if chosen.stream and (chosen.json or chosen.plot):
        raise UsageError("--stream cannot be combined with --json or --plot.")
    if chosen.plot and not plot:
        raise UsageError("--plot: this app does not draw its results.")
    if chosen.plot and Path(chosen.plot).exists() and not Path(chosen.plot).is_dir():
        raise UsageError(f"--plot={chosen.plot} is a file: name a folder.")
    images = _new_images(Path(chosen.plot))
    console = Console()

    def write(result: dict) -> None:
        if chosen.json:
            print(terminal.to_json(result), flush=True)
        else:
            # The plain text: no markup, no emoji codes, no line breaks at the terminal's width.
            console.print(
                app.show(result), highlight=False, markup=False, emoji=False, soft_wrap=True
            )
        if chosen.plot:
            path = next(images)
            try:
                plot(result, path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            print(f"unroll: wrote {path}", file=sys.stderr)

    raw = None if may_converse else hook(app, "parse_inputs")(inputs)
    trained = load_ensemble(app, runs)
    if may_converse and (answer := converse(trained)):
        for line in terminal.entered_lines():
            write(answer(line))
        return 0
    if raw is None:
        raw = hook(app, "parse_inputs")(_require_input(terminal.lines()))
    if chosen.stream:
        for each in raw:
            for piece in stream(trained, each):
                print(piece, end="", flush=True)
            print()
        return 0
    for result in app.predict(trained, raw):
        write(result)
    return 0


def _require_input(inputs: list[str]) -> list[str]:
    if not inputs:
        raise UsageError("predict needs an input: a text, a path, or - to read lines.")
    return inputs


def _report(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import evaluation
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.ReportOptions, arguments, app, "report")
    _set_manual_dir(chosen.manual_dir)
    run = Run.open(app, chosen.run, search=search)
    _, files = evaluation.report(app, run, chosen.split, show=terminal.print_now)
    for path in files:
        print(f"unroll: wrote {path}", file=sys.stderr)
    return 0


def _export(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import litert
    from unroll.apps.core.export import export
    from unroll.apps.core.runs import Run

    chosen, search = _parse(options.ExportOptions, arguments, app, "export")
    run = Run.open(app, chosen.run, search=search)
    folder = export(
        app,
        run,
        chosen.to,
        tuple(chosen.formats.split(",")),
        quantize=chosen.quantize,
        litert_shapes=chosen.litert_shapes,
        litert_loops=chosen.litert_loops,
    )
    if chosen.quantize or chosen.litert_shapes:
        for line in litert.describe(json.loads((folder / "manifest.json").read_text("utf-8"))):
            print(f"unroll: {line}", file=sys.stderr)
    print(folder)
    return 0


def _card(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import card
    from unroll.apps.core.config import parse_options
    from unroll.apps.core.runs import Run

    chosen = parse_options(options.CardOptions, arguments, prog=_prog(app, "card"))
    _set_manual_dir(chosen.manual_dir)
    print(card.write(app, Run.open(app, chosen.run)))
    return 0


def _demo(app: ModuleType, arguments: list[str]) -> int:
    from unroll.apps.core import page
    from unroll.apps.core.runs import Run, app_name

    chosen, search = _parse(options.DemoOptions, arguments, app, "demo")
    page.import_gradio()
    run = Run.open(app, chosen.run, search=search)
    return _serve([page.entry(app, run, describe()[app_name(app)])], chosen)


def _demo_of_all(apps: dict[str, str], arguments: list[str]) -> int:
    from unroll.apps.core.config import parse_options
    from unroll.apps.core.quiet import import_tensorflow

    chosen = parse_options(options.PageOptions, arguments, prog="unroll demo")
    import_tensorflow()
    from unroll.apps.core import page

    page.import_gradio()
    entries = []
    for name, line in apps.items():
        app = importlib.import_module(f"unroll.apps.{name}.app")
        run = page.newest_run(app)
        if run is None:
            print(
                f"unroll: there is no run in runs/{name}: a small one is trained, on "
                f"{SMALL:.0%} of the generated data.",
                file=sys.stderr,
            )
            _train(app, [f"--generated-size={SMALL}"])
            run = page.newest_run(app)
        print(f"unroll: {name}: {run.path}", file=sys.stderr)
        entries.append(page.entry(app, run, line))
    return _serve(entries, chosen)


def _serve(entries: list, chosen: options.PageOptions) -> int:
    from unroll.apps.core import page

    with page.serve(entries, chosen.port, chosen.share) as address:
        print("unroll: the page is ready. Ctrl-C ends it.", file=sys.stderr)
        terminal.print_now(address)
        threading.Event().wait()
    return 0


def _new_images(folder: Path) -> Iterator[Path]:
    """Empty files `<folder>/prediction-<n>.png`, none of which existed before."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in itertools.count(1):
        path = folder / f"prediction-{n}.png"
        with contextlib.suppress(FileExistsError):
            path.open("xb").close()  # fails also if another process made it meanwhile
            yield path


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
