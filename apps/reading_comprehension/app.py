"""Reading comprehension: a question attends to the facts of a story, hop by hop."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Data, Service, ask
from unroll.apps.reading_comprehension import metrics, network, published, report, serving
from unroll.apps.shared import groups, questions
from unroll.layers.recurrent import RECURRENT_LAYERS
from unroll.pipelines import datasets, stories
from unroll.pipelines.text import PADDING, Vocabulary


@dataclass(frozen=True)
class Config(TrainingConfig):
    # a generated or published dataset, or a folder of stories in bAbI's layout
    data: str = "stories"
    # the one task to learn, by its number; by default all of them together
    task: str = ""
    # a memory network, or a recurrent layer over story and question
    model: Literal["memory", "recurrent"] = "memory"
    # how a fact becomes a vector: a bag of its words, or the last state of a recurrent layer
    facts: Literal["bag", "recurrent"] = "bag"
    # the recurrent layer, by its name in `layers`
    cell: str = "LSTM"
    # the size of all vectors
    units: int = 50
    # how many times the question attends to the facts
    hops: int = 3
    # which weights the hops share
    tying: Literal["adjacent", "layer_wise"] = "adjacent"
    # whether the order of the words in a fact counts
    position_encoding: bool = True
    # the places of the memory: so many facts are kept of a story, the last ones; 0 for as many as
    # the longest story in training has, 50 at most
    memory_size: int = 50
    # in training: the probability of an empty fact behind a fact
    noise: float = 0.1
    # the share of the epochs, the first ones, in which the hops have no softmax; the learning rate
    # is half of it there, and its schedule begins behind them
    linear_start: float = 0.0
    # epochs without a lower validation loss that end the linear start before its share does; 0 for
    # any number
    linear_patience: int = 0
    # models that train side by side, each from a start of its own; the one with the least training
    # loss is kept
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.cell not in RECURRENT_LAYERS:
            known = ", ".join(RECURRENT_LAYERS)
            raise ValueError(f"cell must be one of {known}, got {self.cell!r}.")
        for name in ("units", "hops", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("memory_size", "linear_patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must lie in [0, 1), got {self.noise}.")
        if not 0 <= self.linear_start < 1:
            raise ValueError(f"linear_start must lie in [0, 1), got {self.linear_start}.")
        if self.restarts > 1 and "recurrent" in (self.model, self.facts):
            raise ValueError("restarts are for model=memory with facts=bag.")

    def preparing_epochs(self, history: list[dict]) -> int:
        """How many epochs the linear start takes, in which the hops are others."""
        if self.model != "memory":
            return 0
        most = round(self.linear_start * self.epochs)
        losses = [figures.get("val_loss", figures["loss"]) for figures in history[:most]]
        for done in range(1, len(losses) + 1):
            if 0 < self.linear_patience < done - losses.index(min(losses[:done])):
                return done
        return most

    def learning_rate_at(self, epoch: int, history: list[dict]) -> float:
        """The learning rate of an epoch, counted from 0, that follows those of the history."""
        preparing = self.preparing_epochs(history)
        if epoch < preparing:
            return self.learning_rate / 2
        behind = replace(self, epochs=self.epochs - preparing, linear_start=0.0)
        return super(Config, behind).learning_rate_at(epoch - preparing, history)


_PUBLISHED_TRAINING = Config(
    epochs=90,
    patience=90,
    learning_rate=0.01,
    schedule="halving",
    clip_norm=40.0,
    linear_start=0.333,
)
PRESETS = {
    "stories": replace(_PUBLISHED_TRAINING, restarts=3),
    "babi": replace(_PUBLISHED_TRAINING, data="babi", restarts=10),
    "babi_10k": replace(
        _PUBLISHED_TRAINING,
        data="babi_10k",
        epochs=30,
        linear_start=0.1,
        restarts=3,
    ),
}
PUBLISHED = published.ROWS
PART = "task"  # one model a task: their figures make one row
combine = metrics.combine
EXAMPLES = [
    (
        "Brian is a frog. Lily is gray. Brian is yellow. Julius is green. Greg is a frog.",
        "What color is Greg?",
    ),
    ("Mary went to the kitchen. John moved to the garden.", "Where is Mary?"),
    (
        "Mary went to the kitchen.\nMary took the milk there.\nMary moved to the office",
        "Where is the milk?",
    ),
    ("", "Is John in the kitchen?"),
]


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's stories as ids of words, and the answers."""
    builder = datasets.builder(config.data, folder="told")
    raw = datasets.splits(builder)
    if config.task:
        raw = {split: stories.of_task(rows, config.task) for split, rows in raw.items()}
    if assets is None:
        assets = {
            "vocabulary": stories.build_vocabulary(raw["train"]),
            "tasks": stories.tasks(raw["train"]),
            "memory_size": [
                str(config.memory_size or min(stories.longest(raw["train"]), Config.memory_size))
            ],
        }
    if not assets["tasks"]:
        known = ", ".join(stories.tasks(datasets.splits(builder)["train"]))
        raise UsageError(f"--task={config.task}: {config.data} has {known}.")
    for split in sorted(raw.keys() - {"train"}):
        if new := [task for task in stories.tasks(raw[split]) if task not in assets["tasks"]]:
            raise UsageError(f"{config.data}: the {split} split has task {new[0]}, train has not.")
    vocabulary, places = Vocabulary(assets["vocabulary"]), int(assets["memory_size"][0])

    def batches(split: str):
        if split not in raw:
            return None
        return stories.question_batches(
            raw[split],
            vocabulary,
            assets["tasks"],
            config.batch_size,
            places,
            shuffle=config.seed if split == "train" else None,
        )

    return Data(batches("train"), batches("valid"), batches("test"), assets)


def build(config: Config, assets: Assets) -> keras.Model:
    """Facts `[B, S, J]` and a question `[B, J']` to the logits of all words, `[B, R, V]`."""
    inputs = {
        "facts": keras.Input((None, None), dtype="int32", name="facts"),
        "question": keras.Input((None,), dtype="int32", name="question"),
    }
    make = build_recurrent if config.model == "recurrent" else build_memory
    config = replace(config, memory_size=int(assets["memory_size"][0]))
    copies = [make(config, len(assets["vocabulary"])) for _ in range(config.restarts)]
    restarts = network.Restarts(copies, name="restarts")
    logits, _ = restarts(inputs["facts"], inputs["question"])
    model = network.Reader(inputs, logits)
    if config.model == "memory":
        rule = network.SideBySideSGD(
            config.learning_rate, copies=config.restarts, global_clipnorm=config.clip_norm or None
        )
    else:
        rule = optimizer(config)
    model.compile(rule, metrics=[network.BestAccuracy(restarts)], jit_compile=config.jit)
    return model


def build_memory(config: Config, size: int) -> keras.Model:
    """Facts and question to the logits `[B, V]` of all words and the weights `[B, K, S]`."""
    facts = keras.Input((None, None), dtype="int32", name="facts")
    question = keras.Input((None,), dtype="int32", name="question")
    there = ops.any(ops.not_equal(facts, PADDING), axis=-1)  # [B, S]
    as_words = config.facts == "bag"
    hops = layers.MemoryNetwork(
        config.units,
        config.hops,
        vocabulary_size=size if as_words else None,
        tying=config.tying,
        position_encoding=config.position_encoding,
        memory_size=config.memory_size,
        noise=config.noise,
        linear_start=config.linear_start > 0,
        return_logits=as_words,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.1),
        name="hops",
    )
    if as_words:
        logits, attention = hops(facts, question, mask=there)
    else:
        read = getattr(layers, config.cell)(config.units)
        embedding = keras.layers.Embedding(size, config.units)
        each = groups.Merge()(facts)  # [BS, J]
        each = read(embedding(each), mask=ops.not_equal(each, PADDING))
        asked = read(embedding(question), mask=ops.not_equal(question, PADDING))
        found, attention = hops(groups.Split()(each, facts), asked, mask=there)
        logits = keras.layers.Dense(size)(found)
    return keras.Model([facts, question], [logits, attention])


def build_recurrent(config: Config, size: int) -> keras.Model:
    """As `build_memory`: one recurrent layer over all words, and weights for no fact."""
    facts = keras.Input((None, None), dtype="int32", name="facts")
    question = keras.Input((None,), dtype="int32", name="question")
    words = network.AllWords()(facts, question)  # [B, S * J + J']
    x = keras.layers.Embedding(size, config.units)(words)
    state = getattr(layers, config.cell)(config.units)(x, mask=ops.not_equal(words, PADDING))
    nothing = ops.cast(ops.zeros_like(ops.expand_dims(facts[:, :, 0], 1)), state.dtype)
    return keras.Model([facts, question], [keras.layers.Dense(size)(state), nothing])


def callbacks(config: Config, history: list[dict]) -> list[keras.callbacks.Callback]:
    """What training does beside the usual."""
    start = network.LinearStart(lambda: config.preparing_epochs(history))
    return [start] if config.preparing_epochs([]) else []


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """The mean of the tasks' errors, how many are above 5 %, and the error of each task."""
    return metrics.figures(metrics.answers(model, dataset), assets["tasks"])


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent answer to the questions of each task."""
    found = metrics.figures(metrics.most_frequent(data, split), data.assets["tasks"])
    names = ("error", "tasks_above_5")
    return {"what": "most frequent answer of each task"} | {name: found[name] for name in names}


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: stories and questions to answers; `ids`: for LiteRT."""
    return serving.service(model, assets)


def predict(model: keras.Model, assets: Assets, inputs: list) -> list[dict]:
    """The answer to each question, and the weight of each fact, hop by hop.

    Args:
        model, assets: of a run.
        inputs: pairs of a story and a question; or, as on the command line, stories (or files of
            them), each followed by the questions about it, which end with a question mark. For
            these a picture of the hops is written into the working folder.
    """
    draws = any(isinstance(given, str) for given in inputs)
    pairs = questions.pairs(inputs, report.is_story, "story")
    asked = [(report.read(story), question) for story, question in pairs]
    return report.results(ask, serve(model, assets), asked, draws)


def show(result: dict) -> Text:
    """The answer, and the facts with their weight in each hop."""
    return report.text(result)
