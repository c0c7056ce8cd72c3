"""What Ray gives to the process that asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray

from adder_onnx.errors import InputError, ModelError
from adder_onnx.files import check_readable

__all__ = ["Model", "assigned_threads", "fetch_model", "read_model_bytes"]

Model = str | os.PathLike[str] | bytes | ray.ObjectRef[bytes]
"""A model's path, its bytes, or a reference to these in Ray's object store."""


def assigned_threads() -> int | None:
    """As many as Ray gave CPUs to this actor or task, at least 1; None outside of one."""
    context: Any = ray.get_runtime_context() if ray.is_initialized() else None
    if context is None or context.get_task_id() is None:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 0)))


def fetch_model(model: Model) -> str | os.PathLike[str] | bytes:
    """A model's path or bytes, those of a reference from the object store.

    Raises:
        InputError: a reference is to something else.
    """
    if not isinstance(model, ray.ObjectRef):
        return model
    found = ray.get(model)
    if not isinstance(found, bytes):
        raise InputError(
            f"the model is a reference to {type(found).__name__}; expected the bytes of an ONNX "
            "file: ray.put(Path(...).read_bytes())"
        )
    return found


def read_model_bytes(model: str | os.PathLike[str] | bytes) -> bytes:
    """The bytes of a model's file.

    Raises:
        ModelError: it cannot be read.
    """
    if isinstance(model, bytes):
        return model
    path = Path(model)
    check_readable(path, ModelError)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
