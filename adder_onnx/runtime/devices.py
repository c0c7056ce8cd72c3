"""Names of devices."""

from __future__ import annotations

from collections.abc import Sequence

from adder_onnx.errors import DeviceError

__all__ = ["resolve_device"]


def resolve_device(device: str, providers: Sequence[object] | None = None) -> str:
    """The device to use.

    Args:
        device: ``cpu`` or ``auto``.
        providers: onnxruntime's execution providers, by name or as (name, options); where given,
            they decide instead of ``device``.

    Raises:
        DeviceError: the device is unknown or not supported.
    """
    if providers is not None:
        names = [str(p[0]) if isinstance(p, tuple) else str(p) for p in providers]
        if names != ["CPUExecutionProvider"]:
            raise DeviceError(
                f"providers {names} are not supported; use ['CPUExecutionProvider'] or device='cpu'"
            )
        return "cpu"
    if device not in ("cpu", "auto"):
        raise DeviceError(f"device {device!r} is not supported; use 'cpu' or 'auto'")
    return "cpu"
