"""Recognition while somebody speaks: sound and a state to new letters and a new state."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, settings_of, with_inputs
from unroll.apps.speech_ctc import recordings
from unroll.pipelines import audio, speech


def can_stream(model: keras.Model, settings: dict) -> bool:
    """Whether nothing that the model hears depends on what comes later."""
    front_end = recordings.front_end_of(settings)
    return bool(
        front_end
        and not front_end.deltas
        and settings["normalization"] != "utterance"
        and not model.get_layer("stack").bidirectional
    )


def piece_of(settings: dict) -> int:
    """How many samples one frame of the model takes: a piece is any number of these."""
    return recordings.front_end_of(settings).hop * 2 ** settings["convolutions"]


def first_states(model: keras.Model, assets: Assets, batch: int) -> dict[str, tf.Tensor]:
    """The state before anything was heard: zeros."""
    specs = _state_specs(model, settings_of(assets))
    return {name: tf.zeros([batch, *spec.shape[1:]], spec.dtype) for name, spec in specs.items()}


def _state_specs(model: keras.Model, settings: dict) -> dict[str, tf.TensorSpec]:
    """What a stream keeps: the samples and frames that what follows depends on, the sums of the
    running normalization, the recurrent states, and the label that was heard last.
    """
    size = settings["features"]
    shapes = {"samples": [recordings.front_end_of(settings).before]}
    shapes |= {"count": [1, 1], "total": [1, size], "squares": [1, size]}
    for name in _convolutions(settings):
        layer = model.get_layer(name)
        shapes[name] = [layer.kernel_size[0] - layer.strides[0], layer.kernel.shape[1]]
    sizes = [size for layer in model.get_layer("stack").layers for size in layer.state_size]
    shapes |= {f"state_{k}": [units] for k, units in enumerate(sizes)}
    specs = {name: tf.TensorSpec([None, *shape], tf.float32) for name, shape in shapes.items()}
    return specs | {"last": tf.TensorSpec([None], tf.int32)}


def _convolutions(settings: dict) -> list[str]:
    return [f"convolution_{k}" for k in range(settings["convolutions"])]


def step_function(model: keras.Model, assets: Assets):
    """The `step` of a model that can stream; `None` of others.

    Its arguments are `audio`, `[B, N]` samples at the model's rate, N a multiple of `piece_of`, and
    the states by their names, zeros at first. It returns `letters`, `[B]`, what is new in the
    transcripts, and the states for the next piece under the same names.
    """
    settings = settings_of(assets)
    if not can_stream(model, settings):
        return None
    front_end = recordings.front_end_of(settings)
    names = tf.constant(assets["labels"])
    space = "" if settings["unit"] == "characters" else " "
    stack, piece = model.get_layer("stack"), piece_of(settings)

    def step(features: dict) -> dict:
        whole = tf.debugging.assert_equal(
            tf.shape(features["audio"])[1] % piece,
            0,
            f"audio must be a multiple of {piece} samples",
        )
        with tf.control_dependencies([whole] if whole is not None else []):
            samples = tf.concat([features["samples"], features["audio"]], axis=1)
        states = {"samples": samples[:, tf.shape(samples)[1] - front_end.before :]}
        sums = tuple(features[name] for name in ("count", "total", "squares"))
        x, sums = audio.normalize(front_end.frames(samples), settings["normalization"], sums)
        states |= dict(zip(("count", "total", "squares"), sums, strict=True))
        if settings["normalization"] == "batch":
            x = model.get_layer("normalization")(x)
        for name in _convolutions(settings):
            layer = model.get_layer(name)
            x = tf.concat([features[name], x], axis=1)
            states[name] = x[:, tf.shape(x)[1] - features[name].shape[1] :]
            x = layer(x)
        given = [features[f"state_{k}"] for k in range(len(features)) if f"state_{k}" in features]
        x, *after = stack(x, initial_state=given)
        states |= {f"state_{k}": state for k, state in enumerate(after)}
        best = tf.argmax(model.get_layer("logits")(x), axis=-1, output_type=tf.int32)
        heard = tf.concat([features["last"][:, tf.newaxis], best], axis=1)
        new = (heard[:, 1:] != 0) & (heard[:, 1:] != heard[:, :-1])
        letters = tf.where(new, tf.gather(names, best) + space, "")
        states["last"] = heard[:, -1]
        return {"letters": tf.strings.reduce_join(letters, axis=1)} | states

    specs = {"audio": tf.TensorSpec([None, None], tf.float32)}
    return with_inputs(step, specs | _state_specs(model, settings))


def letters_as_they_come(
    model: keras.Model, assets: Assets, contents: bytes, seconds: float = 0.2
) -> Iterator[str]:
    """What each piece of about `seconds` adds to the transcript of a recording.

    Raises:
        UsageError: if the model hears both directions, or the whole before it begins.
    """
    settings = settings_of(assets)
    step = step_function(model, assets)
    if step is None:
        raise UsageError(
            "only a model trained with --bidirectional=false, --normalization=running or batch, "
            "and without --deltas can hear a stream."
        )
    front_end = recordings.front_end_of(settings)
    sound = speech.waveform(contents, front_end.rate)
    piece = piece_of(settings)
    size = piece * max(1, round(seconds * front_end.rate / piece))
    states = first_states(model, assets, 1)
    for begin in range(0, len(sound) // piece * piece, size):
        part = sound[begin : begin + size]
        part = part[: len(part) // piece * piece]
        found = step(audio=part[tf.newaxis], **states)
        states = {name: found[name] for name in states}
        yield found["letters"].numpy()[0].decode()
