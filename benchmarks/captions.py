"""Captions per second of the caption app, by beam width.

    python benchmarks/captions.py RUN

It reads a trained run, and pixels (or regions) of its test split. The times are of the encoder with
greedy or beam search, in one graph as in exports, for one image and for a batch of 32. They are
medians of interleaved rounds.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import seconds_of, table

from unroll.apps.core.quiet import import_tensorflow

BEAM_WIDTHS, BATCH_SIZES = (1, 3, 5), (1, 32)


def main(folder: str) -> None:
    """Prints the table."""
    import_tensorflow()
    import tensorflow as tf

    from unroll.apps.core.evaluation import load_split
    from unroll.apps.core.runs import Run
    from unroll.apps.image_captioning import app, serving

    trained, dataset = load_split(app, [Run.open(app, folder)], "test")
    begin, kind = serving.decoding(trained), trained.assets["images"]["kind"]
    inputs = tf.concat([features[kind] for features, _ in dataset.take(4)], axis=0)

    def search(beam_width: int):
        def write(inputs):
            step_function, states, _ = begin(inputs)
            if beam_width == 1:
                return serving.greedy(step_function, states, trained.config).tokens
            return serving.beam_search(step_function, states, trained.config, beam_width).tokens

        return tf.function(write)

    functions = {}
    for width in BEAM_WIDTHS:
        write = search(width)
        for size in BATCH_SIZES:
            batch = inputs[:size]
            functions[width, size] = lambda write=write, batch=batch: write(batch).numpy()
    seconds = seconds_of(functions, rounds=15)
    rows = [
        [width, *(f"{size / seconds[width, size]:.0f}" for size in BATCH_SIZES)]
        for width in BEAM_WIDTHS
    ]
    print(f"{trained.config.data}: captions per second")
    print("\n".join(table(["beam width", *(f"batch of {n}" for n in BATCH_SIZES)], rows)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/captions.py RUN")
    main(sys.argv[1])
