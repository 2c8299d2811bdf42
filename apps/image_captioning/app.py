"""Captions of pictures: a sentence for a picture, and a look at the place of each word."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf
from rich.text import Text

from unroll import layers
from unroll.apps.core.config import optimizer
from unroll.apps.core.protocol import Assets, Data, Service, ask, settings_asset, settings_of
from unroll.apps.image_captioning import metrics, network, report, serving
from unroll.apps.shared import groups, images
from unroll.layers.recurrent import RECURRENT_LAYERS, mean_over_time
from unroll.pipelines import captions, datasets, text, visual
from unroll.pipelines.datasets.vision import scenes


@dataclass(frozen=True)
class Search:
    # how many captions the search keeps
    beam: int = 3
    # how many captions a picture gets
    best: int = 3
    # the power of the length by which log probabilities are divided
    length_penalty: float = 0.0
    # so many captions are drawn at random, and of the beam's those that agree most with them come
    # first; with 0 the likeliest do
    agreement: int = 0


@dataclass(frozen=True)
class Config(Search, images.PictureConfig):
    # a generated or published dataset, or a folder of pictures and captions
    data: str = "scenes_captions"
    # the validation figure that decides
    monitor: str = "val_word_loss"
    # pictures a batch, each with all its captions
    batch_size: int = 16
    # of a picture's captions so many are learned at a time, drawn anew in each epoch; 0 for all
    drawn_captions: int = 0
    # how often a word must occur in the captions to enter the vocabulary
    min_count: int = 1
    # the most words of a caption, in training and in what is written
    max_length: int = 30
    # of a clip so many frames are taken; 0 where the files are pictures
    frames: int = 0
    # the recurrent layer that goes over the frames of a clip, by its name in `layers`
    clip_cell: str = "LSTM"
    # when the decoder looks at places of the picture: before it reads the word before (Show, Attend
    # and Tell) or after; or never, and the picture is the first thing it reads (Show and Tell)
    attention: Literal["before", "after", "none"] = "before"
    # whether the state tells how much the picture counts for a word, with attention=before
    gate: bool = True
    # how much it costs if places are looked at too seldom or too often
    coverage: float = 0.0
    # the size of what places and state are compared in, with attention=before
    attention_units: int = 64
    # the decoder's recurrent layer, by its name in `layers`
    cell: str = "ContextLSTM"
    # the size of the recurrent state
    units: int = 128
    # how many recurrent layers the decoder has
    depth: int = 1
    # the size of a word's vector
    features: int = 64
    # the share of features dropped, from the words and before the next word is chosen
    dropout: float = 0.2
    # how much of the probability of the right word goes to all words
    label_smoothing: float = 0.0
    # how often the decoder reads its own word in training instead of the right one
    scheduled_sampling: float = 0.0
    # in training: by at most so many pixels pictures are moved
    shift: int = 0
    # in training: of the sides of pictures at most this share is cut off, the rest enlarged
    zoom: float = 0.0
    # in training: brightness, contrast and saturation change by at most this share
    light: float = 0.0
    # in training: whether left and right change places in one of two cases
    flip: bool = False
    # the decay of the weights in AdamW
    weight_decay: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("cell", "clip_cell"):
            if getattr(self, name) not in RECURRENT_LAYERS:
                known = ", ".join(RECURRENT_LAYERS)
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}.")
        if not 1 <= self.best <= self.beam:
            raise ValueError(f"best must lie in [1, beam], got {self.best} of {self.beam}.")
        for name in ("drawn_captions", "agreement"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if self.frames < 0 or self.frames == 1:
            raise ValueError(f"frames must be 0 or at least 2, got {self.frames}.")


_SCENES = Config(
    epochs=9, patience=9, schedule="cosine", learning_rate=3e-3, filters=16, first_blocks=1,
    random_colours=True, units=64, attention_units=32, shift=3, light=0.1,
)  # fmt: skip
_PHOTOS = replace(
    _SCENES, epochs=24, patience=24, drawn_captions=2, min_count=5, image_size=96, filters=32,
    stages=4, random_colours=False, units=256, features=192, attention_units=128, dropout=0.5,
    image_dropout=0.1, shift=0, zoom=0.4, light=0.2, flip=True, weight_decay=1e-2, beam=30,
    agreement=60,
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
PUBLISHED = {
    "flickr8k": {
        **{"bleu_1": 67.0, "bleu_2": 44.8, "bleu_3": 29.9, "bleu_4": 19.5},
        "source": "soft attention on a pretrained encoder, Xu et al. 2015",
    },
}
EXAMPLES = scenes.samples()


def load(config: Config, assets: Assets | None = None) -> Data:
    """The dataset's pictures, each with the ids of all its captions."""
    builder = datasets.builder(config.data, folder="captioned")
    raw = datasets.splits(builder)
    told = {split: captions.read(rows) for split, rows in raw.items()}
    folder = Path(builder.data_dir)
    arrays, settings = images.arrays(config, raw, told, folder, frames=config.frames)
    labelled = config.frames and "frames" in raw["train"].element_spec
    if assets is None:
        settings |= {
            "frames": config.frames,
            "labels": captions.labels_of_frames(raw["train"]) if labelled else [],
            "told": metrics.TOLD.get(config.data, ""),
            **{name: getattr(config, name) for name in serving.SEARCH},
        }
        vocabulary = captions.build_vocabulary(told["train"], config.min_count)
        assets = {"vocabulary": vocabulary, "settings": settings_asset(settings)}
    labels = settings_of(assets)["labels"]
    vocabulary = text.Vocabulary(assets["vocabulary"])

    disturbances = visual.Augmentation(config.shift, config.zoom, config.light, config.flip)

    def batches(split: str):
        if split not in raw:
            return None
        training = split == "train"
        return captions.caption_batches(
            told[split],
            arrays[split],
            vocabulary,
            config.batch_size,
            # Others are compared whole with what is written.
            max_length=config.max_length if training else 0,
            drawn=config.drawn_captions if training else 0,
            frames=captions.frame_labels(raw[split], labels, config.frames) if labels else None,
            augmentation=disturbances if training else None,
            shuffle=config.seed if training else None,
            static=config.jit and training,
        )

    return Data(batches("train"), batches("valid"), batches("test"), assets)


def build(config: Config, assets: Assets) -> keras.Model:
    """P pictures and C captions of each, `[P, C, T]`, to the logits of the words behind them."""
    settings, size = settings_of(assets), len(assets["vocabulary"])
    given = keras.Input(settings["shape"], name=settings["kind"])
    tokens = keras.Input((None, None), dtype="int32", name="tokens")  # [P, C, T]
    seen = network.viewer(config, settings)(given)
    memory, mask = seen["memory"], seen["mask"]  # [P, S, D], [P, S]
    mean, words = mean_over_time(memory, mask), groups.Merge()(tokens)
    options = {"dropout": config.dropout, "scheduled_sampling": config.scheduled_sampling}
    options |= {"seed": config.seed, "name": "decoder"}
    width = {"before": memory.shape[-1], "after": config.units, "none": 0}[config.attention]
    cells = [network.cell(config.cell, config.units, width)]
    cells += [network.cell(config.cell, config.units, 0) for _ in range(config.depth - 1)]
    if config.attention != "none":
        before = config.attention == "before"
        decoder = layers.AttentionDecoder(
            size,
            config.features,
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
        first = network.split(groups.ForEach()(first, tokens), sizes)
        logits, weights = decoder(words, memory, initial_state=first, mask=mask)  # [PC, T, V]
        if config.coverage:
            logits = network.DoublyStochastic(config.coverage)(logits, weights, words)
    else:
        decoder = layers.RecurrentDecoder(size, config.features, cells, **options)
        first = keras.layers.Dense(config.features, name="start")(mean)
        logits = decoder(words, first_input=groups.ForEach()(first, tokens))
    outputs = {"captions": groups.Split(dtype="float32", name="captions")(logits, tokens)}
    losses = {"captions": network.CaptionLoss(config.label_smoothing)}
    metrics = {"captions": [network.WordLoss()]}
    if "frames" in seen:
        outputs["frames"] = keras.layers.Identity(dtype="float32", name="frames")(seen["frames"])
        losses["frames"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics["frames"] = ["accuracy"]
    alone = len(outputs) == 1
    model = keras.Model(
        {settings["kind"]: given, "tokens": tokens}, outputs["captions"] if alone else outputs
    )
    model.compile(
        optimizer(config, weight_decay=config.weight_decay),
        losses["captions"] if alone else losses,
        metrics=metrics["captions"] if alone else metrics,
        jit_compile=config.jit,
    )
    return model


def score(model: keras.Model, assets: Assets, dataset: tf.data.Dataset) -> dict:
    """BLEU and CIDEr-D of what beams of one, three and five write; how much they write alike."""
    return metrics.score(model, assets, dataset)


def baseline(config: Config, data: Data, split: str) -> dict:
    """The most frequent caption; and a caption of the training picture that looks most alike."""
    plain = replace(config, drawn_captions=0, shift=0, zoom=0.0, light=0.0, flip=False)
    return metrics.baseline(load(plain, data.assets), split)


def serve(model: keras.Model, assets: Assets) -> Service:
    """`serving_default`: picture files to captions; `ids`: pixels to ids, for LiteRT."""
    return serving.service(model, assets)


def predict(model: keras.Model, assets: Assets, inputs: list) -> list[dict]:
    """The likeliest captions of each picture, and where the model looked for each word.

    Args:
        model, assets: of a run.
        inputs: paths of pictures, of each of which another with the attention is written into the
            working folder; or the bytes of files.
    """
    return report.results(ask(serve(model, assets), inputs), inputs)


def show(result: dict) -> Text:
    """The captions with their log probabilities, and where the picture of the attention lies."""
    best, *others = zip(result["captions"], result["scores"], strict=True)
    line = Text(best[0], style="bold") + Text(f"  {best[1]:.2f}", style="dim")
    for caption, log_probability in others:
        line += Text(f"\n       {caption}  {log_probability:.2f}", style="dim")
    if "frames" in result:
        line += Text(f"\n       {' '.join(result['frames'])}")
    return line + Text(f"\n       {result['picture']}" if "picture" in result else "", style="dim")
