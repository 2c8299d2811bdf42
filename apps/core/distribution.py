"""TensorFlow's own distribution strategies, and what makes Keras 3 run on them."""

import tensorflow as tf

from apps.core.errors import UsageError

NAMES = ("default", "mirrored", "multiworker", "tpu")


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name.

    `mirrored` is all GPUs of this machine, or all logical CPU devices where there is no GPU;
    `multiworker` is what the environment variable `TF_CONFIG` tells.

    Raises:
        UsageError: for an unknown name, `multiworker` without `TF_CONFIG`, `tpu` without a TPU.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multiworker":
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        if not resolver.cluster_spec().as_dict():
            raise UsageError("--strategy=multiworker needs the environment variable TF_CONFIG.")
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        except (ValueError, tf.errors.OpError) as error:
            raise UsageError(f"--strategy=tpu finds no TPU: {error}".splitlines()[0]) from None
        return tf.distribute.TPUStrategy(resolver)
    raise UsageError(f"--strategy={name}: it must be one of {', '.join(NAMES)}.")


def is_chief(used: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    resolver = used.cluster_resolver
    if not isinstance(used, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    return (resolver.task_type, resolver.task_id) in ((None, None), ("chief", 0), ("worker", 0))


def prepare(model, used: tf.distribute.Strategy, dataset: tf.data.Dataset) -> None:
    """Makes a compiled model's `fit` run under `MultiWorkerMirroredStrategy`.

    Keras 3 builds a model on the first distributed batch, which no single worker can read, and
    reduces the scalar logs of the workers, which the strategy refuses. So the metrics are built
    here on a local batch, and each log gets an axis.
    """
    if not isinstance(used, tf.distribute.MultiWorkerMirroredStrategy):
        return
    features, labels, *weights = next(iter(dataset))
    with used.scope():
        model._symbolic_build(data_batch=(features, labels, *weights))
    model._maybe_symbolic_build = lambda *args, **kwargs: None
    for name in ("train_step", "test_step"):
        setattr(model, name, _with_axis(getattr(model, name)))


def _with_axis(step):
    def step_with_axis(*args, **kwargs):
        return {name: tf.reshape(value, (1,)) for name, value in step(*args, **kwargs).items()}

    return step_with_axis
