"""Examples per second of the input pipeline and of the training step of an app.

    python benchmarks/pipeline.py [--app=sentiment] [--data=NAME ...]

The first pass reads the files, preprocesses the examples and fills the cache. The later passes are
what training sees from its second epoch on. The training step is measured on batches in memory.
Pipeline and model are timed alternately; the medians are printed.
"""

import importlib
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from unroll.apps.core.config import parse_known_options, parse  # noqa: I001
from unroll.apps.core.quiet import import_tensorflow


@dataclass(frozen=True)
class Options:
    # the app; the other options are those of its `train` command
    app: str = "sentiment"
    # measurements of the pipeline and of the model
    rounds: int = 5


def measure(app, config, rounds: int) -> dict[str, float]:
    """Examples per second of the first and the later passes of the pipeline, and of the model."""
    start = time.perf_counter()
    data = app.load(config, ("train",), training=True)
    batches = list(data["train"])
    first = time.perf_counter() - start
    examples = sum(map(size_of, batches))
    model = app.build(config, data.assets)
    sample = batches[:: max(1, len(batches) // 40)]
    sampled = sum(map(size_of, sample))
    for batch in sample:
        model.train_on_batch(*batch)
    pipeline, steps = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in data["train"]:
            pass
        pipeline.append(time.perf_counter() - start)
        start = time.perf_counter()
        for batch in sample:
            model.train_on_batch(*batch)
        steps.append(time.perf_counter() - start)
    return {
        "pipeline, first pass": examples / first,
        "pipeline, later passes": examples / statistics.median(pipeline),
        "model, training": sampled / statistics.median(steps),
    }


def size_of(batch) -> int:
    """The number of examples of a batch."""
    import tensorflow as tf

    return len(tf.nest.flatten(batch)[0])


def main() -> None:
    import_tensorflow()
    options, rest = parse_known_options(Options, sys.argv[1:])
    app = importlib.import_module(f"unroll.apps.{options.app}.app")
    config = parse(app, rest)
    print(f"{options.app}, {config.data}: examples per second")
    for name, figure in measure(app, config, options.rounds).items():
        print(f"{name:<24}{figure:>10,.0f}")


if __name__ == "__main__":
    main()
