"""Word vectors: skip-gram and CBOW on plain text; analogies, neighbors, files of vectors."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained
from unroll.apps.word_vectors import expressions, files, metrics, network, serving
from unroll.apps.word_vectors import report as reports
from unroll.pipelines import datasets, word_questions
from unroll.pipelines import text as texts
from unroll.pipelines import word_vectors as pairs
from unroll.pipelines.datasets.language import world
from unroll.pipelines.language_modeling import ids_on_disk


@dataclass(frozen=True)
class Search:
    # number of words that are returned
    neighbors: int = 10
    # files of analogies to evaluate with, as word2vec's questions-words.txt, with commas between
    analogies: str = ""
    # files of rated pairs of words to evaluate with, with commas between
    similarity: str = ""


@dataclass(frozen=True)
class Config(Search, TrainingConfig):
    # name of a dataset, a .txt file, or a folder of them
    data: str = "world"
    # number of epochs
    epochs: int = 5
    # blocks of 32 words per update
    batch_size: int = 16
    # initial learning rate
    learning_rate: float = 0.05
    # learning rate schedule; "linear" decreases to zero over all words of all epochs
    schedule: Literal["constant", "linear"] = "linear"
    # maximum norm of the gradient of a word in a block; 0 turns clipping off
    clip_norm: float = 20.0
    # figure that selects the best epoch
    monitor: str = "val_loss"
    # the prediction: the words around a word, or a word from the words around it
    objective: Literal["skip_gram", "cbow"] = "skip_gram"
    # size of the vectors
    embedding_dim: int = 100
    # the vector of a word is the sum of its vector and its context vector
    add_contexts: bool = True
    # maximum number of words on each side of a word that belong to its window
    window: int = 5
    # number of negative samples of each pair of words
    negatives: int = 5
    # number of negative samples that the words of a block share
    shared_negatives: int = 32
    # share of the text above which a word is left out at random; 0 for never
    sample: float = 1e-3
    # minimum count of a word in the training text to have a vector
    min_count: int = 5
    # maximum number of words with a vector, without phrases
    vocabulary_size: int = 200_000
    # number of passes that join words that occur together to phrases; 0 for no phrases
    phrases: int = 0
    # a larger threshold makes fewer phrases
    phrase_threshold: float = 10.0
    # number of vectors of letter n-grams, for words that have no vector; 0 for none
    ngram_buckets: int = 0
    # minimum number of letters of an n-gram
    min_ngram: int = 3
    # maximum number of letters of an n-gram
    max_ngram: int = 6

    def __post_init__(self):
        super().__post_init__()
        self.require_positive(
            "embedding_dim", "window", "negatives", "shared_negatives", "neighbors"
        )
        if self.window > 64:
            raise ValueError(f"window must be at most 64, got {self.window}.")
        if not 0 <= self.sample < 1:
            raise ValueError(f"sample must be in [0, 1), got {self.sample}.")
        if not 1 <= self.min_ngram <= self.max_ngram:
            raise ValueError(
                f"min_ngram must be at least 1 and at most max_ngram, {self.max_ngram}, got "
                f"{self.min_ngram}."
            )
        if self.precision != "float32":
            raise ValueError(f"precision must be float32 for word vectors, got {self.precision}.")

    def learning_rate_at(self, epoch: int, history: list[dict]) -> float:
        """The learning rate at the start of the epoch with index `epoch`."""
        if self.schedule == "linear":
            return self.learning_rate * (1 - epoch / self.epochs)
        return self.learning_rate


_ENGLISH = Config(data="wiki10m")
PRESETS = {
    "world": Config(min_count=1, embedding_dim=50, monitor="val_accuracy"),
    "wiki10m": _ENGLISH,
    "imdb": replace(_ENGLISH, data="imdb"),
}
# For your own text.
OWN_FILES = replace(_ENGLISH, data="", epochs=10)
ACCEPTS_A_FILE = True

TASK = "feature-extraction"
PUBLISHED: dict[str, dict] = {}

METRICS = {"analogies": "max", "wordsim_353": "max", "simlex_999": "max", "men": "max"}
MONITORS = {"val_accuracy": "max"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Blocks of the text with negative samples, and questions to evaluate with.

    The vocabulary, the phrases and the counts are those of the training text. The validation and
    the test split have the questions of `sections`, and the held-out text for the loss.
    """
    raw = RawSplits(config, "plain_text")
    assets = assets or _build_assets(config, raw)
    vocabulary, counts = assets["vocabulary"], assets["counts"]

    def batches(split: str) -> tf.data.Dataset:
        ids = ids_of(raw, split, assets)
        sizes = {"window": config.window, "negatives": config.shared_negatives}
        if training and split == "train":
            return pairs.training_batches(
                ids, counts, sample=config.sample, seed=config.seed, **sizes
            )
        questions = [_encoded(section, vocabulary) for section in sections(config, split)]
        return pairs.evaluation_batches(ids, counts, questions, **sizes)

    return Data({split: batches(split) for split in splits}, assets)


def ids_of(raw: RawSplits, split: str, assets: Assets) -> np.ndarray:
    """The text of a split as the ids of its words and phrases, `[N]`."""
    words = pairs.Words(assets["vocabulary"])
    ids = ids_on_disk(pairs.pieces_of(raw[split]), words, raw.folder(split), split)
    if "phrases" in assets:
        return pairs.join_phrases(ids, assets["vocabulary"], assets["phrases"])
    return ids


def _build_assets(config: Config, raw: RawSplits) -> Assets:
    pieces = pairs.pieces_of(raw["train"])
    vocabulary = pairs.build_vocabulary(pieces, config.vocabulary_size, config.min_count)
    assets: Assets = {"vocabulary": vocabulary}
    if config.phrases:
        vocabulary, phrases = pairs.find_phrases(
            ids_of(raw, "train", assets),
            vocabulary,
            threshold=config.phrase_threshold,
            min_count=config.min_count,
            passes=config.phrases,
        )
        assets = {"vocabulary": vocabulary, "phrases": phrases}
    return {**assets, "counts": pairs.counts_of(ids_of(raw, "train", assets), len(vocabulary))}


def sections(config: Config, split: str) -> list[word_questions.Section]:
    """The questions of a split.

    Those of the files `analogies` and `similarity`, if given. Otherwise those of the generated
    world, of "valid" or "test"; or the published questions about English words, for the test split
    of the English datasets.
    """
    if split == "train":
        return []
    if config.analogies or config.similarity:
        found = [
            s for path in _paths(config.analogies) for s in word_questions.read_analogies(path)
        ]
        return found + [word_questions.read_similarity(path) for path in _paths(config.similarity)]
    if config.data == "world":
        return [word_questions.Section(name, rows) for name, rows in world.questions(split).items()]
    if config.data in PRESETS and split == "test":
        return word_questions.from_examples(
            datasets.load("word_questions", "test").as_numpy_iterator()
        )
    return []


def _paths(listed: str) -> list[str]:
    return [path for path in listed.split(",") if path]


def _encoded(
    section: word_questions.Section, vocabulary: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of questions, and their ratings."""
    words = pairs.names_of(tf.constant([word for row in section.words for word in row]))
    ids = texts.Vocabulary(vocabulary)(words).numpy().reshape(len(section.words), -1)
    ratings = section.ratings or [0.0] * len(ids)
    return ids, np.array(ratings, "float32")


def axes(config: Config) -> Axes:
    """The weights of words."""
    return {f"{name}/embeddings": ("vocabulary", None) for name in ("vectors", "contexts")}


def build(config: Config, assets: Assets) -> keras.Model:
    """Vectors and context vectors, which are trained with negative samples."""
    if config.jit:
        raise ValueError("word vectors have no training step for XLA: leave out --jit.")
    model = network.NegativeSampling(config, assets["vocabulary"])
    model.compile(keras.optimizers.SGD(config.learning_rate), jit_compile=False)
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Accuracy of analogies, correlations with rated similarities, loss of the text."""
    return metrics.score(trained, sections(trained.config, "test"), dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """Vectors of counts: positive pointwise mutual information and singular vectors."""
    return metrics.baseline(config, sections(config, "test"), data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: words to neighbors; `analogy`; `vectors`: ids to vectors, for LiteRT."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str]) -> list[dict]:
    """The words nearest to a word, or to an expression such as "king - man + woman"."""
    return expressions.evaluate(trained, inputs)


def show(result: dict) -> str:
    """The nearest words with their cosines, or which words are unknown."""
    return expressions.show(result)


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """What the vectors answer wrong, maps of words, and files for TensorBoard's projector."""
    return reports.report(trained, sections(trained.config, "test"), dataset)


def export_files(trained: Trained) -> dict[str, bytes]:
    """The vectors in the text formats of word2vec and GloVe."""
    return files.text_formats(trained)


def page(trained: Trained) -> Page:
    """A word or an expression, and the nearest words."""

    def neighbors(result: dict) -> tuple[list[str], list[list]]:
        rows = [[each["word"], round(each["score"], 3)] for each in result["neighbors"]]
        return ["word", "cosine"], rows

    outputs = {
        "neighbors": ("table", neighbors),
        "words without a vector": ("text", lambda result: ", ".join(result["unknown"])),
    }
    return Page({"word or expression": "line"}, outputs)


def examples() -> list[str]:
    """A word and expressions."""
    return ["king - man + woman", "paris - france + italy", "dogs", "queen"]
