"""What training needs a GPU for: ``pytest -m gpu``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn import functional

from adder_onnx.errors import AdderError
from adder_onnx.export import AdderConv2d, adder_conv2d, fake_quantize
from adder_onnx.export.layer.selection import native_kernels
from adder_onnx.runtime.cuda.cupy_gpu import CupyGpu
from adder_onnx.runtime.devices import check_cupy
from tests.gradients import assert_gradient_right
from tests.layers import Layer, layers, make_layer

pytestmark = pytest.mark.gpu

MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True, scope="module")
def needs_gpu() -> None:
    try:
        check_cupy(0)
    except AdderError as error:
        pytest.skip(f"no GPU: {error}")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")


def results(x: Tensor, w: Tensor, *geometry: Any) -> list[Tensor]:
    """Output and gradients, in double precision on the CPU."""
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    y = adder_conv2d(x, w, *geometry)
    backward(y, torch.cos(torch.arange(y.numel(), device=y.device)).to(y.dtype).view_as(y))
    assert x.grad is not None
    assert w.grad is not None
    return [t.detach().double().cpu() for t in (y, x.grad, w.grad)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """By each tensor's largest element."""
    for ours, truth in zip(found, expected, strict=True):
        assert ours.shape == truth.shape
        error, scale = float((ours - truth).abs().max()), float(truth.abs().max())
        assert error <= tolerance * scale, f"{error} of {scale}"


def test_gradient_of_any_shape() -> None:
    gpu = CupyGpu(0)

    @settings(max_examples=300, deadline=None)
    @given(layer=layers())
    def check(layer: Layer) -> None:
        assert_gradient_right(layer, gpu)

    check()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "stride"),
    [(16, 16, 32, 3, 1), (16, 32, 32, 3, 2), (64, 64, 8, 3, 1), (64, 96, 14, 1, 1)],
)
def test_gradients_of_layers_of_resnets(
    channels: int, filters: int, size: int, kernel: int, stride: int
) -> None:
    layer = make_layer(
        np.random.default_rng(0),
        16,
        channels,
        filters,
        (size, size),
        (kernel, kernel),
        strides=(stride, stride),
        pads=(kernel // 2,) * 4,
    )
    assert_gradient_right(layer, CupyGpu(0))


@pytest.mark.parametrize("lies", MEMORY_FORMATS)
@pytest.mark.parametrize("groups", [1, 2, 24])
@pytest.mark.parametrize("stride", [1, 2])
def test_layer_against_pytorch_in_double_precision(
    stride: int, groups: int, lies: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 24, 13, 17, generator=generator)
    w = torch.randn(48, 24 // groups, 3, 3, generator=generator)
    expected = results(x.double(), w.double(), stride, 1, 1, groups)
    on_gpu = x.cuda().contiguous(memory_format=lies)
    assert native_kernels(on_gpu, w.cuda())
    y = adder_conv2d(on_gpu, w.cuda(), stride, 1, 1, groups)
    assert y.is_contiguous(memory_format=lies)
    assert_close(results(on_gpu, w.cuda(), stride, 1, 1, groups), expected)


def test_filters_gradient_is_not_rounded_to_tf32() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, 14, 14, generator=generator)
    w = 10 * torch.randn(64, 64, 3, 3, generator=generator)
    expected = results(x.double(), w.double(), 1, 1)
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "tf32"
        assert_close(results(x.cuda(), w.cuda(), 1, 1), expected)
        assert convolutions.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision = before


def test_work_is_in_the_order_of_the_current_stream() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(4, 16, 9, 9, generator=generator), torch.randn(16, 16, 3, 3)
    there, filters, stream = x.cuda(), w.cuda(), torch.cuda.Stream()
    adder_conv2d(there, filters, 1, 1)  # kernels are compiled
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(there)
        torch.cuda._sleep(200_000_000)
        late += there
        y = adder_conv2d(late, filters, 1, 1)
        assert not stream.query()
        found = results(late, filters, 1, 1)
    expected = results(x.double(), w.double(), 1, 1)
    assert_close(found, expected)
    assert_close([y.double().cpu()], expected[:1])


def test_another_gpu_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    x, w = torch.randn(4, 16, 9, 9), torch.randn(16, 16, 3, 3)
    found = results(x.cuda(1), w.cuda(1), 1, 1)
    assert torch.cuda.current_device() == 0
    assert_close(found, results(x.double(), w.double(), 1, 1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        AdderConv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        AdderConv2d(32, 32, 3, padding=1, bias=True),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        AdderConv2d(32, 10, 1),
        nn.BatchNorm2d(10),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """By the parameters' names."""
    model.zero_grad()
    backward(functional.cross_entropy(model(x), torch.arange(len(x), device=x.device) % 10))
    return {n: p.grad.double().cpu() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lies", MEMORY_FORMATS)
def test_a_step_of_training_is_the_cpus(lies: torch.memory_format) -> None:
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    try:
        convolutions.fp32_precision = "ieee"  # of the ordinary convolution
        model = network().cuda().to(memory_format=lies)
        found = gradients(model, x.cuda().contiguous(memory_format=lies))
    finally:
        convolutions.fp32_precision = before
    expected = gradients(network(), x)
    assert found.keys() == expected.keys()
    # Batch normalisation takes these away again: their gradients are 0, and what is found is
    # rounding of sums like that of its own bias.
    taken_away = {"0.bias": "1.bias", "6.b": "7.bias"}
    for name, ours in found.items():
        scale = float(expected[taken_away.get(name, name)].abs().max())
        error = float((ours - expected[name]).abs().max())
        assert error <= 1e-3 * scale, f"{name}: {error} of {scale}"


def test_mixed_precision_trains() -> None:
    model, x = network().cuda(), torch.randn(32, 3, 16, 16, device="cuda")
    labels = torch.arange(32, device="cuda") % 10
    optimizer, scaler = torch.optim.SGD(model.parameters(), 0.01), torch.amp.GradScaler("cuda")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_step_can_be_captured_in_a_graph() -> None:
    """As torch.cuda.graph wants it: after steps on a stream of their own."""
    layer = AdderConv2d(16, 32, 3, padding=1).cuda()
    x = torch.randn(4, 16, 9, 9, device="cuda")

    def step() -> Tensor:
        layer.zero_grad()
        y: Tensor = layer(x)
        backward(y.square().sum())
        return y

    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    layer.zero_grad()
    with torch.cuda.graph(graph):
        y = step()
    x.copy_(torch.randn(4, 16, 9, 9, device="cuda"))
    graph.replay()
    assert layer.adder.grad is not None
    found = [y.clone(), layer.adder.grad.clone()]
    expected = [step().clone(), layer.adder.grad.clone()]
    for ours, eager in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


def test_memory_is_that_of_the_tensors() -> None:
    """Positions x filters x taps are 2.4 GB here."""
    x = torch.randn(16, 64, 32, 32, device="cuda", requires_grad=True)
    layer = AdderConv2d(64, 64, 3, padding=1).cuda()
    backward(layer(x).sum())
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    backward(layer(x).sum())
    tensors = 4 * x.numel()
    # Output and its gradient, and the like of both and of the input inside; cuDNN's workspace.
    assert torch.cuda.max_memory_allocated() - before < 10 * tensors + (64 << 20)


def test_a_fake_quantized_network() -> None:
    """Prepared on the CPU, moved, trained there; and what it gives for the same weights."""
    torch.manual_seed(0)
    network = nn.Sequential(
        AdderConv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), AdderConv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    x = torch.randn(4, 3, 12, 12)
    network(x)
    model = fake_quantize(network, 4, [x])
    expected = model.eval()(x)
    found = model.cuda()(x.cuda()).cpu()
    # A value halfway between two levels may go to the other one.
    assert float(((found - expected).abs() > 1e-4).float().mean()) < 0.01
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    features = model.train()(x.cuda()).amax(dim=(2, 3))
    functional.cross_entropy(features, torch.arange(4, device="cuda")).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.is_cuda
        assert not torch.equal(p, start[name]), name
