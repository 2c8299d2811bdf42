"""The functions that the app exports: recordings to transcripts, features to labels, streaming."""

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Service, Trained, with_inputs
from unroll.apps.speech_ctc import recordings, streaming
from unroll.pipelines import speech


def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `audio_bytes` (or `feature_bytes`) `[B]` to `transcript` and `score` `[B]`,
      `labels` and `timestamps` in seconds `[B, L]`, padded with "" and -1. The score is the
      geometric mean over the frames of the probability of the best label.
    - `beam`: the same to `transcripts` and `log_probabilities` `[B, N]`, the best first.
    - `frames`: `features` `[B, T, F]` and `lengths` `[B]` to `labels` `[B, T]`, padded with -1,
      and `score` `[B]`.
    - `step`, if the model can stream: see `streaming`.
    """
    model, config, assets = trained.model, trained.config, trained.assets
    names = tf.constant(assets["labels"])
    separator = "" if config.unit == "characters" else " "
    raw_input = "audio_bytes" if assets["interface"]["front_end"] else "feature_bytes"
    seconds = recordings.seconds_per_frame(trained)

    def logits_of(contents):
        features, lengths = recordings.feature_batch(contents, trained)
        logits = model({"features": features, "lengths": lengths}, training=False)  # [B, T, K]
        return logits, lengths // config.subsampling

    def join(labels):  # [..., T] to [...]
        texts = tf.where(labels >= 0, tf.gather(names, tf.maximum(labels, 0)), "")
        if not separator:
            return tf.strings.reduce_join(texts, axis=-1)
        joined = tf.strings.reduce_join(texts, axis=-1, separator=separator)
        return tf.strings.strip(joined)

    def mean_probability(found, frames):
        frames = tf.cast(tf.maximum(frames, 1), tf.float32)
        return tf.exp(found.log_probabilities / frames)

    def transcribe(features: dict) -> dict:
        logits, frames = logits_of(features[raw_input])
        found = layers.ctc_greedy(logits)
        times = seconds * tf.cast(start_frames(logits), tf.float32)
        longest = tf.reduce_max(found.lengths)
        labels, times = found.labels[:, :longest], times[:, :longest]
        exists = labels >= 0
        return {
            "transcript": join(found.labels),
            "score": mean_probability(found, frames),
            "labels": tf.where(exists, tf.gather(names, tf.maximum(labels, 0)), ""),
            "timestamps": tf.where(exists, times, -1.0),
        }

    def search(features: dict) -> dict:
        width = max(2, config.beam_width)
        logits, _ = logits_of(features[raw_input])
        found = layers.ctc_beam_search(logits, beam_width=width, num_return_sequences=min(width, 5))
        return {
            "transcripts": join(found.labels),
            "log_probabilities": found.log_probabilities,
        }

    def recognize(features: dict) -> dict:
        found = layers.ctc_greedy(model(features, training=False))
        frames = features["lengths"] // config.subsampling
        return {"labels": found.labels, "score": mean_probability(found, frames)}

    raw = {raw_input: tf.TensorSpec([None], tf.string)}
    functions = {
        "serving_default": with_inputs(transcribe, raw),
        "beam": with_inputs(search, raw),
        "frames": with_inputs(
            recognize,
            {
                "features": tf.TensorSpec(
                    [None, None, assets["interface"]["features"]], tf.float32
                ),
                "lengths": tf.TensorSpec([None], tf.int32),
            },
        ),
    }
    step = streaming.step_function(trained)
    if step is not None:
        functions["step"] = step

    def requests(examples: list[bytes]) -> dict[str, dict[str, np.ndarray]]:
        if raw_input == "feature_bytes":
            examples = [recordings.mfcc_file(contents) for contents in examples]
        contents = np.array(examples, object)
        features, lengths = recordings.feature_batch(tf.constant(contents), trained)
        found = {"serving_default": {raw_input: contents}, "beam": {raw_input: contents}}
        found["frames"] = {"features": features.numpy(), "lengths": lengths.numpy()}
        if step is not None:
            rate, size = recordings.front_end(assets).rate, streaming.samples_per_frame(trained)
            waveforms = [speech.waveform(each, rate)[: 20 * size] for each in examples]
            shortest = min(len(each) for each in waveforms) // size * size
            states = streaming.initial_states(trained, len(waveforms))
            found["step"] = {"audio": np.stack([each[:shortest] for each in waveforms])}
            found["step"] |= {name: state.numpy() for name, state in states.items()}
        return found

    return Service(functions, requests, litert="frames", keep=[model.variables])


def start_frames(logits) -> tf.Tensor:
    """The frames at which the labels of the greedy path start, `[B, T]`, padded with -1."""
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)  # [B, T]
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]])
    starts = tf.ragged.boolean_mask(
        tf.broadcast_to(tf.range(tf.shape(best)[1]), tf.shape(best)), (best != 0) & (best != before)
    )
    return starts.to_tensor(-1, shape=[None, None])
