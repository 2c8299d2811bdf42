"""What an app is: the names that `apps.<app>.app` defines, and the types that they exchange.

An app is a module, and the functions of `apps.core` take it as an argument. It defines `Config`,
`PRESETS`, `load`, `build`, `score`, `baseline`, `predict`, `show`, `serve`, `EXAMPLES` and
`PUBLISHED`, and some that are optional; CONTRIBUTING.md tells what each of them is, and
`tests/apps/test_contract.py` holds every app to it.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

# Vocabularies and label names: lines of text by name.
Assets = dict[str, list[str]]


def settings_asset(settings: dict) -> list[str]:
    """What an app's functions must know of a configuration, as the asset `settings`."""
    return json.dumps(settings, indent=1).splitlines()


def settings_of(assets: Assets) -> dict:
    """What stands in the asset `settings`."""
    return json.loads("\n".join(assets["settings"]))


@dataclass(frozen=True)
class Data:
    """A dataset made ready for a model: batches of `(features, labels)`, or with weights third.

    Attributes:
        train: shuffled anew each epoch; `None` if the data have no such split.
        valid, test: each example once, in a fixed order; `None` likewise.
        assets: what turns ids back into words and labels.
    """

    train: tf.data.Dataset | None
    valid: tf.data.Dataset | None
    test: tf.data.Dataset | None
    assets: Assets


class Service(tf.Module):
    """The functions that an app exports.

    Args:
        functions: by signature name, a `tf.function` with an `input_signature` of named specs that
            returns a dict of tensors. `serving_default` takes the raw input.
        requests: turns raw examples into the arguments of each function, by name.
        litert: the name of the function that becomes the LiteRT file, if there is one.
        keep: what the functions use and a SavedModel must hold: variables, tables.
    """

    def __init__(
        self,
        functions: dict[str, tf.types.experimental.PolymorphicFunction],
        requests: Callable[[list], dict[str, dict[str, np.ndarray]]],
        litert: str | None = None,
        keep: Any = (),
    ):
        super().__init__()
        self.functions = functions
        self.requests = requests
        self.litert = litert
        self.keep = keep


def with_inputs(function: Callable[[dict], dict], specs: dict[str, tf.TensorSpec]):
    """A `tf.function` whose arguments have the names and specs given, from a function of a dict."""
    names = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in specs]
    )

    def call(*args, **kwargs):
        return function(dict(names.bind(*args, **kwargs).arguments))

    call.__signature__ = names
    named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    return tf.function(call, input_signature=named, autograph=False)


def ask(service: Service, inputs: list, batch_size: int = 32) -> list[dict]:
    """What `serving_default` answers to each raw input, as plain Python values.

    Strings come as `str`, and each output without its batch axis.
    """
    answers = []
    for i in range(0, len(inputs), batch_size):
        batch = inputs[i : i + batch_size]
        request = service.requests(batch)["serving_default"]
        outputs = service.functions["serving_default"](
            **{name: tf.constant(value) for name, value in request.items()}
        )
        columns = {name: _plain(value.numpy().tolist()) for name, value in outputs.items()}
        answers += [{k: v[row] for k, v in columns.items()} for row in range(len(batch))]
    return answers


def _plain(value):
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
