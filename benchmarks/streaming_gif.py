"""An animated terminal: a recording is transcribed while it is read.

    python benchmarks/streaming_gif.py RUN RECORDING.wav apps/speech_ctc/streaming.gif

RUN is a run of the speech app that can stream, such as one trained with `--bidirectional=False`.
Each frame shows the transcript after 0.2 s more of the recording, with the waveform read so far.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib
import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from unroll.apps.core.evaluation import load_trained
from unroll.apps.core.runs import Run
from unroll.apps.speech_ctc import app

SECONDS = 0.2  # per piece


def frame(command: str, transcript: str, samples: np.ndarray, read: float) -> Image.Image:
    """A terminal with the command and the transcript, above the waveform up to `read` (0 to 1)."""
    figure = Figure(figsize=(7, 2.4), facecolor="#1e1e1e")
    text = figure.add_axes((0, 0.5, 1, 0.5))
    text.axis("off")
    font = {"family": "monospace", "fontsize": 12}
    text.text(0.02, 0.65, f"$ {command}", color="#9cdcfe", **font)
    text.text(0.02, 0.15, f"{transcript}▌", color="white", **font)
    wave = figure.add_axes((0.02, 0.02, 0.96, 0.42))
    wave.axis("off")
    time = np.linspace(0, 1, len(samples))
    wave.plot(time, samples, color="#444444", linewidth=0.6)
    wave.plot(time[time <= read], samples[time <= read], color="#4ec9b0", linewidth=0.6)
    wave.set(xlim=(0, 1))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P", palette=Image.ADAPTIVE)


def main(folder: str, recording: str, path: str) -> None:
    """Writes the animation."""
    matplotlib.use("Agg")
    trained = load_trained(app, Run.open(app, folder))
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    samples = samples.mean(axis=1)
    command = f"unroll speech_ctc predict RUN {Path(recording).name} --stream"
    frames, transcript = [frame(command, "", samples, 0.0)], ""
    for k, piece in enumerate(app.stream(trained, recording), start=1):
        transcript += piece
        read = min(1.0, k * SECONDS * rate / len(samples))
        frames.append(frame(command, transcript, samples, read))
    durations = [1000 * SECONDS] * (len(frames) - 1) + [2500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python benchmarks/streaming_gif.py RUN RECORDING GIF")
    main(*sys.argv[1:])
