"""Runs of models that are not trained."""

from pathlib import Path
from types import ModuleType

from unroll.apps.core.evaluation import save_weights
from unroll.apps.core.protocol import Trained
from unroll.apps.core.runs import Run


def write_run(folder: Path, app: ModuleType, trained: Trained) -> Run:
    """Writes the run of a model of an app."""
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    run.write_config(app, trained.config)
    run.write_assets(trained.assets)
    save_weights(trained.model, run)
    return run
