"""Generated digit strings, spoken by a formant synthesizer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal

from unroll.pipelines.datasets.base import Generated
from unroll.pipelines.datasets.speech.base import DIGITS, Speech
from unroll.pipelines.sound import encode_wav

RATE = 8000
SIZES = {"train": 1200, "valid": 120, "test": 240}
SPEAKERS = {"train": 60, "valid": 12, "test": 24}
_BLOCK = 40  # samples between updates of the filters: 5 ms


@dataclass(frozen=True)
class Phone:
    """A sound of speech.

    Attributes:
        start, end: the first three formants in Hz, at the start and the end (Peterson and Barney
            1952 for the vowels).
        voice, breath: the loudness of the vocal folds, and of the noise.
        hiss: the center of the noise band, in Hz.
        length: in ms, at a rate of 1.
    """

    start: tuple[int, int, int]
    end: tuple[int, int, int] | None = None
    voice: float = 1.0
    breath: float = 0.0
    hiss: int = 2500
    length: int = 100


PHONES = {
    "AH": Phone((640, 1190, 2390), length=110),
    "AO": Phone((570, 840, 2410), length=130),
    "AY": Phone((730, 1150, 2440), (330, 2100, 2750), length=190),
    "EH": Phone((530, 1840, 2480), length=100),
    "EY": Phone((480, 1950, 2550), (330, 2250, 2850), length=150),
    "IH": Phone((390, 1990, 2550), length=80),
    "IY": Phone((270, 2290, 3010), length=150),
    "OW": Phone((500, 950, 2400), (350, 750, 2300), length=160),
    "UW": Phone((300, 870, 2240), length=170),
    "N": Phone((280, 1300, 2600), voice=0.4, length=75),
    "R": Phone((330, 1080, 1500), voice=0.8, length=70),
    "W": Phone((290, 610, 2150), voice=0.6, length=60),
    "V": Phone((230, 1100, 2080), voice=0.4, breath=0.03, hiss=2000, length=60),
    "Z": Phone((240, 1700, 2530), voice=0.3, breath=0.12, hiss=3500, length=80),
    "F": Phone((230, 1100, 2080), voice=0.0, breath=0.06, hiss=1800, length=100),
    "S": Phone((300, 1700, 2600), voice=0.0, breath=0.25, hiss=3600, length=120),
    "TH": Phone((300, 1400, 2600), voice=0.0, breath=0.05, hiss=2600, length=90),
    "-": Phone((300, 1500, 2500), voice=0.0, length=50),  # closed lips or tongue
    "K": Phone((300, 1800, 2300), voice=0.0, breath=0.20, hiss=1700, length=30),
    "T": Phone((300, 1800, 2600), voice=0.0, breath=0.20, hiss=3300, length=30),
}
PRONUNCIATIONS = {
    "zero": "Z IH R OW",
    "one": "W AH N",
    "two": "- T UW",
    "three": "TH R IY",
    "four": "F AO R",
    "five": "F AY V",
    "six": "S IH - K S",
    "seven": "S EH V AH N",
    "eight": "EY - T",
    "nine": "N AY N",
}


@dataclass(frozen=True)
class Speaker:
    """A speaker: pitch in Hz, length of the vocal tract, speaking rate, noise of the room."""

    pitch: float
    tract: float
    rate: float
    noise: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Speaker":
        """A random speaker: a high pitch tends to come with a short vocal tract."""
        tract = rng.uniform(0.85, 1.2)
        return cls(
            pitch=150 / tract**1.5 * rng.uniform(0.75, 1.35),
            tract=tract,
            rate=rng.uniform(0.75, 1.35),
            noise=10 ** rng.uniform(-2.5, -1.2),
        )


def speak(words: list[str], speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """The samples of some digits, `[N]`, at 8 kHz.

    Glottal pulses and a band of noise are filtered by three resonators, whose frequencies change
    smoothly from sound to sound (Klatt 1980, "Software for a cascade/parallel formant
    synthesizer").
    """
    phones = []
    for word in words:
        pause = Phone(PHONES["-"].start, voice=0.0, length=int(rng.integers(10, 160)))
        phones += [pause, *(PHONES[name] for name in PRONUNCIATIONS[word].split())]
    phones.append(Phone(PHONES["-"].start, voice=0.0, length=100))
    rows = []  # for each block: three formants, voice, breath, hiss
    for phone in phones:
        count = max(2, round(phone.length * rng.uniform(0.85, 1.15) / speaker.rate / 5))
        ends = np.linspace(phone.start, phone.end or phone.start, count)
        rest = np.tile([phone.voice, phone.breath, phone.hiss], (count, 1))
        rows.append(np.concatenate([ends, rest], axis=1))
    track = np.concatenate(rows)
    kernel = np.ones(7) / 7  # smooths the track: a tongue moves continuously
    track = signal.convolve(np.pad(track, ((3, 3), (0, 0)), "edge"), kernel[:, None], "valid")
    track[:, :3] /= speaker.tract
    count = len(track) * _BLOCK

    # The pitch falls towards the end, with some jitter.
    pitch = speaker.pitch * np.linspace(1.1, 0.85, count)
    pitch *= 1 + 0.02 * np.interp(
        np.arange(count), np.arange(0, count, 400), rng.normal(size=len(range(0, count, 400)))
    )
    phase = np.cumsum(pitch) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) * rng.uniform(0.9, 1.1, count)
    voice = signal.lfilter([1, -0.95], [1, -1.7, 0.74], pulses)  # vocal folds and lips
    voice *= np.repeat(track[:, 3], _BLOCK)
    noise = rng.normal(size=count)

    voiced, hissed = np.zeros(count), np.zeros(count)
    states = np.zeros((4, 2))
    for k, (*formants, _, _, hiss) in enumerate(track):
        part = slice(k * _BLOCK, (k + 1) * _BLOCK)
        middle = min(hiss / speaker.tract, 3800)
        hissed[part], states[3] = _resonate(noise[part], middle, 700, states[3])
        value = voice[part]
        for n, (frequency, width) in enumerate(zip(formants, (70, 100, 150), strict=True)):
            value, states[n] = _resonate(value, min(frequency, 3800), width, states[n])
        voiced[part] = value
    hissed *= np.repeat(track[:, 4], _BLOCK) / hissed.std()
    samples = voiced / np.abs(voiced).max() + hissed
    hum = signal.lfilter([1], [1, -0.6], rng.normal(size=count))
    samples = samples + speaker.noise * hum
    return (0.7 * rng.uniform(0.4, 1.0) * samples / np.abs(samples).max()).astype("float32")


def _resonate(x, frequency: float, width: float, state) -> tuple[np.ndarray, np.ndarray]:
    """The output and the state of a resonator with a gain of 1 at 0 Hz."""
    radius = np.exp(-np.pi * width / RATE)
    a = [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2]
    return signal.lfilter([sum(a)], a, x, zi=state)


class SpokenDigits(Generated, Speech, skip_registration=True):
    """1,200 / 120 / 240 strings of one to five digits at 8 kHz.

    Training has 60 speakers, validation 12 others, test 24 others, with different pitch, vocal
    tract and rate. Each recording has noise, 8 to 32 dB below its peak. Digits are uniform and
    independent: a baseline that predicts the most frequent string is almost always wrong, and a
    language model does not help. A perfect model makes no error.
    """

    SIZES = SIZES
    MIN_SIZE = 12

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for k, (words, speaker, samples) in enumerate(recordings(split, self.sizes[split])):
            audio = encode_wav(samples, RATE).numpy()
            row = {"audio": audio, "transcript": " ".join(words), "speaker": str(speaker)}
            yield f"{split}_{k}", row


def recordings(split: str, count: int) -> Iterator[tuple[list[str], int, np.ndarray]]:
    """The first recordings of a split: words, index of the speaker, samples."""
    rng = np.random.default_rng([7, list(SIZES).index(split)])
    speakers = [Speaker.sample(rng) for _ in range(SPEAKERS[split])]
    for k in range(count):
        speaker = k % len(speakers)
        words = [DIGITS[d] for d in rng.integers(10, size=rng.integers(1, 6))]
        yield words, speaker, speak(words, speakers[speaker], rng)
