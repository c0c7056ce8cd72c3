"""Reading pickled PyTorch objects without running any code of theirs.

`torch.save(model)` writes a pickle that names classes and functions, and an ordinary unpickler
imports and calls them. Here a short list of harmless ones is real, those of plain containers; what
rebuilds a tensor gives a `PickledTensor`, which only says what the pickle says; every other name
stands for an inert `Record`, which remembers what it was given and does nothing. So a module can be
read on a machine without its author's code, and a hostile file has nothing to call.
"""

from __future__ import annotations

import collections
import functools
import io
import math
import mmap
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adder_onnx.archives.pickles import check_pickle

__all__ = ["PickledStorage", "PickledTensor", "Record", "StorageKind", "thawed", "unpickle"]

_MOST_AXES = 64
_MOST_SLOTS = 256
_MOST_CLASSES = 10_000


class Record:
    """What stands for an object of a class that is not imported.

    Attributes:
        qualified_name: module and name of the class, as the pickle gives them.
        arguments: what the constructor, or the function, was called with.
        state: the object's ``__dict__`` where the pickle sets one.
    """

    qualified_name = ""
    dump_patches = False  # what torch.load asks of a class whose source differs

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        record = super().__new__(cls)
        record.arguments = args
        record.state = {}
        return record

    arguments: tuple[Any, ...]
    state: dict[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # of a class with __slots__
            parts = [part for part in state if isinstance(part, dict) and part]
            if len(parts) > 1 and sum(map(len, parts)) > _MOST_SLOTS:  # each time they are copied
                raise pickle.UnpicklingError("an object of very many attributes")
            state = {**parts[0], **parts[1]} if len(parts) > 1 else parts[0] if parts else {}
        if isinstance(state, dict):
            self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Record:
        return Record(*args)

    # A pickle fills subclasses of list, dict and set by these.
    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@functools.lru_cache(maxsize=4096)
def _record_class(module: str, name: str) -> type[Record]:
    return type("Record", (Record,), {"qualified_name": f"{module}.{name}"})


class OrderedDict(collections.OrderedDict[Any, Any]):
    """One whose attributes, which a pickle may set to anything, are left out."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclass(frozen=True)
class StorageKind:
    """A class of storages: what its values are."""

    dtype: torch.dtype

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a class with a state")


class PickledStorage:
    """Values of a file, which are read when they are needed.

    Args:
        dtype: of the values.
        read: gives the bytes.
        size: how many bytes there are.
    """

    def __init__(self, dtype: torch.dtype, read: Callable[[], torch.UntypedStorage], size: int):
        self.dtype = dtype
        self.size = size
        self._read = read

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a storage with a state")

    @functools.cached_property
    def values(self) -> torch.UntypedStorage:
        """The bytes."""
        return self._read()

    def part(self, offset: int, count: int) -> PickledStorage:
        """A view of so many values from one on.

        Raises:
            pickle.UnpicklingError: they are not all in the storage.
        """
        width = self.dtype.itemsize
        if min(offset, count) < 0 or (offset + count) * width > self.size:
            raise pickle.UnpicklingError("a view goes beyond its storage")
        start, size = offset * width, count * width
        return PickledStorage(self.dtype, lambda: self.values[start : start + size], size)


class PickledTensor:
    """What a pickle says of a tensor, all of which lies in its storage.

    Args:
        storage: of the values.
        offset: of the first one, in values.
        size: along each axis.
        stride: along each axis, in values.

    Raises:
        pickle.UnpicklingError: it would reach beyond the storage.
    """

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        self._size, self._stride = tuple(size), tuple(stride)
        if not isinstance(storage, PickledStorage) or len(self._size) != len(self._stride):
            raise pickle.UnpicklingError("a tensor without storage, sizes or strides")
        numbers = (offset, *self._size, *self._stride)
        if len(self._size) > _MOST_AXES or not all(
            type(number) is int and number >= 0 for number in numbers
        ):
            raise pickle.UnpicklingError("a tensor with odd sizes or strides")
        last = sum((n - 1) * step for n, step in zip(self._size, self._stride, strict=True))
        needed = 0 if 0 in self._size else offset + last + 1
        if needed * storage.dtype.itemsize > storage.size:
            raise pickle.UnpicklingError("a tensor goes beyond its storage")
        self._storage = storage
        self._offset = offset if needed else 0

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor with a state")

    @functools.cached_property
    def tensor(self) -> Tensor:
        """The tensor itself, on the CPU."""
        storage = self._storage
        if math.prod(self._size) >= 1 << 62:
            raise pickle.UnpicklingError("a tensor of more values than there can be")
        with torch.no_grad():
            empty = torch.empty(0, dtype=storage.dtype)
            return empty.set_(storage.values, self._offset, self._size, self._stride)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> PickledTensor:
    return PickledTensor(storage, offset, size, stride)


def _rebuild_tensor_v2(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> PickledTensor:
    if isinstance(metadata, Mapping) and any(metadata.values()):
        raise pickle.UnpicklingError("a tensor that is conjugated or negated when it is read")
    return PickledTensor(storage, offset, size, stride)


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass, as a plain one; ``function`` is one of the real ones or inert."""
    return function(*args)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Any:
    """A parameter as a plain tensor; its hooks are nobody's business here."""
    return data


# What makes plain containers, and what tensors are rebuilt from.
_REAL: dict[tuple[str, str], Any] = {
    ("builtins", "frozenset"): lambda items=(): tuple(items),  # its hash could be chosen
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},  # its factory is not called
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch.serialization", "_get_layout"): lambda name: torch.strided,
}

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Reads one pickle that was checked.

    Args:
        data: the pickle.
        persistent: gives what a persistent id stands for.
        nested: gives the storage that bytes hold, themselves a file of torch.save.
    """

    def __init__(
        self,
        data: bytes,
        persistent: Callable[[Any], Any] | None,
        nested: Callable[[bytes], Any] | None,
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._persistent = persistent
        self._nested = nested
        self._left = len(data)
        self._names: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        # Python 2 called the module of builtins otherwise.
        module = "builtins" if module == "__builtin__" else module
        if name in _STORAGES and module.partition(".")[0] == "torch":
            return StorageKind(_STORAGES[name])
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) == ("torch.storage", "_load_from_bytes") and self._nested is not None:
            return self._nested
        real = _REAL.get((module, name))
        if real is not None:
            return real
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        self._names.add((module, name))
        if len(self._names) > _MOST_CLASSES:
            raise pickle.UnpicklingError(f"more than {_MOST_CLASSES} classes")
        return _record_class(module, name)

    def persistent_load(self, saved: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("a persistent id")
        return self._persistent(saved)

    def _encode(self, text: Any, encoding: Any = "latin-1") -> bytes:
        """How Python 3 pickles bytes for Python 2; no text is there to be encoded twice."""
        self._left -= len(text)
        if not isinstance(text, str) or self._left < 0:
            raise pickle.UnpicklingError("more text to encode than there is")
        return text.encode("latin-1")


def unpickle(
    data: bytes | mmap.mmap,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    nested: Callable[[bytes], Any] | None = None,
) -> tuple[Any, int]:
    """What is pickled from a place on, and where that ends.

    Args:
        data: bytes with the pickle among them.
        start: where it begins.
        persistent: gives what a persistent id stands for; without it there may be none.
        nested: gives the storage that bytes hold, themselves a file of torch.save; without it that
            is a `Record`, too.

    Raises:
        pickle.UnpicklingError: it is damaged or not to be read, see `check_pickle`.
        Exception: it is damaged.
    """
    end = check_pickle(data, start, "the checkpoint")
    return _RestrictedUnpickler(data[start:end], persistent, nested).load(), end


def thawed(value: Any) -> Any:
    """A value with tensors in the place of what is said of them, in all its dictionaries.

    Raises:
        pickle.UnpicklingError: one has more values than there can be.
        CheckpointError: they cannot be read.
    """
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        inner = inner.state if isinstance(inner, Record) else inner
        if not isinstance(inner, dict | list) or id(inner) in seen:
            continue
        seen.add(id(inner))
        items = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, item in list(items):
            if isinstance(item, PickledTensor):
                inner[key] = item.tensor
            else:
                waiting.append(item)
    return value.tensor if isinstance(value, PickledTensor) else value
