"""Fine-tuning for few bits: what is rounded, where, and with which gradients."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional

from adder_onnx.errors import DataError, ExportError, InputError
from adder_onnx.export import AdderConv2d, export_onnx, fake_quantize
from adder_onnx.export.fake_quantization import operators
from adder_onnx.export.fake_quantization.places import Place, Value, find_values
from adder_onnx.export.fake_quantization.quantizer import FakeQuantizer
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.ops import ConvAttributes
from adder_onnx.ops.reference import adder_conv
from adder_onnx.quantization.ranges import Quantization


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are small: where other tests run beside these, threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quantizer(scale: float, zero_point: int, bits: int) -> FakeQuantizer:
    """In float64."""
    start = Quantization(np.float32(scale), zero_point, bits)
    return FakeQuantizer(start, torch.zeros((), dtype=torch.float64))


def rounded(
    v: NDArray[np.floating], scale: float, zero_point: int, bits: int
) -> NDArray[np.floating]:
    """From the definition, in the type of ``v``."""
    levels = np.clip(np.rint(v / v.dtype.type(scale)), -zero_point, 2**bits - 1 - zero_point)
    return np.asarray(levels * v.dtype.type(scale))


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))


@pytest.mark.parametrize(("zero_point", "bits"), [(0, 2), (1, 2), (5, 4), (128, 8)])
def test_values_are_rounded_as_onnx_does(zero_point: int, bits: int) -> None:
    scale = np.float32(0.3)
    ties = (np.arange(-150, 150) + 0.5) * 2
    x = np.concatenate([ties * scale / 2, np.random.default_rng(0).normal(0, 9, 500)])
    x = x.astype(np.float32).reshape(2, -1)
    q = quantizer(0.3, zero_point, bits).float()
    found = operators.fake_quantize(tensor(x), tensor(scale), q.zero_point, bits).numpy()
    np.testing.assert_array_equal(found, rounded(x, 0.3, zero_point, bits))
    fixed = operators.quantize_dequantize(tensor(x), float(scale), zero_point, bits)
    np.testing.assert_array_equal(fixed.numpy(), found)

    def node(op: str, x: str, y: str) -> Any:
        return helper.make_node(op, [x, "s", "z"], [y])

    levels = [np.float32(rounded(np.float32([e]), 0.3, zero_point, bits)[0]) for e in (-1e4, 1e4)]
    graph = helper.make_graph(
        [
            helper.make_node("Clip", ["x", "low", "high"], ["c"]),
            node("QuantizeLinear", "c", "q"),
            node("DequantizeLinear", "q", "y"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [scale]),
            helper.make_tensor("z", TensorProto.UINT8, [], [zero_point]),
            helper.make_tensor("low", TensorProto.FLOAT, [], [levels[0]]),
            helper.make_tensor("high", TensorProto.FLOAT, [], [levels[1]]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], found)


@pytest.mark.parametrize("levels", [(0, 2, 3, 4, 5, 7, 10, 15), (1, 3, 12)])
def test_values_become_the_nearest_of_few_levels(levels: tuple[int, ...]) -> None:
    """Of two the lower; with a scale of a power of two ties are exact."""
    x = np.concatenate([np.arange(-20, 20, 0.125), [-1e9, 1e9]]).astype(np.float32)
    q = Quantization(np.float32(0.25), 3, 4, levels)
    expected = [min(levels, key=lambda n: (abs(v / 0.25 + 3 - n), n)) for v in np.clip(x, -99, 99)]
    truth = ((np.array(expected) - 3) * 0.25).astype(np.float32)
    rounding = FakeQuantizer(q, torch.zeros(()))
    rounding.log_scale.data.fill_(np.log(0.25))
    found = rounding(tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    rounding.fix()
    np.testing.assert_allclose(rounding(tensor(x)).numpy(), truth, rtol=1e-6)
    assert rounding.quantization().levels == levels
    assert f"levels={list(levels)}" in repr(rounding)
    # Weights have all integers from the first level to the last.
    weights = rounding.round_weights(tensor(x)).numpy()
    inside = (x >= (levels[0] - 3) * 0.25) & (x <= (levels[-1] - 3) * 0.25)
    np.testing.assert_allclose(weights[inside], np.rint(x[inside] * 4) / 4, rtol=1e-6)
    np.testing.assert_array_equal(weights[~inside], x[~inside])


@pytest.mark.parametrize(
    ("zero_point", "levels"),
    [(0, range(4)), (1, range(8)), (0, (0, 2, 3, 7)), (4, (1, 4, 5, 9))],
)
def test_gradients_of_a_value_and_its_scale(zero_point: int, levels: Sequence[int]) -> None:
    """By differences of clamp(v, l, h) + s * error, with the rounding errors of the start."""
    rng = np.random.default_rng(1)
    x, weight = rng.normal(0, 4, (3, 2, 4, 4)), rng.standard_normal((3, 2, 4, 4))
    few = () if isinstance(levels, range) else tuple(levels)
    start = Quantization(
        np.float32(0.7), zero_point, 4 if few else len(levels).bit_length() - 1, few
    )
    q = FakeQuantizer(start, torch.zeros((), dtype=torch.float64))
    scale = q.log_scale.exp().item()
    low, high = levels[0] - zero_point, levels[-1] - zero_point
    ratio = np.clip(x / scale, low, high)
    steps = np.array(levels) - zero_point
    error = steps[np.abs(ratio[..., None] - steps).argmin(axis=-1)] - ratio

    def surrogate(v: NDArray[np.float64], s: float) -> float:
        clamped = np.clip(v, low * s, high * s)
        return float((weight * (clamped + s * error)).sum())

    leaf = tensor(x).requires_grad_()
    found_x, found_log = grad((q(leaf) * tensor(weight)).sum(), [leaf, q.log_scale])
    step = 1e-6
    slope = (surrogate(x, scale + step) - surrogate(x, scale - step)) / (2 * step)
    assert found_log.item() == pytest.approx(slope * scale, rel=1e-6)
    slopes = []
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        slopes.append((surrogate(up, scale) - surrogate(down, scale)) / (2 * step))
    np.testing.assert_allclose(found_x.numpy().ravel(), slopes, atol=1e-6)
    assert 0.2 < np.mean(np.abs(slopes) < 1e-9) < 0.9  # both kinds are there


def test_weights_beyond_the_range_stay_and_all_learn() -> None:
    w = np.random.default_rng(2).normal(0, 3, (6, 4, 3, 3)).astype(np.float32)
    q = quantizer(0.37, 2, 3).float()
    scale = q.quantization().scale
    leaf = tensor(w).requires_grad_()
    found = q.round_weights(leaf)
    inside = (w >= -2 * scale) & (w <= 5 * scale)
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_array_equal(found.detach().numpy()[~inside], w[~inside])
    np.testing.assert_array_equal(
        found.detach().numpy()[inside], rounded(w, float(scale), 2, 3)[inside]
    )
    upstream = torch.randn(w.shape)
    (found_grad,) = grad((found * upstream).sum(), leaf)
    np.testing.assert_array_equal(found_grad.numpy(), upstream.numpy())


def single_layer(bits: int, x: Tensor) -> tuple[nn.Module, AdderConv2d, FakeQuantizer]:
    torch.manual_seed(3)
    layer = AdderConv2d(2, 3, 3, padding=1).double()
    with torch.no_grad():
        layer.adder.mul_(8)
    model = fake_quantize(nn.Sequential(nn.ReLU(), layer), bits, [x])
    (q,) = {m for m in model.modules() if isinstance(m, FakeQuantizer)}
    found = model.get_submodule("1")
    assert isinstance(found, AdderConv2d)
    return model, found, q


def test_a_layer_is_that_of_integers_and_a_constant() -> None:
    x = 6 * torch.randn(2, 2, 5, 5, dtype=torch.float64)
    model, layer, q = single_layer(3, x)
    weight = layer.parametrizations["adder"].original.detach().numpy()
    scale = q.log_scale.exp().item()
    high = 7 * scale
    clamped = np.clip(weight, 0, high)
    constant = np.abs(weight - clamped).sum(axis=(1, 2, 3))
    integers = [rounded(a, scale, 0, 3) for a in (np.maximum(x.numpy(), 0), clamped)]
    expected = adder_conv(*integers, ConvAttributes(pads=(1, 1, 1, 1)))
    expected = expected - constant[:, None, None]
    assert constant.min() > 1
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-12)


def test_a_layers_gradient_of_its_scale() -> None:
    """Levels, and weights beyond them, are 1 or more apart, so that HardTanh(W - X) is the sign."""
    scale = 1.7
    x = 6 * torch.randn(2, 2, 5, 5, dtype=torch.float64)
    model, layer, q = single_layer(2, x)
    with torch.no_grad():
        q.log_scale.fill_(np.log(scale))
        original = layer.parametrizations["adder"].original
        original[(original < 0) & (original > -1)] = -1
        original[(original > 3 * scale) & (original < 3 * scale + 1)] += 1
    upstream = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    (found,) = grad((model(x) * upstream).sum(), q.log_scale)
    values, weight = np.maximum(x.numpy(), 0), layer.adder.detach().numpy()
    ratio = np.clip(values / scale, 0, 3)
    error = np.rint(ratio) - ratio

    def surrogate(s: float) -> float:
        """With the weights as they are; where x meets one, from both sides: its slope is zero."""
        v = np.pad(np.clip(values, 0, 3 * s) + s * error, ((0, 0), (0, 0), (1, 1), (1, 1)))
        sides = sum(adder_conv(v + e, weight, ConvAttributes()) for e in (1e-4, -1e-4))
        return float((sides / 2 * upstream.numpy()).sum())

    slope = (surrogate(scale + 1e-6) - surrogate(scale - 1e-6)) / 2e-6
    assert found.item() == pytest.approx(slope * scale, rel=1e-5)


SMALL = ResNetConfig("cifar", "basic", (1, 1), (4, 6), classes=3, in_channels=1)


class Functional(nn.Module):
    """A user's block, and a network of it, with F.relu."""

    def __init__(self, shortcut: bool = False) -> None:
        super().__init__()
        self.conv1 = AdderConv2d(4, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = AdderConv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        kept = self.shortcut(x)
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += kept
        return functional.relu(out, inplace=True)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Functional(), Functional())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(functional.relu(self.conv(x)))
        return features.mean((2, 3))


def test_where_values_are_rounded() -> None:
    torch.manual_seed(4)
    values = find_values(ResNet(SMALL).eval(), torch.randn(2, 1, 8, 8))
    assert values == [
        Value(("layer1.0.conv1",), (Place("relu", None),)),
        Value(("layer1.0.conv2",), (Place("layer1.0.conv2", 0),)),  # its ReLU is called twice
        Value(("layer2.0.conv1", "layer2.0.downsample.0"), (Place("layer1", None),)),
        Value(("layer2.0.conv2",), (Place("layer2.0.conv2", 0),)),
    ]


def test_where_values_of_functions_are_rounded(caplog: pytest.LogCaptureFixture) -> None:
    values = find_values(Net().eval(), torch.randn(2, 1, 8, 8))
    assert values == [
        Value(("blocks.0.conv1",), (Place("blocks", 0),)),
        Value(("blocks.0.conv2",), (Place("blocks.0.conv2", 0),)),
        # Changed in place, by the addition and ReLU, since bn2 gave it.
        Value(("blocks.1.conv1",), (Place("blocks.0", None),)),
        Value(("blocks.1.conv2",), (Place("blocks.1.conv2", 0),)),
    ]
    assert caplog.text == ""


class Twice(nn.Module):
    """One layer for two values, of which a residual takes the first as nobody's output."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.layer = AdderConv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(x)
        return self.layer(self.bn(self.layer(first))) + first  # type: ignore[no-any-return]


def test_a_layer_used_twice_has_one_scale(caplog: pytest.LogCaptureFixture) -> None:
    model = Twice().eval()
    (value,) = find_values(model, torch.randn(2, 4, 8, 8))
    assert value == Value(("layer",), (Place("layer", 0), Place("bn", None)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "the input of layer 'layer' is used elsewhere, too" in record.message


class Late(nn.Module):
    """Gives what its own layer has taken before."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.layer = AdderConv2d(4, 4, 3)
        self.loss: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        self.loss = self.layer(x).mean()
        return x


def test_rounded_before_it_is_taken() -> None:
    model = nn.Sequential(Late(), AdderConv2d(4, 4, 3)).eval()
    (value,) = find_values(model, torch.randn(2, 4, 8, 8))
    assert value == Value(("0.layer", "1"), (Place("0.relu", None),))


class Changed(nn.Module):
    """Changes in place what a module gave."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.layer = AdderConv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(x)
        y += x
        return self.layer(y)  # type: ignore[no-any-return]


def test_not_rounded_before_it_is_changed() -> None:
    (value,) = find_values(Changed().eval(), torch.randn(2, 4, 8, 8))
    assert value == Value(("layer",), (Place("layer", 0),))


class Fork(nn.Module):
    """A value that two modules take."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(AdderConv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.two = nn.Sequential(AdderConv2d(4, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        return self.one(x) + self.two(x)  # type: ignore[no-any-return]


def test_rounded_for_all_who_take_it(caplog: pytest.LogCaptureFixture) -> None:
    (value,) = find_values(Fork().eval(), torch.randn(2, 4, 8, 8))
    assert value == Value(("one.0", "two.0"), (Place("one.0", 0), Place("two.0", 0)))
    assert caplog.text == ""


def trained(model: nn.Module) -> nn.Module:
    """With batch normalisation that has seen noise."""
    torch.manual_seed(5)
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.randn(8, 1, 8, 8))
    return model.eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(6)
    return trained(ResNet(SMALL))


BATCHES = [torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.mark.parametrize("network", [lambda: ResNet(SMALL), Net], ids=["ResNet", "functions"])
def test_layers_and_residuals_see_integers(network: Any) -> None:
    """Of all layers' inputs and, in the blocks' sums, the shortcuts."""
    model = fake_quantize(trained(network()), 3, BATCHES)
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, AdderConv2d | nn.Sequential):
            module.register_forward_pre_hook(
                lambda m, args, name=name: seen.__setitem__(name, args[0].detach().clone())
            )
    with torch.no_grad():
        model(BATCHES[0])
    for name, module in model.named_modules():
        if not isinstance(module, AdderConv2d):
            continue
        (q,) = {m for m in module.modules() if isinstance(m, FakeQuantizer)}
        levels = seen[name] / q.quantization().scale
        assert (levels - levels.round()).abs().max() < 1e-5
        assert 3 <= levels.round().unique().numel() <= 8
    if network is Net:
        torch.testing.assert_close(seen["blocks.0.shortcut"], seen["blocks.0.conv1"])
        torch.testing.assert_close(seen["blocks.1.shortcut"], seen["blocks.1.conv1"])


def test_training_a_copy(resnet: nn.Module) -> None:
    before = {name: t.clone() for name, t in resnet.state_dict().items()}
    model = fake_quantize(resnet.train(), 2, [(batch, torch.zeros(4)) for batch in BATCHES])
    assert model.training
    assert not resnet.eval().training
    for name, t in resnet.state_dict().items():
        assert torch.equal(t, before[name]), name
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(16) % 3
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, p in model.named_parameters():
        assert not torch.equal(p, start[name]), name


def test_what_is_saved_and_copied(resnet: nn.Module) -> None:
    model = fake_quantize(resnet, 3, BATCHES)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.2)
    again = fake_quantize(resnet, 3, BATCHES[:1])
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(BATCHES[0])
        torch.testing.assert_close(again(BATCHES[0]), expected, rtol=0, atol=0)
        clone = copy.deepcopy(model)
        for p in model.parameters():
            p.mul_(1.2)
        torch.testing.assert_close(clone(BATCHES[0]), expected, rtol=0, atol=0)
        assert not torch.equal(model(BATCHES[0]), expected)


def test_what_is_wrong(resnet: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="bits is 9; expected 2 to 8"):
        fake_quantize(resnet, 9, BATCHES)
    with pytest.raises(InputError, match="there are no batches"):
        fake_quantize(resnet, 4, [])
    with pytest.raises(InputError, match=r"a batch is \[4\]; expected images"):
        fake_quantize(resnet, 4, [torch.zeros(4)])
    with pytest.raises(InputError, match="a batch is str; expected images"):
        fake_quantize(resnet, 4, "ab")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="the model does not run: RuntimeError"):
        fake_quantize(resnet, 4, [torch.zeros(1, 2, 8, 8)])
    with pytest.raises(DataError, match=r"the input of layer 'layer1.0.conv1' infinite"):
        fake_quantize(resnet, 4, [torch.full((1, 1, 8, 8), torch.inf)])
    with pytest.raises(ExportError, match="no adder layer"):
        fake_quantize(nn.Conv2d(1, 2, 3), 4, BATCHES)
    model = fake_quantize(resnet, 4, BATCHES)
    with pytest.raises(ExportError, match="fake-quantized already"):
        fake_quantize(model, 4, BATCHES)
    with pytest.raises(ExportError, match="export_quantized writes its integers"):
        export_onnx(model, "never.onnx", (1, 8, 8))
    assert caplog.text == ""


def test_layers_that_do_not_run_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = Net()
    model.auxiliary = AdderConv2d(4, 4, 3)
    fake_quantize(model, 4, BATCHES)
    assert "layer 'auxiliary' is not used in evaluation" in caplog.text
