"""Speed of the speech app: training, recognition, streaming, and beam search.

    python benchmarks/speech.py RUN

RUN is a trained run. The benchmark measures:

- the training step, with and without XLA, on the same batches;
- the functions that the app exports, one recording at a time;
- streaming in pieces of 0.2 seconds, with a model of the run's size that reads in one direction;
- the prefix beam search and TensorFlow's `tf.nn.ctc_beam_search_decoder`, on the logits of the
  test split.

A real-time factor is the time of the computation divided by the duration of the speech. All times
are medians.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import seconds_of, table

from unroll.apps.core.quiet import import_tensorflow

BATCHES, BEAM_WIDTH = 12, 16


def training(app, trained) -> list[list[str]]:
    """Real-time factors of the training step, with and without XLA, on batches of one shape."""
    import numpy as np

    config, assets = trained.config, trained.assets
    static = dataclasses.replace(config, jit=True)
    data = app.load(static, ("train",), assets, training=True)
    batches = [(features, labels) for features, labels, *_ in data["train"].take(BATCHES)]
    duration = sum(features["lengths"].numpy().sum() for features, _ in batches) * config.hop / 1e3
    models = {
        "training step": app.build(config, assets),
        "training step, XLA (`--jit`)": app.build(static, assets),
    }

    def steps(model):
        for features, labels in batches:
            loss = model.train_on_batch(features, labels)
        assert np.isfinite(loss).all()

    times = seconds_of({name: lambda m=model: steps(m) for name, model in models.items()})
    return [[name, f"{seconds / duration:.4f}"] for name, seconds in times.items()]


def recognition(app, trained) -> list[list[str]]:
    """Real-time factors of the exported functions, and of streaming, one recording at a time."""
    import tensorflow as tf

    from unroll.apps.core.protocol import Trained
    from unroll.apps.speech_ctc import decoding, serving, streaming
    from unroll.pipelines import sound

    examples = app.examples()
    decoded = [sound.decode_wav(contents) for contents in examples]
    duration = sum(len(samples) / int(rate) for samples, rate, _ in decoded)
    functions = app.serve(trained).functions
    raw_input = functions["serving_default"].input_signature[0].name
    work = {
        f"`{name}`": lambda name=name: [
            functions[name](**{raw_input: tf.constant([each])}) for each in examples
        ]
        for name in ("serving_default", "beam")
    }
    recognize = tf.function(serving.recognizer(trained))
    logits = [recognize(tf.constant([each]))["logits"][0].numpy() for each in examples]
    work["beam search with language model, on the host"] = lambda: (
        decoding.decode_with_language_model(logits, trained)
    )
    config = dataclasses.replace(trained.config, bidirectional=False, normalization="running")
    streamer = Trained(config, trained.assets, app.build(config, trained.assets))
    step, size = streaming.step_function(streamer), streaming.samples_per_frame(streamer)
    piece = size * round(0.2 * config.rate / size)

    def stream():
        states = streaming.initial_states(streamer, 1)
        for samples, *_ in decoded:
            for begin in range(0, len(samples) - piece, piece):
                outputs = step(audio=samples[tf.newaxis, begin : begin + piece], **states)
                states = {name: outputs[name] for name in states}

    work["`step`, pieces of 0.2 s"] = stream
    return [[name, f"{seconds / duration:.4f}"] for name, seconds in seconds_of(work).items()]


def search(app, trained) -> list[list[str]]:
    """Utterances per second of both beam searches, and the mean log-probability of the results."""
    import numpy as np
    import tensorflow as tf

    from unroll import layers

    data = app.load(trained.config, ("test",), trained.assets)
    batches = [
        (
            trained.model.predict_on_batch(features),
            features["lengths"].numpy() // trained.config.subsampling,
        )
        for features, _ in data["test"]
    ]
    utterances = sum(len(frames) for _, frames in batches)

    @tf.function(reduce_retracing=True)
    def ours(logits, frames):
        found = layers.ctc_beam_search(logits, frames, beam_width=BEAM_WIDTH)
        return found.labels[:, 0]

    @tf.function(reduce_retracing=True)
    def tensorflow(logits, frames):
        # Its blank is the last label.
        last = tf.roll(tf.transpose(logits, [1, 0, 2]), -1, axis=-1)
        [labels], _ = tf.nn.ctc_beam_search_decoder(last, frames, BEAM_WIDTH, 1)
        labels = tf.cast(tf.sparse.to_dense(labels, -1), tf.int32)
        return tf.where(labels >= 0, labels + 1, -1)

    searches = {"`layers.ctc_beam_search`": ours, "`tf.nn.ctc_beam_search_decoder`": tensorflow}
    times = seconds_of(
        {name: lambda f=f: [f(*batch) for batch in batches] for name, f in searches.items()}
    )

    def log_probability(labels, batch) -> float:
        """The log-probability of a batch of labels, over all of their paths."""
        logits, frames = batch
        labels = labels.numpy()
        lengths = (labels >= 0).sum(axis=1)
        return -float(np.sum(layers.ctc_loss(np.maximum(labels, 1), logits, lengths, frames)))

    return [
        [
            name,
            f"{utterances / times[name]:.0f}",
            f"{sum(log_probability(f(*batch), batch) for batch in batches) / utterances:.3f}",
        ]
        for name, f in searches.items()
    ]


def main(folder: str) -> None:
    """Prints the tables."""
    import_tensorflow()
    from unroll.apps.core.evaluation import load_trained
    from unroll.apps.core.runs import Run
    from unroll.apps.speech_ctc import app

    trained = load_trained(app, Run.open(app, folder))
    rows = training(app, trained) + recognition(app, trained)
    print("\n".join(table([trained.config.data, "real-time factor"], rows)), end="\n\n")
    header = [f"beam of {BEAM_WIDTH}", "utterances per second", "mean log-probability"]
    print("\n".join(table(header, search(app, trained))))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/speech.py RUN")
    main(sys.argv[1])
