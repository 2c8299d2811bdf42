"""What the readers of a folder of your own files share."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from unroll.pipelines.datasets.base import hold_out
from unroll.pipelines.errors import DataError, report_once

# What a file of a split may be called, by the name of the split.
_ALIASES = {"train": "train training", "valid": "valid dev val validation eval", "test": "test"}
_MOST = 5  # the names that a message gives
_FEWEST = 10  # different examples, of which some can be held out


def refuse_other_splits(folder: Path, used: Collection[Path], suffixes: Iterable[str]) -> None:
    """Raises a `DataError` for a file that looks like a split, but is not read.

    Args:
        folder: of the files.
        used: the files that are read.
        suffixes: of the files that can be read.
    """
    for path in sorted(folder.iterdir()):
        stem = path.name.split(".")[0].casefold()
        split = next((name for name, own in _ALIASES.items() if stem in own.split()), None)
        if split and path.is_file() and path not in used:
            names = ", ".join(split + suffix for suffix in suffixes)
            raise DataError(f"{path} is not read: name the file {names}, or move it away.")


def hold_out_equal(
    groups: Sequence[Hashable], source: Path, *, examples: str, add: str, labels: Sequence
) -> list[bool]:
    """As `hold_out`, equal examples together unless there are hardly any others.

    Args:
        groups: what is the same for equal examples.
        source, examples, add, labels: as in `hold_out`.
    """
    different = len(set(groups))
    if different < _FEWEST <= len(groups):
        report_once(
            f"{source}: only {different} of {len(groups)} {examples} are different. The same "
            "ones are held out and trained on: validation figures do not show how well the model "
            "does on others."
        )
        groups = range(len(groups))
    name = examples.removesuffix("s")
    return hold_out(groups, source, examples=examples, group=name, add=add, labels=labels)


def report_unseen(kind: str, known: Collection[Hashable], found: Mapping[str, list]) -> None:
    """Reports what valid and test have beyond the training split, with counts.

    Args:
        kind: what is counted, such as `intents`.
        known: those of the training split.
        found: those of the examples of each other split, by its name.
    """
    for split, values in found.items():
        beyond = [value for value in values if value not in known]
        if beyond:
            report_once(
                f"{split}: {len(beyond):,} of {len(values):,} {kind} are not in the training "
                f"split ({named(beyond)}); they count as errors."
            )


def report_repeated(examples: str, groups: Mapping[str, list[Hashable]]) -> None:
    """Reports how many examples of valid and test the training split has, too.

    Args:
        examples: what the examples are, such as `texts`.
        groups: by split, what identifies each example.
    """
    known = set(groups["train"])
    for split in groups.keys() - {"train"}:
        if repeated := sum(group in known for group in groups[split]):
            report_once(
                f"{split}: {repeated:,} of {len(groups[split]):,} {examples} are also in the "
                "training split."
            )


def named(values: Iterable[Hashable]) -> str:
    """The first different values, for a message."""
    different = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(different[:_MOST]) + (", ..." if len(different) > _MOST else "")
