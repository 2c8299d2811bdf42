"""Spans of BIO tags: their F1 in training, tables and texts of reports."""

import keras
from keras import ops
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

from unroll.apps.core.results import markdown_table


@keras.saving.register_keras_serializable(package="unroll")
class SpanF1(keras.metrics.Metric):
    """The F1 of whole spans of BIO tags, as conlleval counts them.

    Args:
        tags: the names of the tags.

    Call arguments:
        y_true: the tags, `[B, T]`; below zero for padding. An id that is not one of the K tags
            belongs to no span.
        y_pred: the predicted tags, `[B, T]`.
    """

    def __init__(self, tags: list[str], name="span_f1", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.tags = list(tags)
        types = sorted({tag[2:] for tag in self.tags})
        # Of each tag: whether it begins or continues a span, and the type of the span. The last
        # entry is for other ids.
        self.kinds = [{"B": 1, "I": 2}.get(tag[:1], 0) for tag in self.tags] + [0]
        self.types = [types.index(tag[2:]) for tag in self.tags] + [-1]
        self.counts = [
            self.add_weight(name=name, initializer="zeros")
            for name in ("correct", "spans", "predicted_spans")
        ]

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = ops.cast(y_true, "int32"), ops.cast(y_pred, "int32")
        last = len(self.tags)
        is_tag = ops.logical_and(y_true >= 0, y_true < last)
        y_pred = ops.where(y_true >= 0, y_pred, last)  # [B, T]
        y_true = ops.where(is_tag, y_true, last)
        starts, inside, types = self._describe(y_true)
        predicted_starts, predicted_inside, predicted_types = self._describe(y_pred)
        in_span = ops.logical_or(starts, inside)
        same = ops.logical_and(starts == predicted_starts, inside == predicted_inside)
        same = ops.logical_and(same, types == predicted_types)
        # A predicted span is longer if its next tag continues it where the correct one ends.
        longer = ops.logical_and(predicted_inside, ops.logical_not(inside))
        longer = ops.concatenate([longer[:, 1:], ops.zeros_like(longer[:, :1])], axis=1)
        wrong = ops.logical_and(in_span, ops.logical_or(ops.logical_not(same), longer))
        # The number of the span of each token, over the whole batch; 0 is none.
        starts = ops.reshape(starts, (-1,))
        spans = ops.where(ops.reshape(in_span, (-1,)), ops.cumsum(ops.cast(starts, "int32")), 0)
        count = ops.sum(ops.cast(starts, "int32"))
        errors = ops.segment_sum(
            ops.cast(ops.reshape(wrong, (-1,)), "int32"), spans, num_segments=ops.size(spans) + 1
        )
        with_errors = ops.sum(ops.cast(errors[1:] > 0, "int32"))
        totals = (
            count - with_errors,
            count,
            ops.sum(ops.cast(predicted_starts, "int32")),
        )
        for total, value in zip(self.counts, totals, strict=True):
            total.assign_add(ops.cast(value, total.dtype))

    def _describe(self, tags) -> tuple:
        """Whether each tag begins a span, whether it continues one, and the type of the span."""
        kinds = ops.take(ops.array(self.kinds, "int32"), tags)
        return kinds == 1, kinds == 2, ops.take(ops.array(self.types, "int32"), tags)

    def result(self):
        correct, spans, predicted = self.counts
        return 2 * correct / ops.maximum(spans + predicted, 1)

    def get_config(self):
        return {"tags": self.tags, "name": self.name, "dtype": self.dtype}


def span_table(what: str, tags: list[list[str]], predicted: list[list[str]]) -> str:
    """Precision, recall and F1 of the spans of each label, the most frequent first, as Markdown.

    Args:
        what: a label is, for the header.
        tags: the correct tags of each text.
        predicted: the predicted ones.
    """
    columns = precision_recall_fscore_support(tags, predicted, average=None, zero_division=0)
    spans = {name for rows in (tags, predicted) for name, *_ in get_entities(rows)}
    rows = sorted(zip(sorted(spans), *columns, strict=True), key=lambda row: -row[4])
    body = [[n, f"{p:.3f}", f"{r:.3f}", f"{f:.3f}", str(s)] for n, p, r, f, s in rows]
    return markdown_table([what, "precision", "recall", "F1", "spans"], body)


def bracketed(tokens: list[str], tags: list[str]) -> str:
    """Tokens with their spans in brackets: `from [boston city]`.

    >>> bracketed(["from", "new", "york"], ["O", "B-city", "I-city"])
    'from [new york city]'
    """
    tokens = list(tokens)
    for name, begin, end in get_entities(tags):
        tokens[begin] = f"[{tokens[begin]}"
        tokens[end] = f"{tokens[end]} {name}]"
    return " ".join(tokens)
