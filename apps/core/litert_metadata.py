"""The metadata of a LiteRT file, and files in it, as TFLite's readers expect them.

The format is that of TensorFlow Lite Metadata, https://ai.google.dev/edge/litert/conversion/
tensorflow/metadata: a flatbuffer, whose schema is `metadata_schema.fbs`, in a buffer of the model,
and a zip archive of the associated files at its end.
"""

import io
import zipfile
from pathlib import PurePath

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

_NAME, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
# `AssociatedFileType`: the entries of a vocabulary, and the names of values, one in each line.
_VALUE_LABELS, _VOCABULARY = 3, 5


def pack(model: bytes, name: str, files: dict[str, bytes]) -> bytes:
    """A LiteRT file with metadata and further files in it.

    The interpreters do not read what follows the model. `zipfile.ZipFile` finds the archive, whose
    members are not compressed.

    Args:
        model: the file.
        name: what it is.
        files: the contents of the further files, by name.
    """
    root = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_metadata(root, name, files), np.uint8)
    entry.name, entry.buffer = _NAME, len(root.buffers)
    root.buffers.append(buffer)
    root.metadata = [*(root.metadata or ()), entry]
    packed = io.BytesIO()
    packed.write(flatbuffer_utils.convert_object_to_bytearray(root))
    with zipfile.ZipFile(packed, "a") as archive:
        for member, content in files.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return packed.getvalue()


def _metadata(root: schema.ModelT, name: str, files: dict[str, bytes]) -> bytes:
    """The flatbuffer `ModelMetadata` of a model."""
    builder = flatbuffers.Builder()
    signatures = {each.subgraphIndex: each for each in root.signatureDefs}
    subgraphs = [
        _subgraph(builder, root.subgraphs[k], signatures.get(k)) for k in range(max(signatures) + 1)
    ]
    associated = [_table(builder, {0: builder.CreateString(file)}, _kind(file)) for file in files]
    fields = {3: _vector(builder, subgraphs), 6: _vector(builder, associated)}
    builder.Finish(_table(builder, {0: builder.CreateString(name), **fields}), _IDENTIFIER)
    return bytes(builder.Output())


def _subgraph(builder, subgraph: schema.SubGraphT, signature: schema.SignatureDefT | None) -> int:
    """`SubGraphMetadata`: the names of the inputs and outputs of a signature, in their order."""
    fields = {}
    for number, tensors, maps in (
        (2, subgraph.inputs, signature and signature.inputs),
        (3, subgraph.outputs, signature and signature.outputs),
    ):
        names = {each.tensorIndex: each.name for each in maps or ()}
        described = [
            _table(builder, {0: builder.CreateString(names.get(k) or subgraph.tensors[k].name)})
            for k in tensors
        ]
        fields[number] = _vector(builder, described)
    name = signature.signatureKey if signature else subgraph.name or ""
    return _table(builder, {0: builder.CreateString(name), **fields})


def _kind(file: str) -> int:
    """The `AssociatedFileType` of an asset."""
    path = PurePath(file)
    if path.suffix != ".txt":
        return 0  # unknown
    return _VOCABULARY if path.stem == "vocabulary" else _VALUE_LABELS


def _table(builder, fields: dict[int, int], kind: int = 0) -> int:
    """A table of strings and vectors by the numbers of their fields.

    An `AssociatedFile` also has a kind, which is its field 2.
    """
    builder.StartObject(8)
    for number, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(number, offset, 0)
    if kind:
        builder.PrependInt8Slot(2, kind, 0)
    return builder.EndObject()


def _vector(builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
