"""Decoding, and the functions that the app exports: image files to captions, pixels to ids."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.shared import images
from unroll.apps.shared.batches import for_any_batch
from unroll.apps.shared.decoders import split_states
from unroll.layers.decoding import SearchResult
from unroll.layers.recurrent import mean_over_time
from unroll.pipelines import image
from unroll.pipelines.captions import END, PADDING, START, UNKNOWN

# Added to the logits of tokens that are never written. It fits into a float16.
_BANNED = -6e4
# Temperature of the samples for minimum Bayes risk; chosen on Flickr8k's validation split, like the
# bigrams of `layers.minimum_bayes_risk`.
_TEMPERATURE = 0.8


def decoding(trained: Trained) -> Callable:
    """A function of images or regions that returns the arguments of a search.

    It returns `(step_function, initial_states, encoded)`. The step function never allows padding,
    the unknown word or the start symbol. `encoded` is the output of `network.image_encoder`.
    """
    parts = ("image_encoder", "decoder", "start")
    encoder, decoder, start = map(trained.model.get_layer, parts)
    banned = np.zeros(len(trained.assets["vocabulary"]), "float32")
    banned[[PADDING, UNKNOWN, START]] = _BANNED

    def begin(inputs) -> tuple:
        encoded = encoder(inputs, training=False)
        memory, mask = encoded["memory"], encoded["mask"]
        first = start(mean_over_time(memory, mask))
        if isinstance(decoder, layers.AttentionDecoder):
            initial = split_states(first, decoder.cell_state_sizes)
            states = decoder.initial_states(memory, initial)
            step = decoder.step_function(memory, mask)
        else:
            states = decoder.initial_states(tf.shape(first)[0], first_input=first)
            step = decoder.step_function()

        def step_function(tokens, states) -> tuple:
            logits, states, weights = step(tokens, states)
            return tf.cast(logits, tf.float32) + banned, states, weights

        return step_function, states, encoded

    return begin


def search(step_function: Callable, states: list, config) -> SearchResult:
    """The captions of the search that `config` describes: `num_return_sequences` for each image.

    With `mbr_samples`, the captions of the beam are ranked by their expected overlap with samples.
    """
    count = config.beam_width if config.mbr_samples else config.num_return_sequences
    candidates = beam_search(step_function, states, config, config.beam_width, count)
    if not config.mbr_samples:
        return candidates
    samples = layers.sample(
        step_function,
        states,
        num_samples=config.mbr_samples,
        temperature=_TEMPERATURE,
        seed=0,
        **_limits(config),
    )
    return layers.minimum_bayes_risk(
        candidates, samples, num_return_sequences=config.num_return_sequences
    )


def beam_search(
    step_function: Callable, states: list, config, beam_width: int, num_return_sequences: int = 1
) -> SearchResult:
    """The most probable captions of a beam search with the limits of `config`."""
    return layers.beam_search(
        step_function,
        states,
        beam_width=beam_width,
        num_return_sequences=num_return_sequences,
        length_penalty=config.length_penalty,
        **_limits(config),
    )


def greedy(step_function: Callable, states: list, config) -> SearchResult:
    """The most probable word at each step."""
    return layers.greedy(step_function, states, **_limits(config))


def _limits(config) -> dict:
    return {"start": START, "end": END, "max_length": config.max_length}


def request(trained: Trained, inputs: list[str | bytes]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for images: paths, or the contents of files."""
    config = trained.config
    if config.regions:
        return {"regions": images.regions_of(inputs, config, trained.assets["images"])}
    contents = [images.read(each, animated=config.frames > 0) for each in inputs]
    return {"image_bytes": np.array(contents, object)}


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `image_bytes` `[B]` (or `regions` `[B, S, D]`) to

        - `captions` `[B, n]`, the best first,
        - `scores` `[B, n]`: log probabilities, divided by a power of the length; with `mbr_samples`
          the mean overlap with the samples, 0 to 1,
        - `words` `[B, n, L]`,
        - with attention, `attention`: the weights of each word, `[B, n, L, H, W]` for a grid,
          `[B, n, L, S]` for regions or the frames of a clip,
        - with frame labels, `frames` `[B, F]`,
        - for files, `error` `[B]`: why a file cannot be decoded, "" if it can. Its captions are
          then "", and its scores those of no caption: minus infinity, or 0 with `mbr_samples`.

    - `ids`: `image` `[B, S, S, 3]` or `[B, F, S, S, 3]`, 0 to 255 (or `regions`), to the `ids`
      `[B, L]`, `lengths` `[B]` and `attention` of greedy search.
    """
    config, assets = trained.config, trained.assets
    spec, begin = assets["images"], decoding(trained)
    vocabulary, grid = tf.constant(assets["vocabulary"]), _grid(trained)
    frozen = images.frozen_encoder(config)

    def encode(files) -> tuple:
        pixels, errors = image.try_decode_batch(files, config.image_size, config.frames)
        return images.frozen_features(frozen, pixels) if frozen else pixels, errors

    def attention(result: SearchResult) -> dict:
        if result.alignments is None:
            return {}
        shape = [*tf.unstack(tf.shape(result.alignments))[:-1], *grid]
        return {"attention": tf.reshape(result.alignments, shape)}

    def ids(inputs: dict) -> dict:
        step_function, states, _ = begin(inputs[spec["kind"]])
        result = greedy(step_function, states, config)
        return {"ids": result.tokens, "lengths": result.lengths} | attention(result)

    def serving_default(inputs: dict) -> dict:
        if config.regions:
            given, errors = inputs["regions"], None
        else:
            given, errors = encode(inputs["image_bytes"])
        step_function, states, encoded = begin(given)
        result = search(step_function, states, config)
        words = tf.where(result.tokens == PADDING, "", tf.gather(vocabulary, result.tokens))
        captions = tf.strings.strip(tf.strings.reduce_join(words, axis=-1, separator=" "))
        outputs = {"captions": captions, "scores": result.scores, "words": words}
        if "frames" in encoded:
            labels = tf.constant(assets["frame_labels"])
            outputs["frames"] = tf.gather(labels, tf.argmax(encoded["frames"], axis=-1))
        outputs |= attention(result)
        if errors is None:
            return outputs
        return images.with_errors(outputs, errors, 0.0 if config.mbr_samples else -np.inf)

    arrays = {spec["kind"]: tf.TensorSpec([None, *spec["shape"]], tf.float32)}
    files = arrays if config.regions else {"image_bytes": tf.TensorSpec([None], tf.string)}

    def requests(examples: list) -> dict[str, dict[str, np.ndarray]]:
        raw = request(trained, examples)
        if config.regions:
            return {"serving_default": raw, "ids": raw}
        pixels, _ = encode(tf.constant(raw["image_bytes"]))
        return {"serving_default": raw, "ids": {spec["kind"]: pixels.numpy()}}

    captions_of_any = for_any_batch(serving_default, {"image_bytes": b""})
    return Service(
        {
            "serving_default": with_inputs(captions_of_any, files),
            "ids": with_inputs(for_any_batch(ids, {}), arrays),
        },
        requests,
        litert="ids",
        keep=[trained.model.variables, frozen.variables if frozen else []],
    )


def _grid(trained: Trained) -> list[int]:
    """The shape of the attention of a word: height and width, or the number of rows."""
    spec = trained.assets["images"]
    if trained.config.frames:
        return [trained.config.frames]
    if spec["kind"] == "image":
        encoder = trained.model.get_layer("image_encoder").get_layer("encoder")
        return list(encoder.output.shape[1:3])
    return spec["shape"][:-1] if len(spec["shape"]) == 3 else [-1]
