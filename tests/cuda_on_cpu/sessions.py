"""Sessions with ``device="cuda"`` on what stands in for a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import adder_onnx
from adder_onnx.runtime import session
from adder_onnx.runtime.devices import DeviceChoice, device_number
from tests.cuda_on_cpu.device import CpuGpu
from tests.test_random_graphs import stock

__all__ = ["assert_equals_stock", "cuda_session", "pretend"]


def pretend(monkeypatch: pytest.MonkeyPatch, gpu: CpuGpu) -> CpuGpu:
    """Lets sessions with ``device="cuda"`` use it, beside an onnxruntime that has its provider."""

    def resolve(device: str, _: object) -> DeviceChoice:
        return DeviceChoice(device_number(device))

    monkeypatch.setattr(session, "resolve_device", resolve)
    monkeypatch.setattr(session, "CupyGpu", lambda _: gpu)
    monkeypatch.setattr(session, "has_cuda_provider", lambda: True)
    monkeypatch.setattr(session, "load_libraries", lambda: None)
    return gpu


def cuda_session(model: onnx.ModelProto | bytes, **options: Any) -> adder_onnx.InferenceSession:
    """A session of a model on the GPU."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return adder_onnx.InferenceSession(data, device="cuda", **options)


def assert_equals_stock(model: onnx.ModelProto, s: Any, feed: dict[str, Any]) -> None:
    """Within rounding, NumPy arrays of the right types."""
    expected = stock(model.SerializeToString()).run(None, feed)
    for result, truth in zip(s.run(None, feed), expected, strict=True):
        assert type(result) is np.ndarray
        assert result.dtype == truth.dtype
        np.testing.assert_allclose(result, truth, rtol=1e-5, atol=1e-4)
