"""What the app exports: wav files to transcripts, features to labels, and a stream's next piece."""

import keras
import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Assets, Service, settings_of, with_inputs
from unroll.apps.speech_ctc import recordings
from unroll.apps.speech_ctc.streaming import first_states, piece_of, step_function
from unroll.pipelines import audio, speech


def seconds_a_frame(settings: dict) -> float:
    """From one frame of the model to the next."""
    front_end = recordings.front_end_of(settings)
    hop = front_end.hop / front_end.rate if front_end else 0.01
    return hop * 2 ** settings["convolutions"]


def features_of(contents, settings: dict) -> tf.Tensor:
    """A recording as the model takes it, `[T, F]`: a wav file, or one of MFCCs."""
    front_end = recordings.front_end_of(settings)
    if front_end:
        found = front_end(speech.waveform(contents, front_end.rate))
    else:
        size = settings["features"]
        count = tf.maximum(tf.strings.length(contents) // 4 - 1, 0)  # without the number of them
        data = tf.strings.substr(contents + "\0\0\0\0", 4, 4 * count)
        numbers = tf.io.decode_raw(data, tf.float32, little_endian=False)
        # Bytes that are none of such a file may be any number.
        numbers = tf.clip_by_value(tf.where(tf.math.is_finite(numbers), numbers, 0.0), -1e4, 1e4)
        found = tf.reshape(numbers[: tf.size(numbers) // size * size], [-1, size])
    return audio.normalize(found, settings["normalization"])[0]


def logits_of(model: keras.Model, assets: Assets, contents: bytes) -> np.ndarray:
    """What the model hears in one recording, `[T, K]`."""
    settings = settings_of(assets)
    features, lengths = _batch(tf.constant([contents]), settings)
    logits = model({"features": features, "lengths": lengths}, training=False)
    return logits[0, : int(lengths[0]) // 2 ** settings["convolutions"]].numpy()


def _batch(contents, settings: dict) -> tuple[tf.Tensor, tf.Tensor]:
    """Recordings `[B]` as a batch, `[B, T, F]` and `[B]`, of one frame of the model at least."""
    size = settings["features"]
    ragged = tf.map_fn(
        lambda one: features_of(one, settings),
        contents,
        fn_output_signature=tf.RaggedTensorSpec([None, size], tf.float32, ragged_rank=0),
    )
    lengths = tf.cast(ragged.row_lengths(), tf.int32)
    features = ragged.to_tensor(shape=[None, None, size])
    missing = tf.maximum(0, 2 ** settings["convolutions"] - tf.shape(features)[1])
    return tf.pad(features, [[0, 0], [0, missing], [0, 0]]), lengths


def service(model: keras.Model, assets: Assets) -> Service:
    """The app's functions.

    - `serving_default`, `audio_bytes` (or `feature_bytes`) `[B]`: `transcript` and `score` `[B]`,
      `labels` and `timestamps` `[B, L]`, in seconds, -1 where a transcript has fewer. The score is
      the geometric mean of the probabilities of the frames.
    - `beam`: `transcripts` and `log_probabilities`, `[B, n]`, from the best down.
    - `frames`: `features` `[B, T, F]` and `lengths` `[B]` to `labels` `[B, T]`, -1 behind the last,
      and `score` `[B]`.
    - `step`, of a model that hears in one direction: see `streaming`.
    """
    settings = settings_of(assets)
    names, separator = (
        tf.constant(assets["labels"]),
        "" if settings["unit"] == "characters" else " ",
    )
    kind = "audio_bytes" if settings["front_end"] else "feature_bytes"
    seconds = seconds_a_frame(settings)

    def hear(contents):
        features, lengths = _batch(contents, settings)
        logits = model({"features": features, "lengths": lengths}, training=False)
        return logits, lengths // 2 ** settings["convolutions"]

    def texts(labels):  # [..., T] to [...]
        words = tf.where(labels >= 0, tf.gather(names, tf.maximum(labels, 0)), "")
        if not separator:
            return tf.strings.reduce_join(words, axis=-1)
        joined = tf.strings.reduce_join(words, axis=-1, separator=separator)
        return tf.strings.strip(joined)

    def certainty(found, frames):
        frames = tf.cast(tf.maximum(frames, 1), tf.float32)
        return tf.exp(found.log_probabilities / frames)

    def transcribe(features: dict) -> dict:
        logits, lengths = hear(features[kind])
        found = layers.ctc_greedy(logits)
        times = seconds * tf.cast(starts(logits), tf.float32)
        most = tf.reduce_max(found.lengths)
        labels, times = found.labels[:, :most], times[:, :most]
        there = labels >= 0
        return {
            "transcript": texts(found.labels),
            "score": certainty(found, lengths),
            "labels": tf.where(there, tf.gather(names, tf.maximum(labels, 0)), ""),
            "timestamps": tf.where(there, times, -1.0),
        }

    def search(features: dict) -> dict:
        width = max(2, settings["beam_width"])
        logits, _ = hear(features[kind])
        found = layers.ctc_beam_search(logits, beam_width=width, num_return_sequences=min(width, 5))
        return {
            "transcripts": texts(found.labels),
            "log_probabilities": found.log_probabilities,
        }

    def recognize(features: dict) -> dict:
        found = layers.ctc_greedy(model(features, training=False))
        frames = features["lengths"] // 2 ** settings["convolutions"]
        return {"labels": found.labels, "score": certainty(found, frames)}

    size = settings["features"]
    raw = {kind: tf.TensorSpec([None], tf.string)}
    functions = {
        "serving_default": with_inputs(transcribe, raw),
        "beam": with_inputs(search, raw),
        "frames": with_inputs(
            recognize,
            {
                "features": tf.TensorSpec([None, None, size], tf.float32),
                "lengths": tf.TensorSpec([None], tf.int32),
            },
        ),
    }
    step = step_function(model, assets)
    if step is not None:
        functions["step"] = step

    def requests(examples: list[bytes]) -> dict[str, dict[str, np.ndarray]]:
        if not settings["front_end"]:
            examples = [recordings.mfcc_bytes(contents) for contents in examples]
        contents = np.array(examples, object)
        features, lengths = _batch(tf.constant(contents), settings)
        found = {"serving_default": {kind: contents}, "beam": {kind: contents}}
        found["frames"] = {"features": features.numpy(), "lengths": lengths.numpy()}
        if step is not None:
            front_end = recordings.front_end_of(settings)
            some = [
                speech.waveform(each, front_end.rate)[: 20 * piece_of(settings)] for each in examples
            ]
            least = min(len(each) for each in some) // piece_of(settings) * piece_of(settings)
            sound = np.stack([each[:least] for each in some])
            states = {name: x.numpy() for name, x in first_states(model, assets, len(some)).items()}
            found["step"] = {"audio": sound, **states}
        return found

    return Service(functions, requests, litert="frames", keep=[model.variables])


def starts(logits) -> tf.Tensor:
    """The frames at which the labels of the greedy path begin, `[B, T]`, -1 behind the last."""
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    before = tf.pad(best[:, :-1], [[0, 0], [1, 0]])
    begins = tf.ragged.boolean_mask(
        tf.broadcast_to(tf.range(tf.shape(best)[1]), tf.shape(best)), (best != 0) & (best != before)
    )
    return begins.to_tensor(-1, shape=[None, None])
