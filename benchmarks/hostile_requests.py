"""Random and hostile requests to an exported model, from its signatures and warm-up requests.

The kind of an input follows from its name, type and rank: texts, image or sound files, ids, times,
numbers, options. A request is a batch of a few rows, some of which are those of an example.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.pipelines.sound_mutations import mutations

Rows = dict[str, np.ndarray]

MEGABYTE = 2**20
# One of this number of requests is huge: a text of a megabyte, a minute of sound, a long sequence.
_HUGE = 1 / 300
_LARGEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}


@dataclass(frozen=True)
class Request:
    """A request to one function of an export.

    Attributes:
        signature: the name of the function.
        inputs: by name.
        kind: what is unusual about it.
    """

    signature: str
    inputs: Rows
    kind: str


class Requests:
    """Makes requests to an export.

    Args:
        folder: of the export.
        seed: of the random numbers.

    Attributes:
        signatures: of the export, by name: `{"inputs": {name: {"dtype": ..., "shape": ...}}}`.
        examples: requests of the warm-up file, by signature.
    """

    def __init__(self, folder: Path, seed: int = 0):
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.signatures = manifest["signatures"]
        self.examples = warm_up_requests(folder)
        self.seed = seed
        self._files: dict[str, list[bytes]] = {}

    def __call__(self, number: int) -> Request:
        """The request of a number, always the same."""
        rng = np.random.default_rng([self.seed, number])
        names = sorted(self.signatures)
        name = "serving_default" if rng.random() < 0.6 else str(rng.choice(names))
        example = self.examples[name][rng.integers(len(self.examples[name]))]
        way = rng.choice(["example", "values", "sizes", "malformed"], p=[0.08, 0.77, 0.1, 0.05])
        specs = self.signatures[name]["inputs"]
        if way == "malformed":
            kind, inputs = malformed(rng, specs, example)
            return Request(name, inputs, kind)
        rows, lengths = int(rng.choice([1, 2, 3, 5], p=[0.55, 0.2, 0.15, 0.1])), {}
        if way == "sizes":
            rows, lengths = self._sizes(rng)
        kinds, inputs = set(), {}
        for key, spec in specs.items():
            given = example[key]
            if way == "example":
                inputs[key] = given
                continue
            if spec["dtype"] == "string":
                inputs[key] = self._strings(rng, name, key, _sized(given, spec, rows, {}))
                kinds.add("files" if key.endswith("_bytes") else "texts")
                continue
            sized = _sized(given, spec, rows, lengths)
            if rng.random() < 0.6:
                kind, sized = numbers(rng, sized)
                kinds.add(kind)
            inputs[key] = sized
        kinds |= {way} if way == "sizes" or not kinds else set()
        return Request(name, inputs, ", ".join(sorted(kinds)))

    def _sizes(self, rng: np.random.Generator) -> tuple[int, dict[int, int]]:
        """The number of rows, and the sizes of the other dynamic axes, by axis."""
        if rng.random() < 20 * _HUGE:
            return 1, {1: int(rng.choice([1000, 4000, 20_000])), 2: 3, 3: 3}
        rows = int(rng.choice([0, 1, 2, 24], p=[0.3, 0.3, 0.3, 0.1]))
        return rows, {axis: int(rng.choice([0, 1, 2, 17, 60])) for axis in (1, 2, 3)}

    def _strings(self, rng, signature: str, key: str, given: np.ndarray) -> np.ndarray:
        if not key.endswith("_bytes"):
            known = [bytes(x) for e in self.examples[signature] for x in e[key].flat if x]
            made = [text(rng, known or [b"word"]) for _ in range(given.size)]
        else:
            made = [self._file(rng, signature, key) for _ in range(given.size)]
        found = np.empty(given.size, object)
        found[:] = made
        return found.reshape(given.shape)

    def _file(self, rng, signature: str, key: str) -> bytes:
        if key not in self._files:
            own = [bytes(x) for e in self.examples[signature] for x in e[key].flat]
            made = pictures() if key == "image_bytes" else sounds(own[0])
            self._files[key] = [*own, *made, *mutations([*own, *made], 3000)]
        own = self.examples[signature]
        if rng.random() < 0.25:
            return bytes(own[rng.integers(len(own))][key].flat[0])
        if rng.random() < _HUGE:
            return huge_picture(rng) if key == "image_bytes" else sound_of(rng, 60.0)
        if rng.random() < 0.1:
            return text(rng, [b"text"])
        return self._files[key][rng.integers(len(self._files[key]))]


def warm_up_requests(folder: Path) -> dict[str, list[Rows]]:
    """The requests that TF Serving runs before it serves an export, by signature."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    found: dict[str, list[Rows]] = {}
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        found.setdefault(request.model_spec.signature_name, []).append(inputs)
    return found


def _sized(given: np.ndarray, spec: dict, rows: int, lengths: dict[int, int]) -> np.ndarray:
    """The values of an example, repeated or cut to the number of rows, and of given lengths."""
    shape = list(given.shape)
    shape[0] = rows
    for axis, size in enumerate(spec["shape"]):
        if axis in lengths and size is None:
            shape[axis] = lengths[axis]
    if 0 in given.shape:  # nothing to repeat
        filled = np.zeros(shape, given.dtype)
        return filled.astype(object) if given.dtype == object else filled
    return np.resize(given, shape)


# Texts

_SPECIAL = (
    "[PAD] [UNK] <pad> <s> </s> <unk> <sep> <eos> <go>", "\uffed \u2581 \u2581\u2581",
    "\x01 \x02 \x03", "{}[]\"'\\/`$%&", "<br/><br /><BR>", "-lrb- -rrb- n't 's", "a.b.c. p.m. U.S.",
    "\\x00 %s {0} \\u0000",
)  # fmt: skip
_CHARACTERS = (
    "aZ0 .,'\"\n\t-\xe9\xdf\u0130\u0301\u4f60\u3042\ud55c\u0634\u05d0\u200d\u202e\ufeff\U0001f600"
    "\ufdfa\u212b"
)
_BROKEN = (
    b"\xff\xfe", b"\xc3", b"\xe2\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x80",
)  # fmt: skip


def text(rng: np.random.Generator, known: list[bytes]) -> bytes:
    """A text: one of the known ones, words of them, or hostile bytes."""
    makers: list[Callable] = [
        lambda: b" ".join(rng.permutation(_words(known))[: rng.integers(1, 30)]),
        lambda: mutations([known[rng.integers(len(known))]], 30)[rng.integers(30)],
        lambda: bytes(rng.choice([b"", b" ", b"\n", b"\r\n \t", b".", b"\0", b"\xef\xbb\xbf"])),
        lambda: b"a\0b\0 \0\0c"[: rng.integers(1, 9)] * int(rng.integers(1, 9)),
        lambda: rng.bytes(rng.integers(1, 60)),
        lambda: b" ".join(_BROKEN[k] for k in rng.integers(0, len(_BROKEN), 7)),
        lambda: "".join(rng.choice(list(_CHARACTERS), rng.integers(1, 80))).encode(),
        lambda: str(rng.choice(_SPECIAL)).encode(),
        lambda: _long(rng, known, int(rng.integers(100, 3000))),
    ]
    if rng.random() < _HUGE:
        return _long(rng, known, MEGABYTE)
    if rng.random() < 0.25:
        return known[rng.integers(len(known))]
    return makers[rng.integers(len(makers))]()


def _words(known: list[bytes]) -> list[bytes]:
    return b" ".join(known).split() or [b"word"]


def _long(rng, known: list[bytes], size: int) -> bytes:
    """About `size` bytes."""
    units = [
        b"x", b"word ", b"a ", b"\n", b" ", b"\0", b".", b"\xff", "\u4f60".encode(), b"1,0 ",
        "e\u0301".encode(), "\ufdfa".encode(), b"A sentence. ", b"- ", b"\r", b"'s ", b"<br />",
        bytes(known[0]) + b" ",
    ]  # fmt: skip
    unit = units[rng.integers(len(units))]
    return (unit * (size // len(unit) + 1))[:size]


# Numbers


def numbers(rng: np.random.Generator, given: np.ndarray) -> tuple[str, np.ndarray]:
    """Hostile values in place of some or all of the given ones, and what they are."""
    found = np.array(given)
    some = rng.random(found.shape) < rng.choice([0.02, 0.3, 1.0])
    if len(found) > 1:
        some[rng.random(len(found)) < 0.5] = False  # the rows of the example
    if found.dtype.kind == "f":
        value = float(rng.choice([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, 1e6, -1.0]))
        if rng.random() < 0.3:
            return "random numbers", rng.normal(size=found.shape).astype(found.dtype)
        found[some] = value
        return f"{value:g} in numbers", found
    largest = _LARGEST[str(found.dtype)]
    value = int(rng.choice([0, -1, 1, 2, 7, -largest - 1, largest, 999]))
    if rng.random() < 0.3:
        high = max(2, 2 * int(np.abs(found).max(initial=1)))
        return "random integers", rng.integers(-2, high, found.shape).astype(found.dtype)
    found[some] = value
    return ("extreme integers" if abs(value) > 1000 else "integers"), found


# Files


def pictures() -> list[bytes]:
    """Small pictures of all formats and modes, and some that state huge sizes."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 4), "uint8")
    image = Image.fromarray(pixels, "RGBA")
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        for mode in ("RGB", "L", "P", "RGBA", "1"):
            if (kind, mode) in {("JPEG", "P"), ("JPEG", "RGBA")}:
                continue
            file = io.BytesIO()
            image.convert("RGB").convert(mode).save(file, kind)
            found.append(file.getvalue())
    frames = [Image.fromarray(np.full((9, 9, 3), 20 * k, "uint8")) for k in range(9)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    found.append(file.getvalue())
    for kind, place, order in (("PNG", 16, "big"), ("BMP", 18, "little"), ("GIF", 6, "little")):
        file = io.BytesIO()
        image.convert("RGB").save(file, kind)
        size = 2 if kind == "GIF" else 4
        for value in (0, 1, 65535, 2**31 - 1, 2**32 - 1):
            stated = (value % 256 ** min(size, 4)).to_bytes(size, order)
            made = bytearray(file.getvalue())
            made[place : place + 2 * size] = stated * 2
            found.append(bytes(made))
    return found


def huge_picture(rng: np.random.Generator) -> bytes:
    """A small file of many pixels, or a large file."""
    from PIL import Image

    file = io.BytesIO()
    side = int(rng.choice([3000, 12000]))
    kind = str(rng.choice(["PNG", "JPEG", "GIF"]))
    Image.new("1" if kind != "JPEG" else "L", (side, side)).save(file, kind)
    return file.getvalue() + b"\0" * int(rng.choice([0, MEGABYTE]))


def sounds(example: bytes) -> list[bytes]:
    """Recordings of other rates, lengths and encodings, if the example is one; silence, noise."""
    rng = np.random.default_rng(0)
    if example[:4] != b"RIFF":
        return [example[: len(example) // 2], b"\0" * 400]
    return [sound_of(rng, seconds) for seconds in (0.0, 0.001, 0.02, 0.1, 1.0, 3.0)]


def sound_of(rng: np.random.Generator, seconds: float) -> bytes:
    """A wav file of noise, of some rate and encoding."""
    import soundfile

    rate = int(rng.choice([1000, 8000, 16000, 44100]))
    subtype = str(rng.choice(["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "ALAW"]))
    file = io.BytesIO()
    samples = 0.3 * rng.normal(size=(int(seconds * rate), int(rng.choice([1, 2]))))
    soundfile.write(file, samples.clip(-1, 1), rate, subtype, format="WAV")
    return file.getvalue()


# Requests that a server has to refuse


def malformed(rng: np.random.Generator, specs: dict, example: Rows) -> tuple[str, Rows]:
    """A request that does not fit the signature, and in what it does not."""
    inputs, key = dict(example), str(rng.choice(sorted(specs)))
    given = inputs[key]
    wrong = np.ones(given.shape, "float32" if given.dtype.kind in "iO" else "int32")
    ways = {
        "an input is missing": lambda: inputs.pop(key),
        "another input": lambda: inputs.update(other=given),
        "another type": lambda: inputs.update({key: wrong}),
        "one more axis": lambda: inputs.update({key: given[..., None]}),
        "one axis less": lambda: inputs.update({key: given[:1].reshape(given.shape[1:])}),
        "a scalar": lambda: inputs.update({key: np.array(given.flat[0], given.dtype)}),
        "other sizes": lambda: inputs.update({key: np.repeat(given, 3, axis=-1)}),
        "more rows": lambda: inputs.update({key: np.concatenate([given, given])}),
    }
    way = str(rng.choice(sorted(ways)))
    if given.size or way in ("an input is missing", "another input", "another type"):
        ways[way]()
    return way, inputs
