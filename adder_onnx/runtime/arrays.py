"""Arrays of other libraries, by DLPack."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["to_numpy", "to_same_kind"]

_DLPACK_CPU = 1


def to_numpy(value: Any) -> NDArray[Any]:
    """An array, without a copy where it has the CPU's memory.

    Raises:
        ValueError: the array is on another device.
        BufferError, RuntimeError, TypeError: it cannot be exchanged, for example since it takes
            part in automatic differentiation.
    """
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    if value.__dlpack_device__()[0] != _DLPACK_CPU:
        raise ValueError("it is on another device; move it to the CPU first")
    return np.from_dlpack(value)


def to_same_kind(result: Any, inputs: Iterable[Any]) -> Any:
    """A result as a torch tensor where one of the inputs is one."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is None or not isinstance(result, np.ndarray):
        return result
    if not any(isinstance(value, torch.Tensor) for value in inputs):
        return result
    return torch.from_numpy(result)
