"""Reading pickled PyTorch objects without running any code of theirs.

`torch.save(model)` writes a pickle that names classes and functions, and an ordinary unpickler
imports and calls them. Here a short list of harmless ones is real, those that rebuild tensors and
plain containers; every other name stands for an inert `Record`, which remembers what it was given
and does nothing. So a module can be read on a machine without its author's code, and a hostile file
has nothing to call.
"""

from __future__ import annotations

import collections
import functools
import io
import pickle
from typing import Any

import torch

__all__ = ["Record", "RestrictedPickle"]


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
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0] or {}, dict):
            state = {**(state[0] or {}), **(state[1] or {})}  # of a class with __slots__
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


def _rebuild_from_type(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass, as a plain one; ``function`` is one of the real ones or inert."""
    return function(*args)


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Any:
    """A parameter as a plain tensor; its hooks are nobody's business here."""
    return data


def _load_storage(data: bytes) -> Any:
    return torch.load(
        io.BytesIO(data), map_location="cpu", pickle_module=RestrictedPickle, weights_only=False
    )


# What rebuilds tensors and plain containers, and cannot do anything else.
_REAL: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): lambda text, encoding="latin-1": str(text).encode("latin-1"),
    ("builtins", "complex"): complex,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},  # its factory is not called
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.serialization", "_get_layout"): lambda name: torch.strided,
    # What pickle writes of a storage is a file of torch.save in itself.
    ("torch.storage", "_load_from_bytes"): _load_storage,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2 called the module of builtins otherwise.
        module = "builtins" if module == "__builtin__" else module
        real = _REAL.get((module, name))
        if real is not None:
            return real
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return _record_class(module, name)


class RestrictedPickle:
    """What ``torch.load`` takes as its ``pickle_module``."""

    __name__ = "restricted_pickle"
    Unpickler = _RestrictedUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """As ``pickle.load``."""
        return _RestrictedUnpickler(file, **options).load()
