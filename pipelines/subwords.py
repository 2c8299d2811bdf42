"""Subwords: SentencePiece models, trained on lines of text and run in the graph by TF Text."""

import io
import itertools
import tempfile
from collections.abc import Iterable

import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from sentencepiece import sentencepiece_model_pb2

from unroll.pipelines.errors import DataError

SPACE = "\u2581"  # how SentencePiece writes a space
MOST_LINES = 200_000  # that a model is trained on
COVERAGE = 0.9995  # the default share of the characters of a text that a model has
_RULE = "FFFF\tFFFD\n"  # of the normalization: a character that is none is the replacement
_NUMBERS = itertools.count()  # of tokenizers


def train_subwords(
    lines: Iterable[str],
    size: int,
    special: dict[str, str],
    kind: str = "unigram",
    coverage: float = COVERAGE,
) -> tuple[list[str], bytes]:
    """Trains a SentencePiece model, which leaves the text as it is.

    Args:
        lines: of the training text. At most 200,000 of them are used.
        size: the maximum number of pieces, with the special ones. A small text has fewer.
        special: the special pieces in the order of their ids, from 0: their kinds, `pad`, `bos`,
            `eos`, `unk`, or any other name for pieces that no text contains, and how they are
            written.
        kind: `unigram` (Kudo 2018) or `bpe` (Sennrich et al. 2016).
        coverage: the share of the characters of the text that are pieces; the rarest are unknown.

    Returns:
        The pieces in the order of their ids, and the model.

    Raises:
        DataError: if there is too little text, or `size` is less than its number of characters.
    """
    standard = ("unk", "bos", "eos", "pad")
    ids = {f"{name}_id": -1 for name in standard}
    names, control = {}, []
    for number, (name, piece) in enumerate(special.items()):
        if name in standard:
            ids[f"{name}_id"], names[f"{name}_piece"] = number, piece
        else:
            control.append(piece)
    file = io.BytesIO()
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
            # SentencePiece prints a message each time that it loads a model without rules.
            rules.write(_RULE)
            rules.flush()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=file,
                model_type=kind,
                vocab_size=size,
                hard_vocab_limit=False,
                **ids,
                **names,
                control_symbols=control,
                character_coverage=coverage,
                normalization_rule_tsv=rules.name,
                remove_extra_whitespaces=False,
                input_sentence_size=MOST_LINES,
                shuffle_input_sentence=False,
                max_sentence_length=1 << 16,
                minloglevel=2,
            )
    except RuntimeError as error:
        why = " ".join(str(error).split())[-200:]
        raise DataError(f"No subwords can be made of the training text: {why}") from None
    made = without_file_name(file.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=made)
    return [model.id_to_piece(k) for k in range(model.get_piece_size())], made


def without_file_name(model: bytes) -> bytes:
    """A model without the name of the temporary file of its rules, which differs each time."""
    fields = sentencepiece_model_pb2.ModelProto.FromString(model)
    fields.normalizer_spec.ClearField("normalization_rule_tsv")
    return fields.SerializeToString()


def subword_tokenizer(
    model: bytes, out_type: tf.DType = tf.int32, sampling: float = 0.0
) -> tf_text.SentencepieceTokenizer:
    """A tokenizer of its own.

    TensorFlow shares the resource of equal models, and deletes it with the first tokenizer. So each
    model gets a field with a number, 15 of the protocol buffer, which SentencePiece ignores.

    Args:
        model: as `train_subwords` returns it.
        out_type: of the pieces: `tf.int32` for ids, `tf.string` for texts.
        sampling: above 0, a text is split at random: of a `unigram` model, segmentations are
            sampled with their probabilities to this power (Kudo 2018, "Subword regularization");
            in `bpe`, it is the probability of skipping a merge (Provilkov et al. 2020,
            "BPE-dropout").
    """
    number = next(_NUMBERS).to_bytes(4, "little")
    model += bytes([15 << 3 | 2, len(number)]) + number
    return tf_text.SentencepieceTokenizer(
        model, out_type=out_type, nbest_size=-1 if sampling else 0, alpha=sampling or 1.0
    )
