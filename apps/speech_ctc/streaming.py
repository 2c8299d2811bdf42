"""Streaming recognition: samples and a state to new text and a new state."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Trained, once, with_inputs
from unroll.apps.shared.batches import for_any_batch
from unroll.apps.speech_ctc import recordings
from unroll.pipelines import audio, speech


def can_stream(trained: Trained) -> bool:
    """Whether no output of the model depends on later samples."""
    front_end, config = recordings.front_end(trained.assets), trained.config
    return bool(
        front_end
        and not front_end.deltas
        and config.normalization != "utterance"
        and not config.bidirectional
    )


def samples_per_frame(trained: Trained) -> int:
    """Number of samples per frame of the model's output. Each piece is a multiple of it."""
    return recordings.front_end(trained.assets).hop * trained.config.subsampling


def initial_states(trained: Trained, batch_size: int) -> dict[str, tf.Tensor]:
    """The states before the first piece: zeros."""
    specs = _state_specs(trained)
    return {
        name: tf.zeros([batch_size, *spec.shape[1:]], spec.dtype) for name, spec in specs.items()
    }


def _state_specs(trained: Trained) -> dict[str, tf.TensorSpec]:
    """The states of a stream.

    They are the samples and frames that later frames depend on, the sums of the running
    normalization, the recurrent states, and the last label.
    """
    size = trained.assets["interface"]["features"]
    shapes = {"samples": [recordings.front_end(trained.assets).before]}
    shapes |= {"count": [1, 1], "total": [1, size], "squares": [1, size]}
    specs = {name: tf.TensorSpec([None, *shape], tf.float32) for name, shape in shapes.items()}
    return specs | _network_specs(trained, None) | {"last": tf.TensorSpec([None], tf.int32)}


def _network_specs(trained: Trained, batch_size: int | None) -> dict[str, tf.TensorSpec]:
    """The states of the network: the frames that a convolution reads again; recurrent states."""
    model, shapes = trained.model, {}
    for name in _convolutions(trained):
        layer = model.get_layer(name)
        shapes[name] = [layer.kernel_size[0] - layer.strides[0], layer.kernel.shape[1]]
    units = [size for layer in model.get_layer("stack").layers for size in layer.state_size]
    shapes |= {f"state_{i}": [size] for i, size in enumerate(units)}
    return {name: tf.TensorSpec([batch_size, *shape]) for name, shape in shapes.items()}


def _network(trained: Trained, x, given: dict) -> tuple[tf.Tensor, dict]:
    """The logits of frames `[B, T, F]` after the states `given`, and the new states."""
    model, states = trained.model, {}
    if trained.config.normalization == "batch":
        x = model.get_layer("normalization")(x)
    for name in _convolutions(trained):
        x = tf.concat([given[name], x], axis=1)
        states[name] = x[:, tf.shape(x)[1] - given[name].shape[1] :]
        x = model.get_layer(name)(x)
    names = [name for name in _network_specs(trained, None) if name.startswith("state_")]
    x, *final = model.get_layer("stack")(x, initial_state=[given[name] for name in names])
    states |= dict(zip(names, final, strict=True))
    return model.get_layer("logits")(x), states


def _convolutions(trained: Trained) -> list[str]:
    return [f"convolution_{i}" for i in range(trained.config.convolutions)]


@once
def step_function(trained: Trained):
    """The function `step`, or `None` if the model cannot stream.

    Its arguments are `audio`, samples `[B, N]` at the model's rate, where N is a multiple of
    `samples_per_frame`, and the states by name, zeros at first. It returns `text` `[B]`, by which
    the transcripts grow, and the states for the next piece under the same names.
    """
    if not can_stream(trained):
        return None
    config = trained.config
    front_end = recordings.front_end(trained.assets)
    names = tf.constant(trained.assets["labels"])
    separator = "" if config.unit == "characters" else " "
    size = samples_per_frame(trained)

    def step(features: dict) -> dict:
        is_multiple = tf.debugging.assert_equal(
            tf.shape(features["audio"])[1] % size,
            0,
            f"audio must be a multiple of {size} samples",
        )
        with tf.control_dependencies([is_multiple] if is_multiple is not None else []):
            samples = tf.concat([features["samples"], features["audio"]], axis=1)
        states = {"samples": samples[:, tf.shape(samples)[1] - front_end.before :]}
        sums = tuple(features[name] for name in ("count", "total", "squares"))
        x, sums = audio.normalize(front_end.frames(samples), config.normalization, sums)
        states |= dict(zip(("count", "total", "squares"), sums, strict=True))
        logits, of_network = _network(trained, x, features)
        states |= of_network
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)  # [B, T]
        path = tf.concat([features["last"][:, tf.newaxis], best], axis=1)
        starts = (path[:, 1:] != 0) & (path[:, 1:] != path[:, :-1])
        labels = tf.where(starts, tf.gather(names, best) + separator, "")
        states["last"] = path[:, -1]
        return {"text": tf.strings.reduce_join(labels, axis=1)} | states

    specs = {"audio": tf.TensorSpec([None, None], tf.float32)}
    return with_inputs(for_any_batch(step, {}), specs | _state_specs(trained))


class FrameStep:
    """The function `step_frames` of the LiteRT file: frames to one frame of the output.

    It takes `features` `[1, N, F]`, where N is the subsampling, and the states of the network by
    name, zeros at first. It returns `logits` `[1, K]` and the states for the next frames. It has no
    loop.
    """

    def __init__(self, trained: Trained):
        self.trained = trained
        self.size = trained.config.subsampling

    def __call__(self, inputs: dict) -> dict:
        logits, states = _network(self.trained, inputs["features"], inputs)
        return {"logits": logits[:, 0]} | states

    def function(self):
        """It as a `tf.function`."""
        shape = [1, self.size, self.trained.assets["interface"]["features"]]
        return with_inputs(self, {"features": tf.TensorSpec(shape)} | self._states(1))

    def request(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """A request of the second frame of the output, from `features` `[B, T, F]`."""
        blocks = features[:, : 2 * self.size]
        blocks = np.pad(blocks, [(0, 0), (0, 2 * self.size - blocks.shape[1]), (0, 0)])
        first, second = np.split(blocks, 2, axis=1)
        states = {
            name: tf.zeros([len(features), *spec.shape[1:]])
            for name, spec in self._states(None).items()
        }
        found = self({"features": tf.constant(first)} | states)
        return {"features": second} | {name: found[name].numpy() for name in states}

    def _states(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        return _network_specs(self.trained, batch_size)


def stream(trained: Trained, contents: bytes, seconds: float = 0.2) -> Iterator[str]:
    """The text that each piece of about `seconds` adds to the transcript of a wav file.

    Raises:
        UsageError: if the model cannot stream.
    """
    if not can_stream(trained):
        raise UsageError(
            "--stream needs a model trained on recordings with --bidirectional=false, "
            "--normalization=running or batch, and --deltas=0."
        )
    rate, size = recordings.front_end(trained.assets).rate, samples_per_frame(trained)
    samples = speech.waveform(contents, rate).numpy()
    piece = size * max(1, round(seconds * rate / size))
    hear = listen(trained)
    for begin in range(0, len(samples) // size * size, piece):
        yield hear(samples[begin : begin + piece], rate)


def listen(trained: Trained) -> Callable[[np.ndarray, int], str]:
    """A function of the next samples of a recording.

    Its arguments are samples `[N]`, any number of them, and their rate in Hz, which is that of the
    first ones. It returns the text by which they extend the transcript. It remembers the states of
    the model, and the samples that the next ones may change: those that are less than a frame, and
    those that resampling needs.

    The model must be able to stream.
    """
    step, size = step_function(trained), samples_per_frame(trained)
    states = initial_states(trained, 1)
    resample, waiting = (
        _Resampler(recordings.front_end(trained.assets).rate),
        np.zeros(0, "float32"),
    )

    def hear(samples: np.ndarray, rate: int) -> str:
        nonlocal states, waiting
        waiting = np.concatenate([waiting, resample(samples, rate)])
        count = len(waiting) // size * size
        if not count:
            return ""
        found = step(audio=tf.constant(waiting[tf.newaxis, :count]), **states)
        states = {name: found[name] for name in states}
        waiting = waiting[count:]
        return found["text"].numpy()[0].decode()

    return hear


class _Resampler:
    """Resamples a signal piece by piece, to the samples of `audio.resample` of the whole signal.

    Args:
        to_rate: the new rate, in Hz.
    """

    def __init__(self, to_rate: int):
        self.to_rate = to_rate
        self.kept = np.zeros(0, "float32")  # samples of the old rate, from `begin` on
        self.begin = self.done = 0  # done: samples of the new rate that were returned

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """The samples of the new rate that later samples do not change."""
        if rate == self.to_rate:
            return np.asarray(samples, "float32")
        common = math.gcd(rate, self.to_rate)
        step, new_step = rate // common, self.to_rate // common  # with a sample of each rate
        self.kept = np.concatenate([self.kept, np.asarray(samples, "float32")])
        reach = audio.reach(rate, self.to_rate)
        ready = math.floor((self.begin + len(self.kept) - 1 - reach) * self.to_rate / rate) + 1
        if ready <= self.done:
            return np.zeros(0, "float32")
        first = self.begin // step * new_step
        found = audio.resample(self.kept, rate, self.to_rate).numpy()
        found = found[self.done - first : ready - first]
        self.done = ready
        needed = max(0, math.floor(ready * rate / self.to_rate - reach)) // step * step
        self.kept, self.begin = self.kept[needed - self.begin :], needed
        return found
