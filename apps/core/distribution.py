"""TensorFlow's distribution strategies, and the changes that Keras 3 needs to run on them."""

import functools
import json
import os

import keras
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.eager import context

from unroll.apps.core.errors import UsageError

NAMES = ("default", "mirrored", "multiworker", "tpu")
# A worker that is silent for so long has ended.
_HEARTBEAT_SECONDS = 100


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy with a name.

    `mirrored` uses all GPUs of this machine, or all logical CPU devices if there is no GPU.
    `multiworker` reads the environment variable `TF_CONFIG`, and must be created before TensorFlow
    runs an operation.

    Raises:
        UsageError: for an unknown name, `multiworker` without `TF_CONFIG`, `tpu` without a TPU.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    if name == "multiworker":
        return _multiworker(json.dumps(_tf_config()))
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        except (ValueError, tf.errors.OpError) as error:
            raise UsageError(f"--strategy=tpu finds no TPU: {error}".splitlines()[0]) from None
        return tf.distribute.TPUStrategy(resolver)
    raise UsageError(f"--strategy={name}: it must be one of {', '.join(NAMES)}.")


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # One for all trainings of a process: a second one would use the keys of the first one's
    # collective operations again, and fail.
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _multiworker(tf_config: str) -> tf.distribute.Strategy:
    # One for all trainings of a process, which belongs to one cluster.
    workers = {job: len(tasks) for job, tasks in json.loads(tf_config)["cluster"].items()}
    names = [job for job in ("chief", "worker") if job in workers]
    # By default, workers end if they do not hear from one of them for ten seconds: a machine that
    # is loaded, or prepares its data, can take longer.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{names[0]}/replica:0/task:0",
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[CoordinatedJob(name=job, num_tasks=workers[job]) for job in names],
    )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def is_chief(name: str) -> bool:
    """Whether this process writes the run's files under a strategy."""
    if name != "multiworker":
        return True
    config = _tf_config()
    first = "chief" if "chief" in config["cluster"] else "worker"
    return (config["task"]["type"], int(config["task"]["index"])) == (first, 0)


def _tf_config() -> dict:
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        addresses = config["cluster"][config["task"]["type"]]
        addresses[int(config["task"]["index"])]
    except (ValueError, KeyError, TypeError, IndexError):
        raise UsageError(
            "--strategy=multiworker needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    return config


def prepare(
    model: keras.Model, used: tf.distribute.Strategy, *datasets: tf.data.Dataset | None
) -> list[tf.data.Dataset | None]:
    """Prepares a compiled model so that `fit` runs under a strategy on the returned datasets.

    A batch is split among the replicas. A batch with fewer examples than replicas is filled by
    repeating its examples, since the mean over none is NaN. The gradient is clipped after the
    replicas' gradients are summed; Keras would clip each of them.

    Keras 3 builds a model on the mean of the replicas' first batches, which fails if these differ
    in length, and reduces scalar logs over workers, which `MultiWorkerMirroredStrategy` rejects.
    So the model is built here on a whole batch, and each log gets an axis.
    """
    if used is tf.distribute.get_strategy():
        return list(datasets)
    # The last one: reading from the training set would use one of its shuffles.
    *_, dataset = (dataset for dataset in datasets if dataset is not None)
    with used.scope():
        model._symbolic_build(data_batch=next(iter(dataset)))
    model._maybe_symbolic_build = lambda *args, **kwargs: None
    if isinstance(used, tf.distribute.MultiWorkerMirroredStrategy):
        for name in ("train_step", "test_step"):
            setattr(model, name, _with_axis(getattr(model, name)))
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    clip, reduce = optimizer._clip_gradients, optimizer._all_reduce_sum_gradients

    def clip_sum(grads):
        return clip([grad for grad, _ in reduce([(grad, None) for grad in grads])])

    optimizer._clip_gradients = clip_sum
    optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars
    replicas = used.num_replicas_in_sync
    return [d if d is None else _at_least(d, replicas) for d in datasets]


def callbacks(used: tf.distribute.Strategy) -> list[keras.callbacks.Callback]:
    """The callbacks of `fit` under a strategy, which come before those that save the weights."""
    return [_AveragedStatistics(used)] if used.num_replicas_in_sync > 1 else []


class _AveragedStatistics(keras.callbacks.Callback):
    """Averages the statistics of the replicas before they are validated, and after each epoch.

    Each replica updates those of Keras's batch normalization with its own examples. Without this,
    replicas would be validated with different weights, and those of the first one saved.
    """

    def __init__(self, used: tf.distribute.Strategy):
        super().__init__()
        self.used = used

    def set_model(self, model):
        super().set_model(model)
        self.statistics = [
            variable.value
            for variable in model.non_trainable_variables
            if variable.aggregation == "none" and variable.dtype.startswith("float")
        ]
        self.average = tf.function(self._average)

    def on_test_begin(self, logs=None):
        self.average()

    def on_epoch_end(self, epoch, logs=None):
        self.average()

    def _average(self) -> None:
        with self.used.scope():
            local = self.used.run(lambda: [each.value() for each in self.statistics])
            for each, values in zip(self.statistics, local, strict=True):
                each.assign(self.used.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None))


def _at_least(dataset: tf.data.Dataset, size: int) -> tf.data.Dataset:
    def fill(*batch):
        count = tf.shape(tf.nest.flatten(batch)[0])[0]
        rows = tf.range(tf.maximum(count, size)) % count
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), batch)

    if tf.nest.flatten(dataset.element_spec)[0].shape[0] is not None:
        return dataset  # filling would lose the static shapes
    return dataset.map(fill)


def _with_axis(step):
    def step_with_axis(*args, **kwargs):
        return {name: tf.reshape(value, (1,)) for name, value in step(*args, **kwargs).items()}

    return step_with_axis
