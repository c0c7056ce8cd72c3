"""`AdderConv2d`: the layer, its gradients and its operator."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn import functional

from adder_onnx.export import AdderConv2d, adder_conv2d
from adder_onnx.export.layer import cpu, pytorch, selection
from adder_onnx.kernels.cpu import available_isas
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv, input_gradient
from tests.conftest import ROOT
from tests.paper import ALL, SOME, Geometry, definition, paper_gradients, tensors

OPERATOR = torch.ops.adder_onnx.adder_conv2d.default


@pytest.fixture
def two_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bounds the columns to two images of `tensors(SOME[2])`; records the images in each part."""
    positions, taps, size = 3 * 4, 2 * 9, 8
    monkeypatch.setattr(pytorch, "_MAX_COLUMN_BYTES", 2 * positions * taps * size + 1)
    seen: list[int] = []
    columns = pytorch._columns

    def record(x: Tensor, *rest: Any) -> Tensor:
        result: Tensor = columns(x, *rest)
        assert result.numel() * result.element_size() <= pytorch._MAX_COLUMN_BYTES
        seen.append(x.shape[0])
        return result

    monkeypatch.setattr(pytorch, "_columns", record)
    return seen


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("g", ALL, ids=str)
def test_equals_definition(g: Geometry, dtype: torch.dtype, rtol: float) -> None:
    x, w = tensors(g, dtype)
    y = adder_conv2d(x, w, *g.arguments)
    expected = definition(x.double().numpy(), w.double().numpy(), g)
    assert y.dtype == dtype
    assert y.is_contiguous()
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.double().numpy(), expected, rtol=rtol)


@pytest.mark.parametrize("bias", [False, True])
def test_layer_is_its_operator_and_a_bias(bias: bool) -> None:
    g = SOME[3]
    layer = AdderConv2d(4, 6, g.kernel, g.stride, g.padding, g.dilation, bias=bias).double()
    x, _ = tensors(g)
    expected = definition(x.numpy(), layer.adder.detach().numpy(), g)
    if bias:
        assert layer.b is not None
        expected += layer.b.detach().numpy()[:, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-13)


def test_parameters_have_the_names_and_shapes_of_the_reference_implementation() -> None:
    plain = AdderConv2d(4, 6, (3, 2), groups=2)
    assert {k: tuple(v.shape) for k, v in plain.state_dict().items()} == {"adder": (6, 2, 3, 2)}
    biased = AdderConv2d(4, 6, 3, bias=True)
    assert {k: tuple(v.shape) for k, v in biased.state_dict().items()} == {
        "adder": (6, 4, 3, 3),
        "b": (6,),
    }


def test_one_number_means_both_directions() -> None:
    layer = AdderConv2d(4, 4, 3, 2, 1, 2, 2)
    assert (layer.kernel_size, layer.stride) == ((3, 3), (2, 2))
    assert (layer.padding, layer.dilation) == ((1, 1), (2, 2))
    x, w = tensors(SOME[2])
    y = adder_conv2d(x, w, 2, 1, 1, 2)
    torch.testing.assert_close(y, adder_conv2d(x, w, *SOME[2].arguments), rtol=0, atol=0)


def test_repr_tells_the_geometry() -> None:
    layer = AdderConv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 3), groups=2)
    assert repr(layer) == (
        "AdderConv2d(4, 6, kernel_size=(3, 2), stride=(2, 2), padding=(1, 0), dilation=(1, 3), "
        "groups=2, bias=False)"
    )


def test_memory_layout_of_the_input_does_not_matter() -> None:
    g = SOME[2]
    x, w = tensors(g)
    expected = adder_conv2d(x, w, *g.arguments)
    assert expected.is_contiguous()
    strided = torch.stack([x, x], 4)[..., 0]
    assert not strided.is_contiguous()
    y = adder_conv2d(strided, w, *g.arguments)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert y.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_made_of_channels_last_lies_so(dtype: torch.dtype) -> None:
    g = SOME[2]
    found = []
    for lies in (torch.contiguous_format, torch.channels_last):
        x, w = (t.contiguous(memory_format=lies).requires_grad_() for t in tensors(g, dtype))
        y = adder_conv2d(x, w, *g.arguments)
        backward(y.square().sum())
        assert x.grad is not None
        assert w.grad is not None
        for t in (y, x.grad):
            assert t.is_contiguous(memory_format=lies)
        found.append((y.detach(), x.grad, w.grad))
    for contiguous, channels_last in zip(*found, strict=True):
        torch.testing.assert_close(channels_last, contiguous, rtol=1e-5, atol=1e-6)


def test_what_lies_both_ways_is_contiguous() -> None:
    """As the images of one channel do."""
    x = torch.zeros(2, 1, 5, 5)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert adder_conv2d(x, torch.zeros(3, 1, 2, 2)).is_contiguous()


def test_batch_of_none() -> None:
    x, w = tensors(SOME[2], batch=0)
    assert adder_conv2d(x, w, *SOME[2].arguments).shape == (0, 8, 3, 4)


def test_chunks_of_the_batch_give_the_same(two_images_at_a_time: list[int]) -> None:
    g = SOME[2]
    x, w = tensors(g, batch=5)
    y = adder_conv2d(x, w, *g.arguments)
    assert two_images_at_a_time == [2, 2, 2, 2, 1, 1]  # for each of two groups
    np.testing.assert_allclose(y.numpy(), definition(x.numpy(), w.numpy(), g), rtol=1e-13)


def test_image_larger_than_the_bound_is_a_chunk_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "_MAX_COLUMN_BYTES", 1)
    x, w = tensors(SOME[0], batch=3)
    y = adder_conv2d(x, w, *SOME[0].arguments)
    np.testing.assert_allclose(y.numpy(), definition(x.numpy(), w.numpy(), SOME[0]), rtol=1e-13)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        ((1, 5, 4, 4), (3, 4, 3, 3), {}, r"\(3, 4, 3, 3\) with groups=1 does not fit"),
        ((1, 4, 4, 4), (3, 2, 3, 3), {"groups": 2}, "groups=2 does not fit"),
        ((1, 4, 4, 4), (4, 4, 3, 3), {"groups": 2}, "groups=2 does not fit"),
        ((1, 4, 4, 4), (4, 4, 3, 3), {"groups": 0}, "groups=0 does not fit"),
        ((4, 4, 4), (3, 4, 3, 3), {}, r"expected \(N, C, H, W\).*got \(4, 4, 4\)"),
        ((1, 4, 4, 4), (3, 36), {}, r"expected .* and \(M, C/groups, kH, kW\).*\(3, 36\)"),
        ((1, 4, 2, 4), (3, 4, 3, 3), {}, "spans 3 pixels in height.*padded image's 2"),
        ((1, 4, 4, 1), (3, 4, 3, 3), {}, "spans 3 pixels in width.*padded image's 1"),
        ((1, 4, 4, 4), (3, 4, 3, 3), {"dilation": (1, 2)}, "spans 5 pixels in width"),
        ((1, 4, 4, 4), (3, 4, 3, 3), {"stride": 0}, r"stride=\(0, 0\)"),
        ((1, 4, 4, 4), (3, 4, 3, 3), {"padding": -1}, r"padding=\(-1, -1\)"),
        ((1, 4, 4, 4), (3, 4, 3, 3), {"dilation": (0, 1)}, r"dilation=\(0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    x: tuple[int, ...], w: tuple[int, ...], options: dict[str, Any], message: str, device: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adder_conv2d(torch.zeros(x, device=device), torch.zeros(w, device=device), **options)


@pytest.mark.parametrize(("channels", "filters", "groups"), [(4, 6, 4), (6, 4, 4), (4, 4, 0)])
def test_layer_refuses_groups_that_do_not_divide(channels: int, filters: int, groups: int) -> None:
    with pytest.raises(ValueError, match=f"in_channels={channels}.*groups={groups}"):
        AdderConv2d(channels, filters, 3, groups=groups)


def check_gradients(
    g: Geometry, batch: int, dtype: torch.dtype = torch.float64, tolerance: float = 1e-11
) -> None:
    x, w = (t.requires_grad_() for t in tensors(g, dtype, batch))
    y = adder_conv2d(x, w, *g.arguments)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    backward(y, grad_y)
    expected = paper_gradients(*(t.detach().double().numpy() for t in (x, w, grad_y)), g)
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.dtype == w.grad.dtype == dtype
    np.testing.assert_allclose(x.grad.numpy(), expected[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(w.grad.numpy(), expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("g", SOME, ids=str)
def test_gradients_are_the_papers(g: Geometry) -> None:
    check_gradients(g, batch=2)


@pytest.mark.parametrize("g", SOME, ids=str)
def test_reference_of_the_inputs_gradient_is_the_papers(g: Geometry) -> None:
    x, w = (t.numpy() for t in tensors(g))
    a = ConvAttributes(strides=g.stride, pads=g.padding * 2, dilations=g.dilation, group=g.groups)
    grad_y = np.cos(np.arange(adder_conv(x, w, a).size)).reshape(adder_conv(x, w, a).shape)
    expected, _ = paper_gradients(x, w, grad_y, g)
    np.testing.assert_allclose(input_gradient(x, w, grad_y, a), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("g", ALL, ids=str)
def test_native_gradients_are_the_papers(
    g: Geometry, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "select_isa", lambda: isa)
    check_gradients(g, 2, torch.float32, 1e-5)


@pytest.mark.parametrize("channels", [1, 16, 17, 40])
def test_native_gradient_of_any_width(channels: int) -> None:
    """Wider than a vector and a tile, against PyTorch's own gradients in double precision."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(9, channels, 5, 29, generator=generator)
    w = torch.randn(33, channels, 3, 3, generator=generator)
    for stride in (1, 2, 3):
        found = []
        for dtype in (torch.float32, torch.float64):
            xd, wd = (t.to(dtype, copy=True).requires_grad_() for t in (x, w))
            y = adder_conv2d(xd, wd, stride, 1)
            backward(y, torch.cos(torch.arange(y.numel(), dtype=dtype)).view_as(y))
            found.append((y.detach().double(), xd.grad, wd.grad))
        for native, double in zip(*found, strict=True):
            assert native is not None
            torch.testing.assert_close(native.double(), double, rtol=1e-4, atol=1e-4)


def test_pytorch_computes_where_native_kernels_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(cpu, "forward", lambda *_: calls.append(None))
    x, w = tensors(SOME[0], torch.float32)
    with selection.without_native_kernels():
        y = adder_conv2d(x, w)
    assert not calls
    np.testing.assert_allclose(y.numpy(), definition(x.numpy(), w.numpy(), Geometry()), rtol=1e-5)


def test_native_gradients_do_not_depend_on_threads() -> None:
    x, w = tensors(SOME[0], torch.float32, batch=7)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        xg = x.clone().requires_grad_()
        backward(adder_conv2d(xg, w, 1, 1).square().sum())
        found.append(xg.grad)
    torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_gradients_of_chunks(two_images_at_a_time: list[int]) -> None:
    check_gradients(SOME[2], batch=5)
    assert two_images_at_a_time == [2, 2, 2, 2, 1, 1] * 2  # forward, then backward


def test_gradient_of_the_input_is_clipped_and_that_of_the_filter_is_not() -> None:
    """One tap, by hand: HardTanh(W - X) for the input, X - W in sign for the filter."""
    x = torch.tensor([-5.0, -0.5, 0.25, 3.0]).reshape(4, 1, 1, 1).requires_grad_()
    w = torch.zeros(1, 1, 1, 1, requires_grad=True)
    backward(adder_conv2d(x, w).sum())
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.5, -0.25, -1.0]
    # The sum of X - W is -2.25; one element is rescaled to the norm 0.2.
    torch.testing.assert_close(w.grad.flatten(), torch.tensor([-0.2]))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norm_of_the_filters_gradient_depends_on_their_number_alone(scale: float) -> None:
    x, w = tensors(SOME[2])
    w.requires_grad_()
    backward((scale * adder_conv2d(x, w, *SOME[2].arguments)).sum())
    assert w.grad is not None
    assert w.grad.norm().item() == pytest.approx(0.2 * w.numel() ** 0.5)


def test_gradient_of_nothing_is_zero() -> None:
    x, w = (t.requires_grad_() for t in tensors(SOME[0]))
    backward((0 * adder_conv2d(x, w)).sum())
    assert x.grad is not None
    assert w.grad is not None
    assert not x.grad.any()
    assert not w.grad.any()


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_only_what_is_asked_for_gets_a_gradient(frozen: str) -> None:
    g = SOME[2]
    both = [t.requires_grad_() for t in tensors(g)]
    backward(adder_conv2d(both[0], both[1], *g.arguments).sum())
    x, w = tensors(g)
    wanted = w if frozen == "input" else x
    wanted.requires_grad_()
    backward(adder_conv2d(x, w, *g.arguments).sum())
    of_both = both[1] if frozen == "input" else both[0]
    assert (x if frozen == "input" else w).grad is None
    assert wanted.grad is not None
    assert of_both.grad is not None
    torch.testing.assert_close(wanted.grad, of_both.grad, rtol=0, atol=0)


@pytest.mark.parametrize(
    "rule",
    [
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        pytest.param("test_aot_dispatch_dynamic", marks=pytest.mark.slow),
    ],
)
def test_operator_obeys_pytorchs_rules(rule: str) -> None:
    g = SOME[2]
    x, w = (t.requires_grad_() for t in tensors(g, torch.float32))
    results = torch.library.opcheck(OPERATOR, (x, w, *g.arguments), test_utils=rule)
    assert results == {rule: "SUCCESS"}


@pytest.mark.parametrize("name", ["input_gradient", "weight_gradient"])
@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_operators_of_gradients_obey_pytorchs_rules(lies: torch.memory_format, name: str) -> None:
    g = SOME[2]
    x, w = (t.contiguous(memory_format=lies) for t in tensors(g, torch.float32))
    grad_y = torch.ones_like(adder_conv2d(x, w, *g.arguments))
    operator = getattr(torch.ops.adder_onnx, f"adder_conv2d_{name}").default
    for rule in ("test_schema", "test_faketensor"):
        results = torch.library.opcheck(operator, (x, w, grad_y, *g.arguments), test_utils=rule)
        assert results == {rule: "SUCCESS"}


def test_torch_export_keeps_the_operator_in_one_piece() -> None:
    model = nn.Sequential(AdderConv2d(4, 6, 3, 2, 1, groups=2, bias=True), nn.ReLU()).eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (torch.zeros(2, 4, 6, 7),), dynamic_shapes=(batch,))
    program = program.run_decompositions()
    calls = [node for node in program.graph.nodes if node.target is OPERATOR]
    assert [call.args[2:] for call in calls] == [([2, 2], [1, 1], [1, 1], 2)]
    assert not [n for n in program.graph.nodes if "cdist" in str(n.target)]
    x = torch.randn(3, 4, 6, 7)
    torch.testing.assert_close(program.module()(x), model(x))


def test_training_of_the_filters_lowers_the_loss() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            AdderConv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8, affine=False),
            nn.ReLU(),
            AdderConv2d(8, 2, 3, stride=2),
            nn.BatchNorm2d(2, affine=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        # Stripes across against stripes down.
        stripes = (torch.arange(8) % 2).float().repeat(8, 1)
        x = torch.stack([stripes, stripes.T])[:, None].repeat(8, 1, 1, 1) + torch.rand(16, 1, 8, 8)
        target = torch.arange(16) % 2
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert len(list(model.parameters())) == 2
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("of_x", "of_w"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float64),
    ],
)
def test_types_that_it_does_not_take(of_x: torch.dtype, of_w: torch.dtype) -> None:
    x, w = tensors(SOME[0])
    message = f"the input is {of_x} and the filters are {of_w}; expected both float32, or both"
    with pytest.raises(ValueError, match=message):
        adder_conv2d(x.to(of_x), w.to(of_w))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype: torch.dtype) -> None:
    """As torch.cdist does; gradients come back in each tensor's own type."""
    g = SOME[2]
    x, w = (t.requires_grad_() for t in tensors(g, torch.float32))
    narrow = x.detach().to(dtype).requires_grad_()
    expected = adder_conv2d(narrow.detach().float(), w, *g.arguments)
    with torch.autocast("cpu", dtype):
        y = adder_conv2d(narrow, w, *g.arguments)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert y.dtype == torch.float32
    backward(y.sum())
    assert narrow.grad is not None
    assert w.grad is not None
    assert (narrow.grad.dtype, w.grad.dtype) == (dtype, torch.float32)


def test_filters_gradient_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("adder_onnx.export.adder_conv2d")
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    found = []

    def conv2d_weight(*arguments: Any) -> Tensor:
        found.append(convolutions.fp32_precision)
        raise RuntimeError("no memory")

    monkeypatch.setattr(module, "conv2d_weight", conv2d_weight)
    x, w = (t.requires_grad_() for t in tensors(SOME[0], torch.float32))
    try:
        convolutions.fp32_precision = "tf32"
        with pytest.raises(RuntimeError, match="no memory"):
            backward(adder_conv2d(x, w).sum())
        assert convolutions.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision = before
    assert found == ["ieee"]


_SETTINGS = """
import itertools, torch
from adder_onnx.export.layer.precision import full_float32

levels = (torch.backends, torch.backends.cudnn, torch.backends.cudnn.conv)

def state():
    return [level.fp32_precision for level in (*levels, torch.backends.cudnn.rnn)]

# That convolutions follow the levels above cannot be set again: it comes first.
for own in (None, "tf32", "ieee", "none"):
    if own is not None:
        levels[2].fp32_precision = own
    for settings in itertools.product(("none", "tf32", "ieee"), repeat=2):
        for level, setting in zip(levels, settings):
            level.fp32_precision = setting
        before = state()
        with full_float32():
            assert levels[2].fp32_precision != "tf32", (own, settings)
        assert state() == before, (own, settings)
        # Levels that followed others still do.
        following = []
        for setting in ("tf32", "ieee"):
            for level in levels[:2]:
                level.fp32_precision = setting
            following.append(levels[2].fp32_precision)
        assert following == (["tf32", "ieee"] if own in (None, "none") else [own, own])
legacy = torch.backends.cudnn
for allowed in (True, False):
    legacy.allow_tf32 = allowed
    with full_float32():
        assert levels[2].fp32_precision != "tf32"
    assert legacy.allow_tf32 == allowed
"""


def test_what_is_set_for_tf32_is_found_again() -> None:
    """In a process of its own, because defaults that were changed cannot be had back."""
    subprocess.run([sys.executable, "-c", _SETTINGS], check=True, cwd=ROOT)
