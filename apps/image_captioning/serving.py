"""What the app exports: picture files to captions; pixels to ids, for LiteRT."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Assets, Service, settings_of, with_inputs
from unroll.apps.image_captioning import network
from unroll.apps.shared import images
from unroll.layers.decoding import SearchResult
from unroll.layers.recurrent import mean_over_time
from unroll.pipelines.captions import END, PADDING, START, UNKNOWN

# A number that leaves a logit no chance, and is still a float16.
_NEVER = -6e4
# How far captions that are drawn at random keep to the likely words; chosen on Flickr8k's
# validation split, as that pairs of words count.
_TEMPERATURE = 0.8
# The settings that `search` reads.
SEARCH = ("max_length", "beam", "best", "length_penalty", "agreement")


def writer(model: keras.Model, assets: Assets) -> Callable:
    """How the model begins to write: `f(pixels or regions)` to `(step, states, seen)`.

    The first two are what a search takes; no word that is padding, unknown or a start is written.
    `seen` is what `network.viewer` gives.
    """
    view, decoder, start = (model.get_layer(name) for name in ("viewer", "decoder", "start"))
    never = np.zeros(len(assets["vocabulary"]), "float32")
    never[[PADDING, UNKNOWN, START]] = _NEVER

    def begin(given) -> tuple:
        seen = view(given, training=False)
        memory, mask = seen["memory"], seen["mask"]
        first = start(mean_over_time(memory, mask))
        if isinstance(decoder, layers.AttentionDecoder):
            own = network.split(first, decoder.cell_state_sizes)
            states, step = decoder.initial_states(memory, own), decoder.step_function(memory, mask)
        else:
            states = decoder.initial_states(tf.shape(first)[0], first_input=first)
            step = decoder.step_function()

        def allowed(tokens, states) -> tuple:
            logits, states, weights = step(tokens, states)
            return tf.cast(logits, tf.float32) + never, states, weights

        return allowed, states, seen

    return begin


def search(step: Callable, states: list, settings: dict, beam: int = 0) -> SearchResult:
    """The captions that the settings ask for; or the likeliest one of a beam of another width."""
    limits = {"start": START, "end": END, "max_length": settings["max_length"]}
    drawn = 0 if beam else settings["agreement"]
    found = layers.beam_search(
        step,
        states,
        beam_width=beam or settings["beam"],
        num_return_sequences=settings["beam"] if drawn else 1 if beam else settings["best"],
        length_penalty=settings["length_penalty"],
        **limits,
    )
    if not drawn:
        return found
    others = layers.sample(
        step, states, num_samples=drawn, temperature=_TEMPERATURE, seed=0, **limits
    )
    return layers.minimum_bayes_risk(found, others, num_return_sequences=settings["best"])


def service(model: keras.Model, assets: Assets) -> Service:
    """The app's functions.

    - `serving_default`, `image_bytes` `[B]` (or `regions` `[B, S, D]`, made elsewhere): `captions`
      `[B, n]` from the best down, their `scores` (log probabilities, over a power of the length; or
      with `agreement` how much they share with the captions drawn, 0 to 1),
      `words` `[B, n, L]`, and `attention`, where each word looked: `[B, n, L, H, W]` of a grid,
      `[B, n, L, S]` of regions or of the frames of a clip. Of clips whose frames have labels also
      `frames` `[B, F]`.
    - `ids`: `image` `[B, S, S, 3]`, 0 to 255, of clips `[B, F, S, S, 3]` (or `regions`), to the
      greedy search's `ids` `[B, L]`, `lengths` `[B]` and `attention`.
    """
    settings = settings_of(assets)
    begin, entries = writer(model, assets), tf.constant(assets["vocabulary"])
    grid = _grid(model, settings)
    size, frames, frozen = settings["image_size"], settings["frames"], None
    if settings["encoder"]:
        names = settings["encoder"], settings["encoder_weights"]
        frozen = images.frozen_encoder(*names, size)

    def see(files):
        shown = images.decode(files, size, frames)
        return images.frozen_features(frozen, shown) if frozen else shown

    def write(given: dict) -> dict:
        step, states, _ = begin(given[settings["kind"]])
        limit = settings["max_length"]
        found = layers.greedy(step, states, start=START, end=END, max_length=limit)
        return {"ids": found.tokens, "lengths": found.lengths} | looks(found)

    def looks(found) -> dict:
        if found.alignments is None:
            return {}
        weights = found.alignments
        return {"attention": tf.reshape(weights, [*tf.unstack(tf.shape(weights))[:-1], *grid])}

    def write_files(given: dict) -> dict:
        step, states, seen = begin(
            given["regions"] if settings["regions"] else see(given["image_bytes"])
        )
        found = search(step, states, settings)
        known = tf.gather(entries, found.tokens)
        words = tf.where(found.tokens == PADDING, "", known)  # [B, n, L]
        captions = tf.strings.strip(tf.strings.reduce_join(words, axis=-1, separator=" "))
        answer = {"captions": captions, "scores": found.scores, "words": words} | looks(found)
        if "frames" in seen:
            labels = tf.constant(settings["labels"])
            answer["frames"] = tf.gather(labels, tf.argmax(seen["frames"], axis=-1))
        return answer

    ids = {settings["kind"]: tf.TensorSpec([None, *settings["shape"]], tf.float32)}
    files = ids if settings["regions"] else {"image_bytes": tf.TensorSpec([None], tf.string)}

    def requests(examples: list) -> dict[str, dict[str, np.ndarray]]:
        if settings["regions"]:
            given = {"regions": images.regions_of(tuple(examples), settings)}
            return {"serving_default": given, "ids": given}
        contents = np.array([images.read(each) for each in examples], object)
        return {
            "serving_default": {"image_bytes": contents},
            "ids": {settings["kind"]: see(tf.constant(contents)).numpy()},
        }

    functions = {"serving_default": with_inputs(write_files, files), "ids": with_inputs(write, ids)}
    keep = [model.variables, frozen.variables if frozen else []]
    return Service(functions, requests, litert="ids", keep=keep)


def _grid(model: keras.Model, settings: dict) -> list[int]:
    """The axes of the places that a picture has: of a grid two, else one."""
    if settings["frames"]:
        return [settings["frames"]]
    if settings["kind"] == "image":
        return list(model.get_layer("viewer").get_layer("encoder").output.shape[1:3])
    return settings["shape"][:-1] if len(settings["shape"]) == 3 else [-1]
