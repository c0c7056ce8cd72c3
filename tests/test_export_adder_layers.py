"""Adder layers of others: which are taken, what becomes of their parameters, what is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

import adder_onnx
from adder_onnx.errors import ExportError
from adder_onnx.export import AdderConv2d, export_onnx
from adder_onnx.export.adder_layers import convert_adder_layers
from adder_onnx.graph.plan import ChainStep


def distances(x: Tensor, w: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """The definition."""
    x = functional.pad(x, [padding] * 4)
    size = w.shape[2:]
    windows = x.unfold(2, size[0], stride).unfold(3, size[1], stride)
    return -(windows[:, None] - w[None, :, :, None, None]).abs().sum((2, 5, 6))


class Layer(nn.Module):
    """As others write it, with whatever beside the filters."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        self.stride, self.padding = 1, 1
        self.adder = nn.Parameter(torch.randn(4, 3, 3, 3))
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        return distances(x, self.adder, self.stride, self.padding)


class Biased(Layer):
    """Adds its one other parameter."""

    def forward(self, x: Tensor) -> Tensor:
        (bias,) = (t for name, t in self.named_parameters() if name != "adder")
        shape = (1, -1, 1, 1) if bias.dim() < 3 else bias.shape
        return super().forward(x) + bias.view(shape)


def network(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()


def exported(model: nn.Module, path: Path, **options: Any) -> adder_onnx.InferenceSession:
    export_onnx(model, path, (3, 6, 6), **options)
    return adder_onnx.InferenceSession(path)


def assert_right(model: nn.Module, path: Path, **options: Any) -> None:
    """The file computes what the model did, by an AdderConv."""
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = model(x).numpy()
    session = exported(model, path, **options)
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, atol=1e-3)
    assert any(isinstance(step, ChainStep) for step in session.plan.steps)


@pytest.mark.parametrize("name", ["b", "bias", "beta", "shift"])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4, 1, 1), (4, 1, 1)], ids=str)
def test_bias_under_any_name_and_shape(name: str, shape: tuple[int, ...]) -> None:
    layer = Biased(**{name: torch.randn(shape)})
    found = convert_adder_layers(copy.deepcopy(layer))
    assert isinstance(found, AdderConv2d)
    assert found.b is not None
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(found(x), layer(x), rtol=1e-4, atol=1e-4)


def test_bias_that_is_a_buffer(tmp_path: Path) -> None:
    class Buffered(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.offset.view(-1, 1, 1)

    assert_right(network(Buffered()), tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("tensors", "left"),
    [
        ({"alpha": torch.ones(())}, "'alpha' ()"),
        ({"scale": torch.ones(1)}, "'scale' (1,)"),
        ({"b": torch.ones(4), "step": torch.ones(1)}, "'step' (1,)"),
        ({"b": torch.ones(4), "gain": torch.ones(4)}, "'gain' (4,)"),
        ({"table": torch.ones(4, 3)}, "'table' (4, 3)"),
        ({"bias": torch.ones(3)}, "'bias' (3,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_left_over_is_named(tensors: dict[str, Tensor], left: str) -> None:
    with pytest.raises(ExportError) as caught:
        convert_adder_layers(nn.Sequential(Layer(**tensors)))
    assert f"layer '0' of class {__name__}.Layer has {left} beside its filters" in str(caught.value)


def test_parameters_of_modules_in_a_layer_are_left_over() -> None:
    layer = Layer()
    layer.norm = nn.BatchNorm2d(4)
    with pytest.raises(ExportError, match=r"'norm\.weight' \(4,\), 'norm\.bias' \(4,\)"):
        convert_adder_layers(layer)


def test_counters_of_operations_do_not_count() -> None:
    layer = Layer()
    layer.register_buffer("total_ops", torch.zeros(1))
    layer.register_buffer("total_params", torch.zeros(1))
    assert isinstance(convert_adder_layers(layer), AdderConv2d)


class Scaled(Biased):
    """Its one other parameter looks like a bias and is a factor."""

    def forward(self, x: Tensor) -> Tensor:
        (factor,) = (t for name, t in self.named_parameters() if name != "adder")
        return Layer.forward(self, x) * factor.view(-1, 1, 1)


@pytest.mark.parametrize("name", ["b", "gain"])
def test_factor_is_not_taken_for_a_bias(name: str) -> None:
    layer = Scaled(**{name: torch.full((4,), 2.0)})
    with pytest.raises(ExportError, match="computes something else than an AdderConv"):
        convert_adder_layers(layer)


def quantized(x: Tensor) -> Tensor:
    return (x * 2).round() / 2


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.register_forward_pre_hook(lambda _, x: (quantized(x[0]),)),
        lambda layer: layer.register_forward_hook(lambda _, __, y: y * 1.01),
        lambda layer: setattr(layer, "forward", lambda x: -layer.__class__.forward(layer, x)),
        lambda layer: setattr(layer, "padding", 2) or setattr(layer, "forward", lambda x: x),
    ],
    ids=["quantized input", "scaled output", "other sign", "other shape"],
)
def test_layer_that_computes_something_else(change: Callable[[nn.Module], Any]) -> None:
    layer = Layer()
    change(layer)
    with pytest.raises(ExportError, match=r"computes something else|is no adder layer"):
        convert_adder_layers(layer)


class OnGpu(Layer):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("needs a GPU")


def test_layer_that_does_not_run_is_taken_at_its_word() -> None:
    assert isinstance(convert_adder_layers(OnGpu(b=torch.ones(4))), AdderConv2d)
    with pytest.raises(ExportError, match="'beta', which may be its bias, but the layer does not"):
        convert_adder_layers(OnGpu(beta=torch.ones(4)))


def test_what_lost_its_bias_in_a_model_that_runs_in_float32_only(tmp_path: Path) -> None:
    """The layer fills zeros of float32: BatchNorm in float64 refuses what it gives."""

    class Single(Biased):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(1) + super().forward(x).float()

    model = nn.Sequential(
        Single(bias=torch.full((4,), 10.0)), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)
    )
    done = export_onnx(model.eval(), tmp_path / "net.onnx", (3, 6, 6))
    assert done.verification is not None
    assert done.verification.why_not_float64 is not None
    assert "mixed dtype" in done.verification.why_not_float64
    assert_right(model, tmp_path / "net.onnx")


@pytest.mark.parametrize("how", ["prune", "parametrization", "weight norm", "old weight norm"])
def test_computed_filters(how: str, tmp_path: Path) -> None:
    layer = Layer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "prune":
            prune.random_unstructured(layer, "adder", 0.5)  # type: ignore[no-untyped-call]
        elif how == "parametrization":

            class Doubled(nn.Module):
                def forward(self, w: Tensor) -> Tensor:
                    return 2 * w

            parametrize.register_parametrization(layer, "adder", Doubled())
        elif how == "weight norm":
            parametrizations.weight_norm(layer, "adder")
        else:
            nn.utils.weight_norm(layer, "adder")
        assert_right(network(layer), tmp_path / "net.onnx")


class Twice(nn.Module):
    """One layer under three names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Layer()
        self.first.adder = nn.Parameter(torch.randn(3, 3, 3, 3))
        self.again = self.first
        self.list = nn.ModuleList([self.first, nn.Sequential(self.first)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(x) / 20)
        return self.list[1](self.list[0](x / 20) / 20).mean((2, 3))  # type: ignore[no-any-return]


def test_layer_used_in_several_places(tmp_path: Path) -> None:
    model = Twice().eval()
    converted = convert_adder_layers(copy.deepcopy(model))
    layers = [m for m in converted.modules() if isinstance(m, (Layer, AdderConv2d))]
    assert [type(layer) for layer in layers] == [AdderConv2d]
    assert_right(model, tmp_path / "net.onnx")
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    assert sum(node.op_type == "AdderConv" for node in nodes) == 4


class Renamed(nn.Module):
    """Not at all like the reference's."""

    def __init__(self, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.bias = nn.Parameter(bias) if bias is not None else None
        self.stride = self.padding = (2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = distances(x, self.weight, 2, 2)
        return y if self.bias is None else y + self.bias


class Cdist(Renamed):
    def forward(self, x: Tensor) -> Tensor:
        u = functional.unfold(x, 3, padding=2, stride=2).transpose(1, 2).contiguous()
        y = -torch.cdist(u, self.weight.flatten(1), p=1.0).transpose(1, 2)
        return y.view(len(x), 4, *[(size + 1) // 2 + 1 for size in x.shape[2:]])


@pytest.mark.parametrize("kind", [Renamed, Cdist])
@pytest.mark.parametrize("qualified", [True, False])
def test_class_that_is_named(kind: type[nn.Module], qualified: bool, tmp_path: Path) -> None:
    name = f"{__name__}.{kind.__name__}" if qualified else kind.__name__
    assert_right(network(kind()), tmp_path / "net.onnx", adder_classes=[name])


def test_bias_of_four_dimensions_beside_filters_of_another_name(tmp_path: Path) -> None:
    model = network(Renamed(torch.randn(1, 4, 1, 1)))
    assert_right(model, tmp_path / "net.onnx", adder_classes=["Renamed"])


def test_bias_of_four_dimensions_beside_filters_of_one_pixel(tmp_path: Path) -> None:
    class Point(Renamed):
        def __init__(self) -> None:
            super().__init__(torch.randn(1, 4, 1, 1))
            self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))

    assert_right(network(Point()), tmp_path / "net.onnx", adder_classes=["Point"])


def test_module_around_an_adder_layer_is_none_itself(tmp_path: Path) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.stride, self.padding = Layer(), 1, 1
            self.alpha = nn.Parameter(torch.tensor(0.5))

        @property
        def adder(self) -> Tensor:
            return self.inner.adder

        def forward(self, x: Tensor) -> Tensor:
            return self.alpha * self.inner(quantized(x))  # type: ignore[no-any-return]

    assert_right(network(Around()), tmp_path / "net.onnx")


def test_cdist_names_the_class(tmp_path: Path) -> None:
    message = (
        f"layer '0' of class {__name__}.Cdist computes distances by torch.cdist.*--adder-class"
    )
    with pytest.raises(ExportError, match=message):
        export_onnx(network(Cdist()), tmp_path / "net.onnx", (3, 6, 6))
    assert not list(tmp_path.iterdir())


def test_distances_in_standard_operators_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export_onnx(network(Renamed()), tmp_path / "net.onnx", (3, 6, 6))
    assert f"layer '0' of class {__name__}.Renamed takes absolute differences" in caplog.text
    assert "the file has no AdderConv node" in caplog.text


def test_class_that_is_not_there() -> None:
    model = network(Layer())
    with pytest.raises(ExportError, match=r"no layer of the class Other; .*test_export_adder_lay"):
        convert_adder_layers(model, ["Other"])


def test_class_that_has_no_filters() -> None:
    with pytest.raises(
        ExportError, match=r"class torch.*Linear is to be an adder layer, but has no"
    ):
        convert_adder_layers(nn.Sequential(nn.Linear(2, 2)), ["Linear"])


def test_subclass_of_ours_is_traced(tmp_path: Path) -> None:
    class Quantized(AdderConv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(quantized(x))

    assert_right(network(Quantized(3, 4, 3)), tmp_path / "net.onnx")


@pytest.mark.parametrize(("name", "value"), [("padding_mode", "circular"), ("groups", None)])
def test_settings_that_an_adder_conv_does_not_have(name: str, value: object) -> None:
    layer = Layer()
    setattr(layer, name, value)
    with pytest.raises(ExportError, match=r"padding_mode .* and groups .*; expected"):
        convert_adder_layers(layer)
