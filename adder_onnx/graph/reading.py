"""Reading a model from a file or from bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx

from adder_onnx.errors import ModelError
from adder_onnx.graph.checks.external_data import read_external_data
from adder_onnx.graph.checks.foreign import refusals
from adder_onnx.graph.checks.wellformed import check_well_formed
from adder_onnx.memory import describe_size, require

__all__ = ["read_model"]

_LARGEST = (1 << 31) - 1
"""protobuf reads no larger messages."""


def read_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Reads an ONNX model from a path (with its external data) or from serialized bytes.

    A model that is read already is given back: one of 2 GiB or more has no serialized bytes.

    Raises:
        ModelError: the file is missing, unreadable or not an ONNX model; it is not well-formed (see
            `wellformed`); it takes more memory than is allowed; or one of its tensors has 2 GiB or
            more, which onnx cannot check.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked(source, None, "the model")
    if isinstance(source, bytes):
        return _checked(_parse(source, "the model's bytes"), None, "the model's bytes")
    path = Path(source)
    try:
        data = _read(path)
    except (OSError, ValueError) as error:  # of a path with a NUL
        raise ModelError(f"cannot read {path}: {_reason(error)}") from error
    return _checked(_parse(data, str(path)), path.parent, str(path))


def _reason(error: OSError | ValueError) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error)


def _read(path: Path) -> bytes:
    """A file's bytes; nothing is read of what is no file, and might have no end."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise ModelError(f"cannot read {path}: it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"cannot read {path}: it is no plain file")
    if found.st_size > _LARGEST:
        raise ModelError(
            f"{path} has {describe_size(found.st_size)}, and no ONNX file has more than 2 GiB: "
            "larger models keep their weights in a file of their own, as external data"
        )
    require(found.st_size, str(path), ModelError)
    with path.open("rb") as file:
        return file.read(found.st_size)


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    with refusals(f"{what} is not an ONNX model, or is truncated"):
        model.ParseFromString(data)
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{what} is not an ONNX model: it holds no graph")
    return model


def _checked(model: onnx.ModelProto, folder: Path | None, what: str) -> onnx.ModelProto:
    external = check_well_formed(model)
    if folder is not None:
        read_external_data(external, folder, what)
    elif external:
        raise ModelError(
            f"{what} keeps tensor {external[0].name!r} in a file of its own: give the path of the "
            "model"
        )
    return model
