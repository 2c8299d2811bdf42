"""An exported model in a process of its own, as TF Serving runs it: a session and some threads.

The process answers requests on several connections at once. If a request ends it, the connection
of that request breaks, and the parent process goes on.
"""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from unroll.apps.core.quiet import import_tensorflow

# What a function answers: tensors by name, or the first line of an error.
Answer = dict[str, np.ndarray] | str


class Died(Exception):
    """The process of a model ended."""


class Served:
    """A process that runs a model.

    Args:
        load: a function of a module, which the process calls once: from a folder to a function of
            the name of a signature and its inputs, which returns an `Answer`.
        folder: of the export.
        threads: how many requests may run at once.
    """

    def __init__(self, load: Callable, folder: Path, threads: int):
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(threads)]
        self.connections = [own for own, _ in pairs]
        others = [other for _, other in pairs]
        self.process = context.Process(target=_serve, args=(load, folder, others), daemon=True)
        self.process.start()
        for other in others:
            other.close()  # a process that has ended is an end of file

    def ask(self, thread: int, signature: str, inputs: dict, timeout: float) -> tuple:
        """The answer to a request, and its seconds.

        Args:
            thread: a number below that of the threads. Each has one request at a time.
            signature, inputs: of the request.
            timeout: seconds after which the process is ended.

        Raises:
            Died: if the process ended, with how.
        """
        connection = self.connections[thread]
        try:
            connection.send((signature, inputs))
            if not connection.poll(timeout):
                self.process.kill()
                raise Died(f"no answer in {timeout:g} seconds")
            return connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            raise Died(f"exit code {self.process.exitcode}") from None

    def resident(self) -> float:
        """Its resident memory in MiB, on Linux."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (size,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
        return int(size) / 1024

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()


def _serve(load: Callable, folder: Path, connections: list[Connection]) -> None:
    answer = load(folder)

    def listen(connection: Connection) -> None:
        while True:
            signature, inputs = connection.recv()
            start = time.perf_counter()
            found = answer(signature, inputs)
            connection.send((found, time.perf_counter() - start))

    threads = [
        threading.Thread(target=listen, args=(each,), daemon=True) for each in connections[1:]
    ]
    for thread in threads:
        thread.start()
    listen(connections[0])


def load_saved_model(folder: Path) -> Callable[[str, dict], Answer]:
    """A SavedModel in a session, as TF Serving runs it.

    The server compares the names of the inputs with the signature. Types and shapes are left to the
    operations of the model; Python's `Session.run` would refuse them.
    """
    import_tensorflow()
    import tensorflow as tf
    import tensorflow_text  # noqa: F401, registers its ops
    from tensorflow.core.protobuf import config_pb2

    session = tf.compat.v1.Session(graph=tf.Graph())
    definitions = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
    functions = {}
    for name, definition in definitions.items():
        if definition.method_name != "tensorflow/serving/predict":
            continue  # an initialization
        inputs, outputs = dict(definition.inputs), dict(definition.outputs)
        options = config_pb2.CallableOptions()
        options.feed.extend(info.name for info in inputs.values())
        options.fetch.extend(info.name for info in outputs.values())
        # There is no public function that leaves the shapes to the model.
        run = session._make_callable_from_options(options)
        functions[name] = (run, list(inputs), list(outputs))

    def answer(signature: str, given: dict) -> Answer:
        run, inputs, outputs = functions[signature]
        if set(given) != set(inputs):
            return "InvalidArgument: input size does not match signature"
        try:
            found = run(*(given[name] for name in inputs))
        except tf.errors.OpError as error:
            message = str(error.message).strip() or "no message"
            return f"{type(error).__name__}: {message.splitlines()[0][:300]}"
        return dict(zip(outputs, found, strict=True))

    return answer
