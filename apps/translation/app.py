"""Translation and chat: a sentence to its translation, or the turns of a dialog to a reply."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.shared.averaging import AveragedWeights
from unroll.apps.shared.display import scored_rows
from unroll.apps.shared.recurrent import require_cell
from unroll.apps.shared.token_losses import MeanLoss, Perplexity
from unroll.apps.shared.unknown_words import report_unknown
from unroll.apps.translation import baselines, network, scoring, serving
from unroll.apps.translation import report as reports
from unroll.pipelines import translation
from unroll.pipelines.subwords import without_file_name


@dataclass(frozen=True)
class Search:
    # number of hypotheses of the beam search; 1 is the greedy search
    beam_width: int = 5
    # translations per source
    num_return_sequences: int = 1
    # scores are log probabilities divided by ((5 + length) / 6) to this power
    length_penalty: float = 0.0
    # weight of the coverage penalty, which favors translations that attend to the whole source
    coverage_penalty: float = 0.0
    # sample translations at random, in place of the beam search
    sample: bool = False
    # of samples: below 1 the most probable tokens are sampled more often; 0 takes the most probable
    temperature: float = 1.0
    # of samples: only from the most probable tokens with this total probability
    top_p: float = 1.0
    # random seed of the samples
    sample_seed: int = 0
    # above 1, tokens that a translation already has are less probable
    repetition_penalty: float = 1.0
    # no sequence of this number of tokens may occur twice in a translation; 0 for no limit
    no_repeat_ngram_size: int = 0
    # samples for minimum Bayes risk decoding, which ranks the translations of the beam by their
    # overlap with samples from the model; 0 ranks them by score
    mbr_samples: int = 0
    # replace unknown words by the source word with the largest attention weight
    replace_unknown: bool = False
    # maximum number of tokens of a translation
    max_length: int = 60


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a dataset, or a folder of your own files
    data: str = "phrases"
    # language of the source, for datasets of several languages
    source: str = ""
    # language of the target, for datasets of several languages
    target: str = ""
    # for dialogs: number of turns before the reply that are read
    history: int = 1
    # figure that selects the best epoch
    monitor: str = "val_perplexity"
    # maximum number of epochs
    epochs: int = 8
    # pairs per batch
    batch_size: int = 64
    # target tokens per batch, in place of a number of pairs; 0 for batches of pairs
    batch_tokens: int = 0
    # initial learning rate
    learning_rate: float = 4e-3
    # learning rate schedule over the epochs; "halving" halves it after each quarter of them
    schedule: Literal["constant", "cosine", "halving"] = "cosine"
    # what a token is: a subword, a word or punctuation mark, a character
    units_of_text: Literal["subwords", "words", "characters"] = "words"
    # kind of subwords
    subword_type: Literal["bpe", "unigram"] = "bpe"
    # in training, split words into random subwords: the probability that a merge of BPE is left
    # out, or the smoothing of the probabilities of unigram pieces; 0 turns it off
    subword_sampling: float = 0.0
    # maximum number of tokens of a vocabulary
    vocabulary_size: int = 8000
    # minimum count of a word or character in the training split to be in a vocabulary
    min_count: int = 1
    # whether source and target have one vocabulary
    shared_vocabulary: bool = False
    # training pairs with more tokens in the source or the target are left out
    max_tokens: int = 80
    # size of the embedded tokens
    embedding_dim: int = 64
    # bidirectional recurrent layer of the encoder, by its name in `unroll.layers`
    encoder_cell: str = "GRU"
    # recurrent layer of the decoder, by its name in `unroll.layers`
    cell: str = "GRU"
    # size of the recurrent states, in the encoder of each direction
    units: int = 128
    # number of recurrent layers of the encoder
    encoder_depth: int = 1
    # number of recurrent layers of the decoder
    depth: int = 1
    # attention before the recurrent step of the decoder (Bahdanau) or after it (Luong)
    attention: Literal["before", "after"] = "before"
    # score of the attention after the recurrent step
    score: Literal["general", "concat"] = "general"
    # embeddings that share their weights: those of target and output layer, also that of the
    # source, or none
    tied: Literal["none", "two", "three"] = "none"
    # weight of the doubly stochastic regularization of attention
    coverage: float = 0.0
    # dropout rate of the embedded tokens
    embedding_dropout: float = 0.0
    # dropout rate between and after the layers of the encoder, between those of the decoder, and
    # before the output layer
    dropout: float = 0.0
    # label smoothing
    label_smoothing: float = 0.0
    # probability that the decoder reads its own prediction in training, not the correct token
    scheduled_sampling: float = 0.0
    # decay per step of a moving average of the weights, which is validated and saved; 0 for none
    average: float = 0.99
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_cell("encoder_cell", self.encoder_cell)
        require_cell("cell", self.cell)
        if not 1 <= self.num_return_sequences <= (self.beam_width if not self.sample else 2**31):
            raise ValueError(
                f"num_return_sequences must be in [1, beam_width], got {self.num_return_sequences} "
                f"with beam_width={self.beam_width}."
            )
        if self.tied == "three" and not self.shared_vocabulary:
            raise ValueError("tied=three needs shared_vocabulary.")
        if self.sample and self.mbr_samples:
            raise ValueError("sample and mbr_samples exclude each other: both select from samples.")
        if self.replace_unknown and self.units_of_text != "words":
            raise ValueError(
                f"replace_unknown needs units_of_text=words, got {self.units_of_text}: other units "
                "have hardly any unknown tokens."
            )
        for name in ("source", "target"):
            if getattr(self, name) and self.source == self.target:
                raise ValueError(f"source and target must differ, got {self.source} for both.")
        if not 0 <= self.temperature < 100:
            raise ValueError(f"temperature must be in [0, 100), got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}.")
        if not 0 < self.repetition_penalty < 100:
            raise ValueError(
                f"repetition_penalty must be above 0 and below 100, got {self.repetition_penalty}."
            )
        for name in ("scheduled_sampling", "label_smoothing", "subword_sampling", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        for name in ("coverage", "coverage_penalty"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        self.require_positive("history", "max_length", "max_tokens", "vocabulary_size", "min_count")


_SENTENCES = Config(
    data="multi30k", source="de", target="en", units_of_text="subwords", vocabulary_size=4000,
    epochs=16, patience=16, learning_rate=2e-3, embedding_dim=256, units=320,
    embedding_dropout=0.3, dropout=0.4, label_smoothing=0.1, average=0.999, length_penalty=1.0,
)  # fmt: skip
PRESETS = {
    "phrases": Config(patience=8),
    "multi30k": _SENTENCES,
    # Chinese has more than 3,000 characters.
    "tatoeba_zh_en": replace(
        _SENTENCES, data="tatoeba_zh_en", source="zh", target="en", vocabulary_size=6000,
        epochs=10, patience=10,
    ),
    "dailydialog": replace(
        _SENTENCES, data="dailydialog", source="", target="", history=2, vocabulary_size=6000,
        epochs=7, patience=7, shared_vocabulary=True, tied="three", label_smoothing=0.0,
        sample=True, top_p=0.9, repetition_penalty=1.2,
        max_length=40, max_tokens=80,
    ),
}  # fmt: skip
# For your own files.
OWN_FILES = replace(_SENTENCES, data="", source="", target="", max_tokens=100)

TASK = "translation"
PUBLISHED = {
    "multi30k": {
        "bleu": 28.3,
        "source": "GRU with attention, bentrevett/pytorch-seq2seq, de to en",
    },
    "multi30k, transformer": {
        "bleu": 36.5,
        "source": "transformer, bentrevett/pytorch-seq2seq, de to en",
    },
    "multi30k, en-de": {"bleu": 37.8, "source": "GRU, LIUM-CVC, Caglayan et al. 2017, en to de"},
    "multi30k, en-fr": {"bleu": 54.7, "source": "GRU, LIUM-CVC, Caglayan et al. 2017, en to fr"},
}

METRICS = {"bleu": "max", "chrf": "max", "exact_match": "max", "word_perplexity": "min"}
MONITORS = {"val_perplexity": "min"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Pairs of ids. The vocabularies are those of the training split."""
    raw = RawSplits(
        config, "translation", source=config.source, target=config.target, history=config.history
    )
    if assets is None:
        assets = translation.build_assets(
            raw["train"],
            config.units_of_text,
            config.vocabulary_size,
            shared=config.shared_vocabulary,
            subword_type=config.subword_type,
            min_count=config.min_count,
        )
        assets["task"] = {"dialogs": raw.builder.source.dialogs}
    source, target = translation.tokenizers(assets, config.units_of_text)

    def batches(split: str) -> tf.data.Dataset:
        options = {"batch_tokens": config.batch_tokens}
        if training and split == "train":
            options |= {"max_tokens": config.max_tokens, "shuffle": config.seed}
            options["sampling"] = config.subword_sampling
        return translation.batches(
            raw[split], source, target, config.batch_size, with_text=not training, **options
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        names = {"unknown": translation.UNKNOWN, "special": len(translation.SPECIAL)}
        report_unknown("valid", data["valid"], "source", **names, what="tokens of sources")
    return data


def _vocabularies(config: Config) -> tuple[str, str]:
    """The names of the assets with the tokens of sources and of targets."""
    if config.shared_vocabulary:
        return "vocabulary", "vocabulary"
    return "source_vocabulary", "target_vocabulary"


def axes(config: Config) -> Axes:
    """The weights of tokens."""
    source, target = _vocabularies(config)
    found = {
        "decoder/embedding/embeddings": (target, None),
        "decoder/output_bias": (target,),
    }
    if config.tied == "none":
        found["decoder/output_kernel"] = (None, target)
    if config.tied != "three":
        found["embedding/embeddings"] = (source, None)
    return found


def build(config: Config, assets: Assets) -> keras.Model:
    """An encoder and a decoder with attention: ids `[B, S]` and `[B, T]` to logits `[B, T, V]`."""
    model = network.build(config, *(len(assets[name]) for name in _vocabularies(config)))
    model.compile(
        optimizer(config, config.weight_decay, config.average),
        MeanLoss(first=translation.PAD + 1, smoothing=config.label_smoothing),
        metrics=[Perplexity(first=translation.PAD + 1)],
        jit_compile=config.jit,
    )
    return model


def callbacks(config: Config, history: list[dict]) -> list[keras.callbacks.Callback]:
    """The averages of the weights."""
    return [AveragedWeights(swapped=bool(history))] if config.average else []


def ensemble(members: list[Trained]) -> Trained:
    """Several models as one: the mean of the probabilities of the next token.

    Raises:
        UsageError: if the models differ in how they split texts.
    """
    first = members[0]
    for number, member in enumerate(members[1:], start=2):
        for name in ("units_of_text", "history"):
            values = [getattr(each.config, name) for each in (first, member)]
            if values[0] != values[1]:
                raise UsageError(
                    f"an ensemble needs runs with the same {name}: that of the first is "
                    f"{values[0]}, that of number {number} is {values[1]}."
                )
        if _what_splits_texts(member) != _what_splits_texts(first):
            raise UsageError(
                f"an ensemble needs runs with the same vocabularies: run number {number} has "
                "others than the first. Train them on the same data, with the same options of the "
                "vocabularies and other seeds."
            )
    return replace(first, model=network.Ensemble([each.model for each in members]))


def _what_splits_texts(trained: Trained) -> dict:
    """The assets, without a file name that runs of older versions have in their subwords."""
    return {
        name: without_file_name(asset) if isinstance(asset, bytes) else asset
        for name, asset in trained.assets.items()
    }


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """BLEU, chrF and perplexity; of replies also their variety and the selection among ten."""
    return scoring.score(trained, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The source itself, the most frequent target, and the target of the most similar source."""
    found = baselines.baseline(data, split, chat=data.assets["task"]["dialogs"])
    if config.source:
        found["what"] += f" ({config.source} to {config.target})"
    return found


def serve(trained: Trained) -> Service:
    """`serving_default`: texts to translations; `ids`: ids to ids, for LiteRT."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """The translations of each source, best first, with the attention of each of their pieces.

    Args:
        trained: with weights.
        inputs: sources. For dialogs, turns that are separated by tabs, the oldest first.
    """
    results = []
    for text, outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        source = [piece for piece in outputs["source_pieces"] if piece]
        lengths = [sum(map(bool, pieces)) for pieces in outputs["pieces"]]
        results.append(
            {
                "source": text,
                "translations": outputs["translations"],
                "scores": outputs["scores"],
                "source_pieces": source,
                "pieces": [
                    pieces[:n] for pieces, n in zip(outputs["pieces"], lengths, strict=True)
                ],
                "alignment": [
                    [row[: len(source)] for row in rows[:n]]
                    for rows, n in zip(outputs["alignment"], lengths, strict=True)
                ],
            }
        )
    return results


def converse(trained: Trained) -> Callable[[str], dict] | None:
    """A function of a turn that replies to it, given the turns so far; `None` for translations."""
    if not trained.assets["task"]["dialogs"]:
        return None
    turns: list[str] = []

    def answer(line: str) -> dict:
        turns.append(" ".join(line.split("\t")))
        [result] = predict(trained, ["\t".join(turns[-trained.config.history :])])
        turns.append(result["translations"][0])
        return result

    return answer


def show(result: dict) -> Text:
    """The translations with their scores, the best one first."""
    best, *others = zip(result["translations"], result["scores"], strict=True)
    line = Text(best[0], style="bold") + Text(f"  {best[1]:.2f}", style="dim")
    for text, score in others:
        line += Text(f"\n       {text}  {score:.2f}", style="dim")
    return line


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The worst sentences, errors by length and unknown words, what is left out or repeated."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """A source, its translations and their alignment; of a dialog, the reply."""
    if trained.assets["task"]["dialogs"]:
        reply = ("text", lambda result: result["translations"][0])
        return Page({"turn": "line"}, {"reply": reply}, plot=False)

    def translations(result: dict) -> tuple[list[str], list[list]]:
        return ["translation", "score"], scored_rows(result["translations"], result["scores"])

    return Page({"source": "text"}, {"translations": ("table", translations)})


def examples() -> list[str]:
    """Some sources."""
    return [
        "The old dogs that a girl calls have caught some mice.",
        "Some nurses hope that the quick horse has found a young king.",
        "Soon the poor women must sing.",
    ]
