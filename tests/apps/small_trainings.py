"""Options of small trainings of the apps."""

_IMAGES = ["--image-size=16", "--stages=1", "--filters=4"]
_SMALL = {
    "forecasting": ["--context=48", "--segment=12", "--stride=8"],
    "image_captioning": _IMAGES,
    "speech_ctc": ["--mels=8"],
    "vqa": _IMAGES,
    "word_vectors": ["--embedding-dim=4"],
}


def options_of(name: str) -> list[str]:
    """Options of `train` for a small model of an app on little generated data.

    The model has all parts of the app's default, which random numbers and states depend on.
    """
    small = _SMALL.get(name, [])
    return ["--generated-size=0.001", *small, *([] if name == "word_vectors" else ["--units=4"])]
