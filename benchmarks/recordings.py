"""Peak memory of a training of the speech app on many recordings.

    python benchmarks/recordings.py 2000 20000

For each number N it writes N recordings of half a second to a second, as your own files, and
trains a small model for two epochs with the command line, in a process of its own. The table has
the largest resident memory of that process and its time.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile
from measuring import table

RATE = 8000
OPTIONS = "--units=16 --depth=1 --epochs=2 --batch-size=32 --rate=8000 --unit=characters"


def write(folder: Path, count: int) -> None:
    """Writes `count` recordings of noise, with transcripts."""
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.1, size=2 * RATE)
    lines = []
    for k in range(count):
        begin, length = rng.integers(RATE), rng.integers(RATE // 2, RATE)
        soundfile.write(folder / f"{k}.wav", noise[begin : begin + length], RATE)
        lines.append(f"{k}.wav\t{'ab ba'[k % 3 :]}\n")
    (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")


def measure(count: int) -> list[str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        write(folder, count)
        command = [sys.executable, "-m", "unroll", "speech_ctc", "train", *OPTIONS.split()]
        command += [f"--data={folder}", f"--run={temporary}/run"]
        environment = {**os.environ, "TFDS_DATA_DIR": f"{temporary}/tfds"}
        start = time.monotonic()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
    # The largest of all processes so far: the numbers must grow.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [f"{count:,}", f"{peak:.2f}", f"{seconds:.0f}"]


def main(counts: list[int]) -> None:
    """Prints the table."""
    rows = [measure(count) for count in sorted(counts)]
    print("\n".join(table(["recordings", "peak memory in GiB", "seconds"], rows)))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/recordings.py NUMBER...")
    main([int(number) for number in sys.argv[1:]])
