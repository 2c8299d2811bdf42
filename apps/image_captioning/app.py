"""Captions of images: a sentence about an image or a clip, and the attention of each word."""

from dataclasses import dataclass, replace
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import optimizer
from unroll.apps.core.data import RawSplits
from unroll.apps.core.protocol import Assets, Axes, Data, Page, Report, Service, Trained, query
from unroll.apps.image_captioning import metrics, network, serving
from unroll.apps.image_captioning import report as reports
from unroll.apps.shared import decoders, groups, images
from unroll.apps.shared.display import scored_rows
from unroll.apps.shared.recurrent import require_cell
from unroll.apps.shared.unknown_words import report_unknown
from unroll.layers.recurrent import mean_over_time
from unroll.pipelines import captions, text, vision
from unroll.pipelines.datasets.vision import scenes


@dataclass(frozen=True)
class Search:
    # beam width of the search
    beam_width: int = 3
    # captions per image
    num_return_sequences: int = 3
    # scores are log probabilities divided by the length to this power
    length_penalty: float = 0.0
    # samples for minimum Bayes risk decoding, which ranks the captions of the beam by their overlap
    # with samples from the model; 0 ranks them by score
    mbr_samples: int = 0


@dataclass(frozen=True)
class Config(Search, images.ImageConfig):
    # name of a dataset, or a folder of images and captions
    data: str = "scenes_captions"
    # figure that selects the best epoch
    monitor: str = "val_word_loss"
    # images per batch, each with its captions
    batch_size: int = 16
    # captions of each image that are sampled in each epoch; 0 for all
    captions_per_image: int = 0
    # minimum count of a word in the training captions to be in the vocabulary
    min_count: int = 1
    # maximum number of words of a caption, in training and in the search
    max_length: int = 30
    # number of frames that are taken from a clip; 0 if the files are images
    frames: int = 0
    # bidirectional recurrent layer over the frames of a clip, by its name in `unroll.layers`
    clip_cell: str = "LSTM"
    # attention before the recurrent step (Show, Attend and Tell), after it, or none: the decoder
    # reads the image in its first step (Show and Tell)
    attention: Literal["before", "after", "none"] = "before"
    # multiply the context by a gate that depends on the state, for attention=before
    gate: bool = True
    # weight of the doubly stochastic regularization of attention
    coverage: float = 0.0
    # size of the hidden layer of the attention scores, for attention=before and for clips
    attention_units: int = 64
    # recurrent layer of the decoder, by its name in `unroll.layers`
    cell: str = "ContextLSTM"
    # size of the recurrent state
    units: int = 128
    # number of recurrent layers of the decoder
    depth: int = 1
    # size of the word vectors
    embedding_dim: int = 64
    # dropout rate of word vectors and before the output layer
    dropout: float = 0.2
    # label smoothing
    label_smoothing: float = 0.0
    # probability that the decoder reads its own prediction in training, not the correct word
    scheduled_sampling: float = 0.0
    # in training: largest fraction of the height and width of an image that is cut off
    zoom: float = 0.0
    # in training: mirror images left to right with probability 0.5
    flip: bool = False
    # weight decay of AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_cell("cell", self.cell)
        require_cell("clip_cell", self.clip_cell)
        if not 1 <= self.num_return_sequences <= self.beam_width:
            raise ValueError(
                f"num_return_sequences must be in [1, beam_width], got {self.num_return_sequences} "
                f"with beam_width={self.beam_width}."
            )
        if self.frames == 1:
            raise ValueError(f"frames must be 0 or at least 2, got {self.frames}.")


_SCENES = Config(
    epochs=9, patience=9, schedule="cosine", learning_rate=3e-3, filters=16, first_stage_blocks=1,
    random_colors=True, units=64, attention_units=32, translate=3, color_jitter=0.1,
)  # fmt: skip
_PHOTOS = replace(
    _SCENES, epochs=24, patience=24, captions_per_image=2, min_count=5, image_size=96, filters=32,
    stages=4, random_colors=False, units=256, embedding_dim=192, attention_units=128, dropout=0.5,
    image_dropout=0.1, translate=0, zoom=0.4, color_jitter=0.2, flip=True, weight_decay=1e-2,
    beam_width=30, mbr_samples=60,
)  # fmt: skip
PRESETS = {
    "scenes_captions": _SCENES,
    "scenes_clips": replace(
        _SCENES, data="scenes_clips", monitor="val_captions_word_loss", frames=10, epochs=11,
        patience=12, units=96,
    ),
    "flickr8k": replace(_PHOTOS, data="flickr8k"),
    "coco_captions": replace(_PHOTOS, data="coco_captions", epochs=10, patience=10, dropout=0.3),
}  # fmt: skip

TASK = "image-to-text"
PUBLISHED = {
    "flickr8k": {
        **{"bleu_1": 67.0, "bleu_2": 44.8, "bleu_3": 29.9, "bleu_4": 19.5},
        "source": "soft attention on a pretrained encoder, Xu et al. 2015",
    },
}

METRICS = {"bleu_1": "max", "bleu_4": "max", "cider": "max", "caption_accuracy": "max"}
MONITORS = {
    "val_word_loss": "min",
    # With frame labels, the model has two outputs.
    "val_captions_word_loss": "min",
    "val_frames_accuracy": "max",
}


def load(
    config: Config,
    splits: tuple[str, ...],
    assets: Assets | None = None,
    training: bool = False,
) -> Data:
    """Images with the ids of their captions. The vocabulary is that of the training captions."""
    raw = RawSplits(config, "captions")
    annotated = {split: captions.read(raw[split]) for split in splits}
    image_ids = {split: [each.image_id for each in rows] for split, rows in annotated.items()}
    arrays, spec = images.arrays(config, raw, image_ids, config.frames)
    if assets is None:
        known = annotated["train"] if "train" in annotated else captions.read(raw["train"])
        assets = {
            "vocabulary": captions.build_vocabulary(known, config.min_count),
            "images": spec,
        }
        if config.frames and "frames" in raw["train"].element_spec:
            assets["frame_labels"] = captions.frame_label_names(raw["train"])
    vocabulary = text.Vocabulary(assets["vocabulary"])
    frame_labels = assets.get("frame_labels")
    augmentation = vision.Augmentation(
        config.translate, config.zoom, config.color_jitter, config.flip
    )

    def batches(split: str) -> tf.data.Dataset:
        train = training and split == "train"
        return captions.caption_batches(
            annotated[split],
            arrays[split],
            vocabulary,
            config.batch_size,
            max_length=config.max_length if train else 0,
            captions_per_image=config.captions_per_image if train else 0,
            frames=captions.frame_labels(raw[split], frame_labels, config.frames)
            if frame_labels
            else None,
            augmentation=augmentation if train else None,
            shuffle=config.seed if train else None,
            static=train and config.jit,
        )

    data = Data({split: batches(split) for split in splits}, assets)
    if training and "valid" in splits:
        report_unknown("valid", data["valid"], "tokens", special=len(captions.SPECIAL_TOKENS))
    return data


def axes(config: Config) -> Axes:
    """The weights of words and of the labels of frames."""
    return {
        "decoder/embedding/embeddings": ("vocabulary", None),
        "decoder/output_kernel": (None, "vocabulary"),
        "decoder/output_bias": ("vocabulary",),
        "frame/kernel": (None, "frame_labels"),
        "frame/bias": ("frame_labels",),
    }


def build(config: Config, assets: Assets) -> keras.Model:
    """P images and C captions of each, `[P, C, T]`, to the logits of the next words."""
    spec, vocabulary_size = assets["images"], len(assets["vocabulary"])
    image = keras.Input(spec["shape"], name=spec["kind"])
    tokens = keras.Input((None, None), dtype="int32", name="tokens")  # [P, C, T]
    encoded = network.image_encoder(config, spec, len(assets.get("frame_labels", ())))(image)
    memory, mask = encoded["memory"], encoded["mask"]  # [P, S, D], [P, S]
    mean, words = mean_over_time(memory, mask), groups.Merge()(tokens)  # [P, D], [PC, T]
    options = {"dropout": config.dropout, "scheduled_sampling": config.scheduled_sampling}
    options |= {"seed": config.seed, "name": "decoder"}
    context_size = {"before": memory.shape[-1], "after": config.units, "none": 0}[config.attention]
    cells = [decoders.decoder_cell(config.cell, config.units, context_size)]
    cells += [decoders.decoder_cell(config.cell, config.units, 0) for _ in range(config.depth - 1)]
    if config.attention == "none":
        decoder = layers.RecurrentDecoder(vocabulary_size, config.embedding_dim, cells, **options)
        first = keras.layers.Dense(config.embedding_dim, name="start")(mean)
        logits = decoder(words, first_input=groups.ForEach()(first, tokens))  # [PC, T, V]
    else:
        before = config.attention == "before"
        decoder = layers.AttentionDecoder(
            vocabulary_size,
            config.embedding_dim,
            cells,
            layers.BahdanauAttention(config.attention_units)
            if before
            else layers.LuongAttention(config.units),
            attend=config.attention,
            gated=before and config.gate,
            **options,
        )
        sizes = decoder.cell_state_sizes
        first = keras.layers.Dense(sum(sizes), "tanh", name="start")(mean)
        states = decoders.split_states(groups.ForEach()(first, tokens), sizes)
        logits, weights = decoder(
            words, memory, initial_state=states, memory_mask=mask
        )  # [PC, T, V]
        if config.coverage:
            logits = decoders.DoublyStochastic(config.coverage)(logits, weights, words)
    outputs = {"captions": groups.Split(dtype="float32", name="captions")(logits, tokens)}
    losses = {"captions": network.CaptionLoss(config.label_smoothing)}
    figures = {"captions": [network.WordLoss()]}
    if "frames" in encoded:
        frames = keras.layers.Identity(dtype="float32", name="frames")(encoded["frames"])
        outputs["frames"] = frames  # [P, F, K]
        losses["frames"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        figures["frames"] = ["accuracy"]
    if len(outputs) == 1:
        [outputs], [losses], [figures] = outputs.values(), losses.values(), figures.values()
    model = keras.Model({spec["kind"]: image, "tokens": tokens}, outputs)
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        losses,
        metrics=figures,
        jit_compile=config.jit,
    )
    return model


def score(trained: Trained, dataset: tf.data.Dataset) -> dict:
    """BLEU, CIDEr-D, the BLEU-4 of several beam widths, and the variety of the captions."""
    return metrics.score(trained, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent caption, and a caption of the most similar training image."""
    return metrics.baseline(data, split)


def serve(trained: Trained) -> Service:
    """`serving_default`: image files to captions; `ids`: pixels to token ids, for LiteRT."""
    return serving.service(trained)


request = serving.request


def predict(trained: Trained, inputs: list[str | bytes]) -> list[dict]:
    """The captions of each image, best first, and with attention the weights of each word.

    Args:
        trained: with weights.
        inputs: paths of images, or the contents of files.
    """
    results = []
    for source, outputs in zip(inputs, query(serve(trained), inputs), strict=True):
        outputs.pop("error", None)  # files that cannot be decoded are errors before
        image = {"image": source} if isinstance(source, str) else {}
        results.append(image | outputs)
    return results


def show(result: dict) -> Text:
    """The captions with their scores and, with frame labels, the label of each frame."""
    best, *others = zip(result["captions"], result["scores"], strict=True)
    line = Text(best[0], style="bold") + Text(f"  {best[1]:.2f}", style="dim")
    for caption, score in others:
        line += Text(f"\n       {caption}  {score:.2f}", style="dim")
    if "frames" in result:
        line += Text(f"\n       {' '.join(result['frames'])}")
    return line


def report(trained: Trained, dataset: tf.data.Dataset) -> Report:
    """The figures by length, the best and worst captions, words that are never written."""
    return reports.report(trained, dataset)


plot = reports.plot


def page(trained: Trained) -> Page:
    """A picture, its captions, and the attention of each word."""

    def captions(result: dict) -> tuple[list[str], list[list]]:
        return ["caption", "score"], scored_rows(result["captions"], result["scores"])

    outputs = {"captions": ("table", captions)}
    if "frame_labels" in trained.assets:
        outputs["frames"] = ("text", lambda result: " ".join(result["frames"]))
    return Page({"image": "image"}, outputs)


def examples() -> list[bytes]:
    """Three rendered scenes, as PNG files."""
    return scenes.examples()
