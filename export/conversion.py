"""Models of others, whose adder layers become `AdderConv2d`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from adder_onnx.errors import ExportError
from adder_onnx.export.adder_conv2d import AdderConv2d

__all__ = ["convert_adder_layers", "make_model"]


def make_model(factory: str) -> nn.Module:
    """The model that a factory makes.

    Args:
        factory: ``package.module:function`` or ``path/file.py:function``, whose folder can be
            imported from meanwhile. The function, or class, is called without arguments.

    Raises:
        ExportError: there is no such file, module or function, it fails, or gives no model.
    """
    where, _, name = factory.rpartition(":")
    if not where or not name.isidentifier():
        raise ExportError(
            f"{factory!r} names no factory; expected package.module:function or file.py:function"
        )
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ExportError(f"{path} does not exist")
    try:
        with _importable(path.resolve().parent if is_file else Path.cwd()):
            module = importlib.import_module(path.stem if is_file else where)
            model = getattr(module, name)()
    except Exception as error:  # the user's code may raise anything
        raise ExportError(f"{factory} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ExportError(f"{factory} gave a {type(model).__name__}; expected a torch.nn.Module")
    return model


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def convert_adder_layers(model: nn.Module) -> nn.Module:
    """Replaces every layer that looks like the reference implementation's ``adder2d``.

    That is a module with a four-dimensional parameter ``adder`` and the attributes ``stride`` and
    ``padding``, perhaps a parameter ``b`` (the bias) and the attributes ``dilation`` and
    ``groups``. The parameters are shared, not copied; the model is changed.

    Returns:
        The model, or its replacement where it is such a layer itself.

    Raises:
        ExportError: such a layer has a stride, padding or dilation that `AdderConv2d` cannot have.
    """
    if _is_adder_layer(model):
        return _convert(model, "the model")
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if _is_adder_layer(child):
                setattr(module, name, _convert(child, f"{path}.{name}".lstrip(".")))
    return model


def _is_adder_layer(module: nn.Module) -> bool:
    adder = module._parameters.get("adder")
    return (
        not isinstance(module, AdderConv2d)
        and adder is not None
        and adder.dim() == 4
        and hasattr(module, "stride")
        and hasattr(module, "padding")
    )


def _convert(module: nn.Module, path: str) -> AdderConv2d:
    adder, bias = module._parameters["adder"], module._parameters.get("b")
    assert adder is not None
    geometry: dict[str, Any] = {
        key: _pair(getattr(module, key, default), f"{path}.{key}")
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    groups = getattr(module, "groups", 1)
    filters, group_channels, height, width = adder.shape
    layer = AdderConv2d(
        group_channels * groups,
        filters,
        (height, width),
        groups=groups,
        bias=bias is not None,
        **geometry,
    )
    layer.adder = adder
    if bias is not None:
        layer.b = bias
    return layer.train(module.training)


def _pair(value: Any, what: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) for v in pair):
        raise ExportError(f"{what} is {value!r}; expected one or two integers")
    return (pair[0], pair[1])
