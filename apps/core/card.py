"""The model card of a run: Markdown with the YAML header that hubs of models read."""

import json
import sys
from pathlib import Path
from types import ModuleType

import unroll
from unroll.apps.core import results
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.files import encode_json, write_bytes
from unroll.apps.core.protocol import hook
from unroll.apps.core.runs import Run, app_name
from unroll.pipelines import datasets
from unroll.pipelines.errors import DataError

# Hubs show the file of this name.
NAME = "README.md"
BASELINES = "baselines.json"
_MARK = "<!-- Written by `unroll`. Without this line, the file is yours and is not replaced. -->"
_UNKNOWN = "unknown"


def write(app: ModuleType, run: Run) -> Path:
    """Writes the card of a trained run into its folder, as `README.md`.

    The baselines of evaluated splits that are not among the app's results are computed first and
    stored in the run, as `baselines.json`. One that cannot be computed is named on the standard
    error.

    Returns:
        The path of the card.

    Raises:
        UsageError: if a file of the run is broken, or the folder has a `README.md` of the user.
    """
    if _own(run) is not None:
        raise UsageError(f"{run.path / NAME} is not a card of this command: move it first.")
    for split in run.read_metrics():
        if _baseline(app, run, split) is None:
            try:
                found = results.baseline(app, run, split)
            except (UsageError, DataError) as error:
                print(
                    f"unroll: there is no baseline of the {split} split: {error}", file=sys.stderr
                )
            else:
                run.write(BASELINES, encode_json(_stored(run) | {split: found}))
    write_bytes(run.path / NAME, text(app, run).encode())
    return run.path / NAME


def for_export(app: ModuleType, run: Run) -> bytes:
    """The card of a run, or the `README.md` that its user has written in place of it."""
    own = _own(run)
    return text(app, run).encode() if own is None else own


def _own(run: Run) -> bytes | None:
    path = run.path / NAME
    content = path.read_bytes() if path.is_file() else _MARK.encode()
    return None if _MARK.encode() in content else content


def text(app: ModuleType, run: Run) -> str:
    """The card of a run.

    It has the task, what the run was trained on and under which license, the figures of the splits
    that were evaluated with their baselines, the limits in the app's README, commands and versions.
    """
    config, name = run.config(app), app_name(app)
    title = f"{name}: {_data_name(config)}"
    parts = [
        _header(app, run, config),
        f"# {title}",
        f"{app.__doc__.splitlines()[0]} A model of the app `{name}` of Unroll.",
        _use(name),
        "## Data",
        _data(config),
        "## Figures",
        _figures(app, run),
        *_limits(app),
        "## Training",
        _training(app, run, config),
        _MARK,
    ]
    return "\n\n".join(parts) + "\n"


def _data_name(config: TrainingConfig) -> str:
    """The name of a dataset, or of a folder without the folders that contain it."""
    return config.data if config.data in datasets.names() else Path(config.data).resolve().name


def _header(app: ModuleType, run: Run, config: TrainingConfig) -> str:
    """The YAML header. Strings are in JSON, which is YAML."""
    data, task = json.dumps(_data_name(config), ensure_ascii=False), json.dumps(app.TASK)
    lines = [
        "---",
        'library_name: "keras"',
        f"pipeline_tag: {task}",
        'tags: ["keras", "tensorflow", "unroll"]',
        f"datasets: [{data}]",
        f"data_license: {json.dumps(_license(config) or _UNKNOWN)}",
        "model-index:",
        f"- name: {json.dumps(f'unroll-{app_name(app)}')}",
        "  results:",
    ]
    for split, figures in run.read_metrics().items():
        lines += [
            f"  - task: {{type: {task}}}",
            f"    dataset: {{name: {data}, type: {data}, split: {json.dumps(split)}}}",
            "    metrics:",
            *(
                f"    - {{type: {json.dumps(name)}, value: {json.dumps(figures[name])}}}"
                for name in app.METRICS
                if name in figures
            ),
        ]
    if not run.read_metrics():
        lines[-1] += " []"
    return "\n".join([*lines, "---"])


def _use(name: str) -> str:
    return f"""```python
from unroll import load  # pip install 'unroll-keras[apps]'

model = load("folder")  # the folder of this file
```

```sh
unroll {name} predict folder INPUT...
unroll {name} demo folder
unroll {name} export folder
```

The commands need the folder of the run; `load` also reads an export."""


def _license(config: TrainingConfig) -> str:
    known = datasets.builder_class(config.data)
    return known.LICENSE if known else ""


def _data(config: TrainingConfig) -> str:
    known = datasets.builder_class(config.data)
    what = "Files of the user's own."
    if known and known.__doc__:
        what = known.__doc__.splitlines()[0]
    rows = [["data", f"`{_data_name(config)}`: {what}"]]
    if known:
        rows += [
            [what, value]
            for what, value in (("published at", known.HOMEPAGE), ("reference", known.CITATION))
            if value
        ]
    rows.append(
        ["license", _license(config) or f"{_UNKNOWN}: check it before you publish the model"]
    )
    if config.generated_size != 1:
        rows.append(["size", f"{config.generated_size:g} of the usual size"])
    return results.markdown_table(["", ""], rows)


def _figures(app: ModuleType, run: Run) -> str:
    found = run.read_metrics()
    if not found:
        return f"Not evaluated: `unroll {app_name(app)} evaluate folder` measures them."
    names = [n for n in app.METRICS if any(n in figures for figures in found.values())]
    rows = []
    for split, figures in found.items():
        rows.append([f"{split} split, {figures['examples']:,} examples", *_cells(figures, names)])
        baseline = _baseline(app, run, split)
        if baseline is None:
            rows.append(["baseline: not measured", *[""] * len(names)])
        else:
            rows.append([f"baseline: {baseline['what']}", *_cells(baseline, names)])
    directions = {"max": "higher is better", "min": "lower is better"}
    heads = [f"{n.replace('_', ' ')} ({directions[app.METRICS[n]]})" for n in names]
    return results.markdown_table(["", *heads], rows)


def _cells(figures: dict, names: list[str]) -> list[str]:
    return [results.number(figures[name]) if name in figures else "" for name in names]


def _baseline(app: ModuleType, run: Run, split: str) -> dict | None:
    """The baseline of a split, from the app's results or from the run."""
    config = run.config(app)
    names = ["generated_size", *([part] if (part := hook(app, "PART")) else [])]
    for row in results.read(Path(app.__file__).parent):
        same = (row["data"], row["split"]) == (config.data, split)
        same &= all(
            row["config"].get(name, getattr(app.Config(), name)) == getattr(config, name)
            for name in names
        )
        if same:
            return row["baseline"]
    return _stored(run).get(split)


def _stored(run: Run) -> dict:
    path = run.path / BASELINES
    return json.loads(run.read(BASELINES)) if path.is_file() else {}


def _limits(app: ModuleType) -> list[str]:
    """The section of the app's README."""
    readme = Path(app.__file__).with_name("README.md")
    lines = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    _, found, rest = lines.partition("\n## Limits\n")
    return ["## Limits", rest.partition("\n## ")[0].strip()] if found else []


def _training(app: ModuleType, run: Run, config: TrainingConfig) -> str:
    command = f"```sh\n{results.command(app, config, [config.seed])}\n```"
    if not (run.path / "environment.json").is_file():
        return command
    made = run.environment()
    rows = [
        *([["minutes", f"{made['seconds'] / 60:.1f}"]] if "seconds" in made else []),
        ["hardware", made["hardware"]],
        ["commit of Unroll", made["commit"] or f"none: {unroll.__version__} was installed"],
        ["Python", made["python"]],
        *([package, version] for package, version in made["packages"].items()),
    ]
    return f"{command}\n\n{results.markdown_table(['', ''], rows)}"
