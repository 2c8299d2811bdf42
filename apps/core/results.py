"""Results: the rows of an app's `results.json`, and the table of its README."""

import dataclasses
import json
import shlex
import statistics
from pathlib import Path
from types import ModuleType

from unroll.apps.core import config as configs
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import evaluate
from unroll.apps.core.runs import Run, app_name, atomic, write_json

MARKS = ("<!-- results -->", "<!-- /results -->")


def record(app: ModuleType, runs: list[Run], split: str, variant: str = "default") -> dict:
    """Evaluates runs that differ in their seed alone, and writes their row.

    Where the app has an option `PART`, that may differ too: the runs of each seed are then parts of
    a whole, whose figures and baseline the app's `combine` makes of theirs.

    The row takes the place of the one of the same data, split and variant in `results.json`, and
    the table in the app's README is written anew. Its standard deviation is that of a sample
    (divided by runs - 1); one run has none.

    Returns:
        The row.

    Raises:
        UsageError: if the runs differ in more than the seed, or share one, if the seeds have not
            the same parts, if their data are none of the app's presets, or if the README has no
            place for the table.
    """
    first = runs[0].config(app)
    part = getattr(app, "PART", None)
    wholes: dict[int, dict] = {}  # by seed, the runs by their part
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
    if first.data not in app.PRESETS:
        known = ", ".join(app.PRESETS)
        raise UsageError(f"--record is for the app's own data ({known}), not for {first.data}.")
    folder = Path(app.__file__).parent
    _split_readme(folder / "README.md")  # before the work, not after it

    def whole(figures: list[dict]) -> dict:
        return app.combine(figures) if len(parts) > 1 else figures[0]

    figures = [
        whole([evaluate(app, run, split) for run in of_seed.values()])
        for of_seed in wholes.values()
    ]
    baseline = whole([_baseline(app, run, split) for run in wholes[first.seed].values()])
    told = ("seed", "data", *([part] if len(parts) > 1 else []))
    environments = [run.environment() for run in runs]
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
            for name, value in baseline.items()
        },
        "published": _published(app, first.data, variant) if split == "test" else None,
        "config": {k: v for k, v in configs.to_json(first).items() if k not in told},
        "minutes": round(sum(e["seconds"] for e in environments) / len(wholes) / 60, 1),
        "hardware": environments[0]["hardware"],
        "command": _command(app, first, sorted(wholes), {part: parts} if len(parts) > 1 else {}),
        "commit": environments[0]["commit"],
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
    write_json(folder / "results.json", rows)
    _write_table(folder / "README.md", rows)
    return row


def read(folder: Path) -> list[dict]:
    """The rows of an app's `results.json`."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table; figures are shown as fractions, as they are kept."""
    lines = [
        "| data | variant | split (examples) | measured: mean ± std (runs) | baseline | published "
        "| minutes a run | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        measured = "; ".join(f"{name} {_show(m)}" for name, m in row["metrics"].items())
        baseline = dict(row["baseline"])
        what = baseline.pop("what")
        published = dict(row["published"] or {})
        source = published.pop("source", "")
        cells = (
            row["data"],
            row["variant"],
            f"{row['split']} ({row['examples']})",
            measured,
            f"{_plain(baseline)} ({what})",
            f"{_plain(published)} ({source})" if published else "none",
            f"{row['minutes']} on {row['hardware']}",
            f"`{row['command']}`",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> dict:
    return {
        "mean": round(statistics.mean(values), 4),
        "std": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        "runs": len(values),
    }


def _baseline(app: ModuleType, run: Run, split: str) -> dict:
    config = run.config(app)
    return app.baseline(config, app.load(config, run.assets()), split)


def _published(app: ModuleType, data: str, variant: str) -> dict | None:
    """The figures of a variant's own name, or else those of the data."""
    return app.PUBLISHED.get(f"{data}, {variant}", app.PUBLISHED.get(data))


def _command(app: ModuleType, config: TrainingConfig, seeds: list[int], parts: dict) -> str:
    """What trains these runs: the preset, and what was put over it."""
    preset = app.PRESETS[config.data]
    words = [f"--data={config.data}"]
    several = parts | {"seed": seeds}
    for name, value in configs.to_json(config).items():
        if name not in several and value != getattr(preset, name):
            words.append(shlex.quote(f"--{name.replace('_', '-')}={value}"))
    for name, values in several.items():
        listed = ",".join(map(str, values))
        words.append(f"--{name}={listed}" if len(values) == 1 else f"--{name}={{{listed}}}")
    return " ".join(["unroll", app_name(app), "train", *words])


def _show(metric: dict) -> str:
    if isinstance(metric["mean"], int) and not metric["std"]:  # a count
        return f"{metric['mean']} ({metric['runs']})"
    spread = "" if metric["std"] is None else f" ± {metric['std']:.4f}"
    return f"{metric['mean']:.4f}{spread} ({metric['runs']})"


def _plain(figures: dict) -> str:
    return "; ".join(f"{name} {value:.4f}" for name, value in figures.items())


def _split_readme(path: Path) -> tuple[str, str]:
    """What stands before the table and behind it."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not (found and closed):
        raise UsageError(f"{path} lacks the marks {MARKS[0]} and {MARKS[1]} for its table.")
    return before, after


def _write_table(path: Path, rows: list[dict]) -> None:
    before, after = _split_readme(path)
    with atomic(path) as temporary:
        text = f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}"
        temporary.write_text(text, encoding="utf-8")
