"""Results: the rows of an app's `results.json`, the tables of its README and its `results.md`."""

import dataclasses
import json
import shlex
import statistics
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from unroll.apps.core import config as configs
from unroll.apps.core import runs as run_folders
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import compute, evaluate_ensemble
from unroll.apps.core.files import write_bytes, write_json
from unroll.apps.core.protocol import hook
from unroll.apps.core.runs import Run, app_name

MARKS = ("<!-- results -->", "<!-- /results -->")
_COLUMNS = 6  # of a table in results.md
_OLD = "†"
_OLD_NOTE = (
    f"{_OLD} Measured at a commit that is not in the repository, or with local changes; not yet "
    "repeated."
)


def record(
    app: ModuleType,
    runs: list[Run],
    split: str,
    variant: str = "default",
    ensemble: bool = False,
    show: Callable[[dict], None] = lambda row: None,
) -> dict:
    """Evaluates runs that differ only in their seed, and writes their row.

    With `ensemble` the row has the figures of the runs as one model, and the minutes of all of
    them.

    If the app has a field `PART`, the runs may differ in it too. The runs of each seed are then
    parts of a whole, and the app's `combine` makes one row of their figures and baselines.

    The row replaces that of the same data, split and variant in `results.json`; the tables of the
    app's `README.md` and `results.md` are rewritten. The standard deviation is that of a sample
    (divided by runs - 1); a single run has none. `show` receives the row before any file is
    written, so that it is not lost if that fails.

    Returns:
        The row.

    Raises:
        UsageError: if this is not a checkout; if a run's commit is not in the repository or had
            local changes; if the runs differ in more than the seed, share one, or lack parts; if
            the dataset is not one of the app's presets; if the README lacks the marks.
    """
    folder = Path(app.__file__).parent
    _check_reproducible(runs)
    wholes, parts = _group(app, runs)
    first = runs[0].config(app)
    if first.data not in app.PRESETS:
        known = ", ".join(app.PRESETS)
        raise UsageError(f"--record is for the app's own data ({known}), not for {first.data}.")
    _split_readme(folder / "README.md")  # before the evaluation, not after it

    def whole(figures: list[dict]) -> dict:
        return hook(app, "combine")(figures) if len(parts) > 1 else figures[0]

    of_run = {}
    if ensemble:
        figures = [evaluate_ensemble(app, runs, split)]
        del figures[0]["runs"]
    else:
        of_run = {run.path: compute(app, run, split) for run in runs}
        figures = [
            whole([of_run[run.path] for run in of_seed.values()]) for of_seed in wholes.values()
        ]
    trivial = whole([baseline(app, run, split) for run in wholes[first.seed].values()])
    environments = [run.environment() for run in runs]
    part = hook(app, "PART")
    outside = ("seed", "data", *([part] if len(parts) > 1 else []))
    row = {
        "data": first.data,
        "variant": variant,
        "split": split,
        "examples": figures[0]["examples"],
        "metrics": {
            name: _spread([f[name] for f in figures])
            for name in figures[0]
            if name not in ("data", "split", "examples")
        },
        "baseline": {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in trivial.items()
        },
        "published": _published(app, first.data, variant) if split == "test" else None,
        "config": {k: v for k, v in configs.to_json(first).items() if k not in outside},
        "minutes": round(sum(e["seconds"] for e in environments) / len(figures) / 60, 1),
        "hardware": environments[0]["hardware"],
        "command": command(app, first, sorted(wholes), {part: parts} if len(parts) > 1 else {}),
        "commit": environments[0]["commit"],
        **({"ensemble": True} if ensemble else {}),
    }
    key = ("data", "variant", "split")
    rows = [row, *(old for old in read(folder) if any(old[k] != row[k] for k in key))]
    order = list(app.PRESETS)
    rows.sort(
        key=lambda r: (
            order.index(r["data"]) if r["data"] in order else len(order),
            r["data"],
            r["variant"] != "default",
            r["variant"],
            r["split"],
        )
    )
    show(row)
    for run in runs if of_run else ():
        run.write_metrics(split, of_run[run.path])
    write_json(folder / "results.json", rows)
    write_tables(app, rows)
    return row


def _check_reproducible(runs: list[Run]) -> None:
    """Raises a `UsageError` unless all runs are of one commit in this checkout, unchanged."""
    if run_folders.git_commit() is None:
        raise UsageError(
            "--record writes into a checkout of the repository, not an installed copy."
        )
    commits = {}
    for run in runs:
        commit = run.environment().get("commit")
        if not commit or commit.endswith("+"):
            raise UsageError(
                f"{run.path} was trained with local changes to the code: commit them and train it "
                "again."
            )
        if not run_folders.has_commit(commit):
            raise UsageError(f"{run.path} was trained at {commit}, which the repository lacks.")
        commits[commit] = run
    if len(commits) > 1:
        raise UsageError(f"The runs of a row need one commit, got {', '.join(sorted(commits))}.")


def _group(app: ModuleType, runs: list[Run]) -> tuple[dict[int, dict], list]:
    """The runs by seed and part, and the parts."""
    first = runs[0].config(app)
    part = hook(app, "PART")
    wholes: dict[int, dict] = {}
    for run in runs:
        config = run.config(app)
        free = {"seed": first.seed} | ({part: getattr(first, part)} if part else {})
        if dataclasses.replace(config, **free) != first:
            raise UsageError(f"{run.path} differs from {runs[0].path} in more than the seed.")
        of_seed = wholes.setdefault(config.seed, {})
        of_part = getattr(config, part) if part else None
        if of_part in of_seed:
            seeds = [run.config(app).seed for run in runs]
            raise UsageError(f"The runs of a row need different seeds, got {seeds}.")
        of_seed[of_part] = run
    parts = list(wholes[first.seed])
    for seed, of_seed in wholes.items():
        if set(of_seed) != set(parts):
            raise UsageError(f"The runs of the seeds {first.seed} and {seed} differ in --{part}.")
    return wholes, parts


def read(folder: Path) -> list[dict]:
    """The rows of an app's `results.json`."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_tables(app: ModuleType, rows: list[dict]) -> None:
    """Rewrites the tables of an app's `README.md`, and its `results.md`."""
    folder = Path(app.__file__).parent
    before, after = _split_readme(folder / "README.md")
    text = f"{before}{MARKS[0]}\n{tables(app, rows)}\n{MARKS[1]}{after}"
    for name, content in (("README.md", text), ("results.md", details(app, rows))):
        write_bytes(folder / name, content.encode())


def tables(app: ModuleType, rows: list[dict]) -> str:
    """For each dataset and split: a small Markdown table of the headline figures, and commands.

    The first line is the baseline, the second a published figure, the others are the variants with
    mean ± standard deviation (number of runs).
    """
    blocks = []
    for (data, split), of_data in _by_dataset(rows).items():
        names = [n for n in app.METRICS if any(n in row["metrics"] for row in of_data)]
        body = [_figures_line(what, figures, names) for what, figures in _references(of_data)]
        for row in of_data:
            mark = "" if row["commit"] else f" {_OLD}"
            cells = [_show(row["metrics"][n]) if n in row["metrics"] else "" for n in names]
            body.append([row["variant"] + mark, *cells, f"{row['minutes']:g}"])
        heads = [n.replace("_", " ") for n in names]
        lines = [
            f"**{data}**, {split} split, {of_data[0]['examples']:,} examples",
            "",
            markdown_table(["", *heads, "minutes per run"], body),
            "",
            *([_OLD_NOTE, ""] if not all(row["commit"] for row in of_data) else []),
            "```sh",
            *(_with_comment(row) for row in of_data),
            "```",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def details(app: ModuleType, rows: list[dict]) -> str:
    """All figures of all rows as Markdown: for each dataset, tables with a line per figure."""
    blocks = [f"# Results of {app_name(app)}\n\nWritten by `evaluate --record`."]
    for (data, split), of_data in _by_dataset(rows).items():
        columns = [
            *(
                (what, {k: {"mean": v, "std": None, "runs": 0} for k, v in figures.items()})
                for what, figures in _references(of_data)
            ),
            *((row["variant"], row["metrics"]) for row in of_data),
        ]
        names = list(dict.fromkeys(name for _, metrics in columns for name in metrics))
        parts = []
        for i in range(0, len(columns), _COLUMNS):
            shown = columns[i : i + _COLUMNS]
            body = [
                [name.replace("_", " "), *(_show(m[name]) if name in m else "" for _, m in shown)]
                for name in names
                if any(name in metrics for _, metrics in shown)
            ]
            parts.append(markdown_table(["", *(what for what, _ in shown)], body))
        about = [
            [
                row["variant"],
                f"{row['minutes']:g}",
                row["hardware"],
                (row["commit"] or f"none {_OLD}")[:12],
            ]
            for row in of_data
        ]
        parts.append(markdown_table(["variant", "minutes per run", "hardware", "commit"], about))
        heading = f"## {data}, {split} split, {of_data[0]['examples']:,} examples"
        blocks.append("\n\n".join([heading, *parts]))
    if found := read_formats(Path(app.__file__).parent):
        blocks.append(_formats(found))
    if not all(row["commit"] for row in rows):
        blocks.append(_OLD_NOTE)
    return "\n\n".join(blocks) + "\n"


def read_formats(folder: Path) -> dict | None:
    """The record of an app's export formats, its `formats.json`, or `None`.

    `benchmarks/formats.py` writes it: see `record_of` there.
    """
    path = folder / "formats.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _formats(record: dict) -> str:
    """The section of `results.md` about the formats of exports."""
    figure = record["figure"].replace("_", " ")
    heads = ["format", "bytes", "ms", "largest difference", "equal integers", figure]
    body = [
        [
            row["format"],
            f"{row['bytes']:,}",
            f"{row['milliseconds']:.3g}",
            "" if row["difference"] is None else f"{row['difference']:.1e}",
            "" if row["equal"] is None else f"{row['equal']:.1%}",
            number(row["figure"]),
        ]
        for row in record["formats"]
    ]
    about = (
        f"The function `{record['function']}` of one run, `{record['command']}`. Milliseconds are "
        f"the median for one input of the test split on one core ({record['hardware']}); a fixed "
        f"shape has room for the longest one. The difference to the model is the largest of the "
        f"examples. `{figure}` is that of the function alone, on the whole test split "
        f"({record['examples']:,} examples). Written by `python benchmarks/formats.py`."
    )
    refused = [f"- `{what}` is refused: {why}" for what, why in record["refused"].items()]
    parts = ["## Formats of exports", about, markdown_table(heads, body)]
    return "\n\n".join([*parts, *(["\n".join(refused)] if refused else [])])


def markdown_table(heads: list[str], body: list[list[str]]) -> str:
    """A Markdown table of a header and lines of cells."""
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _by_dataset(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    grouped: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        grouped.setdefault((row["data"], row["split"]), []).append(row)
    return grouped


def _references(rows: list[dict]) -> list[tuple[str, dict]]:
    """The baseline and the published figures of a dataset's rows: what each is, and its figures."""
    references = {}
    for row in rows:
        baseline = dict(row["baseline"])
        references.setdefault(f"baseline: {baseline.pop('what')}", baseline)
    for row in rows:
        if row["published"]:
            published = dict(row["published"])
            references.setdefault(f"published: {published.pop('source')}", published)
    return list(references.items())


def _figures_line(what: str, figures: dict, names: list[str]) -> list[str]:
    cells = [number(figures[n]) if n in figures else "" for n in names]
    return [what, *cells, ""]


def _with_comment(row: dict) -> str:
    comment = "" if row["variant"] == "default" else f"  # {row['variant']}"
    return row["command"] + comment


def _spread(values: list[float]) -> dict:
    return {
        "mean": round(statistics.mean(values), 4),
        "std": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        "runs": len(values),
    }


def baseline(app: ModuleType, run: Run, split: str) -> dict:
    """The figures of the app's trivial method on the data of a run.

    Raises:
        UsageError, DataError: if the data cannot be read.
    """
    config = run.config(app)
    splits = tuple(dict.fromkeys(("train", "valid", split)))
    return app.baseline(config, app.load(config, splits, run.assets()), split)


def _published(app: ModuleType, data: str, variant: str) -> dict | None:
    """The published figures of a variant, or those of the dataset."""
    return app.PUBLISHED.get(f"{data}, {variant}", app.PUBLISHED.get(data))


def command(
    app: ModuleType, config: TrainingConfig, seeds: list[int], parts: dict | None = None
) -> str:
    """The command that trains these runs: the dataset, and what differs from its preset."""
    default = hook(app, "OWN_FILES") or next(iter(app.PRESETS.values()))
    preset = app.PRESETS.get(config.data, default)
    words = [f"--data={config.data}"]
    several = (parts or {}) | {"seed": seeds}
    for name, value in configs.to_json(config).items():
        if name not in ("data", *several) and value != getattr(preset, name):
            words.append(shlex.quote(f"--{name.replace('_', '-')}={value}"))
    for name, values in several.items():
        listed = ",".join(map(str, values))
        words.append(f"--{name}={listed}" if len(values) == 1 else f"--{name}={{{listed}}}")
    return " ".join(["unroll", app_name(app), "train", *words])


def _show(metric: dict) -> str:
    text = number(metric["mean"])
    if metric["std"] is not None and (metric["std"] or not isinstance(metric["mean"], int)):
        text += f" ± {number(metric['std'])}"
    return f"{text} ({metric['runs']})" if metric["runs"] else text


def number(value: float) -> str:
    """A figure as text: a count, or four decimals."""
    if isinstance(value, int):  # a count
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _split_readme(path: Path) -> tuple[str, str]:
    """The text before and after the tables."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not (found and closed):
        raise UsageError(f"{path} lacks the marks {MARKS[0]} and {MARKS[1]} for its tables.")
    return before, after
