"""A whole pickled network, read as inert records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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

_INTERNAL = frozenset({"training", "dump_patches", "T_destination", "call_super_init"})


@dataclass(frozen=True)
class PickledModule:
    """What a pickle says of a module.

    Attributes:
        class_name: the module and name of its class.
        attributes: what the module's author has set, without parameters, buffers and modules.
        hooks: class or function names of what is called before or after it.
    """

    class_name: str
    attributes: Mapping[str, Any]
    hooks: tuple[str, ...] = ()


def is_module(record: Record) -> bool:
    """Whether a record stands for a ``torch.nn.Module``."""
    return "_modules" in record.state


def modules_of(record: Record) -> dict[str, PickledModule]:
    """All modules of a network by path, out of what distributes, averages or compiles it."""
    return dict(_modules(unwrapped(record), ""))


def tensors_of(record: Record) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a network, named as in its state dict."""
    return _tensors(unwrapped(record), "")


def unwrapped(record: Record) -> Record:
    """The network out of what distributes, averages or compiles it."""
    seen: set[int] = set()
    while record.qualified_name in _WRAPPERS and id(record) not in seen:
        seen.add(id(record))
        inner = (record.state.get("_modules") or {}).get(_WRAPPERS[record.qualified_name])
        if not isinstance(inner, Record):
            break
        record = inner
    return record


def _modules(record: Record, path: str) -> Iterator[tuple[str, PickledModule]]:
    for where, module in _walk(record, path, frozenset()):
        state = module.state
        attributes = {
            name: value
            for name, value in state.items()
            if isinstance(name, str) and not name.startswith("_") and name not in _INTERNAL
        }
        hooks = tuple(
            getattr(hook, "qualified_name", type(hook).__name__)
            for kind in _HOOKS
            if isinstance(state.get(kind), Mapping)
            for hook in state[kind].values()
        )
        yield where, PickledModule(module.qualified_name, attributes, hooks)


def _tensors(record: Record, path: str) -> Iterator[tuple[str, Tensor]]:
    for where, module in _walk(record, path, frozenset()):
        hidden = module.state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in (module.state.get(kind) or {}).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                    yield f"{where}.{name}" if where else str(name), value


def _walk(record: Record, path: str, above: frozenset[int]) -> Iterator[tuple[str, Record]]:
    """A module and all below it by path; one that is in itself is not entered again."""
    yield path, record
    children = record.state.get("_modules") or {}
    above = above | {id(record)}
    for name, child in children.items():
        if isinstance(child, Record):
            inner = unwrapped(child)
            if id(inner) not in above:
                yield from _walk(inner, f"{path}.{name}" if path else str(name), above)
