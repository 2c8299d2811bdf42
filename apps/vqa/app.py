"""Visual question answering: attention over a question and an image, in dialogs too."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll.apps.core.config import optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.shared import images, questions
from unroll.apps.shared.display import weighted_tokens, weights_of
from unroll.apps.shared.recurrent import require_cell
from unroll.apps.shared.residual import residual_encoder
from unroll.apps.shared.unknown_words import report_unknown
from unroll.apps.vqa import metrics, network, serving
from unroll.apps.vqa import report as reports
from unroll.pipelines import text as texts
from unroll.pipelines import visual_questions as vq
from unroll.pipelines.datasets.vision import scenes
from unroll.pipelines.vision import Augmentation


@dataclass(frozen=True)
class Config(images.ImageConfig):
    # name of a dataset, or a folder of images and questions
    data: str = "scenes_qa"
    # images per batch, each with all its questions
    batch_size: int = 16
    # maximum number of words in the vocabulary of questions
    vocabulary_size: int = 10_000
    # maximum number of answers to choose from
    num_answers: int = 3000
    # minimum count of a word in the training questions to be in the vocabulary
    min_count: int = 1
    # pooling of the image regions: attention guided by the question, or their mean; or no image
    image: Literal["attention", "mean", "none"] = "attention"
    # number of successive attentions to the image, each of which depends on the previous ones
    glimpses: int = 2
    # size of the space in which question and regions are compared
    attention_units: int = 64
    # add to each glimpse a gated sum of the regions, which can count
    count_features: bool = True
    # add the mean of all regions to the glimpses
    global_average: bool = True
    # pooling of the question over time: attention, or the maximum; or no question
    question: Literal["attention", "max", "none"] = "attention"
    # attend to the previous rounds of a dialog
    history: bool = False
    # number of hops of the memory network over the previous rounds
    hops: int = 2
    # use word vectors beside the recurrent states in attention and fusion
    word_vectors: bool = True
    # size of the word vectors
    embedding_dim: int = 64
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of the recurrent state in each direction
    units: int = 64
    # number of recurrent layers
    depth: int = 1
    # size of the product of question and image
    fusion_units: int = 256
    # add a dense layer between the product and the answers
    hidden_layer: bool = False
    # dropout rate of word vectors, between layers, and before the dense layers
    dropout: float = 0.2
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        if self.image == "none" and self.question == "none":
            raise ValueError("image=none and question=none cannot be combined.")
        if self.history and self.question == "none":
            raise ValueError("history=True needs question=attention or max.")


_SCENES = Config(
    epochs=7, patience=9, schedule="cosine", learning_rate=3e-3, translate=3, color_jitter=0.1,
    random_colors=True,
)  # fmt: skip
PRESETS = {
    "scenes_qa": _SCENES,
    "scenes_dialog": replace(_SCENES, data="scenes_dialog", epochs=12, patience=12, history=True),
    "easy_vqa": replace(
        _SCENES, data="easy_vqa", epochs=8, dropout=0.0, translate=0, color_jitter=0.0,
        random_colors=False, hidden_layer=True,
    ),
    "daquar": replace(
        _SCENES, data="daquar", epochs=25, patience=25, batch_size=8, filters=8, dropout=0.3,
        image_dropout=0.5, random_colors=False,
    ),
}  # fmt: skip

TASK = "visual-question-answering"
PUBLISHED = {
    "easy_vqa": {"accuracy": 0.938, "source": "CNN and bag of words, Zhou 2019"},
    "daquar": {"accuracy": 0.194, "source": "Neural-Image-QA, Malinowski et al. 2015"},
}

METRICS = {
    "accuracy": "max",
    "accuracy_what_color": "max",
    "accuracy_how_many": "max",
    "vqa_accuracy": "max",
}
MONITORS = {"val_accuracy": "max"}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Batches of images with the token ids of their questions, and the labels of the answers."""
    raw = RawSplits(config, "visual_questions")
    rows = {split: vq.read(raw[split]) for split in splits}
    pixels, spec = dict.fromkeys(splits), images.NO_IMAGES
    if config.image != "none":
        image_ids = {split: [row.image_id for row in rows[split]] for split in splits}
        pixels, spec = images.arrays(config, raw, image_ids)
    if assets is None:
        known = rows["train"] if "train" in rows else vq.read(raw["train"])
        sentences = [question for row in known for question in row.questions]
        if config.history:
            sentences += [each for row in known for each in row.rounds()]
        strings = tf.data.Dataset.from_tensor_slices(sentences)
        assets = {
            "vocabulary": texts.build_vocabulary(strings, config.vocabulary_size, config.min_count),
            "answers": vq.answer_vocabulary(known, config.num_answers),
            "question_types": vq.question_types(known, metrics.NUM_QUESTION_TYPES),
            "images": spec,
        }
    encoder = texts.Encoder(assets["vocabulary"])

    def batches(split: str) -> tf.data.Dataset:
        train = training and split == "train"
        effect = "are not trained on" if train else "always count as errors"
        _warn_of_unknown_answers(split, rows[split], assets["answers"], effect)
        augmentation = Augmentation(config.translate, color_jitter=config.color_jitter)
        return vq.question_batches(
            rows[split],
            pixels[split],
            encoder,
            assets["answers"],
            config.batch_size,
            rounds=config.history,
            augmentation=augmentation if train else None,
            shuffle=config.seed if train else None,
            static=train and config.jit,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "tokens", *(["rounds"] if config.history else []))
    return data


def _warn_of_unknown_answers(
    split: str, rows: list[vq.ImageQuestions], known: list[str], effect: str
) -> None:
    vocabulary = set(known)
    answers = [own[0] for row in rows for own in row.answers]
    unknown = [answer for answer in answers if answer not in vocabulary]
    if unknown:
        names = "; ".join(map(repr, unknown[:3])) + ("; ..." if len(unknown) > 3 else "")
        print(
            f"unroll: {len(unknown)} of {len(answers)} questions of {split} have an answer that is "
            f"not in the vocabulary, and {effect}: {names}",
            file=sys.stderr,
        )


def axes(config: Config) -> Axes:
    """The weights of words and answers."""
    return {
        "embedding/embeddings": ("vocabulary", None),
        "answer/kernel": (None, "answers"),
        "answer/bias": ("answers",),
    }


def build(config: Config, assets: Assets) -> keras.Model:
    """P images with Q questions each, `[P, Q, T]`, to the logits of the answers, `[P, Q, A]`."""
    kind, shape = assets["images"]["kind"], assets["images"]["shape"]
    inputs = {"tokens": keras.Input((None, None), dtype="int32", name="tokens")}  # [P, Q, T]
    features = dict(inputs)
    if kind == "image":
        inputs["image"] = keras.Input(shape, name="image")
        features["regions"] = residual_encoder(config)(inputs["image"])  # [P, H, W, D]
    elif kind == "regions":
        features["regions"] = inputs["regions"] = keras.Input(shape, name="regions")
    if config.history:
        rounds = keras.Input((None, None), dtype="int32", name="rounds")  # [P, R, T']
        features["rounds"] = inputs["rounds"] = rounds
    shapes = {name: x.shape[1:] for name, x in features.items()}
    answerer = network.build_answerer(config, assets, shapes)
    model = keras.Model(inputs, answerer(features)["logits"])
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        network.AnswerLoss(),
        metrics=[network.AnswerAccuracy()],
        jit_compile=config.jit,
    )
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """Accuracy, over all questions and by their first two words; VQA's accuracy."""
    return metrics.figures(metrics.predictions(trained, dataset), trained.assets)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent answer to questions with the same first two words."""
    return metrics.baseline(data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: image files and questions to answers; `ids`: pixels and ids."""
    return serving.service(trained)


request = serving.request


def parse_inputs(arguments: list[str]) -> list[tuple[str, str]]:
    """Paths of images, each followed by questions, to pairs."""
    return questions.pairs(arguments, images.is_image_path, "image")


def predict(trained: Trained, inputs: list[tuple[str | bytes, str]]) -> list[dict]:
    """The most probable answers to each question, and the weights of the attentions.

    Args:
        trained: the model.
        inputs: pairs of an image (a path, or the contents of a file) and a question. With
            `history`, the questions about one image are the rounds of a dialog, whose answers are
            the model's own.
    """
    if answer := converse(trained):
        return list(map(answer, inputs))
    return _results(inputs, query(serve(trained), inputs))


def converse(trained: Trained) -> Callable[[tuple[str | bytes, str]], dict] | None:
    """A function of an image and a question, given the rounds about the image so far.

    `None` for a model without `history`.
    """
    if not trained.config.history:
        return None
    dialogs: dict[str | bytes, list[str]] = {}

    def answer(raw: tuple[str | bytes, str]) -> dict:
        source, question = raw
        rounds = dialogs.setdefault(source, [])
        [result] = _results([raw], query(serve(trained), [(*raw, tuple(rounds))]))
        result["history"] = list(rounds)
        rounds.append(f"{question} {result['answers'][0]}")
        return result

    return answer


def _results(inputs: list[tuple[str | bytes, str]], answers: list[dict]) -> list[dict]:
    """The results of `predict` from the outputs of the exported function."""
    results = []
    for (source, question), answer in zip(inputs, answers, strict=True):
        answer.pop("error", None)  # files that cannot be decoded are errors before
        tokens = [token for token in answer["tokens"] if token]
        result = {} if isinstance(source, bytes) else {"image": str(source)}
        result |= {"question": question, **answer, "tokens": tokens}
        if "question_attention" in answer:
            result["question_attention"] = answer["question_attention"][: len(tokens)]
        results.append(result)
    return results


def show(result: dict) -> Text:
    """The answers with their probabilities, and the tokens with their weights."""
    best, *others = zip(result["answers"], result["scores"], strict=True)
    line = Text(f"{best[0]} {best[1]:.1%}", style="bold")
    line += Text("".join(f"  {answer} {score:.1%}" for answer, score in others), style="dim")
    tokens = weighted_tokens(result["tokens"], result.get("question_attention"))
    return line + Text("\n       ") + tokens


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """Accuracy by type of question, confusion of answers, the worst errors with their images."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """A picture and a question; the answers, and the attention over both. Or a dialog of them."""

    def question(result: dict) -> list[tuple[str, float]]:
        return weights_of(result["tokens"], result["question_attention"])

    outputs = {"answers": ("scores", lambda r: dict(zip(r["answers"], r["scores"], strict=True)))}
    if trained.config.history:
        outputs = {"reply": ("text", lambda result: result["answers"][0])} | outputs
    if trained.config.question == "attention":
        outputs["attention"] = ("weights", question)
    if trained.config.history:

        def history(result: dict) -> list[tuple[str, float]]:
            rounds = result["history"]
            return weights_of(rounds, result["history_attention"][-1][: len(rounds)])

        outputs["attention to previous rounds"] = ("weights", history)
    return Page({"image": "image", "question": "line"}, outputs)


def examples() -> list[tuple[bytes, str]]:
    """Generated scenes with questions."""
    files = scenes.examples()
    return [
        (files[0], "What color is the ring?"),
        (files[0], "is the red circle left of the blue ring ?"),
        (files[1], "how many circles are there?"),
        (files[1], "Is it there?"),
    ]
