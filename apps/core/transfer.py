"""Fine-tuning: a model starts with the weights of another run, of the same app or of another."""

import importlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

import keras
import numpy as np

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.errors import UsageError
from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.protocol import Assets, Axes, Axis, Part, Shared, Trained, hook
from unroll.apps.core.runs import Run, app_name

_LACKING = "the run does not have them"
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
        unused: the layers of the run, of another app, that this model does not have.
    """

    unchanged: list[str] = field(default_factory=list)
    matched: dict[str, list[str]] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

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
        if self.unused:
            lines.append(f"not used of the run: {_kinds(self.unused)}")
        return "\n".join(f"  {line}" for line in lines)


def start(app: ModuleType, config: TrainingConfig, model: keras.Model, assets: Assets) -> Carried:
    """Copies the weights of the run `config.start` into a model.

    Raises:
        UsageError: if the run cannot be loaded, its weights do not fit the model, or it belongs to
            an app that shares no weights with this one.
    """
    owner = _owner(app, config.start)
    source = load_trained(owner, Run.open(owner, config.start))
    target = Trained(config, assets, model)
    try:
        if owner is not app:
            return carry_shared((app, target), (owner, source))
        axes = hook(app, "axes")
        return carry(
            (model, axes(config), assets), (source.model, axes(source.config), source.assets)
        )
    except UsageError as error:
        raise UsageError(f"--start={config.start}: {error}") from None


def start_options(app: ModuleType, path: str) -> dict:
    """The options with which the weights of a run of another app fit, by name.

    Raises:
        UsageError: if the folder is no run.
    """
    owner = _owner(app, path)
    if owner is app:
        return {}
    return hook(app, "start_options")(Run.open(owner, path).config(owner))


def _owner(app: ModuleType, path: str) -> ModuleType:
    """The app of a run. That is `app`, or another one that shares weights, as `app` does."""
    name = Run(path).app()
    if name == app_name(app):
        return app
    try:
        owner = importlib.import_module(f"unroll.apps.{name}.app")
    except ImportError:
        raise UsageError(f"--start={path} is a run of {name}, which is not an app.") from None
    if not (hook(app, "shared") and hook(owner, "shared")):
        raise UsageError(
            f"--start={path} is a run of {name}, whose weights {app_name(app)} cannot use."
        )
    return owner


class _Weight(NamedTuple):
    """A variable, or a value of a source, with what is declared for its axes."""

    variable: keras.Variable | np.ndarray
    axes: tuple[Axis, ...] | None


def carry(
    target: tuple[keras.Model, Axes, Assets], source: tuple[keras.Model, Axes, Assets]
) -> Carried:
    """Copies the weights of a model into another of the same app, layer by layer.

    A layer is that with the same path. Along an axis that an asset indexes, the entries that both
    assets have are copied, each to its own position, and new entries keep their initial values; all
    other axes must have the same length. Otherwise the layer keeps its initial weights.

    Args:
        target: the model, the axes of its weights (see `protocol`), and its assets.
        source: the same of the model to copy from. The assets are matched by name, and their
            entries by content.

    Raises:
        UsageError: if the source has a layer that the target lacks.
        ValueError: if a declared axis does not have the length of its asset.
    """
    (model, axes, assets), (source_model, source_axes, source_assets) = target, source
    targets, sources = _weights(model, axes), _weights(source_model, source_axes)
    _require_all(sources.keys() - targets.keys(), sources)
    fresh = _ambiguous(targets, sources)
    return _copy((targets, assets), (sources, source_assets), fresh)


def carry_shared(target: tuple[ModuleType, Trained], source: tuple[ModuleType, Trained]) -> Carried:
    """Copies the weights that the models of two apps share, as `carry`.

    Layers that are not shared keep their initial weights.

    Args:
        target: the app and the model. The app's `shared` declares the weights.
        source: the same of the model to copy from.

    Raises:
        UsageError: if the models read different tokens, share no weights, or a weight that both
            declare does not fit. The message has the options to use.
    """
    sides = [
        (hook(app, "shared")(trained.config), app, trained) for app, trained in (target, source)
    ]
    (own, _, given), (other, owner, loaded) = sides
    if own.tokens != other.tokens:
        raise UsageError(
            f"the run of {app_name(owner)} reads {other.tokens}, and this model {own.tokens}."
        )
    targets, sources = (
        _weights(trained.model, hook(app, "axes")(trained.config)) for _, app, trained in sides
    )
    trainable = {name for name, weight in sources.items() if weight.variable.trainable}
    axes = hook(owner, "axes")(loaded.config)
    for name, values in other.computed.items():
        sources[name] = _Weight(values(loaded), axes_of(name, axes))
    names, found = _by_meaning(targets, own), _by_meaning(sources, other)
    if not names.keys() & found.keys():
        raise UsageError("the run has none of the weights of this model.")
    advice = _advice(target, source)
    _require_all({found[each] for each in found.keys() - names.keys()}, found.values(), advice)
    if lacking := {names[each] for each in names.keys() - found.keys()}:
        raise UsageError(
            f"the run lacks {len(lacking)} of the {len(names)} weights that it should share, such "
            f"as {min(lacking)}{advice}."
        )
    renamed = {names[meaning]: sources[name] for meaning, name in found.items()}
    assets = {
        name: [own.unknown if each == other.unknown else each for each in asset]
        if isinstance(asset, list)
        else asset
        for name, asset in loaded.assets.items()
    }
    carried = _copy((targets, given.assets), (renamed, assets), {})
    for layer, reason in carried.fresh.items():
        if reason != _LACKING:
            raise UsageError(f"{layer} cannot be carried over, since {reason}{advice}.")
    unused = {name.rpartition("/")[0] for name in trainable - set(found.values())}
    carried.unused.extend(sorted(unused))
    return carried


def _weights(model: keras.Model, axes: Axes) -> dict[str, _Weight]:
    return {
        name: _Weight(variable, axes_of(name, axes))
        for name, variable in by_name(model).items()
        if "/" in name  # others belong to no layer: states that are carried from batch to batch
    }


def _by_meaning(names: Iterable[str], shared: Shared) -> dict[str, str]:
    """The names of the shared weights by what both apps call them."""
    found = {}
    for name in names:
        for pattern, template in shared.weights.items():
            if match := re.fullmatch(pattern, name):
                found[match.expand(template)] = name
    return found


def _advice(target: tuple[ModuleType, Trained], source: tuple[ModuleType, Trained]) -> str:
    (app, own), (_, other) = target, source
    wanted = hook(app, "start_options")(other.config)
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in wanted.items()
        if getattr(own.config, name) != value
    ]
    return f"; use {' '.join(options)}" if options else ""


def _require_all(lacking: set[str], names: Collection[str], advice: str | None = None) -> None:
    """Raises a `UsageError` if a model lacks some of the weights of a run."""
    if lacking:
        advice = "; use the options of the run for the network" if advice is None else advice
        raise UsageError(
            f"this model lacks {len(lacking)} of the run's {len(names)} weights, such as "
            f"{min(lacking)}{advice}."
        )


def _copy(target: tuple[dict, Assets], source: tuple[dict, Assets], fresh: dict) -> Carried:
    """Copies weights by name. The layers of `fresh` keep theirs, for the reason given there."""
    (targets, assets), (sources, source_assets) = target, source
    layers = defaultdict(list)
    for name in targets:
        layers[name.rpartition("/")[0]].append(name)
    carried = Carried()
    for layer, names in layers.items():
        if layer in fresh or not sources.keys() >= set(names):
            carried.fresh[layer] = fresh.get(layer, _LACKING)
            continue
        values, parts, reason = {}, {}, None
        for name in names:
            found = _merge(name, targets[name], sources[name], assets, source_assets)
            if isinstance(found, str):
                reason = reason or found
                continue
            values[name], counts = found
            parts |= counts
        if reason:
            carried.fresh[layer] = reason
            continue
        for name, value in values.items():
            targets[name].variable.assign(value)
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


def _merge(name: str, to: _Weight, given: _Weight, assets: Assets, source_assets: Assets):
    """The value of a weight, with the counts of the entries by part; or why there is none."""
    (target, axes), (source, source_axes) = to, given
    shape, source_shape = tuple(target.shape), tuple(source.shape)
    if axes != source_axes or len(shape) != len(source_shape):
        return "they have other inputs"
    axes = axes or (None,) * len(shape)
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} axes are declared for {name}, whose shape is {shape}.")
    rows, source_rows, counts = [], [], {}
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
        rows.append([*both, *(len(entries) + k for k in extra)])
        source_rows.append(
            [*(position[entries[k]] for k in both), *(len(known) + k for k in extra)]
        )
    value = np.array(keras.ops.convert_to_numpy(target))
    value[np.ix_(*rows)] = keras.ops.convert_to_numpy(source)[np.ix_(*source_rows)]
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
