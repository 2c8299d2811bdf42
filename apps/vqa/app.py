"""Questions about pictures: attention over the words, then over the image, then an answer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf
from keras import ops
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import optimizer
from unroll.apps.core.protocol import Assets, Data, Service, ask, settings_asset, settings_of
from unroll.apps.shared import groups, images, questions
from unroll.apps.shared.display import weighted_words
from unroll.apps.shared.residual import residual_encoder
from unroll.apps.vqa import metrics, network, report, serving
from unroll.layers.recurrent import RECURRENT_LAYERS, max_over_time
from unroll.pipelines import datasets, text, visual


@dataclass(frozen=True)
class Config(images.PictureConfig):
    # a generated or published dataset, or a folder of pictures and questions
    data: str = "scenes_qa"
    # pictures a batch, each with all its questions
    batch_size: int = 16
    # the most words in the vocabulary of questions
    vocabulary: int = 10_000
    # the most answers to choose from
    answers: int = 3000
    # how often a word must occur in the questions to enter the vocabulary
    min_count: int = 1
    # how the regions become one vector: attention by the question, or their mean; or no image
    image: Literal["attention", "mean", "none"] = "attention"
    # how many attentions over the image follow each other, each knowing what those before it saw
    glimpses: int = 2
    # the size of what question and region are compared in
    attention_units: int = 64
    # whether each glimpse also tallies the regions it looks at, to count them
    count_features: bool = True
    # whether the mean of all regions stands beside the glimpses
    whole: bool = True
    # how the words become one vector: attention over them, or the greatest of each feature; or no
    # question
    question: Literal["attention", "max", "none"] = "attention"
    # whether a question also attends to the rounds of the dialog before it
    history: bool = False
    # how many times it does
    hops: int = 2
    # whether the words' own vectors look at the image, and are fused with it beside the states
    words: bool = True
    # the size of a word's vector
    features: int = 64
    # the recurrent layer, by its name in `layers`
    cell: str = "LSTM"
    # the size of the recurrent state, for each direction
    units: int = 64
    # how many recurrent layers
    depth: int = 1
    # the size of what question and image are fused to
    fusion: int = 256
    # whether a dense layer stands between what is fused and the answers
    hidden: bool = False
    # the share of features dropped, from the words and before the answers
    dropout: float = 0.2
    # in training: by at most so many pixels pictures are moved
    shift: int = 0
    # in training: brightness, contrast and saturation change by at most this share
    light: float = 0.0
    # the decay of the weights in AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.cell not in RECURRENT_LAYERS:
            known = ", ".join(RECURRENT_LAYERS)
            raise ValueError(f"cell must be one of {known}, got {self.cell!r}.")
        if self.image == "none" and self.question == "none":
            raise ValueError("image=none and question=none leave nothing to answer from.")
        if self.history and self.question == "none":
            raise ValueError("history needs a question.")


_SCENES = Config(
    epochs=7, patience=9, schedule="cosine", learning_rate=3e-3, shift=3, light=0.1,
    random_colours=True,
)  # fmt: skip
PRESETS = {
    "scenes_qa": _SCENES,
    "scenes_dialog": replace(_SCENES, data="scenes_dialog", epochs=12, patience=12, history=True),
    "easy_vqa": replace(
        _SCENES, data="easy_vqa", epochs=8, dropout=0.0, shift=0, light=0.0, random_colours=False,
        hidden=True,
    ),
    "daquar": replace(
        _SCENES, data="daquar", epochs=25, patience=25, batch_size=8, filters=8, dropout=0.3,
        image_dropout=0.5, random_colours=False,
    ),
}  # fmt: skip
PUBLISHED = {
    "easy_vqa": {"accuracy": 0.938, "source": "CNN and bag of words, Zhou 2019"},
    "daquar": {"accuracy": 0.194, "source": "Neural-Image-QA, Malinowski et al. 2015"},
}
EXAMPLES = report.examples()


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's pictures, each with ids of the words of its questions, and the answers."""
    builder = datasets.builder(config.data, folder="visual")
    raw = datasets.splits(builder)
    asked = {split: visual.read(rows) for split, rows in raw.items()}
    arrays, settings = dict.fromkeys(raw), images.NO_PICTURES
    if config.image != "none":
        arrays, settings = images.arrays(config, raw, asked, Path(builder.data_dir))
    if assets is None:
        texts = [q for each in asked["train"] for q in each.questions]
        if config.history:
            texts += [words for each in asked["train"] for words in each.rounds()]
        words = tf.data.Dataset.from_tensor_slices(texts)
        assets = {
            "vocabulary": text.build_vocabulary(words, config.vocabulary, config.min_count),
            "answers": visual.answer_vocabulary(asked["train"], config.answers),
            "openings": visual.openings(asked["train"], metrics.OPENINGS),
            "settings": settings_asset(settings),
        }
    report.report_unknown(asked, assets["answers"])
    encoder = text.Encoder(assets["vocabulary"])

    def batches(split: str):
        if split not in raw:
            return None
        training = split == "train"
        return visual.question_batches(
            asked[split],
            arrays[split],
            encoder,
            assets["answers"],
            config.batch_size,
            rounds=config.history,
            augmentation=visual.Augmentation(config.shift, light=config.light)
            if training
            else None,
            shuffle=config.seed if training else None,
            static=config.jit and training,
        )

    return Data(batches("train"), batches("valid"), batches("test"), assets)


def build(config: Config, assets: Assets) -> keras.Model:
    """P pictures and Q questions about each to the logits of the answers, `[P, Q, A]`."""
    settings = settings_of(assets)
    inputs = {"tokens": keras.Input((None, None), dtype="int32", name="tokens")}  # [P, Q, T]
    given = dict(inputs)
    if settings["kind"] == "image":
        inputs["image"] = keras.Input(settings["shape"], name="image")
        given["regions"] = residual_encoder(config)(inputs["image"])
    elif settings["kind"] == "regions":
        given["regions"] = inputs["regions"] = keras.Input(settings["shape"], name="regions")
    if config.history:
        given["rounds"] = inputs["rounds"] = keras.Input((None, None), dtype="int32", name="rounds")
    answerer = build_answerer(config, assets, {name: x.shape[1:] for name, x in given.items()})
    model = keras.Model(inputs, answerer(given)["logits"])
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        network.AnswerLoss(),
        metrics=[network.AnswerAccuracy()],
        jit_compile=config.jit,
    )
    return model


def build_answerer(config: Config, assets: Assets, shapes: dict[str, tuple]) -> keras.Model:
    """Questions `[P, Q, T]`, regions `[P, ..., D]`, rounds `[P, R, T']` to logits and weights."""
    given = {
        name: keras.Input(shape, dtype="float32" if name == "regions" else "int32", name=name)
        for name, shape in shapes.items()
    }
    embedding = network.word_embedding(len(assets["vocabulary"]), config.features)
    drop = keras.layers.Dropout(config.dropout)
    outputs, asked, seen = {}, [None], None

    if config.question != "none":
        tokens = groups.Merge()(given["tokens"])
        mask = ops.not_equal(tokens, text.PADDING)  # [PQ, T]
        words = drop(embedding(tokens))
        states = layers.Stack(
            [getattr(layers, config.cell)(config.units) for _ in range(config.depth)],
            bidirectional=True,
            dropout=config.dropout,
        )(words, mask=mask)
        if config.words:
            states = ops.concatenate([states, words], axis=-1)  # [PQ, T, U]
        if config.question == "attention":
            pool = layers.AttentionPool(config.units, name="question_attention")
            question, outputs["question_attention"] = pool(states, mask=mask)
        else:
            question = max_over_time(states, mask)  # [PQ, U]
        if config.history:
            recalled = network.recall(question, given, embedding, config.hops)
            question, outputs["history_attention"] = recalled
        question = groups.Split()(question, given["tokens"])  # [P, Q, U]
        asked = [question]
        if config.words:
            states, words = question[..., : -config.features], question[..., -config.features :]
            asked = [states, keras.layers.Rescaling(1 / network.SPREAD)(words)]

    if config.image != "none":
        regions = given["regions"]
        # Where there is no region there are zeros.
        there = None if len(regions.shape) == 4 else ops.any(ops.not_equal(regions, 0), axis=-1)
        if config.image == "attention" and config.question != "none":
            seen, weights = [], []
            for _ in range(config.glimpses):  # each knows what those before it saw
                known = ops.concatenate([asked[-1], *seen], axis=-1)
                look = network.glimpse(config.attention_units, config.count_features)
                attended, where = look(known, regions, mask=there)
                seen.append(attended)
                weights.append(where)
            outputs["image_attention"] = ops.concatenate(weights, axis=2)
            if config.whole:
                mean = ops.expand_dims(network.mean_over_regions(regions, there), 1)
                seen.append(mean + 0 * seen[0][..., :1])
            seen = ops.concatenate(seen, axis=-1)  # [P, Q, D']
        else:
            seen = ops.expand_dims(network.mean_over_regions(regions, there), 1)  # [P, 1, D]

    fused = ops.concatenate(
        [network.fuse(part, seen, config.fusion, config.dropout) for part in asked], axis=-1
    )
    if config.hidden:
        fused = keras.layers.Dense(config.fusion, "relu")(fused)
    name_answer = keras.layers.Dense(len(assets["answers"]), dtype="float32", name="answer")
    # Without a question all have the same answer.
    fused = fused + ops.zeros_like(ops.cast(given["tokens"][:, :, :1], fused.dtype))
    outputs["logits"] = name_answer(drop(fused))
    return keras.Model(given, outputs, name="answerer")


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """The share of right answers, over all questions and by the words with which they begin."""
    return metrics.figures(metrics.answers(model, dataset), assets)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent answer to each opening of a question."""
    accuracy = metrics.figures(metrics.by_opening(data, split), data.assets)["accuracy"]
    return {"what": "most frequent answer to questions that begin alike", "accuracy": accuracy}


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: picture files and questions to answers; `ids`: for LiteRT."""
    return serving.service(model, assets)


def predict(model: keras.Model, assets: Assets, inputs: list) -> list[dict]:
    """The likeliest answers to each question about a picture, and where the model looked.

    Args:
        model, assets: of a run.
        inputs: pairs of a picture (a path or the bytes of a file) and a question; or, as on the
            command line, paths, each followed by the questions about it. For these a picture of
            the attention is written into the working folder.
    """
    asked = questions.pairs(inputs, report.is_picture, "picture")
    return report.results(ask, serve(model, assets), assets, asked)


def show(result: dict) -> Text:
    """The answers with their scores, the words by their weight, and where the picture lies."""
    best, *others = zip(result["answers"], result["scores"], strict=True)
    line = Text(f"{best[0]} {best[1]:.1%}", style="bold")
    line += Text("".join(f"  {answer} {share:.1%}" for answer, share in others), style="dim")
    line += Text("\n       ") + weighted_words(result["tokens"], result.get("question_attention"))
    return line + Text(f"\n       {result['picture']}" if "picture" in result else "", style="dim")
