"""From a fine-tuned network to a file with integer nodes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.numpy_helper import to_array
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

import adder_onnx
from adder_onnx.errors import ExportError, InputError
from adder_onnx.export import AdderConv2d, export_onnx, export_quantized, fake_quantize
from adder_onnx.export.fake_quantization.quantizer import FakeQuantizer, RoundWeights
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.metadata import ModelMetadata
from adder_onnx.quantization import trained as trained_module

RESNET = ResNetConfig("cifar", "basic", (1, 1), (8, 12), classes=5, in_channels=1)


class Mixed(nn.Module):
    """Signed inputs, a bias, no batch normalisation, MaxPool, F.relu, a reused layer, groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = AdderConv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.second = AdderConv2d(8, 8, 3, padding=1, groups=2, bias=True)
        self.bn2 = nn.BatchNorm2d(8)
        self.third = AdderConv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.first(x)))
        x = self.bn2(self.second(self.pool(x)))
        x = self.third(x) * 0.1
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def batches(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 1, 8, 8, generator=generator) for _ in range(count)]


def fine_tuned(model: nn.Module, bits: int, few: int | None = None) -> nn.Module:
    """Normalised on noise, then rounded and trained for a few steps."""
    model.train()
    with torch.no_grad():
        for batch in batches(20):
            model(batch)
    rounded = fake_quantize(model.eval(), bits, batches(2), levels=few)
    rounded.train()
    optimizer = torch.optim.SGD(rounded.parameters(), lr=0.02)
    for i, batch in enumerate(batches(4, seed=1)):
        optimizer.zero_grad()
        functional.cross_entropy(rounded(batch), (torch.arange(16) + i) % 5).backward()
        optimizer.step()
    return rounded


def levels(layer: nn.Module) -> tuple[FakeQuantizer, NDArray[np.uint8]]:
    """A layer's rounding, and the integers of its weights by torch."""
    (rounding,) = (m for m in layer.modules() if isinstance(m, RoundWeights))
    q = rounding.quantizer
    weights = parametrize_original(layer)
    zero = int(q.zero_point)
    found = (weights / q.log_scale.exp()).round() + zero
    first, last = (0, 2**q.bits - 1) if q.levels is None else (q.levels[0], q.levels[-1])
    return q, found.clamp(first, last).to(torch.uint8).detach().numpy()


def parametrize_original(layer: nn.Module) -> Tensor:
    assert parametrize.is_parametrized(layer, "adder")
    original = layer.parametrizations["adder"].original  # type: ignore[union-attr,index]
    assert isinstance(original, Tensor)
    return original


@pytest.mark.parametrize(
    ("network", "bits", "few"),
    [
        (lambda: ResNet(RESNET), 2, None),
        (Mixed, 4, None),
        (lambda: ResNet(RESNET), 4, 5),
        (Mixed, 5, 8),
    ],
    ids=["ResNet", "Mixed", "ResNet, few levels", "Mixed, few levels"],
)
def test_the_file(
    network: Any, bits: int, few: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = fine_tuned(network(), bits, few)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    result = export_quantized(
        model, tmp_path / "q.onnx", batches(2), metadata=ModelMetadata(architecture="mine")
    )
    assert model.training
    assert [r for r in caplog.records if r.name.startswith("adder_onnx")] == []
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), name
    assert result.bytes == result.path.stat().st_size
    assert result.left == ()
    assert result.snr["logits"] > 15
    proto = onnx.load(result.path)
    props = {entry.key: entry.value for entry in proto.metadata_props}
    assert ModelMetadata.from_props(props).architecture == "mine"

    # All layers are integer nodes, with the integers and the scale that torch has.
    arrays = {t.name: to_array(t) for t in proto.graph.initializer}
    nodes = {n.name: n for n in proto.graph.node if n.op_type == "QLinearAdderConv"}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, AdderConv2d)}
    assert nodes.keys() == layers.keys() == {n.name for n in result.nodes}
    assert not any(n.op_type == "AdderConv" for n in proto.graph.node)
    for name, layer in layers.items():
        q, expected = levels(layer)
        weight, scale, zero = (arrays[nodes[name].input[i]] for i in (1, 2, 3))
        np.testing.assert_array_equal(weight, expected)
        assert 3 <= len(np.unique(weight)) <= 2**bits
        assert (scale, zero) == (q.log_scale.exp().float().numpy(force=True), int(q.zero_point))

    # Inputs have the levels that torch has; those of floats come from tables.
    made = {n.output[0]: n for n in nodes.values()}
    pooled = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "MaxPool"}
    tables = {n.output[0]: arrays[n.input[0]] for n in proto.graph.node if n.op_type == "Gather"}
    for name, layer in layers.items():
        own = levels(layer)[0].levels
        assert (own is None) == (few is None)
        if own is None:
            continue
        assert len(own) == few
        source = pooled.get(nodes[name].input[0], nodes[name].input[0])
        if source in made:
            (given,) = (a.ints for a in made[source].attribute if a.name == "levels")
            assert list(given) == own.tolist()
        else:
            assert np.unique(tables[source]).tolist() == own.tolist()

    # The network is that of torch, but for 8 bits of what is not rounded there.
    model.eval()
    images = torch.cat(batches(4, seed=2))
    with torch.no_grad():
        expected_logits = model(images).numpy()
    session = adder_onnx.InferenceSession(result.path)
    (logits,) = session.run(None, {"input": images.numpy()})
    error = np.asarray(logits) - expected_logits
    spread = expected_logits.std(axis=0).mean()
    # Some floats next to a border become the other level (`few_levels.entry_of`).
    assert np.sqrt((error**2).mean()) < (0.1 if few is None else 0.25) * spread

    # And so it is where nothing of ours is installed.
    (portable,) = onnxruntime.InferenceSession(result.path).run(None, {"input": images.numpy()[:3]})
    np.testing.assert_allclose(portable, np.asarray(logits)[:3], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(1)
    return fake_quantize(
        nn.Sequential(nn.ReLU(), AdderConv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 5)),
        4,
        batches(1),
    )


def test_what_is_wrong(small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.onnx"
    with pytest.raises(ExportError, match="the model is not fake-quantized"):
        export_quantized(nn.Conv2d(1, 1, 1), path, batches(1))
    with pytest.raises(InputError, match="there are no batches"):
        export_quantized(small, path, [])
    with pytest.raises(InputError, match="a batch is int; expected images"):
        export_quantized(small, path, [3])  # type: ignore[list-item]

    original = trained_module.trained_layer

    def wrong(node: Any, quantization: Any) -> Any:
        found = original(node, quantization)
        return dataclasses.replace(found, weight=255 - found.weight)

    monkeypatch.setattr(trained_module, "trained_layer", wrong)
    with pytest.raises(ExportError, match="logits: the file in adder-onnx differs from PyTorch"):
        export_quantized(small, path, batches(1))
    assert not path.exists()


def test_a_fixed_number_of_images(small: nn.Module, tmp_path: Path) -> None:
    """Code that makes the batch a constant: the file takes one image at a time."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.inner(x[i : i + 1])[0] for i in range(int(x.shape[0]))])

    result = export_quantized(Fixed(), tmp_path / "q.onnx", [b[:3] for b in batches(1)])
    shape = onnx.load(result.path).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 1, 8, 8]


def test_exporting_a_parametrized_model_leaves_it_as_it_is(tmp_path: Path) -> None:
    """A copy has the class of its original, from which PyTorch removes a parametrization."""

    class Halved(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w / 2

    model = nn.Sequential(AdderConv2d(1, 3, 3))
    parametrize.register_parametrization(model[0], "adder", Halved())
    x = torch.randn(2, 1, 8, 8)
    expected = model(x)
    clone = copy.deepcopy(model)
    export_onnx(model, tmp_path / "x.onnx", (1, 8, 8), no_verify=True)
    assert torch.equal(model(x), expected)
    assert torch.equal(clone(x), expected)
    (found,) = adder_onnx.InferenceSession(tmp_path / "x.onnx").run(None, {"input": x.numpy()})
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)
