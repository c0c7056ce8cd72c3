"""Where the inputs of adder layers are to be rounded, so that all who take such a value see it so.

In the integer network a residual, too, takes the rounded value. A run on an example shows who makes
and who takes the tensors that enter adder layers. A tensor is rounded

1. where it is made: by the outermost module that gives it, without having been given it, before an
   adder layer takes it;
2. else where it is taken: before the outermost module that is given it and in which are all adder
   layers that take it;
3. else before each adder layer that takes it.

In 1 and 2 only modules count that are called once: one that is called again, as an nn.ReLU may be
in a block, gives other tensors as well. What takes the tensor outside of where it is rounded sees
it as it was before, which is said in a warning. A tensor changed in place counts as another.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from adder_onnx.export.adder_conv2d import AdderConv2d

__all__ = ["Place", "Value", "find_values"]

_logger = logging.getLogger(__name__)

_Key = tuple[int, int]
"""A tensor, and how often it was changed in place."""


@dataclass(frozen=True)
class Place:
    """Where a value is rounded.

    Attributes:
        module: its path.
        argument: the number of the argument that is rounded before the module; None where what it
            gives is rounded.
    """

    module: str
    argument: int | None


@dataclass(frozen=True)
class Value:
    """What must be rounded alike.

    Attributes:
        layers: paths of all adder layers that take it.
        places: where it is rounded: several where there are several tensors, since a layer that is
            called more than once has one scale.
    """

    layers: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass
class _Call:
    """One call of a module, from ``start`` to ``end``."""

    path: str
    module: nn.Module
    given: list[_Key | None]
    taken: set[_Key]
    start: int
    end: int = 0
    result: _Key | None = None


@dataclass
class _Recorder(TorchFunctionMode):
    """Notes what modules and functions take and give, in the order in which they do."""

    calls: list[_Call] = field(default_factory=list)
    uses: list[tuple[int, _Key]] = field(default_factory=list)
    _open: list[_Call] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)  # so that no other gets its number
    _time: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keys = self._keys((args, kwargs))
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            time = self._tick()
            self.uses += [(time, key) for key in keys]
        return result

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Within it all calls of the model's modules are noted."""
        handles = []
        for path, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, path=path: self._enter(path, m, args, kwargs),
                    with_kwargs=True,
                )
            )
            handles.append(module.register_forward_hook(lambda m, args, y: self._leave(y)))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = [self._key(a) if isinstance(a, Tensor) else None for a in args]
        call = _Call(path, module, given, self._keys((args, kwargs)), self._tick())
        self.calls.append(call)
        self._open.append(call)

    def _leave(self, result: Any) -> None:
        call = self._open.pop()
        call.end = self._tick()
        call.result = self._key(result) if isinstance(result, Tensor) else None

    def _keys(self, tree: Any) -> set[_Key]:
        return {self._key(leaf) for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)}

    def _key(self, tensor: Tensor) -> _Key:
        self._kept.append(tensor)
        return (id(tensor), tensor._version)

    def _tick(self) -> int:
        self._time += 1
        return self._time


def find_values(model: nn.Module, example: Tensor) -> list[Value]:
    """The values that enter a model's adder layers.

    Args:
        model: in evaluation mode.
        example: an input of it.
    """
    recorder = _Recorder()
    with torch.no_grad(), recorder.watching(model):
        model(example)
    takers: dict[_Key, list[_Call]] = {}
    for call in recorder.calls:
        if isinstance(call.module, AdderConv2d) and call.given and call.given[0] is not None:
            takers.setdefault(call.given[0], []).append(call)
    places = {key: _places(recorder, key, calls) for key, calls in takers.items()}
    values = []
    for keys in _sharing_layers(takers):
        layers = dict.fromkeys(call.path for key in keys for call in takers[key])
        values.append(
            Value(tuple(layers), tuple(dict.fromkeys(p for key in keys for p in places[key])))
        )
    return values


def _sharing_layers(takers: dict[_Key, list[_Call]]) -> list[list[_Key]]:
    """Groups of tensors, of which any two that one layer takes are in the same."""
    groups: list[tuple[list[_Key], set[str]]] = []
    for key, calls in takers.items():
        keys, layers = [key], {call.path for call in calls}
        apart = []
        for group in groups:
            if group[1] & layers:
                keys, layers = group[0] + keys, layers | group[1]
            else:
                apart.append(group)
        groups = [*apart, (keys, layers)]
    return [keys for keys, _ in groups]


def _places(recorder: _Recorder, key: _Key, takers: list[_Call]) -> list[Place]:
    counts = Counter(call.path for call in recorder.calls)
    once = [call for call in recorder.calls if counts[call.path] == 1]
    first, last = min(call.start for call in takers), max(call.end for call in takers)
    makers = [c for c in once if c.result == key and key not in c.taken and c.end < first]
    if makers:
        return [Place(max(makers, key=lambda call: call.end).path, None)]
    around = [c for c in once if key in c.given and c.start <= first and c.end >= last]
    inside = [min(around, key=lambda call: call.start)] if around else takers
    if any(
        used == key and not any(call.start <= time <= call.end for call in inside)
        for time, used in recorder.uses
    ):
        _logger.warning(
            "the input of layer %r is used elsewhere, too, where training does not see it rounded: "
            "make what gives it a module that is called once (such as an nn.ReLU of its own)",
            takers[0].path,
        )
    return [Place(call.path, call.given.index(key)) for call in inside]
