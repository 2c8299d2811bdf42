"""Fine-tuning: a model starts with the weights of another run."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

import keras
import numpy as np

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.protocol import Assets, Axes, Axis, Part, hook
from unroll.apps.core.runs import Run

_MAX_NAMED = 8  # kinds of layers in a line of the report


@dataclass(frozen=True)
class Carried:
    """What became of the layers of a model that starts from a run.

    Attributes:
        unchanged: the layers whose weights are those of the run.
        matched: the layers whose rows and columns are matched by the entries of assets, with the
            names of these assets.
        fresh: the layers that keep their initial weights, each with the reason.
        entries: by asset, the number of its entries that the run has too, and of all.
    """

    unchanged: list[str] = field(default_factory=list)
    matched: dict[str, list[str]] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"carried over: {_kinds(self.unchanged)}"]
        by_assets = defaultdict(list)
        for layer, assets in self.matched.items():
            by_assets[tuple(assets)].append(layer)
        for assets, layers in by_assets.items():
            counts = (f"{each}: {'{} of {}'.format(*self.entries[each])}" for each in assets)
            lines.append(f"carried over by entry ({', '.join(counts)}): {_kinds(layers)}")
        by_reason = defaultdict(list)
        for layer, reason in self.fresh.items():
            by_reason[reason].append(layer)
        for reason, layers in by_reason.items():
            lines.append(f"initialized, since {reason}: {_kinds(layers)}")
        return "\n".join(f"  {line}" for line in lines)


def start(app: ModuleType, config: TrainingConfig, model: keras.Model, assets: Assets) -> Carried:
    """Copies the weights of the run `config.start` of the same app into a model.

    Raises:
        UsageError: if the run cannot be loaded, or has a layer that the model lacks.
    """
    source = load_trained(app, Run.open(app, config.start))
    axes = hook(app, "axes")
    try:
        return carry(
            (model, axes(config), assets), (source.model, axes(source.config), source.assets)
        )
    except UsageError as error:
        raise UsageError(f"--start={config.start}: {error}") from None


def carry(
    target: tuple[keras.Model, Axes, Assets], source: tuple[keras.Model, Axes, Assets]
) -> Carried:
    """Copies the weights of a model into another, layer by layer.

    A layer is that with the same path. Along an axis that an asset indexes, the entries that both
    assets have are copied, each to its own position, and new entries keep their initial values; all
    other axes must have the same length. Otherwise the layer keeps its initial weights.

    Args:
        target: the model, the axes of its weights (see `protocol`), and its assets.
        source: the same of the model to copy from. It may belong to another app: the assets are
            matched by name, and their entries by content.

    Raises:
        UsageError: if the source has a layer that the target lacks.
        ValueError: if a declared axis does not have the length of its asset.
    """
    (model, axes, assets), (source_model, source_axes, source_assets) = target, source
    targets, sources = by_name(model), by_name(source_model)
    if lacking := sources.keys() - targets.keys():
        raise UsageError(
            f"this model lacks {len(lacking)} of the run's {len(sources)} weights, such as "
            f"{min(lacking)}; use the options of the run for the network."
        )
    layers = defaultdict(list)
    for name in targets:
        layers[name.rpartition("/")[0]].append(name)
    ambiguous = _ambiguous(targets, sources)
    carried = Carried()
    for layer, names in layers.items():
        if layer in ambiguous or not sources.keys() >= set(names):
            carried.fresh[layer] = ambiguous.get(layer, "the run does not have them")
            continue
        values, parts, reason = {}, {}, None
        for name in names:
            own, others = axes_of(name, axes), axes_of(name, source_axes)
            found = _merge(
                name, targets[name], sources[name], (own, assets), (others, source_assets)
            )
            if isinstance(found, str):
                reason = reason or found
                continue
            values[name], counts = found
            parts |= counts
        if reason:
            carried.fresh[layer] = reason
            continue
        for name, value in values.items():
            targets[name].assign(value)
        used: dict[str, tuple[int, int]] = {}
        for part, (both, every) in parts.items():
            before = used.get(part.asset, (0, 0))
            used[part.asset] = (before[0] + both, before[1] + every)
        carried.entries.update(used)
        if all(assets[each] == source_assets[each] for each in used):
            carried.unchanged.append(layer)
        else:
            carried.matched[layer] = list(used)
    return carried


def axes_of(name: str, axes: Axes) -> tuple[Axis, ...] | None:
    """What is declared for the axes of a weight; `None` if nothing is."""
    found = [value for pattern, value in axes.items() if re.fullmatch(pattern, name)]
    if len(found) > 1:
        raise ValueError(f"{len(found)} patterns declare the axes of {name}.")
    return found[0] if found else None


def _merge(name: str, target, source, declared: tuple, source_declared: tuple):
    """The value of a weight, with the counts of the entries by part; or why there is none."""
    (axes, assets), (source_axes, source_assets) = declared, source_declared
    shape, source_shape = tuple(target.shape), tuple(source.shape)
    if axes != source_axes or len(shape) != len(source_shape):
        return "they have other inputs"
    axes = axes or (None,) * len(shape)
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} axes are declared for {name}, whose shape is {shape}.")
    to, of, counts = [], [], {}
    for axis, size, source_size in zip(axes, shape, source_shape, strict=True):
        part, *rest = axis if isinstance(axis, tuple) else (axis,)
        part = Part(part, 0) if isinstance(part, str) else part
        entries = _entries(name, part, size, bool(rest), assets)
        known = _entries(name, part, source_size, bool(rest), source_assets)
        if size - len(entries) != source_size - len(known):
            return "their sizes differ"
        position = {entry: k for k, entry in enumerate(known)}
        both = [k for k, entry in enumerate(entries) if entry in position]
        if part and not both:
            return f"the run has none of the {part.asset}"
        if part:
            counts[part] = len(both), len(entries)
        extra = range(size - len(entries))
        to.append([*both, *(len(entries) + k for k in extra)])
        of.append([*(position[entries[k]] for k in both), *(len(known) + k for k in extra)])
    value = np.array(keras.ops.convert_to_numpy(target))
    value[np.ix_(*to)] = keras.ops.convert_to_numpy(source)[np.ix_(*of)]
    return value, counts


def _entries(name: str, part: Part | None, size: int, partial: bool, assets: Assets) -> list[str]:
    """The entries of a part of an asset that indexes an axis, or none for an axis of positions."""
    if part is None:
        return []
    entries = assets[part.asset][part.start : part.stop]
    if len(entries) > size or (len(entries) < size and not partial):
        raise ValueError(
            f"{name} has an axis of length {size}, but the asset {part.asset} has {len(entries)} "
            "lines."
        )
    return entries


def by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights by path, with numbers that do not depend on other models of the process.

    Keras numbers unnamed layers across all models. Here, the unnamed layers of a kind are numbered
    from 0 within a model, and the first has no number. Names that begin with 0, such as `layer_0`,
    are not changed. Layers with the same path get a number after `#`.
    """
    paths = [weight.path.split("/") for weight in model.weights]
    groups = _groups(paths)
    weights, count = {}, Counter()
    for weight, path in zip(model.weights, paths, strict=True):
        renamed = []
        for k, part in enumerate(path[:-1]):
            base, number = _number(part)
            numbers = groups[*path[:k], base]
            if "0" not in numbers:
                rank = sorted(numbers, key=int).index(number)
                part = f"{base}_{rank}" if rank else base
            renamed.append(part)
        name = "/".join([*renamed, path[-1]])
        number = count[name]
        count[name] += 1
        if number:
            name = f"{'/'.join(renamed)}#{number}/{path[-1]}"
        weights[name] = weight
    return weights


def _number(part: str) -> tuple[str, str]:
    """`("conv2d", "3")` of `conv2d_3`. Names without a number have -1."""
    match = re.fullmatch(r"(.+)_(\d+)", part)
    return (match[1], match[2]) if match else (part, "-1")


def _groups(paths: Iterable[list[str]]) -> Mapping[tuple[str, ...], set[str]]:
    """The numbers of the layers of each kind, by the path of their parent and their name."""
    groups = defaultdict(set)
    for path in paths:
        for k, part in enumerate(path[:-1]):
            base, number = _number(part)
            groups[*path[:k], base].add(number)
    return groups


def _ambiguous(targets: Iterable[str], sources: Iterable[str]) -> dict[str, str]:
    """Layers whose counterparts are unknown, since the models have different numbers of them."""
    own, others = (_groups(name.split("/") for name in names) for names in (targets, sources))
    found = {}
    for name in targets:
        path = name.split("/")
        for k, part in enumerate(path[:-1]):
            group = (*path[:k], _number(part)[0])
            here, there = own[group], others.get(group, set())
            if "0" not in here and there and len(here) != len(there):
                reason = f"the run has {len(there)} of them, and this model {len(here)}"
                found["/".join(path[:-1])] = reason
    return found


def _kinds(layers: list[str]) -> str:
    """The kinds of layers, with the number of each."""
    kinds = Counter(re.sub(r"([_#]\d+)+$", "", layer.partition("/")[0]) for layer in layers)
    named = [f"{name} ({n})" if n > 1 else name for name, n in list(kinds.items())[:_MAX_NAMED]]
    return ", ".join(named + ["..."] * (len(kinds) > _MAX_NAMED)) or "nothing"
