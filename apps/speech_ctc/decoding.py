"""Logits to transcripts: greedy, by beam search, and with a language model."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from unroll import layers
from unroll.apps.core.protocol import Asset, Trained
from unroll.pipelines import speech
from unroll.pipelines.errors import DataError
from unroll.pipelines.lines import split_words

_KENLM = b"mmap lm http://kheafield.com/code"  # the first bytes of a binary file


Decoder = Callable[[np.ndarray, np.ndarray], list[str]]


def decoders(trained: Trained) -> dict[str, Decoder]:
    """Functions of a batch of logits `[B, T, K]` and numbers of frames `[B]` to transcripts.

    By the prefix of their figures: "" for the greedy labels, `beam_`, and `language_model_` if the
    language model has a weight or there are hot words.
    """
    found = {"": _search(trained, 1), "beam_": _search(trained, trained.config.beam_width)}
    if uses_language_model(trained.config):
        decode = _search_with_language_model(trained)
        found["language_model_"] = lambda logits, frames: [
            decode(row[:count]) for row, count in zip(logits, frames, strict=True)
        ]
    return found


def _search(trained: Trained, beam_width: int) -> Decoder:
    """A beam search. With a width of 1, the labels are those of the best path."""
    names, unit = np.array(trained.assets["labels"]), trained.config.unit

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, len(names)], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def search(logits, frames):
        if beam_width == 1:
            return layers.ctc_greedy(logits, frames).labels
        return layers.ctc_beam_search(logits, frames, beam_width=beam_width).labels[:, 0]

    def decode(logits, frames):
        labels = search(logits, frames).numpy()
        return [speech.join_units(names[row[row >= 0]], unit) for row in labels]

    return decode


def uses_language_model(config) -> bool:
    """Whether a search would use the language model or hot words."""
    return bool(config.lm_weight or config.hot_words)


def decode_with_language_model(logits: list[np.ndarray], trained: Trained) -> list[str]:
    """The best transcripts by a beam search with the language model and the hot words.

    Args:
        logits: of each recording, `[T, K]`.
        trained: has the labels and the language model.
    """
    return list(map(_search_with_language_model(trained), logits))


def _search_with_language_model(trained: Trained) -> Callable[[np.ndarray], str]:
    config, labels = trained.config, trained.assets["labels"]
    model = _language_model(trained.assets["language_model"]) if config.lm_weight else None
    if config.unit != "characters":
        labels = [f"{label} " for label in labels]

    def decode(logits: np.ndarray) -> str:
        [(text, _)] = layers.ctc_beam_search_with_language_model(
            logits,
            labels,
            model,
            language_model_weight=config.lm_weight,
            insertion_bonus=config.word_bonus,
            hot_words=parse_hot_words(config.hot_words),
            beam_width=config.beam_width,
        )
        return text

    return decode


def language_model_asset(config, texts: list[str], units: Callable[[str], list[str]]) -> Asset:
    """The lines of an ARPA file, or the bytes of a binary file of KenLM.

    It is the configured file, or a model of the words of texts, or of their phones, which `units`
    gives.

    Raises:
        DataError: if the file is not a language model.
    """
    if not config.language_model:
        words = map(units if config.unit == "phones" else split_words, texts)
        return layers.NGramLanguageModel.from_texts(words, config.lm_order).to_arpa()
    path = Path(config.language_model)
    try:
        contents = path.read_bytes()
        if contents.startswith(_KENLM):
            layers.NGramLanguageModel.from_kenlm(path)
            return contents
        layers.NGramLanguageModel.from_arpa(path)
        # Decoded from bytes, since a text file would also end a line at a carriage return.
        return contents.decode("utf-8-sig").split("\n")
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"--language-model={config.language_model}: {error}") from None


def _language_model(asset: Asset) -> layers.NGramLanguageModel | None:
    if isinstance(asset, bytes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "language_model.bin"
            path.write_bytes(asset)
            return layers.NGramLanguageModel.from_kenlm(path)
    return layers.NGramLanguageModel.from_lines(asset) if asset else None


def parse_hot_words(text: str) -> dict[str, float]:
    """`"word=2.0,other=1.5"` as a dictionary.

    Raises:
        ValueError: if the text has another form.
    """
    bonuses = {}
    for part in filter(None, text.split(",")):
        word, equals, bonus = part.partition("=")
        try:
            bonuses[word.strip()] = float(bonus)
        except ValueError:
            equals = ""
        if not equals or len(word.split()) != 1:
            raise ValueError(f"hot_words must be word=bonus,word=bonus, got {text!r}.")
    return bonuses
