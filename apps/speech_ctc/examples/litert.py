"""Queries an exported LiteRT file, with its interpreter and NumPy only.

    python litert.py saved_models/speech_ctc/1 recording.wav

LiteRT has no strings: the model takes features and returns the ids of labels, which are the lines
of `labels.txt`. `interface.json` describes the features. This script computes them for wav files of
16 bits at the model's sample rate.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def read_wav(path: str, rate: int) -> np.ndarray:
    """Samples in [-1, 1), averaged over the channels."""
    with wave.open(path) as file:
        if (file.getframerate(), file.getsampwidth()) != (rate, 2):
            sys.exit(f"{path}: expected 16 bits at {rate} Hz.")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.reshape(-1, file.getnchannels()).mean(axis=1) / 2**15


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, `[bins / 2 + 1, mels]`."""
    highest = 15 + np.log(rate / 2 / 1000) / (np.log(6.4) / 27)
    mel = np.linspace(0, highest, mels + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    frequencies = np.linspace(0, rate / 2, bins // 2 + 1)[:, np.newaxis]
    rise, fall = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.clip(np.minimum(rise, fall), 0, None) * 2 / (high - low)


def log_mel(samples: np.ndarray, front_end: dict) -> np.ndarray:
    """Log-mel spectra, `[T, D]`. A frame ends with its hop; silence precedes the recording."""
    window, hop, mels = front_end["window"], front_end["hop"], front_end["mels"]
    samples = np.pad(samples, (window - hop + 1, 0))
    samples = samples[1:] - front_end["emphasis"] * samples[:-1]
    bins = 2 ** int(np.ceil(np.log2(window)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, bins)) ** 2
    return np.log(power @ mel_filters(front_end["rate"], bins, mels) + front_end["floor"])


def main(folder: str, *paths: str) -> None:
    """Prints the transcript of each recording."""
    interface = json.loads((Path(folder) / "interface.json").read_text("utf-8"))
    labels = (Path(folder) / "labels.txt").read_bytes().decode("utf-8").split("\n")[:-1]
    front_end, normalization = interface["front_end"], interface["normalization"]
    if not front_end or front_end["cepstra"] or front_end["deltas"] or normalization == "running":
        sys.exit(f"{folder}: this script supports log-mel spectra without running normalization.")
    model = Interpreter(str(Path(folder) / "model.tflite")).get_signature_runner("frames")
    for path in paths:
        features = log_mel(read_wav(path, front_end["rate"]), front_end)
        if normalization == "utterance":  # batch normalization is part of the model
            features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-5)
        lengths = np.array([len(features)], np.int32)
        outputs = model(features=features[np.newaxis].astype("float32"), lengths=lengths)
        transcript = [labels[k] for k in outputs["labels"][0] if k >= 0]
        print(path, interface["separator"].join(transcript), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python litert.py FOLDER WAV...")
    main(*sys.argv[1:])
