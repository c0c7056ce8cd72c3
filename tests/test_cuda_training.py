"""`AdderConv2d` by the CUDA kernels, which run on the CPU here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn import functional

from adder_onnx.errors import DeviceError
from adder_onnx.export import AdderConv2d, adder_conv2d
from adder_onnx.export.layer import selection, torch_gpu
from adder_onnx.export.layer.cuda import CudaKernels
from adder_onnx.kernels.cuda.launch.variants import pack_gradient
from tests.cuda_on_cpu.torch_device import TorchOnCpu
from tests.paper import SOME, Geometry, definition, paper_gradients, tensors

OPERATOR = torch.ops.adder_onnx.adder_conv2d.default


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> TorchOnCpu:
    """What the CUDA kernels run on, which compute all float32 layers here."""
    found = TorchOnCpu()
    kernels = CudaKernels(found)
    monkeypatch.setattr(selection, "_kernels_of", lambda device: kernels)
    return found


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("g", SOME, ids=str)
def test_layer_and_gradients_are_the_papers(
    g: Geometry, lies: torch.memory_format, device: TorchOnCpu
) -> None:
    x, w = (t.contiguous(memory_format=lies) for t in tensors(g, torch.float32))
    xg, wg = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = adder_conv2d(xg, wg, *g.arguments)
    grad_y = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).view_as(y)
    backward(y, grad_y)
    exact = (x.double().numpy(), w.double().numpy())
    np.testing.assert_allclose(y.detach().numpy(), definition(*exact, g), rtol=2e-6)
    assert xg.grad is not None
    assert wg.grad is not None
    expected = paper_gradients(*exact, grad_y.double().numpy(), g)
    np.testing.assert_allclose(xg.grad.numpy(), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(wg.grad.numpy(), expected[1], rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=lies)
    assert xg.grad.is_contiguous(memory_format=lies)
    device.check_guards()


def wide(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """An input (3, 40, 9, 11) and 40 filters of 2 groups: more than a tile, and not whole ones."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 40, 9, 11, generator=generator)
    return x.to(dtype), torch.randn(40, 20, 3, 3, generator=generator).to(dtype)


def results(x: Tensor, w: Tensor, *geometry: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients, those of the filters before rescaling being of size 1 or so."""
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    y = adder_conv2d(x, w, *geometry)
    backward(y, torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y))
    assert x.grad is not None
    assert w.grad is not None
    return y.detach(), x.grad, w.grad


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_wide_layer_against_pytorch_in_double_precision(
    lies: torch.memory_format, device: TorchOnCpu
) -> None:
    x, w = wide()
    expected = results(x.double(), w.double(), 2, 1, 1, 2)
    assert not device.launched
    found = results(x.contiguous(memory_format=lies), w, 2, 1, 1, 2)
    for ours, double in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), double, rtol=1e-5, atol=1e-5)
    device.check_guards()


def test_channels_last_is_computed_with_where_it_lies(device: TorchOnCpu) -> None:
    x, w = wide()
    expected = results(x, w, 1, 1, 1, 2)
    kernels = {name.partition("<")[0] for name in device.launched}
    assert {"nchw_to_nhwc", "nhwc_to_nchw", "adder_conv_gemm", "input_gradient"} < kernels
    device.launched.clear()
    found = results(x.contiguous(memory_format=torch.channels_last), w, 1, 1, 1, 2)
    kernels = {name.partition("<")[0] for name in device.launched}
    # What `backward` was given is contiguous.
    assert device.launched.count("nchw_to_nhwc<float, float>") == 1
    assert "nhwc_to_nchw" not in kernels
    for ours, other in zip(found[:2], expected, strict=False):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)


def test_channels_last_that_is_not_aligned_is_converted(device: TorchOnCpu) -> None:
    x, w = wide()
    memory = torch.zeros(x.numel() + 1)
    lies = x.contiguous(memory_format=torch.channels_last)
    unaligned = memory[1:].as_strided(lies.shape, lies.stride())
    unaligned.copy_(x)
    assert unaligned.data_ptr() % 16
    assert unaligned.is_contiguous(memory_format=torch.channels_last)
    y = adder_conv2d(unaligned, w, 1, 1, 1, 2)
    assert "nchw_to_nhwc<float, float>" in device.launched
    torch.testing.assert_close(y, adder_conv2d(lies, w, 1, 1, 1, 2), rtol=0, atol=0)


def test_batch_of_none(device: TorchOnCpu) -> None:
    x, w = wide()
    y, grad_x, grad_w = results(x[:0], w, 1, 1, 1, 2)
    assert y.shape == (0, 40, 9, 11)
    assert grad_x.shape == x[:0].shape
    assert not grad_w.any()


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rule", ["test_schema", "test_autograd_registration", "test_faketensor"])
def test_operator_obeys_pytorchs_rules(
    rule: str, lies: torch.memory_format, device: TorchOnCpu
) -> None:
    x, w = wide()
    x = x.contiguous(memory_format=lies)
    arguments = (x.requires_grad_(), w.requires_grad_(), (1, 1), (0, 1), (2, 1), 2)
    assert torch.library.opcheck(OPERATOR, arguments, test_utils=rule) == {rule: "SUCCESS"}


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            AdderConv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            AdderConv2d(16, 16, 3, padding=1, groups=16, bias=True),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            AdderConv2d(16, 36, 3, stride=2, padding=1),
            nn.BatchNorm2d(36),
            nn.ReLU(),
            AdderConv2d(36, 10, 1, stride=2),
            nn.BatchNorm2d(10),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The loss and all gradients of one step."""
    loss = functional.cross_entropy(model(x), torch.arange(len(x)) % 10)
    backward(loss)
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_a_step_of_training_is_the_cpus(
    lies: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = step(network(), x)
    device = TorchOnCpu()
    kernels = CudaKernels(device)
    monkeypatch.setattr(selection, "_kernels_of", lambda device: kernels)
    model = network().to(memory_format=lies)
    found = step(model, x.contiguous(memory_format=lies))
    assert len(found) == len(expected) == 1 + len(list(model.parameters()))
    for ours, cpus in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, cpus, rtol=2e-4, atol=2e-5)
    device.check_guards()


def test_a_gpu_without_cupy_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int) -> None:
        raise DeviceError(f"there is no CuPy for {number}")

    monkeypatch.setattr(torch_gpu, "check_cupy", refuse)
    torch_gpu.cuda_kernels.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert torch_gpu.cuda_kernels(3) is None
        assert torch_gpu.cuda_kernels(3) is None
    torch_gpu.cuda_kernels.cache_clear()
    (record,) = caplog.records
    assert record.message == (
        "adder layers on cuda:3 are computed by PyTorch's operators, which is slow: there is no "
        "CuPy for 3"
    )


class _Gpu:
    """Stands in for a `CupyGpu`: writes down what it is asked to do."""

    multiprocessors, target = 132, "sm_90"

    def __init__(self) -> None:
        self.done: list[Any] = []

    @contextmanager
    def using(self, stream: Any) -> Iterator[None]:
        self.done.append(("on", stream.ptr))
        yield
        self.done.append(("after", stream.ptr))

    def launch(self, *arguments: Any) -> None:
        self.done.append(arguments)


class _Stream:
    """One of torch."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.waits = 0

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.address)

    def synchronize(self) -> None:
        self.waits += 1


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[torch.device, _Stream]:
    """Torch's current ones."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    current: dict[torch.device, _Stream] = {}
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[device])
    return current


def test_kernels_are_launched_on_torchs_current_stream(
    streams: dict[torch.device, _Stream],
) -> None:
    gpu = _Gpu()
    on_torch = torch_gpu.TorchGpu(1, gpu)  # type: ignore[arg-type]
    arguments = (pack_gradient(), (1, 2, 3), np.zeros((), pack_gradient().args))
    for address in (4096, 8192):
        streams[torch.device("cuda:1")] = _Stream(address)
        with on_torch.current():
            on_torch.launch(*arguments)
    assert gpu.done == [
        *[("on", 4096), arguments, ("after", 4096)],
        *[("on", 8192), arguments, ("after", 8192)],
    ]


def test_constants_are_uploaded_once(streams: dict[torch.device, _Stream]) -> None:
    """And are there before another stream can use them."""
    on_torch = torch_gpu.TorchGpu(0, _Gpu())  # type: ignore[arg-type]
    on_torch._device = torch.device("cpu")
    stream = streams[on_torch._device] = _Stream(0)
    first = on_torch.upload(np.ones(3, np.float32))
    assert stream.waits == 1
    assert on_torch.upload(np.ones(3, np.float32)) is first
    others = (np.zeros(3, np.float32), np.ones(3, np.int32), np.ones((3, 1), np.float32))
    for number, other in enumerate(others):
        found = on_torch.upload(other)
        np.testing.assert_array_equal(found.numpy(), other)
        assert stream.waits == 2 + number


@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_a_compiled_network_computes_the_same(
    lies: torch.memory_format, device: TorchOnCpu
) -> None:
    x = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=lies)
    expected = step(network().to(memory_format=lies), x)
    compiled = torch.compile(network().to(memory_format=lies), backend="aot_eager", fullgraph=True)
    device.launched.clear()
    for ours, eager in zip(step(compiled, x), expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=2e-4, atol=2e-5)
    assert any(name.startswith("input_gradient") for name in device.launched)
