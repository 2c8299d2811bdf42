"""How many captions a second the caption app writes, by the width of the beam.

    python benchmarks/captions.py RUN

Takes a trained run, and pixels (or regions) of its test split in memory. One picture at a time and
32 together; what is timed is the encoder with the greedy search or a beam search, in one graph, as
exports do it. Medians, taken in turns.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import seconds_of, table

from unroll.apps.core.quiet import import_tensorflow

WIDTHS, TOGETHER = (1, 3, 5), 32


def main(folder: str) -> None:
    """Prints the table."""
    import_tensorflow()
    import tensorflow as tf

    from unroll import layers
    from unroll.apps.core.evaluation import load_model
    from unroll.apps.core.protocol import settings_of
    from unroll.apps.core.runs import Run
    from unroll.apps.image_captioning import app, serving
    from unroll.pipelines.captions import END, START

    model, config, assets = load_model(app, Run(Path(folder)))
    settings, begin = settings_of(assets), serving.writer(model, assets)
    limits = {"start": START, "end": END, "max_length": settings["max_length"]}
    test = app.load(config, assets).test
    given = tf.concat([features[settings["kind"]] for features, _ in test.take(4)], axis=0)

    def search(width: int):
        def write(given):
            step, states, _ = begin(given)
            if width == 1:
                return layers.greedy(step, states, **limits).tokens
            return layers.beam_search(step, states, beam_width=width, **limits).tokens

        return tf.function(write)

    functions = {}
    for width in WIDTHS:
        write = search(width)
        for number in (1, TOGETHER):
            rows = given[:number]
            functions[width, number] = lambda write=write, rows=rows: write(rows).numpy()
    taken = seconds_of(functions, rounds=15)
    rows = [
        [width, *(f"{number / taken[width, number]:.0f}" for number in (1, TOGETHER))]
        for width in WIDTHS
    ]
    print(f"{config.data}: captions per second")
    print("\n".join(table(["beam", "one at a time", f"{TOGETHER} together"], rows)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/captions.py RUN")
    main(sys.argv[1])
