"""What trivial methods score: copies, frequent and similar examples, n-grams."""

from collections import Counter
from itertools import chain

import numpy as np
import tensorflow as tf
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from unroll.apps.core.protocol import Data
from unroll.apps.translation import metrics
from unroll.apps.translation.metrics import Scorer, Texts
from unroll.layers import NGramLanguageModel
from unroll.pipelines.translation import END, PAD

_ORDER = 5  # of the n-grams
_CHUNK = 64  # texts that are compared with all others at once


def baseline(data: Data, split: str, chat: bool) -> dict:
    """The figures of trivial methods on a split.

    Args:
        data: "train" and the split, as `evaluate` loads them.
        split: its name.
        chat: whether the targets are replies.
    """
    train, texts = metrics.texts_of(data["train"]), metrics.texts_of(data[split])
    similar = similar_targets(train, texts)
    frequent = [Counter(train.targets).most_common(1)[0][0]] * len(texts.targets)
    if not chat:
        found = {"what": "target of the most similar source; copy: the source; constant: a target"}
        found |= metrics.translation_figures(texts, similar)
        for name, outputs in (("copy", texts.sources), ("constant", frequent)):
            figures = metrics.translation_figures(texts, outputs)
            found |= {f"{name}_{key}": figures[key] for key in ("bleu", "chrf")}
    else:
        found = {"what": f"{_ORDER}-gram; reply to the most similar turns; selection by TF-IDF"}
        found |= metrics.reply_figures(texts, similar)
        found |= ngram_perplexities(data["train"], data[split], texts.targets)
        found |= metrics.selection(texts, tfidf_scorer(train))
        found["constant_bleu"] = metrics.bleu(texts, frequent)
    del found["examples"]
    return found


def _vectorizer() -> TfidfVectorizer:
    """Vectors of length one of the words of a text, in lower case."""
    return TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True, dtype=np.float32)


def _words(texts: list[str]) -> list[list[str]]:
    return list(metrics.words_of([text.lower() for text in texts]))


def _contexts(texts: Texts) -> list[list[str]]:
    return _words([" ".join(turns) for turns in texts.contexts()])


def similar_targets(train: Texts, texts: Texts) -> list[str]:
    """The target of the training example whose source, with its history, is the most similar.

    The similarity is the cosine of TF-IDF vectors of the words.
    """
    vectorizer = _vectorizer()
    known = vectorizer.fit_transform(_contexts(train)).T.tocsr()
    queries = vectorizer.transform(_contexts(texts))
    found = []
    for k in range(0, queries.shape[0], _CHUNK):
        similarity = (queries[k : k + _CHUNK] @ known).toarray()
        found += [train.targets[row] for row in similarity.argmax(axis=1)]
    return found


def tfidf_scorer(train: Texts) -> Scorer:
    """Scores replies by the cosine of the TF-IDF vectors of the turns before and the reply.

    Lowe et al. 2015, "The Ubuntu dialogue corpus", section 4.1.
    """
    vectorizer = _vectorizer().fit(_words(train.targets))

    def score(sources, histories, replies) -> np.ndarray:
        contexts = vectorizer.transform(_contexts(Texts(sources, [], histories)))
        # Most replies are candidates several times.
        rows = {reply: k for k, reply in enumerate(dict.fromkeys(chain.from_iterable(replies)))}
        vectors = sparse.csr_matrix(vectorizer.transform(_words(list(rows))))
        most = max(map(len, replies))
        scores = np.full((len(sources), most), -np.inf, "float32")
        for k, own in enumerate(replies):
            found = vectors[[rows[reply] for reply in own]] @ contexts[k].T
            scores[k, : len(own)] = found.toarray()[:, 0]
        return scores

    return score


def ngram_perplexities(train: tf.data.Dataset, split: tf.data.Dataset, targets: list[str]) -> dict:
    """The perplexities of an n-gram model of the training targets, with Kneser-Ney smoothing.

    It has the tokens of the model, so that the figures are comparable.

    Args:
        train, split: batches.
        targets: the texts of the split.
    """
    model = NGramLanguageModel.from_texts(_tokens(train), _ORDER, smoothing="kneser_ney")
    nats, count = 0.0, 0
    for tokens in _tokens(split):
        state = model.initial_state()
        for token in (*tokens, "</s>"):
            log_probability, state = model.score(state, token)
            nats -= log_probability
        count += len(tokens) + 1
    return metrics.perplexities(nats, count, targets)


def _tokens(dataset: tf.data.Dataset):
    """The ids of each target as strings, without the end."""
    for _, labels in dataset.as_numpy_iterator():
        for row in labels["tokens"]:
            yield [f"{token}" for token in row if token not in (PAD, END)]
