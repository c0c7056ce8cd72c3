"""Arrays of other libraries, by DLPack, and what a caller gets back, where."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Caller", "Kind", "is_on_gpu", "kind_of", "to_numpy", "to_same_kind"]

_DLPACK_CPU = 1
_DLPACK_CUDA = 2


class Kind(Enum):
    """What a caller hands in and gets back."""

    NUMPY = "numpy"
    TORCH_CPU = "torch, in the CPU's memory"
    TORCH_CUDA = "torch, on the GPU"
    CUPY = "cupy"


@dataclass(frozen=True)
class Caller:
    """Who calls a run, which may be made by another thread.

    Attributes:
        kind: what it hands in and gets back.
        stream: on which it makes inputs and uses results, of the session's GPU; None on the CPU.
    """

    kind: Kind
    stream: Any = None


def is_on_gpu(value: Any) -> bool:
    """Whether a value is an array on a CUDA device."""
    return _device_type(value) == _DLPACK_CUDA


def kind_of(values: Iterable[Any]) -> Kind:
    """What to give back for these inputs.

    Torch tensors where one of them is one, on the GPU where one of those is; else CuPy's arrays
    where anything is on a GPU; else NumPy's.
    """
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    found = Kind.NUMPY
    for value in values:
        on_gpu = is_on_gpu(value)
        if torch is not None and isinstance(value, torch.Tensor):
            if on_gpu:
                return Kind.TORCH_CUDA
            found = Kind.TORCH_CPU
        elif on_gpu and found is Kind.NUMPY:
            found = Kind.CUPY
    return found


def to_numpy(value: Any) -> NDArray[Any]:
    """An array, without a copy where it has the CPU's memory.

    Raises:
        ValueError: the array is on another device.
        BufferError, RuntimeError, TypeError: it cannot be exchanged, for example since it takes
            part in automatic differentiation.
    """
    if _device_type(value) != _DLPACK_CPU:
        raise ValueError(
            "it is on another device; move it to the CPU, or use a session on that device"
        )
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if _needs_a_copy(value):
        return value.numpy()  # type: ignore[no-any-return]
    if not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    return np.from_dlpack(value)


def to_same_kind(result: Any, kind: Kind) -> Any:
    """A result in the CPU's memory, as a torch tensor where that is what the caller uses."""
    if kind is not Kind.TORCH_CPU or not isinstance(result, np.ndarray):
        return result
    return sys.modules["torch"].from_numpy(result)


def _needs_a_copy(value: Any) -> bool:
    """Whether a value is an ``OrtValue`` that does not speak DLPack: text, or an older one."""
    ort = sys.modules.get("onnxruntime")
    if ort is None or not isinstance(value, ort.OrtValue):
        return False
    return not hasattr(value, "__dlpack__") or "string" in value.data_type()


def _device_type(value: Any) -> int:
    """DLPack's number of a value's device; the CPU's for what does not speak DLPack."""
    if not hasattr(value, "__dlpack_device__"):
        return _DLPACK_CPU
    return int(value.__dlpack_device__()[0])
