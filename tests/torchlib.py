"""PyTorch's exporter reads the code of its 500 functions once, not for each export anew.

That takes more than half of the time of a small export, and tests make some hundred of those.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import copy
from functools import cache
from typing import Any

import pytest

__all__ = ["torchlib_read_once"]


@pytest.fixture(scope="session", autouse=True)
def torchlib_read_once() -> Iterator[None]:
    """Each export gets a registry of its own, with the same functions."""
    if "onnxscript" not in sys.modules:  # no test of this run exports
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = cache(ONNXRegistry.from_torchlib)

    def from_torchlib(*opset_version: int, **named: int) -> Any:
        registry = copy(read(*opset_version, **named))
        registry.functions = {name: [*found] for name, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        yield
