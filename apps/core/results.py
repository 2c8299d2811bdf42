"""Results: the rows of an app's `results.json`, and the table of its README."""

import dataclasses
import json
import statistics
from pathlib import Path
from types import ModuleType

from apps.core import config as configs
from apps.core.errors import UsageError
from apps.core.evaluation import evaluate, split_of
from apps.core.runs import Run, app_name, atomic, write_json

MARKS = ("<!-- results -->", "<!-- /results -->")


def record(app: ModuleType, runs: list[Run], split: str, variant: str = "default") -> dict:
    """Evaluates runs that differ in their seed alone, and writes their row.

    The row takes the place of the one of the same data, split and variant in `results.json`, and
    the table in the app's README is written anew.

    Returns:
        The row.

    Raises:
        UsageError: if the runs differ in more than the seed, or share one.
    """
    made = [run.config(app) for run in runs]
    first = made[0]
    for run, config in zip(runs, made, strict=True):
        if dataclasses.replace(config, seed=first.seed) != first:
            raise UsageError(f"{run.path} differs from {runs[0].path} in more than the seed.")
    seeds = [config.seed for config in made]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"The runs of a row need different seeds, got {seeds}.")
    figures = [evaluate(app, run, split) for run in runs]
    names = [name for name, value in figures[0].items() if isinstance(value, float)]
    data = app.load(first, runs[0].assets())
    split_of(data, split, first.data)
    environments = [run.environment() for run in runs]
    preset = app.PRESETS.get(first.data, app.Config())
    changed = {
        name: value
        for name, value in configs.to_json(first).items()
        if name not in ("seed", "data") and value != getattr(preset, name)
    }
    options = "".join(f" --{name.replace('_', '-')}={value}" for name, value in changed.items())
    seed = ",".join(map(str, sorted(seeds)))
    row = {
        "data": first.data,
        "variant": variant,
        "split": split,
        "examples": figures[0]["examples"],
        "metrics": {
            name: {
                "mean": round(statistics.mean(f[name] for f in figures), 4),
                # Of a sample: divided by runs - 1.
                "std": round(statistics.stdev(f[name] for f in figures), 4)
                if len(figures) > 1
                else None,
                "runs": len(figures),
            }
            for name in names
        },
        "baseline": {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in app.baseline(first, data, split).items()
        },
        "published": app.PUBLISHED.get(first.data),
        "config": {k: v for k, v in configs.to_json(first).items() if k not in ("seed", "data")},
        "minutes": round(statistics.mean(e["seconds"] for e in environments) / 60, 1),
        "hardware": environments[0]["hardware"],
        "command": f"python -m apps {app_name(app)} train --data={first.data}{options} "
        f"--seed={seed if len(seeds) == 1 else '{' + seed + '}'}",
        "commit": environments[0]["commit"],
    }
    folder = Path(app.__file__).parent
    key = ("data", "variant", "split")
    rows = [old for old in read(folder) if any(old[k] != row[k] for k in key)]
    order = list(app.PRESETS)
    rows.append(row)
    rows.sort(key=lambda r: (order.index(r["data"]), r["variant"] != "default", r["variant"]))
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
        measured = "; ".join(f"{name} {_spread(m)}" for name, m in row["metrics"].items())
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(metric: dict) -> str:
    spread = "" if metric["std"] is None else f" ± {metric['std']:.4f}"
    return f"{metric['mean']:.4f}{spread} ({metric['runs']})"


def _plain(figures: dict) -> str:
    return "; ".join(f"{name} {value:.4f}" for name, value in figures.items())


def _write_table(path: Path, rows: list[dict]) -> None:
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not (found and closed):
        raise UsageError(f"{path} lacks the marks {MARKS[0]} and {MARKS[1]} for its table.")
    with atomic(path) as temporary:
        temporary.write_text(
            f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8"
        )
