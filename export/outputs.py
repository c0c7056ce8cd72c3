"""The tensors that a model gives, by name, whatever it puts them in.

1. A single tensor, bare or alone in a tuple or list, is ``logits``.
2. In a dict a tensor has its key as its name, in a named tuple or a dataclass its field's.
3. In a tuple or list of several it is ``output_0``, ``output_1`` and so on, by its place.
4. Names of nested ones are joined by a dot, as in ``fpn.0``.
5. None is left out; anything else that is no tensor is refused.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from adder_onnx.errors import ExportError

__all__ = ["named_outputs"]

_SINGLE = "logits"
_INPUT = "input"


def named_outputs(result: object) -> dict[str, Tensor]:
    """The tensors in what a model has given, in the order in which torch.export gives them.

    Dataclasses are made known to torch.export on the way.

    Raises:
        ExportError: there is no tensor, or something that is neither a tensor nor None.
    """
    _register_dataclasses(result)
    leaves, _ = pytree.tree_flatten_with_path(result)
    found: dict[str, Tensor] = {}
    for path, value in leaves:
        if value is None:
            continue
        if not isinstance(value, Tensor):
            where = f" as its output {_name(path)!r}" if path else ""
            raise ExportError(
                f"the model gives a {type(value).__name__}{where}; expected tensors, alone or in "
                "tuples, lists, dicts and dataclasses"
            )
        found[_free(_name(path), found)] = value
    if not found:
        raise ExportError(f"the model gives no tensor but a {type(result).__name__}")
    if len(found) == 1 and not any(_is_named(path) for path, _ in leaves):
        return {_SINGLE: next(iter(found.values()))}
    return found


def _is_named(path: tuple[object, ...]) -> bool:
    return any(not isinstance(key, pytree.SequenceKey) for key in path)


def _name(path: tuple[object, ...]) -> str:
    if not path:
        return _SINGLE
    parts = [
        str(key.idx)
        if isinstance(key, pytree.SequenceKey)
        else str(key.name if isinstance(key, pytree.GetAttrKey) else getattr(key, "key", key))
        for key in path
    ]
    return ".".join(["output_" + parts[0], *parts[1:]] if parts[0].isdecimal() else parts)


def _free(name: str, taken: dict[str, Tensor]) -> str:
    """The name, with an ending where it is the input's, another output's, or empty."""
    name = name or "output"
    name = f"{name}_output" if name == _INPUT else name
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _register_dataclasses(result: object) -> None:
    leaves = pytree.tree_leaves(result)
    unknown = {type(v) for v in leaves if dataclasses.is_dataclass(v) and not isinstance(v, type)}
    for kind in unknown:
        torch.export.register_dataclass(kind)
    if unknown:
        _register_dataclasses(result)  # those inside are leaves now
