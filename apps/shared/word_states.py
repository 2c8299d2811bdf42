"""The network that reads the words of a text for a tag each: word vectors and recurrent layers."""

from dataclasses import dataclass
from typing import Literal

import keras
import tensorflow as tf
from keras import ops

from unroll import layers
from unroll.apps.core.config import TrainingConfig
from unroll.apps.core.protocol import Assets, Axes
from unroll.apps.shared import word_vectors
from unroll.apps.shared.recurrent import recurrent_layers, require_cell
from unroll.pipelines import text as texts


@dataclass(frozen=True)
class WordStatesConfig(TrainingConfig):
    """The fields of the `Config` of an app that tags words."""

    # the tag is the first column of a CoNLL file, not the last
    tag_first: bool = False
    # maximum number of words in the vocabulary
    vocabulary_size: int = 20_000
    # minimum count of a word in the training texts to be in the vocabulary
    min_count: int = 1
    # file of pretrained word vectors in GloVe's format; their size must be embedding_dim
    vectors: str = ""
    # size of the word vectors
    embedding_dim: int = 64
    # character encoder of a word
    characters: Literal["convolution", "recurrent", "none"] = "convolution"
    # size of the output of the character encoder
    character_units: int = 32
    # recurrent layer, by its name in `unroll.layers`
    cell: str = "LSTM"
    # size of the recurrent state in each direction
    units: int = 64
    # number of recurrent layers
    depth: int = 1
    # dropout rate of word vectors, between layers and before the outputs
    dropout: float = 0.3
    # probability of replacing a word by the unknown token in training
    word_dropout: float = 0.1
    # probability of dropping the characters of a word in training
    character_dropout: float = 0.0
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)


def word_states(config: WordStatesConfig, assets: Assets) -> tuple[dict, object, object]:
    """Word and character encoders, and bidirectional recurrent layers over them.

    Args:
        config: the sizes.
        assets: the vocabularies of `pipelines.tagging.build_vocabularies`.

    Returns:
        The inputs of the model, `tokens` `[B, T]` and `characters` `[B, T, L]`; the mask of the
        words `[B, T]`; and the states `[B, T, 2 U]`.
    """
    inputs = {
        "tokens": keras.Input((None,), dtype="int32", name="tokens"),
        "characters": keras.Input((None, None), dtype="int32", name="characters"),
    }
    mask = ops.not_equal(inputs["tokens"], texts.PADDING)  # [B, T]
    words = layers.WordDropout(config.word_dropout, texts.UNKNOWN)(inputs["tokens"], mask=mask)
    vocabulary = assets["vocabulary"]
    initializer = word_vectors.embedding_initializer(
        config.vectors, vocabulary, config.embedding_dim, config.seed
    )
    x = keras.layers.Embedding(len(vocabulary), config.embedding_dim, initializer)(words)
    if config.characters != "none":
        encode = layers.CharacterEmbedding(
            len(assets["characters"]), config.character_units, reader=config.characters
        )
        drop_words = keras.layers.Dropout(config.character_dropout, noise_shape=(None, None, 1))
        x = ops.concatenate([x, drop_words(encode(inputs["characters"]))], axis=-1)
    x = keras.layers.Dropout(config.dropout)(x)
    states = layers.Stack(
        recurrent_layers(config.cell, config.units, config.depth),
        bidirectional=True,
        dropout=config.dropout,
    )(x, mask=mask)  # [B, T, 2 U]
    return inputs, mask, states


def tag_potentials(states, mask, tags: list[str], dropout, crf: layers.CRF) -> tuple:
    """The potentials of BIO tags, and what a CRF makes of them.

    Args:
        states: `[B, T, D]`.
        mask: `[B, T]`.
        tags: the names of the K tags.
        dropout: the layer that is applied to the states.
        crf: a CRF of K tags.

    Returns:
        The potentials, `[B, T, K]`, and the output of the CRF.
    """
    potentials = keras.layers.Dense(len(tags), dtype="float32", name="potentials")(dropout(states))
    return potentials, crf(potentials, mask=mask)


def word_axes(crf: str = "tags") -> Axes:
    """The axes of the weights of `word_states` and `tag_potentials` that an asset indexes.

    Args:
        crf: the name of the CRF.
    """
    return {
        "character_embedding/embeddings": ("characters", None),
        "embedding/embeddings": ("vocabulary", None),
        "potentials/kernel": (None, "tags"),
        "potentials/bias": ("tags",),
        f"{crf}/transitions": ("tags", "tags"),
        f"{crf}/(start|end)": ("tags",),
    }


def create_loss_trackers(model: keras.Model, outputs: dict) -> None:
    """Creates the trackers of the losses of a compiled model of tags, unless there is a strategy.

    `fit` would create them in its first trace, and TensorFlow traces a function again that created
    variables. With a strategy, Keras creates them before.

    Args:
        model: compiled, with a loss for some of its outputs.
        outputs: of the model, by name, with tags among them.
    """
    if tf.distribute.has_strategy():
        return
    predicted = {name: ops.zeros([n or 1 for n in x.shape]) for name, x in outputs.items()}
    correct = {name: ops.zeros([1] * (len(x.shape) - 1), "int32") for name, x in outputs.items()}
    correct["tags"] = ops.zeros([1, 1], "int32")
    model.compute_loss(y=correct, y_pred=predicted)
    model.reset_metrics()
