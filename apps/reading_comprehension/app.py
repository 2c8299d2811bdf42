"""Reading comprehension: a question attends to the facts of a story in several hops."""

import functools
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.config import TrainingConfig, optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.errors import UsageError
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.reading_comprehension import metrics, network, parsing, published, serving
from unroll.apps.reading_comprehension import report as reports
from unroll.apps.shared import groups
from unroll.apps.shared.display import weights_of
from unroll.apps.shared.recurrent import recurrent_layers, require_cell
from unroll.apps.shared.unknown_words import report_unknown
from unroll.pipelines import stories
from unroll.pipelines.errors import report_once
from unroll.pipelines.text import PADDING, Vocabulary


@dataclass(frozen=True)
class Config(TrainingConfig):
    # name of a dataset, or a folder of stories in the format of bAbI
    data: str = "stories"
    # number of the only task to train on; by default all tasks jointly
    task: str = ""
    # a memory network, or a recurrent layer over story and question
    model: Literal["memory", "recurrent"] = "memory"
    # encoder of a fact: a bag of its words, or the last state of a recurrent layer
    facts: Literal["bag", "recurrent"] = "bag"
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of all vectors
    units: int = 50
    # number of times that the question attends to the facts
    hops: int = 3
    # weights that the hops share
    tying: Literal["adjacent", "layer_wise"] = "adjacent"
    # encode the order of the words in a fact
    position_encoding: bool = True
    # positions of the memory, the last facts of a story; 0 for the number of facts of the longest
    # training story, at most 50
    memory_size: int = 50
    # training: probability of an empty fact after each fact
    noise: float = 0.1
    # fraction of the epochs, the first ones, without softmax in the hops and with half the learning
    # rate; the learning rate schedule starts after them
    linear_start: float = 0.0
    # epochs without a lower validation loss that end the linear start early; 0 for never
    linear_patience: int = 0
    # number of models with different initial weights that train in parallel; the one with the
    # lowest training loss is used
    restarts: int = 1

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        self.require_positive("units", "hops", "restarts")
        for name in ("memory_size", "linear_patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be in [0, 1), got {self.noise}.")
        if not 0 <= self.linear_start < 1:
            raise ValueError(f"linear_start must be in [0, 1), got {self.linear_start}.")
        if self.restarts > 1 and "recurrent" in (self.model, self.facts):
            raise ValueError("restarts above 1 need model=memory and facts=bag.")

    def preparing_epochs(self, history: list[dict]) -> int:
        """The number of epochs of the linear start."""
        if self.model != "memory":
            return 0
        limit = round(self.linear_start * self.epochs)
        losses = [figures.get("val_loss", figures["loss"]) for figures in history[:limit]]
        for done in range(1, len(losses) + 1):
            if 0 < self.linear_patience < done - losses.index(min(losses[:done])):
                return done
        return limit

    def learning_rate_at(self, epoch: int, history: list[dict]) -> float:
        """The learning rate of the epoch with index `epoch`, given the finished ones."""
        preparing = self.preparing_epochs(history)
        if epoch < preparing:
            return self.learning_rate / 2
        after = replace(self, epochs=self.epochs - preparing, linear_start=0.0)
        return super(Config, after).learning_rate_at(epoch - preparing, history)


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
TASK = "question-answering"
PUBLISHED = published.ROWS
METRICS = {"error": "min", "tasks_above_5": "min"}
MONITORS = {"val_accuracy": "max", "accuracy": "max"}
# The runs of one model per task make one row.
PART = "task"
combine = metrics.combine


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of stories with questions as word ids, and the answers."""
    raw = RawSplits(config, "stories")
    if assets is None:
        known = _of_task(config, raw, "train")
        tasks = stories.task_names(known)
        if not tasks:
            all_tasks = ", ".join(stories.task_names(raw["train"]))
            raise UsageError(f"--task={config.task}: {config.data} has {all_tasks}.")
        assets = {
            "vocabulary": stories.build_vocabulary(known),
            "tasks": tasks,
            "memory": {"size": _memory_size(config, known)},
        }
    vocabulary = Vocabulary(assets["vocabulary"])

    def batches(split: str) -> tf.data.Dataset:
        dataset = _of_task(config, raw, split)
        if unseen := set(stories.task_names(dataset)) - set(assets["tasks"]):
            task = min(unseen)
            raise UsageError(f"{config.data}: the {split} split has task {task}, train has not.")
        return stories.question_batches(
            dataset,
            vocabulary,
            assets["tasks"],
            config.batch_size,
            assets["memory"]["size"],
            shuffle=config.seed if training and split == "train" else None,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "facts", "question")
    return data


def _memory_size(config: Config, training: tf.data.Dataset) -> int:
    """The positions of the memory. Reports how many questions have more facts."""
    counts = stories.fact_counts(training)
    size = config.memory_size or min(max(1, int(counts.max())), Config.memory_size)
    if longer := int(np.sum(counts > size)):
        report_once(
            f"{config.data}: {longer:,} of {len(counts):,} training questions have more than "
            f"{size} facts before them; the last {size} are used (--memory-size)."
        )
    return size


def _of_task(config: Config, raw: RawSplits, split: str) -> tf.data.Dataset:
    return stories.filter_task(raw[split], config.task) if config.task else raw[split]


def axes(config: Config) -> Axes:
    """The weights of words."""
    found = {
        "embedding/embeddings": ("vocabulary", None),
        "answer/kernel": (None, "vocabulary"),
        "answer/bias": ("vocabulary",),
    }
    if config.facts == "bag":
        found[r"hops(#\d+)?/(kernel_\d+|question_kernel)"] = ("vocabulary", None)
        found[r"hops(#\d+)?/output_kernel"] = (None, "vocabulary")
    return found


def build(config: Config, assets: Assets) -> keras.Model:
    """Facts `[B, S, J]` and a question `[B, J']` to the logits of all words, `[B, R, V]`."""
    inputs = {
        "facts": keras.Input((None, None), dtype="int32", name="facts"),
        "question": keras.Input((None,), dtype="int32", name="question"),
    }
    make = build_recurrent if config.model == "recurrent" else build_memory
    config = replace(config, memory_size=assets["memory"]["size"])
    copies = [make(config, len(assets["vocabulary"])) for _ in range(config.restarts)]
    restarts = network.Restarts(copies, name="restarts")
    logits, _ = restarts(inputs["facts"], inputs["question"])
    model = network.Reader(inputs, logits)
    if config.model == "memory":
        rule = network.ParallelSGD(
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
    mask = ops.any(ops.not_equal(facts, PADDING), axis=-1)  # [B, S]
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
        logits, attention = hops(facts, question, facts_mask=mask)
    else:
        [encode] = recurrent_layers(config.cell, config.units, 1)
        embedding = keras.layers.Embedding(size, config.units)
        flat = groups.Merge()(facts)  # [BS, J]
        encoded = encode(embedding(flat), mask=ops.not_equal(flat, PADDING))
        query_vector = encode(embedding(question), mask=ops.not_equal(question, PADDING))
        answer, attention = hops(groups.Split()(encoded, facts), query_vector, facts_mask=mask)
        logits = keras.layers.Dense(size, name="answer")(answer)
    return keras.Model([facts, question], [logits, attention])


def build_recurrent(config: Config, size: int) -> keras.Model:
    """Like `build_memory`: one recurrent layer over all tokens, and zero weights."""
    facts = keras.Input((None, None), dtype="int32", name="facts")
    question = keras.Input((None,), dtype="int32", name="question")
    tokens = network.ConcatenateTokens()(facts, question)  # [B, S * J + J']
    x = keras.layers.Embedding(size, config.units)(tokens)
    [encode] = recurrent_layers(config.cell, config.units, 1)
    state = encode(x, mask=ops.not_equal(tokens, PADDING))
    no_weights = ops.cast(ops.zeros_like(ops.expand_dims(facts[:, :, 0], 1)), state.dtype)
    logits = keras.layers.Dense(size, name="answer")(state)
    return keras.Model([facts, question], [logits, no_weights])


def callbacks(config: Config, history: list[dict]) -> list[keras.callbacks.Callback]:
    """The linear start."""
    start = network.LinearStart(lambda: config.preparing_epochs(history))
    return [start] if config.preparing_epochs([]) else []


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """The mean error over the tasks, the number of tasks above 5 %, and the error of each task."""
    return metrics.figures(metrics.predictions(trained, dataset), trained.assets["tasks"])


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent answer of each task."""
    return metrics.baseline(data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: stories and questions to answers; `ids`: for LiteRT."""
    return serving.service(trained)


request = serving.request


parse_inputs = parsing.parse_inputs


def predict(trained: Trained, inputs: list[tuple[str, str]]) -> list[dict]:
    """The answer to each question, and the weight of each fact in each hop.

    Args:
        trained: a trained model.
        inputs: pairs of a story and a question.
    """
    results = []
    for (_, question), outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        facts = [fact for fact in outputs["facts"] if fact]
        results.append(
            {
                "question": question,
                "answer": outputs["answer"],
                "score": max(outputs["scores"][serving.FIRST_ANSWER :]),
                "facts": facts,
                "attention": [weights[: len(facts)] for weights in outputs["attention"]],
            }
        )
    return results


show = reports.show
plot = reports.plot


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The error by task, wrong answers with their facts, and answers that are confused."""
    return reports.report(trained, dataset)


def page(trained: Trained) -> Page:
    """A story and a question; the answer, and the facts by their weights in each hop."""

    def facts(hop: int, result: dict) -> list[tuple[str, float]]:
        return weights_of(result["facts"], result["attention"][hop])

    hops = trained.config.hops if trained.config.model == "memory" else 0
    outputs = {
        "answer": ("scores", lambda result: {result["answer"]: result["score"]}),
        **{f"hop {k + 1}": ("weights", functools.partial(facts, k)) for k in range(hops)},
    }
    return Page({"story": "text", "question": "line"}, outputs)


def examples() -> list[tuple[str, str]]:
    """Pairs of a story and a question."""
    return [
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
