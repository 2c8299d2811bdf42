"""Helpers of the benchmarks: time, memory and tables."""

import multiprocessing
import platform
import resource
import statistics
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path


def peak_of(work: Callable) -> float:
    """MiB that `work()` adds to the peak memory of this process."""
    before, samples, done = resident(), [], threading.Event()

    def watch():
        while not done.wait(0.001):
            samples.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(samples) - before


def resident() -> float:
    """Resident memory of this process in MiB, on Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def processor() -> str:
    """The name of the processor, on Linux."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def in_a_fresh_process(function: Callable, *arguments):
    """The result of a module's function, computed in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def seconds_of(
    functions: dict, rounds: int = 5, first: int = 1, clock: Callable = time.perf_counter
) -> dict[str, float]:
    """The median time of each function, interleaved, after `first` untimed calls of each."""
    taken = {name: [] for name in functions}
    for k in range(-first, rounds):
        for name, function in functions.items():
            start = clock()
            function()
            if k >= 0:
                taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def seconds_in_turns(
    classes: dict[str, type],
    arguments: tuple,
    methods: dict[str, tuple[str, ...]],
    rounds: int,
    interpreters: dict[str, str] | None = None,
) -> dict[tuple[str, str], float]:
    """The median seconds of methods of objects that have a process each and take turns.

    Args:
        classes: by name, of a module.
        arguments: of each of them.
        methods: to call in each round, by the name of the class.
        rounds: their number, after one that is not counted.
        interpreters: Python executables by name, of environments that have NumPy and what the class
            needs. By default, the one that runs this.

    Returns:
        The seconds by the names of class and method.
    """
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    for name, made in classes.items():
        context.set_executable((interpreters or {}).get(name, sys.executable))
        connections[name], other = context.Pipe()
        processes.append(context.Process(target=_serve, args=(made, arguments, other), daemon=True))
        processes[-1].start()
        connections[name].recv()
    taken: dict[tuple[str, str], list[float]] = {}
    for k in range(-1, rounds):
        for name, connection in connections.items():
            for method in methods[name]:
                connection.send(method)
                seconds = connection.recv()
                if k >= 0:
                    taken.setdefault((name, method), []).append(seconds)
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send(None)
        process.join()
    return {key: statistics.median(seconds) for key, seconds in taken.items()}


def _serve(made: type, arguments: tuple, connection) -> None:
    """Runs the methods that the connection names, and answers with the seconds that each takes."""
    # `multiprocessing` gives this process the search path of its parent.
    sys.path.insert(0, sysconfig.get_path("purelib"))
    made = made(*arguments)
    connection.send(0.0)
    while method := connection.recv():
        start = time.perf_counter()
        getattr(made, method)()
        connection.send(time.perf_counter() - start)


def table(header: list[str], rows: list[list]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(x) for x in line) + " |" for line in lines]
