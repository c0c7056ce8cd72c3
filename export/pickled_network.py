"""A whole pickled network, read as inert records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adder_onnx.errors import CheckpointError
from adder_onnx.export.pickles import Record

__all__ = ["PickledModule", "is_module", "modules_of", "tensors_of"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
"""Modules that compute what the one in them does, and what they call that."""

_MOST_MODULES = 100_000
_DEEPEST = 100
_LONGEST = 8
_LONGEST_PATH = 1000
_INTERNAL = frozenset({"training", "dump_patches", "T_destination", "call_super_init"})


@dataclass(frozen=True)
class PickledModule:
    """What a pickle says of a module.

    Attributes:
        class_name: the module and name of its class.
        attributes: what the module's author has set, without parameters, buffers and modules; where
            that is no number or text, or a pair of these, the name of what it is.
        hooks: class or function names of what is called before or after it.
    """

    class_name: str
    attributes: Mapping[str, Any]
    hooks: tuple[str, ...] = ()


def is_module(record: Record) -> bool:
    """Whether a record stands for a ``torch.nn.Module``."""
    return "_modules" in record.state


def modules_of(record: Record) -> dict[str, PickledModule]:
    """All modules of a network by path, out of what distributes, averages or compiles it.

    Raises:
        CheckpointError: they are nested deeper, or are more, than in any network.
    """
    return dict(_modules(unwrapped(record), ""))


def tensors_of(record: Record) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a network, named as in its state dict.

    Raises:
        CheckpointError: as of `modules_of`.
    """
    return _tensors(unwrapped(record), "")


def unwrapped(record: Record) -> Record:
    """The network out of what distributes, averages or compiles it."""
    seen: set[int] = set()
    while record.qualified_name in _WRAPPERS and id(record) not in seen:
        seen.add(id(record))
        inner = _mapping(record, "_modules").get(_WRAPPERS[record.qualified_name])
        if not isinstance(inner, Record):
            break
        record = inner
    return record


def _mapping(record: Record, name: str) -> Mapping[Any, Any]:
    """A dictionary that an object has; an empty one where it is none."""
    found = record.state.get(name)
    return found if isinstance(found, Mapping) else {}


def _modules(record: Record, path: str) -> Iterator[tuple[str, PickledModule]]:
    for where, module in _walk(record, path):
        attributes = {
            name: _plain(value)
            for name, value in module.state.items()
            if isinstance(name, str) and not name.startswith("_") and name not in _INTERNAL
        }
        hooks = tuple(
            getattr(hook, "qualified_name", type(hook).__name__)
            for kind in _HOOKS
            for hook in _mapping(module, kind).values()
        )
        yield where, PickledModule(module.qualified_name, attributes, hooks)


def _plain(value: Any) -> Any:
    """What can be compared and shown, whatever else a pickle says."""
    if isinstance(value, tuple | list) and len(value) <= _LONGEST:
        return type(value)(_plain(item) if _is_plain(item) else _named(item) for item in value)
    return value if _is_plain(value) else _named(value)


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _named(value: Any) -> str:
    return f"<{getattr(value, 'qualified_name', type(value).__name__)}>"


def _tensors(record: Record, path: str) -> Iterator[tuple[str, Tensor]]:
    for where, module in _walk(record, path):
        hidden = module.state.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module, kind).items():
                left_out = kind == "_buffers" and isinstance(hidden, set) and name in hidden
                if isinstance(value, Tensor) and not left_out:
                    yield f"{where}.{name}" if where else str(name), value


def _walk(network: Record, path: str) -> Iterator[tuple[str, Record]]:
    """A module and all below it by path; one that is in itself is not entered again."""
    waiting = [(path, network, frozenset[int]())]
    count = 0
    while waiting:
        where, record, above = waiting.pop()
        count += 1
        if count > _MOST_MODULES or len(above) > _DEEPEST or len(where) > _LONGEST_PATH:
            raise CheckpointError(
                f"the checkpoint holds more than {_MOST_MODULES} modules, or {_DEEPEST} in one "
                f"another, or names of more than {_LONGEST_PATH} characters, as no network has"
            )
        yield where, record
        above |= {id(record)}
        children = [
            (f"{where}.{name}" if where else str(name), unwrapped(child))
            for name, child in _mapping(record, "_modules").items()
            if isinstance(child, Record)
        ]
        waiting += [
            (inner, child, above) for inner, child in reversed(children) if id(child) not in above
        ]
