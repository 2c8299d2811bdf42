"""Asks an exported LiteRT file, with its interpreter and NumPy and nothing else.

    python litert_example.py saved_models/speech_ctc/1 recording.wav

LiteRT has no strings: `settings.txt` tells how samples become features, which the NumPy below does
for wav files of 16 bits at the model's own rate, and `labels.txt` what the labels are, of which the
first is the blank.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def read_wav(path: str, rate: int) -> np.ndarray:
    """Samples in [-1, 1), the channels averaged."""
    with wave.open(path) as file:
        if (file.getframerate(), file.getsampwidth()) != (rate, 2):
            sys.exit(f"{path}: expected 16 bits at {rate} Hz.")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.reshape(-1, file.getnchannels()).mean(axis=1) / 2**15


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """Triangles on Slaney's mel scale, `[bins / 2 + 1, mels]`."""
    highest = 15 + np.log(rate / 2 / 1000) / (np.log(6.4) / 27)
    mel = np.linspace(0, highest, mels + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    frequencies = np.linspace(0, rate / 2, bins // 2 + 1)[:, np.newaxis]
    rise, fall = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.clip(np.minimum(rise, fall), 0, None) * 2 / (high - low)


def log_mel(samples: np.ndarray, made: dict) -> np.ndarray:
    """Log-mel spectra, `[T, F]`; a frame ends with its hop, and before the sound is silence."""
    window, hop = made["window"], made["hop"]
    samples = np.pad(samples, (window - hop + 1, 0))
    samples = samples[1:] - made["emphasis"] * samples[:-1]
    bins = 2 ** int(np.ceil(np.log2(window)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, bins)) ** 2
    return np.log(power @ mel_filters(made["rate"], bins, made["mels"]) + made["floor"])


def main(folder: str, *paths: str) -> None:
    """Prints the transcript of each recording."""
    settings = json.loads((Path(folder) / "settings.txt").read_text("utf-8"))
    labels = (Path(folder) / "labels.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    made = settings["front_end"]
    if not made or made["cepstra"] or made["deltas"] or settings["normalization"] == "running":
        sys.exit(f"{folder}: this example makes log-mel spectra, of a whole recording.")
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner()
    for path in paths:
        features = log_mel(read_wav(path, made["rate"]), made)
        if settings["normalization"] == "utterance":  # else the model does it
            features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-5)
        lengths = np.array([len(features)], np.int32)
        answer = model(features=features[np.newaxis].astype("float32"), lengths=lengths)
        heard = [labels[k] for k in answer["labels"][0] if k >= 0]
        print(path, ("" if settings["unit"] == "characters" else " ").join(heard), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert_example.py FOLDER WAV...")
    main(*sys.argv[1:])
