"""How much faster than speech the speech app trains and recognises, and its beam search.

    python benchmarks/speech.py RUN

Takes a trained run. Its training steps are timed as they are and compiled by XLA, in turns, on the
same batches; its SavedModel functions one recording at a time; a stream in pieces of 0.2 seconds,
by a model of the run's size that hears in one direction. A real-time factor is the time taken as a
share of the time that the speech lasts. The prefix beam search is timed beside TensorFlow's,
`tf.nn.ctc_beam_search_decoder`, on the logits of the test split. Medians.
"""

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import seconds_of, table

from unroll.apps.core.quiet import import_tensorflow

BATCHES, WIDTH = 12, 16


def training(app, config, assets) -> list[list[str]]:
    """Real-time factors of the training step, as it is and under XLA, on batches of one shape."""
    import numpy as np

    static = dataclasses.replace(config, jit=True)
    batches = app.load(static, assets).train.take(BATCHES)
    batches = [(features, labels) for features, labels, *_ in batches]
    spoken = sum(features["lengths"].numpy().sum() for features, _ in batches) * config.hop / 1e3
    models = {
        "training step": app.build(config, assets),
        "training step, XLA (`--jit`)": app.build(static, assets),
    }

    def steps(model):
        for features, labels in batches:
            loss = model.train_on_batch(features, labels)
        assert np.isfinite(loss).all()

    taken = seconds_of({name: lambda m=model: steps(m) for name, model in models.items()})
    return [[name, f"{seconds / spoken:.4f}"] for name, seconds in taken.items()]


def recognition(app, model, config, assets) -> list[list[str]]:
    """Real-time factors of the served functions, and of a stream, one recording at a time."""
    import tensorflow as tf

    from unroll.apps.core.protocol import settings_of
    from unroll.apps.speech_ctc import metrics, serving, streaming
    from unroll.pipelines import audio

    examples = app.EXAMPLES
    sounds = [audio.decode_wav(contents) for contents in examples]
    spoken = sum(len(samples) / int(rate) for samples, rate in sounds)
    functions = app.serve(model, assets).functions
    kind = functions["serving_default"].input_signature[0].name
    work = {
        f"`{name}`": lambda name=name: [
            functions[name](**{kind: tf.constant([each])}) for each in examples
        ]
        for name in ("serving_default", "beam")
    }
    logits = [serving.logits_of(model, assets, contents) for contents in examples]
    work["beam search with the language model, on the host"] = lambda: metrics.with_language_model(
        logits, assets
    )
    settings = settings_of(assets) | {"normalization": "running"}
    own = assets | {"settings": [json.dumps(settings)]}
    one_way = dataclasses.replace(config, bidirectional=False, normalization="running")
    streamer = app.build(one_way, own)
    step = streaming.step_function(streamer, own)
    piece = streaming.piece_of(settings)
    size = piece * round(0.2 * config.rate / piece)

    def stream():
        states = streaming.first_states(streamer, own, 1)
        for samples, _ in sounds:
            for begin in range(0, len(samples) - size, size):
                found = step(audio=samples[tf.newaxis, begin : begin + size], **states)
                states = {name: found[name] for name in states}

    work["`step`, pieces of 0.2 s"] = stream
    return [[name, f"{seconds / spoken:.4f}"] for name, seconds in seconds_of(work).items()]


def search(app, model, config, assets) -> list[list[str]]:
    """Utterances a second of both beam searches, and the mean log-probability of what they find."""
    import numpy as np
    import tensorflow as tf

    from unroll import layers

    data = app.load(config, assets)
    shrinks = 2**config.convolutions
    batches = [
        (model.predict_on_batch(features), features["lengths"].numpy() // shrinks)
        for features, _ in data.test
    ]
    utterances = sum(len(frames) for _, frames in batches)

    @tf.function(reduce_retracing=True)
    def ours(logits, frames):
        found = layers.ctc_beam_search(logits, frames, beam_width=WIDTH)
        return found.labels[:, 0], found.log_probabilities[:, 0]

    @tf.function(reduce_retracing=True)
    def theirs(logits, frames):
        # Its blank is the last label.
        last = tf.roll(tf.transpose(logits, [1, 0, 2]), -1, axis=-1)
        [labels], scores = tf.nn.ctc_beam_search_decoder(last, frames, WIDTH, 1)
        labels = tf.cast(tf.sparse.to_dense(labels, -1), tf.int32)
        return tf.where(labels >= 0, labels + 1, -1), scores[:, 0]

    searches = {"`layers.ctc_beam_search`": ours, "`tf.nn.ctc_beam_search_decoder`": theirs}
    taken = seconds_of(
        {name: lambda f=f: [f(*batch) for batch in batches] for name, f in searches.items()}
    )

    def score(found, batch) -> float:
        """What the labels that a search found are worth by all their paths."""
        logits, frames = batch
        labels = found[0].numpy()
        lengths = (labels >= 0).sum(axis=1)
        return -float(np.sum(layers.ctc_loss(np.maximum(labels, 1), logits, lengths, frames)))

    return [
        [
            name,
            f"{utterances / taken[name]:.0f}",
            f"{sum(score(f(*batch), batch) for batch in batches) / utterances:.3f}",
        ]
        for name, f in searches.items()
    ]


def main(folder: str) -> None:
    """Prints the tables."""
    import_tensorflow()
    from unroll.apps.core.evaluation import load_model
    from unroll.apps.core.runs import Run
    from unroll.apps.speech_ctc import app

    model, config, assets = load_model(app, Run(Path(folder)))
    rows = training(app, config, assets) + recognition(app, model, config, assets)
    print("\n".join(table([config.data, "real-time factor"], rows)), end="\n\n")
    header = [f"beam of {WIDTH}", "utterances a second", "mean log-probability"]
    print("\n".join(table(header, search(app, model, config, assets))))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/speech.py RUN")
    main(sys.argv[1])
