"""Adder layers of others, which become `AdderConv2d`.

1. A layer is one if it has a four-dimensional tensor ``adder``, a ``stride`` and a ``padding``, as
   the reference implementation's ``adder2d``; or if its class is named. It then has exactly one
   four-dimensional parameter, the filters.
2. Pruning (``torch.nn.utils.prune``) and parametrizations (``torch.nn.utils.parametrize``,
   ``weight_norm``) are computed first, so that the filters are a plain parameter.
3. A further parameter or buffer with one value per filter, whatever its name and shape, is its
   bias. Any other is refused, and named: nothing of a layer is lost. Counters of operations
   (``total_ops``, ``total_params``) do not count.
4. What a layer computes on noise is compared with what `AdderConv2d` makes of it. A layer that does
   not run by itself here is taken at its word; its bias must then be called ``b`` or ``bias``.
5. A layer that is used in several places becomes one layer, used in these places.
6. An `AdderConv2d`, or a subclass, stays what it is: its code is traced.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from adder_onnx.errors import ExportError
from adder_onnx.export.adder_conv2d import AdderConv2d
from adder_onnx.export.layer.selection import without_native_kernels

__all__ = ["BOOKKEEPING", "convert_adder_layers"]

_logger = logging.getLogger(__name__)

BOOKKEEPING = frozenset({"total_ops", "total_params"})
"""Buffers that counters of operations leave in a network."""

_RTOL = 1e-3
"""Of the comparison of a layer: far above rounding, far below any other computation."""


def convert_adder_layers(
    model: nn.Module, classes: Collection[str] = (), *, check: bool = True
) -> nn.Module:
    """Replaces every adder layer of a model by an `AdderConv2d` with the same parameters.

    Args:
        model: is changed.
        classes: names of further classes of adder layers, bare or with their module.
        check: whether what layers compute is compared (rule 4).

    Returns:
        The model, or its replacement where it is such a layer itself.

    Raises:
        ExportError: a layer has something that an `AdderConv2d` has no place for, or computes
            something else; or there is no layer of one of the classes.
    """
    converter = _Converter(classes, check)
    kinds = sorted({_class_name(type(module)) for module in model.modules()})
    result = converter.convert(model, "")
    for module_path, module in list(model.named_modules()):
        if isinstance(module, AdderConv2d):
            _make_plain(module, "adder")
        # Not named_children, which leaves out what was seen before.
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = converter.convert(child, f"{module_path}.{name}".strip("."))
    missing = [name for name in classes if name not in converter.used]
    if missing:
        own = [kind for kind in kinds if not kind.startswith("torch.")] or kinds
        raise ExportError(
            f"the model has no layer of the class {missing[0]}; those of its own are "
            f"{', '.join(own[:10])}"
        )
    return result


class _Converter:
    def __init__(self, classes: Collection[str], check: bool) -> None:
        self._classes = classes
        self._check = check
        self._done: dict[int, tuple[nn.Module, nn.Module]] = {}  # the key keeps its module alive
        self.used: set[str] = set()

    def convert(self, module: nn.Module, path: str) -> nn.Module:
        """The module, or what it becomes."""
        if id(module) in self._done:
            return self._done[id(module)][1]
        kind = parametrize.type_before_parametrizations(module)
        names = {_class_name(kind), kind.__name__} & {*self._classes}
        self.used |= names
        if isinstance(module, AdderConv2d) or not (names or _is_adder_layer(module)):
            return module
        layer = _convert(module, path, self._check)
        self._done[id(module)] = (module, layer)
        return layer


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_adder_layer(module: nn.Module) -> bool:
    own = {*module._parameters, *module._buffers}
    if not (
        own & {"adder", "adder_orig", "adder_v"} or parametrize.is_parametrized(module, "adder")
    ):
        return False
    adder = getattr(module, "adder", None)
    return (
        isinstance(adder, Tensor)
        and adder.dim() == 4
        and hasattr(module, "stride")
        and hasattr(module, "padding")
    )


def _convert(module: nn.Module, path: str, check: bool) -> AdderConv2d:
    kind = _class_name(parametrize.type_before_parametrizations(module))
    where = f"layer {path!r} of class {kind}" if path else f"the model of class {kind}"
    for name in ("adder", "weight"):
        _make_plain(module, name)
    tensors = {
        name: tensor
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if name.rpartition(".")[2] not in BOOKKEEPING
    }
    filters = [n for n, t in tensors.items() if t.dim() == 4 and "." not in n]
    if not filters:
        raise ExportError(
            f"{where} is to be an adder layer, but has no parameter (filters, channels, height, "
            "width)"
        )
    # A bias that is shaped for broadcasting has four dimensions, too, and fewer values.
    adder = tensors.pop(max(filters, key=lambda n: (n == "adder", tensors[n].numel())))
    bias = _bias(tensors, len(adder), where)
    layer = _layer(module, adder, bias, path)
    is_same = _is_same(module, layer, where) if check else None
    if is_same is None and bias is not None and next(iter(tensors)) not in ("b", "bias"):
        raise ExportError(
            f"{where} has {next(iter(tensors))!r}, which may be its bias, but the layer does not "
            "run by itself to see: call it b or bias if it is"
        )
    return layer


def _make_plain(module: nn.Module, name: str) -> None:
    """Makes a computed parameter one that is held."""
    if parametrize.is_parametrized(module, name):
        _own_class(module)
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == name:
            prune.remove(module, name)  # type: ignore[no-untyped-call]
        elif isinstance(hook, WeightNorm) and hook.name == name:
            remove_weight_norm(module, name)


def _own_class(module: nn.Module) -> None:
    """Gives a module a class that no other has.

    A parametrized module and its copies share one, and what is removed from it is removed from all.
    """
    kind = type(module)
    names = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, names)


def _bias(tensors: dict[str, Tensor], filters: int, where: str) -> Tensor | None:
    """What is left of a layer beside its filters, which can only be a bias."""
    per_filter: list[tuple[int, ...]] = [(filters,), (filters, 1), (filters, 1, 1)]
    per_filter += [(1, *shape) for shape in per_filter]
    biases = [
        name
        for name, t in tensors.items()
        if t.is_floating_point() and tuple(t.shape) in per_filter and "." not in name
    ]
    left = [name for name in tensors if name not in biases] or biases[1:]
    if left:
        shapes = ", ".join(f"{name!r} {tuple(tensors[name].shape)}" for name in left)
        raise ExportError(
            f"{where} has {shapes} beside its filters, which an AdderConv has no place for: "
            "compute it in a module around an adder_onnx.export.AdderConv2d"
        )
    return tensors[biases[0]] if biases else None


def _layer(module: nn.Module, adder: Tensor, bias: Tensor | None, path: str) -> AdderConv2d:
    geometry: dict[str, Any] = {
        key: _pair(getattr(module, key, default), f"{path}.{key}".lstrip("."))
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    groups = getattr(module, "groups", 1)
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros" or not isinstance(groups, int):
        raise ExportError(
            f"layer {path!r} has padding_mode {mode!r} and groups {groups!r}; expected 'zeros' and "
            "a number"
        )
    filters, group_channels, height, width = adder.shape
    layer = AdderConv2d(
        group_channels * groups,
        filters,
        (height, width),
        groups=groups,
        bias=bias is not None,
        **geometry,
    )
    layer.adder = _parameter(adder)
    if bias is not None:
        layer.b = _parameter(bias if bias.dim() == 1 else bias.detach().reshape(filters))
    return layer.train(module.training)


def _parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach())


def _is_same(module: nn.Module, layer: AdderConv2d, where: str) -> bool | None:
    """Whether two layers compute the same; None where the first does not run by itself.

    Raises:
        ExportError: they do not.
    """
    size = [
        d * (k - 1) + 1 + 2 * s
        for d, k, s in zip(layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, layer.in_channels, *size, generator=generator)
    try:
        with torch.no_grad(), without_native_kernels():
            expected = module(x.to(layer.adder.dtype))
    except Exception as error:  # the layer's code may raise anything
        _logger.info("%s does not run by itself: %s", where, error)
        return None
    with torch.no_grad(), without_native_kernels():
        got = layer(x.to(layer.adder.dtype))
    if not isinstance(expected, Tensor) or expected.shape != got.shape:
        found = list(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        raise ExportError(
            f"{where} is no adder layer, or one of another kind: for an input {list(x.shape)} it "
            f"gives {found}, an AdderConv {list(got.shape)}"
        )
    difference = float((expected - got).abs().max())
    if not difference <= _RTOL * float(got.abs().max()):
        raise ExportError(
            f"{where} computes something else than an AdderConv of its parameters, which on noise "
            f"differs from PyTorch by {difference:.2g} with values up to "
            f"{float(got.abs().max()):.3g}; write it as a module around an "
            "adder_onnx.export.AdderConv2d"
        )
    return True


def _pair(value: Any, what: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) for v in pair):
        raise ExportError(f"{what} is {value!r}; expected one or two integers")
    return (pair[0], pair[1])
