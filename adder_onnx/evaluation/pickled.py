"""Python batches of CIFAR: pickles, of which nothing is run."""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unpickle_batch"]


def unpickle_batch(
    data: bytes, labels_key: str, pixels_per_image: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, pixels_per_image) and labels (N,) of a pickled batch.

    Args:
        data: the pickle; whatever it asks to call beyond NumPy's arrays is refused.
        labels_key: the entry with the labels; the pixels are in ``data``.
        pixels_per_image: number of bytes of an image.

    Raises:
        ValueError: it is not such a batch, or is truncated.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels: Any = values["data"]
        labels = np.asarray(values[labels_key])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError("labels of wrong shape or type")
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), pixels_per_image):
            raise ValueError("pixels of wrong shape or type")
        return pixels, labels.astype(np.int64)
    except Exception as error:  # a hostile pickle may raise anything
        raise ValueError(str(error)) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers; no other class or function is ever called."""

    _ALLOWED = frozenset(
        {
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch")
        # NumPy 2 has renamed numpy.core, and either may read what the other has written.
        core = "numpy._core." if hasattr(np, "_core") else "numpy.core."
        module = re.sub(r"^numpy\._?core\.", core, module)
        return super().find_class(module, name)
