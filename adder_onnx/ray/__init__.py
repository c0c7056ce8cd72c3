"""Images by the million: a model in a pipeline of Ray Data, and behind Ray Serve.

`Classifier` is for ``map_batches`` of a data set, `deployment` for ``serve.run``;
docs/scaling.md shows both. Needs ``adder-onnx[cpu,ray]``, or another extra in the place of ``cpu``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adder_onnx.dependencies import import_failure

try:
    import ray as _ray  # noqa: F401
except (ImportError, OSError) as error:
    raise import_failure(error, "ray", 'pip install "adder-onnx[ray]"', "Ray") from error

if TYPE_CHECKING:
    from adder_onnx.ray.classifier import Classifier
    from adder_onnx.ray.serving import deployment

__all__ = ["Classifier", "deployment"]

_PLACES = {"Classifier": "adder_onnx.ray.classifier", "deployment": "adder_onnx.ray.serving"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: Ray Serve is not there where Ray Data is used, and the reverse."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return __all__
