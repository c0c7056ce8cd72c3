"""Python batches of CIFAR: pickles, of which nothing is run."""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.archives.pickles import check_pickle
from adder_onnx.errors import AdderError

__all__ = ["unpickle_batch"]

_INTEGERS = re.compile(r"[<>|=]?[iu][1248]")


def unpickle_batch(
    data: bytes, labels_key: str, pixels_per_image: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, pixels_per_image) and labels (N,) of a pickled batch.

    Args:
        data: the pickle; whatever it asks to call beyond NumPy's arrays is refused, and these are
            read here, as NumPy would believe what it says.
        labels_key: the entry with the labels; the pixels are in ``data``.
        pixels_per_image: number of bytes of an image.

    Raises:
        ValueError: it is not such a batch, or is truncated.
        AdderError: it would take more memory than may be taken.
    """
    try:
        check_pickle(data, what="a batch")
        batch = _ArrayUnpickler(data).load()
        values = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels, labels = _array(values["data"]), _array(values[labels_key])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError("labels of wrong shape or type")
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), pixels_per_image):
            raise ValueError("pixels of wrong shape or type")
        return pixels, labels.astype(np.int64)
    except AdderError:
        raise
    except Exception as error:  # a hostile pickle may raise anything
        raise ValueError(str(error)) from error


class _Type:
    """What stands for a NumPy type: its name, as ``i8``, and the state that says its byte order."""

    def __init__(self, name: Any, *_: Any) -> None:
        self._name = name
        self._swapped = False

    def __setstate__(self, state: Any) -> None:
        self._swapped = _text(state[1]) == ">"

    def dtype(self) -> np.dtype[Any]:
        name = _text(self._name)
        if _INTEGERS.fullmatch(name) is None:
            raise ValueError(f"an array of {name}")
        return np.dtype(name).newbyteorder(">") if self._swapped else np.dtype(name)


class _Array:
    """What stands for a NumPy array: the state, version, shape, type, order and bytes."""

    def __init__(self, *_: Any) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def array(self) -> NDArray[Any]:
        _, shape, kind, fortran, data = self._state
        return _shaped(data, kind, shape, "F" if fortran else "C")


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """What NumPy pickles an array as since protocol 5."""
    array = _Array()
    array.__setstate__((1, shape, kind, _text(order) == "F", data))
    return array


def _shaped(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    dtype = kind.dtype()
    sizes = [int(size) for size in shape]
    if min(sizes, default=0) < 0 or math.prod(sizes) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array {sizes}")
    return np.frombuffer(data, dtype).reshape(sizes, order=order)


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, _Array):
        return value.array()
    if type(value) is not list or not all(type(number) is int for number in value):
        raise ValueError("neither an array nor a list of integers")
    return np.array(value, np.int64)


def _text(value: Any) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise ValueError("a name that is no text")
    return text


_CALLED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")  # as it was called before NumPy 2, and since
        for module, name, function in (
            ("multiarray", "_reconstruct", _Array),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds what stands for arrays, and plain containers; nothing else is ever called."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._left = len(data)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        try:
            return _CALLED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch") from None

    def _encode(self, text: Any, encoding: Any = "latin-1") -> bytes:
        """How Python 3 pickles bytes for Python 2; no text is there to be encoded twice."""
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("more text to encode than there is")
        return _text(text).encode("latin-1")
