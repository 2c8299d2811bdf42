"""The figures of exported functions on a whole split, for `formats.py`.

`unroll APP evaluate` needs more than a LiteRT or ONNX file has, such as a beam search. Here, the
function of the file alone answers, and the figure is computed by the app's own metrics. Where a
figure of `evaluate` has the same name, the two are of the same search.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from unroll.apps.core.protocol import Trained

# A function of an export, of named arrays.
Function = Callable[..., dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """What is measured of an app.

    Attributes:
        function: the name of the function in the LiteRT file.
        name: of the figure.
        of: the figures of a function, a trained model and the batches of a split, with the number
            of `examples`.
        saved_model: the name of the same function in the SavedModel, if it differs.
    """

    function: str
    name: str
    of: Callable[[Function, Trained, tf.data.Dataset], dict]
    saved_model: str = ""


class Standin:
    """A model whose predictions are those of an exported function.

    Args:
        model: the model in its place, for everything else.
        predict: batches of features, as arrays, to what the model predicts for them.
    """

    def __init__(self, model, predict: Callable[[dict], np.ndarray | dict]):
        self._model = model
        self._predict = predict

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def predict_on_batch(self, features: dict):
        """The answers of the function, in the form of the model's predictions."""
        return self._predict({name: x.numpy() for name, x in features.items()})


def _app(name: str, part: str = "app"):
    return importlib.import_module(f"unroll.apps.{name}.{part}")


def _score(name: str, trained: Trained, dataset, predict: Callable) -> dict:
    """The figures of the app for the predictions of a function."""
    standin = Standin(trained.model, predict)
    return _app(name).score(dataclasses.replace(trained, model=standin), dataset)


def sentiment(run: Function, trained: Trained, dataset) -> dict:
    """Of the probabilities."""

    def predict(features: dict) -> np.ndarray:
        return run(**features)["probabilities"]

    return _score("sentiment", trained, dataset, predict)


def slot_filling(run: Function, trained: Trained, dataset) -> dict:
    """Of the tags."""

    def predict(features: dict) -> dict:
        found = run(**features)
        found["tags"] = found["tags"][:, : features["tokens"].shape[1]]
        if "intent" in found:  # as probabilities
            found["intent"] = np.eye(len(trained.assets["intents"]))[found["intent"]]
        return found

    return _score("slot_filling", trained, dataset, predict)


def key_terms(run: Function, trained: Trained, dataset) -> dict:
    """Of the tags. A ranking of terms would need the candidates, which the function lacks."""
    metrics, names = _app("key_terms", "metrics"), trained.assets["tags"]
    rows = [row for features, _ in dataset for row in run(**_arrays(features))["tags"]]
    documents = [
        metrics.Document(words, tags, [names[tag] for tag in row[: len(words)]], [], [])
        for (words, tags), row in zip(metrics.read(dataset, names), rows, strict=True)
    ]
    return metrics.figures(documents)


def reading_comprehension(run: Function, trained: Trained, dataset) -> dict:
    """Of the scores, in the place of each of the models that were trained in parallel."""
    copies = trained.config.restarts

    def predict(features: dict) -> np.ndarray:
        return np.stack([run(**features)["scores"]] * copies, axis=1)

    return _score("reading_comprehension", trained, dataset, predict)


def vqa(run: Function, trained: Trained, dataset) -> dict:
    """Of the scores of each question, with its picture."""

    def predict(features: dict) -> np.ndarray:  # [P, Q, A]
        tokens = features.pop("tokens")
        return np.stack(
            [
                run(tokens=own, **{n: x[[k] * len(own)] for n, x in features.items()})["scores"]
                for k, own in enumerate(tokens)
            ]
        )

    return _score("vqa", trained, dataset, predict)


def image_captioning(run: Function, trained: Trained, dataset) -> dict:
    """Of the greedy search, with ids in the place of words."""
    metrics, captions, references = _app("image_captioning", "metrics"), [], []
    for features, labels in dataset:
        kind = trained.assets["images"]["kind"]
        found = run(**{kind: features[kind].numpy()})
        for row, length in zip(found["ids"], found["lengths"], strict=True):
            captions.append(tuple(map(str, row[:length])))
        ids = labels["captions"] if isinstance(labels, dict) else labels
        for own in metrics.references_of(ids.numpy()):
            references.append([tuple(map(str, each)) for each in own])
    return {"examples": len(captions), "bleu_4_beam_1": metrics.bleu(captions, references)[3]}


def translation(run: Function, trained: Trained, dataset) -> dict:
    """Of the greedy search."""
    metrics = _app("translation", "metrics")
    translator = _app("translation", "decoding").Translator(trained)
    outputs = []
    for features, _ in dataset:
        found = run(source=features["source"].numpy())
        pieces = tf.gather(translator.target.names, found["ids"])
        texts = translator.target.join(tf.RaggedTensor.from_tensor(pieces, found["lengths"]))
        outputs += [text.decode() for text in texts.numpy()]
    bleu = metrics.bleu(metrics.texts_of(dataset), outputs)
    return {"examples": len(outputs), "bleu_greedy": bleu}


def speech_ctc(run: Function, trained: Trained, dataset) -> dict:
    """Of the greedy labels."""
    from unroll.pipelines import speech

    unit, names = trained.config.unit, np.array([*trained.assets["labels"], "\ufffd"])
    correct, found = [], []
    for features, labels in dataset:
        for rows, texts in ((run(**_arrays(features))["labels"], found), (labels.numpy(), correct)):
            least = 0 if texts is found else 1  # what is below it is padding
            texts += [speech.join_units(names[row[row >= least]].tolist(), unit) for row in rows]
    rates = _app("speech_ctc", "metrics").error_rates(correct, found, unit)
    return {"examples": len(correct), **rates}


def forecasting(run: Function, trained: Trained, dataset) -> dict:
    """Of the means, of a model without samples and vectors of series."""
    uses = _app("forecasting", "network").feature_names(trained.config, trained.assets)
    length = trained.config.context

    def forecasts() -> Iterator[tuple]:
        for features, labels in dataset:
            arrays = _arrays(features)
            inputs = {"history": arrays["history"]}
            for name in {"times", "known"} & set(uses):
                inputs[name] = arrays[name][:, :length]
                inputs[f"future_{name}"] = arrays[name][:, length:]
            yield {"mean": run(**inputs)["mean"]}, features, labels

    return _app("forecasting", "metrics").scores(forecasts(), trained.assets)


def language_model(run: Function, trained: Trained, dataset) -> dict:
    """Of one token after another, with the states of `evaluate`."""

    def losses() -> Iterator[tuple]:
        states: dict[str, np.ndarray] = {}
        for features, labels in dataset:
            tokens, correct = features["tokens"].numpy(), labels.numpy()
            nats = np.zeros(correct.shape, "float32")
            for t in range(tokens.shape[1]):
                found = run(token=tokens[:, t], **(states or _zeros(trained, len(tokens))))
                states = {name: x for name, x in found.items() if name != "logits"}
                logits, own = found["logits"], correct[:, t]
                chosen = np.take_along_axis(logits, np.maximum(own, 0)[:, None], axis=1)[:, 0]
                nats[:, t] = np.logaddexp.reduce(logits, axis=1) - chosen
            yield tokens, correct, np.where(correct >= 0, nats, 0)

    return _app("language_model", "metrics").score(trained, losses())


def _zeros(trained: Trained, batch: int) -> dict[str, np.ndarray]:
    """The first states."""
    specs = _app("language_model").serve(trained).functions["step"].input_signature
    return {
        spec.name: np.zeros([batch, spec.shape[1]], "float32")
        for spec in specs
        if spec.name != "token"
    }


def word_vectors(run: Function, trained: Trained, dataset) -> dict:
    """Of the vectors of all words."""
    ids = np.arange(len(trained.assets["vocabulary"]), dtype="int32")
    matrix = run(tokens=ids[:, None])["vectors"][:, 0]
    sections = _app("word_vectors").sections(trained.config, "test")
    return _app("word_vectors", "metrics").all_figures(matrix, sections, dataset)


def _arrays(features: dict) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in features.items()}


FIGURES = {
    "forecasting": Figure("forecast", "mse", forecasting, saved_model="serving_default"),
    "image_captioning": Figure("ids", "bleu_4_beam_1", image_captioning),
    "key_terms": Figure("ids", "span_f1", key_terms),
    "language_model": Figure("step", "perplexity", language_model),
    "reading_comprehension": Figure("ids", "error", reading_comprehension),
    "sentiment": Figure("ids", "accuracy", sentiment),
    "slot_filling": Figure("ids", "slot_f1", slot_filling),
    "speech_ctc": Figure("frames", "label_error_rate", speech_ctc),
    "translation": Figure("ids", "bleu_greedy", translation),
    "vqa": Figure("ids", "accuracy", vqa),
    "word_vectors": Figure("vectors", "analogies", word_vectors),
}
