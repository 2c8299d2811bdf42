"""The rules of TF Serving for an exported model, as far as they can be checked without a server.

They follow the server's source: `file_system_storage_path_source.cc`, `predict_util.cc`,
`saved_model_warmup_util.cc`, `batching_session.cc`, `batching_util.cc` and `json_tensor.cc`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

_MOST_RECORDS = 1000  # of warm-up requests
_PREDICT = "tensorflow/serving/predict"


def versions(base_path: Path) -> dict[int, str]:
    """The folders of a model that the server reads, by version."""
    found = {}
    for path in base_path.iterdir():
        # What `safe_strto64` parses.
        if re.fullmatch(r"[-+]?\d+", path.name) and -(2**63) <= int(path.name) < 2**63:
            assert int(path.name) not in found
            found[int(path.name)] = path.name
    return found


def signatures(folder: Path) -> dict:
    """The `SignatureDef`s that a client can name."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (graph,) = (each for each in model.meta_graphs if set(each.meta_info_def.tags) == {"serve"})
    return {k: v for k, v in graph.signature_def.items() if not k.startswith("__saved_model")}


def check_signatures(folder: Path) -> None:
    """Names, types and shapes: what requests, their batching and the REST interface need."""
    found = signatures(folder)
    assert "serving_default" in found
    for name, signature in found.items():
        assert re.fullmatch(r"\w+", name)
        assert signature.method_name == _PREDICT
        assert not signature.defaults
        for tensors in (signature.inputs, signature.outputs):
            assert tensors
            for key, info in tensors.items():
                assert re.fullmatch(r"\w+", key)
                assert info.name  # not sparse, not composite
                assert info.dtype != tf.as_dtype("float64").as_datatype_enum
                assert not info.tensor_shape.unknown_rank
                # The REST interface sends the bytes of other strings as text.
                if key.endswith("_bytes"):
                    assert info.dtype == tf.string.as_datatype_enum
                # The server joins requests along the first axis, and splits the answers.
                assert info.tensor_shape.dim[0].size == -1


def warm_up_requests(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The names of the signatures and the inputs of the warm-up requests, which are checked."""
    found, known = [], signatures(folder)
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == folder.parent.name
        signature = known[request.model_spec.signature_name]
        assert set(request.inputs) == set(signature.inputs)
        for key, value in request.inputs.items():
            info = signature.inputs[key]
            assert value.dtype == info.dtype
            shape = tf.TensorShape(info.tensor_shape)
            assert shape.is_compatible_with(tf.TensorShape(value.tensor_shape))
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        found.append((request.model_spec.signature_name, inputs))
    assert 0 < len(found) <= _MOST_RECORDS
    assert {name for name, _ in found} == set(known)
    return found


def check_outputs(outputs: dict[str, np.ndarray], rows: int) -> None:
    """What the server needs to split a batch, and to write JSON."""
    for value in outputs.values():
        assert value.shape[0] == rows
        if value.dtype == object:
            for each in value.flat:
                each.decode("utf-8")


def batched(run: Callable, requests: list[dict], batch_size: int) -> list[dict[str, np.ndarray]]:
    """The answers to requests that the server joins to one batch.

    Args:
        run: a function of inputs.
        requests: the inputs of each. All axes but the first must be equal.
        batch_size: one of the server's `allowed_batch_sizes`. The first row of the last request is
            repeated to fill the batch.
    """
    sizes = [len(next(iter(each.values()))) for each in requests]
    filling = batch_size - sum(sizes)
    outputs = run(
        {
            key: np.concatenate([each[key] for each in requests] + [last[:1]] * filling)
            for key, last in requests[-1].items()
        }
    )
    check_outputs(outputs, batch_size)
    ends = np.cumsum(sizes)
    return [
        {key: value[end - size : end] for key, value in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]


def padded(inputs: dict, signature, count: int) -> dict[str, np.ndarray]:
    """Inputs beside a request that is longer, as `pad_variable_length_inputs` pads them.

    Args:
        inputs: of a request.
        signature: of the function.
        count: by how much all axes of variable size, apart from that of the rows, are longer.
    """
    found = {}
    for key, value in inputs.items():
        sizes = [dim.size for dim in signature.inputs[key].tensor_shape.dim]
        widths = [(0, count if k and size == -1 else 0) for k, size in enumerate(sizes)]
        found[key] = np.pad(value, widths, constant_values=value.flat[0])
    return found
