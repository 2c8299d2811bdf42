"""Peak memory of a training of the question app on many pictures.

    python benchmarks/pictures.py 5000 50000

For each number N it writes N pictures of 64 x 64 pixels with two questions each, as your own
files, and trains a small model for an epoch with the command line, in a process of its own. The
table has the size of the pictures, the largest resident memory of that process and its time.
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
from measuring import table
from PIL import Image

SIDE = 64
OPTIONS = "--units=8 --embedding-dim=8 --fusion-units=16 --filters=4 --stages=2 --epochs=1"


def write(folder: Path, count: int) -> None:
    """Writes `count` pictures with blocks of random colors, and questions."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(count):
        blocks = rng.integers(0, 256, (16, 16, 3), np.uint8)
        pixels = blocks.repeat(SIDE // 16, axis=0).repeat(SIDE // 16, axis=1)
        Image.fromarray(pixels).save(folder / f"{k}.png", compress_level=1)
        bright = "yes" if pixels.mean() > 127 else "no"
        lines += [f"{k}.png\tis it bright ?\t{bright}\n", f"{k}.png\twhat is it ?\tnoise\n"]
    (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")


def measure(count: int) -> list[str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        write(folder, count)
        command = [sys.executable, "-m", "unroll", "vqa", "train", *OPTIONS.split()]
        command += [f"--data={folder}", f"--run={temporary}/run", f"--image-size={SIDE}"]
        environment = {**os.environ, "TFDS_DATA_DIR": f"{temporary}/tfds"}
        start = time.monotonic()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
    # The largest of all processes so far: the numbers must grow.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [f"{count:,}", f"{count * SIDE**2 * 3 / 2**20:.0f}", f"{peak:.2f}", f"{seconds:.0f}"]


def main(counts: list[int]) -> None:
    """Prints the table."""
    heads = ["pictures", "pixels in MiB", "peak memory in GiB", "seconds"]
    print("\n".join(table(heads, [measure(count) for count in sorted(counts)])))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/pictures.py NUMBER...")
    main([int(number) for number in sys.argv[1:]])
