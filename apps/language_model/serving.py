"""The functions that the app exports: prompts to texts, texts to probabilities, and one step."""

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Service, Trained, once, with_inputs
from unroll.apps.language_model.generation import Generator, SampleByInversion, StopAfter, units_of
from unroll.pipelines.language_modeling import UNKNOWN
from unroll.pipelines.text import MAX_TOKENS, known_ids

MOST = 1000  # tokens of a continuation


def request(trained: Trained, inputs: list[str]) -> dict[str, np.ndarray]:
    """The request of `serving_default` for prompts, with the options of the configuration."""
    config = trained.config
    return {
        "prompt": np.array(inputs, object),
        **_options(
            len(inputs),
            max_length=min(config.max_length, MOST),
            temperature=config.temperature,
            seed=config.sample_seed,
        ),
    }


def _options(rows: int, max_length: int, temperature: float, seed: int) -> dict[str, np.ndarray]:
    """The same options for each row."""
    return {
        "max_length": np.full(rows, max_length, np.int32),
        "temperature": np.full(rows, temperature, np.float32),
        "seed": np.full(rows, seed, np.int32),
    }


@once
def service(trained: Trained) -> Service:
    """The app's functions.

    - `serving_default`: `prompt`, `max_length` (at most 1000 tokens), `temperature` (0 for the
      most probable token) and `seed`, all `[B]`, to `text` `[B]`, which starts with the prompt.
    - `score`: `text` `[B]` to its `tokens` `[B, T]`, at most `MAX_TOKENS`, and their
      `log_probabilities` `[B, T]`. Rows are padded with empty strings and zeros.
    - `step`: `token` `[B]` and `state_0`, ... `[B, size]` to `logits` `[B, V]` and the new states.
      It has no loop; a text starts with `<eos>` and states of zeros.

    The functions of the LiteRT file:

    - `step`, with fixed shapes: B is 1.
    - `generate`: `prompt` `[B, T]`, ids, of which the first is `<eos>` and those after the end of a
      row are below 0, and `max_length` (at most 1000) to `tokens` `[B, max_length]`, ids, each of
      which is the most probable one.
    """
    units = units_of(trained)
    generator = Generator(trained, units)
    sizes = generator.steps.state_sizes
    names = [f"state_{k}" for k in range(len(sizes))]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="prompt"),
            tf.TensorSpec([None], tf.int32, name="max_length"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.int32, name="seed"),
        ],
        autograph=False,
    )
    def serving_default(prompt, max_length, temperature, seed):
        # Also the text that is returned is valid UTF-8.
        prompt = tf.strings.unicode_transcode(prompt, "UTF-8", "UTF-8", errors="replace")
        first, states = generator.prime(prompt)
        found = layers.greedy(
            generator.step,
            states,
            start=first,
            end=generator.stop,
            max_length=MOST,
            logits_processors=[
                SampleByInversion(temperature, seed, MOST),
                StopAfter(max_length, generator.stop),
            ],
        )
        ids = tf.RaggedTensor.from_tensor(found.tokens, lengths=found.lengths)
        return {"text": units.extend(prompt, ids)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def score(text):
        tokens, log_probabilities = generator.score(text, MAX_TOKENS)
        return {"tokens": tokens.to_tensor(), "log_probabilities": log_probabilities.to_tensor()}

    def step(inputs: dict) -> dict:
        token = known_ids(inputs["token"], len(units.vocabulary), UNKNOWN)
        logits, states = generator.steps.step(token, [inputs[name] for name in names])
        return {"logits": logits, **dict(zip(names, states, strict=True))}

    def step_of(batch: int | None):
        specs = {"token": tf.TensorSpec([batch], tf.int32)}
        for name, size in zip(names, sizes, strict=True):
            specs[name] = tf.TensorSpec([batch, size], tf.float32)
        return with_inputs(step, specs)

    def generate(inputs: dict) -> dict:
        first, states = generator.prime_ids(inputs["prompt"])
        found = layers.greedy(
            generator.step,
            states,
            start=first,
            end=generator.stop,
            max_length=MOST,
            logits_processors=[StopAfter(inputs["max_length"], generator.stop)],
        )
        return {"tokens": found.tokens[:, : inputs["max_length"]]}

    specs = {
        "prompt": tf.TensorSpec([None, None], tf.int32),
        "max_length": tf.TensorSpec([], tf.int32),
    }

    def requests(prompts: list[str]) -> dict[str, dict[str, np.ndarray]]:
        raw = request(trained, prompts)
        short = _options(len(prompts), max_length=20, temperature=0.7, seed=1)
        ids = generator.prompt_ids(tf.constant(prompts))
        first, states = generator.prime(tf.constant(prompts))
        values = {name: state.numpy() for name, state in zip(names, states, strict=True)}
        return {
            "serving_default": raw | short,
            "score": {"text": raw["prompt"]},
            "step": {"token": first.numpy(), **values},
            "generate": {"prompt": ids.numpy(), "max_length": np.array(20, np.int32)},
        }

    return Service(
        {"serving_default": serving_default, "score": score, "step": step_of(None)},
        requests,
        litert={"step": step_of(1), "generate": with_inputs(generate, specs)},
        keep=[trained.model.variables, units],
    )
