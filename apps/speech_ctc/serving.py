"""The functions that the app exports: recordings to transcripts, features to labels, streaming."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.shared.batches import for_any_batch
from unroll.apps.speech_ctc import recordings, streaming
from unroll.pipelines import speech


def request(trained: Trained, inputs: list[str | bytes]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for recordings: paths, or the contents of files."""
    contents = [recordings.read(each, trained) for each in inputs]
    return {_raw_input(trained): np.array(contents, object)}


def _raw_input(trained: Trained) -> str:
    return "audio_bytes" if trained.assets["interface"]["front_end"] else "feature_bytes"


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `audio_bytes` (or `feature_bytes`) `[B]` to `transcript`, `score` and
      `error` `[B]`; `labels` and `timestamps` in seconds `[B, L]`, padded with "" and -1. The score
      is the geometric mean over the frames of the probability of the best label. `error` is why a
      recording cannot be transcribed, and empty if it can; the score is then 0.
    - `beam`: the same to `transcripts` and `log_probabilities` `[B, N]`, the best first, and
      `error` `[B]`, with which a log probability is minus infinity.
    - `frames`: `features` `[B, T, F]` and `lengths` `[B]` to `labels` `[B, T]`, padded with -1,
      and `score` `[B]`.
    - `step`, if the model can stream: see `streaming`.

    The functions of the LiteRT file are `frames` and, for a model that is not bidirectional,
    `step_frames`: see `streaming.FrameStep`.
    """
    model, config, assets = trained.model, trained.config, trained.assets
    raw_input = _raw_input(trained)
    recognize = recognizer(trained)

    def transcribe(features: dict) -> dict:
        outputs = recognize(features[raw_input])
        return {name: x for name, x in outputs.items() if name not in ("logits", "frames")}

    def search(features: dict) -> dict:
        width = max(2, config.beam_width)
        logits, _, errors = _logits(trained, features[raw_input])
        found = layers.ctc_beam_search(logits, beam_width=width, num_return_sequences=min(width, 5))
        is_valid = tf.equal(errors, b"")[:, tf.newaxis]
        return {
            "transcripts": tf.where(is_valid, _join(trained, found.labels), ""),
            "log_probabilities": tf.where(is_valid, found.log_probabilities, -np.inf),
            "error": errors,
        }

    def label_frames(features: dict) -> dict:
        padded = recordings.at_least_one_frame(features["features"], config)
        features = {**features, "features": padded}
        found = layers.ctc_greedy(model(features, training=False))
        frames = features["lengths"] // config.subsampling
        return {"labels": found.labels, "score": _mean_probability(found, frames)}

    raw = {raw_input: tf.TensorSpec([None], tf.string)}
    functions = {
        "serving_default": with_inputs(for_any_batch(transcribe, {raw_input: b""}), raw),
        "beam": with_inputs(for_any_batch(search, {raw_input: b""}), raw),
        "frames": with_inputs(
            for_any_batch(label_frames, {}),
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

    litert = {"frames": functions["frames"]}
    frame_step = None if config.bidirectional else streaming.FrameStep(trained)
    if frame_step is not None:
        litert["step_frames"] = frame_step.function()

    def requests(examples: list[bytes]) -> dict[str, dict[str, np.ndarray]]:
        raw = request(trained, examples)
        features, lengths, _ = recordings.feature_batch(tf.constant(raw[raw_input]), trained)
        found = {"serving_default": raw, "beam": raw}
        found["frames"] = {"features": features.numpy(), "lengths": lengths.numpy()}
        if frame_step is not None:
            found["step_frames"] = frame_step.request(found["frames"]["features"])
        if step is not None:
            rate, size = recordings.front_end(assets).rate, streaming.samples_per_frame(trained)
            waveforms = [speech.waveform(each, rate)[: 20 * size] for each in examples]
            shortest = min(len(each) for each in waveforms) // size * size
            states = streaming.initial_states(trained, len(waveforms))
            found["step"] = {"audio": np.stack([each[:shortest] for each in waveforms])}
            found["step"] |= {name: state.numpy() for name, state in states.items()}
        return found

    return Service(functions, requests, litert, keep=[model.variables])


@once
def recognizer_function(trained: Trained) -> tf.types.experimental.PolymorphicFunction:
    """`recognizer` as a TensorFlow function, made once."""
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(recognizer(trained), input_signature=signature)


def recognizer(trained: Trained) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function of recordings `[B]`, with B > 0, to the outputs of `serving_default`.

    Also to `logits` `[B, T, K]` and `frames` `[B]`, the number of frames of each recording.
    """
    names, seconds = tf.constant(trained.assets["labels"]), recordings.seconds_per_frame(trained)

    def recognize(contents) -> dict[str, tf.Tensor]:
        logits, frames, errors = _logits(trained, contents)
        found = layers.ctc_greedy(logits)
        times = seconds * tf.cast(start_frames(logits), tf.float32)
        longest = tf.reduce_max(found.lengths)
        labels, times = found.labels[:, :longest], times[:, :longest]
        exists = labels >= 0
        return {
            "transcript": _join(trained, found.labels),
            "score": tf.where(errors == b"", _mean_probability(found, frames), 0.0),
            "error": errors,
            "labels": tf.where(exists, tf.gather(names, tf.maximum(labels, 0)), ""),
            "timestamps": tf.where(exists, times, -1.0),
            "logits": logits,
            "frames": frames,
        }

    return recognize


def _logits(trained: Trained, contents) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The model's output for recordings `[B]`, its frames, and errors."""
    features, lengths, errors = recordings.feature_batch(contents, trained)
    logits = trained.model({"features": features, "lengths": lengths}, training=False)
    return logits, lengths // trained.config.subsampling, errors


def _join(trained: Trained, labels) -> tf.Tensor:
    """The transcripts of labels `[..., T]`, padded with -1, `[...]`."""
    names = tf.constant(trained.assets["labels"])
    texts = tf.where(labels >= 0, tf.gather(names, tf.maximum(labels, 0)), "")
    if trained.config.unit == "characters":
        return tf.strings.reduce_join(texts, axis=-1)
    return tf.strings.strip(tf.strings.reduce_join(texts, axis=-1, separator=" "))


def _mean_probability(found, frames) -> tf.Tensor:
    """The geometric mean over the frames, `[B]`; 0 without frames."""
    count = tf.cast(tf.maximum(frames, 1), tf.float32)
    return tf.where(frames > 0, tf.exp(found.log_probabilities / count), 0.0)


def start_frames(logits) -> tf.Tensor:
    """The frames at which the labels of the greedy path start, `[B, T]`, padded with -1."""
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)  # [B, T]
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]])
    starts = tf.ragged.boolean_mask(
        tf.broadcast_to(tf.range(tf.shape(best)[1]), tf.shape(best)), (best != 0) & (best != before)
    )
    return starts.to_tensor(-1, shape=[None, None])
