"""Words a second and quality of word vectors, beside gensim on the same words.

    python benchmarks/word_vectors.py --data=wiki10m --epochs=5 [--objective=cbow]

Both train on the words of the vocabulary of the app, line by line, with the same dimension, window,
number of negative samples, subsampling and number of epochs, one after the other on the same cores.
gensim has its own default learning rate. Prints a line for each: words (with those that are left
out) per second of CPU time (user and system, of all threads) and of wall time, and the figures of
the test split.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable

import numpy as np

from unroll.apps.core.data import RawSplits
from unroll.apps.core.quiet import import_tensorflow
from unroll.apps.word_vectors import app, metrics
from unroll.pipelines import word_vectors as pairs


def measured(train: Callable[[], None], words: int) -> dict:
    """Seconds of CPU and wall time, and words per second."""
    before, start = os.times(), time.perf_counter()
    train()
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.user + after.system - before.user - before.system
    speeds = {"words_per_cpu_second": words / cpu, "words_per_second": words / wall}
    return {"cpu_seconds": cpu, "seconds": wall} | speeds


def of_app(config: app.Config, ids: np.ndarray, assets: dict) -> tuple[dict, np.ndarray]:
    """The speed of the app's training step, with its pipeline, and the vectors."""
    model = app.build(config, assets)
    sizes = {"window": config.window, "negatives": config.shared_negatives}
    batches = pairs.training_batches(
        ids, assets["counts"], sample=config.sample, seed=config.seed, **sizes
    )

    def train():
        for epoch in range(config.epochs):
            model.optimizer.learning_rate = config.learning_rate_at(epoch, [])
            model.fit(batches, verbose=0, shuffle=False)

    return measured(train, config.epochs * int(assets["counts"].sum())), model.matrix().numpy()


def of_gensim(config: app.Config, ids: np.ndarray, assets: dict) -> tuple[dict, np.ndarray]:
    """The speed of gensim's training, without building its vocabulary, and the vectors."""
    from gensim.models import Word2Vec

    names = assets["vocabulary"]
    lines = np.split(ids, np.flatnonzero(ids == pairs.END) + 1)
    lines = [[names[k] for k in line.tolist() if k > 1] for line in lines]
    lines = [line for line in lines if line]
    model = Word2Vec(
        vector_size=config.embedding_dim,
        window=config.window,
        negative=config.negatives,
        sample=config.sample,
        sg=config.objective == "skip_gram",
        min_count=1,
        epochs=config.epochs,
        workers=os.cpu_count(),
        seed=config.seed,
    )
    model.build_vocab(lines)

    def train():
        model.train(lines, total_examples=len(lines), epochs=config.epochs)

    speed = measured(train, config.epochs * int(assets["counts"].sum()))
    vectors = np.zeros((len(names), config.embedding_dim), "float32")
    position = {name: k for k, name in enumerate(names)}
    vectors[[position[name] for name in model.wv.index_to_key]] = model.wv.vectors
    return speed, vectors


def main() -> None:
    """Prints the figures of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="wiki10m", help="a dataset of the app")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--objective", default="skip_gram", choices=["skip_gram", "cbow"])
    parser.add_argument("--only", choices=["unroll", "gensim"], help="measure one of them")
    options = parser.parse_args()
    config = dataclasses.replace(
        app.PRESETS[options.data], epochs=options.epochs, objective=options.objective
    )
    data = app.load(config, ("test",))
    ids = np.asarray(app.ids_of(RawSplits(config, "plain_text"), "train", data.assets))
    sections = app.sections(config, "test")
    for name, train in (("unroll", of_app), ("gensim", of_gensim)):
        if options.only in (None, name):
            speed, matrix = train(config, ids, data.assets)
            figures = metrics.all_figures(matrix, sections, data["test"])
            print(json.dumps({"what": name, **speed, **figures}), flush=True)


if __name__ == "__main__":
    import_tensorflow()
    main()
