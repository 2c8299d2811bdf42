"""Fixtures of the tests of an app whose model has several variants."""

import functools
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.parameters import first_of
from unroll.apps.core.protocol import Service, Trained


def fixtures(
    app: ModuleType, make: Callable[..., Trained], variants: dict[str, dict], *others: str
) -> tuple:
    """The fixtures `served`, `model` and `plain` of a test module.

    Args:
        app: the app's module. In a test with `model` or `plain`, `app.serve` returns the service of
            that model.
        make: a model with random weights, from options.
        variants: the options of each variant. The first one is that of the app's defaults.
        *others: the variants that `make test` runs besides the first one.

    Returns:
        `served`, a function of the name of a variant that returns its model and its service, each
        built and traced once; `model`, the model of each variant in turn; `plain`, the first one.
    """

    @pytest.fixture(scope="module")
    def served() -> Callable[[str], tuple[Trained, Service]]:
        @functools.cache
        def made(variant: str) -> tuple[Trained, Service]:
            trained = make(**variants[variant])
            return trained, app.serve(trained)

        return made

    @pytest.fixture(params=first_of(variants, *others))
    def model(request, served, monkeypatch) -> Trained:
        trained, service = served(request.param)
        monkeypatch.setattr(app, "serve", lambda _: service)
        return trained

    @pytest.fixture
    def plain(served, monkeypatch) -> Trained:
        trained, service = served(next(iter(variants)))
        monkeypatch.setattr(app, "serve", lambda _: service)
        return trained

    return served, model, plain
