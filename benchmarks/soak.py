"""Load and bad input: random and hostile requests to exported models.

    python benchmarks/soak.py [--requests=N] [--threads=N] [APP | APP=EXPORT ...]

Without an export, an app is trained for an epoch on a part of its generated data. The export runs
in a process of its own, as in TF Serving: see `served.py`; the requests are those of
`hostile_requests.py`. A fifth of N requests are made. Each of their rows is answered alone, one at
a time. Then several threads ask the process for all of them, five times, each time in another
order. A fault is

- a process that ends, or does not answer in time;
- an answer or an error that differs from that of the rows alone, in more than padding;
- a text in an answer that is not UTF-8, or a NaN in the answer to numbers below a billion;
- memory that grows: by more than 5 % from the end of the first time to the end of the last.

The script writes `benchmarks/results/soak.md`; the rows of other apps in that file are kept. It
ends with exit code 1 if there was a fault. `Requests(folder)(number)` makes a request again.
"""

import argparse
import collections
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from generated_runs import train
from hostile_requests import Request, Requests
from measuring import table
from served import Answer, Died, Served, load_saved_model

from unroll.apps.core import cli
from unroll.apps.core.quiet import import_tensorflow

RESULTS = Path(__file__).parent / "results" / "soak.md"
HEADER = [
    "app", "requests", "rows alone", "refused, malformed", "other errors", "largest difference",
    "MiB at 20 / 60 / 100 %", "p50 / p99 ms", "CPU minutes", "faults",
]  # fmt: skip
REPEATS = 5
TIMEOUT = 300.0
TOLERANCE = 1e-4  # of a float, relative to the largest of the output if that is above 1
GROWTH = 0.05
LARGEST = 1e9  # the sums of larger numbers and of their squares may overflow
# What a server needs, and memory that is given back when it is free, so that growth can be seen.
ENVIRONMENT = {
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclass
class Report:
    """What the requests to an export have shown.

    Attributes:
        rows: the number of those that were answered alone.
        malformed: the number of errors of requests that do not fit their signature.
        errors: the other errors, by their first words.
        difference: the largest one of a float.
        memory: resident MiB after each time that all requests were sent.
        seconds: of each request.
        faults: one line each.
    """

    rows: int = 0
    malformed: int = 0
    errors: collections.Counter = field(default_factory=collections.Counter)
    difference: float = 0.0
    memory: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, number: int, request: Request, what: str) -> None:
        """Adds a fault, and prints it."""
        line = f"request {number}, {request.signature} ({request.kind}): {what}"
        self.faults.append(line)
        print(line, file=sys.stderr, flush=True)


def soak(requests: Requests, folder: Path, count: int, threads: int, load=load_saved_model):
    """Sends requests to an export.

    Args:
        requests: a function of a number.
        folder: of the export.
        count: the number of requests.
        threads: that send them.
        load: as in `Served`.

    Returns:
        A `Report`.
    """
    report = Report()
    numbers = range(-(-count // REPEATS))
    lock = threading.Lock()
    pool = Processes(load, folder, threads)
    alone = [answers_alone(requests, number, pool, report) for number in numbers]

    def send(number: int) -> None:
        request = requests(number)
        try:
            found, seconds = pool.ask(request)
        except Died as error:
            with lock:
                report.fault(number, request, f"the process ended: {error}")
            return
        wrong, difference = compare(request, found, alone[number])
        with lock:
            report.seconds.append(seconds)
            report.difference = max(report.difference, difference)
            if isinstance(found, str) and not fits(request, requests.signatures):
                report.malformed += 1
            elif isinstance(found, str):
                report.errors[kind_of(found)] += 1
            for what in wrong:
                report.fault(number, request, what)

    with ThreadPoolExecutor(threads) as executor:
        for repeat in range(REPEATS):
            order = np.random.default_rng(repeat).permutation(numbers)
            collections.deque(executor.map(send, order.tolist()), maxlen=0)
            report.memory.append(pool.served.resident())
    pool.close()
    # Large requests that meet for the first time take new memory: a leak goes on.
    half, last = report.memory[REPEATS // 2], report.memory[-1]
    if last > (1 + GROWTH) * half:
        report.faults.append(f"memory grows from {half:.0f} to {last:.0f} MiB")
        print(report.faults[-1], file=sys.stderr, flush=True)
    return report


class Processes:
    """A process that is started again if it ends.

    Args:
        load, folder, threads: as in `Served`.
    """

    def __init__(self, load, folder: Path, threads: int):
        self._make = lambda: Served(load, folder, threads)
        self.served = self._make()
        self._free = list(range(threads))
        self._lock = threading.Lock()

    def ask(self, request: Request) -> tuple[Answer, float]:
        """The answer to a request and its seconds. If the process ends, so do all its requests."""
        with self._lock:
            thread, served = self._free.pop(), self.served
        try:
            return served.ask(thread, request.signature, request.inputs, TIMEOUT)
        except Died:
            with self._lock:
                if served is self.served:
                    served.close()
                    self.served = self._make()
            raise
        finally:
            with self._lock:
                self._free.append(thread)

    def close(self) -> None:
        """Ends the process."""
        self.served.close()


def answers_alone(requests: Requests, number: int, pool: Processes, report: Report) -> list[Answer]:
    """The answers to the rows of a request, which are sent one after the other."""
    answers: list[Answer] = []
    for row in rows_of(requests(number), requests.signatures):
        try:
            answers.append(pool.ask(row)[0])
        except Died as error:
            answers.append(f"Died: {error}")
            report.fault(number, row, f"the process ended: {error}")
    report.rows += len(answers)
    return answers


def rows_of(request: Request, signatures: dict) -> list[Request]:
    """A request for each row; the same request if it has at most one, or is malformed."""
    count = len(next(iter(request.inputs.values()))) if fits(request, signatures) else 1
    if count < 2:
        return [request]
    rows = ({name: x[k : k + 1] for name, x in request.inputs.items()} for k in range(count))
    return [Request(request.signature, row, request.kind) for row in rows]


def fits(request: Request, signatures: dict) -> bool:
    """Whether the inputs have the names, types and shapes of a signature, and equally many rows."""
    specs = signatures[request.signature]["inputs"]
    if set(specs) != set(request.inputs):
        return False
    for name, spec in specs.items():
        value, shape = request.inputs[name], spec["shape"]
        kind = "object" if spec["dtype"] == "string" else spec["dtype"]
        if value.ndim != len(shape) or value.dtype != kind:
            return False
        if not all(size in (None, n) for size, n in zip(shape, value.shape, strict=True)):
            return False
    return len({request.inputs[name].shape[0] for name in specs}) == 1


def compare(request: Request, found: Answer, alone: list[Answer]) -> tuple[list[str], float]:
    """What is wrong with an answer, and the largest difference of its floats.

    Args:
        request: the request.
        found: its answer.
        alone: the answers to its rows, or the one to the same request.
    """
    errors = {kind_of(each) for each in alone if isinstance(each, str)}
    if isinstance(found, str) or errors:
        if len(alone) > 1 and not (isinstance(found, str) and len(errors) == 1):
            return [f"{found if isinstance(found, str) else 'answer'}, but rows: {errors}"], 0.0
        if isinstance(found, str) and len(alone) > sum(isinstance(x, str) for x in alone):
            return [f"one row is an error for all: {found}"], 0.0
        # Of several operations that fail, any may be the first: the types of the errors are equal.
        same = isinstance(found, str) and {type_of(found)} == {type_of(each) for each in errors}
        return [] if same else [f"{str(found)[:200]}, but alone {errors or 'an answer'}"], 0.0
    wrong, largest = [], 0.0
    numbers = [x for x in request.inputs.values() if x.dtype.kind == "f"]
    usual = all((np.abs(x) < LARGEST).all() for x in numbers)  # not for NaN
    for name, value in found.items():
        if value.dtype == object and not all(is_utf8(x) for x in value.flat):
            wrong.append(f"{name} is not UTF-8")
        if usual and value.dtype.kind == "f" and np.isnan(value).any():
            wrong.append(f"{name} has a NaN")
        if len(alone) > 1 and value.shape[:1] != (len(alone),):
            wrong.append(f"{name} has the shape {value.shape}")
            continue
        for k, answer in enumerate(alone):
            whole, part = (value[k], answer[name][0]) if len(alone) > 1 else (value, answer[name])
            difference = difference_of(np.asarray(whole), np.asarray(part))
            if difference > TOLERANCE:
                wrong.append(f"{name} of row {k} differs by {difference:g}")
            else:
                largest = max(largest, difference)
    return wrong, largest


def difference_of(whole: np.ndarray, part: np.ndarray) -> float:
    """The largest difference of a row from the row alone, apart from padding at its end.

    Infinity if strings, integers or infinite values differ, or what is left is not padding.
    """
    if whole.ndim != part.ndim or any(a < b for a, b in zip(whole.shape, part.shape, strict=True)):
        return np.inf
    own = whole[tuple(slice(size) for size in part.shape)]
    if whole.size > part.size:
        rest = np.ones(whole.shape, bool)
        rest[tuple(slice(size) for size in part.shape)] = False
        if not np.isin(whole[rest], [b""] if whole.dtype == object else [0, -1]).all():
            return np.inf
    if whole.dtype.kind != "f":
        return 0.0 if np.array_equal(own, part) else np.inf
    if not np.array_equal(np.isfinite(own), np.isfinite(part)):
        return np.inf
    usual = np.isfinite(part)
    if not np.array_equal(own[~usual], part[~usual], equal_nan=True):
        return np.inf
    apart = np.abs(own[usual].astype("float64") - part[usual])
    return float(apart.max(initial=0.0) / np.abs(part[usual]).max(initial=1.0))


def is_utf8(value: bytes) -> bool:
    """Whether bytes are UTF-8, as JSON has to be."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def type_of(error: str) -> str:
    """The type of an error, such as `InvalidArgumentError`."""
    return error.partition(":")[0]


def kind_of(error: str) -> str:
    """An error without the numbers and names that differ between requests."""
    return re.sub(r"\d+", "N", re.split(r"[\[{('\"]", error)[0]).strip()[:80]


def exported(name: str, given: str, temporary: Path) -> Path:
    """The folder of the export that is given, or of one of a short training."""
    if given:
        return Path(given)
    run = train(name, temporary, "--epochs=1", "--generated-size=0.1")
    options = [f"--to={temporary}", "--formats=saved_model"]
    if cli.main([name, "export", run, *options]):
        sys.exit(1)
    return temporary / name / "1"


def row_of(name: str, folder: Path, count: int, threads: int) -> tuple[list, Report]:
    """The row of an app's export in the table."""
    before = sum(os.times()[:4])
    report = soak(Requests(folder), folder, count, threads)
    minutes = (sum(os.times()[:4]) - before) / 60
    middle, slow = 1e3 * np.percentile(report.seconds, [50, 99])
    errors = "; ".join(f"{n} {kind}" for kind, n in report.errors.most_common())
    first, half, last = (report.memory[k] for k in (0, REPEATS // 2, -1))
    row = [
        name, len(report.seconds), report.rows, report.malformed, errors or "none",
        f"{report.difference:.0e}", f"{first:.0f} / {half:.0f} / {last:.0f}",
        f"{middle:.1f} / {slow:.0f}", f"{minutes:.1f}", len(report.faults),
    ]  # fmt: skip
    return row, report


def rows_so_far() -> Iterator[tuple[str, list[str]]]:
    """The rows of the results file, by app."""
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.exists() else []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(HEADER) and cells[0] not in (HEADER[0], "---"):
            yield cells[0], cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="to each app")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("apps", nargs="*", metavar="APP[=EXPORT]", default=list(cli.describe()))
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    import_tensorflow()
    failed = False
    about = platform.machine()
    for each in arguments.apps:
        name, _, given = each.partition("=")
        start = time.strftime("%H:%M")
        with tempfile.TemporaryDirectory() as temporary:
            folder = exported(name, given, Path(temporary))
            row, report = row_of(name, folder, arguments.requests, arguments.threads)
        found = dict(rows_so_far()) | {name: row}
        failed |= bool(report.faults)
        print(start, *table(HEADER, [row]), sep="\n", flush=True)
        lines = table(HEADER, [found[key] for key in sorted(found)])
        title = f"# Soak of exports\n\n`python benchmarks/soak.py`; {arguments.threads} threads, "
        RESULTS.write_text(f"{title}{about}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
