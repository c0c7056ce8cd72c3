"""Elements of tensors that lie in files beside the model."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from adder_onnx.errors import ModelError
from adder_onnx.graph.checks.foreign import refusals
from adder_onnx.graph.checks.wellformed import check_size
from adder_onnx.memory import require

__all__ = ["read_external_data"]


def read_external_data(tensors: Sequence[onnx.TensorProto], folder: Path, model: str) -> None:
    """Puts the elements of tensors into them.

    Args:
        tensors: those whose elements lie in other files.
        folder: that of the model, where the files must be.
        model: its name, for messages.

    Raises:
        ModelError: a file is missing, is no plain file inside of the folder, or does not hold what
            the tensor says; or all of them take too much memory.
    """
    what = f"cannot read the external data of {model}"
    require(sum(map(_size, tensors)), f"{model}: its external data", ModelError)
    for tensor in tensors:
        _check(tensor, folder, what)
        with refusals(what):
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))


def _check(tensor: onnx.TensorProto, folder: Path, what: str) -> None:
    """Compares what an entry says with the file and the tensor's shape, before anything is read."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    called = f"{what}: tensor {tensor.name!r}"
    size = _size(tensor)
    check_size(tensor, size)
    offset = _number(entries, "offset", called)
    length = _number(entries, "length", called)
    if length is None:
        path = folder / entries.get("location", "")
        try:
            length = os.stat(path).st_size - (offset or 0)
        except (OSError, ValueError) as error:
            raise ModelError(f"{called}: {path}: {error}") from error
    if length != size:
        raise ModelError(
            f"{called} of shape {list(tensor.dims)} takes {size} bytes, but {length} are there"
        )


def _number(entries: dict[str, str], key: str, called: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ModelError(f"{called} has the {key} {text[:40]!r}; expected a number of bytes")
    return int(text)


def _size(tensor: onnx.TensorProto) -> int:
    type_ = ir.DataType(tensor.data_type)
    if type_ == ir.DataType.STRING:
        raise ModelError(f"tensor {tensor.name!r} is text, which cannot be external data")
    return int(-(-math.prod(tensor.dims) * type_.bitwidth // 8))
