"""Turns off the primitive cache of oneDNN where TensorFlow would corrupt memory.

On a CPU, TensorFlow computes matrix products with primitives of oneDNN, which oneDNN caches for all
threads of a process. If two threads run the same batched product at the same time, they share a
primitive and write into memory that one of them has freed. Sooner or later the process dies. Every
attention layer has such products.

`ONEDNN_PRIMITIVE_CACHE_CAPACITY=0` turns this cache off. TensorFlow keeps a cache of its own for
each thread, so little speed is lost. oneDNN reads the variable at the first product of a process:
import `unroll.layers` before that. A process that runs an exported model on a CPU without this
package, such as TensorFlow Serving, needs the variable in its environment.

| TensorFlow | oneDNN | seen | variable set |
| --- | --- | --- | --- |
| 2.21.0 | 3.7.3 | processes died in training | yes |
| 2.20.0 | 3.7.3 | the same oneDNN, shared between threads in the same way | yes |
| 2.19.1 | 3.5.0 | shared between threads too; no process died | no |

Other versions were not tried.
"""

import os

import tensorflow as tf

VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
AFFECTED_VERSIONS = ("2.20.", "2.21.")


def is_affected(version: str, device_types: list[str]) -> bool:
    """Whether this TensorFlow version corrupts memory on these devices.

    >>> is_affected("2.21.0", ["CPU"])
    True
    >>> is_affected("2.21.0", ["CPU", "GPU"])
    False
    """
    return version.startswith(AFFECTED_VERSIONS) and set(device_types) == {"CPU"}


def turn_off_primitive_cache() -> None:
    """Sets the variable where it is needed, unless the user has set it."""
    devices = tf.config.list_physical_devices()
    if is_affected(tf.__version__, [device.device_type for device in devices]):
        os.environ.setdefault(VARIABLE, "0")
